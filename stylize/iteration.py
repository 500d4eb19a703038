"""A painting step by step: the loop turned inside out, for programs that have a loop of their own."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

import torch

from stylize.errors import StylizeError
from stylize.observing import Observer, Step

if TYPE_CHECKING:
    from stylize.images import Picture

Paint = Callable[[Observer, Callable[[], bool]], "Picture"]  # (on_step, stop)


class Painting(Generator[Step, None, "Picture"]):
    """A picture while it is painted: a generator of steps, whose value is the picture.

    It is painted in a thread of its own, which waits between two steps until the next is asked for. To leave the loop
    is to stop; use it as a context manager, or ask for :attr:`picture`, where the painting should end at once.

    Args:
        paint: paints the picture: (on_step, stop).
        stop: asked after every step, too; True ends the painting.
    """

    def __init__(self, paint: Paint, stop: Callable[[], bool] | None = None) -> None:
        self._paint, self._stop = paint, stop
        self._exchange = _Exchange()
        self._thread: threading.Thread | None = None
        self._asked = False  # for a step that has not come yet
        self._picture: Picture | None = None
        self._error: BaseException | None = None

    @property
    def picture(self) -> Picture:
        """The picture: finished, or as far as it is painted; a painting that goes on is stopped.

        Raises:
            StylizeError: what went wrong while it was painted, or nothing has been painted yet.
        """
        if self._thread is None:
            raise StylizeError("no step has been painted yet: iterate over the painting first")
        self.close()
        if self._picture is None:
            raise self._error or StylizeError("the painting was ended before there was a picture")
        return self._picture

    def __next__(self) -> Step:
        return self.send(None)

    def send(self, value: None, /) -> Step:
        """The next step."""
        if self._is_over:
            raise StopIteration(self._picture)
        if self._thread is None:
            self._start()
        elif not self._asked:
            self._exchange.go.put(None)
        self._asked = True  # should waiting be interrupted
        found = self._exchange.come.get()
        self._asked = False
        if isinstance(found, Step):
            return found
        self._end(found)
        if self._error is not None:
            raise self._error
        raise StopIteration(self._picture)

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        trace: TracebackType | None = None,
        /,
    ) -> Step:
        """End the painting, and raise the exception here."""
        self.close()
        error = kind if isinstance(kind, BaseException) else value if isinstance(value, BaseException) else kind()
        raise error.with_traceback(trace) if trace is not None else error

    def close(self) -> None:
        """End the painting after the step at work, if it goes on."""
        if self._thread is None or self._is_over:
            return
        self._exchange.stopped.set()
        self._exchange.go.put(None)
        while isinstance(found := self._exchange.come.get(), Step):
            self._exchange.go.put(None)
        self._end(found)

    def __enter__(self) -> Painting:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the end of the program little is left
            self._exchange.stopped.set()
            self._exchange.go.put(None)

    @property
    def _is_over(self) -> bool:
        return self._picture is not None or self._error is not None

    def _start(self) -> None:
        arguments = self._paint, self._stop, self._exchange, torch.get_num_threads()
        self._thread = threading.Thread(target=_work, args=arguments, name="stylize painting", daemon=True)
        self._thread.start()

    def _end(self, found: Picture | BaseException) -> None:
        assert self._thread is not None
        self._thread.join()
        if isinstance(found, BaseException):
            self._error = found
        else:
            self._picture = found


@dataclass
class _Exchange:
    """What passes between the thread that paints and the one that asks; it holds nothing of the painting itself, which
    can be forgotten while the thread waits."""

    come: queue.SimpleQueue[Step | Picture | BaseException] = field(default_factory=queue.SimpleQueue)
    go: queue.SimpleQueue[None] = field(default_factory=queue.SimpleQueue)
    stopped: threading.Event = field(default_factory=threading.Event)


def _work(paint: Paint, stop: Callable[[], bool] | None, exchange: _Exchange, threads: int) -> None:
    torch.set_num_threads(threads)  # each thread has a number of its own

    def on_step(step: Step) -> None:
        if not exchange.stopped.is_set():
            exchange.come.put(step)
            exchange.go.get()

    try:
        exchange.come.put(paint(on_step, lambda: exchange.stopped.is_set() or (stop is not None and stop())))
    except BaseException as error:  # raised again where the steps are asked for
        exchange.come.put(error)
