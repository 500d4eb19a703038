"""The queue: what is to be painted, is being painted and was painted, and the thread that does it."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import threading
import time
import traceback
from collections import OrderedDict
from pathlib import Path
from typing import Any

from stylize import Host, StylizeError
from stylize_web.board import Board
from stylize_web.orders import Order
from stylize_web.painting import Painter
from stylize_web.pictures import Pictures
from stylize_web.runs import Run

RUNS_KEPT = 60
HEAD_START, BREATH = 2.0, 0.25  # seconds that torch waits for the page to be opened, and then for its pictures
GRACE = 20.0  # seconds for the run in work to end with the server


class Queue:
    """Paints orders one after the other, in a thread of its own.

    Args:
        pictures: what orders are about.
        host: plugins.
        board: where changes are counted.
        temporary: a folder for results.
        output: where results are kept besides.
    """

    def __init__(
        self, pictures: Pictures, host: Host, board: Board, temporary: Path, output: Path | None = None
    ) -> None:
        self._painter = Painter(pictures, host, board, output)
        self._board, self._temporary = board, temporary
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._lock = threading.Condition()
        self._closing = False
        self._opened = threading.Event()
        self.ready = False
        self.choices: dict[str, list[str]] = {}
        self._thread = threading.Thread(target=self._work, name="painter", daemon=True)

    def start(self) -> None:
        """Begin to paint, and before that to load torch: once the page is there, which would have to wait for it."""
        self._thread.start()

    def opened(self) -> None:
        """The page has been opened."""
        self._opened.set()

    def close(self) -> None:
        """End the run in work, and the thread."""
        with self._lock:
            self._closing = True
            for run in self._runs.values():
                run.stop.set()
            self._lock.notify_all()
        self._opened.set()
        if self._thread.is_alive():
            self._thread.join(GRACE)

    def runs(self) -> list[Run]:
        """All runs, in the order in which they were ordered."""
        with self._lock:
            return [*self._runs.values()]

    def __getitem__(self, key: str) -> Run:
        """The run with an id.

        Raises:
            StylizeError: there is none.
        """
        with self._lock:
            found = self._runs.get(key)
        if found is None:
            raise StylizeError("this run is not there any more")
        return found

    def add(self, order: Order) -> Run:
        """Put an order at the end of the queue."""
        self._opened.set()
        key = secrets.token_urlsafe(9)
        run = Run(key, order, self._temporary / secrets.token_hex(12))
        with self._lock:
            old = [each for each in self._runs.values() if each.ended][: max(0, len(self._runs) + 1 - RUNS_KEPT)]
            with self._board.change() as run.revision:
                self._runs[key] = run
            self._lock.notify_all()
        for each in old:
            self.remove(each)
        return run

    def stop(self, run: Run) -> None:
        """Stop a run and keep the picture as far as it is; one that waits is not begun."""
        with self._lock, self._board.change() as run.revision:
            run.stop.set()
            if run.state == "waiting":
                run.state, run.text = "stopped", "not begun"

    def remove(self, run: Run) -> None:
        """Forget a run that has ended, and its result.

        Raises:
            StylizeError: it has not ended.
        """
        with self._lock:
            if not run.ended:
                raise StylizeError("stop the run first")
            with self._board.change():
                self._runs.pop(run.id, None)
        shutil.rmtree(run.folder, ignore_errors=True)

    def in_use(self) -> set[str]:
        """The ids of the pictures that runs are about."""
        return {source for run in self.runs() for source in run.order.sources}

    def described(self, run: Run) -> dict[str, Any]:
        """What the page is told of a run: as it is after its last change."""
        with self._board.lock:
            return run.described()

    def told(self, seen: int) -> tuple[int, dict[str, Any]]:
        """What has become since change number ``seen``, and the number of the last change; -1: everything."""
        with self._lock, self._board.lock:
            runs = [*self._runs.values()]
            return self._board.revision, {
                "runs": [run.described() for run in runs if run.revision > seen],
                "all": [run.id for run in runs],
                "ready": self.ready,
                "choices": self.choices,
            }

    # --- in the thread

    def _work(self) -> None:
        if "torch" not in sys.modules and self._opened.wait(HEAD_START):
            time.sleep(BREATH)
        if not self._closing:
            choices = self._painter.load()  # while the page is looked at already
            with self._board.change():
                self.choices, self.ready = choices, True
        while (run := self._next()) is not None:
            begun = time.monotonic()
            state, said = self._painted(run)
            with self._board.change() as run.revision:
                run.state, run.error = state, said
                run.fraction = 1.0 if state == "done" else run.fraction
                run.seconds, run.seconds_left = time.monotonic() - begun, None

    def _painted(self, run: Run) -> tuple[str, str]:
        """Paint a run: the state in which it ends, and the error if it failed."""
        try:
            self._painter.paint(run)
        except StylizeError as error:
            return "failed", " ".join(str(error).split())
        except Exception as error:  # a bug of stylize or of a plugin
            if os.environ.get("STYLIZE_TRACEBACK"):
                traceback.print_exc()
            return "failed", f"unexpected {type(error).__name__}: {error}"
        return ("stopped" if run.stop.is_set() else "done"), ""

    def _next(self) -> Run | None:
        with self._lock:
            while not self._closing:
                for run in self._runs.values():
                    if run.state == "waiting":
                        with self._board.change() as run.revision:
                            run.state = "painting"
                        return run
                self._lock.wait()
        return None
