"""When the frames of a clip, or of a part of it, are shown: told by the ffmpeg that decoded them."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from stylize import SettingsError

SHORTEST = Fraction(1, 1000)  # s: the shortest frame that every container keeps

_CLOCK = re.compile(rb"showinfo[^\]]*\] \[info\] config in time_base: (\d+)/(\d+)")
_SHOWN = re.compile(rb"showinfo[^\]]*\] \[info\] n: *\d+ pts: *(-?\d+|NOPTS) .*? s:(\d+)x(\d+) ")


@dataclass(frozen=True)
class Timing:
    """When frames are shown.

    ``times`` are in seconds from the beginning of the file, ascending; ``end`` is when the last of them ends. ``rate``
    is in frames per second, on average unless ``steady``.
    """

    times: tuple[Fraction, ...]
    end: Fraction
    rate: Fraction
    steady: bool

    @property
    def begin(self) -> Fraction:
        return self.times[0]

    def moments(self, count: int | None = None) -> list[Fraction]:
        """When each of the first ``count`` frames is shown, in seconds from the beginning of the file, and when the
        last of them ends. At a steady rate they are free of what the clock of the file rounds."""
        count = len(self.times) if count is None else count
        if self.steady:
            return [self.begin + number / self.rate for number in range(count + 1)]
        return [*self.times, self.end][: count + 1]

    def durations(self, count: int | None = None) -> list[Fraction] | None:
        """How long each of the first ``count`` frames is shown; None at a steady rate."""
        return None if self.steady else [end - begin for begin, end in itertools.pairwise(self.moments(count))]

    def to_json(self) -> dict[str, Any]:
        return {
            "times": [str(time) for time in self.times],
            "end": str(self.end),
            "rate": str(self.rate),
            "steady": self.steady,
        }

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Timing:
        """What :meth:`to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        times = tuple(Fraction(time) for time in found["times"])
        if not times:
            raise ValueError("no times")
        return Timing(times, Fraction(found["end"]), Fraction(found["rate"]), bool(found["steady"]))


def timing(
    times: Sequence[Fraction], tick: Fraction, rates: Sequence[Fraction | None], ends: Sequence[Fraction] = ()
) -> Timing:
    """The timing of frames that were decoded.

    Args:
        times: at least one, in seconds; where they do not ascend, frames follow one another at once.
        tick: of the clock of the file, in seconds.
        rates: those that the file claims.
        ends: moments at which the last frame may end, ascending: the first of them after it counts.
    """
    ascending = list(itertools.accumulate(times, lambda last, time: max(time, last + SHORTEST)))
    rate, steady = frame_rate([time - ascending[0] for time in ascending], tick, rates)
    after = bisect_right(ends, ascending[-1] + tick)
    end = ends[after] if after < len(ends) else ascending[-1] + 1 / rate
    if steady:
        end = ascending[0] + len(ascending) / rate
    return Timing(tuple(ascending), end, rate, steady)


def frame_rate(
    times: Sequence[Fraction], tick: Fraction, candidates: Sequence[Fraction | None]
) -> tuple[Fraction, bool]:
    """The frame rate, and whether it is constant, as exactly as the clock of the file can tell.

    Args:
        times: of the frames, from 0, in seconds.
        tick: of the file's clock, in seconds.
        candidates: rates the file claims, None where unknown.
    """
    rates = [Fraction(rate) for rate in candidates if rate and 0 < rate <= 1000]
    if len(times) < 2 or times[-1] <= 0:
        return (rates or [Fraction(25)])[0], True
    mean = Fraction(len(times) - 1) / times[-1]
    near = [Fraction(n) for n in range(1, 241)] + [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]
    for rate in [*rates, min(near, key=lambda rate: abs(rate - mean)), mean.limit_denominator(1001)]:
        slack = min(tick * Fraction(101, 100), 1 / (4 * rate))
        if all(abs(time - index / rate) <= slack for index, time in enumerate(times)):
            return rate, True
    return mean.limit_denominator(100_000), False


def told(messages: Iterable[bytes], offset: Fraction) -> Iterator[tuple[Fraction | None, tuple[int, int]]]:
    """(time, (width, height)) of each frame that the filter showinfo has told of; None where it has no time.

    Args:
        messages: lines of ffmpeg's messages.
        offset: what to add to the times, in seconds.
    """
    tick = Fraction(1)
    for line in messages:
        if found := _CLOCK.search(line):
            tick = Fraction(int(found[1]), int(found[2]))
        elif found := _SHOWN.search(line):
            time = None if found[1] == b"NOPTS" else int(found[1]) * tick + offset
            yield time, (int(found[2]), int(found[3]))


def seconds(text: str | None, option: str) -> Fraction | None:
    """00:01:20.5, 1:20 or 80.5 as seconds.

    Raises:
        SettingsError: it is none of these.
    """
    if text is None:
        return None
    try:
        parts = [Fraction(part) for part in text.split(":")]
    except (ValueError, ZeroDivisionError):
        parts = []
    if not 1 <= len(parts) <= 3 or any(part < 0 for part in parts):
        more = ", or a shot such as shot:3" if option == "--style-at" else ""
        raise SettingsError(f"{option} is {text!r}; it must be a time such as 00:01:20.5 or 80.5{more}")
    return sum((part * 60**power for power, part in enumerate(reversed(parts))), Fraction(0))
