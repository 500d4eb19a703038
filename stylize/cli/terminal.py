"""The standard streams, as they may be: closed, full, or a pipe that nobody reads any more."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeVar

from stylize.text import printable

T = TypeVar("T")


def open_standard_streams() -> None:
    """Open those of the three standard streams that are closed, on nothing: the next files that are opened would take
    their numbers, and what libraries write to standard error would end up in them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


class UnbreakableStream:
    """A stream that may break (a closed pipe, a full disk) without ending the run: what is written later is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or Path(os.devnull).open("w")  # noqa: SIM115, kept; None: it is closed
        self._lost = False

    def write(self, text: str) -> int:
        text = text.encode("utf-8", "backslashreplace").decode()  # names of files need not be UTF-8
        return ignoring_errors(self._stream, lambda: self._noticing(lambda: self._stream.write(text))) or 0

    def flush(self) -> None:
        ignoring_errors(self._stream, lambda: self._noticing(self._stream.flush))

    def _noticing(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except BrokenPipeError:
            self._lost = True
            raise

    def has_lost_its_reader(self) -> bool:
        """Whether it is a pipe or a socket that nobody reads any more."""
        return self._lost or _has_no_reader(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _has_no_reader(stream: TextIO) -> bool:
    if not hasattr(select, "poll"):
        return False  # Windows, where a write will tell
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # for errors alone
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # it is no file, or closed
        return False


def ignoring_errors(stream: TextIO, action: Callable[[], T]) -> T | None:
    """Do something with a stream; if it is broken, point it at nothing."""
    try:
        return action()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # so does what is left in its buffer
        return None


def complain(message: str) -> None:
    """Print one line to standard error."""
    print(f"stylize: {printable(' '.join(message.split()))}", file=UnbreakableStream(sys.stderr), flush=True)
