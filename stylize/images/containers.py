"""The structure of picture files: chunks of PNG and WebP, segments of JPEG, boxes of AVIF and HEIC.

Nothing is decoded; what is not as the format demands ends the walk.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"  # how segments of a JPEG begin
PHOTOSHOP_SEGMENT = b"Photoshop 3.0\0"
XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers of JPEG without a segment


@dataclass(frozen=True)
class Part:
    """A part of a file: its kind, and where its content is, in bytes."""

    kind: bytes
    start: int
    length: int

    def read(self, file: BinaryIO, limit: int) -> bytes:
        """Its content; empty where it is longer than ``limit``."""
        if self.length > limit:
            return b""
        file.seek(self.start)
        return file.read(self.length)


def png_parts(file: BinaryIO) -> Iterator[Part]:
    """The chunks of a PNG, up to and with IEND."""
    position = len(PNG_SIGNATURE)
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or not head[4:].isalpha():
            return
        part = Part(head[4:], position + 8, int.from_bytes(head[:4]))
        yield part
        if part.kind == b"IEND":
            return
        position = part.start + part.length + 4


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_text(kind: bytes, data: bytes, limit: int) -> tuple[bytes, bytes]:
    """The keyword and the text of a tEXt, zTXt or iTXt chunk; an empty text where it is damaged or beyond ``limit``."""
    keyword, _, rest = data.partition(b"\0")
    compressed = kind == b"zTXt"
    if compressed:
        rest = rest[1:]
    elif kind == b"iTXt":
        compressed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1] if rest.count(b"\0") >= 2 else b""
    if compressed:
        try:
            unpacker = zlib.decompressobj()
            rest = unpacker.decompress(rest, limit + 1)
        except zlib.error:
            rest = b""
    return keyword, rest if len(rest) <= limit else b""


def jpeg_parts(file: BinaryIO) -> Iterator[Part]:
    """The segments of a JPEG, up to and with the first SOS; the kind is the byte of the marker."""
    position = 2
    while True:
        file.seek(position)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return
        if head[1] == 0xFF:  # a fill byte
            position += 1
            continue
        if head[1] in _BARE:
            position += 2
            continue
        length = int.from_bytes(head[2:])
        if length < 2:
            return
        yield Part(head[1:2], position + 4, length - 2)
        if head[1] in (0xDA, 0xD9):
            return
        position += 2 + length


def riff_parts(file: BinaryIO) -> Iterator[Part]:
    """The chunks of a WebP."""
    position = 12
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or not head[:4].strip().isalnum():
            return
        part = Part(head[:4], position + 8, int.from_bytes(head[4:], "little"))
        yield part
        position = part.start + part.length + part.length % 2


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[Part]:
    """The boxes of an ISO media file between two offsets."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind, header = int.from_bytes(head[:4]), head[4:8], 8
        if size == 1:
            size, header = int.from_bytes(head[8:16]), 16
        elif size == 0:
            size = end - start
        if size < header:
            return
        yield Part(kind, start + header, size - header)
        start += size
