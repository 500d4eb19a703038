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
from stylize_video.flow import valid, visible, warp, warp_parts

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]

BLOCK = 5  # px: differences are averaged over squares of that side, which noise mostly does not survive
NOISE = 4.0  # standard deviations of it that what remains may reach
STILL, MOVED = 0.75, 2.0  # levels of 255: mean difference, and of one square, above the noise, in which nothing happens
UNSEEN = 0.002  # share of pixels that is ignored
NEW = 8.0  # levels above the noise from which on a pixel shows something else
FEW, MANY = 64, 8192  # pixels: too few to tell colours by, and more than enough
NEARBY = 8  # part of the longer side
QUARTILE = 0.6745  # of the magnitude of normal noise, in standard deviations
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # blind to slopes and to edges along the axes


@dataclass(frozen=True)
class PaintedFrame:
    """A frame that is done: its content (H, W, 3) in uint8, its result (H, W, 3) in float32, in [0, 1], what is known
    of the curvature of its loss, and, where there are masks, to which part of the picture each pixel belongs: ``parts``
    (H, W) in uint8, 0 for what is not painted."""

    content: Array
    result: Array
    curvature: Curvature = field(default_factory=Curvature)
    parts: Array | None = None


@dataclass(frozen=True)
class WarpedHistory:
    """What the last result gives a frame: ``start`` (H, W, 3), ``mask`` (H, W) where it is held to it, and the ``flow``
    (H, W, 2) to the last frame.

    ``unseen`` is the share of pixels that are new ground, ``changed`` the mean difference above the noise of the
    content from its warped predecessor, in [0, 1], where that was visible.
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


def warp_history(
    content: Array, past: PaintedFrame, flow: Flow, deep: float = 8.0, parts: Array | None = None
) -> WarpedHistory:
    """The last result, warped to where its pixels are now, and on new ground the content in the colours of the result,
    up to ``deep`` px from what is known: strokes that are begun need fewer steps.

    New is what was not visible, what looks different now, and what belongs to another of the ``parts``; what is not
    painted does not count. Frames further back are not searched for it: at two flows each that cost more than it gave.
    """
    back, forth = flow(content, past.content), flow(past.content, content)
    apart = above_noise(content.astype(np.float32) - warp(past.content, back), content)
    seen = visible(back, forth)
    new = ~seen | (apart > NEW)
    inside = np.ones_like(new)
    if parts is not None and past.parts is not None:
        inside = parts > 0
        new = (new | (parts != warp_parts(past.parts, back))) & inside
    mask = valid(back, forth) & ~new & inside
    seen &= inside
    difference = float(apart[seen].mean()) / 255 if seen.any() else 1.0
    start = warp(past.result, back)
    if new.any():
        depth = cv2.distanceTransform(new.astype(np.uint8), cv2.DIST_L2, 3)
        share = (depth / deep).clip(0, 1)[..., None]
        start += share * new[..., None] * (recolored(content, start, mask) - start)
    unseen = int(np.count_nonzero(new)) / max(1, int(np.count_nonzero(inside)))
    return WarpedHistory(start.clip(0, 1), mask, back, unseen, difference)


def recolored(content: Array, result: Array, known: Array) -> Array:
    """A content (H, W, 3) in uint8 in the colours that a result (H, W, 3) gives it where it is ``known`` (H, W).

    These are an affine function of the content's, by least squares, plus the mean of what that leaves nearby. A
    neighbour's strokes drawn out over new ground, or the plain content, take more steps to be painted over.
    """
    photo = np.concatenate([content.astype(np.float32) / 255, np.ones((*content.shape[:2], 1), np.float32)], 2)
    places = np.flatnonzero(known)
    if len(places) < FEW:
        return photo[..., :3]
    places = places[:: max(1, len(places) // MANY)]
    fit, *_ = np.linalg.lstsq(photo.reshape(-1, 4)[places], result.reshape(-1, 3)[places], rcond=None)
    made = photo @ fit.astype(np.float32)
    side = max(3, max(content.shape[:2]) // NEARBY) | 1
    share = cv2.blur(known.astype(np.float32), (side, side))[..., None]
    return np.asarray(made + cv2.blur((result - made) * known[..., None], (side, side)) / np.maximum(share, 0.02))


def expected_steps(carried: WarpedHistory, fewest: int, most: int) -> int:
    """How many steps a frame gets: ``most`` where four fifths of it are new, or it differs by a tenth of white from
    what is warped there; half of them for a quarter of that; and ``fewest`` at least, unless ``most`` is less."""
    need = max(carried.unseen / 0.8, carried.changed / 0.1)
    return min(most, max(fewest, round(most * math.sqrt(min(1.0, need)))))


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
