"""The folder beside the target in which a clip comes together: its plan, its frames, and who is at which shot."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stylize import ImageError, atomic_write

log = logging.getLogger("stylize.video")


@dataclass(frozen=True)
class Plan:
    """What is to be painted: ``wanted`` tells one clip from another, ``cuts`` are the frames, counted from 0, that
    begin a shot but the first, ``news`` is how many steps a following frame is worth on average, by samples."""

    wanted: Mapping[str, Any]
    frames: int
    cuts: tuple[int, ...] = ()
    news: float = 0.0
    begins: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "begins", (0, *self.cuts))

    def shots(self) -> list[range]:
        """The frames of each shot."""
        ends = (*self.cuts, self.frames)
        return [range(begin, end) for begin, end in zip(self.begins, ends, strict=True)]


class Work:
    """The hidden folder ``.NAME.work`` beside the target. Runs take whole shots, each under a lock that ends with the
    run that holds it; the main lock is held by the run that makes the clip."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.work")
        self.main = FileLock(f"{self.path}.lock")

    def file(self, number: int) -> Path:
        return self.path / f"{number:08}.png"

    def done(self, frames: range) -> int:
        return sum(1 for number in frames if self.file(number).exists())

    def read_plan(self) -> Plan | None:
        try:
            found = json.loads((self.path / "plan.json").read_text(encoding="utf-8"))
            return Plan(found["wanted"], found["frames"], tuple(found["cuts"]), found["news"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_plan(self, plan: Plan) -> None:
        with atomic_write(self.path / "plan.json") as file:
            kept = {"wanted": plan.wanted, "frames": plan.frames, "cuts": plan.cuts, "news": plan.news}
            file.write_text(json.dumps(kept), encoding="utf-8")

    def make(self) -> None:
        """The folder is there.

        Raises:
            ImageError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"cannot make the folder {self.path}: {error.strerror}") from error

    def clear(self) -> None:
        """The folder is empty; raises as :meth:`make` does."""
        self.remove()
        self.make()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def take(self) -> bool:
        """Whether this run now has the main lock.

        Raises:
            ImageError: no run can have it.
        """
        try:
            self.main.acquire(timeout=0)
        except Timeout:
            return False
        except OSError as error:
            raise ImageError(f"cannot write {self.main.lock_file}: {error.strerror}") from error
        return True

    def end(self) -> None:
        """Let go of the main lock, and leave nothing of it."""
        with suppress(OSError):  # while it is ours: later it may be another's; where open files stay, it goes by itself
            Path(self.main.lock_file).unlink()
        self.main.release()

    @contextmanager
    def shot(self, frames: range) -> Iterator[bool]:
        """Whether this run has the shot for itself, for as long as the block lasts."""
        if not self.path.is_dir():  # the clip is done: a lock would make the folder again
            yield False
            return
        lock = FileLock(self.path / f"{frames.start:08}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    # --- what there is to tell of the frames

    def note(self, number: int, told: Mapping[str, float]) -> None:
        with (self.path / "notes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"frame": number, **told}) + "\n")

    def notes(self) -> dict[int, dict[str, float]]:
        """What was noted of each frame; a line cut off by a kill is left out."""
        found = {}
        try:
            lines = (self.path / "notes.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                told = json.loads(line)
                found[int(told.pop("frame"))] = told
            except (ValueError, KeyError, AttributeError):
                continue
        return found
