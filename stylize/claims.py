"""Claims: how runs that share work, on one machine or several, agree on who paints what.

A claim is a small file ``NAME.0`` in a folder that all of them see. Whoever creates it, exclusively, has the claim, and
rewrites it every few seconds with a count that has gone up. A waiting run takes it over when the content has not
changed for three of these intervals by its own clock, or at once if the process is known to have died: it creates
``NAME.1``, exclusively, so that exactly one of several waiting runs succeeds, and so on. The highest number counts.
No clocks of two machines are compared, no file is locked, and no time stamp of a file is read: file systems that
machines share are unreliable in all three.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

REFRESH = 5.0  # seconds between two refreshes of a claim
STALE = 3  # refreshes that a claim must have missed before it is taken over

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Seen:
    """What a claim held when it was last looked at, and since when (monotonic seconds) it has not changed."""

    path: Path
    content: bytes
    since: float


class Claims:
    """The claims of one run in a folder.

    Claims are refreshed by a background thread until they are released. Threads may share an instance.

    Args:
        folder: where the claims lie, made when it is needed and removed when it is empty.
        refresh: seconds between two refreshes; the same in all runs.
    """

    def __init__(self, folder: Path, *, refresh: float = REFRESH) -> None:
        self._folder, self._refresh = folder, refresh
        self._token = secrets.token_hex(8)
        self._held: dict[str, Path] = {}
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._beat = 0

    def take(self, key: str) -> bool:
        """Whether this run has the claim on ``key``: it had it, took it, or took it over."""
        with self._lock:
            if key in self._held:
                return True
            try:
                path = self._taken(key)
            except OSError as error:
                log.warning(
                    "no claims in %s (%s): other runs may paint the same", self._folder, error.strerror or error
                )
                return True
            if path is None:
                return False
            self._held[key] = path
            self._seen.pop(key, None)
            if self._thread is None:
                self._closed.clear()
                self._thread = threading.Thread(target=self._keep_alive, name="claims", daemon=True)
                self._thread.start()
            return True

    def release(self, key: str) -> None:
        """Let others have the claim on ``key``."""
        with self._lock:
            path = self._held.pop(key, None)
            claims = self._claims(key)
            if path is None or path not in claims[-1:] or not self._is_ours(path):  # it was taken over
                return
            for each in claims:  # the lowest number first: while a higher one is there, nobody can succeed to a lower
                with contextlib.suppress(OSError):
                    each.unlink()
            with contextlib.suppress(OSError):
                self._folder.rmdir()  # fails while it holds other claims

    def close(self) -> None:
        """Release all claims, and remove those that processes of this machine left when they were killed."""
        for key in list(self._held):
            self.release(key)
        with contextlib.suppress(OSError):
            for path in list(self._folder.iterdir()):
                if _has_died(_content(path) or b""):
                    path.unlink(missing_ok=True)
            self._folder.rmdir()
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None

    # --- taking

    def _taken(self, key: str) -> Path | None:
        """The file of a claim that was free, or whose holder is gone; None if it is held."""
        claims = self._claims(key)
        if not claims:
            return self._create(self._path(key, 0))
        latest = claims[-1]
        content = _content(latest)
        if content is None:  # released this moment
            return None
        seen = self._seen.get(key)
        if seen is None or (seen.path, seen.content) != (latest, content):
            seen = self._seen[key] = _Seen(latest, content, time.monotonic())
        if not _has_died(content) and time.monotonic() - seen.since <= STALE * self._refresh:
            return None
        taken = self._create(self._path(key, int(latest.suffix[1:]) + 1))
        if taken is not None and _content(latest) != content:  # its holder is back, or has released it since
            taken.unlink(missing_ok=True)
            return None
        return taken

    def _create(self, path: Path) -> Path | None:
        for _ in range(10):  # the folder may be removed as soon as it is made
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return None
            except FileNotFoundError:
                continue
            try:
                os.write(file, self._written())
            finally:
                os.close(file)
            return path
        return None

    def _path(self, key: str, number: int) -> Path:
        name = sha256(os.fsencode(key)).hexdigest()[:32]
        return self._folder / f"{name}.{number}"

    def _claims(self, key: str) -> list[Path]:
        """The files of a claim, that of its holder last."""
        try:
            found = [path for path in self._folder.glob(f"{self._path(key, 0).stem}.*") if path.suffix[1:].isdigit()]
        except OSError:
            return []
        return sorted(found, key=lambda path: int(path.suffix[1:]))

    # --- holding

    def _written(self) -> bytes:
        """The content of a claim, as long after every refresh."""
        held = {"host": _host(), "process": os.getpid(), "run": self._token, "beat": f"{self._beat:012}"}
        return json.dumps(held).encode()

    def _is_ours(self, path: Path) -> bool:
        content = _content(path)
        return content is not None and self._token.encode() in content

    def _keep_alive(self) -> None:
        while not self._closed.wait(self._refresh):
            with self._lock:
                self._beat += 1
                for path in self._held.values():
                    self._write_beat(path)

    def _write_beat(self, path: Path) -> None:
        """Refresh a claim, in the file that holds our content: should another run have taken it over, this changes
        nothing of theirs."""
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:
            return
        try:
            with contextlib.suppress(OSError):
                if self._token.encode() in os.read(file, 4096):
                    os.lseek(file, 0, os.SEEK_SET)
                    os.write(file, self._written())
        finally:
            os.close(file)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _has_died(content: bytes) -> bool:
    """Whether a claim was held by a process of this machine that is gone."""
    try:
        held = json.loads(content)
        host, process = held["host"], int(held["process"])
    except (ValueError, KeyError, TypeError):  # not written yet
        return False
    return host == _host() and not is_alive(process)


def _host() -> str:
    """This machine, or the container on it: process numbers mean the same within it."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        name += f" {Path('/proc/self/ns/pid').readlink()}"
    return name


def is_alive(process: int) -> bool:
    """Whether a process of this machine may still run."""
    if os.name == "nt":  # asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
