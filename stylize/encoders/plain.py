"""VGG as one writes it down, in plain torch with automatic differentiation: the readable reference for
:mod:`stylize.encoders.vgg`, and the oracle of its tests. A compiler can take it, which it cannot take the other for.

The other one computes the same with less memory (its backward pass takes gradients in closed form) and, on CUDA, in
fewer passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from stylize.encoders.vgg import AVERAGE_POOLING_SCALES, MEAN, STD, modules


def features(
    image: Tensor,
    weights: Mapping[str, Tensor],
    widths: Iterable[int | None],
    pooling: str = "max",
    *,
    rescale: bool = True,
) -> dict[str, Tensor]:
    """All activations {layer: (1, C, H', W')} of a picture (1, 3, H, W) in [0, 1]; for the arguments see
    :class:`~stylize.encoders.vgg.VGG` and :class:`~stylize.encoders.EncoderConfig`."""
    x = (image - image.new_tensor(MEAN).view(1, 3, 1, 1)) / image.new_tensor(STD).view(1, 3, 1, 1)
    found, scales = dict[str, Tensor](), iter((*AVERAGE_POOLING_SCALES, 1.0))
    for index, layer, width in modules(widths):
        if width is None:
            window, scale = (min(2, x.shape[2]), min(2, x.shape[3])), next(scales) if rescale else 1.0
            if window != (1, 1):  # a map of one row or column keeps it, a single position is kept as it is
                x = F.max_pool2d(x, window) if pooling == "max" else F.avg_pool2d(x, window) * scale
            continue
        x = F.pad(x, (1, 1, 1, 1), mode="constant" if index else "replicate")
        weight, bias = (weights[f"features.{index}.{part}"].to(x) for part in ("weight", "bias"))
        x = found[layer] = torch.relu(F.conv2d(x, weight, bias))
    return found
