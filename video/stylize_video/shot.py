"""The frames of a shot, one after the other: each starts from the results before it."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stylize import Curvature, Flow, Frame, Painted, Picture, StylizeError, Stylizer, Term, load
from stylize_video.ahead import Fate, Preparation, Prepared, frames_ahead
from stylize_video.areas import FrameAreas
from stylize_video.between import composed
from stylize_video.curvature import kept, warped
from stylize_video.exposure import NONE, Exposure
from stylize_video.steady import WarpedHistory, as_tensor, expected_steps, temporal, warp_history
from stylize_video.styling import Weights
from stylize_video.task import Task, as_picture
from stylize_video.work import Plan, Shot, State, Work
from stylize_video.writing import Writer, write_png

Array = NDArray[Any]

log = logging.getLogger("stylize.video")

STATE_BYTES = 2**24  # of state, for each frame that would have to be painted again without it
MOST_REPEATED = 16  # of them
QUICKER = 4  # times as many frames are painted on accelerators, while a disk takes as long
ENTIRELY = 0.9  # share of what is painted that is new, from which on a frame is painted as a still


@dataclass(frozen=True, eq=False)
class Past:
    """The ``result`` (1, 3, H, W) in [0, 1] of a frame that was painted, its ``number``, and what is known of the
    ``curvature`` of its loss."""

    number: int
    result: Tensor
    curvature: Curvature


@dataclass(frozen=True, eq=False)
class Over:
    """What makes of a painted frame the one that is shown: its exposure, and what the source ``shown`` (H, W, 3 or 4)
    has where it is not painted."""

    exposure: Exposure = NONE
    areas: FrameAreas | None = None
    shown: Array | None = None

    @property
    def shows_all(self) -> bool:
        """Whether a frame is shown as it is painted."""
        return self.exposure == NONE and (self.areas is None or self.areas.weights is None)

    def of(self, painted: Tensor) -> Tensor:
        """What is shown of a picture (1, 3, H, W) in [0, 1]."""
        made = self.exposure.of(painted)
        if self.areas is None or self.areas.weights is None or self.shown is None:
            return made
        return self.areas.over(made, as_picture(self.shown, "").rgb)

    def unmixed(self, result: Tensor, content: Tensor) -> Tensor:
        """What was painted, where the result is laid over the content."""
        return result if self.areas is None else self.areas.unmixed(result, content)


class StylesOf:
    """The styles of the frames of a clip: ``begun`` are those it begins with, which weigh ``base``."""

    def __init__(self, task: Task, begun: tuple[Picture, ...], base: Sequence[float]) -> None:
        self._task, self._base = task, base
        self._all = (*begun, *task.styling.pictures)
        self._plan: Plan | None = None
        self._weights: list[Weights] = []

    def at(self, plan: Plan, number: int) -> Weights:
        """The weights of all styles in a frame; none where they never change."""
        if plan is not self._plan:
            self._plan, self._weights = plan, self._task.styling.weights(plan, self._task.clip, self._base)
        return self._weights[number] if self._weights else ()

    def given(self, frame: Frame, weights: Weights) -> Frame:
        """A frame that is painted in these."""
        if not any(weights[len(self._base) :]):  # as the run is told
            return frame
        return replace(frame, styles=self._all, style_weights=weights)


@dataclass(frozen=True)
class Counts:
    """What became of the frames of a shot: ``painted``; ``copied`` from the one before; ``following`` another, and
    their ``steps``. ``stopped`` is the number of a frame that is not finished, and its picture, pickled."""

    painted: int = 0
    copied: int = 0
    following: int = 0
    steps: int = 0
    stopped: tuple[int, bytes] | None = None

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.painted + other.painted,
            self.copied + other.copied,
            self.following + other.following,
            self.steps + other.steps,
            self.stopped or other.stopped,
        )

    def unfinished(self) -> tuple[int, Picture] | None:
        """The frame that is not finished."""
        if self.stopped is None:
            return None
        return self.stopped[0], pickle.loads(self.stopped[1])  # noqa: S301, pickled by this program


class ShotPainter:
    """Yields the frames of one shot at a time, and takes their results.

    The first frame of a shot is painted as a still. Each that follows begins with the last result warped by the optical
    flow of the contents, is held to it where the scene is the same, and gets more steps the more of it has changed; one
    in which nothing has changed is the last one again. Frames are painted without the exposure of the plan, and shown
    with it.
    """

    def __init__(self, task: Task, work: Work, flow: Flow) -> None:
        self._task, self._work, self._flow = task, work, flow
        self._past: Past | None = None
        self._before: Past | None = None  # the one painted before that
        self._counts = Counts()
        self._saved = 0  # the number of the frame whose state was kept last

    def begin(self, stylizer: Stylizer) -> None:
        """Paint with a stylizer, of the styles that the clip begins with."""
        task, base = self._task, stylizer.settings.style_weights or (1.0,) * len(stylizer.styles)
        self._styles = StylesOf(task, stylizer.styles, base)
        self._ahead = frames_ahead(stylizer.engine.device, task.height, task.width)
        self._preparation = Preparation(task, self._flow, self._styles.at)
        self._writer = Writer(beside=self._ahead > 0)

    def check(self, plan: Plan) -> None:
        """Refuse a plan that has no such shots as styles are given for.

        Raises:
            SettingsError: names the shot.
        """
        self._styles.at(plan, 0)

    def frames(self, shot: Shot) -> Iterator[Frame]:
        """The frames that have to be painted, and those that are copied or carried along, lazily; not those that are
        there already.

        Raises:
            StylizeError: the clip can no longer be read, or a frame cannot be written.
        """
        self._past = self._before = None
        resumed = self._work.read_state(shot.frames) or State(shot.frames.start, shot.frames.start)
        self._saved = resumed.number
        try:
            with closing(self._preparation.frames(shot, resumed, self._is_done, self._ahead)) as prepared:
                for frame in prepared:
                    if frame.fate is Fate.DONE:
                        self._go_on(Past(frame.number, load(self._kept(frame.number)).rgb, resumed.curvature))
                    elif frame.fate is Fate.PAINTED:
                        yield self._to_paint(frame, shot)
                    else:
                        self._pass_on(frame)
                        yield Frame(
                            frame.name, frame.picture, number=frame.number + 1, total=shot.plan.frames, copied=True
                        )
            self._writer.wait()
        finally:
            self._writer.settle()
        self._work.remove_states(shot.frames, before=shot.frames.stop)

    def _is_done(self, number: int) -> bool:
        return self._work.file(number).exists()

    def _go_on(self, past: Past) -> None:
        self._before, self._past = self._past, past

    def _pass_on(self, frame: Prepared) -> None:
        """Keep what is made of a frame without painting."""
        about: Mapping[str, float | None] | None = {"steps": 0, "seconds": 0.0}
        over, past = Over(frame.exposure, frame.areas, frame.shown), self._before if frame.between else self._past
        if frame.fate in (Fate.COMPOSED, Fate.CARRIED):
            about = None
        else:
            self._counts += Counts(copied=1)
        if frame.fate is Fate.SHOWN:
            over = Over()
        elif past is None or self._past is None:
            raise StylizeError(f"{frame.name}: the frame before it was not written")
        make = self._passed_on(frame, past, self._past)

        def write() -> None:
            plain = self._rounded(Picture(make(), frame.picture.alpha))
            self._write(frame.number, plain, over, about)

        self._writer(write)

    def _passed_on(self, frame: Prepared, earlier: Past | None, later: Past | None) -> Callable[[], Tensor]:
        """How to make a frame (1, 3, H, W) of one that was painted, or of two; all else is done."""
        if earlier is None or later is None:
            return lambda: as_picture(frame.shown, frame.name).rgb
        if frame.fate is Fate.REPEATED:
            return lambda: earlier.result
        if frame.fate is Fate.CARRIED:
            carried = self._carried(frame, earlier)
            return carried.start_tensor
        assert frame.sides is not None
        since, until = (side() for side in frame.sides)
        results = as_array(earlier.result), as_array(later.result)
        return lambda: as_tensor(composed(frame.content, results[0], since, results[1], until, frame.share))

    def _to_paint(self, prepared: Prepared, shot: Shot) -> Frame:
        areas = prepared.areas
        frame = Frame(
            prepared.name,
            prepared.picture,
            number=prepared.number + 1,
            total=shot.plan.frames,
            data={"prepared": prepared, "shot": shot.frames, "number": prepared.number},
        )
        frame = self._styles.given(frame, prepared.weights)
        if areas is not None:
            frame = replace(frame, mask=areas.mask, regions=areas.regions)
        return frame if self._past is None else self._following(frame, prepared, self._past)

    def _following(self, frame: Frame, prepared: Prepared, past: Past) -> Frame:
        """A frame as it is painted after another."""
        areas = prepared.areas
        carried = self._carried(prepared, past)
        if areas is not None and carried.unseen > ENTIRELY:  # nothing to go on from
            return frame
        steps = expected_steps(carried, *self._task.steps_after(prepared.number - past.number))
        self._counts += Counts(following=1, steps=steps)
        weight, mask, terms = self._temporal_weight(areas), carried.mask_tensor(), list[Term]()
        if weight:
            terms.append(temporal(carried, weight, grey=self._task.settings.preserve_color == "luminance"))
        curvature = warped(past.curvature, as_tensor(carried.flow), mask, weight)
        return replace(
            frame,
            init=carried.start_tensor(),
            steps=steps,
            terms=terms,
            curvature=curvature,
            data={**frame.data, "mask": mask, "weight": weight},
        )

    def _carried(self, frame: Prepared, past: Past) -> WarpedHistory:
        """What the last painted frame gives another."""
        assert frame.motion is not None
        return warp_history(frame.content, as_array(past.result), frame.motion())

    def write(self, frame: Frame, painted: Painted) -> None:
        """Keep the result of a frame.

        Raises:
            StylizeError: it, or one before it, cannot be written.
        """
        prepared: Prepared = frame.data["prepared"]
        over = Over(prepared.exposure, prepared.areas, prepared.shown)
        rgb = over.unmixed(painted.picture.rgb, frame.image.rgb)
        if painted.stopped:  # good for a part of the clip, but none to go on from
            picture = replace(painted.picture, rgb=over.of(rgb), exif=None, record=None, origin=None)
            self._counts += Counts(stopped=(prepared.number, pickle.dumps(picture)))
            return
        self._counts += Counts(painted=1)
        known = Curvature()
        if frame.curvature is not None:
            known = kept(frame.curvature, frame.data["mask"], frame.data["weight"])
        plain = self._rounded(replace(painted.picture, rgb=rgb))
        about = {"steps": painted.steps, "seconds": painted.seconds, "style": painted.terms.get("style")}
        state = self._state(prepared.number, known)
        self._go_on(Past(prepared.number, plain.rgb, known))
        self._writer(lambda: self._write(prepared.number, plain, over, about, frame.data["shot"], state))

    def _temporal_weight(self, areas: FrameAreas | None) -> float:
        """That of the temporal term, which is a mean over all of the picture, where the others are over what is
        painted."""
        weight = self._task.temporal_weight
        return weight if areas is None else weight * areas.parts.size / max(1, int(np.count_nonzero(areas.parts)))

    def take_counts(self) -> Counts:
        """What became of frames since this was asked last, when all are written.

        Raises:
            StylizeError: one cannot be written.
        """
        self._writer.wait()
        counts, self._counts = self._counts, Counts()
        return counts

    def _write(
        self,
        number: int,
        plain: Picture,
        over: Over,
        about: Mapping[str, float | None] | None,
        shot: range = range(0),
        state: State | None = None,
    ) -> None:
        """Keep a frame, as it is shown; and as it is painted, which is what the next one begins with. Whenever this
        ends, another run can go on."""
        if state is not None:
            self._work.write_state(shot, state)
        if over.shows_all:
            self.save(self._work.file(number), plain)
        else:
            self.save(self._work.plain(number), plain)
            self.save(self._work.file(number), replace(plain, rgb=over.of(plain.rgb)))
        if state is not None:
            self._work.remove_states(shot, before=number)
        if about is not None:
            self._work.note(number, about)

    def _kept(self, number: int) -> Path:
        """Where a frame is as it is painted."""
        plain = self._work.plain(number)
        return plain if plain.exists() else self._work.file(number)

    def save(self, path: Path, result: Picture) -> None:
        """Write a frame."""
        if self._task.gives_frames:
            self._rounded(result).save(path, bits=self._task.bits)
        else:
            write_png(path, result, self._task.bits)

    def _rounded(self, result: Picture) -> Picture:
        """A picture as it is read back."""
        levels = 65535 if self._task.bits > 8 else 255
        return replace(result, rgb=(result.rgb.clamp(0, 1) * levels).round() / levels, exif=None, record=None)

    def _state(self, number: int, known: Curvature) -> State | None:
        """What another run needs to go on from a frame with the same result, on the CPU, as it is only there that other
        threads may compute; None of most large frames, which it paints again."""
        size = 0 if known.moves is None else 4 * known.moves.numel()
        quicker = QUICKER if self._ahead else 1
        if number - self._saved < min(MOST_REPEATED * quicker, math.ceil(size * quicker / STATE_BYTES)):
            return None
        self._saved = number
        before = number if self._past is None else self._past.number
        if known.moves is None or known.changes is None:
            return State(number, before, known)
        return State(number, before, Curvature(known.moves.cpu(), known.changes.cpu()))


def as_array(image: Tensor) -> Array:
    """The colours of a picture (1, 3, H, W), (H, W, 3)."""
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
