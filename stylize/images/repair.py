"""Files that are whole but for what does not matter: texts, side information with wrong checksums, a missing end."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from PIL import Image

from stylize.images.containers import PNG_SIGNATURE, Part, boxes, jpeg_parts, png_chunk, png_parts

_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ANIMATION = (b"fdAT", b"fcTL", b"acTL")
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
    while they are compressed, and wrong checksums also where they are of no consequence. ``always``, too, a PNG that
    moves becomes its still picture.
    """
    parts = [*png_parts(file)]
    dropped: set[int] = set()
    end = bool(parts) and parts[-1].kind == b"IEND" and _is_sound(file, parts[-1])
    damaged = not end and b"IDAT" in {part.kind for part in parts}
    if damaged:  # Pillow still notices where pixels are missing, too
        dropped |= {parts[-1].start} if parts[-1].kind == b"IEND" else set()
    for part in parts:
        if part.kind in (*_TEXTS, b"iCCP") or (always and part.kind in _ANIMATION):
            dropped.add(part.start)
        elif part.kind[:1].islower() and part.kind not in _ANIMATION and not _is_sound(file, part):
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


def jp2_palette(file: BinaryIO, length: int) -> bytes:
    """The palette of a JPEG 2000, three bytes an entry, or nothing where it has none of 8 bits.

    Pillow passes over entries that are alike, so that those behind them move, and over the order of the channels.
    """
    header = next((box for box in boxes(file, 0, length) if box.kind == b"jp2h"), None)
    if header is None:
        return b""
    found = {box.kind: box.read(file, 2**16) for box in boxes(file, header.start, header.start + header.length)}
    palette, mapped, defined = (found.get(kind, b"") for kind in (b"pclr", b"cmap", b"cdef"))
    count, columns = int.from_bytes(palette[:2]), palette[2] if len(palette) > 2 else 0
    table = palette[3 + columns :]
    if columns < 3 or any(bits != 7 for bits in palette[3 : 3 + columns]) or len(table) < count * columns:
        return b""
    order = {color: color for color in range(3)}  # the channels of red, green and blue
    for at in range(2, len(defined) - 5, 6):
        channel, kind, color = (int.from_bytes(defined[at + step : at + step + 2]) for step in (0, 2, 4))
        if kind == 0 and 1 <= color <= 3:
            order[color - 1] = channel
    column = {index: mapped[4 * index + 3] for index in range(len(mapped) // 4)}
    places = [column.get(order[color], order[color]) for color in range(3)]
    if max(places) >= columns:
        return b""
    return bytes(table[columns * entry + place] for entry in range(count) for place in places)
