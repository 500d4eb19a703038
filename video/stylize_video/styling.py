"""Which styles a clip is painted in, and from when on: ``--style-at`` and ``--fade``."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize import Picture, Settings, SettingsError, as_picture
from stylize.text import counted
from stylize_video.probe import Clip
from stylize_video.timing import seconds
from stylize_video.work import Plan

FADE = 1.0  # seconds: default of --fade
_SHOT = re.compile(r"shot:(\d+)", re.IGNORECASE)

Weights = tuple[float, ...]  # of all styles of a clip, with sum 1


@dataclass(frozen=True)
class Change:
    """Another style, or a blend of several: from ``time`` on, in s after the first frame of the clip, or from the
    ``shot`` on, counted from 1. ``styles`` are numbers among those that ``--style-at`` names."""

    text: str
    time: Fraction | None
    shot: int | None
    styles: tuple[int, ...]


class Styling:
    """The styles of a clip over time.

    Args:
        options: of the command line.
        settings: those of the run.
        clip: what is painted.

    Attributes:
        pictures: those that ``--style-at`` names, each once.
        files: where they were read from.
        changes: in the order in which they were given.

    Raises:
        SettingsError: a time that is none, or after the end of the clip.
        ImageError: a picture that cannot be read.
    """

    def __init__(self, options: Mapping[str, Any], settings: Settings, clip: Clip) -> None:
        given = options.get("style_at") or ()
        if not given and "fade" in options.get("given", {}):
            raise SettingsError("--fade needs --style-at, which says from when on there is another style")
        self.fade = Fraction(str(options.get("fade", FADE)))
        self.files: tuple[Path, ...] = ()
        changes = []
        for text, named in given:
            names = (named,) if os.path.lexists(named) else named.split(",")
            self.files = tuple(dict.fromkeys((*self.files, *map(Path, names))))
            changes.append(_change(text, tuple(self.files.index(Path(name)) for name in names), clip))
        self.changes = tuple(changes)
        needed = math.ceil(settings.size * max(settings.style_scale, settings.init == "style"))
        self.pictures: tuple[Picture, ...] = tuple(as_picture(path, needed) for path in self.files)

    def recorded(self) -> dict[str, Any]:
        """What tells this from other styles over time."""
        hashes = [picture.origin and picture.origin.sha256 for picture in self.pictures]
        made = [[each.text, [hashes[number] for number in each.styles]] for each in self.changes]
        return {"style_at": made, "fade": str(self.fade)} if made else {}

    @property
    def named(self) -> str:
        """The changes, for the report."""
        names = [path.name for path in self.files]
        return "".join(f", {' + '.join(names[one] for one in each.styles)} at {each.text}" for each in self.changes)

    def weights(self, plan: Plan, clip: Clip, base: Sequence[float]) -> list[Weights]:
        """Those of each frame of a plan: of the styles that it begins with, which weigh ``base``, and of
        :attr:`pictures`. None where nothing changes.

        Raises:
            SettingsError: there is no such shot.
        """
        if not self.changes:
            return []
        assert plan.timing is not None
        moments = [moment - clip.start for moment in plan.timing.moments(plan.frames)]
        changes = sorted((self._at(each, plan, moments, len(base)) for each in self.changes), key=lambda each: each[0])
        begun = tuple(weight / sum(base) for weight in base) + (0.0,) * len(self.pictures)
        return [_weights(moment, changes, begun) for moment in moments[: plan.frames]]

    def _at(
        self, change: Change, plan: Plan, moments: Sequence[Fraction], before: int
    ) -> tuple[Fraction, Fraction, Weights]:
        """When a change begins, how long it takes, and what it leads to. At a cut it is sudden, as the cut is."""
        wanted = [0.0] * (before + len(self.pictures))
        for number in change.styles:
            wanted[before + number] += 1 / len(change.styles)
        if change.shot is None:
            assert change.time is not None
            return change.time, self.fade, tuple(wanted)
        if change.shot > len(plan.begins):
            there = counted(len(plan.begins), "shot")
            raise SettingsError(f"--style-at {change.text}: what is painted has {there}")
        return moments[plan.begins[change.shot - 1]], Fraction(0), tuple(wanted)


def _weights(moment: Fraction, changes: Sequence[tuple[Fraction, Fraction, Weights]], begun: Weights) -> Weights:
    """The weights at a moment. A change that begins within another goes on from where that was."""
    if not changes or moment < changes[0][0]:
        return begun
    here = [each for each in changes if each[0] <= moment]
    begin, length, wanted = here[-1]
    done = 1.0 if moment >= begin + length else float((moment - begin) / length)
    if done == 1:
        return wanted
    before = _weights(begin, here[:-1], begun)
    return tuple(one + done * (other - one) for one, other in zip(before, wanted, strict=True))


def moved(one: Weights, other: Weights) -> float:
    """How far the styles have changed from one frame to another: 0 not at all, 1 to others altogether."""
    return sum(abs(a - b) for a, b in itertools.zip_longest(one, other, fillvalue=0.0)) / 2


def _change(text: str, styles: tuple[int, ...], clip: Clip) -> Change:
    if found := _SHOT.fullmatch(text):
        if int(found[1]) < 1:
            raise SettingsError(f"--style-at {text}: shots are counted from 1")
        return Change(text, None, int(found[1]), styles)
    time = seconds(text, "--style-at")
    assert time is not None
    if clip.duration is not None and time >= clip.duration:
        raise SettingsError(f"--style-at {text}: {clip.path} is {float(clip.duration):g} s long")
    return Change(text, time, None, styles)
