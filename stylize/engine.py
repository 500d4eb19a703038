"""One picture optimised over its pyramid: the loop that every job, texture and reconstruction goes through."""

from __future__ import annotations

import logging
import math
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from stylize import tiling
from stylize.encoders import EncoderConfig, EncoderSpec, Progress, builtin, having, load, resolve_device, resolve_dtype
from stylize.errors import OptimizationError, SettingsError
from stylize.graphs import RecordedStep
from stylize.images import resize
from stylize.losses import Features, Term, TileWindow
from stylize.optimizer import FIRST_MOVE, LBFGS, MOVING, NEAR_MOVE, Adam, Evaluate, Optimizer
from stylize.tiling import Plan

if TYPE_CHECKING:
    from stylize.encoders import Encoder
    from stylize.pyramid import Scale
    from stylize.settings import Settings

log = logging.getLogger(__name__)

COLORS = 12  # bytes for each pixel of a picture that is painted as grey: its colours
PROBE = 64  # px: a picture to see how large features are

WINDOW = 10  # steps over which the tolerance is judged
GIVE_UP = 8  # failed trials in a row: the scale is done, or the numbers are beyond recovery


Look = Callable[[], Tensor]


@dataclass(frozen=True)
class Step:
    """What an observer sees after an iteration.

    ``scale`` counts from 1 to ``scales``, coarse to fine, ``number`` from 1 to at most ``steps`` within it; ``terms``
    are the weighted addends of ``total``; ``retries`` counts the trials in a row that were taken back, the last of
    them because of NaN or inf where ``finite`` is false; ``seconds`` since the picture was begun.
    """

    scale: int
    scales: int
    height: int
    width: int
    number: int
    steps: int
    total: float
    terms: Mapping[str, float]
    retries: int
    finite: bool
    seconds: float
    look: InitVar[weakref.ref[Look] | None] = None  # weak, and no field: a step that is kept keeps no picture

    def __post_init__(self, look: weakref.ref[Look] | None) -> None:
        vars(self)["look"] = look or (lambda: None)

    def image(self) -> Tensor:
        """The picture as it is now, (1, 3, H, W) sRGB in [0, 1] on the CPU, in its final colours, at its scale's size.

        It is made when it is asked for, in any thread; only then is a GPU waited for.

        Raises:
            LookupError: its scale is done.
        """
        look: Look | None = vars(self)["look"]()
        if look is None:
            raise LookupError("the picture of a step can be seen while its scale is painted")
        return look()


class Report(NamedTuple):
    """What the optimizer tells of one step; ``values`` has the total first."""

    number: int
    retries: int
    finite: bool
    values: list[float]


Observer = Callable[[Step], object]
Terms = Callable[["Scale"], Sequence[Term]]


class Engine:
    """Encoder, device and optimizer of one run.

    Args:
        settings: the run's settings.
        layers: the encoder layers that are asked for in any case; terms may ask for more.
        encoders: specs to choose ``settings.encoder`` from; default: the built-in ones.
        weights: a weights file, instead of the usual search.
        progress: called with (bytes done, bytes in all or None) while weights are downloaded.

    Attributes:
        content: the layers of the content term, with factors.

    Raises:
        SettingsError: unknown encoder or layer.
        DeviceError: the device is not there.
        WeightsError: no usable weights.
    """

    def __init__(
        self,
        settings: Settings,
        layers: Iterable[str],
        *,
        encoders: Iterable[EncoderSpec] | None = None,
        weights: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.settings = settings
        self.device = resolve_device(settings.device)
        dtype = resolve_dtype(settings.precision, self.device)
        specs, wanted = builtin() if encoders is None else encoders, frozenset(layers)
        named = settings.content_layer != "auto"
        self.content: Mapping[str, float] = {settings.content_layer: 1.0} if named and settings.content_weight else {}
        file = None if weights is None else Path(weights)
        self.spec, self._build = load(settings.encoder, wanted.union(self.content), specs, file, progress)
        if settings.content_weight and not named:
            self.content = having(self.spec.content, self.spec).content
        wanted = wanted.union(self.content)
        self._place = EncoderConfig(self.device, dtype, settings.pooling, rescale=settings.normalize != "paper")
        self.encoder: Encoder = self._build(wanted, self._place)
        self._largest = sys.maxsize  # px: the side of tiles that have fitted the memory, once one did not

    def encode(self, image: Tensor) -> Features:
        """Features of a picture (1, 3, H, W) on any device, without gradients."""
        with torch.no_grad():
            return self.encoder(image.to(self.device))

    def placed(self, image: Tensor) -> Tensor:
        """The image on the device, where it is resized faster, if it takes little of the memory; else as it is."""
        small = image.nbytes <= self._budget() / 32
        return image.to(self.device) if self.device.type == "cuda" and small else image

    def parts(self, image: Tensor) -> Iterator[tuple[TileWindow, Features]]:
        """The features of a picture (1, 3, H, W), without gradients, in as many parts as the memory asks for."""
        encoder, area = tiling.tileable(self.encoder, *image.shape[2:]), image.shape[2] * image.shape[3]
        if encoder is None or area * encoder.footprint <= self._budget() / 2:
            yield tiling.Whole(), self.encode(image)
            return
        side = max(tiling.SMALLEST, int((self._budget() / 4 / encoder.footprint) ** 0.5) - 2 * encoder.reach)
        for tile in tiling.tiles(image.shape[2], image.shape[3], side, encoder):
            yield tile, tile.own(self.encode(image[(..., *tile.seen)]))

    def _budget(self) -> float:
        """Bytes that may be used."""
        if self.settings.memory_bytes is not None:
            return self.settings.memory_bytes
        free = tiling.free_memory(self.device)
        return math.inf if free is None else free

    def plan(
        self, height: int, width: int, channels: int = 3, *, steps: int | None = None, held: int | None = None
    ) -> Plan:
        """How a picture of that size is painted within the memory.

        Args:
            steps: how many; a single one needs less.
            held: bytes of the pictures it is painted from; default: one of that size.

        Raises:
            OptimizationError: it cannot be.
        """
        area = height * width
        history = self.settings.history if self.settings.optimizer == "lbfgs" else 0
        held = area * tiling.PIXEL if held is None else held
        kept = held + area * (self._content_bytes + (COLORS if channels == 1 else 0))
        return tiling.plan(
            height,
            width,
            self.encoder,
            self._budget(),
            history,
            kept,
            seen=self._content_bytes,  # how far from the content's they are
            moving=MOVING - (steps == 1),  # there is no last gradient
            channels=channels,
        )

    @cached_property
    def _content_bytes(self) -> float:
        """What the features of the content take for each pixel."""
        found = self.encode(torch.zeros(1, 3, PROBE, PROBE))
        return sum(found[layer].numel() * found[layer].element_size() for layer in self.content) / PROBE**2

    def optimize(
        self,
        scales: Sequence[Scale],
        start: Tensor,
        terms: Terms,
        *,
        near: bool = False,
        detail: Tensor | None = None,
        on_step: Observer | None = None,
        stop: Callable[[], bool] | None = None,
        shown: Callable[[Tensor], Tensor] = lambda painted: painted,
    ) -> Tensor:
        """The picture after all scales, (1, C, H, W) in [0, 1] on the CPU, at the size of the finest.

        Args:
            scales: coarse to fine.
            start: where to begin, (1, C, H, W) of any size; C = 1 is painted as grey.
            terms: the terms of the loss at a scale.
            near: the start is nearly there, and the first step should be short.
            detail: a picture like the start; what it has at a scale and could not have at the one before is added.
            on_step: sees every step.
            stop: asked after every step; True ends with the best picture so far.
            shown: what is shown by :meth:`Step.image` of what is painted, (1, C, H, W) on the CPU.

        Raises:
            OptimizationError: NaN or inf that smaller steps could not avoid, or too little memory.
        """
        image = resize(start.float(), scales[0].height, scales[0].width).to(self.device)
        pictures = [start] if detail is None else [start, detail]
        held = sum({picture.data_ptr(): picture.untyped_storage().nbytes() for picture in pictures}.values())
        begun, pace, done = time.perf_counter(), 0.0, 0  # pace: seconds for a px there and back
        for index, scale in enumerate(scales, 1):

            def observe(
                report: Report, names: Sequence[str], look: Look, place: tuple[int, Scale] = (index, scale)
            ) -> None:
                nonlocal done
                done = report.number
                if on_step is not None:
                    on_step(_step(report, names, look, *place, len(scales), time.perf_counter() - begun))

            with enough_memory(scale.height, scale.width):
                image = _enlarged(image, scale, detail)
                plan = self.plan(scale.height, scale.width, image.shape[1], steps=scale.steps, held=held)
                if plan.side:
                    log.info("%s%s", plan.said, _about(pace * plan.passed * scale.steps))
                active = [term for term in terms(scale) if term.weight]
                self._provide(active)
                optimizer = self.optimizer(active, image, plan, near=near)
                del image  # large pictures are most of the memory
                first = time.perf_counter()
                image = self._run(optimizer, scale, [term.name for term in active], observe, stop, shown)
                pace = (time.perf_counter() - first) / max(1.0, plan.passed * done)
                del optimizer, active
            if stop is not None and stop():
                break
        return _enlarged(image, scales[-1], detail).cpu()

    def _run(
        self,
        optimizer: Optimizer,
        scale: Scale,
        names: Sequence[str],
        observe: Callable[[Report, Sequence[str], Look], None],
        stop: Callable[[], bool] | None,
        shown: Callable[[Tensor], Tensor],
    ) -> Tensor:
        def look() -> Tensor:
            return shown(optimizer.image.to("cpu", copy=True)).expand(-1, 3, -1, -1)

        totals: list[float] = []
        for report in self._reports(optimizer, scale.steps):
            if (report.retries > GIVE_UP and not report.finite) or not math.isfinite(report.values[0]):
                precision = ", or --precision float32" if self.settings.precision == "bfloat16" else ""
                raise OptimizationError(
                    f"the optimisation left the finite numbers at {scale.width}x{scale.height}, step {report.number}; "
                    f"try a smaller style or content weight{precision}"
                )
            if not report.retries:
                totals.append(report.values[0])
            observe(report, names, look)
            if report.retries > GIVE_UP or self._settled(totals) or (stop is not None and stop()):
                break
        return optimizer.image

    def _provide(self, terms: Iterable[Term]) -> None:
        """An encoder that gives all layers of the terms."""
        for term in terms:
            if unknown := set(term.layers) - set(self.spec.layers):
                names, known = ", ".join(sorted(unknown)), ", ".join(self.spec.layers)
                raise SettingsError(f"term {term.name} needs {names}; {self.spec.name} has {known}")
        wanted = self.encoder.layers.union(*(term.layers for term in terms))
        if wanted != self.encoder.layers:
            self.encoder = self._build(wanted, self._place)

    def optimizer(
        self, terms: Sequence[Term], image: Tensor, plan: Plan | None = None, *, near: bool = False
    ) -> Optimizer:
        """The optimizer of the settings over these terms, from an image (1, C, H, W), which stays in [0, 1]."""
        evaluate, image = self.objective(terms, plan.side if plan else 0), image.clamp(0, 1)
        if self.settings.optimizer == "adam":
            return Adam(evaluate, image, self.settings.learning_rate)
        return LBFGS(
            evaluate,
            image,
            plan.history if plan else self.settings.history,
            bounds=(0.0, 1.0),
            first_move=NEAR_MOVE if near else FIRST_MOVE,
            compact=plan is not None and plan.compact,
        )

    def objective(self, terms: Sequence[Term], side: int = 0) -> Evaluate:
        """What the optimizer evaluates: the values of the terms, the total first, and the gradient of a picture, seen
        as a whole or in tiles of ``side`` px; in smaller ones from the first that did not fit the memory."""

        def whole(image: Tensor) -> tuple[Tensor, Tensor]:
            image = image.detach().requires_grad_()
            rgb = image.expand(-1, 3, -1, -1)
            features = self.encoder(rgb)
            values = [term.weighed(term.function(rgb, features)) for term in terms]
            total = torch.stack(values).sum()
            (gradient,) = torch.autograd.grad(total, image)
            return torch.stack([total, *values]).detach(), gradient

        def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal side
            longest, encoder = max(image.shape[2:]), tiling.tileable(self.encoder, *image.shape[2:])
            if encoder is not None and longest > self._largest:  # that was too much before
                side = min(side or longest, self._largest)
            while True:
                try:
                    if not side:
                        return whole(image)
                    assert encoder is not None
                    return tiling.evaluate(image, terms, encoder, side)
                except (RuntimeError, MemoryError) as error:
                    smaller = (side or longest) // 2
                    if not _too_little(error) or encoder is None or smaller < tiling.SMALLEST:
                        raise
                    self._largest = side = smaller
                log.warning("too little memory: going on in tiles of %d px", side)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

        return evaluate

    @staticmethod
    def _reports(optimizer: Optimizer, steps: int) -> Iterator[Report]:
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
            step()
            report, event = step.report, None
            if report.is_cuda:
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                stream = torch.cuda.current_stream(report.device)
                report = torch.empty(report.shape, pin_memory=True).copy_(report, non_blocking=True)
                event.record(stream)
            pending.append((number, report, event))
            if len(pending) > (event is not None):
                yield read()
        while pending:
            yield read()

    def _settled(self, totals: Sequence[float]) -> bool:
        """Whether the last ten steps together improved by less than the tolerance, relative to the loss."""
        if not self.settings.tolerance or len(totals) <= WINDOW:
            return False
        before, now = totals[-1 - WINDOW], totals[-1]
        return before - now < self.settings.tolerance * abs(before)


def _about(seconds: float) -> str:
    return f", about {seconds / 60:.0f} min" if seconds >= 60 else f", about {seconds:.0f} s" if seconds else ""


def _enlarged(image: Tensor, scale: Scale, detail: Tensor | None) -> Tensor:
    """A picture painted at one scale, to begin the next with."""
    larger = resize(image, scale.height, scale.width)
    if detail is None or larger.shape == image.shape:
        return larger
    seen = resize(detail, *image.shape[2:])
    fine = resize(detail, scale.height, scale.width) - resize(seen, scale.height, scale.width)
    return (larger + fine.to(larger.device)).clamp(0, 1)


def _step(
    report: Report, names: Sequence[str], look: Look, index: int, scale: Scale, scales: int, seconds: float
) -> Step:
    return Step(
        scale=index,
        scales=scales,
        height=scale.height,
        width=scale.width,
        number=report.number,
        steps=scale.steps,
        total=report.values[0],
        terms=dict(zip(names, report.values[1:], strict=True)),
        retries=report.retries,
        finite=report.finite,
        seconds=seconds,
        look=weakref.ref(look),
    )


@contextmanager
def enough_memory(height: int, width: int) -> Iterator[None]:
    """Turn what torch raises for too little memory into one line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if _too_little(error):
            message = f"not enough memory for {width}x{height}; use a smaller --size"
            raise OptimizationError(message) from error
        raise


def _too_little(error: Exception) -> bool:
    """Whether it was raised for too little memory, for which torch has no class of its own on the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)
