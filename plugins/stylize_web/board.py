"""What has changed, for those who look on: a number that grows, and a way to wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class Board:
    """Counts changes, from any thread, and wakes the tasks that wait for the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self.revision = 0
        self.closed = False

    def changed(self) -> int:
        """Count a change; its number."""
        with self._lock:
            self.revision += 1
            waiting, self._waiting = self._waiting, set()
            number = self.revision
        for loop, event in waiting:
            _wake(loop, event.set)
        return number

    def close(self) -> None:
        """Let all who wait go home."""
        self.closed = True
        self.changed()

    async def wait(self, seen: int, timeout: float) -> None:
        """Wait for a change after number ``seen``, or for so many seconds."""
        event = asyncio.Event()
        with self._lock:
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
            with self._lock:
                self._waiting.discard(entry)


def _wake(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(action)
