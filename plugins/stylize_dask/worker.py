"""What a Dask worker does: it opens the job of a request once, and keeps encoder and styles for what follows."""

from __future__ import annotations

import logging
import os
import pickle
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stylize import (
    Chain,
    ClaimLostError,
    Frame,
    Host,
    Picture,
    Request,
    Run,
    Step,
    StylizeError,
    __version__,
    hookimpl,
    join,
    plugin_manager,
    resize,
)

INSTALL = "install the same on all machines"
THUMBNAIL = 128  # px: the longest side of what is sent back of a result, for displays

IDLE = 60.0  # seconds without a chain after which a run is left: its client may be gone

_lock = threading.Lock()  # one chain at a time in a process
_runs: dict[str, tuple[Run, _Listener]] = {}
_stopped: set[str] = set()
_used: dict[str, float] = {}  # when a chain of a run ended last, monotonic seconds


@dataclass(frozen=True)
class Order:
    """What a worker needs to take part in a run: the request, the plugins and their versions, the folder that relative
    paths start from, the number of threads, which decides how sums are rounded, and the machine that it comes from."""

    run: str
    request: Request
    versions: Mapping[str, str]
    folder: Path
    threads: int
    machine: str


@dataclass(frozen=True)
class Done:
    """What became of a chain.

    ``state`` is "done", "held" (by another run) or "failed". ``outcome`` is the job's. ``error`` ends the run. Of each
    frame there are name, number, total, the last step and a thumbnail; of what was logged logger, level and text.
    """

    state: str
    outcome: Any = None
    error: str = ""
    frames: tuple[tuple[str, int, int | None, Mapping[str, Any] | None, Picture], ...] = ()
    told: tuple[tuple[str, int, str], ...] = ()


class _Listener(logging.Handler):
    """Keeps what is told of the chain in work until it can be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int, str]] = []
        self.frames: list[tuple[str, int, int | None, Mapping[str, Any] | None, Picture]] = []
        self._step: Step | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append((record.name, record.levelno, record.getMessage()))

    @hookimpl
    def stylize_step(self, frame: Frame, step: Step) -> None:
        self._step = step

    @hookimpl
    def stylize_painted(self, frame: Frame, image: Picture) -> None:
        step = None if self._step is None else {each.name: getattr(self._step, each.name) for each in fields(Step)}
        self.frames.append((frame.name, frame.number, frame.total, step, _thumbnail(image)))
        self._step = None

    @hookimpl
    def stylize_copied(self, frame: Frame) -> None:
        self.frames.append((frame.name, frame.number, frame.total, None, _thumbnail(frame.image)))

    def take(self) -> dict[str, Any]:
        """All that was kept since this was asked last."""
        taken = {"told": tuple(self.told), "frames": tuple(self.frames)}
        self.told, self.frames = [], []
        return taken


def versions(host: Host | None) -> dict[str, str]:
    """The plugins that were found by their entry points, and the versions of what they came with."""
    loaded = () if host is None else host.loaded()
    infos = [] if host is None else host.infos()
    return {each.name: f"{each.distribution} {each.version}" for each in infos if each.name in loaded}


def paint(packed: bytes, chain: Chain, version: str) -> Done:
    """Paint a chain; what goes wrong comes back as a value, as Dask would try it again on worker after worker."""
    if version != __version__:
        return Done(
            "failed", error=f"the worker on {platform.node()} has stylize {__version__}, not {version}: {INSTALL}"
        )
    with _lock:
        order: Order = pickle.loads(packed)  # noqa: S301, from the process that submitted this function
        if order.run in _stopped:
            return Done("held")
        try:
            with _inside(order.folder):
                run, listener = _joined(order)
                if not run.claim(chain):
                    return Done("held", **listener.take())
                outcome = run.paint(chain)
                outcome = outcome.result() if isinstance(outcome, Future) else outcome
                return Done("done", outcome, **listener.take())
        except ClaimLostError as error:
            told = (("stylize.dask", logging.WARNING, str(error)),)
            return Done("held", told=told)
        except StylizeError as error:
            where = "" if platform.node() == order.machine else f"on {platform.node()}: "
            return Done("failed", error=f"{where}{error}")
        except Exception as error:
            said = f"unexpected {type(error).__name__} in a worker on {platform.node()}: {error}"
            return Done("failed", error=said)
        finally:
            _used[order.run] = time.monotonic()


def stop(run: str) -> None:
    """Let the chain in work end after this step, and begin none that follows."""
    _stopped.add(run)


def leave(run: str) -> None:
    """Forget a run, once nothing of it is in work."""
    _stopped.add(run)
    with _lock:
        _forget(run)
        _stopped.discard(run)


def _forget(run: str) -> None:
    _used.pop(run, None)
    found = _runs.pop(run, None)
    if found is not None:
        logging.getLogger("stylize").removeHandler(found[1])
        if found[0].job.claims is not None:
            found[0].job.claims.close()


def _leave_when_idle(run: str) -> None:
    """Leave a run when nothing more comes of it: else it would count as one at work for as long as the worker lives."""
    joined = _runs.get(run)
    while joined is not None and _runs.get(run) is joined:
        time.sleep(IDLE / 4)
        with _lock:
            if _runs.get(run) is joined and time.monotonic() - _used.get(run, 0.0) >= IDLE:
                _forget(run)


def _joined(order: Order) -> tuple[Run, _Listener]:
    if order.run not in _runs:
        for other in list(_runs):  # that ended without saying so
            _forget(other)
        import torch

        torch.set_num_threads(order.threads)
        listener = _Listener()
        _check_plugins(order)
        run = join(order.request, tuple(order.versions), observer=listener, stop=lambda: order.run in _stopped)
        logger = logging.getLogger("stylize")
        logger.addHandler(listener)
        logger.setLevel(logging.INFO)
        _runs[order.run] = run, listener
        threading.Thread(target=_leave_when_idle, args=(order.run,), name="idle", daemon=True).start()
    return _runs[order.run]


def _check_plugins(order: Order) -> None:
    """Refuse to paint otherwise than the other workers.

    Raises:
        StylizeError: a plugin is missing here, or comes with another version.
    """
    here = versions(plugin_manager())
    for name, version in order.versions.items():
        if here.get(name) != version:
            has = here.get(name) or "none that can be loaded"
            raise StylizeError(
                f"the worker on {platform.node()} lacks the plugin {name} of {version} (it has {has}): {INSTALL}"
            )


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """In the folder that relative paths start from, which all machines must have under one name."""
    before = Path.cwd()
    try:
        os.chdir(folder)
    except OSError as error:
        raise StylizeError(f"a worker cannot use the folder {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        os.chdir(before)


def _thumbnail(picture: Picture) -> Picture:
    height, width = picture.size
    factor = min(1.0, THUMBNAIL / max(height, width))
    rgb = resize(picture.in_profile().rgb, max(1, round(height * factor)), max(1, round(width * factor)))
    return Picture(rgb, origin=picture.origin)
