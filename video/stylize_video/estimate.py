"""How long a clip will take and how much disk space it needs, estimated before it is begun."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylize.text import rounded
from stylize_video.steady import News, expected_steps, is_static

if TYPE_CHECKING:
    from stylize import Flow, Picture, Step, Stylizer

Array = NDArray[Any]

SAMPLES = 32  # pairs of frames
FURTHEST = 16  # frames from one to the other
TRIAL = 3  # steps that are timed; the first does not count
BYTES = {8: 2.1, 16: 5.0}  # per painted pixel, as PNG, by bit depth


class Samples:
    """Pairs of frames that are painted one after the other, ``every`` frames apart, evenly spread over a clip."""

    def __init__(self, count: int | None, every: int = 1) -> None:
        self._spacing, self._every = max(1, (count or 1000) // SAMPLES), min(every, FURTHEST)
        self._pairs: list[tuple[int, Array, Array]] = []

    def watch(self, frames: Iterator[Array]) -> Iterator[Array]:
        last = deque[Array](maxlen=self._every)
        for number, frame in enumerate(frames):
            if len(last) == self._every and number % self._spacing == 0:
                self._pairs.append((number, last[0], frame))
            yield frame
            last.append(frame)

    def expected_steps(self, cuts: Sequence[int], flow: Flow, fewest: int, most: int) -> float:
        """The average number of steps of a frame that follows another."""
        steps = []
        for number, last, frame in self._pairs:
            if any(number - self._every < cut <= number for cut in cuts):
                continue
            static = is_static(frame, last)
            steps.append(0 if static else expected_steps(News.between(frame, last, flow), fewest, most))
        return float(np.mean(steps)) if steps else 0.0


def seconds_per_step(stylizer: Stylizer, picture: Picture) -> float:
    """The time of a step at full size, measured."""
    times: list[float] = []

    def on_step(step: Step) -> None:
        times.append(step.seconds)

    stylizer(picture, init=picture.rgb, steps=TRIAL, on_step=on_step)
    return max(0.0, times[-1] - times[0]) / max(1, len(times) - 1)


def steps_of_a_still(stylizer: Stylizer, height: int, width: int) -> float:
    """The steps of a picture painted from scratch, as the number of full-size steps that take as long."""
    scales = stylizer.scales(height, width)
    return sum(scale.steps * scale.height * scale.width for scale in scales) / (height * width)


def disk_space(folder: Path, height: int, width: int, frames: int, bits: int) -> tuple[int, int]:
    """The bytes that the frames will take, and those that are free in ``folder``."""
    return round(height * width * frames * BYTES[bits]), shutil.disk_usage(folder).free


def size(count: float) -> str:
    """1.2 GB, 350 MB, 2 kB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{rounded(count / factor, 3)} {unit}"
    return f"{max(1, round(count / 1e3))} kB"
