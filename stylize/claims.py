"""Claims: how runs that share work, on one machine or several, agree on who paints what.

A claim is a small file ``NAME.0`` in a folder that all of them see. Whoever creates it, exclusively, has the claim, and
rewrites it every few seconds with a count that has gone up. A run that waits for it takes it over when it has looked
three times, at least that interval apart, and found no change; or at once if the process is known to have died. To do
so it creates ``NAME.1``, exclusively, so that exactly one of several waiting runs succeeds, and so on. The highest
number counts. A holder that was late to rewrite its claim, because its machine slept, creates the next number itself:
if another was first, it has lost the claim.

No clocks of two machines are compared, no file is locked, and no time stamp of a file is read: file systems that
machines share are unreliable in all three.

``.TOKEN.run`` in the same folder says how far a run is (see :mod:`stylize.runfiles`), ``.TOKEN.done`` lists what it has
painted, where that cannot be seen from the results.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from stylize.machines import is_alive, is_stopped, machine, started
from stylize.runfiles import RunFile
from stylize.stores import StorePath, as_path

REFRESH = 5.0  # seconds between two refreshes of a claim; STYLIZE_REFRESH sets others
STALE = 3  # refreshes that a claim must have missed before it is taken over
PATIENCE = 4  # times as many for a process of this machine that runs: the machine may be very busy
SIZE = 512  # bytes of a claim, at least: the same after every refresh

log = logging.getLogger(__name__)


def claims_inside(folder: Path) -> Path:
    """Where the claims on the results of an output folder lie."""
    return folder / ".stylize-claims"


def claims_beside(target: Path) -> Path:
    """Where the claims on the parts of one result, such as a clip, lie."""
    return target.with_name(f".{target.name}.claims")


def refresh_interval() -> float:
    """Seconds between two refreshes of a claim."""
    try:
        return max(0.05, float(os.environ["STYLIZE_REFRESH"]))
    except (KeyError, ValueError):
        return REFRESH


@dataclass
class _Held:
    """A claim that this run has: its file, when it was last refreshed (seconds of this machine), if it was lost."""

    path: Path
    refreshed: float
    lost: bool = False


class Claims:
    """The claims of one run in a folder.

    Claims are refreshed by a background thread until they are released. Threads may share an instance.

    Args:
        folder: where the claims lie, made when it is needed and removed when it is empty.
        refresh: seconds between two refreshes, the same in all runs; default: 5, or what STYLIZE_REFRESH says.
    """

    def __init__(self, folder: Path, *, refresh: float | None = None) -> None:
        folder = as_path(folder).absolute()  # also when the process goes to another folder
        self._folder, self._refresh = folder, refresh or refresh_interval()
        self._token = secrets.token_hex(8)
        self._held: dict[str, _Held] = {}
        self._watch = Watch(self._refresh)
        self._file = RunFile(folder, self._token)
        self._done = _StoredDone(folder) if isinstance(folder, StorePath) else _Done(folder, self._token)
        self._lock = threading.Lock()  # of the files of claims
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._beat = 0
        self._alone = False  # no claims can be made there at all

    def take(self, key: str) -> bool:
        """Whether this run has the claim on ``key``: it had it, took it, or took it over."""
        with self._lock:
            held = self._held.get(key)
            if held is not None and not held.lost:
                return True
            self._held.pop(key, None)
            if self._alone:
                return True
            now = _now()
            try:
                path = self._taken(key)
            except OSError as error:
                self._alone = error.errno == errno.ENOTSUP
                log.warning(
                    "no claims in %s (%s): other runs may paint the same", self._folder, error.strerror or error
                )
                return True
            if path is not None:
                self._held[key] = _Held(path, now)
                self._file.begin(key)
        self._keep_refreshing()
        return path is not None

    def holds(self, key: str) -> bool:
        """Whether the claim on ``key``, once taken, is still this run's: looks at the file, so that a process that was
        stopped for a while learns what happened meanwhile."""
        with self._lock:
            held = self._held.get(key)
            if held is None:  # no claims can be made there
                return True
            now = _now()
            if not held.lost and now - held.refreshed > self._refresh:
                self._refresh_claim(key, held, now)
            elif self._claims(key)[-1:] != [held.path]:
                held.lost = True
            return not held.lost

    def is_lost(self, key: str) -> bool:
        """Whether another run has taken over the claim on ``key``, as far as is known without looking."""
        held = self._held.get(key)
        return held is not None and held.lost

    def release(self, key: str) -> None:
        """Let others have the claim on ``key``."""
        with self._lock:
            held = self._held.pop(key, None)
            self._file.end(key)
            if held is None:
                return
            claims = self._claims(key)
            if held.lost or held.path not in claims[-1:] or not self._is_ours(held.path):  # it was taken over
                return
            _unlink(claims)

    def is_held_by_the_living(self, key: str) -> bool | None:
        """Whether the run that has the claim on ``key`` is at work: it has refreshed it since this was first asked, or
        is a process of this machine; None if that cannot be told yet."""
        claims = self._claims(key)
        content = _content(claims[-1]) if claims else None
        if content is None:
            return False
        self._watch.missed(claims[-1], content)
        return self._watch.is_living(claims[-1], content)

    # --- what runs tell each other

    def tell(self, **facts: Any) -> None:
        """Say how far this run is, for ``stylize status``; see :class:`stylize.runfiles.RunFile`."""
        with contextlib.suppress(OSError):
            self._file.tell(facts)
        self._keep_refreshing()

    def count(self, seconds: float) -> None:
        """Count a picture or frame that this run has painted in so many seconds."""
        self._file.count(seconds)

    def note_done(self, key: str) -> None:
        """Let other runs know that ``key`` is done, as long as one of them is at work."""
        with contextlib.suppress(OSError):
            self._done.note(key)

    def is_done(self, key: str) -> bool:
        """Whether a run, this one or another, has said so."""
        return self._done.has(key)

    # --- the end

    def clear(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Remove the claims of runs that are gone, when all work is done. Those of other machines must be watched for
        three refreshes, or until one of them is refreshed; ends early when ``stop`` says so."""
        begun, said = time.monotonic(), False
        with contextlib.suppress(OSError):
            self._file.close()
        while not stop():
            unknown = False
            for path, content in self._others():
                missed = self._watch.missed(path, content)
                if _has_died(content) or missed >= STALE * _patience(content):
                    path.unlink(missing_ok=True)
                elif self._watch.is_living(path, content) is None:
                    unknown = True
            if not unknown:
                return
            if not said and time.monotonic() - begun > self._refresh:
                log.info("waiting to see whether another run, of which there are claims in %s, lives", self._folder)
                said = True
            time.sleep(min(0.5, self._refresh / 5))

    def close(self) -> None:
        """Release all claims, and remove those that processes of this machine left when they were killed."""
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None
        for key in list(self._held):
            self.release(key)
        with contextlib.suppress(OSError):
            self._file.close()
            for path, content in self._others():
                if _has_died(content):
                    path.unlink(missing_ok=True)
            if not any(True for _ in self._others()):
                _unlink(path for path in self._folder.iterdir() if path.suffix in (".run", ".done", ".tmp"))
            self._folder.rmdir()  # fails while it holds claims of others

    def _others(self) -> Iterator[tuple[Path, bytes]]:
        """The files of other runs that have not ended, and what they hold."""
        with contextlib.suppress(OSError):
            for path in list(self._folder.iterdir()):
                if path.suffix[1:].isdigit() or path.suffix == ".run":
                    content = _content(path)
                    if content is not None and self._token.encode() not in content and b'"ended"' not in content:
                        yield path, content

    # --- taking

    def _taken(self, key: str) -> Path | None:
        """The file of a claim that was free, or whose holder is gone; None if it is held."""
        if (first := self._create(key, 0)) is not None:
            if self._claims(key)[-1:] == [first]:
                return first
            first.unlink(missing_ok=True)  # there is a higher one
        claims = self._claims(key)
        content = _content(claims[-1]) if claims else None
        if content is None:  # released this moment
            return None
        latest = claims[-1]
        missed = self._watch.missed(latest, content)
        if not _has_died(content) and missed < STALE * _patience(content):
            return None
        taken = self._create(key, int(latest.suffix[1:]) + 1)
        if taken is not None and _content(latest) != content:  # its holder is back, or has released it since
            taken.unlink(missing_ok=True)
            return None
        self._watch.forget(latest)
        return taken

    def _create(self, key: str, number: int) -> Path | None:
        path = self._path(key, number)
        for _ in range(10):  # the folder may be removed as soon as it is made
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                return path if _create(path, self._written(key)) else None
            except FileNotFoundError:
                continue
        return None

    def _path(self, key: str, number: int) -> Path:
        name = sha256(os.fsencode(key)).hexdigest()[:32]
        return self._folder / f"{name}.{number}"

    def _claims(self, key: str) -> list[Path]:
        """The files of a claim, that of its holder last."""
        name = self._path(key, 0).stem
        try:
            numbers = [each[33:] for each in _names(self._folder) if each.startswith(f"{name}.")]
        except OSError:
            return []
        return [self._folder / f"{name}.{number}" for number in sorted(map(int, filter(str.isdigit, numbers)))]

    # --- holding

    def _written(self, key: str) -> bytes:
        """The content of a claim, as long after every refresh."""
        held = {
            "host": machine(),
            "process": os.getpid(),
            "started": started(os.getpid()),
            "run": self._token,
            "beat": f"{self._beat:012}",
            "key": key,
        }
        return json.dumps(held).encode().ljust(SIZE)

    def _is_ours(self, path: Path) -> bool:
        content = _content(path)
        return content is not None and self._token.encode() in content

    def _keep_refreshing(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._keep_alive, name="claims", daemon=True)
                self._thread.start()

    def _keep_alive(self) -> None:
        while not self._closed.wait(self._refresh):
            self._beat += 1
            for key in list(self._held):
                with self._lock:
                    held = self._held.get(key)
                    if held is not None and not held.lost:
                        self._refresh_claim(key, held, _now())
            self._watch.look()
            with contextlib.suppress(OSError):
                self._file.write(self._beat)

    def _refresh_claim(self, key: str, held: _Held, now: float) -> None:
        """Refresh a claim, and find out whether another run has taken it over."""
        late = now - held.refreshed > (STALE - 1) * self._refresh
        try:
            if late:  # others may be about to take it over, or have, and have released it since
                successor = self._create(key, int(held.path.suffix[1:]) + 1) if self._is_ours(held.path) else None
                if successor is None or self._claims(key)[-1:] != [successor]:
                    held.lost = True
                    if successor is not None:
                        successor.unlink(missing_ok=True)
                    return
                held.path.unlink(missing_ok=True)
                held.path = successor
            else:
                self._rewrite(key, held)
                if self._claims(key)[-1:] != [held.path]:
                    held.lost = True
                    return
            held.refreshed = now
        except OSError:  # the disk does not answer: it counts as late next time
            return

    def _rewrite(self, key: str, held: _Held) -> None:
        """Write the file of a claim anew, in place: should another run have removed it, nothing of theirs changes."""
        try:
            held.lost = not _rewrite(held.path, self._token.encode(), self._written(key))
        except FileNotFoundError:  # someone has removed it
            self._create(key, 0)
            held.path = self._path(key, 0)
            held.lost = not self._is_ours(held.path)


@dataclass
class _Seen:
    """What a file held when it was last looked at, how many refreshes it has missed since, whether it ever changed."""

    content: bytes
    counted: float  # when the last of those was counted, monotonic seconds
    missed: int = 0
    changed: bool = False


@dataclass
class Watch:
    """Watches files that others refresh.

    Of the time between two looks, only as much counts as one refresh takes: when this machine was asleep itself, or was
    too busy to look, that tells nothing of the others.
    """

    refresh: float  # seconds between two refreshes
    _seen: dict[Path, _Seen] = field(default_factory=dict)

    def missed(self, path: Path, content: bytes) -> int:
        """How many refreshes a file that holds ``content`` now has missed while it was watched."""
        now, seen = time.monotonic(), self._seen.get(path)
        if seen is None or seen.content != content:
            same = seen is not None and _read(seen.content).get("run") == _read(content).get("run")
            self._seen[path] = _Seen(content, now, changed=same)
            return 0
        if now - seen.counted >= self.refresh:
            seen.missed, seen.counted = seen.missed + 1, now
        return seen.missed

    def is_living(self, path: Path, content: bytes) -> bool | None:
        """Whether the process that refreshes a file lives, as far as is known: it has refreshed it since it was first
        looked at, or is one of this machine."""
        if _has_died(content):
            return False
        seen = self._seen.get(path)
        if seen is not None and seen.missed >= STALE * _patience(content):
            return False
        return True if (seen is not None and seen.changed) or _is_of_this_machine(content) else None

    def look(self) -> None:
        """Look at every file that was asked for before; those that are gone are forgotten."""
        for path in list(self._seen):
            content = _content(path)
            if content is None:
                self.forget(path)
            else:
                self.missed(path, content)

    def forget(self, path: Path) -> None:
        """Watch a file no longer."""
        self._seen.pop(path, None)


class _Done:
    """What the runs in a folder have done, each in a file that it alone appends to."""

    def __init__(self, folder: Path, token: str) -> None:
        self._folder, self._token = folder, token
        self._keys: set[str] = set()
        self._read: dict[Path, int] = {}  # bytes

    def note(self, key: str) -> None:
        self._keys.add(key)
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f".{self._token}.done").open("ab") as file:
            file.write(json.dumps(key).encode() + b"\n")

    def has(self, key: str) -> bool:
        with contextlib.suppress(OSError):
            for name in _names(self._folder):
                if name.endswith(".done"):
                    self._read_on(self._folder / name)
        return key in self._keys

    def _read_on(self, path: Path) -> None:
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            text = file.read()
            whole = text.rfind(b"\n") + 1  # the rest is being written
            self._read[path] = self._read.get(path, 0) + whole
            for line in text[:whole].splitlines():
                with contextlib.suppress(ValueError):
                    self._keys.add(str(json.loads(line)))


class _StoredDone:
    """The same in a store, where nothing can be appended: a file for each."""

    def __init__(self, folder: StorePath) -> None:
        self._folder = folder

    def note(self, key: str) -> None:
        self._file(key).write_bytes(json.dumps(key).encode())

    def has(self, key: str) -> bool:
        return self._file(key).exists()

    def _file(self, key: str) -> StorePath:
        return self._folder / f".{sha256(os.fsencode(key)).hexdigest()[:32]}.done"


def _names(folder: Path) -> list[str]:
    """The names of what is in a folder."""
    if isinstance(folder, StorePath):
        return [path.name for path in folder.iterdir()]
    return os.listdir(folder)  # noqa: PTH208, a Path for each takes longer


def _create(path: Path, content: bytes) -> bool:
    """Write a file unless there is one already; whether it was written."""
    if isinstance(path, StorePath):
        return path.create(content)
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(file, content)
    finally:
        os.close(file)
    return True


def _rewrite(path: Path, mark: bytes, content: bytes) -> bool:
    """Write a file that is there, and holds a mark, anew, in place; whether it holds the mark."""
    if isinstance(path, StorePath):
        if mark not in path.read_bytes():
            return False
        path.write_bytes(content)
        return True
    file = os.open(path, os.O_RDWR)
    try:
        if mark not in os.read(file, 4096):
            return False
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, content)
    finally:
        os.close(file)
    return True


def _now() -> float:
    """Seconds of this machine, those in which it was suspended included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _unlink(paths: Iterable[Path]) -> None:
    """Remove files, the lowest number of a claim first: while a higher one is there, nobody can succeed to a lower."""
    for path in list(paths):
        with contextlib.suppress(OSError):
            path.unlink()


def _read(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:  # not written yet
        return {}
    return found if isinstance(found, dict) else {}


def _holder(content: bytes) -> tuple[int, str] | None:
    """The number and the start of the process that has a claim, if it is one of this machine."""
    found = _read(content)
    process, begun = found.get("process"), found.get("started")
    if found.get("host") != machine() or not isinstance(process, int):
        return None
    return process, str(begun or "")


def _has_died(content: bytes) -> bool:
    """Whether a claim was held by a process of this machine that is gone."""
    holder = _holder(content)
    return holder is not None and not is_alive(*holder)


def _is_of_this_machine(content: bytes) -> bool:
    return _holder(content) is not None


def _patience(content: bytes) -> int:
    """How many times as long as others a holder is waited for."""
    holder = _holder(content)
    return PATIENCE if holder is not None and not is_stopped(holder[0]) else 1
