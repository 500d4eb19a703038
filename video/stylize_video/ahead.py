"""The frames of a shot before they are painted: what becomes of each, and how it moved since the last painted one.

All of that follows from the contents alone. Where the painting leaves the host time, it is found out beside it, some
frames ahead.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from stylize import Picture, StylizeError
from stylize_video.areas import FrameAreas
from stylize_video.decode import InOrder
from stylize_video.exposure import Exposure
from stylize_video.flow import is_thread_safe
from stylize_video.steady import DEEP, Motion, is_static
from stylize_video.styling import Weights, moved
from stylize_video.task import Task, as_picture, eight_bits
from stylize_video.work import Plan, Shot

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]

THREADS = 12  # at most, in which motions are found
FRAMES = 16  # that are read ahead, at most
HELD = 48  # bytes of each pixel of such a frame
ROOM = 2**31  # bytes for them


class Fate(Enum):
    """What becomes of a frame."""

    DONE = auto()  # there already
    SHOWN = auto()  # shown as the source has it, of which nothing can be seen
    REPEATED = auto()  # the last painted one again
    CARRIED = auto()  # the last painted one, warped
    PAINTED = auto()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame before it is painted.

    ``shown`` (H, W, 3 or 4) is what the source has, ``picture`` that without its ``exposure``, and ``content``
    (H, W, 3) its colours in uint8; ``weights`` are those of the styles. ``motion`` finds how it moved since the last
    painted frame; None where there is none, or that does not matter.
    """

    number: int
    shown: Array
    content: Array
    picture: Picture
    exposure: Exposure
    areas: FrameAreas | None
    weights: Weights
    fate: Fate = Fate.PAINTED
    motion: Callable[[], Motion] | None = None

    @property
    def parts(self) -> Array | None:
        """Which part of the picture each pixel belongs to, where there are masks."""
        return None if self.areas is None else self.areas.parts


def frames_ahead(device: torch.device, height: int, width: int) -> int:
    """How many frames are prepared ahead, and results written, beside the painting: none where that is done by the CPU,
    all of which it takes."""
    if device.type == "cpu":
        return 0
    return max(2, min(FRAMES, ROOM // (HELD * height * width)))


class Preparation:
    """Prepares the frames of shots.

    Args:
        task: the clip.
        flow: by which motions are found.
        weights: those of the styles in a frame of a plan.
    """

    def __init__(self, task: Task, flow: Flow, weights: Callable[[Plan, int], Weights]) -> None:
        self._task, self._flow, self._weights = task, flow, weights
        self._source = InOrder(task.read)

    def frames(
        self, shot: Shot, resumed: int, is_done: Callable[[int], bool], ahead: int
    ) -> Generator[Prepared, None, None]:
        """The frames of a shot, lazily: of those up to ``resumed`` that are done only that one, to go on from.

        ``ahead`` frames are prepared in threads of their own, which end with the iterator; it has to be closed.

        Raises:
            StylizeError: the clip or a mask can no longer be read.
        """
        if not ahead:
            yield from self._prepared(shot, resumed, is_done, None)
            return
        with ThreadPoolExecutor(_threads(ahead), "motion", torch.set_num_threads, (1,)) as workers:
            try:
                with closing(_beside(self._prepared(shot, resumed, is_done, workers), ahead)) as frames:
                    yield from frames
            finally:
                workers.shutdown(cancel_futures=True)

    def _prepared(
        self, shot: Shot, resumed: int, is_done: Callable[[int], bool], workers: Executor | None
    ) -> Generator[Prepared, None, None]:
        past: Prepared | None = None  # the last one painted
        for number in shot.frames:
            there = number <= resumed and is_done(number)
            if there and (number < resumed or shot.plan.exposure(number).hides):
                continue
            frame = self._read(shot.plan, number)
            if there:
                frame = replace(frame, fate=Fate.DONE)
            else:
                frame = self._compared(frame, past, (number - shot.frames.start) % self._task.every > 0, workers)
            yield frame
            if frame.fate in (Fate.DONE, Fate.PAINTED):
                past = replace(frame, motion=None)

    def _read(self, plan: Plan, number: int) -> Prepared:
        shown = self._source.at(number)
        if shown is None:
            raise StylizeError(f"{self._task.clip.path}: frame {number} can no longer be read")
        exposure = plan.exposure(number)
        samples = exposure.removed(shown)
        picture = as_picture(samples, f"frame {number}")
        areas = self._task.areas.at(number, self._task.height, self._task.width)
        weights = self._weights(plan, number)
        return Prepared(number, shown, eight_bits(samples[..., :3]), picture, exposure, areas, weights)

    def _compared(self, frame: Prepared, past: Prepared | None, between: bool, workers: Executor | None) -> Prepared:
        """A frame and what becomes of it after the last painted one: slow changes add up until they are painted."""
        if past is None:  # a fade from black or white begins with just that
            return replace(frame, fate=Fate.SHOWN if frame.exposure.hides else Fate.PAINTED)
        if frame.exposure.hides or _show_the_same(frame, past) or (between and self._task.options.get("hold")):
            return replace(frame, fate=Fate.REPEATED)
        fate, deep = (Fate.CARRIED, DEEP) if between else (Fate.PAINTED, self._task.deep)
        motion: Callable[[], Motion] = partial(
            Motion.between, frame.content, past.content, self._flow, deep, parts=frame.parts, parts_before=past.parts
        )
        # Other flows may bear no threads, or take the memory of the device while it paints.
        if workers is not None and is_thread_safe(self._flow):
            motion = workers.submit(motion).result
        return replace(frame, fate=fate, motion=motion)


def _show_the_same(frame: Prepared, past: Prepared) -> bool:
    """Whether nothing has changed since, as far as it is painted."""
    if moved(frame.weights, past.weights):
        return False
    content = frame.content
    if frame.areas is not None:
        if past.areas is None or not frame.areas.same_as(past.areas):
            return False
        content = frame.areas.inside(content, past.content)
    return is_static(content, past.content)


def _beside(frames: Generator[Prepared, None, None], ahead: int) -> Generator[Prepared, None, None]:
    """The same, so many of them ahead, in a thread of its own."""
    # One thread of torch in it: a second team of OpenMP threads would disturb that of the painting.
    with ThreadPoolExecutor(1, "prepare", torch.set_num_threads, (1,)) as reader:
        waiting: deque[Future[Prepared | None]] = deque(reader.submit(next, frames, None) for _ in range(ahead))
        try:
            while (frame := waiting.popleft().result()) is not None:
                waiting.append(reader.submit(next, frames, None))
                yield frame
        finally:
            reader.shutdown(cancel_futures=True)
            frames.close()


def _threads(ahead: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(THREADS, ahead, cores * 3 // 4))
