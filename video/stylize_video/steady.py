"""Temporal coherence: the last result warped to where a frame has its pixels, how firmly the frame is held to it, and
how many steps it gets.

Ruder, Dosovitskiy, Brox 2016, "Artistic Style Transfer for Videos".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylize import Curvature, Term, luminance
from stylize_video.flow import valid, warp

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]

BLOCK = 5  # px: differences are averaged over squares of that side, which noise mostly does not survive
NOISE = 4.0  # standard deviations of it that what remains may reach
STILL, MOVED = 0.75, 2.0  # levels of 255: mean difference, and of one square, above the noise, in which nothing happens
UNSEEN = 0.002  # share of pixels that is ignored
QUARTILE = 0.6745  # of the magnitude of normal noise, in standard deviations
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # blind to slopes and to edges along the axes


@dataclass(frozen=True)
class PaintedFrame:
    """A frame that is done: its content (H, W, 3) in uint8, its result (H, W, 3) in float32, in [0, 1], and what is
    known of the curvature of its loss."""

    content: Array
    result: Array
    curvature: Curvature = field(default_factory=Curvature)


@dataclass(frozen=True)
class WarpedHistory:
    """What the last result gives a frame: ``start`` (H, W, 3), ``mask`` (H, W) where it is held to it, and the ``flow``
    (H, W, 2) to the last frame.

    ``unseen`` is the share of pixels that nothing was found for, ``changed`` the mean difference above the noise, over
    the others, of the content from its warped predecessor, in [0, 1].
    """

    start: Array
    mask: Array
    flow: Array
    unseen: float
    changed: float

    def mask_tensor(self) -> Tensor:
        """The mask (1, 1, H, W) in float32."""
        return as_tensor(self.mask[..., None].astype(np.float32))


def is_static(content: Array, before: Array) -> bool:
    """Whether two frames (H, W, 3) in uint8 show the same, but for the noise of the recording."""
    apart = content.astype(np.float32) - before
    if np.abs(apart.mean((0, 1))).max() > STILL:  # of all pixels together, in which noise plays no part: a fade
        return False
    moved = above_noise(apart, content)
    return bool(moved.mean() <= STILL and np.count_nonzero(moved > MOVED) <= UNSEEN * moved.size)


def above_noise(apart: Array, content: Array) -> Array:
    """How far a difference of two frames (H, W, 3) in float32, in levels of 255, is above what the noise of the
    recording explains: (H, W), averaged over squares of :data:`BLOCK` px, the largest of the channels.

    The noise is what most squares differ by. Where most of the picture has changed, that is more than noise: it is not
    taken for more than twice what the fine detail of ``content``, (H, W, 3) in uint8, can hold of it.
    """
    means = cv2.boxFilter(apart, -1, (BLOCK, BLOCK))
    spread = float(np.median(np.abs(means - np.median(means, (0, 1))))) / QUARTILE
    detail = cv2.filter2D(cv2.cvtColor(content, cv2.COLOR_RGB2GRAY).astype(np.float32), -1, IMMERKAER)
    most = float(np.median(np.abs(detail))) / QUARTILE / 6  # Immerkaer 1996, of one frame and pixel
    noise = min(spread, 2 * math.sqrt(2) * most / BLOCK)
    return np.asarray(np.maximum(0, np.abs(means).max(2) - NOISE * noise))


def warp_history(content: Array, past: PaintedFrame, flow: Flow) -> WarpedHistory:
    """The last result, warped to where its pixels are now.

    Where a pixel was not visible the start is the last result, warped all the same: started from the content instead,
    it stays grey for the few steps that a frame gets (tried: a car that drives in was half unpainted, and E_warp rose
    by half). Frames further back are not searched for such pixels: at two flows each that cost more than it gave.
    """
    back = flow(content, past.content)
    seen = valid(back, flow(past.content, content))
    apart = above_noise(content.astype(np.float32) - warp(past.content, back), content) / 255
    difference = float(apart[seen].mean()) if seen.any() else 1.0
    return WarpedHistory(warp(past.result, back).clip(0, 1), seen, back, float(1 - seen.mean()), difference)


def expected_steps(carried: WarpedHistory, fewest: int, most: int) -> int:
    """How many steps a frame gets: ``most`` where four fifths of it are new, or it differs by a tenth of white from
    what is warped there; half of them for a quarter of that; and ``fewest`` at least, unless ``most`` is less."""
    need = max(carried.unseen / 0.8, carried.changed / 0.1)
    return min(most, max(fewest, math.ceil(most * math.sqrt(min(1.0, need)))))


def temporal(carried: WarpedHistory, weight: float, *, grey: bool) -> Term:
    """The temporal loss of the paper (eq. 7): weight x mean(mask x (x - carried)^2)."""
    target, mask = as_tensor(carried.start), carried.mask_tensor()
    if grey:  # as the picture is while only its brightness is painted
        target = luminance(target).expand(-1, 3, -1, -1)

    def distance(image: Tensor, features: Any) -> Tensor:
        nonlocal target, mask
        target, mask = target.to(image.device), mask.to(image.device)
        return (mask * (image - target).square()).mean()

    return Term("temporal", weight, distance)


def as_tensor(picture: Array) -> Tensor:
    """(H, W, C) -> (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].contiguous()
