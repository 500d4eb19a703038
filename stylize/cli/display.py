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
from stylize.display import Display, RunProgress
from stylize.text import counted, duration, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from stylize.contracts import Frame
    from stylize.images import Picture
    from stylize.observing import Step
    from stylize.pyramid import Schedule


LONG = 10  # seconds: what takes longer is told how long it will take
STOPPING = "stopping after this step; press Ctrl-C again to discard the picture"
STOPPING_IDLE = "stopping; press Ctrl-C again to end at once"  # where no picture is in work


class Quiet(Display):
    """Shows warnings, on standard error, and nothing else."""

    def warning(self, text: str) -> None:
        complain(text)


def print_event(event: str, stream: UnbreakableStream | None = None, **values: Any) -> None:
    """Print an event as a line of JSON, on standard output unless told otherwise."""
    print(json.dumps({"event": event, **values}), file=stream or UnbreakableStream(sys.stdout), flush=True)


class Json(Display):
    """One JSON object per line and event on standard output. Each has ``fraction``, how much of the run is done, and
    ``seconds_left``. The first step is held back until the second, so that the plan before it has an estimate."""

    def __init__(self) -> None:
        self._stream = UnbreakableStream(sys.stdout)
        self._progress = RunProgress()
        self._busy = False  # with a picture
        self._stopped = False
        self._size: tuple[int, int] | None = None  # of the picture that the last plan was for
        self._held: tuple[Step, dict[str, Any]] | None = None  # a step, and its values, whose plan is still to come

    @property
    def abandoned(self) -> bool:  # type: ignore[override]
        return self._stream.has_lost_its_reader()

    def _print(self, event: str, **values: Any) -> None:
        self._release()
        print_event(event, self._stream, **{**values, **self._place(), **values})

    def _place(self) -> dict[str, float | None]:
        return {"fraction": self._progress.fraction, "seconds_left": self._progress.seconds_left}

    def _release(self) -> None:
        """Print the plan and the step that was held back."""
        if self._held is None:
            return
        (step, values), self._held = self._held, None
        if step.schedule is not None:
            self._print_plan(step.schedule, values["fraction"])
        self._print("step", **values)

    def _print_plan(self, schedule: Schedule, fraction: float | None) -> None:
        final = schedule.scales[-1]
        self._print(
            "plan",
            width=final.width,
            height=final.height,
            scales=[{"width": scale.width, "height": scale.height, "steps": scale.steps} for scale in schedule.scales],
            steps=schedule.steps,
            memory=schedule.memory,
            pictures=self._progress.total,
            fraction=fraction,
        )

    def _print_step(self, step: Step, values: dict[str, Any]) -> None:
        told = {each.name: getattr(step, each.name) for each in dataclasses.fields(step) if each.name != "schedule"}
        values = {**values, **told, "terms": dict(step.terms), **self._place()}
        size = None if step.schedule is None else (step.schedule.scales[-1].width, step.schedule.scales[-1].height)
        if size == self._size:
            self._print("step", **values)
            return
        self._size = size
        self._held = step, values
        if self._progress.seconds_left is not None:
            self._release()

    def stopped(self) -> None:
        self._stopped = True
        self.notes([(STOPPING if self._busy else STOPPING_IDLE,)])

    def step(self, step: Step, label: str = "") -> None:
        self._busy = True
        self._progress.step(step)
        self._print_step(step, {"label": label.strip()} if label else {})

    @hookimpl(tryfirst=True)
    def stylize_step(self, frame: Frame, step: Step) -> None:
        self._busy = True
        self._progress.step(step, frame)
        self._print_step(step, _picture(frame) if _one_of_many(frame) else {})

    @hookimpl(tryfirst=True)
    def stylize_painted(self, frame: Frame, image: Picture) -> None:
        self._busy = False
        self._release()
        if not self._stopped:  # else it is as far as it got
            self._progress.painted(frame)
        if _one_of_many(frame):
            self._print("painted", **_picture(frame))

    @hookimpl(tryfirst=True)
    def stylize_copied(self, frame: Frame) -> None:
        self._release()
        self._progress.copied(frame)
        self._print("copied", **_picture(frame))

    def download(self, done: int, total: int | None) -> None:
        self._print("download", bytes=done, total=total)

    def notes(self, groups: Iterable[Iterable[str]]) -> None:
        for note in (note for group in groups for note in group):
            self._print("note", text=note)

    def warning(self, text: str) -> None:
        self.notes([(text,)])

    def written(self, path: Path | None) -> None:
        self._release()
        if not self._stopped:
            self._progress.finished()
        self._print("written", path=None if path is None else str(path))

    def close(self) -> None:
        self._release()


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
        self._planned: Schedule | None = None  # of which it was said how long it takes
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
        self._tell_plan(step)
        left = "" if step.seconds_left is None else f"{duration(step.seconds_left, rough=True)} left"
        text = f"{step.number}/{step.steps}  {left:>9}  {_losses(step)}"
        bars.update(self._tasks[key], completed=step.number, text=text)

    def _tell_plan(self, step: Step) -> None:
        """Say what a picture consists of and how long it takes, once that is known."""
        schedule, left = step.schedule, step.seconds_left
        if schedule is None or schedule is self._planned or left is None:
            return
        self._planned, final, whole = schedule, schedule.scales[-1], step.seconds + left
        if whole >= LONG and step.scale == 1:
            work = f"{counted(schedule.steps, 'step')} at {counted(len(schedule.scales), 'scale')}"
            self._print(f"{final.width}x{final.height} in {work}, about {duration(whole, rough=True)}")

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


def _picture(frame: Frame) -> dict[str, Any]:
    """Which picture of several an event is about."""
    return {"picture": frame.name, "picture_number": frame.number, "pictures": frame.total}


def _one_of_many(frame: Frame) -> bool:
    return frame.total != 1 or frame.number > 1


def _losses(step: Step) -> str:
    terms = "".join(f"  {term} {value:.4f}" for term, value in step.terms.items())
    return f"loss {step.total:.4f}{terms}"


@hookimpl(trylast=True)
def stylize_display(options: Mapping[str, Any]) -> Display | None:
    return Quiet() if options["quiet"] else Json() if options["as_json"] else Live()
