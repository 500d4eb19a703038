"""The frames of a shot, one after the other: each starts from the results before it."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylize import Curvature, Flow, Frame, Painted, Picture, StylizeError, Term, load
from stylize_video.curvature import kept, warped
from stylize_video.exposure import NONE, Exposure
from stylize_video.steady import PaintedFrame, as_tensor, expected_steps, is_static, temporal, warp_history
from stylize_video.task import Task, as_picture, eight_bits
from stylize_video.work import Plan, Work

Array = NDArray[Any]

log = logging.getLogger("stylize.video")

STATE_BYTES = 2**24  # of state, for each frame that would have to be painted again without it
MOST_REPEATED = 16  # of them


@dataclass(frozen=True)
class Shot:
    """The frames of a shot that are to be painted, and the plan they are of."""

    frames: range
    plan: Plan


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
        self._reader: Iterator[Array] | None = None
        self._at = 0  # the number of the frame that the reader gives next
        self._past: PaintedFrame | None = None  # the last one painted
        self._counts = Counts()
        self._saved = 0  # the number of the frame whose state was kept last

    def frames(self, shot: Shot) -> Iterator[Frame]:
        """The frames that have to be painted, and those that are copied or carried along, lazily; not those that are
        there already.

        Raises:
            StylizeError: the clip can no longer be read.
        """
        every, held = self._task.every, self._task.options.get("hold")
        self._past = None
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
                    self._past = PaintedFrame(content, as_array(load(self._kept(number))), known)
                continue
            past: PaintedFrame | None = self._past
            picture = as_picture(samples, f"frame {number}")
            copied = Frame(f"frame {number}", picture, number=number + 1, total=shot.plan.frames, copied=True)
            # compared with the last painted one: slow changes add up until they are painted
            same = past is not None and (exposure.hides or is_static(content, past.content))
            if exposure.hides and past is None:  # a fade from black or white begins with just that
                self._copy(number, as_picture(shown, picture.name), NONE)
                yield copied
            elif past is not None and (same or (between and held)):
                self._copy(number, Picture(as_tensor(past.result), picture.alpha), exposure)
                yield copied
            elif past is not None and between:
                carried = warp_history(content, past, self._flow)
                self._save(number, Picture(as_tensor(carried.start), picture.alpha), exposure)
                yield copied
            else:
                data = {"number": number, "content": content, "shot": shot.frames, "exposure": exposure}
                frame = replace(copied, copied=False, data=data)
                yield frame if past is None else self._following(frame, past)
        self._work.remove_states(shot.frames, before=shot.frames.stop)

    def _copy(self, number: int, picture: Picture, exposure: Exposure) -> None:
        """A frame that needs no painting."""
        self._counts += Counts(copied=1)
        self._save(number, picture, exposure)
        self._work.note(number, {"steps": 0, "seconds": 0.0})

    def _following(self, frame: Frame, past: PaintedFrame) -> Frame:
        """A frame as it is painted after another."""
        carried = warp_history(frame.data["content"], past, self._flow, self._task.deep)
        steps = expected_steps(carried, *self._task.steps)
        self._counts += Counts(following=1, steps=steps)
        weight, mask, terms = self._task.temporal_weight, carried.mask_tensor(), list[Term]()
        if weight:
            terms.append(temporal(carried, weight, grey=self._task.settings.preserve_color == "luminance"))
        curvature = warped(past.curvature, as_tensor(carried.flow), mask, weight)
        return replace(
            frame,
            init=as_tensor(carried.start),
            steps=steps,
            terms=terms,
            curvature=curvature,
            data={**frame.data, "mask": mask},
        )

    def write(self, frame: Frame, painted: Painted) -> None:
        """Keep the result of a frame."""
        number = frame.data["number"]
        if painted.stopped:  # good for a part of the clip, but none to go on from
            rgb = frame.data["exposure"].of(painted.picture.rgb)
            picture = replace(painted.picture, rgb=rgb, exif=None, record=None, origin=None)
            self._counts += Counts(stopped=(number, pickle.dumps(picture)))
            return
        self._counts += Counts(painted=1)
        known = Curvature()
        if frame.curvature is not None:
            known = kept(frame.curvature, frame.data["mask"], self._task.temporal_weight)
        kept_state = self._keep_state(number, frame.data["shot"], known)
        result = self._save(number, painted.picture, frame.data["exposure"])
        if kept_state:
            self._work.remove_states(frame.data["shot"], before=number)
        self._past = PaintedFrame(frame.data["content"], as_array(result), known)
        about = {"steps": painted.steps, "seconds": painted.seconds, "style": painted.terms.get("style")}
        self._work.note(number, about)

    def take_counts(self) -> Counts:
        """What became of frames since this was asked last."""
        counts, self._counts = self._counts, Counts()
        return counts

    def _save(self, number: int, result: Picture, exposure: Exposure) -> Picture:
        """Keep a frame, as it is shown; and as it is painted, which is what the next one begins with."""
        if exposure == NONE:
            return self.save(self._work.file(number), result)
        plain = self.save(self._work.plain(number), result)
        self.save(self._work.file(number), replace(plain, rgb=exposure.of(plain.rgb)))
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
        """A frame of the clip. Those of shots in order are read in one pass."""
        if self._reader is None or number < self._at:
            self._reader, self._at = self._task.read(), 0
        for samples in self._reader:
            self._at += 1
            if self._at > number:
                return samples
        raise StylizeError(f"{self._task.clip.path}: frame {number} can no longer be read")

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
