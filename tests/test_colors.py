"""Colour: luminance, chroma, and the statistics a style is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from stylize.colors import builtin, choose, luminance, match_color, match_luminance, with_chroma
from stylize.errors import SettingsError

Array = NDArray[Any]
HASTY = settings(max_examples=60)


def test_a_mode_is_chosen_by_name_and_an_unknown_name_lists_them_all() -> None:
    assert choose("match", builtin()).name == "match"
    with pytest.raises(SettingsError, match="preserve_color is 'sepia'; it must be one of none, luminance, match"):
        choose("sepia", builtin())


def colours(seed: int, *, spread: float = 0.1, size: tuple[int, int] = (40, 50)) -> Tensor:
    """Correlated noise around a colour, well inside the gamut."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    mixed = rng.uniform(-1, 1, (size[0] * size[1], 3)) * [1, 0.4, 0.2] @ rotation * spread
    pixels = mixed + rng.uniform(0.4, 0.6, 3)
    return torch.from_numpy(pixels.T.reshape(1, 3, *size).astype(np.float32))


def statistics(image: Tensor) -> tuple[Array, Array]:
    pixels = image[0].flatten(1).double().numpy()
    return pixels.mean(1), np.cov(pixels, bias=True)


@pytest.mark.parametrize("seed", range(4))
def test_match_color_gives_mean_and_covariance(seed: int) -> None:
    style, content = colours(seed), colours(seed + 10, spread=0.04, size=(30, 20))
    matched = match_color(style, content)
    for actual, expected in zip(statistics(matched), statistics(content), strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-4)
    (style_mean, style_covariance), (content_mean, content_covariance) = statistics(style), statistics(content)

    def power(matrix: Array, exponent: float) -> Array:
        left, values, _ = np.linalg.svd(matrix)
        return np.asarray(left * values**exponent @ left.T)

    matrix = power(content_covariance, 0.5) @ power(style_covariance, -0.5)
    pixels = style[0].flatten(1).double().numpy()
    expected = (matrix @ (pixels - style_mean[:, None]) + content_mean[:, None]).clip(0, 1)
    np.testing.assert_allclose(matched[0].flatten(1).numpy(), expected, atol=1e-5)


def test_match_color_of_a_picture_with_itself() -> None:
    image = colours(3)
    torch.testing.assert_close(match_color(image, image), image, atol=1e-5, rtol=0)


def test_match_color_of_degenerate_pictures() -> None:
    grey = luminance(colours(1)).expand(1, 3, -1, -1).contiguous()
    flat = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    dot = torch.tensor([0.9, 0.1, 0.3]).view(1, 3, 1, 1)
    varied = colours(2)
    for style in (grey, flat, dot, varied):
        for content in (grey, flat, dot, varied):
            matched = match_color(style, content)
            assert matched.shape == style.shape
            assert bool(torch.isfinite(matched).all())
            torch.testing.assert_close(matched.mean((2, 3)), content.mean((2, 3)), atol=2e-3, rtol=0)
    assert float(match_color(varied, grey).std(1).max()) < 0.01  # a grey content makes a grey style
    noisy = grey + torch.randn(grey.shape, generator=torch.Generator().manual_seed(0)) / 2000
    assert float(match_color(noisy, varied).std((2, 3)).max()) < 0.3  # the noise is not amplified


def test_match_color_ignores_transparent_pixels() -> None:
    style, content = colours(1), colours(2)
    alpha = torch.ones(1, 1, 40, 50)
    alpha[..., 25:] = 0
    disturbed = torch.where(alpha > 0, content, 1.0)
    expected = match_color(style, content[..., :25])
    torch.testing.assert_close(match_color(style, disturbed, content_alpha=alpha), expected)
    half = match_color(torch.where(alpha > 0, style, 0.0), content, style_alpha=alpha)[..., :25]
    torch.testing.assert_close(half, match_color(style[..., :25], content))
    nothing = match_color(style, content, content_alpha=torch.zeros_like(alpha))
    assert bool(torch.isfinite(nothing).all())


def test_match_luminance() -> None:
    style, content = luminance(colours(1)), luminance(colours(2, spread=0.05))
    matched = match_luminance(style, content)
    assert float(matched.mean()) == pytest.approx(float(content.mean()), abs=1e-4)
    assert float(matched.std(correction=0)) == pytest.approx(float(content.std(correction=0)), abs=1e-4)
    flat = torch.full((1, 1, 4, 4), 0.3)
    torch.testing.assert_close(match_luminance(flat, content), content.mean().expand(1, 1, 4, 4))
    torch.testing.assert_close(match_luminance(style, flat), torch.full_like(style, 0.3))


def test_luminance_of_known_colours() -> None:
    primaries = torch.eye(3).view(1, 3, 1, 3)
    torch.testing.assert_close(luminance(primaries).flatten(), torch.tensor([0.299, 0.587, 0.114]))


@pytest.mark.slow
@HASTY
@given(st.integers(0, 1000))
def test_luminance_and_chroma(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rgb, painted = torch.rand(2, 1, 3, 6, 7, generator=generator)
    torch.testing.assert_close(with_chroma(luminance(rgb), rgb), rgb, atol=1e-5, rtol=0)
    y = luminance(painted)
    result = with_chroma(y, rgb)
    assert float(result.min()) >= 0
    assert float(result.max()) <= 1
    torch.testing.assert_close(luminance(result), y, atol=1e-5, rtol=0)
    chroma, wanted = result - luminance(result), rgb - luminance(rgb)  # the same hue, perhaps paler
    gain = (chroma * wanted).sum(1) / (wanted * wanted).sum(1)
    torch.testing.assert_close(chroma, gain[:, None] * wanted, atol=1e-4, rtol=0)
    assert float(gain.max()) <= 1 + 1e-4


def test_chroma_of_black_white_and_grey() -> None:
    rgb = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    for y in (0.0, 1.0):
        assert bool((with_chroma(torch.full((1, 1, 1, 1), y), rgb) == y).all())
    grey = torch.full((1, 3, 1, 1), 0.7)
    torch.testing.assert_close(with_chroma(torch.full((1, 1, 1, 1), 0.4), grey), torch.full((1, 3, 1, 1), 0.4))
