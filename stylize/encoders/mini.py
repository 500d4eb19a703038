"""The embedded encoder: a narrow VGG distilled from VGG-19 by ``tests/bench/distill_mini.py``, 0.8 MB, in the package.

Its layers have VGG's names. The features of a layer are not the activations but a linear map of them, in which
distances approximate those between VGG-19's features.

The file was trained in two runs: 20000 steps without initialising dead channels again, then, with that, 10000 steps on
large crops, with a learning rate from 3e-3 and 0.8 as the weight of relu5_1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stylize.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from stylize.encoders import Encoder, EncoderConfig

WIDTHS = (24, None, 48, None, 112, None, 192, 192, None, 64)
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")
STEP = ".step"  # KEY.step holds what the integers of KEY are multiples of
FILE = Path(__file__).with_name("mini.safetensors")
# The content term. mini approximates relu4_2 only roughly. With shallower layers, which it matches well, more of the
# photo is kept at the same style, both measured by VGG-19. The factors make a content weight act as it does on VGG-19.
CONTENT = {"relu2_1": 0.21, "relu3_1": 0.05, "relu4_2": 0.62}


def encoder(
    tensors: Mapping[str, Tensor],
    layers: Iterable[str],
    place: EncoderConfig,
    widths: Iterable[int | None] = WIDTHS,
) -> Encoder:
    """The encoder of these tensors: ``features.N.weight``/``.bias`` and, for a map, ``LAYER.weight``/``.bias``."""
    from stylize.encoders.vgg import VGG

    maps = {
        layer: (tensors[f"{layer}.weight"], tensors[f"{layer}.bias"])
        for layer in LAYERS
        if f"{layer}.weight" in tensors
    }
    return VGG(tensors, widths, layers, place, maps)


def read(path: Path = FILE) -> dict[str, Tensor]:
    """The tensors of a file, as float32.

    Raises:
        WeightsError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        held = load_file(path)
        steps = {key: held.pop(key + STEP).float() for key in tuple(held) if key + STEP in held}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: {error}; install stylize again") from error
    return {
        key: tensor.float() * steps[key].view(-1, *[1] * (tensor.dim() - 1)) if key in steps else tensor.float()
        for key, tensor in held.items()
    }


def save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write safetensors: weights as int8, with the size of a step for each output channel, biases as float16."""
    import torch
    from safetensors.torch import save as dumps

    made: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if tensor.dim() == 1:
            made[key] = tensor.half()
            continue
        step = (tensor.flatten(1).abs().amax(1) / 127).clamp_min(1e-12)
        made[key] = (tensor / step.view(-1, *[1] * (tensor.dim() - 1))).round().to(torch.int8).contiguous()
        made[key + STEP] = step
    unfinished = path.with_suffix(".tmp")
    unfinished.write_bytes(dumps(made, dict(metadata)))
    unfinished.replace(path)
