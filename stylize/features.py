"""The encoder of a run on its device: the service that the terms are measured with."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylize import memory
from stylize.cost import Work, work
from stylize.devices import computed_with, free_memory, resolve_device, resolve_dtype
from stylize.encoders import EncoderConfig, EncoderSpec, Progress, builtin, having, load
from stylize.errors import SettingsError
from stylize.memory import Plan
from stylize.optimizer import MOVING
from stylize.tiles import SMALLEST, Features, TileWindow, Whole, tileable, tiles

if TYPE_CHECKING:
    from stylize.encoders import Encoder
    from stylize.settings import Settings

COLORS = 12  # bytes for each pixel of a picture that is painted as grey: its colours
PROBE = 64  # px: a picture to see how large features are


class Engine:
    """Encoder and device of one run.

    Args:
        settings: the run's settings.
        layers: the encoder layers that are asked for in any case; terms may ask for more.
        encoders: specs to choose ``settings.encoder`` from; default: the built-in ones.
        weights: a weights file, instead of the usual search.
        progress: called with (bytes done, bytes in all or None) while weights are downloaded.

    Attributes:
        content: the layers of the content term, with factors.
        encoder: the encoder of all layers of content and style.

    Raises:
        SettingsError: unknown encoder or layer.
        DeviceError: the device is not there.
        WeightsError: no usable weights.
    """

    def __init__(
        self,
        settings: Settings,
        layers: Iterable[str],
        *,
        encoders: Iterable[EncoderSpec] | None = None,
        weights: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.settings = settings
        self.device = resolve_device(settings.device)
        dtype = resolve_dtype(settings.precision, self.device)
        specs, wanted = builtin() if encoders is None else encoders, frozenset(layers)
        named = settings.content_layer != "auto"
        content: Mapping[str, float] = {settings.content_layer: 1.0} if named and settings.content_weight else {}
        file = None if weights is None else Path(weights)
        self.spec, self._build = load(settings.encoder, wanted.union(content), specs, file, progress)
        if settings.content_weight and not named:
            content = having(self.spec.content, self.spec).content
        self.content = content
        self._place = EncoderConfig(self.device, dtype, settings.pooling, rescale=settings.normalize != "paper")
        self._building = threading.Lock()  # threads may paint with one engine
        self._made: dict[frozenset[str], Encoder] = {}
        self._bytes: dict[frozenset[str], float] = {}
        self.encoder: Encoder = self.encoder_of(wanted.union(content))
        self.largest_tile = sys.maxsize  # px: the largest side that has fitted the memory, once one did not

    def computed_with(self) -> dict[str, Any]:
        """The device and what else decides how it rounds, as records have it."""
        return computed_with(self.device, self._place.dtype)

    def encoder_of(self, layers: Iterable[str]) -> Encoder:
        """The encoder of these layers, which ends at the deepest of them."""
        wanted = frozenset(layers)
        with self._building:
            if wanted not in self._made:
                self._made[wanted] = self._build(wanted, self._place)
            return self._made[wanted]

    def encode(self, image: Tensor, layers: Iterable[str] | None = None) -> Features:
        """Features of a picture (1, 3, H, W) on any device, without gradients; by default those of :attr:`encoder`."""
        with torch.no_grad():
            return self.encoder_of(self.encoder.layers if layers is None else layers)(image.to(self.device))

    def placed(self, image: Tensor) -> Tensor:
        """The image on the device, where it is resized faster, if it takes little of the memory; else as it is."""
        small = image.nbytes <= self._budget() / 32
        return image.to(self.device) if self.device.type == "cuda" and small else image

    def parts(self, image: Tensor, layers: Iterable[str] | None = None) -> Iterator[tuple[TileWindow, Features]]:
        """The features of a picture (1, 3, H, W), without gradients, in as many parts as the memory asks for."""
        layers = self.encoder.layers if layers is None else frozenset(layers)
        encoder, area = tileable(self.encoder_of(layers), *image.shape[2:]), image.shape[2] * image.shape[3]
        room = max(0.0, self._budget() - self._loaded - memory.FIXED)
        if encoder is None or area * encoder.bytes_per_pixel <= room / 2:
            yield Whole(), self.encode(image, layers)
            return
        side = max(SMALLEST, int((room / 4 / encoder.bytes_per_pixel) ** 0.5) - 2 * encoder.receptive_field_radius)
        for tile in tiles(image.shape[2], image.shape[3], side, encoder):
            yield tile, tile.own(self.encode(image[(..., *tile.seen)], layers))

    def maps(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """The features of a picture (1, 3, H, W), without gradients, seen in as many parts as the memory asks for."""
        found = dict[str, Tensor]()
        layers = tuple(layers)
        having(layers, self.spec)
        for region, features in self.parts(image, layers):
            for layer in layers:
                own, size = features[layer], region.map_size(layer, features)
                if own.shape[2:] == size:
                    found[layer] = own
                    continue
                if layer not in found:
                    empty = own.new_empty(1, own.shape[1], *size)
                    found[layer] = empty.contiguous(memory_format=torch.channels_last)
                found[layer][(..., *region.at(layer))] = own
        return found

    @property
    def _loaded(self) -> int:
        """Bytes of those that may be used that the process has taken before: what is free has them no more."""
        return memory.LOADED if self.settings.memory_bytes is not None and self.device.type == "cpu" else 0

    def _budget(self) -> float:
        """Bytes that may be used."""
        if self.settings.memory_bytes is not None:
            return self.settings.memory_bytes
        free = free_memory(self.device)
        return math.inf if free is None else free

    def plan(
        self,
        height: int,
        width: int,
        channels: int = 3,
        *,
        encoder: Encoder | None = None,
        steps: int | None = None,
        source_bytes: int | None = None,
    ) -> Plan:
        """How a picture of that size is painted within the memory.

        Args:
            encoder: the one it is seen with; default: :attr:`encoder`.
            steps: how many; a single one needs less.
            source_bytes: bytes of the pictures it is painted from; default: one of that size.

        Raises:
            OptimizationError: it cannot be.
        """
        area, encoder = height * width, encoder or self.encoder
        history = self.settings.history if self.settings.optimizer == "lbfgs" else 0
        sources = area * memory.PIXEL if source_bytes is None else source_bytes
        content = self._content_bytes(frozenset(self.content) & encoder.layers)
        resident = sources + area * (content + (COLORS if channels == 1 else 0))
        return memory.plan(
            height,
            width,
            encoder,
            self._budget(),
            history,
            resident,
            content_bytes_per_pixel=content,  # how far from the content's they are
            live_images=MOVING - (steps == 1),  # there is no last gradient
            channels=channels,
            loaded=self._loaded,
        )

    def has_plenty_for(self, plan: Plan) -> bool:
        """Whether a plan takes less than half of the memory, on the CPU and in one piece."""
        return self.device.type == "cpu" and not plan.side and plan.peak < self._budget() / 2

    def work(self, pixels: float, encoder: Encoder) -> Work:
        """What a scale takes beside others whose steps take so many pixels through this encoder."""
        style = [layer for layer, weight in self.settings.style_layers.items() if weight]
        place, threads = self._place, torch.get_num_threads()
        return work(encoder, pixels, style, device=place.device, dtype=place.dtype, threads=threads)

    def _content_bytes(self, layers: frozenset[str]) -> float:
        """What the features of the content take for each pixel."""
        if layers not in self._bytes:
            found = self.encode(torch.zeros(1, 3, PROBE, PROBE, dtype=torch.float32), layers) if layers else {}
            self._bytes[layers] = sum(found[layer].numel() * found[layer].element_size() for layer in layers) / PROBE**2
        return self._bytes[layers]

    def encoder_for(self, terms: Mapping[str, Iterable[str]]) -> Encoder:
        """The encoder of the layers that each term needs, by the term's name.

        Raises:
            SettingsError: there is none with all of them.
        """
        for term, needed in terms.items():
            if unknown := set(needed) - set(self.spec.layers):
                names, known = ", ".join(sorted(unknown)), ", ".join(self.spec.layers)
                raise SettingsError(f"term {term} needs {names}; {self.spec.name} has {known}")
        return self.encoder_of(frozenset[str]().union(*terms.values()))
