"""The frames of a shot, one after the other: each starts from the results before it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylize import Flow, Frame, Painted, Picture, StylizeError, Term, load
from stylize_video.steady import PaintedFrame, as_tensor, expected_steps, is_static, temporal, warp_history
from stylize_video.task import Task, as_picture, eight_bits
from stylize_video.work import Plan, Work

Array = NDArray[Any]

log = logging.getLogger("stylize.video")


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
    in which nothing has changed is the last one again.
    """

    def __init__(self, task: Task, work: Work, flow: Flow) -> None:
        self._task, self._work, self._flow = task, work, flow
        self._reader: Iterator[Array] | None = None
        self._at = 0  # the number of the frame that the reader gives next
        self._past: PaintedFrame | None = None  # the last one painted
        self._counts = Counts()

    def frames(self, shot: Shot) -> Iterator[Frame]:
        """The frames that have to be painted, and those that are copied or carried along, lazily; not those that are
        there already.

        Raises:
            StylizeError: the clip can no longer be read.
        """
        every, held = self._task.every, self._task.options.get("hold")
        self._past = None
        for number in shot.frames:
            samples = self._read(number)
            content = eight_bits(samples[..., :3])
            past = self._past
            same = past is not None and is_static(content, past.content)
            if (
                past is not None and same
            ):  # compared with the last painted one: slow changes add up until they are painted
                content = past.content
            between = (number - shot.frames.start) % every > 0
            if self._work.file(number).exists():
                if not between:
                    self._remember(content, load(self._work.file(number)))
                continue
            picture = as_picture(samples, f"frame {number}")
            copied = Frame(f"frame {number}", picture, number=number + 1, total=shot.plan.frames, copied=True)
            if past is not None and (same or (between and held)):
                self._counts += Counts(copied=1)
                self.save(self._work.file(number), Picture(as_tensor(past.result), picture.alpha))
                self._work.note(number, {"steps": 0, "seconds": 0.0})
                if not between:
                    self._remember(content, load(self._work.file(number)))
                yield copied
                continue
            if past is not None and between:
                carried = warp_history(content, past, self._flow)
                self.save(self._work.file(number), Picture(as_tensor(carried.start), picture.alpha))
                yield copied
                continue
            frame = replace(copied, copied=False, data={"number": number, "content": content})
            yield frame if past is None else self._following(frame, content, past)

    def _following(self, frame: Frame, content: Array, past: PaintedFrame) -> Frame:
        """A frame as it is painted after another."""
        carried = warp_history(content, past, self._flow)
        steps = expected_steps(carried, self._task.most_steps)
        self._counts += Counts(following=1, steps=steps)
        weight, terms = self._task.temporal_weight, list[Term]()
        if weight:
            terms.append(temporal(carried, weight, grey=self._task.settings.preserve_color == "luminance"))
        return replace(frame, init=as_tensor(carried.start), steps=steps, terms=terms)

    def write(self, frame: Frame, painted: Painted) -> None:
        """Keep the result of a frame."""
        number = frame.data["number"]
        if painted.stopped:  # good for a part of the clip, but none to go on from
            picture = replace(painted.picture, exif=None, record=None, origin=None)
            self._counts += Counts(stopped=(number, pickle.dumps(picture)))
            return
        self._counts += Counts(painted=1)
        self._remember(frame.data["content"], self.save(self._work.file(number), painted.picture))
        about = {"steps": painted.steps, "seconds": painted.seconds, "style": painted.terms.get("style")}
        self._work.note(number, about)

    def take_counts(self) -> Counts:
        """What became of frames since this was asked last."""
        counts, self._counts = self._counts, Counts()
        return counts

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

    def _remember(self, content: Array, result: Picture) -> None:
        rgb = np.ascontiguousarray(result.rgb[0].permute(1, 2, 0).numpy())
        self._past = PaintedFrame(content, rgb)
