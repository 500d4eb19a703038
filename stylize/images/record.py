"""Records: a JSON text embedded in a picture file, saying how the picture was made; read without decoding pixels.

Beside it lies a digest of the pixels, which tells a picture that was retouched from one as it was saved.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from stylize.errors import ImageError
from stylize.images.containers import (
    PNG_SIGNATURE,
    XMP_EXTENSION,
    XMP_SEGMENT,
    boxes,
    jpeg_parts,
    png_chunk,
    png_parts,
    png_text,
    riff_parts,
)
from stylize.images.ifd import Tags
from stylize.images.read import open_file
from stylize.images.silence import SILENCE
from stylize.images.xmp import LIMIT, packet_of, properties_in
from stylize.stores import StorePath, as_path

RECORD_LIMIT = 2**20  # bytes of an embedded record; a longer one is neither written nor read
RECORD, PIXELS = "record", "pixels"  # properties in XMP
_KEYWORDS = {"stylize": RECORD, "stylize-pixels": PIXELS}  # of texts in a PNG
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_XMP_KEYWORD = b"XML:com.adobe.xmp"
JPEG_LIMIT = 65502  # bytes of XMP in a segment of a JPEG
_WHOLE = 2**30  # bytes of the largest AVIF that is read: those are read whole
_EXTENSION_LIMIT = 2**24  # bytes of XMP beyond the first segment of a JPEG


class Saved(Enum):
    """What a file is to the record it holds."""

    FOREIGN = "it holds no record"
    DAMAGED = "it holds a record, and is truncated or damaged"
    RETOUCHED = "it holds a record, and its pixels have changed since"
    INTACT = "it is as it was saved, but for what other programs noted in it"


@dataclass(frozen=True)
class _Found:
    properties: Mapping[str, str]
    complete: bool


def read_record(path: str | Path) -> dict[str, Any] | None:
    """The record in a file that :func:`save` wrote, whatever else other programs wrote into it since.

    None where there is none, or the file cannot be read. Values under a key ``path`` are relative to the folder of the
    picture. The pixels are not decoded: a truncated file is noticed and has none, damaged pixels are not noticed.
    """
    try:
        with open_file(Path(path), parts=True) as (file, length):
            found = _find(file, length)
            return _record(found) if found.complete else None
    except ImageError:
        return None


def saved_state(path: str | Path) -> Saved:
    """Whether a file was written by :func:`save`, and whether its pixels are still the same; decodes them."""
    try:
        with open_file(Path(path)) as (file, length), SILENCE:
            found = _find(file, length)
            if _record(found) is None:
                return Saved.FOREIGN
            file.seek(0)
            try:
                pixels = pixel_digest(file)
            except Exception:  # decoders raise nearly anything on damaged files
                return Saved.DAMAGED
            if not found.complete:
                return Saved.DAMAGED
            return Saved.INTACT if pixels == (found.properties.get(PIXELS) or pixels) else Saved.RETOUCHED
    except ImageError:
        return Saved.FOREIGN


def pixel_digest(file: BinaryIO) -> str:
    """The SHA-256 of the decoded samples of a picture in hex: of 8 bits, also where the file has 16."""
    with Image.open(file) as image:
        image.load()
        digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
        rows = max(1, 2**24 // max(1, 4 * image.width))
        for top in range(0, image.height, rows):
            digest.update(image.crop((0, top, image.width, min(top + rows, image.height))).tobytes())
        return digest.hexdigest()


def relative_to(record: Any, folder: Path) -> Any:
    """The record with every path in it relative to a folder, so that results and sources may be moved together."""
    if isinstance(record, list):
        return [relative_to(each, folder) for each in record]
    if not isinstance(record, Mapping):
        return record
    seen = {key: relative_to(value, folder) for key, value in record.items()}
    if isinstance(seen.get("path"), str):
        seen["path"] = _relative(seen["path"], folder)
    return seen


def _relative(path: str, folder: Path) -> str:
    """A path as it is written into the record of a picture in a folder: within a store, or on this machine, relative;
    elsewhere the address of what is in a store, but of what is on this machine only the name."""
    here, there = as_path(path), as_path(folder)
    stored = isinstance(here, StorePath), isinstance(there, StorePath)
    if any(stored):
        same = all(stored) and here.parts[:2] == there.parts[:2]
        return posixpath.relpath(str(here), str(there)) if same else str(here) if stored[0] else here.name
    with contextlib.suppress(ValueError):  # another drive
        return Path(os.path.relpath(path, os.path.realpath(folder))).as_posix()
    return path


def names_only(record: Any) -> Any:
    """The record with the names of files instead of their paths."""
    if isinstance(record, list):
        return [names_only(each) for each in record]
    if not isinstance(record, Mapping):
        return record
    seen = {key: names_only(value) for key, value in record.items()}
    if isinstance(seen.get("path"), str):
        seen["path"] = Path(seen["path"]).name
    return seen


def written(record: Any) -> str:
    """The text of a record: JSON, of ASCII alone."""
    return json.dumps(record, sort_keys=True)


def embed(record: Any, format: str, pixels: str) -> bytes:
    """The bytes a file of this format holds for a record and the digest of its pixels: chunks in a PNG, elsewhere an
    XMP packet.

    Raises:
        ImageError: the record is too long for the format.
    """
    text = written(record)
    if format == "PNG":
        limited = text.encode()
        texts = {RECORD: text, PIXELS: pixels}
        data = b"".join(
            png_chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + texts[name].encode())
            for keyword, name in _KEYWORDS.items()
        )
    else:
        limited = data = packet_of({RECORD: text, PIXELS: pixels})
    limit = JPEG_LIMIT if format == "JPEG" else RECORD_LIMIT
    if len(limited) > limit:
        hint = "; use .png" if len(limited) <= RECORD_LIMIT else ""
        raise ImageError(f"its record takes {len(limited)} bytes, and {format} holds {limit}{hint}")
    return data


def _record(found: _Found) -> dict[str, Any] | None:
    text = found.properties.get(RECORD, "")
    if not 0 < len(text) <= RECORD_LIMIT:
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _find(file: BinaryIO, length: int) -> _Found:
    """What of ours an opened file holds, and whether its end is there."""
    file.seek(0)
    start = file.read(12)
    if start.startswith(PNG_SIGNATURE):
        return _in_png(file, length)
    if start.startswith(b"\xff\xd8\xff"):
        return _in_jpeg(file, length)
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        parts = [*riff_parts(file)]
        packet = next((part.read(file, LIMIT) for part in parts if part.kind == b"XMP "), b"")
        return _Found(properties_in(packet), int.from_bytes(start[4:8], "little") + 8 <= length)
    if start[:2] in (b"II", b"MM"):
        return _in_tiff(file, length)
    if start[4:8] == b"ftyp" and length <= _WHOLE:
        return _in_avif(file, length)
    return _Found({}, False)


def _in_png(file: BinaryIO, length: int) -> _Found:
    ours: dict[str, str] = {}
    packet, end = b"", 0
    file.seek(max(0, length - len(PNG_END)))
    whole = file.read() == PNG_END
    for part in png_parts(file):
        if whole and part.kind == b"IDAT" and len(ours) == len(_KEYWORDS):
            return _Found(ours, True)  # without a look at all that follows
        end = part.start + part.length + 4 if part.kind == b"IEND" else 0
        if part.kind in (b"iTXt", b"tEXt", b"zTXt"):
            data = part.read(file, LIMIT)
            if data.startswith((b"stylize", _XMP_KEYWORD)):
                keyword, text = png_text(part.kind, data, RECORD_LIMIT)
                if name := _KEYWORDS.get(keyword.decode("latin-1")):
                    with contextlib.suppress(UnicodeDecodeError):
                        ours.setdefault(name, text.decode())
                elif keyword == _XMP_KEYWORD:
                    packet = png_text(part.kind, data, LIMIT)[1]
    return _Found({**properties_in(packet), **ours}, 0 < end <= length)


def _in_jpeg(file: BinaryIO, length: int) -> _Found:
    packet, extension, size = b"", b"", 0
    for part in jpeg_parts(file):
        if part.kind != b"\xe1":
            continue
        data = part.read(file, 2**16)
        if data.startswith(XMP_SEGMENT):
            packet = packet or data[len(XMP_SEGMENT) :]
        elif data.startswith(XMP_EXTENSION) and size <= _EXTENSION_LIMIT:
            size += len(data)
            extension += data[len(XMP_EXTENSION) + 40 :]  # after the digest, the length and the offset
    file.seek(max(0, length - 2**16))
    complete = b"\xff\xd9" in file.read()[-(2**16) :]
    return _Found({**properties_in(extension), **properties_in(packet)}, complete)


def _in_tiff(file: BinaryIO, length: int) -> _Found:
    try:
        tags = Tags(file)
        fields = tags.directory(tags.first).fields
    except ValueError:
        return _Found({}, False)
    offsets = tags.integers(fields.get(273)) or tags.integers(fields.get(324))
    lengths = tags.integers(fields.get(279)) or tags.integers(fields.get(325))
    ends = [offset + count for offset, count in zip(offsets, lengths, strict=False)]
    field = fields.get(700)
    packet = tags.value(field) if field and field.length <= LIMIT else b""
    return _Found(properties_in(packet), bool(ends) and max(ends) <= length)


def _in_avif(file: BinaryIO, length: int) -> _Found:
    end = 0
    for box in boxes(file, 0, length):
        end = box.start + box.length
    file.seek(0)
    try:
        with Image.open(io.BytesIO(file.read()), formats=["AVIF"]) as image:
            packet = image.info.get("xmp", b"")
    except Exception:  # decoders raise nearly anything on damaged files
        return _Found({}, False)
    return _Found(properties_in(packet), end == length)
