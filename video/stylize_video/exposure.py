"""Fades, flashes and changes of exposure: how bright each frame of a shot is, relative to most of the shot.

The loss draws every frame to the brightness of the style, so that a fade to black would be painted as a bright picture,
and what a flash has washed out would be painted anew. Frames are therefore painted as they would look without the
change, and get it afterwards. It is an affine function of the pixels, the same for all of a frame.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stylize_video.flow import valid, warp

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]

FLAT = 3.0  # levels: standard deviation of a frame below which it shows nothing
NOTICED = 0.4  # levels: a smaller change of mean and contrast is none
BLOCK = 5  # px: means of such squares are compared
EXPLAINED = 0.5  # part of the squared difference of two frames that a change of exposure may leave
LEAST = 0.3  # squared levels of difference to be explained
DARK, BRIGHT = 16, 239  # levels: a frame that shows nothing, and is on average beyond them, is black or white
FLASH = 0.1  # gain or lift of a change that is there for a moment
SAME_MEAN, SAME_SPREAD = 2.5, 0.03  # levels, and part, within which frames before and after a flash are the same
DARKEST = 0.1  # gain below which there is nothing to paint by
WASHED_OUT = 1.3  # what white becomes
BINS = 20  # of gain 1
CLOSE, CLOSE_LIFT = 0.04, 0.012  # gain and lift so near to none that they are none
MOST = 64.0


class Exposure(NamedTuple):
    """``gain`` x + ``lift`` makes of a pixel x in [0, 1] what is shown of it."""

    gain: float = 1.0
    lift: float = 0.0

    def then(self, other: Exposure) -> Exposure:
        """This and then another."""
        return Exposure(other.gain * self.gain, other.gain * self.lift + other.lift)

    def inverse(self) -> Exposure:
        return Exposure(1 / self.gain, -self.lift / self.gain)

    @property
    def hides(self) -> bool:
        """Whether too little is left of the picture to paint by: it is almost black, almost white, or washed out."""
        return self.gain < DARKEST or self.lift > 1 - DARKEST or self.gain + self.lift > WASHED_OUT

    def of(self, result: Tensor) -> Tensor:
        """What is shown of a picture in [0, 1]."""
        return result if self == NONE else (result * self.gain + self.lift).clamp(0, 1)

    def removed(self, samples: Array) -> Array:
        """A frame (H, W, 3 or 4) in uint8 or uint16 as it would be without."""
        if self == NONE:
            return samples
        most = np.iinfo(samples.dtype).max
        made = samples.copy()
        bare = (samples[..., :3].astype(np.float32) / most - self.lift) / max(self.gain, DARKEST)
        made[..., :3] = (bare.clip(0, 1) * most).round()
        return made


NONE = Exposure()


class ExposureMeter:
    """Watches the frames of a clip, (H, W, 3) in uint8, small, for changes of exposure from one to the next."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._changes: list[Exposure | None] = []  # since the frame before; None: nothing is shown before
        self._light: list[tuple[float, float]] = []  # mean and standard deviation of each frame, levels

    def watch(self, frames: Iterator[Array]) -> Iterator[Array]:
        last = None
        for frame in frames:
            self._changes.append(None if last is None else change(last, frame, self._flow))
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            self._light.append((float(grey.mean()), float(grey.std())))
            yield frame
            last = frame

    def exposures(self, shots: Sequence[range]) -> tuple[Exposure, ...]:
        """That of each frame, relative to what its shot has most of; none at all where there are no changes."""
        found: list[Exposure] = []
        for shot in shots:
            made = _of_shot(self._changes[shot.start : shot.stop], self._light[shot.start : shot.stop])
            slight = all(abs(each.gain - 1) < CLOSE and abs(each.lift) < CLOSE_LIFT for each in made)
            found += [NONE] * len(shot) if slight else made
        return tuple(found) if any(each != NONE for each in found) else ()


def change(before: Array, now: Array, flow: Flow) -> Exposure | None:
    """The change of exposure from one frame to the next, :data:`NONE` where there is none: where what differs between
    them is not explained by one, or so little that noise explains it. None where the first shows nothing."""
    one, other = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY).astype(np.float32) for each in (before, now))
    gain = float(other.std() / max(1e-3, one.std()))
    lift = float(other.mean() - gain * one.mean())
    if other.std() < FLAT:
        falls = one.std() >= FLAT or (gain <= 1 and abs(other.mean() - one.mean()) >= NOTICED)
        return Exposure(gain, lift / 255) if falls else NONE
    if one.std() < FLAT:
        return None
    if max(abs(other.mean() - one.mean()), abs(other.std() - one.std())) < NOTICED:
        return NONE
    alike = (before * np.float32(gain) + np.float32(lift)).clip(0, 255).astype(np.uint8)  # flow takes equal brightness
    back = flow(now, alike)
    moved = cv2.blur(warp(one, back)[..., 0], (BLOCK, BLOCK))
    shown = cv2.blur(other, (BLOCK, BLOCK))
    use = valid(back, flow(alike, now)) & (moved > 2) & (moved < 253) & (shown > 2) & (shown < 253)
    if np.count_nonzero(use) < use.size / 10:
        return NONE
    x, y = moved[use].astype(np.float64), shown[use].astype(np.float64)
    for _ in range(3):  # the third that fits worst is left out
        gain = min(MOST, y.std() / max(1e-6, x.std()))
        lift = y.mean() - gain * x.mean()
        off = np.abs(y - gain * x - lift)
        keep = off <= np.quantile(off, 2 / 3)
        inner, outer = x[keep], y[keep]
        if inner.std() < 1e-3:
            return NONE
        gain, lift = np.polyfit(inner, outer, 1)
    apart, left = float(np.square(y - x).mean()), float(np.square(y - gain * x - lift).mean())
    if gain <= 0 or apart < LEAST or left > EXPLAINED * apart:
        return NONE
    return Exposure(float(gain), float(lift) / 255)


def _of_shot(changes: Sequence[Exposure | None], light: Sequence[tuple[float, float]]) -> list[Exposure]:
    """The exposures of a shot by the changes in it. Where it shows nothing for a while it begins anew."""
    parts: list[list[Exposure]] = []
    rest, peak = 0, 0.0  # the last frame before a change, and how far the change went
    for number, each in enumerate(changes):
        if number == 0 or each is None:
            parts.append([NONE])
            rest, peak = number, 0.0
            continue
        now = parts[-1][-1].then(each)
        close = each == NONE and abs(now.gain - 1) < CLOSE and abs(now.lift) < CLOSE_LIFT
        if close or (peak > FLASH and _same(light[rest], light[number])):
            now, rest, peak = NONE, number, 0.0
        peak = max(peak, abs(now.gain - 1), abs(now.lift))
        parts[-1].append(now)
    made, number = list[Exposure](), 0
    for part in parts:
        mean, spread = light[number]
        empty = spread < FLAT and not DARK < mean < BRIGHT
        made += [Exposure(0.0, mean / 255)] * len(part) if empty else _relative(part)
        number += len(part)
    return made


def _same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return abs(one[0] - other[0]) < SAME_MEAN and abs(one[1] - other[1]) < SAME_SPREAD * one[1]


def _relative(found: list[Exposure]) -> list[Exposure]:
    """Relative to the gain that most frames have, the highest of several, and none of the darkest."""
    least = max(each.gain for each in found) / 3
    bins = {each: round(math.log(each.gain) * BINS) for each in found if each.gain >= least}
    counts = Counter(bins[each] for each in found if each in bins)
    most = max(counts, key=lambda key: (counts[key], key))
    reference = next(each for each in found if bins.get(each) == most)
    if reference == NONE:
        return found
    back = reference.inverse()
    made = [back.then(each) for each in found]
    return [NONE if abs(each.gain - 1) < 1e-6 and abs(each.lift) < 1e-6 else each for each in made]
