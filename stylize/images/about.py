"""What a photographer put into a file beside the pixels: EXIF, XMP, IPTC, resolution; read for what is made from it."""

from __future__ import annotations

import contextlib
import re
from typing import Any, BinaryIO

from PIL import Image

from stylize.images import exif, iptc, xmp
from stylize.images.blocks import LIMIT, blocks_of
from stylize.images.containers import PHOTOSHOP_SEGMENT, XMP_EXTENSION, XMP_SEGMENT, jpeg_parts, png_parts, png_text
from stylize.images.ifd import Tags
from stylize.images.picture import About

_RAW = b"Raw profile type "  # how ImageMagick and exiftool call blocks in texts of a PNG
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_CENTIMETRES = 3  # the unit of resolution in TIFF
_MOVES = re.compile(rb"""Camera:(?:MotionPhoto|MicroVideo)(?:=["']|>)\s*1""")


def of_image(
    image: Image.Image, file: BinaryIO | None, kind: str, bits: int, notes: list[str], *, colors: bool = True
) -> tuple[Any, About]:
    """The EXIF block, if any, and the rest of what an image that Pillow has opened carries; without ``colors``, what it
    says of its colour space stays."""
    if kind == "TIFF" and file is not None:
        return of_tiff(file, bits, notes, colors=colors)
    block = image.info.get("exif") or b""
    packet, resources, records = image.info.get("xmp") or b"", b"", b""
    dpi = image.info.get("dpi")
    if kind == "PNG" and file is not None:
        texts = _png_blocks(file)
        packet = packet or texts.get("xmp", b"")
        block = block or texts.get("exif", b"") or texts.get("APP1", b"")
        resources = texts.get("iptc", b"") or texts.get("8bim", b"")
        records = resources if resources[:1] == b"\x1c" else b""
    elif kind == "JPEG" and file is not None:
        packet = _jpeg_packet(file) or packet
        if b"hdrgm:" in packet:
            notes.append("HDR gain map left out")
        if _MOVES.search(packet):
            notes.append("film of the motion photo left out")
        resources = _jpeg_resources(file)
    elif file is not None:
        others = blocks_of(file, kind, notes)
        block, packet, dpi = block or others.exif, packet or others.xmp, dpi or others.dpi
        records = (image.info.get("photoshop") or {}).get(0x0404, b"") or others.iptc or exif.iptc_in(bytes(block))
    if not block and kind != "PNG":
        with contextlib.suppress(Exception):  # a corrupt EXIF block is no reason to refuse the picture
            block = image.getexif().tobytes() if len(image.getexif()) else b""
    found = _about(packet, records or iptc.in_resources(resources), dpi, bits, notes, colors)
    return exif.cleaned(bytes(block), colors=colors) if block else None, found


def of_photoshop(file: BinaryIO, bits: int, notes: list[str], *, colors: bool = True) -> tuple[Any, About]:
    """The same of a Photoshop document."""
    found = blocks_of(file, "Photoshop", notes)
    made = _about(found.xmp, found.iptc, found.dpi, bits, notes, colors)
    return exif.cleaned(found.exif, colors=colors) if found.exif else None, made


def packet_of(image: Image.Image, file: BinaryIO, kind: str) -> bytes:
    """The packet of XMP in a file, as it is."""
    if kind == "TIFF":
        tags = Tags(file)
        return tags.value(tags.directory(tags.first).fields.get(700))
    if kind == "JPEG":
        return _jpeg_packet(file)
    if kind == "PNG":
        return _png_blocks(file).get("xmp", b"")
    return bytes(image.info.get("xmp") or b"")


def of_tiff(file: BinaryIO, bits: int, notes: list[str], *, colors: bool = True) -> tuple[Any, About]:
    """The same of a TIFF."""
    block, dropped = exif.of_tiff(file)
    if dropped:
        notes.append("the camera's maker notes are left out: they hold offsets into the TIFF")
    try:
        tags = Tags(file)
        fields = tags.directory(tags.first).fields
    except ValueError:
        return None, About(bits=bits)
    records = tags.value(fields.get(33723)) or iptc.in_resources(tags.value(fields.get(34377)))
    if records[:1] != b"\x1c" and records[3:4] == b"\x1c":  # as numbers of 32 bits in the other byte order
        records = b"".join(records[at : at + 4][::-1] for at in range(0, len(records), 4))
    unit = tags.integers(fields.get(296))[:1]
    scale = 2.54 if unit == (_CENTIMETRES,) else 1.0
    sides = [float(value) * scale for tag in (282, 283) for value in tags.fractions(fields.get(tag))[:1]]
    dpi = (sides[0], sides[1]) if len(sides) == 2 and unit != (1,) else None
    found = _about(tags.value(fields.get(700)), records, dpi, bits, notes, colors)
    return exif.cleaned(block, colors=colors) if block else None, found


def _about(packet: bytes, records: bytes, dpi: Any, bits: int, notes: list[str], colors: bool) -> About:
    cleaned: bytes | None = None
    if packet:
        cleaned = xmp.cleaned(bytes(packet), colors=colors)
        if cleaned is None:
            notes.append("XMP left out: it is damaged")
    known = dpi and len(dpi) == 2 and all(0.1 < float(value) < 1e6 for value in dpi)
    resolution = (float(dpi[0]), float(dpi[1])) if known else None
    return About(cleaned or None, records if records[:1] == b"\x1c" else None, resolution, bits)


def _jpeg_packet(file: BinaryIO) -> bytes:
    """The XMP of a JPEG, with what is beyond its first segment put into it."""
    packet, extension = b"", b""
    for part in jpeg_parts(file):
        if part.kind == b"\xe1" and len(extension) < LIMIT:
            data = part.read(file, 2**16)
            if data.startswith(XMP_SEGMENT):
                packet = packet or data[len(XMP_SEGMENT) :]
            elif data.startswith(XMP_EXTENSION):
                extension += data[len(XMP_EXTENSION) + 40 :]
    return xmp.merged(packet, extension) if extension else packet


def _jpeg_resources(file: BinaryIO) -> bytes:
    """Photoshop's image resources in a JPEG: those that are too long for a segment go on in the next."""
    found = b""
    for part in jpeg_parts(file):
        if part.kind == b"\xed" and len(found) < LIMIT:
            data = part.read(file, 2**16)
            found += data[len(PHOTOSHOP_SEGMENT) :] if data.startswith(PHOTOSHOP_SEGMENT) else b""
    return found


def _png_blocks(file: BinaryIO) -> dict[str, bytes]:
    """The blocks that texts of a PNG hold: XMP, and others in hexadecimal digits."""
    found: dict[str, bytes] = {}
    for part in png_parts(file):
        if part.kind == b"eXIf":
            found["exif"] = part.read(file, LIMIT)
        elif part.kind in (b"iTXt", b"zTXt", b"tEXt"):
            data = part.read(file, LIMIT)
            if data.startswith((_XMP_KEYWORD, _RAW)):
                keyword, text = png_text(part.kind, data, LIMIT)
                if keyword == _XMP_KEYWORD:
                    found["xmp"] = text
                else:
                    with contextlib.suppress(ValueError, IndexError):
                        digits = text.strip().split(b"\n", 2)[2]
                        block = bytes.fromhex(re.sub(rb"\s", b"", digits).decode())
                        found.setdefault(keyword[len(_RAW) :].decode("latin-1"), block)
    return found
