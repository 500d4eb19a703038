"""Which scales a picture is painted at, and how many steps at each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stylize.cost import Work
from stylize.settings import Settings

STROKES = 256  # px: longest side of a picture with strokes of width 1
CLOSE = math.sqrt(2)  # scales are further apart than that
DETAIL = 0.75  # share of the photo's detail at twice that size; at four times its square, and so on
SMALL = 128  # px: longest side below which deep layers see most of a picture at once
OVERHEAD = 64**2  # px: what a step with VGG-19 takes however small its picture is, as the time of so many more pixels
FINE_COST = 0.4  # of a step of a fine scale, which sees the shallow layers alone, over one of another


@dataclass(frozen=True)
class Scale:
    """One level of the pyramid; sizes in px.

    A :attr:`fine` scale is larger than the one at which strokes are painted. It keeps the picture of the scale before
    and adds what a larger picture has room for: texture, and of the photo's detail the share ``detail``.

    At a ``symmetric`` scale the deep layers see most of the picture at once, and with their statistics the painting's
    layout would be copied. The style counts there as it is, mirrored, upside down and turned, all alike.
    """

    height: int
    width: int
    steps: int
    detail: float = 1.0
    symmetric: bool = False

    @property
    def fine(self) -> bool:
        return self.detail < 1

    @property
    def longest(self) -> int:
        return max(self.height, self.width)


@dataclass(frozen=True)
class Schedule:
    """What the painting of a picture consists of.

    ``scales`` are coarse to fine, the last being the size of the result; ``memory`` is what it takes at most, in bytes;
    None: not known. ``work`` tells of each scale what it takes beside the others; default: as with VGG-19.
    """

    scales: tuple[Scale, ...]
    memory: int | None = None
    work: tuple[Work, ...] = ()

    @property
    def steps(self) -> int:
        """The gradient steps of all scales, at most."""
        return sum(scale.steps for scale in self.scales)

    def fraction(self, scale: int, number: int) -> float:
        """How much of the work is done, in [0, 1], after step ``number`` of a scale, both counted from 1."""
        works = self.work or tuple(
            Work(0.0, each.height * each.width * (FINE_COST if each.fine else 1.0) + OVERHEAD) for each in self.scales
        )
        whole = [each.of(scale.steps) for each, scale in zip(works, self.scales, strict=True)]
        return (sum(whole[: scale - 1]) + works[scale - 1].of(number)) / sum(whole)


def pyramid(height: int, width: int, settings: Settings) -> tuple[Scale, ...]:
    """Scales coarse to fine, the last being (height, width).

    Without ``settings.scales``, longest sides are :data:`STROKES` px over ``settings.brush``, times powers of 2, from
    ``settings.min_size`` on. They do not depend on the size of the result, so that a larger result begins with the
    very steps of a smaller one. With ``settings.scales`` there are so many, each half the next. Sides are rounded to
    whole pixels and never below 1. ``settings.steps`` are given out coarse to fine, the last repeating.
    """
    longest, strokes = max(height, width), STROKES / settings.brush
    if settings.scales is not None:
        sides = [longest / 2**halvings for halvings in reversed(range(settings.scales))]
    else:
        first = math.ceil(math.log2(settings.min_size / strokes) - 1e-9)
        last = math.floor(math.log2(longest / CLOSE / strokes) + 1e-9)
        sides = [*(strokes * 2.0**power for power in range(first, last + 1)), longest]
    scales = []
    for index, side in enumerate(sides):
        steps = settings.steps[min(index, len(settings.steps) - 1)]
        rows, columns = (max(1, round(length * side / longest)) for length in (height, width))
        fine = index > 0 and side > strokes * CLOSE
        detail = DETAIL ** math.log2(side / strokes) if fine else 1.0
        scales.append(Scale(rows, columns, steps, detail, symmetric=side < SMALL and index < len(sides) - 1))
    return tuple(scales)


def equivalent_steps(scales: tuple[Scale, ...]) -> float:
    """The gradient steps of all scales together, counted in steps of the finest by area."""
    area = scales[-1].height * scales[-1].width
    return sum(scale.steps * scale.height * scale.width for scale in scales) / area
