"""The embedded encoder: a narrow VGG distilled from VGG-19 by :mod:`stylize.encoders.distill`, 2 MB, in the package.

Its layers have VGG's names. What it gives of each is not the activation itself but a linear map of it, in which
distances approximate those between VGG-19's features.

The file's first 4800 steps followed the learning rate of a run of 12000, the rest that of 10000: the script gives a
close relative of it, not the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stylize.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from stylize.encoders import Encoder, Place

WIDTHS = (64, 32, None, 64, 48, None, 128, 96, None, 192, 192, None, 96)
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")
FILE = Path(__file__).with_name("mini.safetensors")
CONTENT_SCALE = 1.07  # on mini, what it takes for the balance that a content weight gives on VGG-19


def encoder(
    tensors: Mapping[str, Tensor],
    layers: Iterable[str],
    place: Place,
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
        return {key: tensor.float() for key, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: {error}; install stylize again") from error


def save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write float16 safetensors."""
    from safetensors.torch import save as dumps

    unfinished = path.with_suffix(".tmp")
    unfinished.write_bytes(dumps({key: tensor.half().contiguous() for key, tensor in tensors.items()}, dict(metadata)))
    unfinished.replace(path)
