"""Whether the processes that refresh files live: at most that they have refreshed them is seen of other machines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylize.claims.files import content_of
from stylize.machines import is_alive, is_stopped, machine

REFRESH = 5.0  # seconds between two refreshes of a claim; STYLIZE_REFRESH sets others
STALE = 3  # refreshes that a claim must have missed before it is taken over
PATIENCE = 4  # times as many for a process of this machine that runs: the machine may be very busy


def refresh_interval() -> float:
    """Seconds between two refreshes of a claim."""
    try:
        return max(0.05, float(os.environ["STYLIZE_REFRESH"]))
    except (KeyError, ValueError):
        return REFRESH


@dataclass
class _Seen:
    """What a file held when it was last looked at, how many refreshes it has missed since, whether it ever changed."""

    content: bytes
    counted: float  # when the last of those was counted, monotonic seconds
    missed: int = 0
    changed: bool = False


@dataclass
class Watch:
    """Watches files that others refresh.

    Of the time between two looks, only as much counts as one refresh takes: when this machine was asleep itself, or was
    too busy to look, that tells nothing of the others.
    """

    refresh: float  # seconds between two refreshes
    _seen: dict[Path, _Seen] = field(default_factory=dict)

    def missed(self, path: Path, content: bytes) -> int:
        """How many refreshes a file that holds ``content`` now has missed while it was watched."""
        now, seen = time.monotonic(), self._seen.get(path)
        if seen is None or seen.content != content:
            same = seen is not None and _read(seen.content).get("run") == _read(content).get("run")
            self._seen[path] = _Seen(content, now, changed=same)
            return 0
        if now - seen.counted >= self.refresh:
            seen.missed, seen.counted = seen.missed + 1, now
        return seen.missed

    def is_living(self, path: Path, content: bytes) -> bool | None:
        """Whether the process that refreshes a file lives, as far as is known: it has refreshed it since it was first
        looked at, or is one of this machine."""
        if has_died(content):
            return False
        seen = self._seen.get(path)
        if seen is not None and seen.missed >= STALE * patience(content):
            return False
        return True if (seen is not None and seen.changed) or _is_of_this_machine(content) else None

    def look(self) -> None:
        """Look at every file that was asked for before; those that are gone are forgotten."""
        for path in list(self._seen):
            content = content_of(path)
            if content is None:
                self.forget(path)
            else:
                self.missed(path, content)

    def forget(self, path: Path) -> None:
        """Watch a file no longer."""
        self._seen.pop(path, None)


def _read(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:  # not written yet
        return {}
    return found if isinstance(found, dict) else {}


def _holder(content: bytes) -> tuple[int, str] | None:
    """The number and the start of the process that has a claim, if it is one of this machine."""
    found = _read(content)
    process, begun = found.get("process"), found.get("started")
    if found.get("host") != machine() or not isinstance(process, int):
        return None
    return process, str(begun or "")


def has_died(content: bytes) -> bool:
    """Whether a claim was held by a process of this machine that is gone."""
    holder = _holder(content)
    return holder is not None and not is_alive(*holder)


def _is_of_this_machine(content: bytes) -> bool:
    return _holder(content) is not None


def patience(content: bytes) -> int:
    """How many times as long as others a holder is waited for."""
    holder = _holder(content)
    return PATIENCE if holder is not None and not is_stopped(holder[0]) else 1
