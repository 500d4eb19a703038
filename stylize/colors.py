"""Colour: the modes that decide what becomes of the content's colours, and their arithmetic.

Gatys, Bethge, Hertzmann, Shechtman 2016, "Preserving Color in Neural Artistic Style Transfer": "the paper" below.

Importing this module is cheap: torch is imported where it is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stylize.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from stylize.images import Picture

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the Y of YIQ
PART = 2**20  # pixels at once
NOISE = 0.5 / 255  # a standard deviation below half a level of 8 bits is quantisation, not colour

Prepare = Callable[["Picture", Sequence["Picture"]], tuple["Tensor", Sequence["Picture"]]]
Finish = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True)
class ColorMode:
    """A way to keep colours, asked for by ``--preserve-color NAME``.

    ``prepare(content, styles)`` returns what is painted, (1, 3, H, W), or (1, 1, H, W) to paint in grey, and the styles
    to paint it in; the pictures it gets have the colours of transparent pixels filled in from around them.
    ``finish(painted, content)`` gets the result, and the content as (1, 3, H, W) of its size, and returns the picture.
    """

    name: str
    prepare: Prepare | None = None
    finish: Finish | None = None


def builtin() -> tuple[ColorMode, ...]:
    """none; luminance: only the brightness is painted; match: the style gets the content's colours first."""
    return (ColorMode("none"), ColorMode("luminance", _grey, with_chroma), ColorMode("match", _matched))


def choose(name: str, modes: Iterable[ColorMode]) -> ColorMode:
    """The mode of that name.

    Raises:
        SettingsError: there is none; the message lists those there are.
    """
    known = {mode.name: mode for mode in modes}
    if name not in known:
        raise SettingsError(f"preserve_color is {name!r}; it must be one of {', '.join(known)}")
    return known[name]


def _grey(content: Picture, styles: Sequence[Picture]) -> tuple[Tensor, Sequence[Picture]]:
    y = luminance(content.rgb)
    matched = []
    for style in styles:
        grey = match_luminance(luminance(style.rgb), y, style_alpha=style.alpha, content_alpha=content.alpha)
        matched.append(replace(style, rgb=grey.expand(-1, 3, -1, -1)))
    return y, matched


def _matched(content: Picture, styles: Sequence[Picture]) -> tuple[Tensor, Sequence[Picture]]:
    return content.rgb, [
        replace(style, rgb=match_color(style.rgb, content.rgb, style_alpha=style.alpha, content_alpha=content.alpha))
        for style in styles
    ]


# --- arithmetic ------------------------------------------------------------------------------------------------------


def luminance(rgb: Tensor) -> Tensor:
    """(1, 3, H, W) -> (1, 1, H, W): Y of YIQ, in [0, 1]."""
    return (rgb * rgb.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def with_chroma(y: Tensor, rgb: Tensor) -> Tensor:
    """The luminance ``y`` (1, 1, H, W) of one picture with the chroma (I and Q) of another, (1, 3, H, W): in [0, 1].

    Section 4 of the paper. Where the two together leave the gamut, the chroma is scaled towards grey, so that the
    luminance is kept.
    """
    y = y.clamp(0, 1)
    chroma = rgb - luminance(rgb)
    headroom = (1 - y).where(chroma > 0, y)
    scale = (headroom / chroma.abs().clamp_min(1e-12)).amin(1, keepdim=True).clamp(max=1)
    return (y + scale * chroma).clamp(0, 1)


def match_luminance(
    style: Tensor, content: Tensor, *, style_alpha: Tensor | None = None, content_alpha: Tensor | None = None
) -> Tensor:
    """The luminance of the style, (1, 1, H, W), with the mean and standard deviation of the content's, in [0, 1].

    Eq. 3 of the paper. A constant style becomes the content's mean. The alphas,
    (1, 1, H, W), weigh the pixels; transparent ones do not count.
    """
    style_mean, style_variance = statistics(style, style_alpha)
    content_mean, content_variance = statistics(content, content_alpha)
    deviation, wanted = style_variance.sqrt(), content_variance.sqrt()
    gain = wanted / deviation if deviation > NOISE else wanted.new_zeros(wanted.shape)
    matched = (style.double() - style_mean.view(1, 1, 1, 1)) * gain.view(1, 1, 1, 1) + content_mean.view(1, 1, 1, 1)
    return matched.clamp(0, 1).to(style.dtype)


def match_color(
    style: Tensor, content: Tensor, *, style_alpha: Tensor | None = None, content_alpha: Tensor | None = None
) -> Tensor:
    """The style, (1, 3, H, W), recoloured so that its pixels have the mean and covariance of the content's.

    x -> A (x - m_s) + m_c with A = C_c^1/2 C_s^-1/2 (symmetric roots, the image-analogies form of section 3 of the
    paper), clamped to [0, 1]. Directions in which the style hardly varies, as in grey
    or single-colour pictures, are left out instead of amplified. The alphas weigh the pixels, as above.
    """
    import torch

    style_mean, style_covariance = statistics(style, style_alpha)
    content_mean, content_covariance = statistics(content, content_alpha)
    matrix = _power(content_covariance, 0.5) @ _power(style_covariance, -0.5)  # (3, 3)
    centred = style.double() - style_mean.view(1, 3, 1, 1)
    matched = torch.einsum("ij,bjhw->bihw", matrix, centred) + content_mean.view(1, 3, 1, 1)
    return matched.clamp(0, 1).to(style.dtype)


def statistics(image: Tensor, alpha: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) over the pixels of (1, C, H, W), in float64, weighted by alpha."""
    import torch

    pixels, weights = image[0].flatten(1), None if alpha is None else alpha.flatten()
    if weights is not None and not bool((weights > 0).any()):
        weights = None
    total, mean, second = (
        pixels.new_zeros(shape, dtype=torch.float64) for shape in ((), len(pixels), [len(pixels)] * 2)
    )
    middle = pixels.mean(1, keepdim=True).double()  # sums of squares about it keep their digits
    for first in range(0, pixels.shape[1], PART):
        part = pixels[:, first : first + PART].double() - middle
        own = part.new_ones(part.shape[1]) if weights is None else weights[first : first + PART].to(part).clamp_min(0)
        weighted = part * own
        total, mean, second = total + own.sum(), mean + weighted.sum(1), second + weighted @ part.T
    mean = mean / total
    return middle[:, 0] + mean, second / total - mean.outer(mean)


def _power(covariance: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive semidefinite matrix, zero along eigenvectors whose variance is mere noise."""
    import torch

    values, vectors = torch.linalg.eigh(covariance)
    powers = (values.clamp_min(1e-30) ** exponent).where(values > NOISE**2, 0.0)
    power: Tensor = (vectors * powers) @ vectors.T
    return power
