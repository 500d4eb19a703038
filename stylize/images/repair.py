"""Files that are whole but for what does not matter: texts, side information with wrong checksums, a missing end."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from PIL import Image

from stylize.images.containers import PNG_SIGNATURE, Part, jpeg_parts, png_chunk, png_parts

_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PROFILE_LIMIT = 2**26
_FILLERS = (b"\0" * 64, b"\x5a" * 64)


def png_profile(file: BinaryIO) -> bytes:
    """The ICC profile of a PNG, or nothing; Pillow refuses those above 1 MB."""
    for part in png_parts(file):
        if part.kind == b"iCCP":
            data = part.read(file, _PROFILE_LIMIT)
            try:
                return zlib.decompressobj().decompress(data.partition(b"\0")[2][1:], _PROFILE_LIMIT)
            except zlib.error:
                return b"damaged"
        if part.kind == b"IDAT":
            break
    return b""


def png_essence(file: BinaryIO, *, always: bool = False) -> tuple[io.BytesIO | None, bool]:
    """A PNG without its texts and profile, and whether damaged side information was left out.

    None where the file can be decoded as it is, unless ``always``: a decoder refuses large texts, which may be small
    while they are compressed, and wrong checksums also where they are of no consequence.
    """
    parts = [*png_parts(file)]
    dropped: set[int] = set()
    end = bool(parts) and parts[-1].kind == b"IEND" and _is_sound(file, parts[-1])
    damaged = not end and b"IDAT" in {part.kind for part in parts}
    if damaged:  # Pillow still notices where pixels are missing, too
        dropped |= {parts[-1].start} if parts[-1].kind == b"IEND" else set()
    for part in parts:
        if part.kind in (*_TEXTS, b"iCCP"):
            dropped.add(part.start)
        elif part.kind[:1].islower() and part.kind not in (b"fdAT", b"fcTL", b"acTL") and not _is_sound(file, part):
            dropped.add(part.start)
            damaged = True
    if not dropped and not damaged and not always:
        return None, False
    made = io.BytesIO()
    made.write(PNG_SIGNATURE)
    for part in parts:
        if part.start not in dropped:
            file.seek(part.start - 8)
            made.write(file.read(part.length + 12))
    if not end:
        made.write(png_chunk(b"IEND", b""))
    made.seek(0)
    return made, damaged


def _is_sound(file: BinaryIO, part: Part) -> bool:
    file.seek(part.start - 8)
    data = file.read(part.length + 12)
    return data == png_chunk(part.kind, data[8:-4])


def completed_jpeg(file: BinaryIO) -> io.BytesIO | None:
    """A JPEG that lacks only the mark of its end, with that mark; None where pixels are missing, too.

    All coefficients of all components must have a scan, and the last one must be whole: then what is put after it
    changes no pixel.
    """
    file.seek(0)
    data = file.read().rstrip(b"\xff")
    if b"\xff\xd9" in data[-2:] or not _has_all_scans(file, data):
        return None
    seen = []
    for filler in _FILLERS:
        with Image.open(io.BytesIO(data + filler + b"\xff\xd9"), formats=["JPEG"]) as image:
            seen.append(image.tobytes())
    return io.BytesIO(data + b"\xff\xd9") if seen[0] == seen[1] else None


def _has_all_scans(file: BinaryIO, data: bytes) -> bool:
    components: set[int] = set()
    covered: dict[int, set[int]] = {}
    position = 0
    for part in jpeg_parts(file):
        if part.kind[0] in {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}:
            frame = part.read(file, 2**16)
            components = {frame[6 + 3 * index] for index in range(frame[5])}
        position = part.start - 4
    while 0 <= position < len(data) - 8:
        if data[position + 1] == 0xDA:  # a scan: its components, spectral range and approximation
            count = data[position + 4]
            last = position + 5 + 2 * count
            if last + 2 < len(data) and not data[last + 2] & 15:
                for index in range(count):
                    of = data[position + 5 + 2 * index]
                    covered.setdefault(of, set()).update(range(data[last], data[last + 1] + 1))
            position = last
        position = data.find(b"\xff\xda", position)
    return bool(components) and all(covered.get(each, set()) >= set(range(64)) for each in components)
