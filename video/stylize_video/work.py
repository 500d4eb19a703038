"""The hidden folder beside the target that holds a clip in the making: its plan and its frames."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import zipfile
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylize import Curvature, ImageError, atomic_write, claims_beside
from stylize_video.exposure import NONE, Exposure
from stylize_video.timing import Timing


@dataclass(frozen=True)
class Plan:
    """What is to be painted: ``wanted`` tells one clip from another, ``cuts`` are the frames, counted from 0, that
    begin a shot but the first, ``expected_steps`` is how many a following frame gets on average, by samples,
    ``timing`` is when the frames are shown, ``exposures`` is that of each frame, none where it does not change, and
    ``painted`` are the frames that are, in order; none where that is a matter of counting."""

    wanted: Mapping[str, Any]
    frames: int
    cuts: tuple[int, ...] = ()
    expected_steps: float = 0.0
    timing: Timing | None = None
    exposures: tuple[Exposure, ...] = ()
    painted: tuple[int, ...] = ()
    begins: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "begins", (0, *self.cuts))

    def exposure(self, number: int) -> Exposure:
        """How a frame is exposed, relative to most of its shot."""
        return self.exposures[number] if self.exposures else NONE

    def shots(self) -> list[range]:
        """The frames of each shot."""
        ends = (*self.cuts, self.frames)
        return [range(begin, end) for begin, end in zip(self.begins, ends, strict=True)]


@dataclass(frozen=True)
class Shot:
    """The frames of a shot that are to be painted, and the plan they are of."""

    frames: range
    plan: Plan

    def to_paint(self, number: int, every: int) -> tuple[int, int]:
        """The last frame up to one, and the first after it, that is painted if that is done to ``every``-th ones; the
        latter may lie after the shot."""
        if not self.plan.painted:
            last = self.frames.start + (number - self.frames.start) // every * every
            return last, last + every
        place = bisect_right(self.plan.painted, number)
        return self.plan.painted[place - 1], (*self.plan.painted[place : place + 1], self.frames.stop)[0]


@dataclass(frozen=True, eq=False)
class State:
    """From where a shot goes on: the ``number`` of a painted frame, the ``curvature`` that it leaves, and the number of
    the painted one ``before`` it, as those between come last."""

    number: int
    before: int
    curvature: Curvature = field(default_factory=Curvature)


class Work:
    """The hidden folder ``.NAME.work`` beside the target; ``claims`` is where runs claim the shots they paint."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.work")
        self.claims = claims_beside(target)

    def file(self, number: int) -> Path:
        return self.path / f"{number:08}.png"

    def plain(self, number: int) -> Path:
        """Where a frame is kept as it is painted, if it is shown in another exposure."""
        return self.path / f"plain-{number:08}.png"

    def done(self, frames: range) -> int:
        return sum(1 for number in frames if self.file(number).exists())

    def count(self) -> int:
        """How many frames are done in all."""
        try:
            with os.scandir(self.path) as entries:
                return sum(1 for entry in entries if re.fullmatch(r"\d+\.png", entry.name))
        except OSError:
            return 0

    def first_missing(self, plan: Plan) -> int:
        """The number of the first frame that is not done, or how many there are."""
        return next((number for number in range(plan.frames) if not self.file(number).exists()), plan.frames)

    def read_plan(self) -> Plan | None:
        try:
            found = json.loads((self.path / "plan.json").read_text(encoding="utf-8"))
            shown = Timing.from_json(found["timing"])
            exposures = tuple(Exposure(float(gain), float(lift)) for gain, lift in found["exposures"])
            known = found["wanted"], found["frames"], tuple(found["cuts"]), found["expected_steps"]
            return Plan(*known, shown, exposures, tuple(found.get("painted", ())))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_plan(self, plan: Plan) -> None:
        with atomic_write(self.path / "plan.json") as file:
            kept = {
                "wanted": plan.wanted,
                "frames": plan.frames,
                "cuts": plan.cuts,
                "expected_steps": plan.expected_steps,
                "timing": plan.timing and plan.timing.to_json(),
                "exposures": plan.exposures,
                "painted": plan.painted,
            }
            file.write_text(json.dumps(kept), encoding="utf-8")

    def make(self) -> None:
        """The folder is there.

        Raises:
            ImageError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"cannot make the folder {self.path}: {error.strerror}") from error

    def put_aside(self, plan: Plan | None) -> Path:
        """Rename the folder, so that its frames are there when what the plan wants is wanted again; its new path.

        Raises:
            ImageError: it cannot be renamed.
        """
        aside = self._aside(None if plan is None else plan.wanted)
        try:
            shutil.rmtree(aside, ignore_errors=True)
            self.path.rename(aside)
        except OSError as error:
            raise ImageError(f"cannot rename the folder {self.path} to {aside}: {error.strerror}") from error
        return aside

    def bring_back(self, wanted: Mapping[str, Any]) -> Plan | None:
        """The plan that was put aside with what it wants, whose folder is in its place again; None if there is none."""
        aside = self._aside(wanted)
        if not aside.is_dir():
            return None
        self.remove()
        with contextlib.suppress(OSError):
            aside.rename(self.path)
        found = self.read_plan()
        return found if found is not None and found.wanted == wanted else None

    def _aside(self, wanted: Mapping[str, Any] | None) -> Path:
        mark = sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]
        return self.path.with_name(f"{self.path.name}-{mark}")

    def clear(self) -> None:
        """The folder is empty; raises as :meth:`make` does."""
        self.remove()
        self.make()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    # --- from where a shot goes on

    def write_state(self, shot: range, state: State) -> None:
        """Keep what a painted frame leaves to the next; before the frame itself is there, so that none is painted
        twice."""
        path, known = self.path / f"{shot.start:08}-{state.number:08}.npz", state.curvature
        with atomic_write(path) as file, file.open("wb") as opened:
            np.savez(opened, moves=_bits(known.moves), changes=_bits(known.changes), before=state.before)

    def read_state(self, shot: range) -> State | None:
        """What the last frame of a shot that another run can go on from leaves; None if there is none."""
        for path in reversed(self._states(shot)):
            number = int(path.stem.partition("-")[2])
            if not self.file(number).exists():
                continue
            try:
                with np.load(path, allow_pickle=False) as found:
                    pairs = [torch.from_numpy(found[key]).view(torch.bfloat16) for key in ("moves", "changes")]
                    before = int(found["before"]) if "before" in found else number
            except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
                continue
            return State(number, before, Curvature(*pairs) if len(pairs[0]) else Curvature())
        return None

    def remove_states(self, shot: range, before: int) -> None:
        """Remove what frames of a shot before one have left."""
        for path in self._states(shot):
            if int(path.stem.partition("-")[2]) < before:
                path.unlink(missing_ok=True)

    def _states(self, shot: range) -> list[Path]:
        return sorted(self.path.glob(f"{shot.start:08}-{'[0-9]' * 8}.npz"))

    # --- what there is to tell of the frames

    def note(self, number: int, told: Mapping[str, float | None]) -> None:
        with (self.path / "notes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"frame": number, **told}) + "\n")

    def notes(self) -> dict[int, dict[str, float]]:
        """What was noted of each frame; a line cut off by a kill is left out."""
        found = {}
        try:
            lines = (self.path / "notes.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                told = json.loads(line)
                found[int(told.pop("frame"))] = told
            except (ValueError, KeyError, AttributeError):
                continue
        return found


def _bits(values: Tensor | None) -> NDArray[Any]:
    """Values in bfloat16 as NumPy, which has no such type, holds them; none where there are none."""
    if values is None:
        return np.zeros(0, np.int16)
    return np.asarray(values.cpu().contiguous().view(torch.int16).numpy())
