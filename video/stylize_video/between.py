"""A frame between two painted ones, made of both: each is warped to where the frame has its pixels."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stylize_video.flow import warp
from stylize_video.steady import DEEP, News, recolored

Array = NDArray[Any]

SEAM = 4.0  # px from where a painted frame says nothing, within which it counts less
SHARPER = 1.3  # times the finest detail, at most


def composed(content: Array, earlier: Array, since: News, later: Array, until: News, share: float) -> Array:
    """The result (H, W, 3) in [0, 1] of a content (H, W, 3) in uint8, between an earlier and a later one.

    Args:
        content: the frame.
        earlier, later: the results of two others.
        since, until: what the frame shows that the earlier does not, and that the later does not.
        share: of the later one, in [0, 1], where both show what the frame does. Where only one does, that is taken;
            where none does, the content in the colours of what is known.

    What interpolation takes of the finest detail is given back: else painted frames would stand out as sharper.
    """
    one, other = warp(earlier, since.flow), warp(later, until.flow)
    weight, more = (1 - share) * _certainty(since), share * _certainty(until)
    total = weight + more
    unknown = total <= 0
    part = np.where(unknown, share, more / np.maximum(total, 1e-12)).astype(np.float32)
    made = one + part[..., None] * (other - one)
    if unknown.any():
        depth = cv2.distanceTransform(unknown.astype(np.uint8), cv2.DIST_L2, 3)
        photo = (depth / np.float32(DEEP)).clip(0, 1)[..., None]
        made += photo * (recolored(content, made, ~unknown) - made)
    wanted = (1 - share) * _energy(_detail(earlier)) + share * _energy(_detail(later))
    detail = _detail(made)
    gain = min(SHARPER, max(1.0, math.sqrt(wanted / max(1e-12, _energy(detail)))))
    return np.asarray((made + np.float32(gain - 1) * detail).clip(0, 1))


def _detail(picture: Array) -> Array:
    return np.asarray(cv2.Laplacian(picture.astype(np.float32, copy=False), cv2.CV_32F, scale=-0.25))


def _energy(detail: Array) -> float:
    return float(np.square(detail).mean(dtype=np.float64))


def _certainty(news: News) -> Array:
    """How much of a frame the other one knows (H, W), in [0, 1]: 0 on new ground, growing from its edge on."""
    if not news.new.any():
        return np.ones(news.new.shape, np.float32)
    distance = cv2.distanceTransform((~news.new).astype(np.uint8), cv2.DIST_L2, 3)
    return np.asarray((distance / SEAM).clip(0, 1), np.float32)
