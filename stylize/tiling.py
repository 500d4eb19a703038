"""The same loss and gradient in bounded memory.

The terms depend on the features through sums over positions. A first pass, tile by tile and without gradients, adds
these sums up; the terms and their gradients with respect to the sums are computed from small matrices; a second pass
brings these gradients back to the pixels, each tile for the positions it owns. Tiles are seen with a margin as wide as
a feature can see, so that what they own is what it is in the whole picture, up to the order of summation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor

from stylize.errors import OptimizationError, SettingsError
from stylize.gradients import crop
from stylize.losses import Features, Sums, Term
from stylize.optimizer import MOVING

if TYPE_CHECKING:
    from stylize.encoders import Encoder

MARGIN = 0.15  # of the free memory, left to others
FIXED = 512 * 2**20  # bytes: what libraries take, and what allocators hold back
SMALLEST = 128  # px: tiles smaller than that are mostly margin
GOOD = 512  # px: tiles from which on the margin costs less than keeping fewer pairs would
PIXEL = 12  # bytes of a pixel, three channels in float32
THERE_TWICE = 1.5  # what two ways there and one back cost over one of each


class Tileable(Protocol):
    """What an encoder tells of itself so that pictures can be painted in tiles; see
    :class:`~stylize.encoders.Encoder`."""

    @property
    def strides(self) -> Mapping[str, int]: ...

    @property
    def reach(self) -> int: ...

    @property
    def footprint(self) -> float: ...

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
    grid = max(encoder.strides.values(), default=1)
    halo = _halo(encoder)
    begin = getattr(encoder, "grid", grid)

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


def _halo(encoder: Tileable) -> int:
    """How many px around what it owns a tile is seen with at least: as far as a feature sees, in whole positions."""
    grid = max(encoder.strides.values(), default=1)
    return -(-encoder.reach // grid) * grid


def evaluate(image: Tensor, terms: Sequence[Term], encoder: Tileable, side: int) -> tuple[Tensor, Tensor]:
    """The values of the terms, with their total first (1 + terms,), and the gradient (1, C, H, W), tile by tile.

    Args:
        image: (1, C, H, W), C = 1 seen as grey.
        terms: those without ``sums`` must do without layers, too: they are given the whole picture.
        encoder: of at least the terms' layers.
        side: about how many px a tile has on each side.

    Raises:
        SettingsError: a term with layers knows no sums.
    """
    for term in terms:
        if term.sums is None and term.layers:
            layers = ", ".join(term.layers)
            raise SettingsError(
                f"the term {term.name} sees {layers} of the whole picture, which does not fit the memory; "
                "use a smaller --size, or more --memory"
            )
    parted = [(index, term.sums) for index, term in enumerate(terms) if term.sums is not None]
    image = image.detach()
    plan = tiles(image.shape[2], image.shape[3], side, encoder)
    added = _added(image, parted, encoder, plan)
    values = image.new_zeros(len(terms))
    pulls: list[list[Tensor]] = []
    for (index, sums), parts in zip(parted, added, strict=True):
        leaves = [part.requires_grad_() for part in parts]
        value = terms[index].weighed(sums.total(leaves))
        values[index] = value.detach()
        constant = [torch.zeros_like(leaf) for leaf in leaves]
        pulls.append(
            list(torch.autograd.grad(value, leaves, materialize_grads=True)) if value.requires_grad else constant
        )
    gradient = torch.zeros_like(image)
    for tile in plan if parted else ():
        seen = image[(..., *tile.seen)].clone().requires_grad_()
        rgb = seen.expand(-1, 3, -1, -1)
        found, pixels = tile.own(encoder(rgb)), tile.cut(rgb)
        outer = [
            (part * pull).sum()
            for (_, sums), pulled in zip(parted, pulls, strict=True)
            for part, pull in zip(sums.part(pixels, found, tile), pulled, strict=True)
        ]
        del found, pixels
        gradient[(..., *tile.seen)] += torch.autograd.grad(torch.stack(outer).sum(), seen)[0]
        del outer, seen, rgb
    for index, term in enumerate(terms):
        if term.sums is None:
            whole = image.clone().requires_grad_()
            value = term.weighed(term.function(whole.expand(-1, 3, -1, -1), {}))
            if value.requires_grad:
                gradient += torch.autograd.grad(value, whole)[0]
            values[index] = value.detach()
    return torch.cat([values.sum()[None], values]), gradient


def _added(
    image: Tensor, parted: Sequence[tuple[int, Sums]], encoder: Tileable, plan: Sequence[Tile]
) -> list[list[Tensor]]:
    """The sums of each term over all tiles."""
    added: list[list[Tensor]] = [[] for _ in parted]
    with torch.no_grad():
        for tile in plan if parted else ():
            rgb = image[(..., *tile.seen)].expand(-1, 3, -1, -1)
            found, pixels = tile.own(encoder(rgb)), tile.cut(rgb)
            for number, (_, sums) in enumerate(parted):
                parts = sums.part(pixels, found, tile)
                before = added[number] or [torch.zeros_like(part) for part in parts]
                added[number] = [one + other for one, other in zip(before, parts, strict=True)]
    return added


# --- the plan --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How a scale is painted: in tiles of ``side`` px, 0 being the picture as a whole, with ``history`` pairs of the
    optimizer, ``compact`` in bfloat16; ``peak`` is what that takes at most, in bytes; ``passed`` how many px go through
    the network in a step, there and back."""

    height: int
    width: int
    side: int
    count: int
    halo: int
    history: int
    compact: bool
    peak: int
    passed: float = 0.0

    @cached_property
    def said(self) -> str:
        pairs = f", {self.history} pairs of history{' in bfloat16' if self.compact else ''}" if self.history else ""
        parts = f"{self.count} tiles of {self.side} px with {self.halo} px around them, in two passes"
        return f"{self.width}x{self.height} in {parts}{pairs}; at most about {self.peak / 2**30:.2g} GiB"


def plan(
    height: int,
    width: int,
    encoder: Encoder,
    budget: float,
    history: int,
    kept: float,
    *,
    seen: float = 0.0,
    moving: int = MOVING,
    channels: int = 3,
) -> Plan:
    """The cheapest way to paint at (height, width) within ``budget`` bytes: as a whole, else in the largest tiles, with
    as many pairs of history as leave room for good ones.

    Args:
        encoder: one that is not :class:`Tileable` is given the picture as a whole, whatever that takes.
        history: pairs wanted; 0 for an optimizer that keeps two pictures instead.
        kept: bytes that are there all the time, besides the optimizer's.
        seen: bytes for each pixel that the terms take of what is seen at once, besides the encoder's.
        moving: pictures that the optimizer works on at once.
        channels: of what is painted.

    Raises:
        OptimizationError: the budget is too small for any.
    """
    area = height * width
    parted = tileable(encoder, height, width)
    footprint = parted.footprint + seen if parted else 0.0
    fixed = FIXED + (getattr(parted, "fixed", 0) if parted else 0)
    pixel = PIXEL * channels / 3
    shorter = [(pairs, True) for pairs in dict.fromkeys((history, 10, 5, 3)) if pairs <= history]
    least = 0
    for minimum in (GOOD, SMALLEST):
        for pairs, compact in [(history, False), *shorter] if history else [(0, False)]:
            pictures = 2 * pairs * (0.5 if compact else 1) if history else 2
            rest = fixed + kept + area * pixel * (pictures + moving)
            whole = rest + area * footprint
            if not parted or whole <= budget:
                return Plan(height, width, 0, 1, 0, pairs, compact, round(whole), area)
            grid = max(parted.strides.values(), default=1)
            halo, more = _halo(parted), getattr(parted, "grid", grid) - grid
            side = int((max(0.0, budget - rest) / footprint) ** 0.5 - 2 * halo - more) // grid * grid
            least = round(rest + footprint * (SMALLEST + 2 * halo + more) ** 2)
            if side >= minimum:
                made = tiles(height, width, side, parted)
                areas = [
                    (tile.seen_rows[1] - tile.seen_rows[0]) * (tile.seen_columns[1] - tile.seen_columns[0])
                    for tile in made
                ]
                peak, passed = round(rest + footprint * max(areas)), sum(areas) * THERE_TWICE
                return Plan(height, width, side, len(made), halo, pairs, compact, peak, passed)
    raise OptimizationError(
        f"{width}x{height} takes at least {least / 2**30:.3g} GiB of memory, and {budget / 2**30:.3g} GiB are to be "
        "used; use a smaller --size, or more --memory"
    )


def tileable(encoder: Encoder, height: int, width: int) -> Tileable | None:
    """The encoder, if it tells enough of itself to see a picture of that size in tiles; none does where the deepest
    layer has no position of its own to each side."""
    if not all(hasattr(encoder, name) for name in ("strides", "reach", "footprint")):
        return None
    parted = cast(Tileable, encoder)
    return parted if min(height, width) >= max(parted.strides.values(), default=1) else None


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be used on a device without taking them from others; None where that cannot be told."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int((torch.cuda.mem_get_info(device)[0] + unused) * (1 - MARGIN))
    if device.type != "cpu":
        return None
    limits = [_available(), _allowed()]
    known = [limit for limit in limits if limit is not None]
    return int(min(known) * (1 - MARGIN)) if known else None


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _allowed() -> int | None:
    """What a container leaves, by cgroup v2."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit == "max":
            return None
        files = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - int(used) + int(files["inactive_file"]))  # which it gives back when asked
    except (OSError, ValueError, KeyError):
        return None
