"""A clip in memory, painted by the classes that paint one from a file, and where the time goes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stylize import Chain, Frame, Job, Painted, Settings, Stylizer, resize, run
from stylize_video import shot
from stylize_video.ahead import Preparation
from stylize_video.areas import ClipAreas
from stylize_video.flow import engine
from stylize_video.probe import Clip
from stylize_video.shot import ShotPainter
from stylize_video.styling import Styling
from stylize_video.task import Task
from stylize_video.work import Plan, Shot, Work

Array = NDArray[Any]

FRAMES = 24
COUNTED = 16  # of them, the last
STEP = 3  # px that the camera moves in a frame


def panned(photo: Tensor, width: int, height: int) -> list[Array]:
    """A photo (1, 3, H, W) that is panned over, so that each frame (height, width, 3) uncovers a little."""
    wide = resize(photo, height * 2, width * 2 + FRAMES * STEP)[0].permute(1, 2, 0)
    parts = (wide[height // 4 : height // 4 + height, k * STEP : k * STEP + width] for k in range(FRAMES))
    return [np.ascontiguousarray((part * 255).byte().numpy()) for part in parts]


@dataclass(frozen=True)
class InMemory(Task):
    """A clip whose frames are there."""

    frames: Sequence[Array] = ()

    def read(self) -> Iterator[Array]:
        return iter(self.frames)


class ClipJob(Job):
    """Paints frames as a shot, and notes when each of the last :data:`COUNTED` is handed over to be written."""

    def __init__(self, frames: Sequence[Array], settings: Settings, folder: Path) -> None:
        (height, width, _), self._count = frames[0].shape, len(frames)
        clip = Clip(folder / "clip", width, height, Fraction(25), frames=self._count)
        areas, styling = ClipAreas({}, settings, clip), Styling({}, settings, clip)
        target = folder / "clip.mp4"
        task = InMemory(
            clip, "", target, None, None, None, height, width, settings, {}, areas, styling, frames=tuple(frames)
        )
        work, flow = Work(target), engine("dis")
        work.make()
        assert flow is not None
        self._painter = ShotPainter(task, work, flow)
        self.spent, self.steps, self.begun = dict[str, float](), 0, 0.0

    def begin(self, stylizer: Stylizer) -> None:
        self._painter.begin(stylizer)

    def frames(self, chain: Chain) -> Iterator[Frame]:
        return self._painter.frames(Shot(range(self._count), Plan({}, self._count)))

    def write(self, frame: Frame, painted: Painted) -> None:
        add(self.spent, "painted", painted.seconds)
        self.steps += painted.steps
        timed(self.spent, "handed over to be written", self._painter.write)(frame, painted)
        if frame.number == self._count - COUNTED:
            self.spent.clear()
            self.steps, self.begun = 0, time.perf_counter()

    def outcome(self, chain: Chain) -> object:
        return self._painter.take_counts()


def paint(frames: Sequence[Array], stylizer: Stylizer) -> str:
    """What there is to tell of the last frames."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as patches:
        job = ClipJob(frames, stylizer.settings, Path(name))
        prepared, carried = Preparation.frames, ShotPainter._carried

        def coming(*given: Any) -> Generator[Any, None, None]:
            made = prepared(*given)
            following = timed(job.spent, "waited for the next", lambda: next(made, None))
            try:
                while (frame := following()) is not None:
                    yield frame
            finally:
                made.close()

        def measured(self: ShotPainter, frame: Any, past: Any) -> Any:
            motion = timed(job.spent, "waited for its motion", frame.motion)
            with patch.dict(vars(frame), motion=motion):
                return carried(self, frame, past)

        patches.enter_context(patch.object(Preparation, "frames", coming))
        patches.enter_context(patch.object(ShotPainter, "_carried", measured))
        for each, means in (("warp_history", "start"), ("warped", "curvature brought along"), ("kept", "and kept")):
            patches.enter_context(patch.object(shot, each, timed(job.spent, means, getattr(shot, each))))
        run(job, stylizer)
        took = (time.perf_counter() - job.begun) / COUNTED
        height, width, _ = frames[0].shape
        parts = ", ".join(f"{name} {seconds * 1e3 / COUNTED:.1f}" for name, seconds in job.spent.items())
        return (
            f"{width}x{height}: {1 / took:.2f} following frames of {job.steps / COUNTED:.1f} steps a second, "
            f"until the last is written; of {took * 1e3:.1f} ms each: {parts}"
        )


def add(spent: dict[str, float], name: str, seconds: float) -> None:
    spent[name] = spent.get(name, 0.0) + seconds


def timed(spent: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose seconds are added up under a name."""

    def once(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            add(spent, name, time.perf_counter() - begun)

    return once
