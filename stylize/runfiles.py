"""How far the runs that share a folder are: each says so in a file of its own, beside the claims."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylize.machines import is_stopped, machine, started
from stylize.stores import StorePath

RECENT = 10  # pictures whose time is averaged


class RunFile:
    """What a process says of itself in ``.TOKEN.run``, from the first :meth:`tell` on.

    The facts that a job tells are, all of them optional: ``total``, how many results there are to be; ``before``, how
    many of them were there when the run began; ``failed``; ``done``, how many there are now, a number or a function
    that counts them, where the job knows better than what the runs have painted in sum; ``noun``, what is counted.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self._folder, self._token = folder, token
        self._facts: dict[str, Any] = {}
        self._active, self._state = False, "running"
        self._begun: dict[str, float] = {}  # by key, monotonic seconds
        self._painted = 0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._lock = threading.Lock()
        self._beat = 0

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Add facts, to be written soon; the first time at once.

        Raises:
            OSError: they cannot be written.
        """
        self._facts.update(facts)
        if not self._active:
            self._active = True
            self.write()

    def begin(self, key: str) -> None:
        """A chain is claimed."""
        self._begun[key] = time.monotonic()

    def end(self, key: str) -> None:
        """A chain is released."""
        self._begun.pop(key, None)

    def count(self, seconds: float) -> None:
        """A picture was painted in so many seconds."""
        self._painted += 1
        self._recent.append(seconds)

    def write(self, beat: int | None = None) -> None:
        """Write all of it, if anything was told.

        Raises:
            OSError: it cannot be written.
        """
        if not self._active:
            return
        with self._lock:
            self._beat = self._beat if beat is None else beat
            now = time.monotonic()
            facts = {key: value() if callable(value) else value for key, value in list(self._facts.items())}
            told = {
                "host": machine(),
                "process": os.getpid(),
                "started": started(os.getpid()),
                "run": self._token,
                "beat": self._beat,
                "state": self._state,
                "paints": {key: round(now - begun, 1) for key, begun in list(self._begun.items())},
                "painted": self._painted,
                "seconds": sum(self._recent) / len(self._recent) if self._recent else None,
                **facts,
            }
            path = self._folder / f".{self._token}.run"
            if isinstance(path, StorePath):
                path.write_bytes(json.dumps(told).encode())
                return
            temporary = path.with_suffix(".tmp")
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(told), encoding="utf-8")
            temporary.replace(path)

    def close(self) -> None:
        """Say that the run has ended, but not what it has done: other runs may go on, and that still counts.

        Raises:
            OSError: it cannot be written.
        """
        self._state = "ended"
        self.write()


@dataclass(frozen=True)
class Painter:
    """A process that takes part, or has done.

    ``paints`` holds the keys of the chains that it has claimed, and for how many seconds; ``seconds`` is what a picture
    took it lately.
    """

    path: Path
    content: bytes
    host: str
    process: int
    state: str
    paints: Mapping[str, float] = field(default_factory=dict)
    painted: int = 0
    seconds: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def painters(folder: Path) -> Iterator[Painter]:
    """What the processes that share the work in a claims folder have said last."""
    for path in _files_of(folder, ".run"):
        try:
            content = path.read_bytes()
            told = json.loads(content)
            yield Painter(
                path,
                content,
                str(told["host"]),
                int(told["process"]),
                str(told["state"]),
                {str(key): float(value) for key, value in told["paints"].items()},
                int(told["painted"]),
                None if told["seconds"] is None else float(told["seconds"]),
                told,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # gone, or not one of ours
            continue


def _files_of(folder: Path, suffix: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == suffix)
    except OSError:
        return []


@dataclass(frozen=True)
class Status:
    """How far the work in a folder is.

    ``at_work`` are the processes that live, ``stopped`` those of this machine that live, but stand still until they are
    continued, and ``gone`` those that ended without saying so. ``done`` of ``total`` results are there, None where that
    is not known.
    """

    at_work: tuple[Painter, ...]
    stopped: tuple[Painter, ...]
    gone: tuple[Painter, ...]
    done: int | None
    total: int | None
    failed: int
    noun: str

    @property
    def rate(self) -> float | None:
        """Results per second, by what each process that paints took lately; None where that is not known yet."""
        rates = [1 / each.seconds for each in self.at_work if each.paints and each.seconds]
        return sum(rates) if rates else None

    @property
    def seconds_left(self) -> float | None:
        """For the rest, at this rate."""
        if self.done is None or self.total is None or self.rate is None:
            return None
        return max(0, self.total - self.done - self.failed) / self.rate


def status(folder: Path, is_living: Callable[[Painter], bool]) -> Status:
    """How far the work in a claims folder is; ``is_living`` tells whether a process still runs."""
    found = list(painters(folder))
    running = [each for each in found if each.state != "ended"]
    living = [each for each in running if is_living(each)]
    stopped = [each for each in living if each.host == machine() and is_stopped(each.process)]
    # of runs that were started one after the other, the first has found the most to be painted
    totals = [int(each.facts["total"]) for each in found if isinstance(each.facts.get("total"), int)]
    before = [int(each.facts["before"]) for each in found if isinstance(each.facts.get("before"), int)]
    counted = [int(each.facts["done"]) for each in found if isinstance(each.facts.get("done"), int)]
    painted = min(before, default=0) + sum(each.painted for each in found)
    done = max(counted) if counted else painted if totals else None
    nouns = [str(each.facts["noun"]) for each in found if each.facts.get("noun")]
    return Status(
        tuple(each for each in living if each not in stopped),
        tuple(stopped),
        tuple(each for each in running if each not in living),
        done if done is None or not totals else min(done, max(totals)),
        max(totals, default=None),
        max((int(each.facts.get("failed") or 0) for each in found), default=0),
        nouns[0] if nouns else "picture",
    )
