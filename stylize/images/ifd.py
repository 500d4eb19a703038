"""Image file directories: the tags of TIFF files and of EXIF blocks, as they are stored.

Pillow's own reader of tags decodes values and loses their types; here they stay bytes at their offsets.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_FLOATS = {11: "f", 12: "d"}
_MOST = 2**16  # fields of a directory
_LONGEST = 2**26  # bytes of a value


@dataclass(frozen=True)
class Field:
    """A field of a directory: its tag, type and count, where its entry is and where its value is, in bytes."""

    tag: int
    type: int
    count: int
    entry: int
    start: int

    @property
    def length(self) -> int:
        return SIZES.get(self.type, 1) * self.count


@dataclass(frozen=True)
class Directory:
    """A directory at an offset: its fields by tag, the first of each, and the offset of the next directory or 0."""

    offset: int
    fields: dict[int, Field]
    next: int
    next_entry: int  # where the offset of the next one is


class Tags:
    """The directories of a TIFF file or an EXIF block.

    Raises:
        ValueError: it has no header of a TIFF.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.length = file.seek(0, 2)
        file.seek(0)
        head = file.read(16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if len(head) < 8 or not self.order:
            raise ValueError("no header of a TIFF")
        self.magic = int(struct.unpack_from(self.order + "H", head, 2)[0])
        self.big = self.magic == 43
        if self.big and len(head) == 16:
            self.first = int(struct.unpack_from(self.order + "Q", head, 8)[0])
        else:
            self.first = int(struct.unpack_from(self.order + "I", head, 4)[0])

    def directory(self, offset: int) -> Directory:
        """The directory at an offset; fields of values beyond the end of the file are left out.

        Raises:
            ValueError: there is none.
        """
        size, count_size, inline = (20, 8, 8) if self.big else (12, 2, 4)
        count = self._number(offset, count_size)
        if not 0 < count <= _MOST or offset < 8:
            raise ValueError("no directory")
        self._file.seek(offset + count_size)
        table = self._file.read(count * size)
        if len(table) < count * size:
            raise ValueError("no directory")
        fields: dict[int, Field] = {}
        for index in range(count):
            tag, kind = struct.unpack_from(self.order + "HH", table, index * size)
            (number,) = struct.unpack_from(self.order + ("Q" if self.big else "I"), table, index * size + 4)
            entry = offset + count_size + index * size
            length = SIZES.get(kind, 0) * number
            start = entry + size - inline
            if length > inline:
                start = self._number(start, inline)
            if length and start + length <= self.length:
                fields.setdefault(tag, Field(tag, kind, number, entry, start))
        end = offset + count_size + count * size
        try:
            following = self._number(end, inline)
        except ValueError:
            following = 0
        return Directory(offset, fields, following, end)

    def _number(self, offset: int, size: int) -> int:
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) < size:
            raise ValueError("beyond the end of the file")
        return int(struct.unpack(self.order + {2: "H", 4: "I", 8: "Q"}[size], data)[0])

    def value(self, field: Field | None) -> bytes:
        """The bytes of a value as they are stored; empty for one that is absent or too long."""
        if field is None or field.length > _LONGEST:
            return b""
        self._file.seek(field.start)
        return self._file.read(field.length)

    def integers(self, field: Field | None) -> tuple[int, ...]:
        """The numbers of a field of integers, or none."""
        if field is None or field.type not in _INTEGERS:
            return ()
        data = self.value(field)
        count = len(data) // SIZES[field.type]
        return struct.unpack(f"{self.order}{count}{_INTEGERS[field.type]}", data[: count * SIZES[field.type]])

    def numbers(self, field: Field | None) -> tuple[float, ...]:
        """The finite numbers of a field of integers or of floating point, or none."""
        if field is None or field.type not in _FLOATS:
            return self.integers(field)
        data = self.value(field)
        found = struct.unpack(f"{self.order}{len(data) // SIZES[field.type]}{_FLOATS[field.type]}", data)
        return tuple(value for value in found if math.isfinite(value))

    def fractions(self, field: Field | None) -> tuple[Fraction, ...]:
        """The numbers of a field of rationals with denominators other than 0, or none."""
        if field is None or field.type not in (5, 10):
            return ()
        data = self.value(field)
        numbers = struct.unpack(f"{self.order}{len(data) // 4}{'I' if field.type == 5 else 'i'}", data)
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return tuple(Fraction(above, below) for above, below in pairs if below)
