"""Which picture of a folder a run turns to next."""

from __future__ import annotations

import random
from array import array


class Order:
    """Goes through numbers from 0 on, each once; where another run is met, on from anywhere else.

    Runs that share a folder and went through it in the same order would ask for the same pictures all the time. So they
    soon paint in different parts of it, while one alone keeps to the order.
    """

    def __init__(self, count: int, draw: random.Random | None = None) -> None:
        self._count, self._draw = count, draw or random.Random()  # noqa: S311, no secret
        self._next = array("q", range(count + 1))  # leads from each to the first from there on that is left
        self._at = 0

    def take(self) -> int | None:
        """The next number; None when all were taken."""
        found = self._left(self._at)
        if found == self._count:
            found = self._left(0)
        if found == self._count:
            return None
        self._next[found] = self._at = found + 1
        return found

    def ahead(self, count: int) -> list[int]:
        """Those that will probably follow."""
        found, at = list[int](), self._left(self._at)
        while len(found) < count and at < self._count:
            found.append(at)
            at = self._left(at + 1)
        return found

    def go_elsewhere(self) -> None:
        """Another run was met."""
        self._at = self._draw.randrange(self._count + 1)

    def _left(self, at: int) -> int:
        """The first from ``at`` on that was not taken."""
        end = at
        while self._next[end] != end:
            end = self._next[end]
        while self._next[at] != end:  # a shorter way for the next time
            self._next[at], at = end, self._next[at]
        return end
