"""Encoding: picture -> the bytes of a file, with all that goes along: profile, EXIF, XMP, IPTC, resolution, record."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
import secrets
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile

from stylize.errors import ImageError
from stylize.images import exif, iptc, xmp
from stylize.images.containers import PHOTOSHOP_SEGMENT, XMP_EXTENSION, jpeg_parts, png_chunk
from stylize.images.exif import HEAD, directory_bytes
from stylize.images.ifd import Tags
from stylize.images.picture import Picture
from stylize.images.profiles import srgb_profile
from stylize.images.record import JPEG_LIMIT, PIXELS, RECORD, embed, names_only, pixel_digest, relative_to, written
from stylize.images.silence import SILENCE

DEEP_FORMATS = ("PNG", "TIFF")  # those that hold 16 bits per channel
SIDES = {"JPEG": 65500, "WEBP": 16383, "AVIF": 32768}  # px: the longest side libjpeg, libwebp and libavif read again
_PNG_HEADER = 8 + 25  # bytes: signature, IHDR
_SEGMENT = 65533  # bytes of content of a segment of a JPEG
_MAXBLOCK = threading.Lock()  # ImageFile.MAXBLOCK is one for all threads

log = logging.getLogger("stylize.images")

Array = NDArray[Any]

ENCODERS: dict[str, dict[str, Any]] = {  # Pillow's options
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": "4:4:4", "optimize": True},
    "WEBP": {"quality": 95, "method": 4, "exact": True},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}


@dataclass(frozen=True)
class _Along:
    """What goes along with the pixels: their ICC profile, and blocks, or nothing; ``dpi`` is that across and down."""

    profile: bytes
    exif: bytes = b""
    xmp: bytes = b""
    more_xmp: bytes = b""  # what a JPEG has no room for in the first segment
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None


def bits_for(picture: Picture, format: str, bits: int | None) -> int:
    """The bits per channel of a file: those asked for, else 16 for what has more than 8, if the format holds them."""
    return bits or (16 if picture.about.bits > 8 and format in DEEP_FORMATS else 8)


def encode(
    picture: Picture, format: str, quality: int | None, bits: int | None, folder: Path | None, location: bool = True
) -> bytes:
    """The bytes of a file; paths in the record are seen from ``folder``, and left out without ``location``.

    Raises:
        ImageError: the format cannot hold it, or it is no picture.
    """
    pixels = _pixels(picture, format, bits_for(picture, format, bits))
    record: Any = picture.record
    if record is not None:
        record = relative_to(record, folder) if location and folder is not None else record
        record = record if location else names_only(record)
    if format == "PNG":
        png = _encode_pixels(pixels, format, quality, _along(picture, format, {}, location))
        if record is None:
            return png
        return png[:_PNG_HEADER] + embed(record, format, _digest_of(png)) + png[_PNG_HEADER:]
    properties: dict[str, str] = {}
    unknown = secrets.token_hex(32)  # what was encoded shows only when it is decoded
    if record is not None:
        embed(record, format, unknown)  # whether it is not too long
        properties = {RECORD: written(record), PIXELS: unknown}
    data = _encode_pixels(pixels, format, quality, _along(picture, format, properties, location))
    return data.replace(unknown.encode(), _digest_of(data).encode()) if properties else data


def size_problem(format: str, size: tuple[int, int]) -> str:
    """Why a format cannot hold a picture of (height, width), or nothing."""
    limit = SIDES.get(format)
    if limit is None or max(size) <= limit:
        return ""
    return f"{format} holds {limit} pixels a side, and the picture is {size[1]}x{size[0]}; use .png or a smaller size"


def _pixels(picture: Picture, format: str, bits: int) -> Array:
    """(H, W, 3 or 4) samples of 8 or 16 bits."""
    if picture.rgb.ndim != 4 or picture.rgb.shape[:2] != (1, 3) or not picture.rgb.numel():
        raise ImageError(f"a tensor of shape {tuple(picture.rgb.shape)} is no picture; it must be (1, 3, H, W)")
    if problem := size_problem(format, picture.size):
        raise ImageError(problem)
    rgb, alpha = picture.rgb.detach().cpu().float(), picture.alpha
    if alpha is not None:
        alpha = alpha.detach().cpu().float()
        if format == "JPEG":
            rgb, alpha = rgb * alpha + (1 - alpha), None
    samples = rgb if alpha is None else torch.cat([rgb, alpha], dim=1)
    if not bool(torch.isfinite(samples).all()):
        raise ImageError("the picture holds NaN or infinite values; nothing was written")
    levels = (samples[0].permute(1, 2, 0).clamp(0, 1) * (2**bits - 1)).round()
    pixels: Array = levels.contiguous().numpy().astype(np.uint16 if bits == 16 else np.uint8)
    return pixels


def _along(picture: Picture, format: str, properties: dict[str, str], location: bool) -> _Along:
    """What a file of a format takes along from a picture; ``properties`` are those of ours in XMP."""
    about = picture.about
    block, packet, records = picture.exif or b"", about.xmp or b"", about.iptc or b""
    if not location:
        block = exif.cleaned(block, location=False, colors=not picture.profile) or b"" if block else b""
        packet = xmp.without_places(packet) if packet else b""
        records = iptc.without_places(records)
    if format == "AVIF":  # which has an orientation of its own; Pillow would write the block anew without that tag
        block = exif.cleaned(block, orientation=False, colors=not picture.profile) or b"" if block else b""
    if format == "JPEG" and len(block) > _SEGMENT:
        block = _shortened(block)
    elements = ""
    if records and format in ("WEBP", "AVIF"):  # which have no place of their own for IPTC
        packet, elements = iptc.as_xmp(records, packet)
        block = exif.with_iptc(block, records)
    more = b""
    if packet or elements:
        whole = xmp.combined(packet, elements, iptc.NAMESPACES, properties)
        if format == "JPEG" and len(whole) > JPEG_LIMIT:
            whole, more = xmp.split(packet, properties)
        packet = whole
    elif properties:
        packet = xmp.packet_of(properties)
    return _Along(picture.profile or srgb_profile(), block, packet, more, records, about.dpi)


def _shortened(block: bytes) -> bytes:
    """An EXIF block that fits into a JPEG, or nothing."""
    try:
        shorter = exif.without_maker_note(block)
    except ValueError:
        shorter = b""
    if 0 < len(shorter) <= _SEGMENT:
        log.warning("EXIF of more than 64 KB: the camera's maker notes are left out of the JPEG")
        return shorter
    log.warning("EXIF of more than 64 KB is left out of the JPEG")
    return b""


def _digest_of(data: bytes) -> str:
    """The digest of the pixels of a file, or nothing for one so large that it would not be read."""
    with SILENCE, contextlib.suppress(Image.DecompressionBombError):
        return pixel_digest(io.BytesIO(data))
    return ""


def _encode_pixels(pixels: Array, format: str, quality: int | None, along: _Along) -> bytes:
    """A file of (H, W, 3 or 4) samples of 8 or 16 bits."""
    if format == "TIFF":
        return _tiff(pixels, along)
    if format == "PNG":
        return _png(pixels, along)
    options = dict(ENCODERS[format])
    if along.xmp:
        options["xmp"] = along.xmp
    if quality and "quality" in options:
        options["quality"] = quality
    if along.exif:
        options["exif"] = along.exif
    if along.dpi and format == "JPEG":
        options["dpi"] = tuple(max(1, min(65535, round(value))) for value in along.dpi)
    data = _by_pillow(pixels, format, icc_profile=along.profile, **options)
    return _with_segments(data, along) if format == "JPEG" and (along.iptc or along.more_xmp) else data


def _by_pillow(pixels: Array, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with _buffer_of(pixels.size):
        Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


@contextlib.contextmanager
def _buffer_of(samples: int) -> Iterator[None]:
    """Pillow gives libjpeg a buffer of two bytes a pixel, too small for noise: let it have two bytes a sample."""
    with _MAXBLOCK:
        before = ImageFile.MAXBLOCK
        ImageFile.MAXBLOCK = max(before, 2 * samples)
        try:
            yield
        finally:
            ImageFile.MAXBLOCK = before


def _with_segments(jpeg: bytes, along: _Along) -> bytes:
    """A JPEG with IPTC, and XMP that its first segment has no room for, behind its other blocks."""
    segments = b""
    digest = hashlib.md5(along.more_xmp, usedforsecurity=False).hexdigest().upper().encode()
    room = 65_000
    for start in range(0, len(along.more_xmp), room):
        head = XMP_EXTENSION + digest + struct.pack(">II", len(along.more_xmp), start)
        segments += _segment(0xE1, head + along.more_xmp[start : start + room])
    resources = PHOTOSHOP_SEGMENT + iptc.as_resources(along.iptc)
    if along.iptc and len(resources) <= _SEGMENT:
        segments += _segment(0xED, resources)
    elif along.iptc:
        log.warning("IPTC of more than 64 KB is left out of the JPEG")
    place = next(part.start - 4 for part in jpeg_parts(io.BytesIO(jpeg)) if not 0xE0 <= part.kind[0] <= 0xEF)
    return jpeg[:place] + segments + jpeg[place:]


def _segment(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(content) + 2) + content


def _png(pixels: Array, along: _Along) -> bytes:
    """A PNG; 16 bits by OpenCV. Neither writes all that goes along, which is inserted after the header."""
    if pixels.dtype == np.uint16:
        import cv2

        ok, encoded = cv2.imencode(".png", pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
        if not ok:
            raise ImageError("OpenCV could not encode it")
        png = encoded.tobytes()
    else:
        png = _by_pillow(pixels, "PNG")
    chunks = png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(along.profile))
    if along.dpi:
        sides = (min(2**31 - 1, round(value / 0.0254)) for value in along.dpi)
        chunks += png_chunk(b"pHYs", struct.pack(">IIB", *sides, 1))
    if along.exif:
        chunks += png_chunk(b"eXIf", along.exif.removeprefix(HEAD))
    if along.xmp:
        chunks += png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + along.xmp)
    if along.iptc:
        resources = iptc.as_resources(along.iptc)
        digits = resources.hex()
        lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
        text = f"\niptc\n{len(resources):8}\n{lines}\n".encode()
        chunks += png_chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text))
    return png[:_PNG_HEADER] + chunks + png[_PNG_HEADER:]


def _tiff(pixels: Array, along: _Along) -> bytes:
    """A TIFF of one deflated strip, which comes last.

    Written here because OpenCV drops the profile and the meaning of alpha, and Pillow has 8 bits and changes EXIF. A
    TIFF begins as an EXIF block does: it is the beginning of the file, with all its offsets, and only its first
    directory is written anew.
    """
    height, width, channels = pixels.shape
    start = bytearray(along.exif.removeprefix(HEAD) or struct.pack("<2sHI", b"II", 42, 8))
    if start[8:16] == b"ExifMeta":  # the mark of a file of EXIF alone
        start[8:16] = bytes(8)
    start += bytes(len(start) % 2)
    tags = Tags(io.BytesIO(bytes(start)))
    order = tags.order
    fields: dict[int, tuple[int, int, int, bytes]] = {}
    if along.exif:
        for tag, field in tags.directory(tags.first).fields.items():
            fields[tag] = (tag, field.type, field.count, tags.value(field))
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]  # modulo 2**bits: the horizontal predictor
    strip = zlib.compress(differences.astype(pixels.dtype.newbyteorder("<" if order == "<" else ">")).tobytes())

    def put(tag: int, kind: int, *values: int) -> None:
        fields[tag] = (tag, kind, len(values), struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values))

    def block(tag: int, kind: int, value: bytes) -> None:
        fields[tag] = (tag, kind, len(value), value)

    put(256, 4, width)
    put(257, 4, height)
    put(258, 3, *[8 * pixels.itemsize] * channels)
    for tag, value in ((259, 8), (262, 2), (277, channels), (284, 1), (317, 2)):  # deflate, RGB, interleaved, predictor
        put(tag, 3, value)
    put(273, 4, 0)
    put(278, 4, height)
    put(279, 4, len(strip))
    if channels == 4:
        put(338, 3, 2)  # the fourth sample is alpha, not premultiplied
    if along.dpi and not {282, 283} & fields.keys():
        for tag, dpi in zip((282, 283), along.dpi, strict=True):
            exact = Fraction(dpi).limit_denominator(max(1, min(10_000, math.floor(2**32 / max(1, dpi)) - 1)))
            fields[tag] = (tag, 5, 1, struct.pack(order + "II", exact.numerator, exact.denominator))
        put(296, 3, 2)
    if along.xmp:
        block(700, 1, along.xmp)
    if along.iptc:
        block(33723, 7, along.iptc)
    block(34675, 7, along.profile)
    offset = len(start)
    put(273, 4, offset + len(directory_bytes(order, list(fields.values()), offset)))
    struct.pack_into(order + "I", start, 4, offset)
    return bytes(start) + directory_bytes(order, list(fields.values()), offset) + strip
