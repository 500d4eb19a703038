"""What comes into view begins with strokes of where the frame looks alike: where that is, and what is taken from there.

Each offset holds for all pixels around that look best with it, so that strokes are copied whole: patches that are
chosen one by one (Efros, Leung 1999) are dearer, and mixed ones soft.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LOOKED = 128  # px: longest side at which is looked
FAR = (5.0, 10.0, 20.0)  # px at that size
DIRECTIONS = 12
WINDOW = 7  # px, side of the squares that are compared
OTHER = 1e6  # more than squares can differ by


def lookalikes(content: Array, new: Array, known: Array, parts: Array | None = None) -> Array:
    """Where in the same frame new ground looks like what is known.

    Args:
        content: (H, W, 3) in uint8.
        new: which pixels are new, (H, W).
        known: which are painted already, (H, W).
        parts: which part of the picture each belongs to, (H, W) in uint8; those of others are not taken.

    Returns:
        The way there in whole px, (H, W, 2) in float32; 0 where nothing is found, and where nothing is new.
    """
    height, width = new.shape
    found = np.zeros((height, width, 2), np.float32)
    if not new.any() or not known.any():
        return found
    factor = max(1.0, max(height, width) / LOOKED)
    size = max(1, round(width / factor)), max(1, round(height / factor))
    small = cv2.resize(content, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], 3).astype(np.float32)
    usable = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.99
    labels = None if parts is None else cv2.resize(parts, size, interpolation=cv2.INTER_NEAREST)
    least, best = np.full(usable.shape, OTHER, np.float32), np.zeros(usable.shape, np.int64)
    ways = [(0, 0), *_offsets()]
    for number, (right, down) in enumerate(ways[1:], 1):
        apart = cv2.transform(np.square(small - _moved(small, right, down)), np.ones((1, 3), np.float32))
        apart = cv2.blur(apart, (WINDOW, WINDOW))
        apart[~_moved(usable, right, down)] = OTHER
        if labels is not None:
            apart[labels != _moved(labels, right, down)] = OTHER
        nearer = apart < least
        least[nearer], best[nearer] = apart[nearer], number
    rows = np.minimum((np.arange(height) * size[1]) // height, size[1] - 1)
    columns = np.minimum((np.arange(width) * size[0]) // width, size[0] - 1)
    steps = np.array([[round(right * factor), round(down * factor)] for right, down in ways], np.float32)
    found[new] = steps[best[rows[:, None], columns]][new]
    return found


def strokes(painted: Array, plain: Array, known: Array, ways: Array) -> Array:
    """By how much the ``painted`` (H, W, 3) differs from the ``plain`` (H, W, 3) where the ``ways`` (H, W, 2) of
    :func:`lookalikes` lead: (H, W, 3), 0 where they lead nowhere, or to what is not ``known`` (H, W)."""
    height, width = known.shape
    made = np.zeros((height, width, 3), np.float32)
    y, x = np.nonzero(ways.any(2))
    there_x, there_y = (np.rint(along + ways[y, x, axis]).astype(np.int64) for axis, along in enumerate((x, y)))
    inside = (there_x >= 0) & (there_x < width) & (there_y >= 0) & (there_y < height)
    y, x, there_x, there_y = (each[inside] for each in (y, x, there_x, there_y))
    taken = known[there_y, there_x]
    y, x, there_x, there_y = (each[taken] for each in (y, x, there_x, there_y))
    made[y, x] = painted[there_y, there_x] - plain[there_y, there_x]
    return made


def _offsets() -> Iterator[tuple[int, int]]:
    for ring, far in enumerate(FAR):
        for number in range(DIRECTIONS):
            angle = 2 * math.pi * (number + ring / 2) / DIRECTIONS
            yield round(far * math.cos(angle)), round(far * math.sin(angle))


def _moved(picture: Array, right: int, down: int) -> Array:
    """What lies so far to the right of each pixel, and down: (H, W) or (H, W, C); zeros from outside."""
    made = np.zeros_like(picture)
    height, width = picture.shape[:2]
    if abs(down) < height and abs(right) < width:
        into = slice(max(0, -down), height - max(0, down)), slice(max(0, -right), width - max(0, right))
        of = slice(max(0, down), height - max(0, -down)), slice(max(0, right), width - max(0, -right))
        made[into] = picture[of]
    return made
