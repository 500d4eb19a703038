"""ICC profiles of tables, as printers, scanners and CMYK have them: device values -> sRGB in floating point.

For pictures of more than 8 bits: the colour engine that reads the others (littleCMS, by Pillow) takes 8. Rendering is
that engine's: perceptual, with black point compensation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylize.images.encodings import D50, curve, icc_tags, lab_to_xyz, xyz_to_srgb

Array = NDArray[Any]
Stage = Callable[[Array], Array]  # (N, channels) -> (N, channels)

_SPACES = {b"RGB ": 3, b"CMYK": 4}
_PERCEPTUAL_BLACK = np.array([0.00336, 0.0034731, 0.00287])  # XYZ of black in the perceptual tables of ICC version 4
_STRIP = 2**18  # pixels converted at once


@dataclass(frozen=True)
class Tables:
    """The way from device values in [0, 1] to the connection space. ``black`` is the XYZ that becomes black."""

    channels: int
    stages: tuple[Stage, ...]
    black: Array
    hdr: bool = False

    def to_srgb(self, values: Array) -> Array:
        """(H, W, channels or more) float32 in [0, 1] -> sRGB in the first three channels, and what follows the device's
        channels behind it."""
        height, width = values.shape[:2]
        made = np.empty((height, width, 3 + values.shape[2] - self.channels), np.float32)
        made[..., 3:] = values[..., self.channels :]
        rows = max(1, _STRIP // max(1, width))
        for top in range(0, height, rows):
            part = values[top : top + rows, :, : self.channels]
            xyz = self._xyz(part.reshape(-1, self.channels))
            xyz = D50 * (xyz - self.black) / (D50 - self.black)
            made[top : top + rows, :, :3] = xyz_to_srgb(xyz).reshape(*part.shape[:2], 3)
        return made

    def _xyz(self, values: Array) -> Array:
        for stage in self.stages:
            values = stage(values)
        return values


def of_tables(profile: bytes) -> Tables | None:
    """The tables of a profile of RGB or CMYK; None where it has none, or of another kind."""
    try:
        tags = icc_tags(profile)
        data, space = tags[b"A2B0"], profile[20:24]
        channels = _SPACES[profile[16:20]]
        if space not in (b"Lab ", b"XYZ "):
            return None
        stages = {b"mft1": _of_bytes, b"mft2": _of_words, b"mAB ": _of_elements}[data[:4]](data, channels)
        stages.append(_from_lab(data[:4]) if space == b"Lab " else _from_xyz)
        made = Tables(channels, tuple(stages), np.zeros(3))
        made.to_srgb(np.full((1, 1, channels), 0.5, np.float32))
        return Tables(channels, made.stages, _black(profile, made))
    except (KeyError, struct.error, ValueError, IndexError):
        return None


def _black(profile: bytes, tables: Tables) -> Array:
    """The XYZ of the darkest colour that a device has."""
    if profile[8] >= 4:
        return _PERCEPTUAL_BLACK
    darkest = np.full((1, tables.channels), 1.0 if tables.channels == 4 else 0.0, np.float32)
    black: Array = tables._xyz(darkest)[0]
    return black


def _from_lab(kind: bytes) -> Stage:
    if kind == b"mft2":  # in which 0xff00 is 100
        scale, offset = np.array([100, 256, 256]) * (65535 / 65280), np.array([0, -128, -128])
        scale[1:] = 65535 / 256
    else:
        scale, offset = np.array([100.0, 255, 255]), np.array([0, -128, -128])
    return lambda values: lab_to_xyz(values.astype(np.float64) * scale + offset)


def _from_xyz(values: Array) -> Array:
    made: Array = values.astype(np.float64) * (1 + 32767 / 32768)
    return made


def _of_bytes(data: bytes, channels: int) -> list[Stage]:
    return _of_lut(data, channels, 48, "u1", 256, 256)


def _of_words(data: bytes, channels: int) -> list[Stage]:
    entries = struct.unpack_from(">2H", data, 48)
    return _of_lut(data, channels, 52, ">u2", *entries)


def _of_lut(data: bytes, channels: int, start: int, kind: str, first: int, last: int) -> list[Stage]:
    """Curves of ``first`` entries, a grid, and curves of ``last`` entries."""
    inputs, outputs, side = data[8], data[9], data[10]
    counts = [inputs * first, side**inputs * outputs, outputs * last]
    if inputs != channels or outputs != 3 or side < 2 or first < 2 or last < 2:
        raise ValueError("another kind of table")
    values = np.frombuffer(data, kind, sum(counts), start).astype(np.float32) / (255 if kind == "u1" else 65535)
    before, grid, after = np.split(values, np.cumsum(counts)[:2])
    return [
        _curves([_sampled(row) for row in before.reshape(inputs, first)]),
        _grid(grid.reshape(-1, outputs), (side,) * inputs),
        _curves([_sampled(row) for row in after.reshape(outputs, last)]),
    ]


def _of_elements(data: bytes, channels: int) -> list[Stage]:
    """Up to five elements: curves, a grid, curves, a matrix, curves."""
    inputs, outputs = data[8], data[9]
    last, matrix, middle, grid, first = struct.unpack_from(">5I", data, 12)
    if inputs != channels or outputs != 3:
        raise ValueError("another kind of table")
    stages: list[Stage] = []
    if grid:
        stages.append(_curves(_read_curves(data, first, inputs)))
        shape = tuple(data[grid : grid + inputs])
        kind, white = ("u1", 255) if data[grid + 16] == 1 else (">u2", 65535)
        values = np.frombuffer(data, kind, int(np.prod(shape)) * outputs, grid + 20).astype(np.float32) / white
        stages.append(_grid(values.reshape(-1, outputs), shape))
    if matrix:
        numbers = np.array(struct.unpack_from(">12i", data, matrix)) / 65536
        stages.append(_curves(_read_curves(data, middle, outputs)))
        stages.append(partial(_by_matrix, numbers))
    return [*stages, _curves(_read_curves(data, last, outputs))]


def _by_matrix(numbers: Array, values: Array) -> Array:
    made: Array = np.clip(values @ numbers[:9].reshape(3, 3).T + numbers[9:], 0, 1)
    return made


def _read_curves(data: bytes, start: int, count: int) -> list[Stage]:
    """Curves that follow each other, each at a multiple of four bytes."""
    made: list[Stage] = []
    for _ in range(count):
        if data[start : start + 4] == b"para":
            length = 12 + 4 * {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}[struct.unpack_from(">H", data, start + 8)[0]]
        else:
            length = 12 + 2 * struct.unpack_from(">I", data, start + 8)[0]
        made.append(curve(data[start : start + length]))
        start += -(-length // 4) * 4
    return made


def _sampled(table: Array) -> Stage:
    grid = np.linspace(0, 1, len(table), dtype=np.float32)
    return lambda values: np.interp(values, grid, table).astype(np.float32)


def _curves(curves: list[Stage]) -> Stage:
    return lambda values: np.stack([each(values[:, index]) for index, each in enumerate(curves)], axis=1)


def _grid(nodes: Array, shape: tuple[int, ...]) -> Stage:
    """Interpolation between the nodes of a grid: in tetrahedra over the last three channels, linear over one before."""
    if min(shape) < 2:
        raise ValueError("a grid without a width")
    sides = np.array(shape)
    strides = np.array([int(np.prod(shape[index + 1 :])) for index in range(len(shape))])
    alone = len(shape) > 3

    def interpolated(values: Array) -> Array:
        places = np.clip(values, 0, 1) * (sides - 1)
        low = np.minimum(places.astype(np.int64), sides - 2)
        parts, node = (places - low).astype(np.float32), low @ strides
        if not alone:
            return _in_simplices(nodes, node, parts, strides)
        low_end, high_end = (
            _in_simplices(nodes, node + step, parts[:, 1:], strides[1:]) for step in (0, int(strides[0]))
        )
        low_end += parts[:, :1] * (high_end - low_end)
        return low_end

    return interpolated


def _in_simplices(nodes: Array, node: Array, parts: Array, strides: Array) -> Array:
    """The value at ``parts`` of the way from a node to the next along each channel."""
    order = np.argsort(-parts, axis=1)
    falling = np.take_along_axis(parts, order, 1)
    made: Array = nodes[node] * (1 - falling[:, :1])
    for index in range(len(strides)):
        node = node + strides[order[:, index]]
        rest = falling[:, index + 1 : index + 2] if index + 1 < len(strides) else np.float32(0)
        made += nodes[node] * (falling[:, index : index + 1] - rest)
    return made
