"""Which scales a picture is painted at, and how many steps each gets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylize.pyramid import Scale, equivalent_steps, pyramid
from stylize.settings import Settings

sides = st.integers(1, 10_000)
min_sizes = st.integers(16, 1000)
counts = st.none() | st.integers(1, 16)


def sizes(height: int, width: int, **settings: object) -> list[tuple[int, int]]:
    return [(scale.height, scale.width) for scale in pyramid(height, width, Settings(**settings))]  # type: ignore[arg-type]


@given(sides, sides, counts, min_sizes)
def test_the_last_scale_is_the_picture_itself(height: int, width: int, scales: int | None, min_size: int) -> None:
    assert sizes(height, width, scales=scales, min_size=min_size)[-1] == (height, width)


@given(sides, sides, counts, min_sizes)
def test_each_scale_is_half_the_next(height: int, width: int, scales: int | None, min_size: int) -> None:
    for coarse, fine in pairwise(sizes(height, width, scales=scales, min_size=min_size)):
        for small, large in zip(coarse, fine, strict=True):
            assert 1 <= small <= large
            assert abs(small - large / 2) <= 0.75  # both are rounded to whole pixels


@given(sides, sides, counts, min_sizes)
def test_each_side_is_the_pictures_divided_by_a_power_of_two(
    height: int, width: int, scales: int | None, min_size: int
) -> None:
    for halvings, found in enumerate(reversed(sizes(height, width, scales=scales, min_size=min_size))):
        for side, whole in zip(found, (height, width), strict=True):
            assert side == 1 or abs(side - whole / 2**halvings) <= 0.5


@given(sides, sides, min_sizes)
def test_the_coarsest_scale_is_the_last_not_below_the_smallest_size(height: int, width: int, min_size: int) -> None:
    found = sizes(height, width, min_size=min_size)
    longest = max(height, width)
    coarsest = longest / 2 ** (len(found) - 1)
    assert len(found) == 1 or coarsest >= min_size
    assert coarsest / 2 < min_size


@given(sides, sides, st.integers(1, 16))
def test_a_number_of_scales_asked_for_is_what_there_is(height: int, width: int, scales: int) -> None:
    assert len(sizes(height, width, scales=scales)) == scales


@pytest.mark.parametrize(
    ("size", "settings", "expected"),
    [
        ((192, 256), {}, [(48, 64), (96, 128), (192, 256)]),
        ((192, 255), {}, [(96, 128), (192, 255)]),
        ((1, 1), {}, [(1, 1)]),
        ((1, 1), {"scales": 3}, [(1, 1), (1, 1), (1, 1)]),
        ((3, 512), {}, [(1, 64), (1, 128), (2, 256), (3, 512)]),
        ((100, 50), {"min_size": 16, "scales": 2}, [(50, 25), (100, 50)]),
    ],
)
def test_sizes_of_known_pictures(
    size: tuple[int, int], settings: dict[str, int], expected: list[tuple[int, int]]
) -> None:
    assert sizes(*size, **settings) == expected


@given(st.lists(st.integers(1, 500), min_size=1, max_size=6), st.integers(1, 8))
def test_steps_are_given_out_from_the_coarsest_and_the_last_repeats(steps: list[int], scales: int) -> None:
    found = [scale.steps for scale in pyramid(900, 700, Settings(steps=tuple(steps), scales=scales))]
    assert found == (steps + [steps[-1]] * scales)[:scales]


def test_longest_is_the_longer_side() -> None:
    assert Scale(height=30, width=40, steps=1).longest == 40
    assert Scale(height=50, width=40, steps=1).longest == 50


def test_equivalent_steps_weigh_by_area() -> None:
    scales = (Scale(48, 64, 60), Scale(96, 128, 40), Scale(192, 256, 40))
    assert equivalent_steps(scales) == pytest.approx(60 / 16 + 40 / 4 + 40)
    assert equivalent_steps((Scale(1, 1, 7),)) == 7
    assert equivalent_steps((Scale(1, 10, 5), Scale(2, 30, 4))) == pytest.approx(5 / 6 + 4)
