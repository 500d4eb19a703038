"""What the scales of a picture take of time and memory, told before they are painted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stylize.cost import Work
from stylize.encoders import Encoder, shallow
from stylize.errors import OptimizationError
from stylize.memory import Plan
from stylize.pyramid import Scale, Schedule

if TYPE_CHECKING:
    from stylize.features import Engine


def schedule_of(
    engine: Engine, scales: Sequence[Scale], channels: int, source_bytes: int, *, whole: bool = False
) -> Schedule:
    """The scales of a picture with so many channels, what each takes of time, and the last of memory, at most.

    Args:
        source_bytes: bytes of the pictures that it is painted from.
        whole: as if there were memory enough for each as a whole; else a scale that fits in no way leaves both unknown,
            and will tell at its own turn.
    """
    peak, works = None, []
    for scale in scales:
        pixels: float = scale.height * scale.width
        if not whole:
            try:
                plan = plan_of(engine, scale, channels, source_bytes)
            except OptimizationError:
                return Schedule(tuple(scales))
            peak, pixels = plan.peak, plan.network_pixels
        phases = [engine.work(pixels, _encoder_of(engine, each)) for each in scale.phases]
        works.append(Work.of_phases(phases, scale.early))
    return Schedule(tuple(scales), peak, tuple(works))


def _encoder_of(engine: Engine, scale: Scale) -> Encoder:
    """The encoder that the terms of the settings see a scale with."""
    layers = dict.fromkeys(engine.encoder.layers, 1.0)
    return engine.encoder_of(shallow(layers) or layers) if scale.shallow else engine.encoder


def plan_of(engine: Engine, scale: Scale, channels: int, source_bytes: int) -> Plan:
    """How a scale will be painted within the memory.

    Raises:
        OptimizationError: it cannot be.
    """
    size, encoder = (scale.height, scale.width, channels), _encoder_of(engine, scale)
    return engine.plan(*size, encoder=encoder, steps=scale.steps, source_bytes=source_bytes)
