"""Which colours a file says it has, other than by an ICC profile."""

from __future__ import annotations

import struct
from typing import BinaryIO

from PIL import ExifTags, Image

from stylize.images.containers import png_parts
from stylize.images.encodings import Encoding, adobe_rgb, of_cicp, of_png
from stylize.images.signatures import nclx

_UNCALIBRATED, _ADOBE = 65535, 2  # colour spaces in EXIF


def encoding_of(file: BinaryIO, length: int, kind: str, exif: Image.Exif, has_profile: bool) -> Encoding | None:
    """The encoding that a file of a format declares by numbers; None for sRGB, and where its ICC profile counts."""
    if kind == "PNG" and (chunks := _png_chunks(file)):
        return _of_png(chunks, has_profile)
    if has_profile:
        return None
    if kind in ("AVIF", "HEIC"):
        numbers = nclx(file, length)
        return of_cicp(*numbers) if numbers else None
    return adobe_rgb() if _is_adobe(exif) else None


def _png_chunks(file: BinaryIO) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for part in png_parts(file):
        if part.kind in (b"cICP", b"sRGB", b"gAMA", b"cHRM"):
            found.setdefault(part.kind, part.read(file, 64))
        elif part.kind == b"IDAT":
            break
    return found


def _of_png(found: dict[bytes, bytes], has_profile: bool) -> Encoding | None:
    """In the order in which the specification has them count: cICP, iCCP, sRGB, gAMA and cHRM."""
    if len(found.get(b"cICP", b"")) == 4:
        return of_cicp(found[b"cICP"][0], found[b"cICP"][1])
    if has_profile or b"sRGB" in found:
        return None
    gamma = int.from_bytes(found[b"gAMA"]) / 1e5 if len(found.get(b"gAMA", b"")) == 4 else None
    chromaticities = None
    if len(found.get(b"cHRM", b"")) == 32:
        numbers = [value / 1e5 for value in struct.unpack(">8I", found[b"cHRM"])]
        if all(0 < value < 1 for value in numbers[1::2]):
            white, *primaries = zip(numbers[::2], numbers[1::2], strict=True)
            chromaticities = (*primaries, white)
    return of_png(gamma, chromaticities)


def _is_adobe(exif: Image.Exif) -> bool:
    """Whether EXIF says Adobe RGB as cameras do (DCF): uncalibrated, with the interoperability rule R03."""
    try:
        photo = exif.get_ifd(ExifTags.IFD.Exif)
        space, place = photo.get(ExifTags.Base.ColorSpace), photo.get(ExifTags.IFD.Interop)
        rule = place.get(1) if isinstance(place, dict) else exif.get_ifd(ExifTags.IFD.Interop).get(1)
    except Exception:  # a corrupt EXIF block is no reason to refuse the picture
        return False
    if isinstance(rule, bytes):
        rule = rule.decode("latin-1")
    return space == _ADOBE or (space == _UNCALIBRATED and str(rule or "").strip("\0 ") == "R03")
