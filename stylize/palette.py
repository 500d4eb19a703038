"""Transfer of a style's palette to a picture, by maps of colours that do not depend on the position.

A photo is recoloured before it is painted, so that the optimisation need not do it. The picture of each scale is
recoloured once more, since the loss sees the distribution of colours only through means and covariances of features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylize.colors import statistics
from stylize.images import resize

NOISE = 1e-4  # variance added to both pictures in every direction, so that noise in grey pictures is not enlarged
GAIN = 4.0  # a direction of colour is stretched by at most this factor, so that noise in it does not become colour
SLOPE = 1.3  # by how much a tone curve may stretch or squeeze: steeper ones make contours in skies
BINS = 1024  # of the histograms
KNOTS = 64  # of a tone curve
PART = 2**20  # pixels at once
EXACT = ("cpu", "cuda")  # devices with float64


@dataclass(frozen=True)
class Palette:
    """The colours of one picture, or of a blend of several: mean (3,) and covariance (3, 3) in float64, the axes (3, 3)
    of that covariance as columns, and :data:`KNOTS` quantiles along each axis, (3, KNOTS)."""

    mean: Tensor
    covariance: Tensor
    axes: Tensor
    quantiles: Tensor

    @classmethod
    def of(cls, pictures: Sequence[tuple[Tensor, Tensor | None]], shares: Sequence[float] | None = None) -> Palette:
        """The palette of pictures (1, 3, H, W) with alphas (1, 1, H, W) or None, mixed by ``shares``."""
        shares = shares or [1.0] * len(pictures)
        used = [(share / sum(shares), *picture) for share, picture in zip(shares, pictures, strict=True) if share]
        moments = [(share, *statistics(rgb, alpha)) for share, rgb, alpha in used]
        mean = torch.stack([share * own for share, own, _ in moments]).sum(0)
        second = torch.stack([share * (spread + own.outer(own)) for share, own, spread in moments]).sum(0)
        covariance = second - mean.outer(mean)
        axes = torch.linalg.eigh(covariance)[1]
        low, high = _reach(axes)
        counts = torch.stack([share * _histograms(rgb, alpha, axes, low, high) for share, rgb, alpha in used]).sum(0)
        return cls(mean, covariance, axes, _quantiles(counts, low, high))

    def recolor(self, image: Tensor, alpha: Tensor | None = None) -> Tensor:
        """The image (1, 3, H, W) with the mean and covariance of this palette, in [0, 1].

        Linear optimal transport between Gaussians (Pitie, Kokaram 2007, sect. 2.5): of all linear maps the one
        that moves colours least.
        """
        if image.device.type not in EXACT:
            return self.recolor(image.cpu(), alpha).to(image.device)
        mean, covariance = (found.cpu() for found in statistics(image, alpha))
        flat = NOISE * torch.eye(3, dtype=covariance.dtype)
        root, inverse = _powers(covariance + flat)
        matrix = inverse @ _powers(root @ (self.covariance + flat) @ root)[0] @ inverse
        values, vectors = torch.linalg.eigh(matrix)
        matrix = (vectors * values.clamp(1 / GAIN, GAIN)) @ vectors.T

        turned, offset = matrix.float().to(image.device), (self.mean - matrix @ mean)[:, None].float().to(image.device)

        def moved(part: Tensor) -> Tensor:
            return torch.addmm(offset, turned, part)

        return _mapped(image, moved)

    def tone(self, image: Tensor, alpha: Tensor | None = None) -> Tensor:
        """The image (1, 3, H, W) whose distribution of colours along each axis of this palette is moved to
        the palette's by a smooth increasing curve, in [0, 1].

        One iteration of Pitie, Kokaram, Dahyot (2007, sect. 3), along the axes of the palette; slopes
        lie between 1 / :data:`SLOPE` and :data:`SLOPE`, so that flat areas stay flat.
        """
        if image.device.type not in EXACT:
            return self.tone(image.cpu(), alpha).to(image.device)
        low, high = _reach(self.axes)
        begin = _quantiles(_histograms(image, alpha, self.axes, low, high), low, high)
        width = begin.diff().clamp_min(1e-6)
        slopes = (self.quantiles.diff() / width).clamp(1 / SLOPE, SLOPE)
        end = torch.cat([torch.zeros_like(begin[:, :1]), (slopes * width).cumsum(1)], 1)
        end += (self.quantiles - end).mean(1, keepdim=True)
        # a curve as a table of moves over equal bins; beyond the outermost quantiles the move stays what it is there
        middles = low[:, None] + (torch.arange(BINS, dtype=low.dtype) + 0.5) / BINS * (high - low)[:, None]
        table = torch.stack([_interpolated(own, x, y - x) for own, x, y in zip(middles, begin, end, strict=True)])
        table, axes, low, high = (tensor.float().to(image.device) for tensor in (table, self.axes, low, high))

        def moved(part: Tensor) -> Tensor:
            along = axes.T @ part
            place = ((along - low[:, None]) / (high - low)[:, None] * BINS - 0.5).clamp(0, BINS - 1)
            left = place.floor().long().clamp(max=BINS - 2)
            here, there = table.gather(1, left), table.gather(1, left + 1)
            return part + axes @ here.lerp(there, place - left)

        return _mapped(image, moved)

    def finish(self, image: Tensor, alpha: Tensor | None = None) -> Tensor:
        """The image (1, 3, H, W) with this palette: :meth:`recolor`, then :meth:`tone`."""
        return self.tone(self.recolor(image, alpha), alpha)


def _mapped(image: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """A picture whose colours, (3, n), are moved part by part."""
    found = torch.empty_like(image, memory_format=torch.contiguous_format)
    pixels, out = image[0].flatten(1), found[0].view(3, -1)
    for first in range(0, pixels.shape[1], PART):
        out[:, first : first + PART] = move(pixels[:, first : first + PART]).clamp_(0, 1)
    return found


def _powers(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Square root and inverse square root of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    roots = values.clamp_min(1e-12).sqrt()
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _reach(axes: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest coordinate (3,) that a colour in [0, 1] can have along each axis."""
    return axes.clamp(max=0).sum(0), axes.clamp_min(0).sum(0)


def _histograms(image: Tensor, alpha: Tensor | None, axes: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Counts (3, BINS) of the coordinates along each axis."""
    counts = torch.zeros(3, BINS, dtype=torch.float64)
    pixels, device = image[0].flatten(1), image.device
    turned, low, high = (tensor.float().to(device) for tensor in (axes.T, low, high))
    weights = None if alpha is None or not bool(alpha.any()) else alpha.to(device).flatten()
    for first in range(0, pixels.shape[1], PART):
        part = turned @ pixels[:, first : first + PART]
        bins = ((part - low[:, None]) / (high - low)[:, None] * BINS).long().clamp_(0, BINS - 1)
        # whole numbers, whose sums do not depend on their order
        own = None if weights is None else (weights[first : first + PART] * 2**14).round().double()
        for axis in range(3):
            counts[axis] += torch.bincount(bins[axis], own, BINS).cpu()
    return counts


def _quantiles(counts: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The coordinates (3, KNOTS) below which equal shares of the counts lie."""
    edges = torch.arange(BINS + 1, dtype=torch.float64) / BINS
    wanted = (torch.arange(KNOTS, dtype=torch.float64) + 0.5) / KNOTS
    found = []
    for own, least, most in zip(counts, low, high, strict=True):
        sums = torch.cat([own.new_zeros(1), own.cumsum(0)])
        sums = sums / sums[-1] + torch.linspace(0, 1e-9, len(sums), dtype=sums.dtype)  # strictly increasing
        found.append(least + _interpolated(wanted, sums, edges) * (most - least))
    return torch.stack(found)


def _interpolated(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The piecewise linear function through (x, y), x increasing, at some points; constant beyond the ends."""
    # by NumPy: torch wakes all its threads for a thousand numbers
    right = torch.from_numpy(np.searchsorted(x.numpy(), at.numpy())).clamp(1, len(x) - 1)
    share = ((at - x[right - 1]) / (x[right] - x[right - 1]).clamp_min(1e-12)).clamp(0, 1)
    return y[right - 1].lerp(y[right], share)


class Palettes:
    """The palettes of the parts of a picture.

    With several parts, each changes the colours of its own pixels, by their weights, and pixels in no part stay as they
    are. A single part changes all pixels; its weights say which of them count in the picture's statistics.

    Args:
        parts: for each part, what gives its palette for a picture of that longest side in px, or None if it keeps its
            colours; and the weights of its pixels, (1, 1, H, W) of any size, or None if all count alike.
    """

    def __init__(self, parts: Sequence[tuple[Callable[[int], Palette] | None, Tensor | None]]) -> None:
        self._parts = tuple(parts)

    def recolor(self, image: Tensor) -> Tensor:
        """The image (1, 3, H, W) with each part's :meth:`Palette.recolor`."""
        return self._mixed(image, Palette.recolor)

    def finish(self, image: Tensor) -> Tensor:
        """The image (1, 3, H, W) with each part's :meth:`Palette.finish`."""
        return self._mixed(image, Palette.finish)

    def _mixed(self, image: Tensor, change: Callable[[Palette, Tensor, Tensor | None], Tensor]) -> Tensor:
        size = image.shape[2:]
        found = image
        for palette, weights in self._parts:
            if palette is None:
                continue
            own = None if weights is None else resize(weights, *size).to(image.device)
            changed = change(palette(max(size)), image, own)
            found = changed if own is None or len(self._parts) == 1 else found + own * (changed - image)
        return found.clamp(0, 1)
