"""What painting costs in time: how much work a scale is beside others, told from its size and its encoder.

The work is in seconds of the machine it was measured on (one core of an AMD Zen 5; for CUDA, an NVIDIA H100). On others
only ratios mean something: of them, the time of a whole picture follows from that of a few steps.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from stylize.encoders import Encoder

PASSES = 2  # through the network in a step: forward and back to the picture
TARGETS = 0.75  # what measuring the targets of a scale takes of a step: photo and style go forward only
UNKNOWN_BYTES = 1000.0  # held for each pixel by an encoder that does not tell


@dataclass(frozen=True)
class Rates:
    """Seconds of one machine.

    Of a step, for each pixel: ``operation``, of each multiply-add, and ``byte``, of each that is held; whatever the
    size of the picture: ``step``, and ``channel`` for each of the style's layers. Before the first step of a scale:
    ``pixel`` for resizing pictures, ``target`` for each channel of the style's layers, and ``begin``.
    """

    operation: float
    byte: float
    step: float
    channel: float
    pixel: float
    target: float
    begin: float = 0.0


CPU = {
    torch.bfloat16: Rates(4.4e-12, 5.3e-10, 2.5e-3, 1e-5, 3e-7, 6e-5),
    torch.float32: Rates(8.3e-12, 4.6e-10, 2.5e-3, 1e-5, 3e-7, 6e-5),
}
ACCELERATOR = Rates(3.5e-15, 1.4e-12, 2e-3, 0.0, 1e-8, 2e-5, 0.1)  # the last: recording a graph


@dataclass(frozen=True)
class Work:
    """Of one scale: what comes before its first step, and each step; of its first ``early`` ones ``early_step``."""

    begin: float
    step: float
    early: int = 0
    early_step: float = 0.0

    def of(self, steps: float) -> float:
        """That of so many steps, and what comes before them."""
        early = min(self.early, steps)
        return self.begin + self.early_step * early + self.step * (steps - early)

    @classmethod
    def of_phases(cls, works: Sequence[Work], early: int) -> Work:
        """That of a scale whose early steps and others take these; or of one alone."""
        first, last = works[0], works[-1]
        return last if len(works) == 1 else cls(last.begin, last.step, early, first.step)


def work(
    encoder: Encoder,
    pixels: float,
    style_layers: Collection[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
    threads: int = 1,
) -> Work:
    """The work of a scale.

    Args:
        encoder: that of the scale; ``operations_per_pixel``, ``bytes_per_pixel`` and ``channels`` are taken from it
            where it has them.
        pixels: those that go through the network in a step, :attr:`~stylize.memory.Plan.network_pixels`.
        style_layers: those of the style term; of others nothing is asked that is the same at every size.
        device: what it computes on.
        dtype: the precision of the encoder.
        threads: of the CPU, which pixels are shared between, and little else.
    """
    cpu = device.type == "cpu"
    rates = CPU.get(dtype, CPU[torch.float32]) if cpu else ACCELERATOR
    operations = PASSES * getattr(encoder, "operations_per_pixel", 0.0)
    held = getattr(encoder, "bytes_per_pixel", UNKNOWN_BYTES)
    known = getattr(encoder, "channels", {})
    channels = sum(count for layer, count in known.items() if layer in style_layers)
    network = pixels * (operations * rates.operation + held * rates.byte) / (threads if cpu else 1)
    begin = TARGETS * network + rates.pixel * pixels + rates.target * channels + rates.begin
    return Work(begin, network + rates.channel * channels + rates.step)
