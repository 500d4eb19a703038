"""What shows a run to the user. The command line has three (``stylize.cli.display``); plugins may add theirs."""

# A display ignores, on purpose, every event it does not override.
# ruff: noqa: B027

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from stylize.contracts import hookimpl

if TYPE_CHECKING:
    from stylize.contracts import Frame
    from stylize.images import Picture
    from stylize.observing import Step


class Display(ABC):
    """Shows a run. Derive from it, give one from the hook ``stylize_display``, and override what you want to show;
    only :meth:`warning` must be there. It is a context manager, and a plugin while the run lasts: the observing hooks
    ``stylize_step`` and ``stylize_painted`` are methods of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def warning(self, text: str) -> None:
        """Show one line that the user must see even if nothing else is shown."""

    def notes(self, groups: Iterable[Iterable[str]]) -> None:
        """Show remarks, one line each."""

    def step(self, step: Step, label: str = "") -> None:
        """Show a gradient step of a command without a job (texture, reconstruct, grid); ``label`` goes before the
        size."""

    @hookimpl(tryfirst=True)
    def stylize_step(self, frame: Frame, step: Step) -> None:
        """Show a gradient step of a job's frame."""
        self.step(step)

    @hookimpl(tryfirst=True)
    def stylize_painted(self, frame: Frame, image: Picture) -> None:
        """Show that a job's frame is done."""

    def download(self, done: int, total: int | None) -> None:
        """Show the progress of downloading encoder weights: bytes so far, and of how many if that is known."""

    def stopping(self) -> None:
        """Show that Ctrl-C was pressed. Called in a signal handler, perhaps in the middle of a print: do not use the
        same stream."""

    def stopped(self) -> None:
        """Show that the run ends early: the last step is done."""

    def written(self, path: Path | None) -> None:
        """Show where the result lies; None if not in one place."""

    def close(self) -> None:
        """Leave the terminal as it was. Called once, at the end."""
