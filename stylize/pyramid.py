"""Which scales a picture is painted at, and how many steps at each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from stylize.cost import Work
from stylize.settings import Settings

STROKES = 256  # px: longest side of a picture with strokes of width 1
CLOSE = math.sqrt(2)  # scales are further apart than that
DETAIL = 0.75  # share of the photo's detail at twice that size; at four times its square, and so on
SMALL = 128  # px: longest side below which deep layers see most of a picture at once
OVERHEAD = 64**2  # px: what a step with VGG-19 takes however small its picture is, as the time of so many more pixels
SHALLOW_COST = 0.4  # of a step that sees the shallow layers alone, over one that sees all
FEWEST = 8  # steps of a scale of which some see the shallow layers alone


@dataclass(frozen=True)
class Scale:
    """One level of the pyramid; sizes in px.

    A :attr:`fine` scale is larger than the one at which strokes are painted. It keeps the picture of the scale before
    and adds what a larger picture has room for: texture, and of the photo's detail the share ``detail``.

    At a ``symmetric`` scale the deep layers see most of the picture at once, and with their statistics the painting's
    layout would be copied. The style counts there as it is, mirrored, upside down and turned, all alike.

    A ``shallow`` scale sees the encoder's first three blocks alone. Others begin with ``early`` of their ``steps`` that
    do: what these find of the curvature serves the costlier ones that see all layers.
    """

    height: int
    width: int
    steps: int
    detail: float = 1.0
    symmetric: bool = False
    shallow: bool = False
    early: int = 0

    @property
    def fine(self) -> bool:
        return self.detail < 1

    @property
    def longest(self) -> int:
        return max(self.height, self.width)

    @property
    def phases(self) -> tuple[Scale, ...]:
        """The early steps and the others, as two scales of the same size; or the scale alone."""
        if not self.early:
            return (self,)
        return replace(self, steps=self.early, shallow=True), replace(self, steps=self.steps - self.early)

    @property
    def goes_on(self) -> bool:
        """Whether it is the second of two phases."""
        return self.early > 0 and not self.shallow

    def alone(self, steps: int) -> Scale:
        """So many steps of the same kind for a picture that is nearly there."""
        return replace(self, steps=steps, shallow=self.fine, early=0)


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
            Work.of_phases([_usual(own) for own in each.phases], each.early) for each in self.scales
        )
        whole = [each.of(scale.steps) for each, scale in zip(works, self.scales, strict=True)]
        return (sum(whole[: scale - 1]) + works[scale - 1].of(number)) / sum(whole)


def _usual(scale: Scale) -> Work:
    return Work(0.0, scale.height * scale.width * (SHALLOW_COST if scale.shallow else 1.0) + OVERHEAD)


def pyramid(height: int, width: int, settings: Settings) -> tuple[Scale, ...]:
    """Scales coarse to fine, the last being (height, width).

    Without ``settings.scales``, longest sides are :data:`STROKES` px over ``settings.brush``, times powers of 2, from
    ``settings.min_size`` on. They do not depend on the size of the result, so that a larger result begins with the
    very steps of a smaller one. With ``settings.scales`` there are so many, each half the next. Sides are rounded to
    whole pixels and never below 1. ``settings.steps`` are given out coarse to fine, the last repeating.

    Of the steps at scales of about 256 px up to the strokes, half see the shallow layers alone, and at the first fine
    scale two thirds: it keeps the picture of the one before, but its large shapes have yet to be those of the style at
    that size. Larger scales see no others.
    """
    longest, strokes = max(height, width), STROKES / settings.brush
    if settings.scales is not None:
        sides = [longest / 2**halvings for halvings in reversed(range(settings.scales))]
    else:
        first = math.ceil(math.log2(settings.min_size / strokes) - 1e-9)
        last = math.floor(math.log2(longest / CLOSE / strokes) + 1e-9)
        sides = [*(strokes * 2.0**power for power in range(first, last + 1)), longest]
    both = settings.content_weight > 0 and settings.style_weight > 0
    whole = both and settings.content_loss == "features"  # self-similarity is of deep layers, too
    scales = list[Scale]()
    for index, side in enumerate(sides):
        steps = settings.steps[min(index, len(settings.steps) - 1)]
        rows, columns = (max(1, round(length * side / longest)) for length in (height, width))
        fine = index > 0 and side > strokes * CLOSE
        detail = DETAIL ** math.log2(side / strokes) if fine else 1.0
        symmetric = side < SMALL and index < len(sides) - 1
        shallow, early = False, 0
        if fine:
            shallow = scales[-1].fine or not both or steps < FEWEST
            early = 0 if shallow else steps * 2 // 3
        elif index and whole and side * CLOSE >= STROKES and steps >= FEWEST:
            early = steps // 2
        scales.append(Scale(rows, columns, steps, detail, symmetric, shallow, early))
    return tuple(scales)


def equivalent_steps(scales: tuple[Scale, ...]) -> float:
    """The gradient steps of all scales together, counted in steps of the finest by area."""
    area = scales[-1].height * scales[-1].width
    return sum(scale.steps * scale.height * scale.width for scale in scales) / area
