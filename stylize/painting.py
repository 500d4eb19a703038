"""The loop: one picture optimised over its pyramid, coarse to fine. Every job, texture and reconstruction goes through
:func:`paint`.

Where it differs from Gatys, Ecker and Bethge (2016): the paper optimises one scale from white noise by L-BFGS with a
line search. Here a picture is painted at several scales, each starting from the one before, enlarged, with the detail
of the photo that the coarser scale could not hold (the residual of a Laplacian pyramid: Burt, Adelson 1983); the first
start is the photo; scales above the size of the strokes are held to the one before instead of being painted anew;
L-BFGS takes one evaluation a step (:mod:`stylize.optimizer`); and a scale ends early once it no longer improves. The
preset ``gatys2015`` turns all but the line search back.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stylize import allocator
from stylize.errors import OptimizationError
from stylize.graphs import RecordedStep
from stylize.images import resize
from stylize.objective import UPDATED, Term, enough_memory, objective, optimizer_for
from stylize.observing import Observer, Pace, Snapshot
from stylize.optimizer import Curvature, Optimizer
from stylize.pyramid import Scale, Schedule
from stylize.reports import Report, settled, step_of
from stylize.schedules import plan_of, schedule_of
from stylize.text import duration

if TYPE_CHECKING:
    from stylize.features import Engine

log = logging.getLogger(__name__)

GIVE_UP = 8  # failed trials in a row: the scale is done, or the numbers are beyond recovery

Terms = Callable[["Scale", Tensor | None], Sequence[Term]]  # scale, and the picture of the one before


def paint(
    engine: Engine,
    scales: Sequence[Scale],
    start: Tensor,
    terms: Terms,
    *,
    is_lost: Callable[[Scale, Tensor], bool] | None = None,
    warm_start: bool = False,
    curvature: Curvature | None = None,
    detail: Tensor | None = None,
    grain: Callable[[Tensor, float], Tensor] | None = None,
    on_step: Observer | None = None,
    stop: Callable[[], bool] | None = None,
    to_display: Callable[[Tensor], Tensor] = lambda painted: painted,
    finish: Callable[[Tensor], Tensor] = lambda painted: painted,
    source_bytes: int = 0,
) -> Tensor:
    """The picture after all scales, (1, C, H, W) in [0, 1] on the CPU, at the size of the finest.

    Args:
        engine: the encoder on its device, with the settings of the run.
        scales: coarse to fine.
        start: where to start, (1, C, H, W) of any size; C = 1 is painted as grey.
        terms: the terms of the loss at a scale, given the picture painted at the scale before, on the encoder's device.
        is_lost: asked with the picture at the end of each scale that is not fine, on the encoder's device; True: the
            picture is begun anew, with terms that are asked for again.
        warm_start: the start is nearly the result, and the first step should be short.
        curvature: what is known of it already, of the finest scale; and what is known at the end, put there. With a
            warm start, the move that the last step has found is taken, too: one in three where there are three steps.
        detail: a picture like the start, whose detail each scale adds that the one before could not hold.
        grain: gives a share of the style's finest texture to what a fine scale begins with, on the encoder's device.
        on_step: called after every step.
        stop: asked after every step; True ends with the best picture so far.
        to_display: makes the colours of :meth:`Step.image` from what is painted, (1, C, H, W) on the CPU.
        finish: applied to the picture at the end of each scale, on the encoder's device.
        source_bytes: what the caller holds of memory besides ``start`` and ``detail``.

    Raises:
        OptimizationError: NaN or infinity that smaller steps could not avoid, or too little memory.
    """
    begun = time.perf_counter()

    def begin() -> Tensor:
        return resize(start.float(), scales[0].height, scales[0].width).to(engine.device)

    image = begin()
    sources = [start] if detail is None else [start, detail]
    source_bytes += sum({each.data_ptr(): each.untyped_storage().nbytes() for each in sources}.values())
    if engine.settings.memory_bytes is not None:  # what does not fit is told before hours are spent on coarser scales
        plan_of(engine, scales[-1], start.shape[1], source_bytes)
    schedule = Schedule((*scales,)) if on_step is None else schedule_of(engine, scales, start.shape[1], source_bytes)
    pace = Pace(schedule)
    seconds_per_pixel = 0.0  # forward and backward
    turns = deque(enumerate(scales, 1))
    while turns:
        index, scale = turns.popleft()

        def observe(report: Report, names: Sequence[str], snapshot: Snapshot, index: int = index) -> None:
            if on_step is not None:
                on_step(step_of(report, names, snapshot, index, schedule, pace, time.perf_counter() - begun))

        with allocator.giving_back(), enough_memory(scale.height, scale.width):
            before = image if index > 1 else None
            # Not in the paper, which has one scale: start from the coarser picture, and give back the photo's detail.
            image = _enlarged(image, scale, detail)
            if grain is not None and before is not None and scale.fine:
                image = grain(image, 1 - scale.detail)  # in place of what is left out of the photo's
            active = [[term for term in terms(phase, before) if term.weight] for phase in scale.phases]
            del before
            needed = dict[str, tuple[str, ...]]()
            for term in (each for own in active for each in own):
                needed[term.name] = (*needed.get(term.name, ()), *term.layers)
            encoder = engine.encoder_for(needed)
            plan = engine.plan(
                scale.height, scale.width, image.shape[1], encoder=encoder, steps=scale.steps, source_bytes=source_bytes
            )
            if plan.side:
                seconds = seconds_per_pixel * plan.network_pixels * scale.steps
                log.info("%s%s", plan.description, f", about {duration(seconds, rough=True)}" if seconds else "")
            allocator.keep(wanted=engine.has_plenty_for(plan))
            known = curvature if index == len(scales) else None
            optimizer = optimizer_for(engine, active[0], image, plan, warm_start=warm_start, curvature=known)
            del image  # large pictures are most of the memory
            first = time.perf_counter()
            image, steps = _optimized(engine, optimizer, scale, active, plan.side, observe, stop, to_display)
            if known is not None:
                image = optimizer.moved() if warm_start else image
                found = optimizer.curvature()
                known.moves, known.changes = found.moves, found.changes
            seconds_per_pixel = (time.perf_counter() - first) / max(1.0, plan.network_pixels * steps)
            del optimizer, active
            if plan.side and engine.device.type == "cpu":
                allocator.trim()
            image = finish(image)
        if stop is not None and stop():
            break
        if is_lost is not None and not scale.fine and is_lost(scale, image):
            image, turns = begin(), deque(enumerate(scales, 1))
    return _enlarged(image, scales[-1], detail).cpu()


def _optimized(
    engine: Engine,
    optimizer: Optimizer,
    scale: Scale,
    terms: Sequence[Sequence[Term]],
    side: int,
    observe: Callable[[Report, Sequence[str], Snapshot], None],
    stop: Callable[[], bool] | None,
    to_display: Callable[[Tensor], Tensor],
) -> tuple[Tensor, int]:
    """The picture after the steps of one scale, with the terms of each of its phases, and how many there were."""

    def snapshot() -> Tensor:
        return to_display(optimizer.image.to("cpu", copy=True)).expand(-1, 3, -1, -1)

    number = done = 0
    for phase, own in zip(scale.phases, terms, strict=True):
        if done:
            optimizer.go_on(objective(engine, own, side))
        number += _steps(engine, optimizer, phase, own, done, observe, snapshot, stop)
        done += phase.steps
        if stop is not None and stop():
            break
    return optimizer.image, number


def _steps(
    engine: Engine,
    optimizer: Optimizer,
    scale: Scale,
    terms: Sequence[Term],
    before: int,
    observe: Callable[[Report, Sequence[str], Snapshot], None],
    snapshot: Snapshot,
    stop: Callable[[], bool] | None,
) -> int:
    """Take the steps of one phase, that many of the scale being ``before`` it; how many there were."""
    names = [term.name for term in terms]
    totals: list[float] = []
    number = 0
    for report in _reports(optimizer, scale.steps, terms):
        number = report.number
        if (report.retries > GIVE_UP and not report.finite) or not math.isfinite(report.values[0]):
            precision = ", or --precision float32" if engine.settings.precision == "bfloat16" else ""
            raise OptimizationError(
                f"the optimisation diverged (NaN or infinity) at {scale.width}x{scale.height}, step {before + number}; "
                f"try a smaller style or content weight{precision}"
            )
        if not report.retries:
            totals.append(report.values[0])
        observe(report._replace(number=before + number), names, snapshot)
        if report.retries > GIVE_UP or settled(totals, engine.settings.tolerance) or (stop is not None and stop()):
            break
    return number


def _reports(optimizer: Optimizer, steps: int, terms: Sequence[Term]) -> Iterator[Report]:
    """The report of each step; on CUDA one step late, so that the host never waits."""
    pending: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def read() -> Report:
        number, report, event = pending.popleft()
        if event is not None:
            event.synchronize()
        retries, finite, *values = report.tolist()
        return Report(number, int(retries), bool(finite), values)

    step = RecordedStep(optimizer, steps)
    for number in range(1, steps + 1):
        if number % UPDATED == 1:
            for term in terms:
                if term.update is not None:
                    term.update(optimizer.image)
        step()
        report, event = step.report, None
        if report.is_cuda:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            stream = torch.cuda.current_stream(report.device)
            report = torch.empty(report.shape, pin_memory=True, dtype=torch.float32).copy_(report, non_blocking=True)
            event.record(stream)
        pending.append((number, report, event))
        if len(pending) > (event is not None):
            yield read()
    while pending:
        yield read()


def _enlarged(image: Tensor, scale: Scale, detail: Tensor | None) -> Tensor:
    """A picture painted at one scale, to begin the next with."""
    larger = resize(image, scale.height, scale.width)
    if detail is None or larger.shape == image.shape:
        return larger
    seen = resize(detail, *image.shape[2:])
    fine = resize(detail, scale.height, scale.width) - resize(seen, scale.height, scale.width)
    return larger.add_(fine.to(larger.device).mul_(scale.detail)).clamp_(0, 1)
