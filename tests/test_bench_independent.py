"""The measures that no loss knows: at their ends, and in the right order between them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stylize.images import save
from tests.bench.independent import layout, main, outlines, read, scores, similarity, sliced
from tests.conftest import waves

Array = NDArray[np.float64]


def picture(seed: int, height: int = 60, width: int = 80) -> Array:
    return np.asarray(waves(height, width, seed)[0].permute(1, 2, 0), np.float64)


def test_a_picture_is_its_own_best() -> None:
    own = picture(1)
    found = scores(own, own, own, own)
    assert found == pytest.approx({"colour": 0, "ssim": 1, "outlines": 1, "grain": 1, "layout": 1})


@pytest.mark.slow
def test_colours_are_compared_wherever_they_are() -> None:
    one = picture(1)
    assert sliced(one, one[::-1, ::-1]) == pytest.approx(0)
    assert 255 * sliced(one, one + 0.1) == pytest.approx(255 * 0.1 * 0.8, rel=0.15)  # mean of |x + y + z| on a sphere
    assert sliced(one, picture(2)) > sliced(one, 0.9 * one + 0.1 * picture(2))


def test_light_and_structure_count_in_the_similarity() -> None:
    grey, other = picture(1).mean(2), picture(2).mean(2)
    noise = 0.05 * np.random.default_rng(0).normal(size=grey.shape)
    assert 1 > similarity(grey, grey + noise) > similarity(grey, grey + 3 * noise)
    assert 1 > similarity(grey, 0.5 * grey + 0.5 * other) > similarity(grey, other)


def test_outlines_do_not_tell_dark_from_bright() -> None:
    grey, other = picture(1).mean(2), picture(2).mean(2)
    assert outlines(grey, 1 - grey) == pytest.approx(1)
    assert outlines(grey, other) < 0.9


def test_noise_is_grain() -> None:
    own = picture(1)
    noisy = own + 0.05 * np.random.default_rng(0).normal(size=own.shape)
    assert scores(noisy, own, own)["grain"] > 1.5


def test_a_layout_that_turns_with_the_style_is_seen() -> None:
    """Paintings that are half the photo and half the style, the latter turned in the second."""
    content, style = picture(1, 96, 128), picture(2, 96, 128)
    mixed, turned = (0.5 * content + 0.5 * each for each in (style, style[::-1]))
    assert layout(mixed, mixed, content) == pytest.approx(1)
    assert layout(mixed, turned, content) < 0.7


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(tmp_path / f"{name}.png") for name in ("painted", "content", "style", "turned")]
    for path, (height, width, seed) in zip(paths, [(30, 40, 1), (60, 80, 2), (50, 50, 3), (30, 40, 4)], strict=True):
        save(waves(height, width, seed), path)
    main([*paths[:3], "--turned", paths[3]])
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"colour", "ssim", "outlines", "grain", "layout"}
    assert read(paths[2], longest=20).shape == (20, 20, 3)
