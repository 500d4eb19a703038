"""Who paints the chains of a job: this process, or several.

:func:`run` drives a job. It hands a :class:`Run` to an executor, which takes chains from ``run.backlog()``, claims
each by ``run.claim(chain)``, paints it by ``run.paint(chain)`` and gives the outcome to ``run.job.collect()``. What
could not be claimed, or was lost to another run, goes back by ``backlog.hold(chain)``. Claiming and painting may happen
in another process, which has a run of its own from the same request.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize import allocator
from stylize.contracts import Chain, Executor, Frame, Job, Painted, Request
from stylize.errors import ClaimLostError, PluginError, SettingsError

if TYPE_CHECKING:
    from stylize.host import Host
    from stylize.images import Picture
    from stylize.observing import Step
    from stylize.stylizer import Stylizer

STYLES_KEPT = 4  # stylizers for frames' own styles that are kept, with their statistics
RETRY = 0.5  # seconds after which a chain that another run had claimed is tried again, and
LONGEST = 2.0  # at most, if it is claimed again and again
PAUSE = 0.1  # seconds between two looks for something to paint

log = logging.getLogger(__name__)


def run(
    job: Job,
    stylizer: Stylizer,
    *,
    host: Host | None = None,
    options: Mapping[str, Any] | None = None,
    on_step: Callable[[Frame, Step], object] | None = None,
    stop: Callable[[], bool] | None = None,
    executor: Executor | None = None,
) -> Path | None:
    """Paint every frame of a job; where its result lies.

    Args:
        job: what to paint.
        stylizer: for frames without styles of their own; the others share its encoder.
        host: plugins that add terms, observe and finish the pictures.
        options: what the plugins get as ``options``; default: those of the job's request. ``options["given"]``, the
            options of plugins that were given, goes into the pictures' records.
        on_step: called after every step of every frame; of frames that other processes paint, after the last.
        stop: asked after every step; once True, the frame in work is written as far as it is, and no more.
        executor: who paints; default: :class:`Serial`.

    Raises:
        StylizeError: what the job, the stylizer or a plugin raised.
    """
    if options is None:
        options = {} if job.request is None else job.request.options
    from stylize.gradients import gradients_enabled  # loads PyTorch; executors are prepared before

    with gradients_enabled():
        return _run(Run(job, stylizer, host=host, options=options, on_step=on_step, stop=stop), executor or Serial())


def _run(run: Run, executor: Executor) -> Path | None:
    job, painted = run.job, False
    try:
        job.begin(run.stylizer)
        executor.paint(run)
        painted = True
        return job.finish()
    finally:
        if job.claims is not None:
            if painted and not run.stopped():
                job.claims.clear(run.stopped)
            job.claims.close()


@contextlib.contextmanager
def prepared(host: Host, options: Mapping[str, Any]) -> Iterator[Executor]:
    """The executor that the options of ``stylize run`` name, prepared, and closed in the end.

    Raises:
        SettingsError, PluginError: there is none; see :func:`executor_named`.
    """
    several = (options.get("jobs") or 1) > 1
    executor = executor_named(host, options.get("executor") or ("processes" if several else "serial"), options)
    try:
        executor.prepare()
        yield executor
    finally:
        executor.close()


def join(
    request: Request, plugins: Sequence[str], *, observer: object = None, stop: Callable[[], bool] | None = None
) -> Run:
    """Another process's part in the painting of a job.

    Args:
        request: what the job was opened from.
        plugins: the names of the plugins that take part; see :meth:`Host.loaded`.
        observer: an object with hooks that observe, as a plugin.
        stop: asked after every step.

    Raises:
        StylizeError: what the job or the stylizer raised.
    """
    from stylize.host import plugin_manager

    allocator.allow()  # this process paints, and that is all it does
    host = plugin_manager(only=plugins)
    job = request.open(host)
    stylizer = request.stylizer(job, host)
    job.begin(stylizer)
    if observer is not None:
        host.register(observer, "the other process")
    return Run(job, stylizer, host=host, options=request.options, stop=stop)


def executor_named(host: Host, name: str, options: Mapping[str, Any]) -> Executor:
    """The executor that a plugin has under a name.

    Raises:
        SettingsError: no plugin has one.
        PluginError: a plugin failed, or gave something else.
    """
    found = host.call("stylize_executor", name=name, options=options)
    if found is None:
        raise SettingsError(f"unknown executor {name!r}; built in are serial and processes")
    if not isinstance(found, Executor):
        raise PluginError(f"a plugin gave {found!r} as the executor {name!r}; it must derive from stylize.Executor")
    return found


class Run:
    """One process's part in the painting of a job.

    Attributes:
        job: what is painted, begun already.
        stylizer: for frames without styles of their own.
        options: what plugins get as ``options``.
    """

    def __init__(
        self,
        job: Job,
        stylizer: Stylizer,
        *,
        host: Host | None = None,
        options: Mapping[str, Any],
        on_step: Callable[[Frame, Step], object] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.job, self.host, self.options = job, host, options
        self.stylizer, self._on_step, self._stop = stylizer, on_step, stop
        self._styled: OrderedDict[int, tuple[tuple[Picture, ...], Stylizer]] = OrderedDict()

    def stopped(self) -> bool:
        """Whether the run is to end."""
        return self._stop is not None and self._stop()

    def backlog(self) -> Backlog:
        """The chains to be painted; close it at the end."""
        return Backlog(self.job)

    def claim(self, chain: Chain) -> bool:
        """Whether no other run is painting a chain; none will until it is released."""
        if self.job.claims is None:
            return True
        taken = self.job.claims.take(chain.key)
        if taken:
            self.job.claims.tell()
        return taken

    def release(self, chain: Chain) -> None:
        """Leave a chain to others."""
        if self.job.claims is not None:
            self.job.claims.release(chain.key)

    def paint(self, chain: Chain) -> Any:
        """Paint and write the frames of a chain that this run has claimed, and release it; its outcome, or a future of
        that where results are still being written.

        Raises:
            ClaimLostError: another run has taken the chain over, as this process had stood still for a while; hold it.
            Exception: what the job did not accept as a failure.
        """
        outcome, name = None, chain.key
        try:
            with contextlib.closing(_closable(self.job.frames(chain))) as frames:
                for frame in frames:
                    name = frame.name
                    if frame.copied:
                        if self.host is not None:
                            self.host.observe("stylize_copied", frame=frame)
                    else:
                        for note in frame.image.notes:
                            log.info("%s", note if frame.total == 1 else f"{frame.name}: {note}")
                        self._paint(chain, frame)
                    if self.stopped():
                        break
            outcome = self.job.outcome(chain)
        except ClaimLostError:
            raise
        except Exception:
            self._check_claim(chain, name)
            raise
        finally:
            if isinstance(outcome, Future):
                outcome.add_done_callback(lambda _: self.release(chain))
            else:
                self.release(chain)
        return outcome

    def _paint(self, chain: Chain, frame: Frame) -> None:
        """Paint and write one frame."""
        begun = time.monotonic()
        try:
            painted = self._painted(frame, chain)
            self._check_claim(chain, frame.name)
            self.job.write(frame, painted)
        except ClaimLostError:
            raise
        except Exception as error:  # the job decides
            self._check_claim(chain, frame.name)
            self.job.failed(chain, error)
        else:
            if self.job.claims is not None:
                self.job.claims.count(time.monotonic() - begun)

    def _check_claim(self, chain: Chain, name: str) -> None:
        """Raise if the claim on a chain is lost, at the frame of that name: then its files are another run's, and no
        error of reading or writing them counts.

        Raises:
            ClaimLostError: it is.
        """
        if self.job.claims is not None and not self.job.claims.holds(chain.key):
            raise ClaimLostError(f"{name}: another run has taken it over while this one stood still")

    def observe(self, frame: Frame, step: Step, image: Picture) -> None:
        """Tell observers that only this process has of a frame that another has painted: its last step, and the result.
        The frame itself need not have its picture."""
        if self.host is not None:
            self.host.observe_here("stylize_step", frame=frame, step=step)
        if self._on_step is not None:
            self._on_step(frame, step)
        if self.host is not None:
            self.host.observe_here("stylize_painted", frame=frame, image=image)

    def observe_copied(self, frame: Frame) -> None:
        """The same of a frame that needed no painting."""
        if self.host is not None:
            self.host.observe_here("stylize_copied", frame=frame)

    def _painted(self, frame: Frame, chain: Chain) -> Painted:
        from stylize.records import Record, saving_of

        stylizer, host = self._stylizer_for(frame), self.host
        settings, terms, regions = stylizer.settings, list(frame.terms), list(frame.regions)
        if host is not None:
            terms += host.terms(frame, settings, self.options)
            regions += host.regions(frame, settings, self.options)
        begun, count, last, claims = time.perf_counter(), 0, None, self.job.claims

        def observe(step: Step) -> None:
            nonlocal count, last
            count, last = count + 1, step
            if host is not None:
                host.observe("stylize_step", frame=frame, step=step)
            if self._on_step is not None:
                self._on_step(frame, step)

        made = stylizer(
            frame.image,
            init=frame.init,
            steps=frame.steps,
            curvature=frame.curvature,
            terms=lambda scale: terms,
            mask=frame.mask,
            style_weights=frame.style_weights or None,
            regions=regions,
            on_step=observe,
            stop=lambda: self.stopped() or (claims is not None and claims.is_lost(chain.key)),
        )
        seconds = time.perf_counter() - begun
        picture = made if host is None else host.finish(made, frame, settings, self.options)
        stopped = self.stopped()
        record = dataclasses.replace(
            Record.from_dict(made.record or {}),
            stopped=stopped,
            options=dict(self.options.get("given", {})),
            saving=saving_of(self.options),
            plugins=None if host is None else host.contributors(),
            machine=stylizer.engine.computed_with(),
        )
        picture = dataclasses.replace(picture, record=record.to_dict())
        if host is not None:
            host.observe("stylize_painted", frame=frame, image=picture)
        return Painted(picture, count, seconds, {} if last is None else dict(last.terms), stopped)

    def _stylizer_for(self, frame: Frame) -> Stylizer:
        styles = frame.styles
        if not styles or styles is self.job.styles:
            return self.stylizer
        key = id(styles)  # the entry itself holds them: the number cannot come to mean other ones
        if key not in self._styled:
            self._styled[key] = styles, self.stylizer.restyled(styles, frame.style_weights or None)
        self._styled.move_to_end(key)
        if len(self._styled) > STYLES_KEPT:
            self._styled.popitem(last=False)
        return self._styled[key][1]


def _closable(frames: Any) -> Any:
    """An iterator with ``close``: the threads and files of a generator end with it, not some time later."""
    return frames if hasattr(frames, "close") else (frame for frame in frames)


class Backlog:
    """The chains of a job that are still to be painted: new ones first, then those that could not be claimed."""

    def __init__(self, job: Job) -> None:
        self._job, self._new = job, _closable(job.chains())
        self._first: list[Chain] = []  # taken already
        self._exhausted, self._look_again = False, 0.0
        self._held: deque[tuple[float, Chain]] = deque()  # when to try again, monotonic seconds
        self._delays: dict[str, float] = {}  # by the key of a chain
        self._said = False

    def next(self) -> Chain | None:
        """A chain to try; None if there is none at this moment."""
        now = time.monotonic()
        if self._exhausted and self._job.poll is not None and now >= self._look_again:
            self._new, self._exhausted = _closable(self._job.chains()), False
        if self._first:
            return self._first.pop(0)
        if not self._exhausted:
            for chain in self._new:
                return chain  # type: ignore[no-any-return]
            self._exhausted, self._look_again = True, now + (self._job.poll or 0)
        for place, (when, chain) in enumerate(self._held):
            if when <= now:
                del self._held[place]
                return chain
        return None

    def sole(self) -> Chain | None:
        """The chain of a job that has only one; None, and nothing is taken, if it may have more."""
        if self._job.poll is not None or self._exhausted or self._held:
            return None
        self._first += itertools.islice(self._new, 2)
        return self._first.pop() if len(self._first) == 1 else None

    def hold(self, chain: Chain) -> None:
        """Try a chain again in a moment: another run is painting it."""
        if self._exhausted and not self._said:
            log.info("waiting for another run, which is painting the rest")
            self._said = True
        delay = self._delays.get(chain.key, RETRY)
        self._delays[chain.key] = min(LONGEST, 2 * delay)
        self._held.append((time.monotonic() + delay, chain))
        self._job.held(chain)

    def put_back(self, chain: Chain) -> None:
        """Try a chain again at once."""
        self._held.appendleft((0.0, chain))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left, nor will anything come."""
        return self._exhausted and not (self._first or self._held) and self._job.poll is None

    def close(self) -> None:
        """Ask for no more chains."""
        self._new.close()


class Serial(Executor):
    """Paints one chain after the other, in this process."""

    def paint(self, run: Run) -> None:
        with contextlib.closing(run.backlog()) as backlog:
            self.paint_backlog(run, backlog)

    def paint_backlog(self, run: Run, backlog: Backlog) -> None:
        """Paint what is in a backlog."""
        outcomes: deque[tuple[Chain, Future[Any]]] = deque()  # of results that are still being written
        while not backlog.is_empty:
            chain = backlog.next()
            if chain is None:
                if run.stopped():
                    break
                time.sleep(PAUSE)
            elif run.claim(chain):
                try:
                    outcome = run.paint(chain)
                except ClaimLostError as error:
                    log.warning("%s", error)
                    backlog.hold(chain)
                    continue
                if isinstance(outcome, Future):
                    outcomes.append((chain, outcome))
                else:
                    run.job.collect(chain, outcome)
                if run.stopped():
                    break
            else:
                backlog.hold(chain)
            while outcomes and outcomes[0][1].done():
                written, future = outcomes.popleft()
                run.job.collect(written, future.result())
        for written, future in outcomes:
            run.job.collect(written, future.result())
