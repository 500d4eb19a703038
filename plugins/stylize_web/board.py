"""What has changed, for those who look on: a number that grows, and a way to wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator


class Board:
    """Counts changes, from any thread, and wakes the tasks that wait for the next.

    ``lock`` is held while something changes: who holds it sees every change that has been counted, and sees it whole.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self.revision = 0
        self.closed = False

    @contextlib.contextmanager
    def change(self) -> Iterator[int]:
        """Count the change that is made inside; gives its number. Who waits is woken after it."""
        with self.lock:
            self.revision += 1
            try:
                yield self.revision
            finally:
                waiting, self._waiting = self._waiting, set()
        for loop, event in waiting:
            _wake(loop, event.set)

    def close(self) -> None:
        """Let all who wait go home."""
        with self.change():
            self.closed = True

    async def wait(self, seen: int, timeout: float) -> None:
        """Wait for a change after number ``seen``, or for so many seconds."""
        event = asyncio.Event()
        with self.lock:
            if self.revision > seen or self.closed:
                return
            entry = asyncio.get_running_loop(), event
            self._waiting.add(entry)
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            with self.lock:
                self._waiting.discard(entry)


def _wake(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(action)
