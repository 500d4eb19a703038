"""FITS, the pictures of telescopes: grey or in three planes, of whole or floating-point numbers, with BSCALE and BZERO,
which Pillow passes over."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stylize.errors import ImageError
from stylize.images.levels import float_white, whole_levels
from stylize.images.tiff import Samples

_CARD, _BLOCK, _MOST = 80, 2880, 1000  # bytes, bytes, blocks of a header
_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


def fits_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height of the picture at the beginning of a FITS file; None if there is none, or a compressed one."""
    header, _ = _header(file)
    axes = _axes(header)
    return (axes[0], axes[1]) if axes and _integer(header, "BITPIX") in _TYPES else None


def fits_samples(file: BinaryIO) -> tuple[Samples, int, list[str]]:
    """The picture at the beginning of a FITS file, its bits per channel, and what is to be said of it.

    Raises:
        ImageError: it is truncated, or holds NaN or infinite values.
    """
    header, start = _header(file)
    width, height, planes = _axes(header) or (0, 0, 0)
    bits = _integer(header, "BITPIX") or 8
    used = 3 if planes == 3 else 1
    kind = np.dtype(_TYPES[bits])
    length = used * height * width * kind.itemsize
    if file.seek(0, 2) - start < length:
        raise ImageError("truncated or damaged; get a complete copy")
    file.seek(start)
    data = file.read(length)
    stored = np.frombuffer(data, kind).reshape(used, height, width)
    values: NDArray[Any] = np.moveaxis(stored, 0, 2)[::-1]  # rows begin at the bottom
    notes = [f"first of {planes} planes used"] if planes not in (1, 3) else []
    scale, zero = _number(header, "BSCALE", 1.0), _number(header, "BZERO", 0.0)
    if bits < 0 or scale != 1 or zero != round(zero):
        real = values.astype(np.float64) * scale + zero
        return Samples(real.astype(np.float32), float_white(real), False, 1), abs(bits), notes
    unsigned = zero == (0 if bits == 8 else 2 ** (bits - 1))  # how FITS stores unsigned numbers
    whole: NDArray[Any] = values.astype(np.int64)
    if bits == 64 and unsigned:
        whole = whole.view(np.uint64) ^ np.uint64(2**63)
    elif abs(zero) < 2**62:
        whole += int(zero)
    levels, white, note = whole_levels(whole, bits, signed=not unsigned)
    return Samples(levels, white, False, 1, note=note), bits, notes


def _header(file: BinaryIO) -> tuple[dict[str, str], int]:
    """The values of the header, and where the data begins."""
    file.seek(0)
    header: dict[str, str] = {}
    for number in range(_MOST):
        block = file.read(_BLOCK).decode("ascii", "replace")
        for at in range(0, len(block), _CARD):
            card = block[at : at + _CARD]
            if card[:8].strip() == "END":
                return header, (number + 1) * _BLOCK
            if card[8:10] == "= ":
                header.setdefault(card[:8].strip(), card[10:].split("/")[0].strip())
        if len(block) < _BLOCK:
            break
    return {}, 0


def _axes(header: dict[str, str]) -> tuple[int, int, int] | None:
    """Width, height and planes."""
    count = _integer(header, "NAXIS") or 0
    sizes = [_integer(header, f"NAXIS{number}") or 0 for number in range(1, count + 1)] if 2 <= count <= 9 else []
    if not sizes or min(sizes) < 1 or any(size > 1 for size in sizes[3:]):
        return None
    return sizes[0], sizes[1], sizes[2] if count > 2 else 1


def _integer(header: dict[str, str], key: str) -> int | None:
    try:
        return int(header[key])
    except (KeyError, ValueError):
        return None


def _number(header: dict[str, str], key: str, default: float) -> float:
    try:
        found = float(header[key].upper().replace("D", "E"))
    except (KeyError, ValueError):
        return default
    return found if np.isfinite(found) else default
