"""Records: a JSON text embedded in a picture file, saying how the picture was made; read without decoding pixels."""

from __future__ import annotations

import contextlib
import html
import io
import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, PngImagePlugin, TiffImagePlugin

from stylize.errors import ImageError
from stylize.images.picture import FORMATS
from stylize.images.read import SILENCE, open_file

RECORD_LIMIT = 2**20  # bytes of an embedded record; a longer one is neither written nor read
ITXT_HEAD = b"stylize\0\0\0\0\0"  # precedes the text in a PNG: keyword, not compressed, no language, no translation
_XMP_HEAD = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:stylize="https://stylize.invalid/ns/1.0/"><stylize:record>"""
_XMP_TAIL = """</stylize:record></rdf:Description>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""
_JPEG_LIMIT = 65502  # bytes of XMP in a segment of a JPEG
_HEAD = 2**24  # bytes of a PNG, JPEG or TIFF that hold all its metadata
_WHOLE = 2**30  # bytes of the largest WebP or AVIF that is read: those are read whole


def read_record(path: str | Path) -> dict[str, Any] | None:
    """The record in a file that :func:`save` wrote; None where there is none, or the file cannot be read.

    Values under a key ``path`` are relative to the folder of the picture. The pixels are not decoded: a truncated
    file is noticed, damaged pixels are not.
    """
    try:
        with open_file(Path(path)) as (file, length), SILENCE:
            start = file.read(12)
            file.seek(0)
            whole = start[4:8] == b"ftyp" or start[8:] == b"WEBP"
            if whole and length > _WHOLE:
                return None
            source = file if whole else io.BytesIO(file.read(_HEAD))
            with Image.open(source, formats=sorted(set(FORMATS.values()))) as image:
                record = json.loads(_find_record(image))
                return record if isinstance(record, dict) and _is_complete(image, file, length) else None
    except ImageError:
        return None


def relative_to(record: Any, folder: Path) -> Any:
    """The record with every path in it relative to a folder, so that results and sources may be moved together."""
    if isinstance(record, list):
        return [relative_to(each, folder) for each in record]
    if not isinstance(record, Mapping):
        return record
    seen = {key: relative_to(value, folder) for key, value in record.items()}
    if isinstance(seen.get("path"), str):
        with contextlib.suppress(ValueError):  # another drive
            seen["path"] = Path(os.path.relpath(seen["path"], os.path.realpath(folder))).as_posix()
    return seen


def embed(record: Any, format: str) -> bytes:
    """The bytes a file of this format holds for a record: JSON in PNG, elsewhere an XMP packet around it.

    Raises:
        ImageError: the record is too long for the format.
    """
    text = json.dumps(record, sort_keys=True)  # ASCII
    if format != "PNG":  # quotes are escaped too, lest Pillow take a tiff:Orientation="6" in the text for the picture's
        text = _XMP_HEAD + html.escape(text) + _XMP_TAIL
    data = text.encode()
    limit = _JPEG_LIMIT if format == "JPEG" else RECORD_LIMIT
    if len(data) > limit:
        hint = "; use .png" if len(data) <= RECORD_LIMIT else ""
        raise ImageError(f"its record takes {len(data)} bytes, and {format} holds {limit}{hint}")
    return data


def _find_record(image: Image.Image) -> str:
    """The record's text in an opened file; empty unless it is exactly as save() would write it."""
    if isinstance(image, PngImagePlugin.PngImageFile):
        text = image.info.get("stylize")
        return str(text) if isinstance(text, PngImagePlugin.iTXt) and len(text) <= RECORD_LIMIT else ""
    data = image.info.get("xmp", b"")
    packet = data.decode() if len(data) <= RECORD_LIMIT else ""
    inner = packet.removeprefix(_XMP_HEAD).removesuffix(_XMP_TAIL)
    text = html.unescape(inner)
    return text if packet == _XMP_HEAD + html.escape(text) + _XMP_TAIL else ""


def _is_complete(image: Image.Image, file: BinaryIO, length: int) -> bool:
    """Whether the end of a file that save() wrote is there; Pillow refuses a truncated WebP by itself."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return bool(image.tag_v2[273][0] + image.tag_v2[279][0] == length)
    if image.format == "AVIF":
        position = 0
        while position < length:
            file.seek(position)
            position += max(8, int.from_bytes(file.read(4)))  # the length of a box
        return position == length
    file.seek(-12, os.SEEK_END)
    end = {"PNG": png_chunk(b"IEND", b""), "JPEG": b"\xff\xd9", "WEBP": b""}[str(image.format)]
    return file.read().endswith(end)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
