"""How the command line shows a run: a live line per scale, JSON events, or nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from rich.progress import Progress

    from stylize.engine import Step


STOPPING = "stopping after this step; press Ctrl-C again to drop the picture"


class Quiet:
    """Shows nothing; the base of the others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""

    def step(self, step: Step, label: str = "") -> None:
        """After a gradient step; ``label`` goes before the size."""

    def download(self, done: int, total: int | None) -> None:
        """After a piece of the weights, in bytes."""

    def notes(self, groups: Iterable[Iterable[str]]) -> None:
        """Remarks to the user."""

    def stopping(self) -> None:
        """Ctrl-C was pressed. Called in a signal handler, perhaps amid a print: it must not use the same stream."""

    def written(self, path: Path | None) -> None:
        """The result has its final name."""


Display = Quiet


class Json(Quiet):
    """One JSON object per line and event on standard output."""

    def __init__(self) -> None:
        self._stopping = False

    def _print(self, event: str, **values: Any) -> None:
        print(json.dumps({"event": event, **values}), flush=True)

    def stopping(self) -> None:
        self._stopping = True

    def step(self, step: Step, label: str = "") -> None:
        if self._stopping:
            self._stopping = False
            self.notes([(STOPPING,)])
        cell = {"label": label.strip()} if label else {}
        self._print("step", **cell, **dataclasses.asdict(step))

    def download(self, done: int, total: int | None) -> None:
        self._print("download", bytes=done, total=total)

    def notes(self, groups: Iterable[Iterable[str]]) -> None:
        for note in (note for group in groups for note in group):
            self._print("note", text=note)

    def written(self, path: Path | None) -> None:
        self._print("written", path=None if path is None else str(path))


class Live(Quiet):
    """One line per scale on standard error: live on a terminal, at the scale's end elsewhere. The path of the result
    goes to standard output."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._bars: Progress | None = None
        self._tasks: dict[tuple[str, int], Any] = {}
        self._begun = 0.0
        self._failed = False

    def _progress(self) -> Progress:
        from rich.progress import BarColumn, Progress, TextColumn

        if self._bars is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[text]}"),
            )
            self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
            self._bars.start()
        return self._bars

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def step(self, step: Step, label: str = "") -> None:
        bars, key = self._progress(), (label, step.scale)
        name = f"{label}{step.width}x{step.height}"
        if key not in self._tasks:
            self._tasks[key] = bars.add_task(f"{name:>11}", total=step.steps, text="")
            self._begun = time.perf_counter()
        self._say_failures(step, name)
        terms = "  ".join(f"{term} {value:.4f}" for term, value in step.terms.items())
        seconds = time.perf_counter() - self._begun
        left = f"{seconds / max(1, step.number - 1) * (step.steps - step.number):.0f} s left" if step.number > 1 else ""
        bars.update(self._tasks[key], completed=step.number, text=f"loss {step.total:.4f}  {terms}  {left}")
        if step.number == step.steps and not self._console.is_terminal:
            self._console.print(f"{name:>11}  {step.steps} steps  loss {step.total:.4f}  {terms}  {seconds:.0f} s")

    def _say_failures(self, step: Step, name: str) -> None:
        if not step.finite and not self._failed:
            self._console.print(f"{name}: step {step.number} gave NaN or infinity; back to the last good picture")
        self._failed = not step.finite

    def download(self, done: int, total: int | None) -> None:
        bars, key = self._progress(), ("download", 0)
        if key not in self._tasks:
            self._tasks[key] = bars.add_task("   download", total=total, text="")
            if not self._console.is_terminal:
                size = f" ({total / 1e6:.0f} MB)" if total else ""
                self._console.print(f"downloading encoder weights{size}")
        bars.update(self._tasks[key], completed=done, total=total, text=f"{done / 1e6:.0f} MB")

    def notes(self, groups: Iterable[Iterable[str]]) -> None:
        for note in (note for group in groups for note in group):
            self._console.print(f"note: {note}", markup=False)

    def stopping(self) -> None:
        os.write(2, f"\n{STOPPING}\n".encode())

    def written(self, path: Path | None) -> None:
        self.close()
        if path is not None:
            click.echo(os.fsencode(path))  # as it is, whatever its encoding
