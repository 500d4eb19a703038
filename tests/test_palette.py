"""The palette of a style: what its maps do to mean, covariance and distribution of colours, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from stylize import palette as module
from stylize.palette import GAIN, SLOPE, Palette


def blobs(height: int, width: int, seed: int, middle: float = 0.5, spread: float = 0.1) -> Tensor:
    """Colours about a middle, correlated, well inside [0, 1]."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(3, 3)) * spread / 2
    colors = middle + random.uniform(-1, 1, size=(height * width, 3)) @ mixing.T
    return torch.from_numpy(colors.clip(0.02, 0.98).astype(np.float32).T.reshape(1, 3, height, width).copy())


def colors(image: Tensor) -> NDArray[np.float64]:
    return image[0].flatten(1).T.double().numpy()


def test_a_recolored_picture_has_mean_and_covariance_of_the_palette() -> None:
    photo, style = blobs(40, 50, 1), blobs(60, 30, 2, middle=0.6)
    found, wanted = colors(Palette.of([(style, None)]).recolor(photo)), colors(style)
    np.testing.assert_allclose(found.mean(0), wanted.mean(0), atol=1e-4)
    np.testing.assert_allclose(np.cov(found.T), np.cov(wanted.T), atol=5e-4)


def test_recoloring_is_optimal_transport() -> None:
    """A map between Gaussians moves colours least exactly if its matrix is symmetric and positive (Brenier)."""
    photo, style = blobs(40, 50, 1), blobs(60, 30, 2)
    before, after = colors(photo), colors(Palette.of([(style, None)]).recolor(photo))
    matrix, *_ = np.linalg.lstsq(before - before.mean(0), after - after.mean(0), rcond=None)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-4)
    assert np.linalg.eigvalsh(matrix).min() > 0


@pytest.mark.slow
@given(st.integers(0, 100))
def test_noise_in_a_grey_picture_does_not_become_color(seed: int) -> None:
    random = np.random.default_rng(seed)
    grey = np.repeat(random.uniform(0.2, 0.8, size=(1, 1, 20, 20)), 3, 1) + random.normal(0, 0.002, (1, 3, 20, 20))
    photo, style = torch.from_numpy(grey.astype(np.float32)), blobs(20, 20, seed, spread=0.6)
    before, after = colors(photo), colors(Palette.of([(style, None)]).recolor(photo))
    axis = np.linalg.svd(before - before.mean(0))[2][2]  # noise alone
    moved, *_ = np.linalg.lstsq(before - before.mean(0), after - after.mean(0), rcond=None)
    assert np.linalg.norm(axis @ moved) < GAIN * 1.01


def test_tones_come_near_the_palettes_distribution() -> None:
    random = np.random.default_rng(0)
    photo = torch.from_numpy(random.uniform(0.3, 0.7, (1, 3, 64, 64)).astype(np.float32))
    style = torch.from_numpy((0.5 + 0.05 * random.standard_normal((1, 3, 64, 64))).astype(np.float32))
    own = Palette.of([(style, None)])
    axes, wanted = own.axes.numpy(), colors(style)

    def distance(image: Tensor) -> float:
        sorts = [np.sort(each @ axes, 0) for each in (colors(image), wanted)]
        return float(np.abs(sorts[0] - sorts[1]).mean())

    recolored = own.recolor(photo)
    assert distance(own.tone(recolored)) < 0.75 * distance(recolored)


def test_tone_curves_increase_within_their_slopes() -> None:
    style = blobs(64, 64, 3, spread=0.5)
    own = Palette.of([(style, None)])
    line = (own.mean.float() + torch.linspace(-0.3, 0.3, 400)[:, None] * own.axes[:, 2].float()).clamp(0.02, 0.98)
    photo = line.T.reshape(1, 3, 20, 20)
    before, after = (colors(image) @ own.axes.numpy()[:, 2] for image in (photo, own.tone(photo)))
    toned = colors(own.tone(photo))
    inside = np.all((toned > 1e-6) & (toned < 1 - 1e-6), axis=1)
    slopes = np.diff(after)[inside[1:] & inside[:-1]] / np.diff(before)[inside[1:] & inside[:-1]]
    assert float(slopes.min()) > 1 / SLOPE - 0.05
    assert slopes.max() < SLOPE + 0.05


def test_a_palette_is_given_back_as_it_is() -> None:
    style = blobs(50, 60, 4, spread=0.4)
    assert (Palette.of([(style, None)]).finish(style) - style).abs().max() < 3e-3


def test_what_is_transparent_has_no_part_in_it() -> None:
    left, right = blobs(20, 20, 5, middle=0.3), blobs(20, 20, 6, middle=0.7)
    both, alpha = torch.cat([left, right], 3), torch.zeros(1, 1, 20, 40)
    alpha[..., :20] = 1
    alone, masked = Palette.of([(left, None)]), Palette.of([(both, alpha)])
    for one, other in zip(vars(alone).values(), vars(masked).values(), strict=True):
        np.testing.assert_allclose(one.abs(), other.abs(), atol=2e-3)
    photo = torch.cat([blobs(20, 20, 7), torch.ones(1, 3, 20, 20)], 3)
    np.testing.assert_allclose(
        alone.recolor(photo, alpha)[..., :20], alone.recolor(photo[..., :20].contiguous()), atol=1e-5
    )


def test_a_blend_lies_between_its_pictures() -> None:
    dark, bright = blobs(20, 20, 8, middle=0.3), blobs(20, 20, 9, middle=0.7)
    mixed = Palette.of([(dark, None), (bright, None)], [3.0, 1.0])
    np.testing.assert_allclose(mixed.mean, 0.75 * colors(dark).mean(0) + 0.25 * colors(bright).mean(0), atol=1e-6)
    repeated = np.concatenate([colors(dark)] * 3 + [colors(bright)])
    np.testing.assert_allclose(mixed.covariance, np.cov(repeated.T, bias=True), atol=1e-6)
    assert Palette.of([(dark, None), (bright, None)], [1.0, 0.0]).mean.equal(Palette.of([(dark, None)]).mean)


@pytest.mark.parametrize("middle", [0.0, 0.5, 1.0])
def test_pictures_of_one_color_stay_in_range(middle: float) -> None:
    plain, other = torch.full((1, 3, 9, 7), middle), blobs(12, 9, 1)
    for style, photo in ((plain, other), (other, plain), (plain, plain)):
        found = Palette.of([(style, None)]).finish(photo)
        assert found.shape == photo.shape
        assert bool(((found >= 0) & (found <= 1)).all())
    np.testing.assert_allclose(Palette.of([(plain, None)]).recolor(plain), plain, atol=1e-5)


def test_large_pictures_are_moved_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    photo, own = blobs(30, 41, 1), Palette.of([(blobs(60, 30, 2), None)])
    whole = own.finish(photo)
    monkeypatch.setattr(module, "PART", 100)
    np.testing.assert_allclose(own.finish(photo), whole, atol=1e-6)
