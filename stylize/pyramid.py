"""Which scales a picture is painted at, and how many steps at each."""

from __future__ import annotations

from dataclasses import dataclass

from stylize.settings import Settings

OVERHEAD = 64**2  # px: what a step takes however small its picture is, as the time of so many more pixels


@dataclass(frozen=True)
class Scale:
    """One level of the pyramid; sizes in px."""

    height: int
    width: int
    steps: int

    @property
    def longest(self) -> int:
        return max(self.height, self.width)


@dataclass(frozen=True)
class Schedule:
    """What the painting of a picture consists of.

    ``scales`` are coarse to fine, the last being the size of the result; ``memory`` is what it takes at most, in bytes;
    None: not known.
    """

    scales: tuple[Scale, ...]
    memory: int | None = None

    @property
    def steps(self) -> int:
        """The gradient steps of all scales, at most."""
        return sum(scale.steps for scale in self.scales)

    def fraction(self, scale: int, number: int) -> float:
        """How much of the work is done, in [0, 1], after step ``number`` of a scale, both counted from 1; a step takes
        a time proportional to its pixels, and some more."""
        work = [(each.height * each.width + OVERHEAD) * each.steps for each in self.scales]
        done = sum(work[: scale - 1]) + work[scale - 1] * number / self.scales[scale - 1].steps
        return done / sum(work)


def pyramid(height: int, width: int, settings: Settings) -> tuple[Scale, ...]:
    """Scales coarse to fine, the last being (height, width), each half the next.

    Without ``settings.scales`` there are as many as keep the coarsest's longest side at or above
    ``settings.min_size``; sides are rounded to whole pixels and never below 1. ``settings.steps`` are given out
    coarse to fine, the last repeating; where there are fewer scales than steps the coarse ones are given out, so
    that a small picture is begun like the small stage of a large one.
    """
    longest = max(height, width)
    count = settings.scales
    if count is None:
        count = 1
        while longest / 2**count >= settings.min_size:
            count += 1
    scales = []
    for index in range(count):
        factor = 2.0 ** (index + 1 - count)
        steps = settings.steps[min(index, len(settings.steps) - 1)]
        scales.append(Scale(max(1, round(height * factor)), max(1, round(width * factor)), steps))
    return tuple(scales)


def equivalent_steps(scales: tuple[Scale, ...]) -> float:
    """The gradient steps of all scales together, counted in steps of the finest by area."""
    area = scales[-1].height * scales[-1].width
    return sum(scale.steps * scale.height * scale.width for scale in scales) / area
