"""The frames of a shot, one after the other: each starts from the results before it."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stylize import Curvature, Flow, Frame, Painted, Picture, StylizeError, Stylizer, Term, load
from stylize_video.areas import FrameAreas
from stylize_video.curvature import kept, warped
from stylize_video.decode import InOrder
from stylize_video.exposure import NONE, Exposure
from stylize_video.steady import (
    PaintedFrame,
    WarpedHistory,
    as_tensor,
    expected_steps,
    is_static,
    temporal,
    warp_history,
)
from stylize_video.styling import Weights, moved
from stylize_video.task import DEEP, Task, as_picture, eight_bits
from stylize_video.work import Plan, Work

Array = NDArray[Any]

log = logging.getLogger("stylize.video")

STATE_BYTES = 2**24  # of state, for each frame that would have to be painted again without it
MOST_REPEATED = 16  # of them
ENTIRELY = 0.9  # share of what is painted that is new, from which on a frame is painted as a still


@dataclass(frozen=True)
class Shot:
    """The frames of a shot that are to be painted, and the plan they are of."""

    frames: range
    plan: Plan


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
        self._source = InOrder(task.read)
        self._past: PaintedFrame | None = None  # the last one painted
        self._areas: FrameAreas | None = None  # its own
        self._weights: Weights = ()  # of its styles
        self._counts = Counts()
        self._saved = 0  # the number of the frame whose state was kept last

    def begin(self, stylizer: Stylizer) -> None:
        """Paint with a stylizer, of the styles that the clip begins with."""
        base = stylizer.settings.style_weights or (1.0,) * len(stylizer.styles)
        self._styles = StylesOf(self._task, stylizer.styles, base)

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
            StylizeError: the clip can no longer be read.
        """
        every, held = self._task.every, self._task.options.get("hold")
        self._past = self._areas = None
        resumed, known = self._work.read_state(shot.frames) or (shot.frames.start, Curvature())
        self._saved = resumed
        for number in shot.frames:
            exposure = shot.plan.exposure(number)
            shown = self._read(number)
            samples = exposure.removed(shown)
            content = eight_bits(samples[..., :3])
            between = (number - shot.frames.start) % every > 0
            if number <= resumed and self._work.file(number).exists():
                if number == resumed and not exposure.hides:
                    weights = self._styles.at(shot.plan, number)
                    self._remember(content, load(self._kept(number)), known, self._areas_of(number), weights)
                continue
            past: PaintedFrame | None = self._past
            picture, areas = as_picture(samples, f"frame {number}"), self._areas_of(number)
            over = Over(exposure, areas, shown)
            copied = Frame(f"frame {number}", picture, number=number + 1, total=shot.plan.frames, copied=True)
            # compared with the last painted one: slow changes add up until they are painted
            weights = self._styles.at(shot.plan, number)
            same = past is not None and (exposure.hides or self._shows_the_same(content, past, areas, weights))
            if exposure.hides and past is None:  # a fade from black or white begins with just that
                self._copy(number, as_picture(shown, picture.name), Over())
                yield copied
            elif past is not None and (same or (between and held)):
                self._copy(number, Picture(as_tensor(past.result), picture.alpha), over)
                yield copied
            elif past is not None and between:
                carried = self._carried(content, past, areas)
                self._save(number, Picture(as_tensor(carried.start), picture.alpha), over)
                yield copied
            else:
                data = {"number": number, "content": content, "shot": shot.frames, "over": over, "weights": weights}
                frame = self._styles.given(replace(copied, copied=False, data=data), weights)
                if areas is not None:
                    frame = replace(frame, mask=areas.mask, regions=areas.regions)
                yield frame if past is None else self._following(frame, past)
        self._work.remove_states(shot.frames, before=shot.frames.stop)

    def _copy(self, number: int, picture: Picture, over: Over) -> None:
        """A frame that needs no painting."""
        self._counts += Counts(copied=1)
        self._save(number, picture, over)
        self._work.note(number, {"steps": 0, "seconds": 0.0})

    def _following(self, frame: Frame, past: PaintedFrame) -> Frame:
        """A frame as it is painted after another."""
        areas = frame.data["over"].areas
        carried = self._carried(frame.data["content"], past, areas, self._task.deep)
        if areas is not None and carried.unseen > ENTIRELY:  # nothing to go on from
            return frame
        steps = expected_steps(carried, *self._task.steps)
        self._counts += Counts(following=1, steps=steps)
        weight, mask, terms = self._temporal_weight(areas), carried.mask_tensor(), list[Term]()
        if weight:
            terms.append(temporal(carried, weight, grey=self._task.settings.preserve_color == "luminance"))
        curvature = warped(past.curvature, as_tensor(carried.flow), mask, weight)
        return replace(
            frame,
            init=as_tensor(carried.start),
            steps=steps,
            terms=terms,
            curvature=curvature,
            data={**frame.data, "mask": mask, "weight": weight},
        )

    def write(self, frame: Frame, painted: Painted) -> None:
        """Keep the result of a frame."""
        number, over = frame.data["number"], frame.data["over"]
        if painted.stopped:  # good for a part of the clip, but none to go on from
            rgb = over.of(over.unmixed(painted.picture.rgb, frame.image.rgb))
            picture = replace(painted.picture, rgb=rgb, exif=None, record=None, origin=None)
            self._counts += Counts(stopped=(number, pickle.dumps(picture)))
            return
        self._counts += Counts(painted=1)
        known = Curvature()
        if frame.curvature is not None:
            known = kept(frame.curvature, frame.data["mask"], frame.data["weight"])
        kept_state = self._keep_state(number, frame.data["shot"], known)
        bare = replace(painted.picture, rgb=over.unmixed(painted.picture.rgb, frame.image.rgb))
        result = self._save(number, bare, over)
        if kept_state:
            self._work.remove_states(frame.data["shot"], before=number)
        self._remember(frame.data["content"], result, known, over.areas, frame.data["weights"])
        about = {"steps": painted.steps, "seconds": painted.seconds, "style": painted.terms.get("style")}
        self._work.note(number, about)

    def _remember(
        self, content: Array, result: Picture, known: Curvature, areas: FrameAreas | None, weights: Weights
    ) -> None:
        """What the next frame begins with."""
        parts = None if areas is None else areas.parts
        self._past = PaintedFrame(content, as_array(result), known, parts)
        self._areas, self._weights = areas, weights

    def _areas_of(self, number: int) -> FrameAreas | None:
        return self._task.areas.at(number, self._task.height, self._task.width)

    def _shows_the_same(self, content: Array, past: PaintedFrame, areas: FrameAreas | None, weights: Weights) -> bool:
        """Whether nothing has changed since the last frame that was painted, as far as it is painted."""
        if moved(weights, self._weights):
            return False
        if areas is not None:
            if self._areas is None or not areas.same_as(self._areas):
                return False
            content = areas.inside(content, past.content)
        return is_static(content, past.content)

    def _carried(
        self, content: Array, past: PaintedFrame, areas: FrameAreas | None, deep: float = DEEP["default"]
    ) -> WarpedHistory:
        return warp_history(content, past, self._flow, deep, None if areas is None else areas.parts)

    def _temporal_weight(self, areas: FrameAreas | None) -> float:
        """That of the temporal term, which is a mean over all of the picture, where the others are over what is
        painted."""
        weight = self._task.temporal_weight
        return weight if areas is None else weight * areas.parts.size / max(1, int(np.count_nonzero(areas.parts)))

    def take_counts(self) -> Counts:
        """What became of frames since this was asked last."""
        counts, self._counts = self._counts, Counts()
        return counts

    def _save(self, number: int, result: Picture, over: Over) -> Picture:
        """Keep a frame, as it is shown; and as it is painted, which is what the next one begins with."""
        if over.shows_all:
            return self.save(self._work.file(number), result)
        plain = self.save(self._work.plain(number), result)
        self.save(self._work.file(number), replace(plain, rgb=over.of(plain.rgb)))
        return plain

    def _kept(self, number: int) -> Path:
        """Where a frame is as it is painted."""
        plain = self._work.plain(number)
        return plain if plain.exists() else self._work.file(number)

    def save(self, path: Path, result: Picture) -> Picture:
        """Write a frame; the picture as it is read back."""
        levels = 65535 if self._task.bits > 8 else 255
        kept = replace(result, rgb=(result.rgb.clamp(0, 1) * levels).round() / levels, exif=None, record=None)
        kept.save(path, bits=self._task.bits)
        return kept

    def _read(self, number: int) -> Array:
        """A frame of the clip."""
        samples = self._source.at(number)
        if samples is None:
            raise StylizeError(f"{self._task.clip.path}: frame {number} can no longer be read")
        return samples

    def _keep_state(self, number: int, shot: range, known: Curvature) -> bool:
        """Keep what another run needs to go on from a frame with the same result; of large frames, now and then.
        Whether it was."""
        size = 0 if known.moves is None else 4 * known.moves.numel()
        if number - self._saved < min(MOST_REPEATED, math.ceil(size / STATE_BYTES)):
            return False
        self._work.write_state(shot, number, known)
        self._saved = number
        return True


def as_array(picture: Picture) -> Array:
    """The colours of a picture, (H, W, 3)."""
    return np.ascontiguousarray(picture.rgb[0].permute(1, 2, 0).numpy())
