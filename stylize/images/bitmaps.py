"""BMP with fields of bits that Pillow lacks, and Photoshop documents of 16 bits or of the large kind."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stylize.images import iptc
from stylize.images.tiff import Samples, by_libtiff

Array = NDArray[Any]
Check = Callable[[int, int], None]

_FIELDS = (3, 6)  # compressions of a BMP: fields of bits, with and without alpha
_PLAIN = {(0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0)}  # of 16 bits
_BYTES = {0, 0xFF, 0xFF00, 0xFF0000, 0xFF000000}
_CHANNELS = {1: 1, 3: 3, 4: 4}  # of Photoshop's grey, RGB and CMYK
_PROFILE = 1039  # one of Photoshop's image resources


def bmp_samples(file: BinaryIO, check: Check) -> Samples | None:
    """The samples of a BMP whose fields of bits Pillow does not read, or not in full; None for all others.

    Alpha that is 0 everywhere is none.
    """
    file.seek(0)
    head = file.read(70)
    if len(head) < 70:
        return None
    start, length, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", head, 10)
    if length < 40 or compression not in _FIELDS or bits not in (16, 32):
        return None
    masks = struct.unpack_from("<4I", head, 54)
    if length < 56 and compression == _FIELDS[0]:
        masks = (*masks[:3], 0)
    if masks in _PLAIN if bits == 16 else set(masks) <= _BYTES:
        return None
    check(width, abs(height))
    row = -(-width * bits // 32) * 4
    file.seek(start)
    data = file.read(row * abs(height))
    if len(data) < row * abs(height):
        raise OSError("image file is truncated")
    words = np.frombuffer(data, f"<u{bits // 8}").reshape(abs(height), -1)[:: 1 if height < 0 else -1, :width]
    planes = [_field(words, mask) for mask in masks[: 4 if masks[3] else 3]]
    has_alpha = len(planes) == 4 and bool(planes[3].any())
    return Samples(np.stack(planes[: 3 + has_alpha], axis=2), 1.0, has_alpha, 1)


def _field(words: Array, mask: int) -> Array:
    """The part of words under a mask, in [0, 1]."""
    low = (mask & -mask).bit_length() - 1 if mask else 0
    highest = max(1, mask >> low)
    values: Array = ((words & np.asarray(mask, words.dtype)) >> np.asarray(low, words.dtype)).astype(np.float32)
    return values / np.float32(highest)


@dataclass(frozen=True)
class Document:
    """The merged picture of a Photoshop document, its bits and its ICC profile, or nothing."""

    samples: Samples
    bits: int
    profile: bytes


def photoshop_document(file: BinaryIO, check: Check) -> Document | None:
    """A document that Pillow does not read; None for all others, and for kinds that are not read here either."""
    file.seek(0)
    head = file.read(26)
    if len(head) < 26:
        return None
    version, count, height, width, bits, mode = struct.unpack(">4xH6xHIIHH", head)
    colors = _CHANNELS.get(mode, 0)
    if (version, bits) not in ((1, 16), (2, 8), (2, 16)) or not 0 < colors <= count:
        return None
    check(width, height)
    file.seek(_length(file, 4), 1)
    resources = file.read(_length(file, 4))
    file.seek(_length(file, 4 * version), 1)  # layers
    (compression,) = struct.unpack(">H", file.read(2))
    has_alpha = count > colors
    row, planes = width * bits // 8, colors + has_alpha
    if compression == 1:
        sizes = np.frombuffer(file.read(2 * version * height * count), f">u{2 * version}").reshape(count, height)
        parts = [by_libtiff(file.read(int(each.sum())), 32773, row, height) for each in sizes[:planes]]
    elif compression == 0:
        parts = [file.read(row * height) for _ in range(planes)]
    else:
        return None
    if any(len(part) < row * height for part in parts):
        raise OSError("image file is truncated")
    values = np.stack([np.frombuffer(part, f">u{bits // 8}").reshape(height, width) for part in parts], axis=2)
    values = values.astype(np.uint16 if bits == 16 else np.uint8)
    white = 2**bits - 1
    if mode == 4:  # which stores paper, not ink
        values[..., :4] = white - values[..., :4]
    profile = next((data for number, data in iptc.resources(resources) if number == _PROFILE), b"")
    return Document(Samples(values, float(white), has_alpha, 1, mode == 4), bits, profile)


def _length(file: BinaryIO, size: int) -> int:
    data = file.read(size)
    if len(data) < size:
        raise OSError("image file is truncated")
    return int.from_bytes(data)
