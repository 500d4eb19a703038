"""Tiles: parts of a picture, each with as much around it as the encoder sees.

What a tile owns of a feature map is what it is in the map of the whole picture, up to rounding, as the tile is seen
with a margin as wide as the network's receptive field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from torch import Tensor

from stylize.gradients import crop

if TYPE_CHECKING:
    from stylize.encoders import Encoder

Features = Mapping[str, Tensor]  # (1, C, H, W) by layer

SMALLEST = 128  # px: tiles smaller than that are mostly margin


class TileWindow(Protocol):
    """Where a tile lies: its slices of rows and columns in the whole picture, and in the map of a layer."""

    @property
    def pixels(self) -> tuple[slice, slice]: ...

    def at(self, layer: str) -> tuple[slice, slice]: ...

    def map_size(self, layer: str, features: Features) -> tuple[int, int]: ...


class Tileable(Protocol):
    """What an encoder tells of itself so that pictures can be painted in tiles; see
    :class:`~stylize.encoders.Encoder`."""

    @property
    def strides(self) -> Mapping[str, int]: ...

    @property
    def receptive_field_radius(self) -> int: ...

    @property
    def bytes_per_pixel(self) -> float: ...

    def __call__(self, image: Tensor) -> Features: ...


@dataclass(frozen=True)
class Tile:
    """A part of a picture: the rows and columns it owns, and those it is seen with (first, stop)."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    seen_rows: tuple[int, int]
    seen_columns: tuple[int, int]
    strides: Mapping[str, int]
    size: tuple[int, int]  # of the whole picture

    @property
    def pixels(self) -> tuple[slice, slice]:
        return slice(*self.rows), slice(*self.columns)

    @property
    def seen(self) -> tuple[slice, slice]:
        return slice(*self.seen_rows), slice(*self.seen_columns)

    def at(self, layer: str) -> tuple[slice, slice]:
        """The positions it owns in the map of a layer of the whole picture."""
        stride = self.strides[layer]
        return tuple(slice(a // stride, b // stride) for a, b in (self.rows, self.columns))  # type: ignore[return-value]

    def map_size(self, layer: str, features: Features) -> tuple[int, int]:
        """(height, width) of the map of a layer of the whole picture."""
        stride = self.strides[layer]
        return self.size[0] // stride, self.size[1] // stride

    def own(self, features: Features) -> dict[str, Tensor]:
        """Of the features of what is seen, those it owns."""
        found = {}
        for layer, stride in self.strides.items():
            (top, bottom), (left, right) = (
                ((a - seen) // stride, b // stride - seen // stride)
                for (a, b), (seen, _) in ((self.rows, self.seen_rows), (self.columns, self.seen_columns))
            )
            found[layer] = crop(features[layer], slice(top, bottom), slice(left, right))
        return found

    def cut(self, image: Tensor) -> Tensor:
        """Of what is seen, (1, C, h, w), the pixels it owns, and one more to the right and below where there are."""
        (top, bottom), (left, right) = (
            (a - seen, b - seen + 1)
            for (a, b), (seen, _) in ((self.rows, self.seen_rows), (self.columns, self.seen_columns))
        )
        return image[..., top:bottom, left:right]


class Whole:
    """The whole picture as the only tile, for any encoder."""

    pixels = (slice(None), slice(None))

    def at(self, layer: str) -> tuple[slice, slice]:
        return self.pixels

    def map_size(self, layer: str, features: Features) -> tuple[int, int]:
        height, width = features[layer].shape[2:]
        return height, width


def tiles(height: int, width: int, side: int, encoder: Tileable) -> list[Tile]:
    """Tiles of about ``side`` px that cover (height, width), each pixel owned by one; row by row."""
    grid = max(2, *encoder.strides.values())  # terms of pixels may work on pairs of them
    halo = margin_of(encoder)
    begin = getattr(encoder, "alignment", grid)

    def cuts(length: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        count = -(-length // max(side, grid))
        step = -(-length // count // grid) * grid
        owned = [(first, min(first + step, length)) for first in range(0, length, step)]
        if len(owned) > 1 and owned[-1][1] - owned[-1][0] < grid:  # it would own nothing of the deepest layer
            owned[-2:] = [(owned[-2][0], length)]
        return [((a, b), (max(0, a - halo) // begin * begin, min(length, b + halo))) for a, b in owned]

    return [
        Tile(rows, columns, seen_rows, seen_columns, encoder.strides, (height, width))
        for rows, seen_rows in cuts(height)
        for columns, seen_columns in cuts(width)
    ]


def margin_of(encoder: Tileable) -> int:
    """How many px around what it owns a tile is seen with at least: as far as a feature sees, in whole positions."""
    grid = max(encoder.strides.values(), default=1)
    return -(-encoder.receptive_field_radius // grid) * grid


def tileable(encoder: Encoder, height: int, width: int) -> Tileable | None:
    """The encoder, if it tells enough of itself to see a picture of that size in tiles; none does where the deepest
    layer has no position of its own to each side."""
    if not all(hasattr(encoder, name) for name in ("strides", "receptive_field_radius", "bytes_per_pixel")):
        return None
    parted = cast(Tileable, encoder)
    return parted if min(height, width) >= max(parted.strides.values(), default=1) else None
