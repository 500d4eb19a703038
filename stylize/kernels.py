"""What torch has no single operation for, as Triton kernels for CUDA.

On a GPU large pictures spend as much time moving feature maps through memory as multiplying them. Each kernel reads
and writes its maps once, where torch's operations would do so two to four times. Maps are (1, C, H, W), channels-last,
in bfloat16. Whoever calls the kernels has another way for where they cannot run (:mod:`stylize.cuda`).
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
CHANNELS = 64  # whose multiples moments take
SAMPLES = 4096  # positions that tell about where a mean is
DEPTH = 64  # positions that are multiplied at once for moments
WIDTH, PARTS = 256, 16  # of the sums over them: numbers for each program, and how many of the parts it adds at once
PROGRAMS = 132  # of the moments: as many as an H100 has multiprocessors


@triton.jit(do_not_specialize=["wide", "across", "count"])
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


@triton.jit(do_not_specialize=["wide", "across", "count"])
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


@triton.jit(do_not_specialize=["count"])
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


@triton.jit(do_not_specialize=["count", "span"])
def _moments(x, center, products, sums, count, span, channels: tl.constexpr, tile: tl.constexpr, depth: tl.constexpr):  # type: ignore[no-untyped-def]
    part, one, other = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    row_channel, column_channel = one * tile + tl.arange(0, tile), other * tile + tl.arange(0, tile)
    row_center, column_center = tl.load(center + row_channel)[None], tl.load(center + column_channel)[None]
    total = tl.zeros([tile, tile], tl.float32)
    added = tl.zeros([tile], tl.float32)
    for begin in range(0, span, depth):
        position = part * span + begin + tl.arange(0, depth)
        inside = (position < count)[:, None]
        at = x + position[:, None] * channels
        apart = tl.load(at + row_channel[None], mask=inside, other=0.0).to(tl.float32) - row_center
        left = tl.where(inside, apart, 0.0).to(x.dtype.element_ty)
        added += tl.sum(left.to(tl.float32), 0)  # of what is multiplied: else the covariance may be less than zero
        right = left
        if tile < channels:
            apart = tl.load(at + column_channel[None], mask=inside, other=0.0).to(tl.float32) - column_center
            right = tl.where(inside, apart, 0.0).to(left.dtype)
        total = tl.dot(tl.trans(left), right, total)
    at = products + (part * channels + row_channel[:, None]) * channels + column_channel[None]
    tl.store(at, total)
    if other == 0:
        tl.store(sums + part * channels + row_channel, added)


@triton.jit(do_not_specialize=["count", "parts", "stride"])
def _sum_up(  # type: ignore[no-untyped-def]
    products,
    sums,
    center,
    mean,
    second,
    count,
    parts,
    stride,
    central: tl.constexpr,
    channels: tl.constexpr,
    width: tl.constexpr,
    depth: tl.constexpr,
):
    number = tl.program_id(0) * width + tl.arange(0, width)
    row, column = number // channels, number % channels
    total = tl.zeros([width], tl.float32)
    of_row, of_column = total, total
    for begin in range(0, parts, depth):
        part = begin + tl.arange(0, depth)[:, None]
        inside = part < parts
        own = sums + part * channels
        total += tl.sum(tl.load(products + part * channels * channels + number[None], mask=inside, other=0.0), 0)
        of_row += tl.sum(tl.load(own + row[None], mask=inside, other=0.0), 0)
        of_column += tl.sum(tl.load(own + column[None], mask=inside, other=0.0), 0)
    of_row, of_column = of_row / count, of_column / count
    total = total / count
    if central:
        total -= of_row * of_column
    tl.store(second + row * stride + column, total)
    tl.store(mean + column, of_column + tl.load(center + column), mask=row == 0)


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


def moments(x: Tensor, mean: Tensor, second: Tensor, *, central: bool) -> None:
    """Write the mean of a map's positions to ``mean`` (C,), and their covariance, or if not ``central`` their Gram
    matrix divided by the number of positions, to ``second`` (C, C), both float32; C a multiple of :data:`CHANNELS`.

    For the covariance, an approximate mean is subtracted from the map first: to subtract the square of the mean from
    the Gram matrix of a flat map would leave nothing but rounding errors, of either sign.
    """
    channels, count = x.shape[1], x.shape[2] * x.shape[3]
    rows = x[0].permute(1, 2, 0).flatten(0, 1)
    center = mean.new_zeros(channels)
    if central:  # an odd stride, which meets all columns of the map
        center = rows[:: max(1, count // SAMPLES) | 1].mean(0).float()  # such that most differences are exact
    tile = 2 * CHANNELS if channels % (2 * CHANNELS) == 0 else CHANNELS
    pieces = channels // tile
    parts = max(1, min(triton.cdiv(count, DEPTH), PROGRAMS // pieces**2))
    span = triton.cdiv(triton.cdiv(count, parts), DEPTH) * DEPTH
    parts = triton.cdiv(count, span)
    products, sums = mean.new_empty(parts, channels, channels), mean.new_empty(parts, channels)
    with _on(x):
        warps = 8 if tile > CHANNELS else 4
        launched = _moments[(parts, pieces, pieces)]
        launched(rows, center, products, sums, count, span, channels, tile, DEPTH, num_warps=warps)
        made = center, mean, second, count, parts, second.stride(0), central, channels
        _sum_up[(channels**2 // WIDTH,)](products, sums, *made, WIDTH, PARTS)
