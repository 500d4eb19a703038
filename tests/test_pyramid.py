"""Which scales a picture is painted at, and how many steps each gets."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylize.pyramid import CLOSE, STROKES, Scale, equivalent_steps, pyramid
from stylize.settings import Settings

sides = st.integers(1, 10_000)
min_sizes = st.integers(16, 1000)
brushes = st.floats(0.05, 10)
counts = st.none() | st.integers(1, 16)


def sizes(height: int, width: int, **settings: object) -> list[tuple[int, int]]:
    return [(scale.height, scale.width) for scale in pyramid(height, width, Settings(**settings))]  # type: ignore[arg-type]


@given(sides, sides, counts, min_sizes)
def test_the_last_scale_is_the_picture_itself(height: int, width: int, scales: int | None, min_size: int) -> None:
    assert sizes(height, width, scales=scales, min_size=min_size)[-1] == (height, width)


@given(sides, sides, st.integers(1, 16))
def test_of_a_number_of_scales_each_is_half_the_next(height: int, width: int, scales: int) -> None:
    for halvings, found in enumerate(reversed(sizes(height, width, scales=scales))):
        for side, whole in zip(found, (height, width), strict=True):
            assert side == 1 or abs(side - whole / 2**halvings) <= 0.5


@given(sides, sides, min_sizes, brushes)
def test_scales_keep_their_distance(height: int, width: int, min_size: int, brush: float) -> None:
    found = [max(size) for size in sizes(height, width, min_size=min_size, brush=brush)]
    factors = [fine / coarse for coarse, fine in pairwise(found) if coarse > 50]
    assert all(1.9 < factor < 2.1 for factor in factors[:-1])
    assert all(1.37 < factor < 2.9 for factor in factors[-1:])


@given(sides, sides, min_sizes, brushes)
def test_scales_but_the_last_depend_on_the_strokes_alone(height: int, width: int, min_size: int, brush: float) -> None:
    *coarse, _ = pyramid(height, width, Settings(min_size=min_size, brush=brush))
    for scale in coarse:
        powers = math.log2(scale.longest / STROKES * brush)
        assert scale.longest >= min_size - 0.5
        assert abs(powers - round(powers)) < 1 / scale.longest


@given(st.integers(256, 4096))
def test_a_larger_result_begins_like_a_small_one(longest: int) -> None:
    small, large = (pyramid(round(side * 0.75), side, Settings()) for side in (256, longest))
    if longest >= 256 * CLOSE:
        assert large[: len(small)] == small


@given(sides, sides, min_sizes, brushes)
def test_the_coarsest_scale_is_not_below_the_smallest_size(
    height: int, width: int, min_size: int, brush: float
) -> None:
    found = [max(size) for size in sizes(height, width, min_size=min_size, brush=brush)]
    assert len(found) == 1 or min_size - 0.5 <= found[0] < 2 * min_size + 1


@given(sides, sides, min_sizes, brushes)
def test_fine_scales_are_those_beyond_the_strokes_but_never_the_first(
    height: int, width: int, min_size: int, brush: float
) -> None:
    first, *others = pyramid(height, width, Settings(min_size=min_size, brush=brush))
    assert not first.fine
    for scale in others:
        if abs(scale.longest - STROKES / brush * CLOSE) > 1:
            assert scale.fine == (scale.longest > STROKES / brush * CLOSE)


@given(sides, sides, st.integers(1, 16))
def test_a_number_of_scales_asked_for_is_what_there_is(height: int, width: int, scales: int) -> None:
    assert len(sizes(height, width, scales=scales)) == scales


@pytest.mark.parametrize(
    ("size", "settings", "expected"),
    [
        ((192, 256), {}, [(48, 64), (96, 128), (192, 256)]),
        ((135, 180), {}, [(48, 64), (135, 180)]),
        ((300, 400), {}, [(48, 64), (96, 128), (192, 256), (300, 400)]),
        ((1125, 1500), {}, [(48, 64), (96, 128), (192, 256), (384, 512), (768, 1024), (1125, 1500)]),
        ((1125, 1500), {"brush": 0.5}, [(48, 64), (96, 128), (192, 256), (384, 512), (768, 1024), (1125, 1500)]),
        ((300, 400), {"brush": 0.8}, [(60, 80), (120, 160), (300, 400)]),
        ((1, 1), {}, [(1, 1)]),
        ((1, 1), {"scales": 3}, [(1, 1), (1, 1), (1, 1)]),
        ((3, 512), {}, [(1, 64), (1, 128), (2, 256), (3, 512)]),
        ((100, 50), {"min_size": 16, "scales": 2}, [(50, 25), (100, 50)]),
    ],
)
def test_sizes_of_known_pictures(
    size: tuple[int, int], settings: dict[str, float], expected: list[tuple[int, int]]
) -> None:
    assert sizes(*size, **settings) == expected  # type: ignore[arg-type]


@given(sides, sides, counts, min_sizes)
def test_only_small_scales_that_others_follow_are_symmetric(
    height: int, width: int, scales: int | None, min_size: int
) -> None:
    *coarse, last = pyramid(height, width, Settings(scales=scales, min_size=min_size))
    assert not last.symmetric
    assert all(scale.symmetric == (scale.longest < 128) for scale in coarse if scale.longest != 128)


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


@pytest.mark.parametrize(
    ("settings", "early", "shallow"),
    [
        ({}, [0, 0, 14, 10, 0, 0], [False, False, False, False, True, True]),
        ({"steps": (7,)}, [0] * 6, [False, False, False, True, True, True]),  # too few to part
        ({"content_weight": 0.0}, [0] * 6, [False, False, False, True, True, True]),
        ({"content_loss": "self-similarity"}, [0, 0, 0, 10, 0, 0], [False, False, False, False, True, True]),
        ({"brush": 0.5}, [0, 0, 14, 7, 8, 0], [False, False, False, False, False, True]),
    ],
)
def test_scales_begin_with_steps_that_see_the_shallow_layers(
    settings: dict[str, object], early: list[int], shallow: list[bool]
) -> None:
    scales = pyramid(1536, 2048, Settings(**settings))  # type: ignore[arg-type]
    assert [scale.early for scale in scales] == early
    assert [scale.shallow for scale in scales] == shallow
    for scale in scales:
        assert sum(phase.steps for phase in scale.phases) == scale.steps
        assert [phase.shallow for phase in scale.phases] == ([True, False] if scale.early else [scale.shallow])
        assert scale.alone(3).phases == (scale.alone(3),)
