"""The files of a folder job: photos that are read, results that are written, and what became of each."""

from __future__ import annotations

import errno
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch

from stylize import (
    SPARE,
    ImageError,
    Painted,
    Picture,
    StorePath,
    StylizeError,
    atomic_write,
    check_folder,
    check_target,
    is_folder,
    keeping_edits,
    load,
    read_record,
)
from stylize_batch.plan import NEW, Item, Planner
from stylize_batch.report import Entry, thumbnail

AHEAD = 2  # pictures read ahead, and pictures waiting to be written
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # what the next picture would run into, too


@dataclass(frozen=True)
class Outcome:
    """What became of a picture, what is to be said of it, if no other can be written either, why, and whether another
    run has painted it."""

    entry: Entry
    said: str = ""
    fatal: str = ""
    elsewhere: bool = False


class Files:
    """Reads the photos of a folder job and writes its results, in threads of their own.

    Args:
        folder: where results are written.
        styles: the names of the styles, by number.
        planner: knows which files are not to be painted over.
        options: those of the job.
        size: the longest side of the results, in px.
    """

    def __init__(
        self, folder: Path, styles: Sequence[str], planner: Planner, options: Mapping[str, Any], size: int
    ) -> None:
        self._folder, self._styles, self._planner, self._options, self._size = folder, styles, planner, options, size
        self._reading: dict[PurePath, Future[Picture]] = {}
        self._writing: deque[Future[Outcome]] = deque()

    def open(self) -> None:
        """Start the threads."""
        # One thread of torch in each: a second team of OpenMP threads would make those of the optimisation sleep
        # between operations instead of waiting, and cost it half its speed. The setting is the thread's own.
        self._readers = ThreadPoolExecutor(AHEAD, "read", torch.set_num_threads, (1,))
        self._writer = ThreadPoolExecutor(1, "write", torch.set_num_threads, (1,))

    def close(self) -> None:
        """Wait until all is written, and end the threads."""
        self._readers.shutdown(cancel_futures=True)
        self._writer.shutdown()

    def read_ahead(self, items: Iterable[Item]) -> None:
        """Begin to read the photos of items that come next."""
        for item in items:
            if item.target not in self._reading and not item.other:
                self._reading[item.target] = self._readers.submit(self._load, item)

    def forget(self, item: Item) -> None:
        """The photo of an item is not needed any more."""
        self._reading.pop(item.target, None)

    def forget_all(self) -> None:
        """No photo that was to be read ahead is needed any more."""
        for reading in self._reading.values():
            reading.cancel()
        self._reading.clear()

    def read(self, item: Item) -> Picture:
        """The photo of an item, at the size at which it is needed.

        Raises:
            ImageError: it cannot be read.
        """
        reading = self._reading.pop(item.target, None)
        return self._load(item) if reading is None else reading.result()

    def later(self, write: Callable[[], Outcome]) -> Future[Outcome]:
        """Call a function in the writing thread; waits while several others are to be called before."""
        self.wait(AHEAD - 1)
        self._writing.append(self._writer.submit(write))
        return self._writing[-1]

    def wait(self, left: int = 0) -> None:
        """Wait until at most so many results are left to be written."""
        while len(self._writing) > left:
            self._writing.popleft().result()

    def check(self, item: Item) -> None:
        """Raise now what writing the result would raise."""
        path = self._folder / item.target
        make_folder(path.parent)
        check_target(path, bits=self._options.get("bits"), quality=self._options.get("quality"))

    def write(self, item: Item, photo: Picture, painted: Painted) -> Outcome:
        """Write a result, unless there is a file that is not to be painted over; what goes wrong is in the outcome."""
        path, result = self._folder / item.target, painted.picture
        before = after = b""
        try:
            make_folder(path.parent)
            if why := self._planner.kept(item.target):
                return self.left(item, why)
            if not self._options.get("force"):
                result = keeping_edits(result, path)
            result.save(
                path,
                bits=self._options.get("bits"),
                quality=self._options.get("quality"),
                location=not self._options.get("no_location"),
            )
            if self._options.get("sidecar"):
                self._write_sidecar(path)
            if self._options.get("report"):
                before, after = (thumbnail(each.opaque().in_profile().rgb) for each in (photo, result))
        except Exception as error:
            return self.failure(item, error)
        return self.painted(item, path, painted.seconds, before, after)

    def painted(self, item: Item, path: Path, seconds: float, before: bytes = b"", after: bytes = b"") -> Outcome:
        """A result has been painted, in so many seconds; with small JPEGs of photo and result for the report."""
        reason, style = "" if item.why == NEW else item.why, self._styles[item.style]
        return Outcome(Entry(item.photo.name, "painted", reason, style, str(path), seconds, before, after))

    def kept(self, item: Item) -> Outcome:
        """A result is up to date: it gets its record beside it, if that is wanted."""
        try:
            if self._options.get("sidecar"):
                self._write_sidecar(self._folder / item.target)
        except Exception as error:
            return self.failure(item, error)
        return Outcome(Entry(item.photo.name, "unchanged", style=self._styles[item.style]))

    def left(self, item: Item, why: str) -> Outcome:
        """A file is not painted over, and why."""
        said = f"{self._folder / item.target} is left as it is: {why} (--force paints over it)"
        return Outcome(Entry(item.photo.name, "skipped", f"{item.target}: {why}", self._styles[item.style]), said)

    def failure(self, item: Item, error: Exception) -> Outcome:
        """A picture has failed."""
        reason = str(error) if isinstance(error, StylizeError) else f"unexpected {type(error).__name__}: {error}"
        reason = " ".join(reason.split())
        said = reason if str(item.photo.path) in reason else f"{item.photo.name}: {reason}"
        entry = Entry(item.photo.name, "failed", reason, self._styles[item.style])
        return Outcome(entry, said, reason if _errno(error) in FULL else self._folder_problem())

    def _folder_problem(self) -> str:
        """Why no result can be written any more, or nothing."""
        if isinstance(self._folder, StorePath) or not is_folder(self._folder):  # one that is gone is made anew
            return ""
        try:
            check_folder(self._folder)
        except ImageError as error:
            return str(error)
        return ""

    def elsewhere(self, item: Item) -> Outcome:
        """Another run has painted it."""
        entry = Entry(item.photo.name, "unchanged", "by another run", self._styles[item.style])
        return Outcome(entry, elsewhere=True)

    def _load(self, item: Item) -> Picture:
        profile = self._options.get("profile") or "srgb"
        return load(item.photo.path, longest=self._size * SPARE, profile=profile)

    def _write_sidecar(self, path: Path) -> None:
        """Write the record of a result into a file beside it, unless it is there."""
        text, sidecar = json.dumps(read_record(path), indent=2) + "\n", path.with_name(f"{path.name}.json")
        try:
            there = sidecar.read_text(encoding="utf-8")
            if there == text:
                return
            if there.strip() and not (self._options.get("force") or _is_sidecar(there)):
                raise ImageError(f"{sidecar} is no record of stylize; move it away, or --force writes over it")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ImageError(f"cannot read {sidecar}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ImageError(f"{sidecar} is no record of stylize; move it away") from error
        with atomic_write(sidecar) as file:
            file.write_text(text, encoding="utf-8")


def _is_sidecar(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"stylize", "settings", "content"} <= found.keys()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        ImageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"cannot make the folder {folder}: {error.strerror}") from error


def _errno(error: BaseException | None) -> int | None:
    """The system's error code behind an error."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno
        error = error.__cause__
    return None
