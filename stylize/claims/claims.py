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
painted (see :mod:`stylize.claims.done`).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylize.claims.done import DoneLists
from stylize.claims.files import ClaimFiles, content_of, look_anew, unlink
from stylize.claims.watch import STALE, Watch, has_died, patience, refresh_interval
from stylize.runfiles import RunFile
from stylize.stores import as_path

log = logging.getLogger(__name__)


def claims_inside(folder: Path) -> Path:
    """Where the claims on the results of an output folder lie."""
    return folder / ".stylize-claims"


def claims_beside(target: Path) -> Path:
    """Where the claims on the parts of one result, such as a clip, lie."""
    return target.with_name(f".{target.name}.claims")


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
        token = secrets.token_hex(8)
        self._files, self._file = ClaimFiles(folder, token), RunFile(folder, token)
        self._done = DoneLists(folder, token, self._refresh / 5)
        self._held: dict[str, _Held] = {}
        self._watch = Watch(self._refresh)
        self._lock = threading.Lock()  # of the files of claims
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
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
            elif self._files.of(key)[-1:] != [held.path]:
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
            claims = self._files.of(key)
            if held.lost or held.path not in claims[-1:] or not self._files.is_ours(held.path):  # it was taken over
                return
            unlink(claims)

    def is_held_by_the_living(self, key: str) -> bool | None:
        """Whether the run that has the claim on ``key`` is at work: it has refreshed it since this was first asked, or
        is a process of this machine; None if that cannot be told yet."""
        claims = self._files.of(key)
        content = content_of(claims[-1]) if claims else None
        if content is None:
            return False
        self._watch.missed(claims[-1], content)
        return self._watch.is_living(claims[-1], content)

    def refresh(self) -> None:
        """Refresh all claims, say how far this run is, and look at what others do; the background thread calls it."""
        self._files.beat += 1
        for key in list(self._held):
            with self._lock:
                held = self._held.get(key)
                if held is not None and not held.lost:
                    self._refresh_claim(key, held, _now())
        self._watch.look()
        with contextlib.suppress(OSError):
            self._file.write(self._files.beat)
        with contextlib.suppress(OSError):
            self._done.exchange()

    def look_anew(self, folder: Path) -> None:
        """After a claim was taken: have this machine look anew at which results are in a folder. Of a network file
        system it may remember that, and what was missing, for a minute."""
        look_anew(folder)

    # --- what runs tell each other

    def tell(self, **facts: Any) -> None:
        """Say how far this run is, for ``stylize status``; see :class:`stylize.runfiles.RunFile`."""
        with contextlib.suppress(OSError):
            self._file.tell(facts)
        self._keep_refreshing()

    def count(self, seconds: float) -> None:
        """Count a picture or frame that this run has painted in so many seconds."""
        self._file.count(seconds)

    def note_done(self, key: str, mark: str = "", *, at_once: bool = True) -> None:
        """Let other runs know that ``key`` is done, as long as one of them is at work: before the claim is released, or
        within a refresh or so. ``mark`` says what was made of it."""
        with contextlib.suppress(OSError):
            self._done.note(key, mark, at_once=at_once)

    def is_done(self, key: str, mark: str = "") -> bool:
        """Whether a run, this one or another, has said so: looks."""
        return self._done.has(key, mark)

    def is_known_done(self, key: str, mark: str = "") -> bool:
        """Whether a run has said so since :meth:`watch_done`, as far as is known without looking."""
        return self._done.knows(key, mark)

    def watch_done(self) -> None:
        """Learn from now on what other runs say is done: with every refresh, or less often where there are many."""
        self._done.start_anew()

    def look_done(self) -> None:
        """Learn it now, unless that was a moment ago."""
        self._done.look()

    # --- the end

    def clear(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Remove the claims of runs that are gone, when all work is done. Those of other machines must be watched for
        three refreshes, or until one of them is refreshed; ends early when ``stop`` says so."""
        begun, said = time.monotonic(), False
        with contextlib.suppress(OSError):
            self._file.close()
        while not stop():
            unknown = False
            for path, content in self._files.of_others():
                missed = self._watch.missed(path, content)
                if has_died(content) or missed >= STALE * patience(content):
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
        with contextlib.suppress(OSError):
            for path, content in self._files.of_others():
                if has_died(content):
                    path.unlink(missing_ok=True)
            if any(True for _ in self._files.of_others()):
                self._done.write(last=True)
            else:
                unlink(path for path in self._folder.iterdir() if path.suffix in (".run", ".done", ".tmp"))
            self._folder.rmdir()  # fails while it holds claims of others

    # --- taking

    def _taken(self, key: str) -> Path | None:
        """The file of a claim that was free, or whose holder is gone; None if it is held."""
        if (first := self._files.create(key, 0)) is not None:
            if self._files.of(key)[-1:] == [first]:
                return first
            first.unlink(missing_ok=True)  # there is a higher one
        claims = self._files.of(key)
        content = content_of(claims[-1]) if claims else None
        if content is None:  # released this moment
            return None
        latest = claims[-1]
        missed = self._watch.missed(latest, content)
        if not has_died(content) and missed < STALE * patience(content):
            return None
        taken = self._files.create(key, int(latest.suffix[1:]) + 1)
        if taken is not None and (content_of(latest) != content or self._files.of(key)[-1:] != [taken]):
            taken.unlink(missing_ok=True)  # its holder is back, or has released it since; or there is a higher one
            return None
        self._watch.forget(latest)
        return taken

    # --- holding

    def _keep_refreshing(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._keep_alive, name="claims", daemon=True)
                self._thread.start()

    def _keep_alive(self) -> None:
        while not self._closed.wait(self._refresh):
            self.refresh()

    def _refresh_claim(self, key: str, held: _Held, now: float) -> None:
        """Refresh a claim, and find out whether another run has taken it over."""
        late = now - held.refreshed > (STALE - 1) * self._refresh
        try:
            if late:  # others may be about to take it over, or have, and have released it since
                number = int(held.path.suffix[1:]) + 1
                successor = self._files.create(key, number) if self._files.is_ours(held.path) else None
                if successor is None or self._files.of(key)[-1:] != [successor]:
                    held.lost = True
                    if successor is not None:
                        successor.unlink(missing_ok=True)
                    return
                held.path.unlink(missing_ok=True)
                held.path = successor
            else:
                self._rewrite(key, held)
                if self._files.of(key)[-1:] != [held.path]:
                    held.lost = True
                    return
            held.refreshed = now
        except OSError:  # the disk does not answer: it counts as late next time
            return

    def _rewrite(self, key: str, held: _Held) -> None:
        try:
            held.lost = not self._files.rewrite(held.path, key)
        except FileNotFoundError:  # someone has removed it
            self._files.create(key, 0)
            held.path = self._files.path(key, 0)
            held.lost = not self._files.is_ours(held.path)


def _now() -> float:
    """Seconds of this machine, those in which it was suspended included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
