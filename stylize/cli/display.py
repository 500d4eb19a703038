"""The displays of the command line: a live line per scale, JSON events, or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import click

from stylize.cli.terminal import UnbreakableStream, complain, ignoring_errors
from stylize.contracts import hookimpl
from stylize.display import Display
from stylize.text import duration, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from stylize.contracts import Frame
    from stylize.images import Picture
    from stylize.observing import Step


STOPPING = "stopping after this step; press Ctrl-C again to discard the picture"
STOPPING_IDLE = "stopping; press Ctrl-C again to end at once"  # where no picture is in work


class Quiet(Display):
    """Shows warnings, on standard error, and nothing else."""

    def warning(self, text: str) -> None:
        complain(text)


class Json(Display):
    """One JSON object per line and event on standard output."""

    def __init__(self) -> None:
        self._stream = UnbreakableStream(sys.stdout)
        self._busy = False  # with a picture

    def _print(self, event: str, **values: Any) -> None:
        print(json.dumps({"event": event, **values}), file=self._stream, flush=True)

    def stopped(self) -> None:
        self.notes([(STOPPING if self._busy else STOPPING_IDLE,)])

    def step(self, step: Step, label: str = "") -> None:
        self._busy = True
        cell = {"label": label.strip()} if label else {}
        self._print("step", **cell, **dataclasses.asdict(step))

    @hookimpl(tryfirst=True)
    def stylize_step(self, frame: Frame, step: Step) -> None:
        self._busy = True
        place = {"picture": frame.name, "picture_number": frame.number, "pictures": frame.total}
        self._print("step", **(place if _one_of_many(frame) else {}), **dataclasses.asdict(step))

    @hookimpl(tryfirst=True)
    def stylize_painted(self, frame: Frame, image: Picture) -> None:
        self._busy = False
        if _one_of_many(frame):
            self._print("painted", picture=frame.name, picture_number=frame.number, pictures=frame.total)

    def download(self, done: int, total: int | None) -> None:
        self._print("download", bytes=done, total=total)

    def notes(self, groups: Iterable[Iterable[str]]) -> None:
        for note in (note for group in groups for note in group):
            self._print("note", text=note)

    def warning(self, text: str) -> None:
        self.notes([(text,)])

    def written(self, path: Path | None) -> None:
        self._print("written", path=None if path is None else str(path))


class Live(Display):
    """One line per scale on standard error: live on a terminal, at the scale's end elsewhere. The path of the result
    goes to standard output."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(file=cast("IO[str]", UnbreakableStream(sys.stderr)), highlight=False)
        self._bars: Progress | None = None
        self._tasks: dict[tuple[str, int], TaskID] = {}
        self._begun = 0.0
        self._failed = False
        self._last: tuple[TaskID, str, Step] | None = None  # the current scale
        self._picture: tuple[Frame, Step] | None = None  # the current picture, where there are several
        self._first: tuple[int, float] | None = None  # number of the first of them, and when it began

    def _progress(self) -> Progress:
        from rich.progress import BarColumn, Progress, TextColumn

        if self._bars is None:
            bar = (BarColumn(bar_width=20),) if self._console.width >= 80 else ()
            texts = [TextColumn(f"{{task.{part}}}", markup=False) for part in ("description", "fields[text]")]
            columns = (texts[0], *bar, texts[1])
            self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
            self._bars.start()
        return self._bars

    def _print(self, text: str) -> None:
        self._console.print(printable(text), markup=False, soft_wrap=True)

    def close(self) -> None:
        self._end_scale()
        self._end_picture()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def step(self, step: Step, label: str = "") -> None:
        bars, key = self._progress(), (label, step.scale)
        name = f"{label}{step.width}x{step.height}"
        if key not in self._tasks:
            self._end_scale()
            self._tasks[key] = bars.add_task(f"{name:>11}", total=step.steps, text="")
            self._begun = time.perf_counter()
        self._report_failure(step, name)
        self._last = self._tasks[key], name, step
        seconds = time.perf_counter() - self._begun
        left = f"{seconds / (step.number - 1) * (step.steps - step.number):.0f} s left" if step.number > 1 else ""
        text = f"{step.number}/{step.steps}  {left:>9}  {_losses(step)}"
        bars.update(self._tasks[key], completed=step.number, text=text)

    def _end_scale(self) -> None:
        """The last line of the current scale, which may have stopped before its last step."""
        if self._last is None:
            return
        (task, name, step), self._last = self._last, None
        text = f"{step.number} steps  {_losses(step)}  {time.perf_counter() - self._begun:.0f} s"
        if self._console.is_terminal:
            self._progress().update(task, completed=step.number, total=step.number, text=text)
        else:
            self._print(f"{name:>11}  {text}")

    @hookimpl(tryfirst=True)
    def stylize_step(self, frame: Frame, step: Step) -> None:
        if not _one_of_many(frame):
            self.step(step)
            return
        bars, now = self._progress(), time.perf_counter()
        if self._picture is None or self._picture[0] is not frame:
            self._end_picture()
            self._begun = now
            self._first = self._first or (frame.number, now)
        self._picture = frame, step
        name = printable(" ".join(frame.name.split()))
        self._report_failure(step, name)
        for key, total in (("pictures", frame.total), ("picture", step.steps)):
            if (key, 0) not in self._tasks:
                self._tasks[key, 0] = bars.add_task("", total=total, text="")
        number = f"{frame.number}/{frame.total}" if frame.total else f"{frame.number}"
        bars.update(
            self._tasks["pictures", 0],
            description=f"{number:>11}",
            completed=frame.number - 1,
            total=frame.total,
            text=self._time_left(frame, now),
        )
        bars.update(
            self._tasks["picture", 0],
            description=f"{step.width}x{step.height}".rjust(11),
            completed=step.number,
            total=step.steps,
            text=f"{_losses(step)}  {name}",
        )

    @hookimpl(tryfirst=True)
    def stylize_painted(self, frame: Frame, image: Picture) -> None:
        self._end_scale()
        self._end_picture()

    def _time_left(self, frame: Frame, now: float) -> str:
        """The estimated time left, from the average over the pictures so far."""
        if self._first is None or frame.total is None or frame.number == self._first[0]:
            return ""
        number, begun = self._first
        each = (self._begun - begun) / (frame.number - number)
        return f"{duration(max(0.0, each * (frame.total - frame.number + 1) - (now - self._begun)))} left"

    def _end_picture(self) -> None:
        if self._picture is None:
            return
        (frame, step), self._picture = self._picture, None
        number = f"{frame.number}/{frame.total}" if frame.total else f"{frame.number}"
        name = printable(" ".join(frame.name.split()))
        self._print(f"{number:>11}  {name}  {_losses(step)}  {step.seconds:.0f} s")

    def _report_failure(self, step: Step, name: str) -> None:
        if not step.finite and not self._failed:
            self._print(f"{name}: step {step.number} gave NaN or infinity; going back to the last good picture")
        self._failed = not step.finite

    def download(self, done: int, total: int | None) -> None:
        bars, key = self._progress(), ("download", 0)
        size = f"{total / 1e6:.0f} MB" if total else "unknown size"
        if key not in self._tasks:
            self._tasks[key] = bars.add_task("   download", total=total, text="")
            if not self._console.is_terminal:
                self._print(f"downloading encoder weights ({size})")
        bars.update(self._tasks[key], completed=done, total=total, text=f"{done / 1e6:.0f} of {size}")

    def notes(self, groups: Iterable[Iterable[str]]) -> None:
        for note in (note for group in groups for note in group):
            self._print(f"note: {note}")

    def warning(self, text: str) -> None:
        self.notes([(text,)])

    def stopping(self) -> None:
        busy = self._last is not None or self._picture is not None
        with contextlib.suppress(OSError):
            os.write(2, f"\n{STOPPING if busy else STOPPING_IDLE}\n".encode())

    def written(self, path: Path | None) -> None:
        self.close()
        if path is not None:
            # to programs as it is, whatever its encoding
            shown = printable(str(path)) if sys.stdout.isatty() else os.fsencode(path)
            ignoring_errors(sys.stdout, lambda: click.echo(shown))


def _one_of_many(frame: Frame) -> bool:
    return frame.total != 1 or frame.number > 1


def _losses(step: Step) -> str:
    terms = "".join(f"  {term} {value:.4f}" for term, value in step.terms.items())
    return f"loss {step.total:.4f}{terms}"


@hookimpl(trylast=True)
def stylize_display(options: Mapping[str, Any]) -> Display | None:
    return Quiet() if options["quiet"] else Json() if options["as_json"] else Live()
