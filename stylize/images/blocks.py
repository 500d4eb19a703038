"""EXIF, XMP and IPTC of the formats of which Pillow reads the picture alone: Photoshop, JPEG 2000, JPEG XL and GIF."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from stylize.images import iptc
from stylize.images.containers import Part, boxes

LIMIT = 2**24  # bytes of a block
_IPTC, _RESOLUTION, _EXIF, _XMP = 1028, 1005, 1058, 1060  # Photoshop's image resources
_UUIDS = {
    b"JpgTiffExif->JP2": "exif",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): "iptc",
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "xmp",
}
_BOXES = {b"Exif": "exif", b"xml ": "xmp"}
_GIF_XMP = b"!\xff\x0bXMP DataXMP"
_GIF_END = b"\x01\xff\xfe\xfd"  # the trailer that leads a reader of sub-blocks out of the packet


@dataclass(frozen=True)
class Blocks:
    """Blocks as they are stored, empty where there are none, and the resolution across and down in dpi."""

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None


def blocks_of(file: BinaryIO, kind: str, notes: list[str]) -> Blocks:
    """What a file of a format, by its name, holds."""
    reader = _READERS.get(kind)
    return reader(file, notes) if reader else Blocks()


def _photoshop(file: BinaryIO, _: list[str]) -> Blocks:
    file.seek(26)
    (palette,) = struct.unpack(">I", file.read(4))
    file.seek(palette, 1)
    (length,) = struct.unpack(">I", file.read(4))
    found: dict[int, bytes] = {}
    try:
        for number, data in iptc.resources(file.read(min(length, LIMIT))):
            found.setdefault(number, data)
    except (struct.error, IndexError):  # damaged: what is before counts
        pass
    dpi = None
    if len(data := found.get(_RESOLUTION, b"")) == 16:
        across, down = struct.unpack_from(">I", data)[0] / 65536, struct.unpack_from(">I", data, 8)[0] / 65536
        dpi = (across, down)
    return Blocks(found.get(_EXIF, b""), found.get(_XMP, b""), found.get(_IPTC, b""), dpi)


def _jpeg_2000(file: BinaryIO, _: list[str]) -> Blocks:
    found: dict[str, bytes] = {}
    for box in _boxes_of(file):
        if box.kind == b"uuid":
            data = box.read(file, LIMIT)
            if name := _UUIDS.get(data[:16]):
                found.setdefault(name, data[16:])
    return _named(found)


def _jpeg_xl(file: BinaryIO, notes: list[str]) -> Blocks:
    found: dict[str, bytes] = {}
    for box in _boxes_of(file):
        kind, data = box.kind, b""
        if kind == b"brob":
            packed = box.read(file, LIMIT)
            kind = packed[:4]
            data = _unpacked(packed[4:], notes) if kind in _BOXES else b""
        elif kind in _BOXES:
            data = box.read(file, LIMIT)
        if data:
            bare = kind != b"Exif" or data[:4] in (b"II*\0", b"MM\0*")  # some writers leave the offset out
            start = 0 if bare else 4 + int.from_bytes(data[:4])
            found.setdefault(_BOXES[kind], data[start:])
    return _named(found)


def _unpacked(data: bytes, notes: list[str]) -> bytes:
    try:
        brotli: Any = importlib.import_module("brotli")
        made: bytes = brotli.Decompressor().process(data, output_buffer_limit=LIMIT)
    except ImportError:
        note = "compressed EXIF and XMP left out, which need an extra: pip install 'stylize-host[photo]'"
        notes += [] if note in notes else [note]
        return b""
    except Exception:  # damaged; brotli's own kind of error is known only where it is installed
        return b""
    return made


def _named(found: dict[str, bytes]) -> Blocks:
    return Blocks(found.get("exif", b""), found.get("xmp", b""), found.get("iptc", b""))


def _boxes_of(file: BinaryIO) -> list[Part]:
    file.seek(0)
    if file.read(4) != b"\0\0\0\x0c":  # a bare codestream
        return []
    return [*boxes(file, 0, file.seek(0, 2))]


def _gif(file: BinaryIO, _: list[str]) -> Blocks:
    file.seek(0)
    data = file.read()
    start = data.find(_GIF_XMP)
    end = data.find(_GIF_END, start)
    return Blocks(xmp=data[start + len(_GIF_XMP) : end]) if 0 <= start < end else Blocks()


_READERS: dict[str, Callable[[BinaryIO, list[str]], Blocks]] = {
    "Photoshop": _photoshop,
    "JPEG 2000": _jpeg_2000,
    "JPEG XL": _jpeg_xl,
    "GIF": _gif,
}
