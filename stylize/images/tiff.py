"""TIFF in the layouts that Pillow does not read, or not right: samples of 1 to 64 bits, planes, floating point, Lab.

Pillow's libtiff decompresses each strip or tile as if it were a grey picture of bytes; what the bytes mean is settled
here.
"""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylize.errors import ImageError
from stylize.images import codestreams
from stylize.images.encodings import lab_to_srgb
from stylize.images.ifd import Field, Tags
from stylize.images.levels import float_white, whole_levels

Array = NDArray[Any]

_DEFLATE, _LZMA = (8, 32946), 34925
_PACKBITS = 32773
_BY_LIBTIFF = (5, _PACKBITS, 50000)  # LZW, PackBits, Zstandard
_COMPRESSIONS = {
    2: "CCITT", 3: "fax", 4: "fax", 6: "old JPEG", 7: "JPEG", 32809: "ThunderScan", 34676: "SGI Log", 34677: "SGI Log",
    34712: "JPEG 2000", 33003: "JPEG 2000", 33005: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG", 34933: "PNG",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_BY_PILLOW = (2, 3, 4, 6, 7, 32809, 34676, 34677)  # of those above
_WHITE_IS_0, _GREY, _RGB, _PALETTE, _CMYK, _LAB, _ICC_LAB = 0, 1, 2, 3, 5, 8, 9
_COLOURS = {_WHITE_IS_0: 1, _GREY: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _LAB: 3, _ICC_LAB: 3}
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3


@dataclass(frozen=True)
class Samples:
    """The samples of a picture: ``values`` (H, W, C), of which ``white`` is white; grey, RGB or CMYK, perhaps alpha.
    ``note`` is what is to be said of them, if anything is."""

    values: Array
    white: float
    has_alpha: bool
    orientation: int
    cmyk: bool = False
    note: str = ""


class Layout:
    """How the samples of the first picture of a TIFF are stored.

    Raises:
        ValueError: it is no TIFF, or lacks what is needed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._tags = file, Tags(file)
        self._fields = self._tags.directory(self._tags.first).fields
        self.width, self.height = self._one(256, 0), self._one(257, 0)
        self.samples = self._one(277, 1)
        self.bits = self._tags.integers(self._fields.get(258)) or (1,)
        self.formats = self._tags.integers(self._fields.get(339)) or (_UNSIGNED,)
        self.compression, self.photometric = self._one(259, 1), self._one(262, _GREY)
        self.planar, self.predictor = self._one(284, 1) == 2, self._one(317, 1)
        self.extra = self._tags.integers(self._fields.get(338))
        self.orientation = self._one(274, 1)
        if not 0 < self.width < 2**31 or not 0 < self.height < 2**31 or not 0 < self.samples < 2**12:
            raise ValueError("it has no size")

    def _one(self, tag: int, default: int) -> int:
        values = self._tags.integers(self._fields.get(tag))
        return values[0] if values else default

    @property
    def profile(self) -> bytes:
        """The ICC profile of its colours, or nothing."""
        if self.photometric in (_LAB, _ICC_LAB):  # converted already
            return b""
        return self._tags.value(self._fields.get(34675))

    @property
    def suits_pillow(self) -> bool:
        """Whether Pillow reads this layout right and in full."""
        if self.compression in _COMPRESSIONS and self.compression != codestreams.JPEG:
            return self.compression in _BY_PILLOW
        if self.compression == codestreams.JPEG and self.photometric not in _COLOURS:  # YCbCr, the usual kind
            return set(self.bits) == {8}
        if self.compression == _PACKBITS and self.predictor > 1:  # libtiff knows of no predictor here
            return False
        if self.planar and self.samples > _COLOURS.get(self.photometric, 4):  # alpha in a plane of its own
            return False
        return set(self.bits) <= {1, 8} and set(self.formats) == {_UNSIGNED} and self.photometric != _LAB

    @property
    def _is_coded(self) -> bool:
        """Whether its strips are pictures of another format that is read."""
        together = 1 if self.planar else self.samples
        unsigned = set(self.formats) == {_UNSIGNED}
        return unsigned and codestreams.holds(self.compression, self.bits[0], together)

    @property
    def pages(self) -> int:
        """How many pictures there are in the file."""
        seen: list[int] = []
        offset = self._tags.first
        while offset and offset not in seen and len(seen) < 10_000:
            seen.append(offset)
            try:
                offset = self._tags.directory(offset).next
            except ValueError:
                break
        return len(seen)

    @property
    def _is_decoded(self) -> bool:
        """Whether its compression is one that is read."""
        return self._is_coded or self.compression in (1, *_DEFLATE, _LZMA, *_BY_LIBTIFF)

    def problem(self) -> str:
        """What of it cannot be read, in words, or nothing."""
        if self.photometric not in _COLOURS:
            names = {6: "YCbCr", 32803: "a mosaic of a sensor", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw"}
            return f"colours stored as {names.get(self.photometric, f'type {self.photometric}')}"
        if not self._is_decoded:
            if self.compression not in _COMPRESSIONS:
                return f"compression {self.compression}"
            signed = "signed " if self.formats[0] == _SIGNED else ""
            return f"samples of {self.bits[0]} {signed}bits compressed as {_COMPRESSIONS[self.compression]}"
        if len(set(self.bits)) > 1 or self.bits[0] > 64 or max(self.formats) > 4 or len(set(self.formats)) > 1:
            return f"samples of {', '.join(map(str, self.bits))} bits and formats {', '.join(map(str, self.formats))}"
        if self.formats[0] == _FLOAT and self.bits[0] not in (16, 24, 32, 64):
            return f"floating point of {self.bits[0]} bits"
        if self.samples < _COLOURS[self.photometric]:
            return f"{self.samples} samples a pixel"
        return ""

    def read(self) -> Samples:
        """The picture, positive, in the channels grey, RGB or CMYK, with alpha if it has some.

        Raises:
            ImageError: the layout cannot be read.
        """
        if problem := self.problem():
            other = self.photometric in _COLOURS and not self._is_decoded
            advice = "save it with another compression" if other else "convert it to 8 or 16 bits"
            raise ImageError(f"a TIFF with {problem}, which is not supported; {advice}")
        colours = _COLOURS[self.photometric]
        alpha = self._alpha(colours)
        values = self._raw(colours + bool(alpha))
        if values.dtype == np.int8 and values.size and values.min() < 0:  # bytes that somebody called signed
            self.formats = (_UNSIGNED,)
            values = values.view(np.uint8)
        if self.photometric == _PALETTE:
            palette = np.array(self._tags.integers(self._fields.get(320)), np.uint16).reshape(3, -1).T
            colour = palette[np.minimum(values[..., 0], len(palette) - 1)]
            return Samples(colour, 65535, False, self.orientation)
        if self.photometric in (_LAB, _ICC_LAB):
            colour = lab_to_srgb(self._lab(values[..., :3]))
            if alpha:
                top = values[..., 3:].astype(np.float32) / np.float32(2 ** self.bits[0] - 1)
                colour = np.concatenate([colour, top], axis=2)
            return Samples(colour, 1, bool(alpha), self.orientation)
        white, note = 1.0, ""
        if self.formats[0] == _FLOAT:
            white = float_white(values)
        else:
            signed, told = self.formats[0] == _SIGNED, (self._told(340, 280), self._told(341, 281))
            values, white, note = whole_levels(values, self.bits[0], signed=signed, told=told, alpha=bool(alpha))
        if self.photometric == _WHITE_IS_0:
            values[..., 0] = white - values[..., 0]
        if alpha == 1:
            values = values.astype(np.float32)
            opacity = np.maximum(values[..., -1:] / white, 1 / max(white, 65535))
            values[..., :-1] = np.minimum(values[..., :-1] / opacity, white)
        return Samples(values, white, bool(alpha), self.orientation, self.photometric == _CMYK, note)

    def _alpha(self, colours: int) -> int:
        """The kind of alpha behind the colours: 1 premultiplied, 2 not, 0 none; where nothing is said of it, 2."""
        if self.samples <= colours:
            return 0
        kind = self.extra[0] if self.extra else 2 * (self.samples == colours + 1)
        return kind if kind in (1, 2) else 0

    def _told(self, *tags: int) -> int | None:
        """The one number, or that of all samples, that the first of these tags has: SMinSampleValue and the like."""
        for tag in tags:
            values = set(self._tags.numbers(self._fields.get(tag)))
            if len(values) == 1:
                return round(values.pop())
        return None

    def _lab(self, values: Array) -> Array:
        bits, lab = self.bits[0], values.astype(np.float64)
        if self.formats[0] == _FLOAT:
            return lab
        lab[..., 0] *= 100 / (2**bits - 1)
        if self.photometric == _ICC_LAB:
            lab[..., 1:] -= 2 ** (bits - 1)
        else:  # two's complement, whatever the format says
            lab[..., 1:] = (lab[..., 1:] + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        lab[..., 1:] /= 2 ** (bits - 8)
        return lab

    # --- strips and tiles

    def _raw(self, wanted: int) -> Array:
        """The first samples of each pixel as stored, (H, W, wanted), of the smallest type of NumPy that holds them."""
        tiled = 324 in self._fields
        offsets, lengths = (self._tags.integers(self._field(tag)) for tag in ((324, 325) if tiled else (273, 279)))
        wide = self._one(322, 0) if tiled else self.width
        rows = self._one(323, 0) if tiled else min(self._one(278, self.height), self.height)
        if wide < 1 or rows < 1 or wide * rows > 2**31:
            raise ValueError("tiles without a size")
        planes = wanted if self.planar else 1
        if not tiled and rows == self.height and self.compression == 1:  # a number of rows that is too large
            rows = -(-self.height // max(1, len(offsets) // (self.samples if self.planar else 1)))
        across, down = -(-self.width // wide), -(-self.height // rows)
        channels = 1 if self.planar else self.samples
        if min(len(offsets), len(lengths)) < across * down * planes:
            raise ValueError("strips are missing")
        made = np.zeros((self.height, self.width, wanted), self._type())
        for index in range(across * down * planes):
            plane, tile = divmod(index, across * down)
            top, left = (tile // across) * rows, (tile % across) * wide
            high = rows if tiled else min(rows, self.height - top)
            part = self._part(offsets[index], lengths[index], high, wide, channels)
            part = part[: self.height - top, : self.width - left]
            place = (slice(top, top + part.shape[0]), slice(left, left + part.shape[1]))
            if self.planar:
                made[(*place, plane)] = part[..., 0]
            else:
                made[place] = part[..., :wanted]
        return made

    def _field(self, tag: int) -> Field | None:
        return self._fields.get(tag)

    def _type(self) -> np.dtype[Any]:
        bits, kind = self.bits[0], self.formats[0]
        if kind == _FLOAT:
            return np.dtype({16: np.float16, 24: np.float32, 32: np.float32, 64: np.float64}[bits])
        size = next(size for size in (8, 16, 32, 64) if bits <= size)
        return np.dtype(f"{'i' if kind == _SIGNED else 'u'}{size // 8}")

    def _part(self, offset: int, length: int, rows: int, wide: int, channels: int) -> Array:
        """A strip or tile, (rows, wide, channels)."""
        bits = self.bits[0]
        row = -(-wide * channels * bits // 8)
        self._file.seek(offset)
        data = self._file.read(min(length, 2 * rows * row + 2**16))
        if self._one(266, 1) == 2:
            data = data.translate(_REVERSED)
        if self.compression in codestreams.FORMATS:
            tables = self._tags.value(self._field(347))
            return codestreams.decoded(data, self.compression, bits, channels, tables)[:rows, :wide]
        data = self._unpacked(data, rows, row)
        if len(data) < rows * row:
            raise OSError("image file is truncated")
        lines = np.frombuffer(data, np.uint8, rows * row).reshape(rows, row)
        if self.predictor == 3:
            return self._floating(lines, wide, channels)
        if bits in (8, 16, 32, 64):
            code = {_FLOAT: "f", _SIGNED: "i"}.get(self.formats[0], "u")
            samples = lines.view(f"{self._tags.order}{code}{bits // 8}").reshape(rows, wide, channels)
            if self.predictor == 2:
                whole = samples.view(f"{self._tags.order}u{bits // 8}")
                added = np.add.accumulate(whole.astype(whole.dtype.newbyteorder("=")), axis=1, dtype=f"u{bits // 8}")
                samples = added.view(f"{code}{bits // 8}")
            return samples
        if self.formats[0] == _FLOAT:  # of 24 bits
            return _half_and_half(lines.reshape(rows, wide, channels, 3), self._tags.order)
        return _bitwise(lines, (wide, channels), bits, self._tags.order, signed=self.formats[0] == _SIGNED)

    def _unpacked(self, data: bytes, rows: int, row: int) -> bytes:
        if self.compression == 1:
            return data
        if self.compression in _DEFLATE:
            return zlib.decompressobj().decompress(data, rows * row)
        if self.compression == _LZMA:
            return lzma.LZMADecompressor().decompress(data, rows * row)
        return by_libtiff(data, self.compression, row, rows)

    def _floating(self, lines: Array, wide: int, channels: int) -> Array:
        """Undo the predictor of floating point: differences of bytes, the most significant ones of a row first."""
        size = self.bits[0] // 8
        stepped = lines.reshape(len(lines), -1, channels)
        summed = np.add.accumulate(stepped, axis=1, dtype=np.uint8).reshape(len(lines), size, wide, channels)
        whole = np.ascontiguousarray(np.moveaxis(summed, 1, -1))
        if size == 3:
            return _half_and_half(whole, ">")
        return whole.view(f">f{size}")[..., 0]


def uncommon_compression(number: int | None) -> str:
    """The name of a compression that Pillow's libtiff may lack, or nothing."""
    return _COMPRESSIONS.get(number or 1, "") if (number or 1) > 7 else ""


def _bitwise(lines: Array, shape: tuple[int, int], count: int, order: str, *, signed: bool) -> Array:
    """Samples of a number of bits that bytes do not divide; (rows, bytes) -> (rows, *shape)."""
    wide, channels = shape
    if count == 24 and order == "<":
        kept = np.unpackbits(lines.reshape(len(lines), -1, 3)[..., ::-1].reshape(len(lines), -1), axis=1)
    else:
        kept = np.unpackbits(lines, axis=1, count=wide * channels * count)
    made = np.zeros((len(lines), wide * channels), np.uint64 if count > 32 else np.uint32)
    grouped = kept.reshape(len(lines), wide * channels, count)
    for index in range(count):
        made = (made << made.dtype.type(1)) | grouped[..., index]
    if signed:
        top = 2 ** (count - 1)
        made = (made.astype(np.int64) + top) % 2**count - top
    shaped: Array = made.reshape(len(lines), wide, channels)
    return shaped


def _half_and_half(bytes_: Array, order: str) -> Array:
    """Floating point of 24 bits (..., 3 bytes): a sign, an exponent of 7 bits and a fraction of 16 -> float32."""
    high, middle, low = (bytes_[..., index].astype(np.uint32) for index in ((2, 1, 0) if order == "<" else (0, 1, 2)))
    whole = (high << 16) | (middle << 8) | low
    sign, exponent, fraction = whole >> 23, (whole >> 16) & 0x7F, whole & 0xFFFF
    scale = np.where(exponent > 0, exponent, 1).astype(np.float64) - 63
    value = (np.where(exponent > 0, 1.0, 0.0) + fraction / 65536) * 2.0**scale
    return np.where(sign == 1, -value, value).astype(np.float32)


def by_libtiff(data: bytes, compression: int, row: int, rows: int) -> bytes:
    """Decompress a strip as the only one of a grey TIFF of bytes."""
    entries = [
        (256, 4, row), (257, 4, rows), (258, 3, 8), (259, 3, compression), (262, 3, 1), (273, 4, 0), (277, 3, 1),
        (278, 4, rows), (279, 4, len(data)),
    ]  # fmt: skip
    start = 8 + 2 + 12 * len(entries) + 4
    table = b"".join(
        struct.pack("<HHI", tag, kind, 1)
        + (struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", start if tag == 273 else value))
        for tag, kind, value in entries
    )
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + table + struct.pack("<I", 0)
    with Image.open(io.BytesIO(head + data), formats=["TIFF"]) as image:
        return image.tobytes()
