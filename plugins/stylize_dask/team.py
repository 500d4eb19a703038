"""The tasks of a run: a few for each worker at a time, and what comes back of them."""

from __future__ import annotations

import contextlib
import logging
import pickle
import queue
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distributed import Client
from distributed import Future as Task

from stylize import Backlog, Chain, Frame, Run, Step, StylizeError
from stylize import __version__ as VERSION
from stylize_dask import calls, clusters, worker
from stylize_dask.worker import Done, Order

AHEAD = 2  # tasks for each worker: one in work, one that waits for it
COUNT = 2.0  # seconds between two counts of the workers
PAUSE = 0.1  # seconds between two looks at whether the run is to stop

GONE = "the Dask scheduler is gone; the same command goes on with the rest"

log = logging.getLogger("stylize.dask")


@dataclass
class Team:
    """The workers of one run, and the tasks that they have."""

    run: Run
    backlog: Backlog
    client: Client
    order: Order
    packed: bytes
    replace: Callable[[], None] = lambda: None  # workers that have died
    tasks: dict[str, tuple[Task, Chain]] = field(default_factory=dict)
    ready: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    submitted: int = 0
    collected: int = 0
    room: int = 0
    counted: float = float("-inf")
    counting: _Asked | None = None
    seen: float = field(default_factory=time.monotonic)  # when there were workers last, or the run began
    resources: dict[str, float] | None = None
    told_to_stop: bool = False
    without_workers: bool = False

    def paint(self) -> None:
        try:
            while True:
                stopped = self.run.stopped()
                if stopped and not self.told_to_stop:
                    self._stop()
                self._count()
                self.replace()
                while not stopped and len(self.tasks) < self.room and (chain := self.backlog.next()):
                    self._submit(chain)
                if not self.tasks and (stopped or self.backlog.is_empty):
                    return
                if stopped and not self.room:  # nobody will end what was begun
                    return
                with contextlib.suppress(queue.Empty):
                    self._collect(self.ready.get(timeout=PAUSE))
        finally:
            leaving = _Asked(self._leave)
            if self.client.status == "running":
                leaving.wait(clusters.WAIT)

    def _leave(self) -> None:
        for task, _ in self.tasks.values():
            task.cancel()
        self.client.run(pickle.loads, calls.packed(worker.leave, self.order.run), on_error="ignore")

    def _submit(self, chain: Chain) -> None:
        self.submitted += 1
        name = re.sub(r"[^\w./ ]", "_", chain.key) or "picture"
        key = f"stylize-{name}-{self.order.run}{self.submitted:x}"
        call = calls.packed(worker.paint, self.packed, chain, VERSION)
        task = self.client.submit(pickle.loads, call, key=key, pure=False, retries=0, resources=self.resources)
        self.tasks[key] = task, chain
        task.add_done_callback(lambda done: self.ready.put(done.key))

    def _collect(self, key: str) -> None:
        if key not in self.tasks:
            return
        task, chain = self.tasks[key]
        if task.status == "finished":
            self._take_finished(key)
            return
        del self.tasks[key]
        if self.told_to_stop and task.status == "cancelled":
            return
        if task.status != "error":
            raise StylizeError(GONE)
        error = task.exception()
        if type(error).__name__ != "KilledWorker":
            raise StylizeError(self._reason(error))
        self._killed(chain)

    def _reason(self, error: BaseException) -> str:
        """Why a worker cannot even begin: mostly that it has no stylize, or another version."""
        call = calls.packed(calls.about)
        asked = _Asked(lambda: self.client.run(pickle.loads, call, on_error="return"))
        found = asked.result if asked.wait(clusters.WAIT) and asked.result else {}
        if told := calls.unfit(found, VERSION):
            return f"{'; '.join(told)}: {worker.INSTALL}"
        return f"a worker cannot paint: {type(error).__name__}: {error}"

    def _take_finished(self, key: str) -> None:
        task, chain = self.tasks[key]
        try:
            done = task.result(timeout=COUNT)
        except TimeoutError:  # the scheduler or the worker does not answer at the moment
            self.ready.put(key)
            return
        except Exception as error:
            raise StylizeError(f"{GONE} ({type(error).__name__})") from error
        del self.tasks[key]
        self._take(chain, done)

    def _take(self, chain: Chain, done: Done) -> None:
        for logger, level, text in done.told:
            logging.getLogger(logger).log(level, "%s", text)
        for name, number, total, step, picture in done.frames:
            if step is None:
                self.run.observe_copied(Frame(name, picture, number=number, total=total, copied=True))
            else:
                self.run.observe(Frame(name, picture, number=number, total=total), Step(**step), picture)
        if done.state == "failed":
            raise StylizeError(done.error)
        if done.state == "held":
            if not self.told_to_stop:
                self.backlog.hold(chain)
        else:
            self.collected += 1
            self.run.job.collect(chain, done.outcome)

    def _killed(self, chain: Chain) -> None:
        """All workers that Dask gave a chain to have died."""
        job, name = self.run.job, chain.key
        job.failed(chain, StylizeError(f"{name}: several workers died while they painted it"))
        job.collect(chain, job.outcome(chain))

    def _count(self) -> None:
        """How many tasks there may be: workers come and go."""
        now = time.monotonic()
        if self.counting is None:
            if now - self.counted < (COUNT if self.room else PAUSE):
                return
            self.counted, self.counting = now, _Asked(lambda: self.client.scheduler_info(n_workers=-1))
        if not self.counting.wait(0 if self.room else PAUSE):
            self._missed()
            return
        asked, self.counting = self.counting, None
        if asked.error is not None:
            raise StylizeError(f"{GONE} ({type(asked.error).__name__})") from asked.error
        if asked.missed:
            log.info("the Dask scheduler answers again")
        found = [each.get("resources") or {} for each in asked.result["workers"].values()]
        # at first one for each: until it has loaded the encoder, others can paint what would wait for it
        self.room = len(found) * (AHEAD if self.collected >= len(found) else 1)
        if self.resources is None and any("GPU" in resources for resources in found):
            self.resources = {"GPU": 1}
        if found:
            self.seen, self.without_workers = now, False
        elif not self.without_workers and now - self.seen > clusters.WAIT:
            self.without_workers = True
            log.warning("the Dask scheduler has no workers; waiting for some")

    def _missed(self) -> None:
        """The scheduler has not answered yet."""
        assert self.counting is not None
        if time.monotonic() - self.counting.begun < clusters.WAIT:
            return
        if self.told_to_stop:
            raise StylizeError("the Dask scheduler does not answer; what its workers have in work they may still write")
        if not self.counting.missed:
            self.counting.missed = True
            log.warning("the Dask scheduler has not answered for %d seconds; waiting for it", clusters.WAIT)

    def _stop(self) -> None:
        self.told_to_stop = True
        call = calls.packed(worker.stop, self.order.run)
        _Asked(lambda: self.client.run(pickle.loads, call, on_error="ignore"))


class _Asked:
    """Something that is asked of the scheduler, which may not answer: in a thread that nobody need wait for."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.begun, self.missed = time.monotonic(), False
        self.result: Any = None
        self.error: Exception | None = None
        self._call, self._thread = call, threading.Thread(target=self._ask, name="dask", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self.result = self._call()
        except Exception as error:
            self.error = error

    def wait(self, seconds: float) -> bool:
        """Whether there is an answer, or an error, within so many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()
