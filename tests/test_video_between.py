"""Frames between two painted ones, the flows over several frames that they are made by, and which are painted."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stylize_video.between import composed
from stylize_video.chain import Chain
from stylize_video.flow import engine
from stylize_video.pace import Pace
from stylize_video.steady import News
from stylize_video.work import Plan, Shot
from tests.conftest import waves

Array = NDArray[Any]
HEIGHT, WIDTH, STEP = 48, 64, 4


def wide(seed: int = 0) -> Array:
    return np.ascontiguousarray((waves(HEIGHT, 4 * WIDTH, seed)[0].permute(1, 2, 0) * 255).round().byte().numpy())


def panned(count: int, step: int = STEP, seed: int = 0) -> list[Array]:
    """A camera that pans over a texture, so many px a frame."""
    return [np.ascontiguousarray(wide(seed)[:, number * step :][:, :WIDTH]) for number in range(count)]


def painted(content: Array) -> Array:
    return np.float32(0.9) - np.float32(0.8) * content[..., ::-1].astype(np.float32) / 255


def sides(frames: list[Array], number: int) -> tuple[News, News]:
    """What a frame shows that the first and the last do not."""
    flow, last = engine("dis"), len(frames) - 1
    assert flow is not None
    chain = Chain(flow, frames, None)

    def seen_from(other: int) -> News:
        def found(ways: tuple[Array, Array]) -> News:
            return News.of(frames[number], frames[other], ways if other < number else ways[::-1])

        return chain.between(max(number, other), min(number, other), found)()

    return seen_from(0), seen_from(last)


@pytest.mark.parametrize("count", [3, 5])
def test_flows_over_several_frames_are_as_exact_as_over_one(count: int) -> None:
    since, until = sides(panned(count), count // 2)
    for news, way in ((since, STEP), (until, -STEP)):
        inner = news.flow[8:-8, 20:-20]
        assert np.abs(inner[..., 0] - way * (count // 2)).mean() < 0.15
        assert np.abs(inner[..., 1]).mean() < 0.15


def test_links_are_found_once_and_only_those_that_are_needed() -> None:
    pairs = []

    def flow(one: Array, other: Array) -> Array:
        pairs.append((int(one[0, 0, 0]), int(other[0, 0, 0])))
        return np.zeros((*one.shape[:2], 2), np.float32)

    chain = Chain(flow, [np.full((16, 16, 3), number, np.uint8) for number in range(6)], None)
    first, second = chain.between(2, 0, lambda ways: ways), chain.between(3, 1, lambda ways: ways)
    assert pairs == []
    first(), second(), first()
    assert sorted(pairs) == sorted([(1, 0), (0, 1), (2, 1), (1, 2), (3, 2), (2, 3)])


def test_what_both_know_changes_from_one_to_the_other() -> None:
    frames = panned(3)
    since, until = sides(frames, 1)
    dark, bright = np.full((HEIGHT, WIDTH, 3), 0.2, np.float32), np.full((HEIGHT, WIDTH, 3), 0.6, np.float32)
    for share in (0.0, 0.25, 1.0):
        made = composed(frames[1], dark, since, bright, until, share)
        assert made[8:-8, 16:-16].mean() == pytest.approx(0.2 + 0.4 * share, abs=0.01)


def test_what_only_one_knows_is_taken_from_it() -> None:
    """The camera pans: what is at the right has come into view since, what is at the left will be gone."""
    frames = panned(3)
    results = [each.astype(np.float32) / 255 for each in panned(3, seed=1)]  # what cannot be told from the frames
    since, until = sides(frames, 1)
    made = composed(frames[1], results[0], since, results[2], until, 0.5)
    one_sided = composed(frames[1], results[0], since, results[0], since, 0.5)
    off, off_one_sided = (np.abs(each - results[1]) for each in (made, one_sided))
    assert off.mean() < 0.02
    assert off[:, -STEP:].mean() < 0.4 * off_one_sided[:, -STEP:].mean()
    assert off[:, :STEP].mean() < 0.05


def test_what_none_knows_is_the_content_in_their_colours() -> None:
    """Something flashes up in the one frame alone."""
    frames = panned(3, 1)
    frames[1][12:36, 20:44] = wide(3)[12:36, 20:44]
    since, until = sides(frames, 1)
    made = composed(frames[1], painted(frames[0]), since, painted(frames[2]), until, 0.5)
    inside = np.s_[20:28, 28:36]
    assert np.abs(made - painted(frames[1]))[inside].mean() < 0.3 * np.abs(made - painted(frames[0]))[inside].mean()


def test_frames_between_are_as_sharp_as_painted_ones() -> None:
    rng = np.random.default_rng(0)
    grain = cv2.GaussianBlur(rng.random((HEIGHT, WIDTH, 3)).astype(np.float32), (0, 0), 0.7)
    still = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    halves = np.full((HEIGHT, WIDTH, 2), 0.5, np.float32)
    since, until = (News.of(still, still, (way, -way)) for way in (halves, -halves))
    made = composed(still, grain, since, grain, until, 0.5)

    def energy(picture: Array) -> float:
        return float(np.square(cv2.Laplacian(picture, cv2.CV_32F)[8:-8, 8:-8]).mean())

    assert energy(made) == pytest.approx(energy(grain), rel=0.5)
    assert np.abs(made.mean() - grain.mean()) < 0.005


@pytest.mark.parametrize(("step", "wanted"), [(0, (0, 3, 6, 8)), (2, (0, 3, 6, 8)), (8, (0, 1, 2, 3, 4, 5, 6, 7, 8))])
def test_a_draft_paints_more_frames_where_more_is_new(step: int, wanted: tuple[int, ...]) -> None:
    flow = engine("dis")
    assert flow is not None
    pace, frames = Pace(flow), panned(9, step)
    assert [id(frame) for frame in pace.watch(iter(frames))] == [id(frame) for frame in frames]
    assert pace.painted([range(9)], 3) == wanted


def test_a_draft_paints_the_first_and_the_last_of_each_shot() -> None:
    pace = Pace(lambda one, _: np.zeros((*one.shape[:2], 2), np.float32))
    list(pace.watch(iter([np.zeros((16, 16, 3), np.uint8)] * 12)))
    assert pace.painted([range(1), range(1, 3), range(3, 12)], 3) == (0, 1, 2, 3, 6, 9, 11)


def test_the_frames_to_paint_are_counted_or_told() -> None:
    counted = Shot(range(10, 20), Plan({}, 30, (10, 20)))
    assert [counted.to_paint(number, 4) for number in (10, 11, 14, 19)] == [(10, 14), (10, 14), (14, 18), (18, 22)]
    told = Shot(range(10, 20), Plan({}, 30, (10, 20), painted=(0, 9, 10, 12, 13, 19, 20, 29)))
    assert [told.to_paint(number, 4) for number in (10, 11, 12, 13, 19)] == [
        *((10, 12), (10, 12), (12, 13)),
        *((13, 19), (19, 20)),
    ]
