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
    ``stylize_step``, ``stylize_painted`` and ``stylize_copied`` are methods of it.

    Attributes:
        abandoned: whether nobody looks any more, such as the reader of a pipe: the run then ends after the step it is
            at, and writes the picture as far as it is.
    """

    abandoned = False

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

    @hookimpl(tryfirst=True)
    def stylize_copied(self, frame: Frame) -> None:
        """Show that a job's frame needed no painting."""

    def download(self, done: int, total: int | None) -> None:
        """Show the progress of downloading encoder weights: bytes so far, and of how many if that is known."""

    def stopping(self) -> None:
        """Show that Ctrl-C was pressed, or that SIGTERM was received. Called in a signal handler, perhaps in the middle
        of a print: do not use the same stream."""

    def stopped(self) -> None:
        """Show that the run ends early: the last step is done."""

    def written(self, path: Path | None) -> None:
        """Show where the result lies; None if not in one place."""

    def close(self) -> None:
        """Leave the terminal as it was. Called once, at the end."""


class RunProgress:
    """How far a run of one picture or several is, and how long the rest takes.

    Tell it of every step, and of every frame that is painted or copied; of a job whose number of frames is not known,
    it knows nothing.

    Attributes:
        total: how many frames there are; None: not known.
        fraction: how much is done, in [0, 1]; None: not known.
        seconds_left: how long the rest takes; None: not known.
    """

    def __init__(self) -> None:
        self.fraction: float | None = 0.0
        self.seconds_left: float | None = None
        self._done: int | None = None  # frames; None: none has been seen
        self.total: int | None = 1
        self._painted = 0
        self._seconds = 0.0  # that those took
        self._step: Step | None = None  # the last one of the frame in work

    def step(self, step: Step, frame: Frame | None = None) -> None:
        """Take note of a step, of a job's frame or of a command that has none."""
        if frame is not None:
            self._begin(frame)
        self._step = step
        self._update()

    def painted(self, frame: Frame) -> None:
        """Take note of a frame that is painted."""
        self._begin(frame)
        if self._step is not None:
            self._painted, self._seconds = self._painted + 1, self._seconds + self._step.seconds
        self._next()

    def copied(self, frame: Frame) -> None:
        """Take note of a frame that needed no painting."""
        self._begin(frame)
        self._next()

    def finished(self) -> None:
        """Take note that all is done; scales may have ended before their last step."""
        self.fraction, self.seconds_left = 1.0, 0.0

    def _begin(self, frame: Frame) -> None:
        if self._done is None:
            self._done = frame.number - 1
        self.total = frame.total

    def _next(self) -> None:
        self._done, self._step = (self._done or 0) + 1, None
        self._update()

    def _update(self) -> None:
        if self.total is None:
            self.fraction = self.seconds_left = None
            return
        done, step = min(self._done or 0, self.total), self._step
        self.fraction = (done + (0.0 if step is None else step.fraction)) / max(1, self.total)
        each = self._seconds / self._painted if self._painted else None
        now: float | None = 0.0 if step is None else step.seconds_left
        after = self.total - done - (step is not None)
        if step is not None and now is None and each is not None:
            now = max(0.0, each - step.seconds)
        if step is not None and each is None and now is not None:
            each = step.seconds + now
        known = now is not None and (each is not None or after <= 0)
        self.seconds_left = (now or 0.0) + max(0, after) * (each or 0.0) if known else None
