"""The grain of a painting: its finest texture, as noise of the same spectrum (Galerne, Gousseau, Morel 2011).

An enlarged picture is smooth where the photo has no detail. The finest texture of the painting must come from
somewhere, and steps along the gradient make it of what the first filters of the network respond to most: rows and
columns 3 px apart, which look like woven cloth. So fine scales begin with noise that is like the painting's texture.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylize.images import resize

SIDE = 16  # px: of the blocks that spectra are measured in, and of the kernel
AREA = 16  # px: over about so many is measured what texture there is already
CALM = 0.25  # share of the painting that is calmer: there detail is grain, elsewhere lines, too
LEAST = 1e-8  # energy: a painting that is flat has no grain
LEVELS = 256  # of the white noise
PART = 2**20  # pixels at once


@dataclass(frozen=True)
class Grain:
    """The detail of a style, or of a blend of several, that half its size could not hold.

    ``kernel`` (3, 3, SIDE, SIDE) makes noise of its spectrum and colours and of variance 1, the mean over the channels,
    from white noise of variance 1; ``energy`` is the mean square of the detail in calm places.
    """

    kernel: Tensor
    energy: float

    @classmethod
    def of(
        cls, pictures: Iterable[tuple[Tensor, Tensor | None]], shares: Sequence[float] | None = None
    ) -> Grain | None:
        """The grain of pictures (1, 1 or 3, H, W) with alphas (1, 1, H, W) or None, mixed by ``shares``, default: all
        alike; None if they have none, or are too small to tell. Each is asked for when the one before is done with."""
        spectrum, energy, total = torch.zeros(SIDE, SIDE, 3, 3, dtype=torch.complex64), 0.0, 0.0
        for share, (rgb, alpha) in zip(itertools.repeat(1.0) if shares is None else shares, pictures, strict=False):
            if not share or min(rgb.shape[2:]) < SIDE:
                continue
            detail = _detail(rgb.float().to(rgb.device if rgb.is_cuda else "cpu").expand(-1, 3, -1, -1))
            weight = torch.ones_like(detail[:, :1]) if alpha is None else alpha.float().to(detail.device)
            own = _spectrum(detail, weight)
            if own is None:
                continue
            spectrum += share * own.cpu()
            energy += share * float(np.quantile(_around(detail)[weight > 0].cpu(), CALM))
            total += share
        if energy <= LEAST * total:
            return None
        values, vectors = torch.linalg.eigh(spectrum)
        roots = values.clamp_min(0).sqrt().to(vectors.dtype)
        root = torch.einsum("xycd,xyd,xyed->xyce", vectors, roots, vectors.conj())
        kernel = torch.fft.fftshift(torch.fft.ifft2(root.permute(2, 3, 0, 1)).real, dim=(2, 3))
        return cls(kernel / (kernel.square().sum() / 3).sqrt(), energy / total)

    def added(self, image: Tensor, share: float = 1.0, seed: int = 0) -> Tensor:
        """The image (1, 1 or 3, H, W) with a share of what it lacks of the grain at each place, in [0, 1]."""
        height, width = image.shape[2:]
        amount = share * (self.energy - _local_energy(image)).clamp_min_(0).sqrt_()
        kernel = self.kernel.to(image.device)
        size = (1, 3, height + SIDE - 1, width + SIDE - 1)
        white = torch.randint(0, LEVELS, size, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
        deviation = ((LEVELS**2 - 1) / 12) ** 0.5
        found, rows = torch.empty_like(image), max(1, PART // width)
        for first in range(0, height, rows):
            own = slice(first, min(first + rows, height))
            part = white[:, :, first : own.stop + SIDE - 1].to(image.device)
            noise = F.conv2d(part.float().sub_((LEVELS - 1) / 2).div_(deviation), kernel)
            noise = noise if image.shape[1] == 3 else noise.mean(1, keepdim=True)
            found[:, :, own] = torch.addcmul(image[:, :, own], noise, amount[:, :, own]).clamp_(0, 1)
        return found


class Grains:
    """The grain of the styles of the parts of a picture.

    Args:
        parts: for each part, what gives its grain for a picture of that longest side in px, or None if it has no style;
            and the weights of its pixels, (1, 1, H, W) of any size, or None if all count alike.
        seed: of the noise.
    """

    def __init__(self, parts: Sequence[tuple[Callable[[int], Grain | None] | None, Tensor | None]], seed: int) -> None:
        self._parts, self._seed = tuple(parts), seed

    def added(self, image: Tensor, share: float = 1.0) -> Tensor:
        """The image (1, 1 or 3, H, W) with each part's :meth:`Grain.added`, in [0, 1]."""
        size, found = image.shape[2:], image
        for known, weights in self._parts:
            grain = None if known is None else known(max(size))
            if grain is None:
                continue
            changed = grain.added(image, share, self._seed)
            if weights is None or len(self._parts) == 1:
                found = changed
            else:
                found = found + resize(weights, *size).to(image.device) * (changed - image)
        return found.clamp(0, 1)


def _detail(image: Tensor) -> Tensor:
    """What a picture (1, C, H, W) loses at half its size."""
    height, width = image.shape[2:]
    smaller = resize(image, max(1, round(height / 2)), max(1, round(width / 2)), clamp=False)
    larger = resize(smaller, height, width, clamp=False)
    if larger is smaller:  # of a single pixel, which may be the image itself
        return image - larger
    return torch.sub(image, larger, out=larger)  # large pictures are most of the memory


def _local_energy(image: Tensor) -> Tensor:
    """The mean square of the detail around each pixel, (1, 1, H, W)."""
    return _around(_detail(image))


def _around(detail: Tensor) -> Tensor:
    """The mean square of detail (1, C, H, W) around each pixel, (1, 1, H, W)."""
    height, width = detail.shape[2:]
    energy, rows = torch.empty_like(detail[:, :1]), max(1, PART // width)
    for first in range(0, height, rows):
        own = slice(first, first + rows)
        energy[:, :, own] = detail[:, :, own].square().mean(1, keepdim=True)
    window = min(AREA, height), min(AREA, width)
    smoothed = F.avg_pool2d(energy, window, ceil_mode=True)
    return F.interpolate(smoothed, (height, width), mode="bilinear", align_corners=False)


def _spectrum(detail: Tensor, weight: Tensor) -> Tensor | None:
    """The cross spectra (SIDE, SIDE, 3, 3) of the channels of detail (1, 3, H, W), the mean over overlapping blocks of
    which those count that are of weight (1, 1, H, W); None if there are none. (Welch 1967)"""
    window = torch.hann_window(SIDE, periodic=True, device=detail.device)
    window = window.outer(window)
    spectrum, counts = torch.zeros(SIDE, SIDE, 3, 3, dtype=torch.complex64, device=detail.device), 0.0
    rows = max(SIDE, PART // 16 // detail.shape[3] // SIDE * SIDE)
    for first in range(0, detail.shape[2] - SIDE + 1, rows):
        own = slice(first, first + rows + SIDE // 2)
        blocks = F.unfold(detail[0, :, None, own], SIDE, stride=SIDE // 2)  # (3, SIDE^2, n)
        shares = F.unfold(weight[:, :, own], SIDE, stride=SIDE // 2).mean((0, 1))
        blocks = blocks.view(3, SIDE, SIDE, -1)
        waves = torch.fft.fft2((blocks - blocks.mean((1, 2), keepdim=True)) * window[..., None], dim=(1, 2))
        spectrum += torch.einsum("cxyn,dxyn,n->xycd", waves, waves.conj(), shares.to(waves.dtype))
        counts += float(shares.sum())
    return spectrum / counts / SIDE**2 / window.square().mean() if counts else None
