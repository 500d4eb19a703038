"""Flicker of a clip: E_warp, the difference of each frame from the previous one warped by optical flow, and drift of
brightness.

E_warp after Lai et al. 2018, "Learning Blind Video Temporal Consistency"; the pixels that count
are those of :func:`stylize_video.flow.valid`.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stylize import luminance
from stylize_video.flow import valid, warp

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]


@dataclass(frozen=True)
class Measured:
    """The values of one frame: ``number`` from 0, in shot ``shot`` from 1.

    ``warp`` and ``source_warp`` are E_warp of the frame and of its source, in [0, 1], None where a shot begins or no
    pixel was visible in the previous frame. ``luminance`` and ``source_luminance`` are means in [0, 1]; ``drift`` is
    how much brighter the frame is than the first of its shot, relative to the source.
    """

    number: int
    shot: int
    warp: float | None
    source_warp: float | None
    luminance: float
    source_luminance: float | None
    drift: float


@dataclass(frozen=True)
class Summary:
    """A clip in numbers: E_warp as means over its frames, None where unknown; luminance as (minimum, maximum).

    ``ratio`` is E_warp over the source's, None where that is 0 or unknown; ``drift`` is the largest by magnitude.
    """

    frames: int
    shots: int
    warp: float | None
    source_warp: float | None
    ratio: float | None
    median: float | None
    worst: Measured | None
    luminance: tuple[float, float]
    source_luminance: tuple[float, float] | None
    drift: float


def measure(
    painted: Iterable[Array], source: Iterable[Array] | None, flow: Flow, begins: Collection[int] = ()
) -> Iterator[Measured]:
    """Measure a clip frame by frame, with two frames of each clip in memory; it ends with the shorter clip.

    Args:
        painted: frames (H, W, C), 3 channels or more, of which the first three count: uint8, uint16, or floats
            in [0, 1].
        source: the frames they were painted from, of the same size. Flow is computed on them, or on the
            clip itself where they are not given.
        flow: the engine of optical flow.
        begins: the numbers of the frames that begin a shot; the first always does.
    """
    before: tuple[Array, Array] | None = None
    shot, offset = 0, 0.0
    pairs = ((frame, None) for frame in painted) if source is None else zip(painted, source, strict=False)
    for number, (frame, origin) in enumerate(pairs):
        light = mean_luminance(frame)
        source_light = None if origin is None else mean_luminance(origin)
        if number == 0 or number in begins:
            shot, offset, before = shot + 1, light - (source_light or 0), None
        own = source_own = None
        guide = frame if origin is None else origin
        if before is not None:
            back, mask = flow_to_previous(guide, before[1], flow)
            own = e_warp(frame, before[0], back, mask)
            source_own = None if origin is None else e_warp(origin, before[1], back, mask)
        yield Measured(number, shot, own, source_own, light, source_light, light - (source_light or 0) - offset)
        before = frame, guide


def flow_to_previous(frame: Array, before: Array, flow: Flow) -> tuple[Array, Array]:
    """The flow (H, W, 2) from a frame to the previous one, and where it is valid, booleans (H, W)."""
    one, other = _levels(frame), _levels(before)
    back = flow(one, other)
    return back, valid(back, flow(other, one))


def e_warp(frame: Array, before: Array, back: Array, mask: Array) -> float | None:
    """The mean squared difference, pixels in [0, 1], of a frame from the previous one warped by ``back``,
    over the pixels of ``mask``; None if there are none."""
    if not mask.any():
        return None
    return float(np.square(_unit(frame) - warp(_unit(before), back))[mask].mean(dtype=np.float64))


def mean_luminance(frame: Array) -> float:
    """The mean luminance, in [0, 1]."""
    mean = _unit(frame).mean((0, 1), dtype=np.float64)
    return float(luminance(torch.from_numpy(mean).view(1, 3, 1, 1)))


def summary(measured: Sequence[Measured]) -> Summary:
    """The numbers of a clip of at least one frame."""
    known = [(each.warp, each) for each in measured if each.warp is not None]
    warps = [value for value, _ in known]
    theirs = [each.source_warp for each in measured if each.source_warp is not None]
    mean = statistics.fmean(warps) if warps else None
    source_mean = statistics.fmean(theirs) if theirs else None
    lights = [each.luminance for each in measured]
    source_lights = [each.source_luminance for each in measured if each.source_luminance is not None]
    return Summary(
        frames=len(measured),
        shots=measured[-1].shot,
        warp=mean,
        source_warp=source_mean,
        ratio=mean / source_mean if mean is not None and source_mean else None,
        median=statistics.median(warps) if warps else None,
        worst=max(known, key=lambda each: each[0])[1] if known else None,
        luminance=(min(lights), max(lights)),
        source_luminance=(min(source_lights), max(source_lights)) if source_lights else None,
        drift=max((each.drift for each in measured), key=abs),
    )


def _unit(frame: Array) -> Array:
    rgb = frame[..., :3]
    return rgb if rgb.dtype.kind == "f" else rgb.astype(np.float32) / np.iinfo(rgb.dtype).max


def _levels(frame: Array) -> Array:
    """The frame as engines of optical flow take it: (H, W, 3) in uint8."""
    rgb = frame[..., :3]
    if rgb.dtype != np.uint8:
        rgb = (_unit(rgb) * 255).round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(rgb)
