"""How good a stylized picture is, in numbers: the yardstick of every change to the recipe.

    python -m tests.bench.score STYLIZED CONTENT STYLE [--weights FILE] [--encoder vgg19]

Prints one JSON object, of values that are 0 at best:

- style: the relative 2-Wasserstein distance between the features of picture and style, each taken for a Gaussian,
  sqrt((|m_x - m_s|^2 + tr(C_x + C_s - 2 (C_s^1/2 C_x C_s^1/2)^1/2)) / (|m_s|^2 + tr C_s)), the mean over
  relu1_1 to relu5_1;
- held: the same over relu1_2, relu2_2, relu3_3 and relu4_3, layers that are not optimised by default;
- content: the relative distance |F_x - F_c| / |F_c| of the features at relu4_2.

Everything is compared at the size of STYLIZED: the content is resized to it, the style to its longest side. One result
is better than another where none of the three is higher. The weights are found as stylize finds them, or given.
``mini`` has no layers for ``held``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylize.encoders import EncoderConfig, builtin, choose
from stylize.images import fit, load, resize

STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
HELD = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
CONTENT = "relu4_2"

Encode = Callable[[Tensor], Mapping[str, Tensor]]


def encoder(name: str = "vgg19", weights: Path | None = None) -> Encode:
    """An encoder in float32 on the CPU, of all layers that scores need and it has."""
    spec = choose(name, builtin())
    layers = [layer for layer in (*STYLE, *HELD, CONTENT) if layer in spec.layers]
    return spec.load(weights, None)(layers, EncoderConfig(torch.device("cpu"), torch.float32))


@torch.no_grad()
def scores(stylized: Tensor, content: Tensor, style: Tensor, encode: Encode) -> dict[str, float]:
    """The scores of a picture; all pictures are (1, 3, H, W) in [0, 1], of any size."""
    height, width = stylized.shape[2:]
    small = fit(style.shape[2], style.shape[3], max(height, width), upscale=True)
    found, wanted, kept = (
        {layer: feature.double() for layer, feature in encode(image).items()}
        for image in (stylized, resize(style, *small), resize(content, height, width))
    )
    made = {"style": _mean(found, wanted, STYLE)}
    if set(HELD) <= set(found):
        made["held"] = _mean(found, wanted, HELD)
    made["content"] = float((found[CONTENT] - kept[CONTENT]).norm() / kept[CONTENT].norm())
    return made


def _mean(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layers: Sequence[str]) -> float:
    return float(np.mean([wasserstein(_rows(found[layer]), _rows(wanted[layer])) for layer in layers]))


def _rows(features: Tensor) -> NDArray[Any]:
    return np.asarray(features[0].flatten(1).T)  # (positions, channels)


def wasserstein(x: NDArray[Any], s: NDArray[Any]) -> float:
    """The relative 2-Wasserstein distance of two sets of rows (positions, channels), taken for Gaussians.

    tr (C_s^1/2 C_x C_s^1/2)^1/2 is the sum of the singular values of X'S / sqrt(n m), with X and S the centred rows.
    """
    mean_x, mean_s = x.mean(0), s.mean(0)
    root_x, root_s = (
        np.linalg.qr(rows - mean, mode="r") / np.sqrt(len(rows)) for rows, mean in ((x, mean_x), (s, mean_s))
    )
    overlap = np.linalg.svd(root_x @ root_s.T, compute_uv=False).sum()
    squared = np.square(mean_x - mean_s).sum() + np.square(root_x).sum() + np.square(root_s).sum() - 2 * overlap
    return float(np.sqrt(max(0.0, squared) / (np.square(mean_s).sum() + np.square(root_s).sum())))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("stylized", "content", "style"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--weights", type=Path, help="of the encoder; default: as stylize finds them")
    parser.add_argument("--encoder", default="vgg19")
    options = parser.parse_args(arguments)
    stylized, content, style = (load(path).rgb for path in (options.stylized, options.content, options.style))
    found = scores(stylized, content, style, encoder(options.encoder, options.weights))
    print(json.dumps({key: round(value, 4) for key, value in found.items()}))


if __name__ == "__main__":
    main()
