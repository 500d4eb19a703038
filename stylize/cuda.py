"""Our own kernels (:mod:`stylize.kernels`) where they can run: tried once on each device."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType

import torch

log = logging.getLogger(__name__)


def kernels(device: torch.device) -> ModuleType | None:
    """The module of kernels, or None: on devices other than CUDA, on ROCm, and without Triton, a compiler for it, or a
    GPU that it knows."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    return _tried(device)


@cache
def _tried(device: torch.device) -> ModuleType | None:
    try:
        from stylize import kernels

        x = torch.rand(1, 64, 4, 4, device=device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        weight = torch.zeros(64, 64, 3, 3, device=device, dtype=x.dtype).to(memory_format=torch.channels_last)
        fused_convolution(x, weight, x.new_zeros(64), 1)
        pooled, winner = kernels.pool(x)
        gradient = kernels.unpool(pooled, pooled, winner, 4, 4)
        matrix = torch.zeros(64, 64, device=device, dtype=torch.float32)
        kernels.add(gradient, x, matrix, None)
        kernels.moments(x, matrix[0], matrix, central=True)
        torch.cuda.synchronize(device)  # for errors that come late
    except Exception as error:
        log.info("without kernels of our own on %s: %s", device, str(error).partition("\n")[0] or type(error).__name__)
        return None
    return kernels


def fused_convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: int) -> torch.Tensor:
    """relu(x * weight + bias), in one pass of cuDNN."""
    sides = (padding, padding)
    return torch.ops.aten.cudnn_convolution_relu(x, weight, bias, (1, 1), sides, (1, 1), 1)  # type: ignore[no-any-return]
