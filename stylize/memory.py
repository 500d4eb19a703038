"""What painting at a size takes of memory: as a whole, or in tiles, with how many pairs of the optimizer's history."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from stylize.errors import OptimizationError
from stylize.optimizer import MOVING
from stylize.text import rounded
from stylize.tiles import SMALLEST, margin_of, tileable, tiles

if TYPE_CHECKING:
    from stylize.encoders import Encoder

LOADED = 512 * 2**20  # bytes: what Python and torch take before anything is painted (measured: 507)
FIXED = 384 * 2**20  # bytes: what libraries take while painting, and what allocators hold back (measured: 130 to 380)
SMALL_FIXED = 128 * 2**20  # bytes: of that, what a small picture takes when nearly nothing is left (measured: 35 to 90)
GOOD = 512  # px: from this side on, the margin of tiles costs less than a shorter history would
PIXEL = 12  # bytes of a pixel, three channels in float32
TWO_PASS_COST = 1.5  # (2 forward + 1 backward) / (1 forward + 1 backward)


@dataclass(frozen=True)
class Plan:
    """How a scale is painted: in tiles of ``side`` px, 0 being the picture as a whole, with ``history`` pairs of the
    optimizer, ``compact`` in bfloat16.

    ``peak`` is what that takes at most, in bytes; ``network_pixels`` how many pixels go through the network in a step,
    forward and backward.
    """

    height: int
    width: int
    side: int
    count: int
    halo: int
    history: int
    compact: bool
    peak: int
    network_pixels: float = 0.0

    @cached_property
    def description(self) -> str:
        pairs = f", {self.history} pairs of history{' in bfloat16' if self.compact else ''}" if self.history else ""
        parts = f"{self.count} tiles of {self.side} px with {self.halo} px around them, in two passes"
        return f"{self.width}x{self.height} in {parts}{pairs}; at most about {rounded(self.peak / 2**30, 2)} GiB"


def plan(
    height: int,
    width: int,
    encoder: Encoder,
    budget: float,
    history: int,
    resident_bytes: float,
    *,
    content_bytes_per_pixel: float = 0.0,
    live_images: int = MOVING,
    channels: int = 3,
    loaded: int = 0,
) -> Plan:
    """The cheapest way to paint at (height, width) within ``budget`` bytes: as a whole, else in the largest tiles, with
    as many pairs of history as leave room for good ones.

    Args:
        encoder: one that is not :class:`Tileable` is given the picture as a whole, whatever that takes.
        history: pairs wanted; 0 for an optimizer that keeps two pictures instead.
        resident_bytes: bytes held throughout, besides the optimizer's.
        content_bytes_per_pixel: bytes that the content term takes for each pixel seen at once, besides the encoder's.
        live_images: pictures that the optimizer works on at once.
        channels: of what is painted.
        loaded: bytes that the process had taken before, if the budget is for all of it.

    Raises:
        OptimizationError: the budget is too small for any.
    """
    area = height * width
    parted = tileable(encoder, height, width)
    bytes_per_pixel = parted.bytes_per_pixel + content_bytes_per_pixel if parted else 0.0
    fixed = loaded + FIXED + (getattr(parted, "fixed_bytes", 0) if parted else 0)
    pixel = PIXEL * channels / 3
    shorter = [(pairs, True) for pairs in dict.fromkeys((history, 10, 5, 3)) if pairs <= history]
    least = 0
    for minimum in (GOOD, SMALLEST):
        for pairs, compact in [(history, False), *shorter] if history else [(0, False)]:
            pictures = 2 * pairs * (0.5 if compact else 1) if history else 2
            rest = fixed + resident_bytes + area * pixel * (pictures + live_images)
            whole = rest + area * bytes_per_pixel
            if not parted or whole <= budget:
                return Plan(height, width, 0, 1, 0, pairs, compact, round(whole), area)
            grid = max(parted.strides.values(), default=1)
            halo, more = margin_of(parted), getattr(parted, "alignment", grid) - grid
            side = int((max(0.0, budget - rest) / bytes_per_pixel) ** 0.5 - 2 * halo - more) // grid * grid
            least = round(rest + bytes_per_pixel * (SMALLEST + 2 * halo + more) ** 2)
            if side >= minimum:
                made = tiles(height, width, side, parted)
                areas = [
                    (tile.seen_rows[1] - tile.seen_rows[0]) * (tile.seen_columns[1] - tile.seen_columns[0])
                    for tile in made
                ]
                peak, network_pixels = round(rest + bytes_per_pixel * max(areas)), sum(areas) * TWO_PASS_COST
                return Plan(height, width, side, len(made), halo, pairs, compact, peak, network_pixels)
    if whole - fixed <= SMALL_FIXED:  # what libraries take is in use by now
        small = whole - FIXED + SMALL_FIXED
        if small <= budget:
            return Plan(height, width, 0, 1, 0, pairs, compact, round(small), area)
        least = round(small)
    needed, there = (rounded(each / 2**30, 3) for each in (least, budget))
    raise OptimizationError(
        f"{width}x{height} takes at least {needed} GiB of memory, and {there} GiB are to be used; use a smaller "
        "--size, or more --memory"
    )
