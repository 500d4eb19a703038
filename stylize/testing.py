"""For tests of stylize and of its plugins: an encoder that is there at once, small, and the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stylize.encoders import Encoder, EncoderSpec, Place, Progress, layer_names

if TYPE_CHECKING:
    from torch import Tensor

TINY_WIDTHS = (8, 8, None, 12, 12, None, 16, 16, 16, 16, None, 20, 20, 20, 20, None, 20, 20, 20, 20)


def tiny_encoder(name: str = "tiny", seed: int = 0) -> EncoderSpec:
    """A VGG-19 of at most 20 channels with seeded random weights: its layer names, none of its taste."""

    def load(file: Path | None, progress: Progress | None) -> Callable[[Iterable[str], Place], Encoder]:
        from stylize.encoders.vgg import VGG

        tensors = random_weights(TINY_WIDTHS, seed)

        def build(layers: Iterable[str], place: Place) -> Encoder:
            return VGG(tensors, TINY_WIDTHS, layers, place)

        return build

    return EncoderSpec(name, layer_names(TINY_WIDTHS), load)


def random_weights(widths: Iterable[int | None], seed: int = 0) -> dict[str, Tensor]:
    """Weights with torchvision keys of a VGG with these widths, scaled to keep activations alike (He et al. 2015)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {}
    index, channels = 0, 3
    for width in widths:
        if width is None:
            index += 1
            continue
        scale = (2 / (9 * channels)) ** 0.5
        made[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3, generator=generator) * scale
        made[f"features.{index}.bias"] = torch.rand(width, generator=generator) * 0.1
        index, channels = index + 2, width
    return made
