"""Optical flow between two frames, warping by it, and where it can be relied on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]

SMALLEST = 16  # px a side: smaller frames are refused by DIS


def engine(name: str, device: str = "cpu") -> Flow | None:
    """A built-in engine: ``dis`` (Kroeger et al. 2016), ``farneback`` (Farnebäck 2003) or ``raft``.

    Raises:
        WeightsError: RAFT's weights can neither be found nor downloaded.
    """
    if name == "raft":
        from stylize_video.flow import raft

        return raft.engine(device)
    return {"dis": _dis, "farneback": _farneback}.get(name)


def _dis(one: Array, other: Array) -> Array:
    """DIS down to the pixels of the frame, then made smooth where the frames allow it, at weak data weights.

    By default the library stops at half the resolution, and its own refinement follows the noise of a recording. On
    synthetic scenes of known motion at 256 px, the error is a third of what DIS alone leaves, 0.1 px on average.
    """
    height, width = one.shape[:2]
    down, right = max(0, SMALLEST - height), max(0, SMALLEST - width)
    first, second = (np.pad(_grey(each), ((0, down), (0, right)), "edge") for each in (one, other))
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setFinestScale(0)
    search.setVariationalRefinementIterations(5)
    flow = search.calc(first, second, np.zeros((*first.shape, 2), np.float32))
    smooth = cv2.VariationalRefinement.create()
    smooth.setAlpha(40.0)  # of smoothness, against 5 of brightness and 10 of its gradient
    smooth.setDelta(5.0)
    smooth.setGamma(10.0)
    smooth.setFixedPointIterations(10)
    smooth.setSorIterations(5)
    return np.asarray(smooth.calc(first, second, flow), np.float32)[:height, :width]


def _farneback(one: Array, other: Array) -> Array:
    zero = np.zeros((*one.shape[:2], 2), np.float32)
    flow = cv2.calcOpticalFlowFarneback(_grey(one), _grey(other), zero, 0.5, 5, 15, 3, 5, 1.2, 0)
    return np.asarray(flow, np.float32)


def _grey(frame: Array) -> Array:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))


def warp(picture: Array, flow: Array) -> Array:
    """The picture (H, W, C) warped backwards by ``flow`` (H, W, 2): out(x) = picture(x + flow(x)), Lanczos, float32
    (OpenCV 5.0 warps float64 wrongly)."""
    height, width = flow.shape[:2]
    picture = picture.astype(np.float32, copy=False)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = cv2.remap(picture, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved).reshape(height, width, -1)


def warp_parts(parts: Array, flow: Array) -> Array:
    """Numbers (H, W) in uint8 warped backwards by ``flow`` (H, W, 2): each is that of the nearest pixel."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    places = x + flow[..., 0], y + flow[..., 1]
    return np.asarray(cv2.remap(parts, *places, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE))


def composed(first: Array, then: Array) -> Array:
    """The flow (H, W, 2) of one and then another: x -> first(x) + then(x + first(x))."""
    height, width = first.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    places = x + first[..., 0], y + first[..., 1]
    return first + np.asarray(cv2.remap(then, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def refined(engine: Flow, one: Array, other: Array, near: Array) -> Array:
    """The flow (H, W, 2) from one frame to another, both (H, W, 3) in uint8, that is ``near`` a known one: what an
    engine finds between the frame and the other warped by that. Of motion over several frames, which is further than
    an engine looks, it errs by no more than half as much."""
    moved = warp(other, near).round().clip(0, 255).astype(np.uint8)
    return composed(engine(one, moved), near)


def visible(back: Array, forth: Array) -> Array:
    """Which pixels of a frame were visible in an earlier one, booleans (H, W).

    ``back`` (H, W, 2) is the flow from the frame to the earlier one, ``forth`` the reverse. Left out are pixels that
    come from outside the frame, and disoccluded ones: forward and backward flow disagree (Ruder, Dosovitskiy, Brox
    2016, eq. 5, after Sundaram, Brox, Keutzer 2010).
    """
    height, width = back.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    from_x, from_y = x + back[..., 0], y + back[..., 1]
    inside = (from_x >= 0) & (from_x <= width - 1) & (from_y >= 0) & (from_y <= height - 1)
    there = np.asarray(cv2.remap(forth, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    lengths = (there**2).sum(2) + (back**2).sum(2)
    consistent = ((there + back) ** 2).sum(2) <= 0.01 * lengths + 0.5
    return np.asarray(inside & consistent)


def smooth(flow: Array) -> Array:
    """Which pixels of a flow (H, W, 2) are not at motion boundaries (eq. 6), booleans (H, W)."""
    down, right = np.gradient(flow, axis=0), np.gradient(flow, axis=1)
    return np.asarray((down**2 + right**2).sum(2) <= 0.01 * (flow**2).sum(2) + 0.002)


def valid(back: Array, forth: Array) -> Array:
    """Where the flow ``back`` can be relied on: pixels that were visible, and not at motion boundaries."""
    return np.asarray(visible(back, forth) & smooth(back))


def is_thread_safe(flow: Flow) -> bool:
    """Whether an engine may be called in several threads at once, beside the painting: those that are functions of
    OpenCV on the CPU. Nothing is known of others."""
    return flow in (_dis, _farneback)
