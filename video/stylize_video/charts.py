"""Line charts over the frames of a clip, as pieces of HTML around an inline SVG. Colours are the page's.

The SVG is stretched to the available size, so it holds no text: labels are placed beside it. Curves longer than
:data:`BINS` frames are drawn as mean and range of as many bins.
"""

from __future__ import annotations

import bisect
import html
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BINS = 240
WIDTH, HEIGHT = 1000, 100  # of the SVG's own units
LOG = 8  # the scale is logarithmic where the largest value exceeds the median by this factor
DECADES = 4  # of a logarithmic scale, at most


@dataclass(frozen=True)
class Bin:
    """The frames ``begin`` to ``end`` - 1, by their place, drawn between ``left`` and ``right``, in [0, 1].

    ``label`` says which they are; ``cut`` whether one of them begins a shot.
    """

    begin: int
    end: int
    left: float
    right: float
    label: str
    cut: bool


@dataclass(frozen=True)
class Timeline:
    """The time axis that all charts of a clip share: the bins, and the labels below, at positions in [0, 1]."""

    bins: Sequence[Bin]
    marks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Axis:
    """From ``low``, at 0, to ``high``, at 1."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log10(max(each, self.low)) for each in (value, low, high))
        return min(1.0, max(0.0, (value - low) / (high - low)))


@dataclass(frozen=True)
class Curve:
    """One value per frame, None where there is none; ``kind`` is the class it is drawn as."""

    kind: str
    values: Sequence[float | None]


# --- axes ------------------------------------------------------------------------------------------------------------


def timeline(numbers: Sequence[int], times: Sequence[float], shots: Sequence[int]) -> Timeline:
    """The time axis of the frames; they are spaced evenly where their ``times``, in s, do not increase."""
    count = len(times)
    rising = all(map(math.isfinite, times)) and all(one < two for one, two in itertools.pairwise(times))
    moments = [*times] if rising else [float(place) for place in range(count)]
    moments.append(moments[-1] + (moments[-1] - moments[0]) / (count - 1) if count > 1 else moments[0] + 1)
    length = moments[-1] - moments[0]
    edges = [(moment - moments[0]) / length for moment in moments]
    cuts = [place for place in range(1, count) if shots[place] != shots[place - 1]]
    bins = []
    many = min(count, BINS)
    for index in range(many):
        begin, end = index * count // many, (index + 1) * count // many
        inside = cuts[bisect.bisect_left(cuts, begin) : bisect.bisect_left(cuts, end)]
        label = f"frame {numbers[begin]}" if end == begin + 1 else f"frames {numbers[begin]} to {numbers[end - 1]}"
        label += f", {clock(times[begin])}"
        if inside:
            label += f", shot {shots[inside[0]]} begins"
        bins.append(Bin(begin, end, edges[begin], edges[end], label, bool(inside)))
    return Timeline(bins, _marks(moments[0], length) if rising else [])


def _marks(begin: float, length: float) -> list[tuple[float, str]]:
    steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30]
    steps += [60 * minutes for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)]
    step = next((step for step in steps if length / step <= 5), length / 5)
    digits = 0 if step >= 1 else 1 if step >= 0.1 else 2
    first, last = math.ceil(begin / step - 1e-6), math.floor((begin + length) / step - 0.25)
    return [((mark * step - begin) / length, clock(mark * step, digits)) for mark in range(first, last + 1)]


def axis(values: Sequence[float], *, zero: bool) -> Axis:
    """An axis for ``values``. With ``zero`` it begins at 0, or is logarithmic where a few values would dwarf the rest.

    Otherwise it spans at least a fifth of the largest value, so that noise is not exaggerated.
    """
    least, most = min(values), max(values)
    positive = [value for value in values if value > 0]
    if zero and positive and most > LOG * statistics.median(positive):
        return _log_axis(min(positive), most, zero=least <= 0)
    if zero:
        least = min(0.0, least)
    elif most - least < 0.2 * abs(most):
        middle, half = (least + most) / 2, 0.1 * abs(most)
        least, most = middle - half, middle + half
    if most <= least:
        most = least + 1
    step = _step((most - least) / 4)
    low, high = math.floor(least / step + 1e-6), math.ceil(most / step - 1e-6)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [(mark * step, f"{mark * step:.{digits}f}") for mark in range(low, high + 1)]
    return Axis(low * step, high * step, ticks)


def _log_axis(least: float, most: float, *, zero: bool) -> Axis:
    """A logarithmic axis; with ``zero`` it has a place for 0 below its lowest value."""
    bottom, top = math.floor(math.log10(max(least, most / 10**DECADES)) + 1e-9), math.ceil(math.log10(most) - 1e-9)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        marks = [factor * 10.0**power for power in range(bottom, top) for factor in factors] + [10.0**top]
        low = max(mark for mark in marks if mark <= max(least, marks[0]) * (1 + 1e-9))
        high = min(mark for mark in marks if mark >= most * (1 - 1e-9))
        ticks = [(mark, number(mark)) for mark in marks if low <= mark <= high]
        if len(ticks) <= 6:
            break
    if zero:
        low = low**2 / ticks[1][0]
        ticks = [(low, "0"), *ticks]
    return Axis(low, high, ticks, log=True)


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


# --- drawing ---------------------------------------------------------------------------------------------------------


def plot(line: Timeline, curves: Sequence[Curve], scale: Axis, said: str) -> Iterator[str]:
    """The chart as HTML, the last curve on top; ``said`` describes it in words."""
    yield '<div class="plot">\n<div class="y" aria-hidden="true">'
    yield from (f'<span style="bottom:{100 * scale.at(value):.1f}%">{text}</span>' for value, text in scale.ticks)
    yield f'</div>\n<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img"'
    yield f' aria-label="{html.escape(said)}">\n'
    yield f'<path class="rules" d="{"".join(f"M0 {_y(scale.at(value))}H{WIDTH}" for value, _ in scale.ticks)}"/>\n'
    cuts = "".join(f"M{_x(each.left)} 0V{HEIGHT}" for each in line.bins if each.cut)
    if cuts:
        yield f'<path class="cuts" d="{cuts}"/>\n'
    for curve in curves:
        yield from _drawn(line, curve, scale)
    yield "<g>\n"
    for each in line.bins:
        words = [each.label, *filter(None, (_read(curve, each) for curve in curves[::-1]))]
        width = _x(each.right - each.left)
        yield f'<rect x="{_x(each.left)}" width="{width}" height="{HEIGHT}"><title>{"; ".join(words)}</title></rect>\n'
    yield '</g>\n</svg>\n<div class="x" aria-hidden="true">'
    yield from (f'<span style="left:{100 * place:.1f}%">{text}</span>' for place, text in line.marks)
    yield "</div>\n</div>\n"


def _drawn(line: Timeline, curve: Curve, scale: Axis) -> Iterator[str]:
    """The range as an area, where bins hold several frames, and the mean as a line, with gaps for missing values."""
    found = [(each, binned(curve.values, each)) for each in line.bins]
    middle, areas = "", ""
    for there, group in itertools.groupby(found, key=lambda pair: pair[1] is not None):
        run = [
            (_x((each.left + each.right) / 2), *(_y(scale.at(value)) for value in values or ()))
            for each, values in group
        ]
        if not there:
            continue
        middle += "M" + "L".join(f"{x} {mean}" for x, _, mean, _ in run) + ("h0" if len(run) == 1 else "")
        outline = [(x, most) for x, _, _, most in run] + [(x, least) for x, least, _, _ in run[::-1]]
        areas += "M" + "L".join(f"{x} {y}" for x, y in outline) + "Z"
    if any(each.end > each.begin + 1 for each in line.bins):
        yield f'<path class="range {curve.kind}" d="{areas}"/>\n'
    yield f'<path class="line {curve.kind}" d="{middle}"/>\n'


def binned(values: Sequence[float | None], part: Bin) -> tuple[float, float, float] | None:
    """The least, the mean and the largest of the values in a bin; None where there are none."""
    known = [value for value in values[part.begin : part.end] if value is not None]
    return (min(known), statistics.fmean(known), max(known)) if known else None


def _read(curve: Curve, part: Bin) -> str:
    found = binned(curve.values, part)
    if found is None:
        return ""
    least, mean, most = map(number, found)
    return f"{curve.kind} {mean}" + (f" ({least} to {most})" if least != most else "")


def _x(part: float) -> str:
    return f"{part * WIDTH:.1f}"


def _y(part: float) -> str:
    return f"{(1 - part) * HEIGHT:.1f}"


# --- numbers ---------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three significant digits, at most six decimals, never in exponent notation."""
    if value and abs(value) < 1e-6:
        return "under 0.000001"
    text = f"{value:.{decimals(value)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def decimals(value: float) -> int:
    return max(0, min(6, 2 - math.floor(math.log10(abs(value))))) if value else 0


def clock(seconds: float, digits: int = 2) -> str:
    """A time stamp as ``--from`` takes it: 1:20.50, 1:00:03.20."""
    if not math.isfinite(seconds):
        return "?"
    parts = 10**digits
    whole = round(abs(seconds) * parts)
    rest, part = divmod(whole, parts)
    minutes, second = divmod(rest, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return ("-" if seconds < 0 and whole else "") + text + (f".{part:0{digits}}" if digits else "")
