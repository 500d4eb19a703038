"""Temporal coherence: the last result warped to where a frame has its pixels, how firmly the frame is held to it, and
how many steps it gets.

Ruder, Dosovitskiy, Brox 2016, "Artistic Style Transfer for Videos".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylize import Term, luminance
from stylize_video.flow import smooth, visible, warp, warp_parts

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]

BLOCK = 5  # px: differences are averaged over squares of that side, which noise mostly does not survive
NOISE = 4.0  # standard deviations of it that what remains may reach
STILL, MOVED = 0.75, 2.0  # levels of 255: mean difference, and of one square, above the noise, in which nothing happens
UNSEEN = 0.002  # share of pixels that is ignored
NEW = 8.0  # levels above the noise from which on a pixel shows something else
FEW, MANY = 64, 8192  # pixels: too few to tell colours by, and more than enough
DEEP = 8.0  # px into new ground from where on it begins with the photo alone
NEARBY = 8  # part of the longer side
QUARTILE = 0.6745  # of the magnitude of normal noise, in standard deviations
FADING = 0.1  # share that the finest diagonal detail loses from frame to frame
ALTERNATING = np.array([-1, 2, -1], np.float32) / 4  # passes sin^2(pi f) of f cycles a pixel
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # blind to slopes and to edges along the axes


@dataclass(frozen=True, eq=False)
class News:
    """What a frame shows that another one does not: ``new`` (H, W), where it was not ``seen`` (H, W), looks different,
    or belongs to another part of the picture. ``apart`` (H, W) is by how many levels it differs, above the noise, and
    ``inside`` (H, W) what is painted of it, all that counts. The ``flow`` (H, W, 2) leads to the other frame."""

    flow: Array
    seen: Array
    new: Array
    apart: Array
    inside: Array

    @classmethod
    def of(
        cls,
        content: Array,
        before: Array,
        ways: tuple[Array, Array],
        parts: Array | None = None,
        parts_before: Array | None = None,
    ) -> News:
        """Of two contents (H, W, 3) in uint8 between which the flows (H, W, 2) back and forth are known. Where there
        are masks, ``parts`` (H, W) in uint8 tell which part each pixel belongs to, 0 for what is not painted.

        Frames further back are not searched for what is new: at two flows each that cost more than it gave.
        """
        back, forth = ways
        apart = above_noise(content.astype(np.float32) - warp(before, back), content)
        seen = visible(back, forth)
        new = ~seen | (apart > NEW)
        inside = np.ones_like(new)
        if parts is not None and parts_before is not None:
            inside = parts > 0
            new = (new | (parts != warp_parts(parts_before, back))) & inside
        return cls(back, seen, new, apart, inside)

    @classmethod
    def between(cls, content: Array, before: Array, flow: Flow) -> News:
        """Of two contents (H, W, 3) in uint8 by a flow."""
        return cls.of(content, before, (flow(content, before), flow(before, content)))

    @property
    def unseen(self) -> float:
        """The share of pixels that are new ground."""
        return int(np.count_nonzero(self.new)) / max(1, int(np.count_nonzero(self.inside)))

    @property
    def changed(self) -> float:
        """The mean difference above the noise where the other frame was visible, in [0, 1]."""
        seen = self.seen & self.inside
        return float(self.apart[seen].mean()) / 255 if seen.any() else 1.0


@dataclass(frozen=True, eq=False)
class Motion:
    """What the contents alone tell of a frame and an earlier one: the ``flow`` (H, W, 2) back to it, the ``mask``
    (H, W) where the frame is held to it, and how much the ``photo`` (H, W) counts in its start, in [0, 1]; None: not at
    all.

    ``unseen`` is the share of pixels that are new ground, ``changed`` the mean difference above the noise of the
    content from its warped predecessor, in [0, 1], where that was visible.
    """

    flow: Array
    mask: Array
    photo: Array | None
    unseen: float
    changed: float

    @classmethod
    def between(
        cls,
        content: Array,
        before: Array,
        flow: Flow,
        deep: float = DEEP,
        parts: Array | None = None,
        parts_before: Array | None = None,
    ) -> Motion:
        """Of two contents (H, W, 3) in uint8 by a flow; see :meth:`along`."""
        ways = flow(content, before), flow(before, content)
        return cls.along(content, before, ways, deep, parts=parts, parts_before=parts_before)

    @classmethod
    def along(
        cls,
        content: Array,
        before: Array,
        ways: tuple[Array, Array],
        deep: float = DEEP,
        parts: Array | None = None,
        parts_before: Array | None = None,
    ) -> Motion:
        """Of two contents (H, W, 3) in uint8 between which the flows (H, W, 2) back and forth are known; ``deep`` is
        how many px into new ground the photo is all there is."""
        back, _ = ways
        news = News.of(content, before, ways, parts, parts_before)
        new, inside = news.new, news.inside
        mask = news.seen & smooth(back) & ~new & inside
        photo = None
        if new.any():
            depth = cv2.distanceTransform(new.astype(np.uint8), cv2.DIST_L2, 3)
            photo = (depth / deep).clip(0, 1) * new
        return cls(back, mask, photo, news.unseen, news.changed)


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

    def start_tensor(self) -> Tensor:
        """The start (1, 3, H, W), the same at each call."""
        return self._tensors[0]

    def mask_tensor(self) -> Tensor:
        """The mask (1, 1, H, W) in float32, the same at each call."""
        return self._tensors[1]

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor]:
        return as_tensor(self.start), as_tensor(self.mask[..., None].astype(np.float32))


def is_static(content: Array, before: Array) -> bool:
    """Whether two frames (H, W, 3) in uint8 show the same, but for the noise of the recording."""
    apart = content.astype(np.float32) - before
    if np.abs(apart.mean((0, 1))).max() > STILL:  # of all pixels together, in which noise plays no part: a fade
        return False
    means, most = cv2.boxFilter(apart, -1, (BLOCK, BLOCK)), _most_noise(content)
    peaks, few = np.abs(means).max(2), UNSEEN * content.shape[0] * content.shape[1]
    if np.count_nonzero(peaks - NOISE * most > MOVED) > few:  # however little of it is noise, which takes time to tell
        return False
    moved = _above(peaks, min(_spread(means), most))
    return bool(moved.mean() <= STILL and np.count_nonzero(moved > MOVED) <= few)


def above_noise(apart: Array, content: Array) -> Array:
    """How far a difference of two frames (H, W, 3) in float32, in levels of 255, is above what the noise of the
    recording explains: (H, W), averaged over squares of :data:`BLOCK` px, the largest of the channels.

    The noise is what most squares differ by. Where most of the picture has changed, that is more than noise: it is not
    taken for more than twice what the fine detail of ``content``, (H, W, 3) in uint8, can hold of it.
    """
    means = cv2.boxFilter(apart, -1, (BLOCK, BLOCK))
    return _above(np.abs(means).max(2), min(_spread(means), _most_noise(content)))


def _above(peaks: Array, noise: float) -> Array:
    return np.asarray(np.maximum(0, peaks - NOISE * noise))


def _spread(means: Array) -> float:
    """The standard deviation of most of the means (H, W, C)."""
    return float(np.median(np.abs(means - np.median(means, (0, 1))))) / QUARTILE


def _most_noise(content: Array) -> float:
    """The most that noise can move the difference of two means, by the fine detail of a frame (Immerkaer 1996)."""
    detail = cv2.filter2D(cv2.cvtColor(content, cv2.COLOR_RGB2GRAY).astype(np.float32), -1, IMMERKAER)
    return 2 * math.sqrt(2) * (float(np.median(np.abs(detail))) / QUARTILE / 6) / BLOCK


def warp_history(content: Array, result: Array, motion: Motion) -> WarpedHistory:
    """An earlier result (H, W, 3), warped to where its pixels are in a content (H, W, 3) in uint8, and on new ground
    the content in the colours of the result: strokes that are begun need fewer steps."""
    start = _without_weave(warp(result, motion.flow))
    if motion.photo is not None:
        start += motion.photo[..., None] * (recolored(content, start, motion.mask) - start)
    return WarpedHistory(np.clip(start, 0, 1, out=start), motion.mask, motion.flow, motion.unseen, motion.changed)


def _without_weave(picture: Array) -> Array:
    """A picture (H, W, 3) with a little less of the finest diagonal detail. Each step adds some, which the network
    hardly sees; a still's steps are too few to show it, but over a hundred frames it became a weave of diagonals."""
    finest = cv2.sepFilter2D(picture, -1, ALTERNATING, ALTERNATING, borderType=cv2.BORDER_REFLECT)
    return np.asarray(picture - np.float32(FADING) * finest)


def recolored(content: Array, result: Array, known: Array) -> Array:
    """A content (H, W, 3) in uint8 in the colours that a result (H, W, 3) gives it where it is ``known`` (H, W).

    These are an affine function of the content's, by least squares, plus the mean of what that leaves nearby. A
    neighbour's strokes drawn out over new ground, or the plain content, take more steps to be painted over.
    """
    photo = content.astype(np.float32) / np.float32(255)
    places = np.flatnonzero(known)
    if len(places) < FEW:
        return photo
    places = places[:: max(1, len(places) // MANY)]
    samples = np.concatenate([photo.reshape(-1, 3)[places], np.ones((len(places), 1), np.float32)], 1)
    fit, *_ = np.linalg.lstsq(samples, result.reshape(-1, 3)[places], rcond=None)
    made: Array = cv2.transform(photo, fit.T.astype(np.float32))
    side = max(3, max(content.shape[:2]) // NEARBY) | 1
    mask = known.astype(np.float32)
    left = cv2.blur(cv2.subtract(result, made) * mask[..., None], (side, side))
    made += left / np.maximum(cv2.blur(mask, (side, side)), 0.02)[..., None]
    return made


def expected_steps(carried: WarpedHistory | News, fewest: int, most: int) -> int:
    """How many steps a frame gets: ``most`` where four fifths of it are new, or it differs by a tenth of white from
    what is warped there; half of them for a quarter of that; and ``fewest`` at least, unless ``most`` is less."""
    need = max(carried.unseen / 0.8, carried.changed / 0.1)
    return min(most, max(fewest, round(most * math.sqrt(min(1.0, need)))))


def temporal(carried: WarpedHistory, weight: float, *, grey: bool) -> Term:
    """The temporal loss of the paper (eq. 7): weight x mean(mask x (x - carried)^2)."""
    target, mask = carried.start_tensor(), carried.mask_tensor()
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
