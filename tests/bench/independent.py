"""What no loss knows of a stylized picture: its colours, outlines and layout, measured without a network.

    python -m tests.bench.independent STYLIZED CONTENT STYLE [--turned PAINTED]

Prints one JSON object:

- colour: the sliced Wasserstein distance (Bonneel et al. 2015) of the colours to the style's, in levels of 255; 0 is
  best;
- ssim: MS-SSIM of three scales of the lightness to the content's (Wang, Simoncelli, Bovik 2003); 1 is best;
- outlines: the correlation of the gradients with the content's, whichever side is the brighter; 1 is best;
- grain: the energy of the finest detail over the style's; 1 is right, more is noise;
- layout, with a second picture, PAINTED with the style upside down: the correlation of what is left of both, blurred,
  when the content's own colours are taken away. 1 where it does not matter where things are in the style; below 0
  where colours move with it.

Everything is compared at the size of STYLIZED: the content is resized to it, the style to its longest side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stylize import as_picture
from stylize.images import fit, resize

Array = NDArray[np.float64]
LUMA = np.array([0.299, 0.587, 0.114])
SMALL = (128, 96)  # px: of which layouts are compared


def scores(painted: Array, content: Array, style: Array, turned: Array | None = None) -> dict[str, float]:
    """The distances of pictures (H, W, 3) in [0, 1], of which the first two are of one size."""
    grey, photo, paint = (each @ LUMA for each in (painted, content, style))
    found = {
        "colour": 255 * sliced(painted, style),
        "ssim": similarity(grey, photo),
        "outlines": outlines(grey, photo),
        "grain": float(np.sqrt(_fine(grey).var() / max(float(_fine(paint).var()), 1e-12))),
    }
    return found if turned is None else {**found, "layout": layout(painted, turned, content)}


def sliced(one: Array, other: Array, directions: int = 64) -> float:
    """The mean distance of the quantiles of two sets of colours, over random directions."""
    axes = np.random.default_rng(0).normal(size=(3, directions))
    axes /= np.linalg.norm(axes, axis=0)
    shares = np.linspace(0, 1, 512)
    quantiles = [np.quantile(each.reshape(-1, 3) @ axes, shares, axis=0) for each in (one, other)]
    return float(np.abs(quantiles[0] - quantiles[1]).mean())


def similarity(one: Array, other: Array, scales: int = 3) -> float:
    """MS-SSIM of two grey pictures (H, W): structure at each scale, and lightness at the last."""
    parts = []
    for scale in range(scales):
        means = [_blurred(each, 1.5) for each in (one, other)]
        squares = [_blurred(each * each, 1.5) - mean**2 for each, mean in zip((one, other), means, strict=True)]
        product = _blurred(one * other, 1.5) - means[0] * means[1]
        part = (2 * product + 9e-4) / (squares[0] + squares[1] + 9e-4)
        if scale == scales - 1:
            part = part * (2 * means[0] * means[1] + 1e-4) / (means[0] ** 2 + means[1] ** 2 + 1e-4)
        parts.append(max(float(part.mean()), 1e-6))
        one, other = (_blurred(each, 1.0)[::2, ::2] for each in (one, other))
    return float(np.prod(parts) ** (1 / scales))


def outlines(one: Array, other: Array) -> float:
    """The correlation of the gradients of two grey pictures (H, W), up to their sign."""
    gradients = [np.stack(list(np.gradient(_blurred(each, 1.5)))) for each in (one, other)]
    energy = np.sqrt((gradients[0] ** 2).sum() * (gradients[1] ** 2).sum())
    return float(np.abs((gradients[0] * gradients[1]).sum(0)).sum() / max(float(energy), 1e-12))


def layout(one: Array, other: Array, content: Array) -> float:
    """The correlation of two paintings of a content, blurred, less what its own colours explain."""
    small = [
        _blurred(np.asarray(cv2.resize(each, SMALL, interpolation=cv2.INTER_AREA), np.float64), 5.0)
        for each in (one, other, content)
    ]
    colors = np.c_[small[2].reshape(-1, 3), np.ones(SMALL[0] * SMALL[1])]
    rest = []
    for each in small[:2]:
        pixels = each.reshape(-1, 3)
        rest.append((pixels - colors @ np.linalg.lstsq(colors, pixels, rcond=None)[0]).ravel())
    return float(np.corrcoef(rest[0], rest[1])[0, 1])


def _blurred(image: Array, sigma: float) -> Array:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float64)


def _fine(grey: Array) -> Array:
    return grey - _blurred(grey, 0.8)


def read(path: str | Path, size: tuple[int, int] | None = None, longest: int = 0) -> Array:
    """A picture (H, W, 3) in [0, 1], at a size (height, width) or with that longest side."""
    rgb = as_picture(path).rgb
    size = fit(rgb.shape[2], rgb.shape[3], longest, upscale=True) if longest else size
    rgb = rgb if size is None else resize(rgb, *size)
    return np.asarray(rgb[0].permute(1, 2, 0), np.float64)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("stylized", "content", "style"):
        parser.add_argument(name)
    parser.add_argument("--turned", metavar="PAINTED", help="the same painted with the style upside down")
    given = parser.parse_args(arguments)
    painted = read(given.stylized)
    height, width = painted.shape[:2]
    turned = None if given.turned is None else read(given.turned, (height, width))
    found = scores(painted, read(given.content, (height, width)), read(given.style, longest=max(height, width)), turned)
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
