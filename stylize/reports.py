"""What the loop knows of its steps: the report of the optimizer for each, whether they still improve the picture, and
what observers see of it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import NamedTuple

from stylize.observing import Pace, Snapshot, Step
from stylize.pyramid import Schedule

WINDOW = 10  # steps over which the tolerance is judged


class Report(NamedTuple):
    """What the optimizer tells of one step; ``values`` has the total first."""

    number: int
    retries: int
    finite: bool
    values: list[float]


def settled(totals: Sequence[float], tolerance: float) -> bool:
    """Whether the last ten steps together improved by less than the tolerance, relative to the loss."""
    if not tolerance or len(totals) <= WINDOW:
        return False
    before, now = totals[-1 - WINDOW], totals[-1]
    return before - now < tolerance * abs(before)


def step_of(
    report: Report,
    names: Sequence[str],
    snapshot: Snapshot,
    index: int,
    schedule: Schedule,
    pace: Pace,
    seconds: float,
) -> Step:
    """What observers see of a step.

    Args:
        report: of the step.
        names: of the terms, in the order of the report's values.
        snapshot: gives the picture as it is.
        index: of the scale, from 1.
        schedule: what is painted in all.
        pace: of the picture so far.
        seconds: since the picture was begun.
    """
    scale = schedule.scales[index - 1]
    fraction, seconds_left = pace.at(index, report.number, seconds)
    return Step(
        scale=index,
        scales=len(schedule.scales),
        height=scale.height,
        width=scale.width,
        number=report.number,
        steps=scale.steps,
        total=report.values[0],
        terms=dict(zip(names, report.values[1:], strict=True)),
        retries=report.retries,
        finite=report.finite,
        seconds=seconds,
        fraction=fraction,
        seconds_left=seconds_left,
        schedule=schedule,
        snapshot=weakref.ref(snapshot),
    )
