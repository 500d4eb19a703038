"""EXIF blocks: copied as they are, but for what describes the file they came from and not the photograph.

Values stay at their offsets, so that text keeps its encoding, tags their types and maker notes their meaning.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from stylize.images.ifd import SIZES, Directory, Field, Tags

HEAD = b"Exif\0\0"
_PHOTO, _GPS, _INTEROP, _MAKER_NOTE, _IPTC = 34665, 34853, 40965, 37500, 33723
_ORIENTATION, _COLOR_SPACE, _RULE = 274, 40961, 1
# Tags of the layout of pixels, of profiles, and of blocks that are carried by themselves: XMP, IPTC, Photoshop's.
_LAYOUT = """
    254 255 256 257 258 259 262 263 266 273 277 278 279 280 281 284 290 291 292 293 297 301 317 318 319 320 321 322 323
    324 325 330 332 333 334 336 337 338 339 340 341 342 347 512 513 514 515 517 518 519 520 521 529 530 531 532 700
    33723 34377 34675 37724 50341 50706
"""
LAYOUT = frozenset(map(int, _LAYOUT.split()))
_SIZES = frozenset((40962, 40963))


def cleaned(block: bytes, *, location: bool = True, orientation: bool = True, colors: bool = True) -> bytes | None:
    """An EXIF block for a new file of sRGB pixels: upright, without sizes and thumbnail; None where nothing is left.

    Without ``location``, GPS is left out and its bytes are blanked; without ``orientation``, that tag is. Without
    ``colors``, what it says of the colour space stays.
    """
    block = block.removeprefix(HEAD)
    try:
        made = _Block(block)
        made.clean(location, orientation, colors)
    except (ValueError, struct.error, IndexError):  # a corrupt EXIF block is no reason to refuse the picture
        return None
    return HEAD + bytes(made.data) if made.used else None


class _Block:
    """A block that is changed in place."""

    def __init__(self, block: bytes) -> None:
        self.data = bytearray(block)
        self._tags = Tags(io.BytesIO(block))
        if self._tags.big:
            raise ValueError("no EXIF")
        self._order = self._tags.order
        self.used = False

    def clean(self, location: bool, orientation: bool, colors: bool) -> None:
        first = self._tags.directory(self._tags.first)
        photo = self._sub(first.fields.get(_PHOTO))  # before entries move, and their pointers with them
        inner = self._sub(photo.fields.get(_INTEROP)) if photo else None
        end = self._blank_thumbnail(first)
        dropped = LAYOUT & first.fields.keys()
        if not location and _GPS in first.fields:
            self._blank_directory(first.fields[_GPS])
            dropped |= {_GPS}
        if not orientation:
            dropped |= {_ORIENTATION}
        self._keep(first, dropped)
        if orientation and (field := first.fields.get(_ORIENTATION)):
            self._set(field, 1)
        kept = first.fields.keys() - dropped - {_ORIENTATION}
        if photo:
            self._keep(photo, _SIZES & photo.fields.keys())
            if colors and (field := photo.fields.get(_COLOR_SPACE)):
                self._set(field, 1)
            if colors and inner and (rule := inner.fields.get(_RULE)) and rule.count == 4:
                self.data[rule.start : rule.start + 4] = b"R98\0"
            if not photo.fields.keys() - _SIZES:
                kept -= {_PHOTO}
        del self.data[end:]
        self.used = bool(kept)

    def _sub(self, field: Field | None) -> Directory | None:
        offsets = self._tags.integers(field)
        try:
            return self._tags.directory(offsets[0]) if offsets else None
        except ValueError:
            return None

    def _keep(self, directory: Directory, dropped: frozenset[int] | set[int]) -> None:
        """Take entries out of a directory, and what follows it."""
        count = struct.unpack_from(self._order + "H", self.data, directory.offset)[0]
        start = directory.offset + 2
        entries = [bytes(self.data[start + 12 * index : start + 12 * index + 12]) for index in range(count)]
        kept = [each for each in entries if struct.unpack_from(self._order + "H", each)[0] not in dropped]
        freed = 12 * (count - len(kept))  # holds the pointer to what follows: none; some writers leave it no room
        table = b"".join(kept) + (bytes(freed) or bytes(4 * (directory.offset == self._tags.first)))
        self.data[start : start + len(table)] = table
        struct.pack_into(self._order + "H", self.data, directory.offset, len(kept))
        shifted = {struct.unpack_from(self._order + "H", each)[0]: index for index, each in enumerate(kept)}
        for tag, field in [*directory.fields.items()]:  # values within entries have moved along with them
            if tag in shifted and field.start == field.entry + 8:
                entry = start + 12 * shifted[tag]
                directory.fields[tag] = Field(tag, field.type, field.count, entry, entry + 8)

    def _set(self, field: Field, value: int) -> None:
        code = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i"}.get(field.type)
        if code and field.count == 1:
            struct.pack_into(self._order + code, self.data, field.start, value)

    def _blank_thumbnail(self, first: Directory) -> int:
        """Blank the small picture behind the first directory; where what remains ends."""
        thumbnails: list[tuple[int, int]] = []
        if first.next:
            try:
                second = self._tags.directory(first.next)
            except ValueError:
                return len(self.data)
            for start_tag, length_tag in ((513, 514), (273, 279)):
                starts = self._tags.integers(second.fields.get(start_tag))
                lengths = self._tags.integers(second.fields.get(length_tag))
                thumbnails += zip(starts, lengths, strict=False)
        end = len(self.data)
        for start, length in sorted(thumbnails, reverse=True):
            if not 8 <= start <= start + length <= len(self.data):
                continue
            self.data[start : start + length] = bytes(length)
            if start + length >= end - 1:
                end = start
        return end

    def _blank_directory(self, field: Field) -> None:
        if directory := self._sub(field):
            for each in directory.fields.values():
                self.data[each.start : each.start + each.length] = bytes(each.length)


def of_tiff(file: BinaryIO) -> tuple[bytes, bool]:
    """The EXIF block of a TIFF, whose tags lie among those of its pixels, and whether maker notes were left out: in
    another file they would be at other offsets, which their readers rely on. Empty where there is none.
    """
    try:
        tags = Tags(file)
        first = tags.directory(tags.first)
    except ValueError:
        return b"", False
    dropped = False
    parts: dict[int, list[tuple[int, int, int, bytes]]] = {0: _entries(tags, first, LAYOUT | {_PHOTO, _GPS})}
    for pointer in (_PHOTO, _GPS):
        offsets = tags.integers(first.fields.get(pointer))
        try:
            inner = tags.directory(offsets[0]) if offsets else None
        except ValueError:
            continue
        if inner:
            dropped |= _MAKER_NOTE in inner.fields
            parts[pointer] = _entries(tags, inner, {_MAKER_NOTE, _INTEROP})
    parts = {pointer: entries for pointer, entries in parts.items() if entries or not pointer}
    if not any(parts.values()):
        return b"", dropped
    return _serialized(tags.order, parts), dropped


def _entries(tags: Tags, directory: Directory, without: frozenset[int] | set[int]) -> list[tuple[int, int, int, bytes]]:
    return [
        (tag, field.type, field.count, tags.value(field))
        for tag, field in sorted(directory.fields.items())
        if tag not in without and field.type <= 12
    ]


def _serialized(order: str, parts: dict[int, list[tuple[int, int, int, bytes]]]) -> bytes:
    """A block of directories: the one under 0, and those that it points to."""
    made = bytearray(struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8))
    places: dict[int, int] = {}
    for pointer in sorted(parts, key=lambda each: each == 0):  # those pointed to first
        places[pointer] = len(made)
        entries = list(parts[pointer])
        if not pointer:
            struct.pack_into(order + "I", made, 4, len(made))
            entries += [(each, 4, 1, struct.pack(order + "I", places[each])) for each in places if each]
        made += directory_bytes(order, entries, len(made))
    return bytes(made)


def directory_bytes(order: str, entries: list[tuple[int, int, int, bytes]], offset: int) -> bytes:
    """A directory at an even offset with its values behind it; entries are tag, type, count and value."""
    entries = sorted(entries)
    table, values = struct.pack(order + "H", len(entries)), b""
    start = offset + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        size = SIZES.get(kind, 1) * count
        if len(value) != size:
            raise ValueError(f"tag {tag} has {len(value)} bytes and not {size}")
        if size > 4:
            table += struct.pack(order + "HHII", tag, kind, count, start + len(values))
            values += value + bytes(len(value) % 2)
        else:
            table += struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")
    return table + bytes(4) + values


def without_maker_note(block: bytes) -> bytes:
    """A block without its maker notes, which are the largest thing in it."""
    data = block.removeprefix(HEAD)
    tags = Tags(io.BytesIO(data))
    first = tags.directory(tags.first)
    parts = {0: _entries(tags, first, {_PHOTO, _GPS})}
    for pointer in (_PHOTO, _GPS):
        offsets = tags.integers(first.fields.get(pointer))
        if offsets:
            parts[pointer] = _entries(tags, tags.directory(offsets[0]), {_MAKER_NOTE, _INTEROP})
    return HEAD + _serialized(tags.order, parts)


def iptc_in(block: bytes) -> bytes:
    """The IPTC in an EXIF block, as files hold it that have no other place for it, or nothing."""
    try:
        tags = Tags(io.BytesIO(block.removeprefix(HEAD)))
        return tags.value(tags.directory(tags.first).fields.get(_IPTC))
    except ValueError:
        return b""


def with_iptc(block: bytes, records: bytes) -> bytes:
    """An EXIF block, or an empty one, with IPTC in it; all else stays at its offset."""
    data = block.removeprefix(HEAD)
    if not data:
        return HEAD + _serialized("<", {0: [(_IPTC, 7, len(records), records)]})
    data += bytes(len(data) % 2)
    tags = Tags(io.BytesIO(data))
    entries = _entries(tags, tags.directory(tags.first), {_IPTC})
    made = bytearray(data + directory_bytes(tags.order, [*entries, (_IPTC, 7, len(records), records)], len(data)))
    struct.pack_into(tags.order + "I", made, 4, len(data))
    return HEAD + bytes(made)
