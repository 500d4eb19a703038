"""Processes that share what this one has loaded, PyTorch above all: loading it takes each process a second of its own.

A process can be forked only while it has a single thread, and has done nothing yet with a GPU: threads do not come
along, and what they hold stays held for ever. So this is for a program's first moments (:meth:`Executor.prepare`), when
PyTorch is loaded for that purpose. (Threads of OpenBLAS, which loading NumPy starts, do no harm: it ends them before a
fork.) Where it cannot be done, and for processes that are needed later, ``spawn`` serves.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

GRACE = 5.0  # seconds for a process to end when its connection is closed


@dataclass
class Forked:
    """A process, and the connection to it."""

    process: BaseProcess
    connection: Connection

    def close(self) -> None:
        """End it by closing the connection; by force if that does not help."""
        self.connection.close()
        self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def fork(count: int, work: Callable[[Connection], None], modules: Sequence[str]) -> list[Forked]:
    """Start processes that call ``work`` with a connection to this one, and never see Ctrl-C.

    Args:
        count: how many.
        work: waits for something to come through the connection, and returns when that is closed.
        modules: what is imported first, for all of them.

    Returns:
        The processes; none where that cannot be done safely.
    """
    if not _is_simple():
        return []
    for module in modules:
        import_module(module)
    if threading.active_count() > 1:  # one of the modules has started a thread
        return []
    context, made = multiprocessing.get_context("fork"), list[Forked]()
    for number in range(count):
        ours, theirs = context.Pipe()
        ends = [ours, *(each.connection for each in made)]
        process = context.Process(target=_begin, args=(work, theirs, ends), name=f"stylize worker {number + 1}")
        with without_interrupts():
            process.start()
        theirs.close()
        made.append(Forked(process, ours))
    return made


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes started meanwhile never see Ctrl-C and SIGHUP, which a terminal sends to all, or SIGTERM, which goes to
    all at the end of a service: the first one says when to stop."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_simple() -> bool:
    """Whether this process has a single thread, and has not used a GPU. On other systems than Linux, libraries of the
    system start threads as they like."""
    if sys.platform != "linux":
        return False
    try:
        threads = len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return False
    torch = sys.modules.get("torch")
    return threads == 1 and (torch is None or not torch.cuda.is_initialized())


def _begin(work: Callable[[Connection], None], connection: Connection, ends: Sequence[Connection]) -> None:
    """In a forked process: what belongs to the first one is closed."""
    for end in ends:  # else the other end would not learn that the first process is gone
        end.close()
    for name in (None, "stylize"):
        logging.getLogger(name).handlers.clear()
    work(connection)
