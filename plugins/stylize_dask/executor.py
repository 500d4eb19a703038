"""The executor: hands chains to Dask workers, a few for each at a time, and takes what comes back."""

from __future__ import annotations

import contextlib
import logging
import pickle
import platform
import queue
import re
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed import Future as Task

from stylize import Backlog, Chain, Executor, Frame, Run, Serial, SettingsError, Step, StylizeError
from stylize import __version__ as VERSION
from stylize_dask import worker
from stylize_dask.worker import Done, Order

AHEAD = 2  # tasks for each worker: one in work, one that waits for it
COUNT = 2.0  # seconds between two counts of the workers
PAUSE = 0.1  # seconds between two looks at whether the run is to stop
WAIT = 10  # seconds for a scheduler to answer

GONE = "the Dask scheduler is gone; the same command goes on with the rest"

log = logging.getLogger("stylize.dask")


class Dask(Executor):
    """Paints on the workers of a Dask cluster. Sources, styles and targets must lie where all of them see them, under
    the same paths.

    Args:
        scheduler: its address, such as "tcp://host:8786"; None: workers are started on this machine.
        workers: how many, then.
    """

    def __init__(self, scheduler: str | None = None, *, workers: int = 2) -> None:
        self.scheduler, self.workers = scheduler, workers

    def paint(self, run: Run) -> None:
        request = run.job.request
        if request is None:
            raise SettingsError("this job cannot be painted by other processes: it was not opened by Request.open()")
        with contextlib.closing(run.backlog()) as backlog:
            if (chain := backlog.sole()) is not None:  # as well painted here, where the job may keep its result
                backlog.put_back(chain)
                Serial().paint_backlog(run, backlog)
                return
            import torch

            versions = worker.versions(run.host)
            order = Order(secrets.token_hex(4), request, versions, Path.cwd(), torch.get_num_threads(), platform.node())
            try:
                packed = pickle.dumps(order)
            except Exception as error:
                raise StylizeError(f"an option cannot be sent to another process: {error}") from error
            with self._client() as client:
                _Team(run, backlog, client, order, packed).paint()

    @contextlib.contextmanager
    def _client(self) -> Iterator[Client]:
        for name in ("asyncio", *logging.root.manager.loggerDict):
            if name == "asyncio" or name.split(".")[0] == "distributed":
                logging.getLogger(name).setLevel(logging.CRITICAL)  # what it says of workers that die is said here
        if self.scheduler is not None:
            try:
                client = Client(self.scheduler, timeout=WAIT, set_as_default=False)
            except (OSError, TimeoutError, ValueError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise StylizeError(f"no scheduler answers at {self.scheduler}: {reason}") from error
            try:
                yield client
            finally:
                with contextlib.suppress(Exception):
                    client.close(timeout=WAIT)
            return
        environment = dict(dask.config.get("distributed.nanny.pre-spawn-environ"))
        environment.pop("MALLOC_TRIM_THRESHOLD_", None)  # costs a quarter more CPU
        with contextlib.ExitStack() as stack, dask.config.set({"distributed.nanny.pre-spawn-environ": environment}):
            with _without_interrupts():
                cluster = LocalCluster(
                    n_workers=self.workers,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )
            stack.enter_context(cluster)
            yield stack.enter_context(Client(cluster, set_as_default=False))


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes and threads started meanwhile never see Ctrl-C, nor do the processes that those start later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass
class _Team:
    """The workers of one run, and the tasks that they have."""

    run: Run
    backlog: Backlog
    client: Client
    order: Order
    packed: bytes
    tasks: dict[str, tuple[Task, Chain]] = field(default_factory=dict)
    ready: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    submitted: int = 0
    collected: int = 0
    room: int = 0
    counted: float = float("-inf")
    counting: _Asked | None = None
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
                while not stopped and len(self.tasks) < self.room and (chain := self.backlog.next()):
                    self._submit(chain)
                if not self.tasks and (stopped or self.backlog.is_empty):
                    return
                if stopped and self.without_workers:  # nobody will end what was begun
                    return
                with contextlib.suppress(queue.Empty):
                    self._collect(self.ready.get(timeout=PAUSE))
        finally:
            leaving = _Asked(self._leave)
            if self.client.status == "running":
                leaving.wait(WAIT)

    def _leave(self) -> None:
        for task, _ in self.tasks.values():
            task.cancel()
        self.client.run(worker.leave, self.order.run, on_error="ignore")

    def _submit(self, chain: Chain) -> None:
        self.submitted += 1
        name = re.sub(r"[^\w./ ]", "_", chain.key) or "picture"
        key = f"stylize-{name}-{self.order.run}{self.submitted:x}"
        task = self.client.submit(
            worker.paint, self.packed, chain, VERSION, key=key, pure=False, retries=0, resources=self.resources
        )
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
            raise StylizeError(f"a worker cannot paint: {type(error).__name__}: {error}")
        self._killed(chain)

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
            if now - self.counted < COUNT:
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
        if not found and not self.without_workers:
            log.warning("the Dask scheduler has no workers; waiting for some")
        self.without_workers = not found

    def _missed(self) -> None:
        """The scheduler has not answered yet."""
        assert self.counting is not None
        if time.monotonic() - self.counting.begun < WAIT:
            return
        if self.told_to_stop:
            raise StylizeError("the Dask scheduler does not answer; what its workers have in work they may still write")
        if not self.counting.missed:
            self.counting.missed = True
            log.warning("the Dask scheduler has not answered for %d seconds; waiting for it", WAIT)

    def _stop(self) -> None:
        self.told_to_stop = True
        _Asked(lambda: self.client.run(worker.stop, self.order.run, on_error="ignore", wait=False))


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
