"""Encoders: callables that give features by layer name of a picture.

Importing this package is cheap; torch comes with :attr:`EncoderSpec.load`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stylize.encoders import mini, weights
from stylize.encoders.weights import Progress
from stylize.errors import SettingsError, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)


class Encoder(Protocol):
    """Features {layer: (1, C, H', W')} of a picture (1, 3, H, W) in [0, 1], differentiable, weights frozen.

    The same picture gives the same features, layers asked for exist at every picture size, and the features of a
    layer do not depend on which others were asked for. Optional attributes:

    * ``fingerprint``: a text that changes with its weights, for the records of pictures.
    * ``strides``, ``receptive_field_radius`` and ``bytes_per_pixel``, needed for pictures too large to be seen as a
      whole: the px between the positions of each layer, powers of 2; how many px to each side a feature sees at most;
      and the bytes held for each pixel until the gradient is there.
    * ``fixed_bytes``: the bytes held whatever the size of the picture.
    * ``operations_per_pixel``, the multiply-adds of the way forward, and ``channels`` of each layer, for estimates of
      time.
    * ``alignment``: a multiple of the strides, in px, on whose multiples parts of a picture should begin for the same
      rounding errors as in the whole.
    """

    @property
    def layers(self) -> frozenset[str]: ...

    def __call__(self, image: Tensor) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True)
class EncoderConfig:
    """Where and how an encoder computes; ``rescale`` asks it to make up for what average pooling takes away."""

    device: torch.device
    dtype: torch.dtype
    pooling: str = "max"
    rescale: bool = True


# The shallower layers hold outlines and light, which relu4_2 alone lets drift.
CONTENT = {"relu4_2": 1.0, "relu3_1": 0.5, "relu2_1": 0.25}

Build = Callable[[Iterable[str], EncoderConfig], Encoder]


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder that can be asked for by name.

    ``load(weights_file, progress)`` reads (or fetches) what it needs once and returns ``build(layers, place)``,
    which makes the encoder for a set of layers; ``layers`` lists all it has, shallow to deep. ``content`` are the
    layers whose distances, by these factors, make the content term unless a layer is named. The factors of other
    encoders balance content and style as with VGG-19.
    """

    name: str
    layers: tuple[str, ...]
    load: Callable[[Path | None, Progress | None], Build]
    content: Mapping[str, float] = field(default_factory=lambda: dict(CONTENT))


def builtin() -> tuple[EncoderSpec, ...]:
    """The encoders of this package."""
    return (*(_vgg(name) for name in weights.ARCHITECTURES), _mini())


def load(
    name: str,
    layers: Iterable[str],
    specs: Iterable[EncoderSpec],
    file: Path | None = None,
    progress: Progress | None = None,
) -> tuple[EncoderSpec, Build]:
    """The spec of that name, which must have these layers, and what builds its encoder. ``auto`` is vgg19, or mini
    where its weights can't be had, which the log says. Weights that were named, by option or environment, must be
    right.

    Raises:
        SettingsError: no such encoder or layer.
        WeightsError: no usable weights.
    """
    specs, layers = tuple(specs), sorted(layers)
    spec = having(layers, choose("vgg19" if name == "auto" else name, specs))
    try:
        return spec, spec.load(file, progress)
    except WeightsError as error:
        if name != "auto" or file is not None or os.environ.get("STYLIZE_WEIGHTS"):
            raise
        log.warning("painting with the small built-in encoder mini: %s", error)
    spec = having(layers, choose("mini", specs))
    return spec, spec.load(None, progress)


def having(layers: Iterable[str], spec: EncoderSpec) -> EncoderSpec:
    """The spec, which must have these layers.

    Raises:
        SettingsError: it has not.
    """
    for layer in layers:
        if layer not in spec.layers:
            raise SettingsError(f"unknown layer {layer!r}; {spec.name} has {', '.join(spec.layers)}")
    return spec


def _vgg(name: str) -> EncoderSpec:
    widths = weights.ARCHITECTURES[name]

    def load(file: Path | None, progress: Progress | None) -> Build:
        from stylize.encoders.vgg import VGG

        tensors, found = weights.load(name, file, progress=progress)
        log.info("%s weights: %s (%s)", name, found.path, found.origin)

        def build(layers: Iterable[str], place: EncoderConfig) -> Encoder:
            return VGG(tensors, widths, layers, place)

        return build

    return EncoderSpec(name, layer_names(widths), load)


def _mini() -> EncoderSpec:
    def load(file: Path | None, progress: Progress | None) -> Build:
        if file is not None:
            raise SettingsError(f"the encoder mini comes with its weights; {file} cannot be used")
        tensors = mini.read()
        return lambda layers, place: mini.encoder(tensors, layers, place)

    return EncoderSpec("mini", mini.LAYERS, load, mini.CONTENT)


def layer_names(widths: Iterable[int | None]) -> tuple[str, ...]:
    """Names of a VGG's activations, shallow to deep (relu1_1, relu1_2, relu2_1, ...); a None width is a pooling."""
    names, block, number = [], 1, 0
    for width in widths:
        if width is None:
            block, number = block + 1, 0
        else:
            number += 1
            names.append(f"relu{block}_{number}")
    return tuple(names)


def shallow(layers: Mapping[str, float]) -> dict[str, float]:
    """Those of the first three blocks, by their names, and any whose name tells no block."""
    return {layer: value for layer, value in layers.items() if layer[:4] != "relu" or layer[4:5] < "4"}


def choose(name: str, specs: Iterable[EncoderSpec]) -> EncoderSpec:
    """The spec of that name.

    Raises:
        SettingsError: there is none; the message lists those there are.
    """
    known = {spec.name: spec for spec in specs}
    if name not in known:
        raise SettingsError(f"unknown encoder {name!r}; known: auto, {', '.join(known)}")
    return known[name]


__all__ = [
    "Build",
    "Encoder",
    "EncoderConfig",
    "EncoderSpec",
    "Progress",
    "builtin",
    "choose",
    "having",
    "layer_names",
    "load",
    "shallow",
]
