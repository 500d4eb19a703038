"""Temporal coherence: the last result warped to where a frame has its pixels, how firmly the frame is held to it, and
how many steps it gets.

Ruder, Dosovitskiy, Brox 2016, "Artistic Style Transfer for Videos".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylize import Term, luminance
from stylize_video.flow import valid, warp

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]

STILL, MOVED = 2.0, 12.0  # levels of 255: mean difference that is the recording's noise, and one that is not
UNSEEN = 0.002  # share of pixels without a predecessor that is ignored


@dataclass(frozen=True)
class PaintedFrame:
    """A frame that is done: its content (H, W, 3) in uint8, and its result (H, W, 3) in float32, in [0, 1]."""

    content: Array
    result: Array


@dataclass(frozen=True)
class WarpedHistory:
    """What the last result gives a frame: ``start`` (H, W, 3), ``mask`` (H, W) where it is held to it.

    ``unseen`` is the share of pixels that nothing was found for, ``changed`` the mean difference, over the others,
    of the content from its warped predecessor, in [0, 1].
    """

    start: Array
    mask: Array
    unseen: float
    changed: float


def is_static(content: Array, before: Array) -> bool:
    """Whether two frames (H, W, 3) in uint8 show the same, but for the noise of the recording."""
    apart = np.abs(content.astype(np.int16) - before.astype(np.int16)).max(2)
    return bool(apart.mean() <= STILL and np.count_nonzero(apart > MOVED) <= UNSEEN * apart.size)


def warp_history(content: Array, past: PaintedFrame, flow: Flow) -> WarpedHistory:
    """The last result, warped to where its pixels are now.

    Where a pixel was not visible the start is the last result, warped all the same: started from the content instead,
    it stays grey for the few steps that a frame gets (tried: a car that drives in was half unpainted, and E_warp rose
    by half). Frames further back are not searched for such pixels: at two flows each that cost more than it gave.
    """
    back = flow(content, past.content)
    seen = valid(back, flow(past.content, content))
    apart = np.abs(content.astype(np.float32) - warp(past.content, back)).mean(2) / 255
    difference = float(apart[seen].mean()) if seen.any() else 1.0
    return WarpedHistory(warp(past.result, back).clip(0, 1), seen, float(1 - seen.mean()), difference)


def expected_steps(carried: WarpedHistory, most: int) -> int:
    """How many steps a frame gets: ``most`` where four fifths of it are new, or it differs by a tenth of white from
    what is warped there; half of them for a quarter of that."""
    need = max(carried.unseen / 0.8, carried.changed / 0.1)
    return max(3, min(most, math.ceil(most * math.sqrt(min(1.0, need)))))


def temporal(carried: WarpedHistory, weight: float, *, grey: bool) -> Term:
    """The temporal loss of the paper (eq. 7): weight x mean(mask x (x - carried)^2)."""
    target, mask = as_tensor(carried.start), as_tensor(carried.mask[..., None].astype(np.float32))
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
