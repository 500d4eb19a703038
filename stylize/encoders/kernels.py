"""Passes over feature maps that torch has no single operation for, as Triton kernels for CUDA.

On a GPU large pictures spend as much time moving feature maps through memory as multiplying them. Each kernel reads
and writes its maps once, where torch's operations would do so two to four times. Maps are (1, C, H, W), channels-last,
in bfloat16. Whoever calls them has another way for where Triton is missing or cannot compile.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # numbers for each program of the pooling
ROWS, COLUMNS = 128, 64  # of the result, for each program of the product
WIDEST = 256  # channels from which on a library's product, and passes of their own, are as fast


@triton.jit
def _pool(x, pooled, winner, wide, across, count, channels: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    number = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = number < count
    position, channel = number // channels, number % channels
    corner = x + (2 * (position // across) * wide + 2 * (position % across)) * channels + channel
    best = tl.load(corner, mask=inside)
    which = tl.zeros([block], tl.uint8)
    for index in tl.static_range(1, 4):
        other = tl.load(corner + ((index // 2) * wide + index % 2) * channels, mask=inside)
        better = (other > best) | (other != other)  # NaN, too: it must not be lost
        which = tl.where(better, index, which).to(tl.uint8)
        best = tl.where(better, other, best)
    tl.store(pooled + number, best, mask=inside)
    tl.store(winner + number, which, mask=inside)


@triton.jit
def _unpool(gradient, pooled, winner, result, wide, across, count, channels: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    number = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = number < count
    position, channel = number // channels, number % channels
    corner = result + (2 * (position // across) * wide + 2 * (position % across)) * channels + channel
    value = tl.load(gradient + number, mask=inside)
    value = tl.where(tl.load(pooled + number, mask=inside) <= 0, 0.0, value).to(value.dtype)
    which = tl.load(winner + number, mask=inside)
    for index in tl.static_range(0, 4):
        own = tl.where(which == index, value, 0.0).to(value.dtype)
        tl.store(corner + ((index // 2) * wide + index % 2) * channels, own, mask=inside)


@triton.jit
def _add(gradient, x, matrix, shift, count, channels: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    inside = (row < count)[:, None]
    total = tl.zeros([rows, columns], tl.float32)
    for begin in tl.static_range(0, channels, columns):
        inner = begin + tl.arange(0, columns)
        left = tl.load(x + row[:, None] * channels + inner[None], mask=inside, other=0.0)
        right = tl.load(matrix + inner[:, None] * channels + column[None])
        total = tl.dot(left, right, total)
    at = row[:, None] * channels + column[None]
    total += tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32) + tl.load(shift + column)[None]
    own = tl.load(x + at, mask=inside, other=0.0)
    tl.store(gradient + at, tl.where(own <= 0, 0.0, total).to(own.dtype), mask=inside)


def _on(x: Tensor) -> AbstractContextManager[object]:
    """The device of a tensor as the current one, on which Triton launches."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima of 2x2 positions (1, C, H // 2, W // 2), and which of the four each is, in uint8: row by row, the first
    of equals."""
    _, channels, height, width = x.shape
    shape = (1, channels, height // 2, width // 2)
    pooled = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    winner = torch.empty_like(pooled, dtype=torch.uint8)
    count = pooled.numel()
    with _on(x):
        _pool[(triton.cdiv(count, BLOCK),)](x, pooled, winner, width, shape[3], count, channels, BLOCK)
    return pooled, winner


def unpool(gradient: Tensor, pooled: Tensor, winner: Tensor, height: int, width: int) -> Tensor:
    """The gradient with respect to what was pooled, (1, C, height, width), and beyond the ReLU before it: none where
    the maximum is 0."""
    _, channels, _, across = gradient.shape
    shape = (1, channels, height, width)
    result = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
    if height % 2 or width % 2:
        result.zero_()
    count = gradient.numel()
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    with _on(gradient):
        _unpool[(triton.cdiv(count, BLOCK),)](gradient, pooled, winner, result, width, across, count, channels, BLOCK)
    return result


def add(gradient: Tensor, x: Tensor, matrix: Tensor, shift: Tensor | None) -> None:
    """Add X matrix + 1 shift' to the gradient with respect to x, in place, and take it beyond the ReLU whose output x
    is: ``matrix`` (C, C), ``shift`` (C,), both float32; C a multiple of 64."""
    channels, count = x.shape[1], x.shape[2] * x.shape[3]
    shift = matrix.new_zeros(channels) if shift is None else shift.contiguous()
    grid = (triton.cdiv(count, ROWS), channels // COLUMNS)
    matrix = matrix.to(x.dtype).contiguous()
    with _on(x):
        _add[grid](gradient, x, matrix, shift, count, channels, ROWS, COLUMNS)
