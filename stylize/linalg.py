"""Matrix products over the positions of a feature map, and roots of symmetric matrices.

A feature map (1, C, H, W) is seen as X (n, C), a row for each of its n = H*W positions. Everything here runs without
automatic differentiation; what the losses need of it is known in closed form (:mod:`stylize.gradients`).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 2**20  # numbers in a block that stays in a CPU's cache: 4 MB in float32
DILATION = (2, 2)
SMALL = 2**15  # numbers: torch does not hand smaller convolutions to oneDNN
CHUNK = 1024  # rows multiplied at once on accelerators: long sums would round, and use few of the multiprocessors
ROUNDING = 1e-7  # of a matrix's norm: more than float32 sums leave below zero of a positive semidefinite one
SAFETY = 1.01  # no eigenvalue of what is iterated may be above 1, not even by rounding

# An odd polynomial a s + b s^3 + c s^5 for each iteration: of all, the one closest to 1 on the interval that the ones
# before it leave of [3.1e-4, 1] (Amsel, Persson, Musco, Gower 2025, "The Polar Express"). Together they bring every s
# there to within 1e-6 of 1: nine of degree five where Newton-Schulz's cubic takes 24.
POLYNOMIALS = (
    (8.5004186762, -25.2269134843, 18.7238200810),
    (4.2250266779, -3.1250620628, 0.5788092827),
    (4.1504778490, -3.0735685769, 0.5729753016),
    (3.8676368574, -2.8758898180, 0.5505947642),
    (3.0812546663, -2.3010185249, 0.4858496640),
    (2.1314061015, -1.5087717463, 0.3994618315),
    (1.8774694827, -1.2509572860, 0.3735045647),
    (1.8731279958, -1.2462584476, 0.3731304518),
    (1.875, -1.25, 0.375),
)


# --- products --------------------------------------------------------------------------------------------------------
#
# On x86 torch leaves products of float32 matrices to MKL, which keeps to AVX2 on processors that are not Intel's, and
# convolutions to oneDNN, which does not: where AVX-512 is twice as fast, so is the product as a convolution. It sums
# more exactly, too. With a single thread torch does convolutions of 1x1 by MKL as well, unless they are dilated: which
# means nothing for 1x1.


def _convolves(x: Tensor, other: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > SMALL
        and other.numel() > 0
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


def _as_map(x: Tensor) -> Tensor:
    """Rows (n, C) as the positions of a channels-last map (1, C, 1, n)."""
    return x[None, None].permute(0, 3, 1, 2)


def product(x: Tensor, matrix: Tensor, shift: Tensor | None = None) -> Tensor:
    """X matrix + 1 shift', (n, C')."""
    if _convolves(x, matrix):
        return torch.conv2d(_as_map(x), matrix.T[:, :, None, None], shift, dilation=DILATION)[0, :, 0].T
    return x @ matrix if shift is None else torch.addmm(shift, x, matrix)


def inner(x: Tensor, other: Tensor) -> Tensor:
    """X' Y, (C, C') in float32 or better, of rows (n, C) and (n, C')."""
    if x.device.type != "cpu":
        return _inner_in_chunks(x, other)
    if not _convolves(x, other):
        return x.T @ other
    kernel = x.new_empty(x.shape[1], other.shape[1], 1, 1)
    found: Tensor = torch.ops.aten.convolution_backward(
        _as_map(x), _as_map(other), kernel, None, (1, 1), (0, 0), DILATION, False, (0, 0), 1, (False, True, False)
    )[1]
    return found[:, :, 0, 0]


def _inner_in_chunks(x: Tensor, other: Tensor) -> Tensor:
    """The same on accelerators: a batch of products of :data:`CHUNK` rows each, and their sum."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    count = len(x) // CHUNK
    left, right = (rows[: count * CHUNK].view(count, CHUNK, rows.shape[1]) for rows in (x, other))
    last, own = (rows[count * CHUNK :].float() if half else rows[count * CHUNK :] for rows in (x, other))
    rest = last.T @ own
    if not half:
        return torch.bmm(left.mT, right).sum(0).add_(rest)
    if x.is_cuda and torch.version.hip is None and hasattr(torch.ops.aten.bmm, "dtype"):  # torch 2.8
        return torch.bmm(left.mT, right, out_dtype=torch.float32).sum(0).add_(rest)
    wide = left.float()
    return torch.bmm(wide.mT, wide if x is other else right.float()).sum(0).add_(rest)


def blocks(
    features: Tensor, weight: Tensor | None = None, kind: torch.dtype | None = torch.float32
) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Features (1, C, H, W) as X (n, C) in the dtype ``kind``, or in their own: which rows of H a block is, its rows of
    X, and its part of the weight.

    On the CPU they come in blocks that stay in the cache; what must be copied, being in another precision or a part of
    a larger map, each in the memory of the one before. On accelerators it is a single block.
    """
    maps = features.detach()[0].permute(1, 2, 0)  # (H, W, C)
    kind = kind or maps.dtype
    height, width, channels = maps.shape
    count = height if maps.device.type != "cpu" else max(1, BLOCK // (width * channels))
    viewed = maps.device.type != "cpu" or (maps.dtype == kind and maps.is_contiguous())
    room = None if viewed else torch.empty(min(count, height), width, channels, dtype=kind)
    for begin in range(0, height, count):
        rows = slice(begin, begin + count)
        own = None if weight is None else weight[begin * width : (begin + count) * width]
        x = maps[rows]
        x = x.to(kind) if room is None else room[: len(x)].copy_(x)
        yield rows, x.flatten(0, 1), own


# --- roots -----------------------------------------------------------------------------------------------------------


def root(
    matrix: Tensor, floor: Tensor, factor: Tensor | None = None, scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """tr (M + floor)^1/2 - tr floor^1/2, and F (M + floor)^-1/2 F' in float32, of a symmetric positive semidefinite
    M (k, k) and F (m, k), the identity unless given; for ``scale`` see :func:`roots`."""
    if matrix.device.type != "cpu":
        trace, inverse = roots(matrix[None], floor.view(1), None if scale is None else scale.view(1))
        return trace[0], inverse[0] if factor is None else factor @ inverse[0] @ factor.T
    if not torch.isfinite(matrix).all():  # LAPACK would raise; let the optimizer see the NaN
        size = len(matrix if factor is None else factor)
        return torch.full((), torch.nan, dtype=torch.float32), torch.full((size, size), torch.nan, dtype=torch.float32)
    values, vectors = torch.linalg.eigh(matrix)
    found = (values.clamp_min(0) + floor).sqrt()
    half = (vectors / found.sqrt()).float()
    if factor is not None:
        half = product(factor.float(), half)
    return (found - floor.sqrt()).sum(), product(half, half.T)


def roots(matrices: Tensor, floors: Tensor, scales: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """tr (M + floor)^1/2 - tr floor^1/2 (B,), and (M + floor)^-1/2 (B, k, k), of a batch of symmetric positive
    semidefinite M (B, k, k) with a floor each (B,).

    By products alone, for devices on which eigenvalues are slow: the coupled iteration for a root and its inverse
    (Higham 2008, eq. 6.35, there with Newton-Schulz's polynomial), with :data:`POLYNOMIALS`. Rounding leaves
    eigenvalues a little below zero, and those would grow: the floor is raised by :data:`ROUNDING` of the norm, or of
    ``scales`` (B,), the norms of what the matrices were multiplied from, where those are larger.
    """
    norm = torch.linalg.matrix_norm(matrices).clamp_min(1e-30)
    scales = norm if scales is None else torch.maximum(norm, scales)
    lift = (floors + ROUNDING * scales)[:, None, None]
    norm = norm[:, None, None]
    norm = SAFETY * norm + lift
    scaled = matrices / norm
    scaled.diagonal(dim1=1, dim2=2).add_((lift / norm)[:, 0])
    y, z = scaled, None  # y tends to the root, z to its inverse; both commute with the matrix
    for number, (a, b, c) in enumerate(POLYNOMIALS, 1):
        x = y if z is None else z @ y
        polynomial = torch.baddbmm(x, x, x, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        z = polynomial if z is None else polynomial @ z
        if number < len(POLYNOMIALS):
            y = y @ polynomial
    assert z is not None
    inverse = (z + z.mT) / (2 * norm.sqrt())
    trace = (scaled * inverse).sum((1, 2)) * norm[:, 0, 0] - matrices.shape[1] * lift[:, 0, 0].sqrt()
    return trace, inverse


def root_pair(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """M^1/2 and its pseudo-inverse, of a symmetric positive semidefinite M (k, k)."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    found = values.clamp_min(0).sqrt()
    kept = found > 1e-6 * found[-1].clamp_min(1e-30)
    inverse = torch.where(kept, 1 / found.where(kept, torch.ones_like(found)), torch.zeros_like(found))
    return (vectors * found) @ vectors.T, (vectors * inverse) @ vectors.T
