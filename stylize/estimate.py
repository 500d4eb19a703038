"""How long a picture takes, told in advance: a small one is painted with few steps, and the rest is calculated.

Both consist of scales. Where the small picture has the same scale, its steps were timed; of larger ones the time
follows from the nearest that was, by the ratio of their work (:mod:`stylize.cost`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stylize.colors import ColorMode
from stylize.cost import Work
from stylize.encoders import EncoderSpec, Progress
from stylize.observing import Step
from stylize.pyramid import Scale, pyramid
from stylize.schedules import schedule_of
from stylize.settings import Settings, knob_of
from stylize.stylizer import Stylizer

LARGEST = 512  # px: the longest side that is painted to measure
STEPS = 4  # at each scale, of which the first is counted with what comes before it
COARSE = 8  # px of the texture of the pictures that are painted


@dataclass(frozen=True)
class Estimate:
    """What a picture of (height, width) px takes: ``seconds``, and those of all processor cores together;
    ``memory`` in bytes, at most, None where it does not fit. ``scales`` and ``steps`` are what it consists of; steps
    may be left out where a scale no longer improves."""

    height: int
    width: int
    seconds: float
    processor_seconds: float
    memory: int | None
    scales: int
    steps: int


@dataclass(frozen=True)
class Timing:
    """Of a scale that was painted: seconds, and those of all cores, up to its first step and for each further one."""

    scale: Scale
    work: Work
    first: tuple[float, float]
    step: tuple[float, float]


class Estimator:
    """Estimates the time of pictures with these settings on this machine.

    Args:
        settings: of the pictures; ``size`` has no effect.
        encoders: specs to choose ``settings.encoder`` from; default: the built-in ones.
        color_modes: modes to choose ``settings.preserve_color`` from; default: the built-in ones.
        weights: a weights file for the encoder, instead of the usual search.
        progress: called with (bytes done, bytes in all or None) while weights are downloaded.

    Raises:
        SettingsError, WeightsError, DeviceError: as of a :class:`~stylize.stylizer.Stylizer`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        encoders: Iterable[EncoderSpec] | None = None,
        color_modes: Iterable[ColorMode] | None = None,
        weights: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        init = settings.init if settings.start_file is None else "content"
        settings = settings.replace(init=init, style_weights=(), upscale=True)
        rest = {"color_modes": color_modes, "weights": weights, "progress": progress}
        self._stylizer = Stylizer(_texture(LARGEST, LARGEST, 1), settings, encoders=encoders, **rest)  # type: ignore[arg-type]
        self._color_modes = color_modes
        self._timings: dict[tuple[int, int], Sequence[Timing]] = {}

    @property
    def conditions(self) -> dict[str, str]:
        """Encoder, device and precision that the estimates are for."""
        engine = self._stylizer.engine
        computed = engine.computed_with()
        return {"encoder": engine.spec.name, "device": str(engine.device), "precision": str(computed["precision"])}

    def __call__(self, height: int, width: int) -> Estimate:
        """What a picture of (height, width) px takes.

        Raises:
            SettingsError: no picture can have that size.
            OptimizationError: as while painting.
        """
        knob_of("size").check("size", max(height, width))
        engine, scales = self._stylizer.engine, pyramid(height, width, self._stylizer.settings)
        schedule = schedule_of(engine, scales, 3, 2 * 12 * height * width)
        factor = min(1.0, LARGEST / max(height, width))
        timings = self._measured(max(1, round(height * factor)), max(1, round(width * factor)))
        works = schedule.work or schedule_of(engine, scales, 3, 0, whole=True).work
        total = [0.0, 0.0]
        for scale, work in zip(scales, works, strict=True):
            for kind in range(2):
                total[kind] += _seconds(timings, scale, work, kind)
        return Estimate(height, width, total[0], total[1], schedule.memory, len(scales), schedule.steps)

    def _measured(self, height: int, width: int) -> Sequence[Timing]:
        """The scales of a picture of that size, with their times."""
        if (height, width) in self._timings:
            return self._timings[height, width]
        settings = self._stylizer.settings.replace(
            size=max(height, width), steps=(STEPS,), tolerance=0.0, min_outlines=0
        )
        stylizer = Stylizer(
            self._stylizer.styles, settings, color_modes=self._color_modes, engine=self._stylizer.engine
        )
        seen: list[tuple[Step, float, float]] = []
        begun = time.perf_counter(), time.process_time()
        stylizer(
            _texture(height, width, 2),
            on_step=lambda step: seen.append((step, time.perf_counter(), time.process_time())),
        )
        ended, found = (time.perf_counter(), time.process_time()), []
        schedule = seen[0][0].schedule
        assert schedule is not None
        for number, (scale, work) in enumerate(zip(schedule.scales, schedule.work, strict=True), 1):
            times = [seconds for step, *seconds in seen if step.scale == number]
            step = tuple(
                (last - first) / max(1, len(times) - 1) for first, last in zip(times[0], times[-1], strict=True)
            )
            first = [at - before for at, before in zip(times[0], begun, strict=True)]
            begun = times[-1][0], times[-1][1]
            if number == len(schedule.scales):  # what comes after the last step
                first = [before + end - last for before, end, last in zip(first, ended, begun, strict=True)]
            found.append(Timing(scale, work, (first[0], first[1]), (step[0], step[1])))
        self._timings[height, width] = found
        return found


def _seconds(timings: Sequence[Timing], scale: Scale, work: Work, kind: int) -> float:
    """The time of a scale, from that of the nearest that was painted, of its own kind if there is one."""
    area = scale.height * scale.width
    nearest = min(
        timings,
        key=lambda each: (each.scale.fine != scale.fine, abs(each.scale.height * each.scale.width - area)),
    )
    first = nearest.first[kind] * work.of(1) / nearest.work.of(1)
    return first + (work.of(scale.steps) - work.of(1)) * nearest.step[kind] / nearest.work.step


def _texture(height: int, width: int, seed: int) -> Tensor:
    """A coloured picture (1, 3, height, width) of soft blots with some grain."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, -(-height // COARSE), -(-width // COARSE), generator=generator, dtype=torch.float32)
    fine = torch.rand(1, 3, height, width, generator=generator, dtype=torch.float32)
    return (0.9 * F.interpolate(coarse, size=(height, width), mode="bilinear") + 0.1 * fine).clamp(0, 1)
