"""The executor that paints in several processes, each with a job, a host and a stylizer of its own.

Chains are sent to whichever worker is idle; what comes back is the outcome of each, what was logged, and each frame
that is painted with its last step, for the display. Workers that were not forked at the beginning (see
:mod:`stylize.forks`) are started when there is a chain for them. Where there are several CUDA devices, each worker sees
one of them.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from stylize.contracts import Chain, Executor, Frame, Request, hookimpl
from stylize.errors import ClaimLostError, SettingsError, StylizeError
from stylize.executors import PAUSE, Backlog, Run, Serial, join
from stylize.forks import GRACE, Forked, fork, without_interrupts

if TYPE_CHECKING:
    from stylize.images import Picture
    from stylize.observing import Step

ATTEMPTS = 2  # workers that may die over a chain before it counts as failed
LOADED = ("stylize.host", "stylize.stylizer")  # modules, before workers are forked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Order:
    """What a worker needs to take part."""

    request: Request
    plugins: tuple[str, ...]
    threads: int
    device: str | None  # the CUDA device it sees, as CUDA_VISIBLE_DEVICES has it


@dataclass
class _Worker:
    """A process, the connection to it, and the chain that it paints."""

    number: int
    process: BaseProcess
    connection: Connection
    chain: Chain | None = None
    told_to_stop: bool = False

    def send(self, message: Chain | None) -> None:
        """Give it a chain, or None to end; if it is gone, that shows when something is received."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(pickle.dumps(message))


@dataclass
class _Team:
    """The workers of one run, and what went wrong with them."""

    run: Run
    count: int
    forked: list[Forked]
    workers: list[_Worker] = field(default_factory=list)
    started: int = 0
    deaths: Counter[str] = field(default_factory=Counter)

    def has_room(self) -> bool:
        """Whether a chain can be given to a worker now."""
        return len(self.workers) < self.count or any(worker.chain is None for worker in self.workers)

    def give(self, chain: Chain) -> None:
        """Let a worker paint a chain: one that is idle, or another one."""
        worker = next((worker for worker in self.workers if worker.chain is None), None) or self._start()
        worker.chain = chain
        worker.send(chain)

    def _start(self) -> _Worker:
        request, host = _check(self.run), self.run.host
        import torch

        devices = _devices() if request.settings.device in ("auto", "cuda") else ()
        device = devices[self.started % len(devices)] if len(devices) > 1 else None
        plugins = () if host is None else host.loaded()
        order = _Order(request, plugins, torch.get_num_threads(), device)
        try:
            packed = pickle.dumps(order)
        except Exception as error:
            raise StylizeError(f"an option cannot be sent to another process: {error}") from error
        each = self.forked.pop(0) if self.forked else _spawned(self.started + 1)
        with contextlib.suppress(OSError):  # if it is gone, that shows when something is received
            each.connection.send_bytes(packed)
        self.started += 1
        worker = _Worker(self.started, each.process, each.connection)
        self.workers.append(worker)
        return worker

    def lost(self, worker: _Worker, backlog: Backlog) -> None:
        """A worker has died: its chain goes to another, or counts as failed."""
        self.workers.remove(worker)
        worker.process.join(GRACE)
        worker.connection.close()
        code, chain = worker.process.exitcode, worker.chain
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        said = f"worker {worker.number} (process {worker.process.pid}) {how}"
        if chain is None:
            if not worker.told_to_stop:
                log.warning("%s while it had nothing to do; another one is started when there is", said)
            return
        self.deaths[chain.key] += 1
        name = chain.key or "the picture"
        if self.deaths[chain.key] < ATTEMPTS:
            log.warning("%s; another one paints %s", said, name)
            backlog.put_back(chain)
        else:
            job = self.run.job
            job.failed(chain, StylizeError(f"{said} while it painted {name}, as the one before it did"))
            job.collect(chain, job.outcome(chain))

    def stop(self) -> None:
        """Tell all workers to end, after the step they are at."""
        for worker in self.workers:
            if not worker.told_to_stop:
                worker.told_to_stop = True
                worker.send(None)

    def close(self) -> None:
        """End all workers: those that paint still lose their frame."""
        for worker in self.workers:
            if worker.chain is None:
                worker.send(None)
            else:
                worker.process.kill()
        for worker in self.workers:
            worker.process.join(GRACE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()


class Processes(Executor):
    """Paints in ``count`` processes. The job must have been opened by :meth:`Request.open`.

    In a script, call :func:`stylize.run` with it below ``if __name__ == "__main__":``, as each process imports the
    script first.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._forked: list[Forked] = []

    def prepare(self) -> None:
        self._forked = self._forked or fork(self.count, _work, LOADED)

    def close(self) -> None:
        while self._forked:
            self._forked.pop().close()

    def paint(self, run: Run) -> None:
        _check(run)
        team = _Team(run, self.count, self._forked)
        with contextlib.closing(team), contextlib.closing(run.backlog()) as backlog:
            if (chain := backlog.sole()) is not None:  # as well painted here, where the job may keep its result
                backlog.put_back(chain)
                Serial().paint_backlog(run, backlog)
                return
            while True:
                if run.stopped():
                    team.stop()
                while not run.stopped() and team.has_room() and (chain := backlog.next()):
                    team.give(chain)
                busy = [worker for worker in team.workers if worker.chain is not None]
                if not busy and (run.stopped() or backlog.is_empty):
                    return
                ready = wait([worker.connection for worker in team.workers], PAUSE)
                for worker in [worker for worker in team.workers if worker.connection in ready]:
                    try:
                        kind, *values = pickle.loads(worker.connection.recv_bytes())  # noqa: S301, from our own process
                    except (EOFError, OSError):
                        team.lost(worker, backlog)
                    else:
                        self._receive(run, backlog, worker, kind, values)

    @staticmethod
    def _receive(run: Run, backlog: Backlog, worker: _Worker, kind: str, values: Sequence[Any]) -> None:
        chain = worker.chain
        if kind == "log":
            logging.getLogger(values[0]).log(values[1], "%s", values[2])
        elif kind == "frame":
            name, number, total, step, picture = values
            run.observe(Frame(name, picture, number=number, total=total), _step(step), picture)
        elif kind == "copied":
            name, number, total, picture = values
            run.observe_copied(Frame(name, picture, number=number, total=total, copied=True))
        elif kind == "error":
            raise values[0]
        elif chain is not None:
            worker.chain = None
            if kind == "held":
                backlog.hold(chain)
            else:
                run.job.collect(chain, values[0])


def _check(run: Run) -> Request:
    """What other processes open the job from."""
    if run.job.request is None:
        raise SettingsError("this job cannot be painted in several processes: it was not opened by Request.open()")
    return run.job.request


def _devices() -> tuple[str, ...]:
    """The CUDA devices, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return tuple(named.split(",")[:count]) if named else tuple(map(str, range(count)))


def _spawned(number: int) -> Forked:
    """A worker that has loaded nothing yet."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), name=f"stylize worker {number}")
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # started with the first process, it would unblock the signal
    with without_interrupts():
        process.start()
    theirs.close()
    return Forked(process, ours)


def _step(values: Mapping[str, Any]) -> Step:
    from stylize.observing import Step

    return Step(**values)


# --- in a worker


def _work(connection: Connection) -> None:
    """Paint the chains that come through a connection after an order, until None comes or the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("stylize").addHandler(logging.NullHandler())  # what is logged at the start was said already
    sender = _Sender(connection)
    threading.Thread(target=_end_with_the_first, name="parent", daemon=True).start()
    try:
        order: _Order = pickle.loads(connection.recv_bytes())  # noqa: S301, from our own process
        if order.device is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = order.device
        run = _joined(order, sender)
        try:
            while (chain := sender.receive()) is not None:
                try:
                    sender.send("done", _painted(run, chain)) if run.claim(chain) else sender.send("held")
                except ClaimLostError as error:
                    log.warning("%s", error)
                    sender.send("held")
        finally:
            if run.job.claims is not None:
                run.job.claims.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the first process has died
        return
    except StylizeError as error:
        sender.send("error", error)
    except Exception as error:
        if os.environ.get("STYLIZE_TRACEBACK"):
            raise
        sender.send("error", StylizeError(f"unexpected {type(error).__name__} in a worker: {error}"))


def _end_with_the_first() -> None:
    """End this process when the one that started it ends, in whatever way, also amid something long."""
    first = multiprocessing.parent_process()
    if first is not None:
        first.join()
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _joined(order: _Order, sender: _Sender) -> Run:
    import torch

    torch.set_num_threads(order.threads)  # the number of threads decides how sums are rounded
    run = join(order.request, order.plugins, observer=sender, stop=sender.stopped)
    logger = logging.getLogger("stylize")
    logger.addHandler(sender)
    logger.setLevel(logging.INFO)
    return run


def _painted(run: Run, chain: Chain) -> Any:
    outcome = run.paint(chain)
    return outcome.result() if isinstance(outcome, Future) else outcome


class _Sender(logging.Handler):
    """The connection of a worker to the process that started it, as a display and as a log."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection, self._stopped = connection, False
        self._step: Step | None = None  # the last one of the frame in work

    def send(self, kind: str, *values: object) -> None:
        """Send a message; :meth:`logging.Handler.acquire` keeps threads apart."""
        packed = pickle.dumps((kind, *values))
        self.acquire()
        try:
            self._connection.send_bytes(packed)
        finally:
            self.release()

    def receive(self) -> Chain | None:
        """The next chain; None if there will be no more.

        Raises:
            EOFError: the other process has died.
        """
        if self._stopped:
            return None
        chain: Chain | None = pickle.loads(self._connection.recv_bytes())  # noqa: S301, from our own process
        return chain

    def stopped(self) -> bool:
        """Whether the other process has said so, while a chain is painted.

        Raises:
            EOFError: it has died.
        """
        if not self._stopped and self._connection.poll():
            self._stopped = pickle.loads(self._connection.recv_bytes()) is None  # noqa: S301, from our own process
        return self._stopped

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            self.send("log", record.name, record.levelno, record.getMessage())

    @hookimpl
    def stylize_step(self, frame: Frame, step: Step) -> None:
        self._step = step

    @hookimpl
    def stylize_painted(self, frame: Frame, image: Picture) -> None:
        if self._step is not None:
            step = {each.name: getattr(self._step, each.name) for each in fields(self._step)}
            self.send("frame", frame.name, frame.number, frame.total, step, image)
        self._step = None

    @hookimpl
    def stylize_copied(self, frame: Frame) -> None:
        self.send("copied", frame.name, frame.number, frame.total, frame.image)
