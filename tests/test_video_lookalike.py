"""New ground begins with strokes of where the frame looks alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stylize_video.lookalike import lookalikes, strokes

Array = NDArray[Any]


def halves(height: int, width: int) -> Array:
    """Dark above, bright below, with noise, (H, W, 3) in uint8."""
    scene = np.full((height, width, 3), 60, np.uint8)
    scene[height // 2 :] = 180
    return scene + np.random.default_rng(0).integers(0, 8, scene.shape).astype(np.uint8)


def there(ways: Array, new: Array) -> tuple[Array, Array, Array, Array]:
    """Where new pixels are, and where their ways lead: y, x, y, x."""
    y, x = np.nonzero(new)
    return y, x, (y + ways[y, x, 1]).astype(int), (x + ways[y, x, 0]).astype(int)


@pytest.mark.parametrize(("height", "width"), [(72, 128), (144, 256), (200, 640)])
def test_the_ways_lead_from_new_ground_to_known_ground_that_looks_alike(height: int, width: int) -> None:
    content, new = halves(height, width), np.zeros((height, width), bool)
    new[:, width // 2 : width // 2 + width // 16] = True
    ways = lookalikes(content, new, ~new)
    assert (ways == ways.round()).all()
    assert not ways[~new].any()
    y, x, to_y, to_x = there(ways, new)
    inner = np.abs(y - height // 2) > height // 16  # not where a pixel of the small frame is of both
    y, x, to_y, to_x = (each[inner] for each in (y, x, to_y, to_x))
    assert not new[to_y, to_x].any()
    assert np.abs(content[to_y, to_x].astype(float) - content[y, x]).max() < 10


def test_nothing_is_taken_from_another_part_of_the_picture() -> None:
    content, new = halves(72, 128), np.zeros((72, 128), bool)
    new[:, 60:66] = True
    parts = np.ones((72, 128), np.uint8)
    parts[:, 60:] = 2
    y, x, to_y, to_x = there(ways := lookalikes(content, new, ~new, parts), new)
    assert ways[y, x].any(1).all()
    assert (parts[to_y, to_x] == parts[y, x]).all()
    parts[new] = 3  # of which there is no more
    assert not lookalikes(content, new, ~new, parts).any()


@pytest.mark.parametrize("size", [(2, 2), (8, 300), (64, 1)])
def test_where_nothing_is_known_no_way_leads_anywhere(size: tuple[int, int]) -> None:
    content, new = np.zeros((*size, 3), np.uint8), np.ones(size, bool)
    assert not lookalikes(content, new, ~new).any()
    assert not lookalikes(content, ~new, new).any()
    new[0] = False
    assert lookalikes(content, new, ~new).shape == (*size, 2)


def test_strokes_are_what_a_painting_has_beyond_the_plain_colors() -> None:
    plain = np.zeros((8, 10, 3), np.float32)
    painted = np.random.default_rng(0).random((8, 10, 3)).astype(np.float32)
    known, ways = np.ones((8, 10), bool), np.zeros((8, 10, 2), np.float32)
    known[:, 4:] = False
    ways[2, 5] = -3, 1
    ways[2, 6] = -2, 0  # to what is not known
    ways[2, 7] = 9, 0  # and beyond the edge
    found = strokes(painted, plain + 0.5, known, ways)
    assert np.allclose(found[2, 5], painted[3, 2] - 0.5)
    found[2, 5] = 0
    assert not found.any()
