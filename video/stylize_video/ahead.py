"""The frames of a shot before they are painted: what becomes of each, and how it moved since the last painted one.

All of that follows from the contents alone. Where the painting leaves the host time, it is found out beside it, some
frames ahead.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from numpy.typing import NDArray

from stylize import Picture, StylizeError
from stylize_video.areas import FrameAreas
from stylize_video.chain import Chain, Ways
from stylize_video.decode import InOrder
from stylize_video.exposure import Exposure
from stylize_video.steady import DEEP, Motion, News, is_static
from stylize_video.styling import Weights, moved
from stylize_video.task import Task, as_picture, eight_bits
from stylize_video.work import Plan, Shot, State

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]
Made = TypeVar("Made")

THREADS = 12  # at most, in which motions are found
FRAMES = 16  # that are read ahead, at most
HELD = 48  # bytes of each pixel of such a frame
BETWEEN = 24  # and of one that lies between painted ones, with its flows
ROOM = 2**31  # bytes for them


class Fate(Enum):
    """What becomes of a frame."""

    DONE = auto()  # there already
    SHOWN = auto()  # shown as the source has it, of which nothing can be seen
    REPEATED = auto()  # the last painted one again
    CARRIED = auto()  # the last painted one, warped
    COMPOSED = auto()  # of the last painted one and the one before that, between which it lies
    PAINTED = auto()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame before it is painted.

    ``shown`` (H, W, 3 or 4) is what the source has, ``samples`` that without its ``exposure``, and ``content``
    (H, W, 3) their colours in uint8; ``weights`` are those of the styles. ``motion`` finds how it moved since the last
    painted frame; None where there is none, or that does not matter. Of a frame ``between`` the last two painted ones,
    ``sides`` find what it shows that these do not, and the last one has the ``share``.
    """

    number: int
    shown: Array
    samples: Array
    content: Array
    exposure: Exposure
    areas: FrameAreas | None
    weights: Weights
    fate: Fate = Fate.PAINTED
    motion: Callable[[], Motion] | None = None
    between: bool = False
    sides: tuple[Callable[[], News], Callable[[], News]] | None = None
    share: float = 0.0

    @property
    def name(self) -> str:
        """For messages."""
        return f"frame {self.number}"

    @cached_property
    def picture(self) -> Picture:
        """What is painted."""
        return as_picture(self.samples, self.name)

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
        self, shot: Shot, resumed: State, is_done: Callable[[int], bool], ahead: int
    ) -> Generator[Prepared, None, None]:
        """The frames of a shot, lazily: of those up to the ``resumed`` one that are done only that one, to go on from,
        and what is needed for those before it that are not. Frames between painted ones come after both.

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
        self, shot: Shot, resumed: State, is_done: Callable[[int], bool], workers: Executor | None
    ) -> Generator[Prepared, None, None]:
        past: Prepared | None = None  # the last one painted
        last = resumed.number if is_done(resumed.number) else shot.frames.start - 1
        if last in shot.frames and not shot.plan.exposure(last).hides:
            for frame in self._again(shot, resumed, is_done, workers):
                yield frame
                past = frame if frame.fate is Fate.DONE else past
        while last + 1 < shot.frames.stop:
            for frame in self._stretch(shot, past, last, workers):
                yield frame
                last = max(last, frame.number)
                if frame.fate is Fate.PAINTED:
                    past = replace(frame, motion=None)

    def _again(
        self, shot: Shot, resumed: State, is_done: Callable[[int], bool], workers: Executor | None
    ) -> Iterator[Prepared]:
        """The frame to go on from, and those that are missing between it and the painted one before."""
        wanted = shot.to_paint(resumed.number - 1, self._task.every)[0]  # it may have repeated the painted one
        between = range(max(wanted, resumed.before) + 1, resumed.number)
        missing = [number for number in between if not is_done(number)]
        if not missing:
            yield replace(self._read(shot.plan, resumed.number), fate=Fate.DONE)
            return
        past, *frames, end = (self._read(shot.plan, number) for number in (resumed.before, *between, resumed.number))
        end = replace(end, fate=Fate.DONE)
        yield replace(past, fate=Fate.DONE)
        yield end
        motions = _Motions(self._flow, [past, *frames, end], workers)
        made = self._before(frames, past, end, between.start - 1, motions)
        yield from (frame for frame in made if frame.number in missing)

    def _stretch(self, shot: Shot, past: Prepared | None, last: int, workers: Executor | None) -> Iterator[Prepared]:
        """The frames after the ``last`` one up to the next that is painted if the scene has changed by then. So is the
        last of a shot, for what comes into view before."""
        plan, stop = shot.plan, shot.frames.stop
        if past is None:  # a fade from black or white begins with just that
            frame = self._read(plan, last + 1)
            yield replace(frame, fate=Fate.SHOWN if frame.exposure.hides else Fate.PAINTED)
            return
        every, hold = self._task.every, bool(self._task.options.get("hold"))
        _, wanted = shot.to_paint(last, every)
        numbers = range(last + 1, min(wanted + 1, stop))
        paints = not hold or numbers[-1] == wanted
        if every * self._task.height * self._task.width * BETWEEN > ROOM:
            for number in numbers:
                frame = self._read(plan, number)
                fate = Fate.PAINTED if paints and number == numbers[-1] else Fate.REPEATED if hold else Fate.CARRIED
                yield self._following(frame, past, fate, _Motions(self._flow, [past, frame], workers))
            return
        frames = [self._read(plan, number) for number in numbers]
        motions = _Motions(self._flow, [past, *frames], workers)
        end = self._following(frames.pop(), past, Fate.PAINTED if paints else Fate.REPEATED, motions)
        if hold:
            yield from (replace(frame, fate=Fate.REPEATED) for frame in frames)
        yield end
        if not hold:
            yield from self._before(frames, past, end, last, motions)

    def _before(
        self, frames: Iterable[Prepared], past: Prepared, end: Prepared, last: int, motions: _Motions
    ) -> Iterator[Prepared]:
        """Frames between the ``last`` one, which shows what was ``past``, and the ``end``."""
        for frame in frames:
            if end.fate is Fate.REPEATED:
                yield self._following(frame, past, Fate.CARRIED, motions)
                continue
            if frame.exposure.hides or _show_the_same(frame, past):
                yield replace(frame, fate=Fate.REPEATED, between=True)
                continue
            sides, share = (motions.news(frame, past), motions.news(frame, end)), _share(frame, past, end, last)
            yield replace(frame, fate=Fate.COMPOSED, between=True, sides=sides, share=share)

    def _read(self, plan: Plan, number: int) -> Prepared:
        shown = self._source.at(number)
        if shown is None:
            raise StylizeError(f"{self._task.clip.path}: frame {number} can no longer be read")
        exposure = plan.exposure(number)
        samples = exposure.removed(shown)
        areas = self._task.areas.at(number, self._task.height, self._task.width)
        weights = self._weights(plan, number)
        return Prepared(number, shown, samples, eight_bits(samples[..., :3]), exposure, areas, weights)

    def _following(self, frame: Prepared, past: Prepared, fate: Fate, motions: _Motions) -> Prepared:
        """A frame and what becomes of it after the last painted one: slow changes add up until they are painted."""
        if fate is Fate.REPEATED or frame.exposure.hides or _show_the_same(frame, past):
            return replace(frame, fate=Fate.REPEATED)
        deep = self._task.deep if fate is Fate.PAINTED else DEEP
        return replace(frame, fate=fate, motion=motions.motion(frame, past, deep))


class _Motions:
    """How frames moved, each since the one before; in ``workers``, if there are any."""

    def __init__(self, flow: Flow, frames: Sequence[Prepared], workers: Executor | None) -> None:
        seen = [frame for frame in frames if not frame.exposure.hides]
        self._places = {frame.number: place for place, frame in enumerate(seen)}
        self._chain = Chain(flow, [frame.content for frame in seen], workers)

    def motion(self, frame: Prepared, other: Prepared, deep: float) -> Callable[[], Motion]:
        """How a frame moved since an earlier one; ``deep`` as in :meth:`Motion.along`."""
        return self._found(frame, other, partial(Motion.along, deep=deep))

    def news(self, frame: Prepared, other: Prepared) -> Callable[[], News]:
        """What a frame shows that another one, earlier or later, does not."""
        return self._found(frame, other, News.of)

    def _found(self, frame: Prepared, other: Prepared, find: Callable[..., Made]) -> Callable[[], Made]:
        one, two = self._places[frame.number], self._places[other.number]
        ends, parts = (frame.content, other.content), {"parts": frame.parts, "parts_before": other.parts}

        def found(ways: Ways) -> Made:
            return find(*ends, ways if one > two else ways[::-1], **parts)

        return self._chain.between(max(one, two), min(one, two), found)


def _share(frame: Prepared, past: Prepared, end: Prepared, last: int) -> float:
    """How much a frame has of the later of two: by the styles where they change, else by time."""
    since, until = moved(frame.weights, past.weights), moved(end.weights, frame.weights)
    if since + until > 0:
        return since / (since + until)
    return (frame.number - last) / (end.number - last)


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
        waiting: deque[Future[Prepared | None]] = deque(reader.submit(_next, frames) for _ in range(ahead))
        try:
            while (frame := waiting.popleft().result()) is not None:
                waiting.append(reader.submit(_next, frames))
                yield frame
        finally:
            reader.shutdown(cancel_futures=True)
            frames.close()


def _next(frames: Iterator[Prepared]) -> Prepared | None:
    frame = next(frames, None)
    if frame is not None and frame.fate is Fate.PAINTED:
        frame.picture  # noqa: B018, made here
    return frame


def _threads(ahead: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(THREADS, ahead, cores * 3 // 4))
