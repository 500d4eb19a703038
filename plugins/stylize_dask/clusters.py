"""The cluster that paints: one that is there, or one that is started on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import parent_process
from multiprocessing.connection import Connection

import dask
from distributed import Client, LocalCluster, Worker

from stylize import Forked, StylizeError, without_interrupts

WAIT = 10  # seconds for a scheduler to answer
HERE = "127.0.0.1"
QUIET = {  # what Dask collects for its dashboard, which a cluster of one run has not
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


@contextlib.contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of a scheduler.

    Raises:
        StylizeError: none answers there.
    """
    _hush()
    try:
        client = Client(address, timeout=WAIT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StylizeError(f"no scheduler answers at {address}: {reason}") from error
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=WAIT)


class Local:
    """A scheduler in this process, and workers, of which those that die are replaced.

    Args:
        count: of workers.
        forked: processes in which :func:`serve` waits, to be the first of them; Dask starts the others.
    """

    def __init__(self, count: int, forked: Sequence[Forked]) -> None:
        _hush()
        self._forked = list(forked)
        self._dead = 0
        self._stack = contextlib.ExitStack()
        environment = dict(dask.config.get("distributed.nanny.pre-spawn-environ"))
        environment.pop("MALLOC_TRIM_THRESHOLD_", None)  # costs a quarter more CPU
        self._stack.enter_context(dask.config.set(QUIET | {"distributed.nanny.pre-spawn-environ": environment}))
        with without_interrupts():
            self._cluster = LocalCluster(
                n_workers=count - len(self._forked),
                threads_per_worker=1,
                host=HERE,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
        self._stack.enter_context(self._cluster)
        for each in self._forked:
            with contextlib.suppress(OSError):  # it is dead: see replace()
                each.connection.send(self._cluster.scheduler_address)
        self.client = self._stack.enter_context(Client(self._cluster, set_as_default=False))

    def replace(self) -> None:
        """Have Dask start a worker for each forked one that has died."""
        dead = sum(not each.process.is_alive() for each in self._forked)
        if dead > self._dead:
            with without_interrupts():
                self._cluster.scale(len(self._cluster.worker_spec) + dead - self._dead)
            self._dead = dead

    def close(self) -> None:
        """End scheduler and workers."""
        self._stack.close()


def serve(connection: Connection) -> None:
    """Be a worker of the scheduler whose address comes through a connection."""
    try:
        address = connection.recv()
    except (EOFError, OSError):
        return
    threading.Thread(target=_end_with_the_first, name="parent", daemon=True).start()
    _hush()
    dask.config.set(QUIET)

    async def work() -> None:
        async with Worker(address, nthreads=1, host=HERE, memory_limit=0, dashboard=False) as worker:
            await worker.finished()

    with contextlib.suppress(OSError, TimeoutError):  # the scheduler is gone already
        asyncio.run(work())


def _end_with_the_first() -> None:
    """End this process when the one that started it ends, in whatever way, also amid something long."""
    first = parent_process()
    if first is not None:
        first.join()
        os.kill(os.getpid(), signal.SIGKILL)


def _hush() -> None:
    """Keep Dask from logging: what it says of workers that die is said here."""
    for name in ("asyncio", *logging.root.manager.loggerDict):
        if name == "asyncio" or name.split(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
