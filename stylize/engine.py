"""One picture optimised over its pyramid: the loop that every job, texture and reconstruction goes through."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stylize.encoders import EncoderSpec, Place, Progress, builtin, choose, resolve_device, resolve_dtype
from stylize.errors import OptimizationError, SettingsError
from stylize.images import resize
from stylize.losses import Features, Term
from stylize.optimizer import LBFGS, Adam, Evaluate, Optimizer

if TYPE_CHECKING:
    from stylize.encoders import Encoder
    from stylize.pyramid import Scale
    from stylize.settings import Settings

WINDOW = 10  # steps over which the tolerance is judged
GIVE_UP = 8  # failed trials in a row: the scale is done, or the numbers are beyond recovery


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


Observer = Callable[[Step], object]
Terms = Callable[["Scale"], Sequence[Term]]


class Engine:
    """Encoder, device and optimizer of one run.

    Args:
        settings: the run's settings.
        layers: every encoder layer any term will ask for.
        encoders: specs to choose ``settings.encoder`` from; default: the built-in ones.
        weights: a weights file, instead of the usual search.
        progress: called with (bytes done, bytes in all or None) while weights are downloaded.

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
        spec = choose(settings.encoder, builtin() if encoders is None else encoders)
        wanted = frozenset(layers)
        for layer in sorted(wanted):
            if layer not in spec.layers:
                raise SettingsError(f"unknown layer {layer!r}; {spec.name} has {', '.join(spec.layers)}")
        self._place = Place(self.device, dtype, settings.pooling)
        self._build = spec.load(None if weights is None else Path(weights), progress)
        self.encoder: Encoder = self._build(wanted, self._place)

    def encode(self, image: Tensor) -> Features:
        """Features of a picture (1, 3, H, W) on any device, without gradients."""
        with torch.no_grad():
            return self.encoder(image.to(self.device))

    def optimize(
        self,
        scales: Sequence[Scale],
        start: Tensor,
        terms: Terms,
        *,
        on_step: Observer | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Tensor:
        """The picture after all scales, (1, C, H, W) in [0, 1] on the CPU, at the size of the finest.

        Args:
            scales: coarse to fine.
            start: where to begin, (1, C, H, W) of any size; C = 1 is painted as grey.
            terms: the terms of the loss at a scale.
            on_step: sees every step.
            stop: asked after every step; True ends with the best picture so far.

        Raises:
            OptimizationError: NaN or inf that smaller steps could not avoid.
        """
        image, begun = start.to(self.device), time.perf_counter()
        for index, scale in enumerate(scales, 1):
            image = resize(image, scale.height, scale.width)
            active = [term for term in terms(scale) if term.weight]
            optimizer = self.optimizer(active, image)
            totals: list[float] = []
            for number, retries, finite, values in self._reports(optimizer, scale.steps):
                if (not finite and retries > GIVE_UP) or not torch.isfinite(torch.tensor(values[0])):
                    raise OptimizationError(
                        f"the optimisation left the finite numbers at {scale.width}x{scale.height}, step {number}; "
                        "try a smaller style or content weight, or --precision float32"
                    )
                totals.append(values[0])
                if on_step is not None:
                    named = {term.name: value for term, value in zip(active, values[1:], strict=True)}
                    seconds = time.perf_counter() - begun
                    sizes = (scale.height, scale.width, number, scale.steps)
                    on_step(Step(index, len(scales), *sizes, values[0], named, retries, finite, seconds))
                if retries > GIVE_UP or self._settled(totals) or (stop is not None and stop()):
                    break
            image = optimizer.image.clamp(0, 1)
            if stop is not None and stop():
                break
        return resize(image, scales[-1].height, scales[-1].width).cpu()

    def optimizer(self, terms: Sequence[Term], image: Tensor) -> Optimizer:
        """The optimizer of the settings over these terms, from an image (1, C, H, W)."""
        evaluate = self._objective(terms)
        if self.settings.optimizer == "adam":
            return Adam(evaluate, image, self.settings.learning_rate)
        return LBFGS(evaluate, image, self.settings.history)

    def _objective(self, terms: Sequence[Term]) -> Evaluate:
        def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
            image = image.detach().requires_grad_()
            rgb = image.expand(-1, 3, -1, -1)
            features = self.encoder(rgb)
            values = [term.weight * term.function(rgb, features) for term in terms]
            total = torch.stack(values).sum()
            (gradient,) = torch.autograd.grad(total, image)
            return torch.stack([total, *values]).detach(), gradient

        return evaluate

    @staticmethod
    def _reports(optimizer: Optimizer, steps: int) -> Iterator[tuple[int, int, bool, list[float]]]:
        """(number, retries, finite, values) of each step; on CUDA one step late, so that the host never waits."""
        pending: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

        def read() -> tuple[int, int, bool, list[float]]:
            number, report, event = pending.popleft()
            if event is not None:
                event.synchronize()
            retries, finite, *values = report.tolist()
            return number, int(retries), bool(finite), values

        for number in range(1, steps + 1):
            optimizer.step()
            report, event = optimizer.report, None
            if report.is_cuda:
                report = torch.empty(report.shape, pin_memory=True).copy_(report, non_blocking=True)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record()
            pending.append((number, report, event))
            if len(pending) > (event is not None):
                yield read()
        while pending:
            yield read()

    def _settled(self, totals: Sequence[float]) -> bool:
        """Whether the last ten steps together improved by less than the tolerance, relative to the loss."""
        if len(totals) <= WINDOW:
            return False
        before, now = totals[-1 - WINDOW], totals[-1]
        return before - now < self.settings.tolerance * abs(before)
