"""What an observer sees of a picture while it is painted."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass

from torch import Tensor

from stylize.pyramid import Schedule

Snapshot = Callable[[], Tensor]


@dataclass(frozen=True)
class Step:
    """What an observer sees after an iteration.

    ``scale`` counts from 1 to ``scales``, coarse to fine, ``number`` from 1 to at most ``steps`` within it; a picture
    of whose photo too little was left (``min_outlines``) goes back to the first scale. ``terms`` are the weighted
    addends of ``total``; ``retries`` counts the trials in a row that were taken back, the last of them because of NaN
    or inf where ``finite`` is false; ``seconds`` since the picture was begun. ``schedule`` tells what the painting of
    the picture consists of, ``fraction`` how much of that is done, in [0, 1], and ``seconds_left`` how long the rest
    takes at most, at the pace of the current scale; None: not known yet.
    """

    scale: int
    scales: int
    height: int
    width: int
    number: int
    steps: int
    total: float
    terms: Mapping[str, float]
    retries: int
    finite: bool
    seconds: float
    fraction: float = 0.0
    seconds_left: float | None = None
    schedule: Schedule | None = None
    snapshot: InitVar[weakref.ref[Snapshot] | None] = None  # weak, so that stored steps do not keep pictures alive

    def __post_init__(self, snapshot: weakref.ref[Snapshot] | None) -> None:
        vars(self)["snapshot"] = snapshot or (lambda: None)

    def image(self) -> Tensor:
        """The picture as it is now, (1, 3, H, W) sRGB in [0, 1] on the CPU, in its final colours, at its scale's size.

        It is computed on request, in any thread; only then does the host wait for a GPU.

        Raises:
            LookupError: its scale is done.
        """
        snapshot: Snapshot | None = vars(self)["snapshot"]()
        if snapshot is None:
            raise LookupError("the picture of a step can be seen while its scale is painted")
        return snapshot()

    def part(self, number: int, total: int) -> Step:
        """The same step in a run of ``total`` pictures of one size, of which this is number ``number``, from 1:
        ``fraction`` and ``seconds_left`` are those of the run."""
        same = copy.copy(self)
        left = self.seconds_left
        if left is not None:
            left += (total - number) * (self.seconds + left)
        vars(same).update(fraction=(number - 1 + self.fraction) / total, seconds_left=left)
        return same


class Pace:
    """How far the painting of a picture is, and how long the rest takes."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._scale = self._number = 0
        self._first = 0.0  # seconds at which the first step of the scale was done
        self._seconds_per_fraction: float | None = None

    def at(self, scale: int, number: int, seconds: float) -> tuple[float, float | None]:
        """What is done after a step, in [0, 1], and the seconds left. A scale's first step, in which the machine warms
        up, is not counted, nor is what a scale took that is painted again."""
        fraction = self._schedule.fraction(scale, number)
        if scale != self._scale or number <= self._number:
            self._scale, self._first = scale, seconds
        elif (taken := seconds - self._first) > 0:
            self._seconds_per_fraction = taken / (fraction - self._schedule.fraction(scale, 1))
        self._number = number
        pace = self._seconds_per_fraction
        return fraction, None if pace is None else pace * (1 - fraction)


Observer = Callable[[Step], object]
