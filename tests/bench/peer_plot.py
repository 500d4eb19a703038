"""Curves as a PNG: a panel each, seconds on a logarithmic axis, a colour for each name, the last point a dot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Curves = Mapping[str, Sequence[tuple[float, float]]]  # by name, (seconds, style)

WIDTH, HEIGHT = 720, 380  # px of a panel
LEFT, TOP, RIGHT, BOTTOM = 64, 44, 24, 48  # px around its axes
FINE = 3  # drawn so many times as large, as Pillow does not smooth lines
COLORS = ("#0b6e99", "#d1495b", "#6a994e", "#8d6a9f")
INK, GRID = "#333333", "#dddddd"


@dataclass(frozen=True)
class Axes:
    """Where numbers lie in a panel; ``seconds`` and ``scores`` are the ends of the axes."""

    top: float
    seconds: tuple[float, float]
    scores: tuple[float, float]

    @classmethod
    def around(cls, top: float, curves: Curves) -> Axes:
        points = [point for curve in curves.values() for point in curve]
        first, last = min(x for x, _ in points), max(x for x, _ in points)
        low, high = min(y for _, y in points), max(y for _, y in points)
        room = 0.06 * (high - low) or 0.01
        return cls(top, (first / 1.1, last * 1.1), (max(0.0, low - room), high + room))

    def __call__(self, seconds: float, score: float) -> tuple[float, float]:
        x = math.log(seconds / self.seconds[0]) / math.log(self.seconds[1] / self.seconds[0])
        y = (self.scores[1] - score) / (self.scores[1] - self.scores[0])
        return (
            FINE * (LEFT + x * (WIDTH - LEFT - RIGHT)),
            FINE * (self.top + TOP + y * (HEIGHT - TOP - BOTTOM)),
        )


def save(path: Path, panels: Mapping[str, Curves]) -> None:
    """Write a PNG of one panel after the other, each under its title."""
    sheet = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE * len(panels)), "white")
    draw = ImageDraw.Draw(sheet)
    names = dict.fromkeys(name for curves in panels.values() for name in curves)
    colors = dict(zip(names, cycle(COLORS), strict=False))
    for number, (title, curves) in enumerate(panels.items()):
        _panel(draw, Axes.around(number * HEIGHT, curves), title, curves, colors)
    sheet.resize((WIDTH, HEIGHT * len(panels)), Image.Resampling.LANCZOS).save(path, "PNG")


def _panel(draw: ImageDraw.ImageDraw, axes: Axes, title: str, curves: Curves, colors: Mapping[str, str]) -> None:
    font, bold = (ImageFont.load_default(size * FINE) for size in (12, 15))
    bottom, left = axes.scores[0], axes.seconds[0]
    for seconds in seconds_ticks(*axes.seconds):
        draw.line([axes(seconds, bottom), axes(seconds, axes.scores[1])], GRID, FINE)
        x, y = axes(seconds, bottom)
        draw.text((x, y + 6 * FINE), f"{seconds:g}", INK, font, anchor="mt")
    for score in score_ticks(*axes.scores):
        draw.line([axes(left, score), axes(axes.seconds[1], score)], GRID, FINE)
        x, y = axes(left, score)
        draw.text((x - 6 * FINE, y), f"{score:g}", INK, font, anchor="rm")
    draw.text((LEFT * FINE, (axes.top + 12) * FINE), f"{title}: style (lower is better)", INK, bold, anchor="lt")
    draw.text(((WIDTH - RIGHT) * FINE, (axes.top + HEIGHT - 8) * FINE), "seconds", INK, font, anchor="rb")
    begin = WIDTH - RIGHT - sum(font.getlength(name) / FINE + 30 for name in curves)
    for name, curve in curves.items():
        color, points = colors[name], [axes(*point) for point in curve]
        draw.line(points, color, 2 * FINE, joint="curve")
        draw.circle(points[-1], 4 * FINE, color)
        y = (axes.top + 19) * FINE
        draw.line([(begin * FINE, y), ((begin + 16) * FINE, y)], color, 3 * FINE)
        draw.text(((begin + 20) * FINE, y), name, INK, font, anchor="lm")
        begin += font.getlength(name) / FINE + 30


def seconds_ticks(first: float, last: float) -> list[float]:
    """1, 2, 5, 10, ... between the ends."""
    powers = range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return [tick for tick in ticks if first <= tick <= last]


def score_ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers between the ends."""
    power = 10.0 ** math.floor(math.log10(high - low))
    step = next(step for step in (power / 5, power / 2, power, power * 2) if (high - low) / step < 8)
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
