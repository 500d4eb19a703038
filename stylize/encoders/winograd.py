"""3x3 convolutions with a quarter of the multiplications, in float32 on the CPU.

Winograd's minimal filtering F(4x4, 3x3) (Lavin, Gray 2016): tiles of 6x6 of the input, four apart, and the kernel are
taken to the values of polynomials at 36 points, where the convolution is a product of matrices at each of them, and
back to 4x4 of the output.

The points, in each direction, are 0, 2/3, -2/3, 3/2, -3/2 and infinity. With them rounding errors are half of what the
usual 0, 1, -1, 2, -2 give, and as good as those of a direct convolution (5e-7 against 4e-7 of the features in 128
channels, 1.1e-6 against 6e-7 of the gradient). They are closed under inversion, too: the kernel turned by 180 degrees,
which brings a gradient back, has the same values in another order, and both ways share one set of them.
"""

from __future__ import annotations

import itertools
import threading
from functools import cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from stylize.devices import cpu_capabilities

POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)  # and infinity
INVERSE = [5, 3, 4, 1, 2, 0]  # where in this list the inverse of each is
OUT, IN = 4, 6  # sides of a tile of the output, and of the input
CHUNK = 256  # tiles: what is worked on at once, to stay in the cache
APART = 48  # numbers between the rows of a buffer, which would share the same lines of the cache otherwise
FEWEST_CHANNELS, FEWEST_TILES = 96, 12  # with fewer the usual way is faster

_room = threading.local()


class Winograd:
    """A convolution of stride 1 with zeros around the picture, and the way back through it.

    Args:
        weight: (O, C, 3, 3), float32 on the CPU.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._known: Tensor | None = None

    @classmethod
    def of(cls, weight: Tensor) -> Winograd | None:
        """That of a weight, where it is faster than the usual way."""
        plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        return cls(weight) if plain and min(weight.shape[:2]) >= FEWEST_CHANNELS and _gains() else None

    @property
    def values_bytes(self) -> int:
        """What the values of the kernel take."""
        return self._weight.nbytes * IN**2 // 9

    @property
    def room(self) -> int:
        """The bytes of its buffers, which all convolutions of a thread share, but for very wide pictures."""
        made, channels = self._weight.shape[:2]
        return 4 * CHUNK * ((2 * IN**2 + OUT**2) * channels + (IN**2 + OUT**2) * made)

    def pays(self, height: int, width: int) -> bool:
        """Whether it is faster for maps of that size, too."""
        return -(-height // OUT) * -(-width // OUT) >= FEWEST_TILES

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """relu(x * weight + bias), (1, O, H, W) in channels-last, of (1, C, H, W)."""
        return _filter(x, self._values, bias)

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to x, (1, C, H, W) in channels-last, from that of x * weight, (1, O, H, W)."""
        return _filter(gradient, self._values.transpose(1, 2), None, turned=True)

    @property
    def _values(self) -> Tensor:
        """Those of the kernel, (36, C, O): four times its size, so made when they are needed."""
        if self._known is None:
            kernel = _polynomials()[2]
            values = torch.einsum("ai,ocij,bj->abco", kernel, self._weight.double(), kernel)
            self._known = values.float().flatten(0, 1).contiguous()
        return self._known


@cache
def _gains() -> bool:
    """Whether products of matrices are about as fast as convolutions. On AMD's Zen 5 they are half as fast: the one are
    MKL's, which keeps to AVX2 there, the others oneDNN's, which does not. (Zen 4 has AVX-512, but no faster for it.)"""
    known = cpu_capabilities()
    return not (str(known.get("cpu_name")).startswith("AMD") and known.get("avx512_f") and known.get("avx_vnni"))


@cache
def _polynomials() -> tuple[Tensor, Tensor, Tensor]:
    """In one dimension, float64: what takes the input to its values (6, 6), what brings the output back (4, 6), and
    what takes the kernel to its values (6, 3)."""
    taken, brought, kernel = np.zeros((IN, IN)), np.zeros((OUT, IN)), np.zeros((IN, 3))
    for row, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        taken[row, :-1] = np.poly(others)[::-1]
        brought[:, row] = point ** np.arange(OUT)
        kernel[row] = point ** np.arange(3) / np.prod([point - other for other in others])
    taken[-1] = np.poly(POINTS)[::-1]
    brought[-1, -1] = kernel[-1, -1] = 1
    return torch.from_numpy(taken), torch.from_numpy(brought), torch.from_numpy(kernel)


@cache
def _transforms(*, turned: bool = False) -> tuple[Tensor, Tensor]:
    """What takes tiles of the input to their values (36, 36), and what brings tiles of the output back (16, 36); if
    ``turned``, in the order of a kernel that is used turned by 180 degrees."""
    taken, brought, kernel = _polynomials()
    if turned:
        swapped = kernel[INVERSE]  # in each row a multiple of the turned kernel's
        factors = (kernel.flip(1) * swapped).sum(1) / swapped.square().sum(1)
        taken, brought = (factors[:, None] * taken)[INVERSE], brought[:, INVERSE]
    return torch.kron(taken, taken).float(), torch.kron(brought, brought).float()


def _filter(x: Tensor, kernel: Tensor, bias: Tensor | None, *, turned: bool = False) -> Tensor:
    """The convolution of (1, C, H, W) with the kernel of these values (36, C, O), (1, O, H, W); with a bias, its ReLU.

    Tiles are worked on some rows of them at a time.
    """
    taken, brought = _transforms(turned=turned)
    maps = x[0].permute(1, 2, 0)
    (height, width, channels), made = maps.shape, kernel.shape[2]
    down, across = -(-height // OUT), -(-width // OUT)
    rows = max(1, min(down, CHUNK // across))
    seen, tiles, values, products, squares = _buffers(rows, across, channels, made)
    seen[:, 0] = 0
    seen[:, width + 1 :] = 0
    result = torch.empty(down * OUT, across * OUT, made, dtype=torch.float32)
    for first in range(0, down, rows):
        count = min(rows, down - first)
        number = count * across
        top, bottom = first * OUT - 1, min((first + count) * OUT + 1, height)
        begin, end = max(top, 0) - top, bottom - top
        seen[:begin] = 0
        seen[begin:end, 1 : width + 1] = maps[max(top, 0) : bottom]
        seen[end:] = 0
        line, step, _ = seen.stride()
        cut = seen.as_strided((IN, IN, count, across, channels), (line, step, OUT * line, OUT * step, 1))
        tiles[:, : number * channels].view(cut.shape).copy_(cut)
        torch.mm(taken, tiles, out=values)
        torch.bmm(_cut(values, number, channels), kernel, out=_cut(products, number, made))
        torch.mm(brought, products, out=squares)
        into = result[first * OUT : (first + count) * OUT]
        view = into.view(count, OUT, across, OUT, made)
        square = squares[:, : number * made].view(OUT, OUT, count, across, made).permute(2, 0, 3, 1, 4)
        if bias is None:
            view.copy_(square)
        else:
            torch.add(square, bias, out=view)
            into.clamp_min_(0)
    return result[:height, :width].contiguous().permute(2, 0, 1)[None]


def _cut(buffer: Tensor, number: int, channels: int) -> Tensor:
    """The first tiles of a buffer (planes, ...), (planes, number, channels)."""
    return buffer[:, : number * channels].view(len(buffer), number, channels)


def _buffers(rows: int, across: int, channels: int, made: int) -> list[Tensor]:
    """Room for the padded input and the tiles' input, values, products, output: the same memory again and again, as
    new memory costs more time than what is done in it."""
    wide, out = (rows * across * count + APART for count in (channels, made))
    shapes = [(rows * OUT + 2, across * OUT + 2, channels), (IN**2, wide), (IN**2, wide), (IN**2, out), (OUT**2, out)]
    ends = list(itertools.accumulate(prod(shape) for shape in shapes))
    space: Tensor | None = getattr(_room, "space", None)
    if space is None or len(space) < ends[-1]:
        with torch.inference_mode(mode=False):  # else it could not be written to outside of it
            space = _room.space = torch.zeros(ends[-1], dtype=torch.float32)
    return [space[end - prod(shape) : end].view(shape) for shape, end in zip(shapes, ends, strict=True)]
