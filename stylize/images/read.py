"""Reading: file -> picture. Whatever Pillow opens, and by other decoders what it lacks or would cut to 8 bits."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import importlib
import io
import os
import re
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageCms, TiffImagePlugin, UnidentifiedImageError

from stylize.errors import ImageError, StylizeError
from stylize.images import about
from stylize.images.bitmaps import bmp_samples, photoshop_document
from stylize.images.colortags import encoding_of
from stylize.images.deep import bits_of, light, samples_of, tiff_samples
from stylize.images.fits import fits_samples, fits_size
from stylize.images.levels import float_white, whole_levels
from stylize.images.metadata import ORIENTATIONS, read_exif
from stylize.images.picture import About, Origin, Picture, fit
from stylize.images.profiles import Source, check_profile, color_space, source_of, srgb
from stylize.images.repair import completed_jpeg, jp2_palette, png_essence, png_profile
from stylize.images.signatures import format_name, raw_format
from stylize.images.silence import MAX_PIXELS, SILENCE
from stylize.images.tiff import Layout, Samples, uncommon_compression
from stylize.stores import StorePath, as_path
from stylize.text import one_line

UNREAD = {"EPS", "WMF", "FPX", "MIC", "PDF", "BUFR", "GRIB", "HDF5", "MPEG"}  # not decoded by Pillow itself
LIGHT = ("OpenEXR", "Radiance HDR")
EXTRAS = {"HEIC": "pillow_heif", "JPEG XL": "pillow_jxl"}  # formats that modules of the extra "photo" read
DECODED = {"PNG", "JPEG", "GIF", "WebP", "BMP", "Photoshop", "JPEG 2000", "TIFF", "AVIF", "QOI", "FITS", *EXTRAS}
GAP = 3  # coarse, fast shrinking stops at this many times the size wanted
RESAMPLING = Image.Resampling.BICUBIC  # antialiased; the kernel of resize()

_LOADING = threading.Lock()  # a Pillow image that is given may be given to several threads

File = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]  # what a picture's file can be given as

Array = NDArray[Any]


def load(source: File | Image.Image, *, longest: int | None = None, profile: str = "srgb") -> Picture:
    """Read a picture of any mode, upright and in sRGB, its longest side no longer than ``longest`` px.

    ``source`` is the path of a file, its bytes, a file object opened as ``"rb"`` (read from where it stands), or a
    Pillow image, which is taken as from a file, with its mode, profile and EXIF. Only a path becomes the
    picture's ``origin``.

    A larger picture is shrunk to the size :func:`fit` gives while it is decoded: it never takes the memory of its full
    size in floating point.

    Whole numbers are relative to the largest that their bits can hold. Of those of 32 bits, only as many bits count as
    the highest number needs, and at least 16, unless the file tells its range (SMaxSampleValue of a TIFF); a note says
    so. In floating point 1 is white and what is above is cut off, unless most values are above: then they are taken as
    levels of 8 or 16 bits. Colours are converted to sRGB by the ICC profile, or by what the file says of its primaries
    and transfer function; HDR ones are tone-mapped.

    With ``profile="keep"`` they stay in the file's own RGB profile, which becomes ``picture.profile``; in the place of
    primaries that are told otherwise a profile is made. Grey and CMYK pictures are converted all the same, as are those
    of profiles that only read; a note says so.

    Raises:
        SettingsError: a ``profile`` that is neither "srgb" nor "keep".
        ImageError: the file is missing, unreadable, not a picture, damaged, or too large to decode safely.
    """
    check_profile(profile)
    keep = profile == "keep"
    if isinstance(source, Image.Image):
        with _as_image_errors("the PIL image"), SILENCE:
            name = Path(getattr(source, "filename", "") or "").stem
            return _of_image(source, None, 0, "", _Wanted(longest, keep, name), [])
    if not isinstance(source, (str, os.PathLike)):
        name, data = _content_of(source)
        with _as_image_errors(name or "the picture in memory"), SILENCE:
            return _decode(io.BytesIO(data), len(data), _Wanted(longest, keep, Path(name).stem))
    path = as_path(source)
    with open_file(path) as (opened, length), SILENCE:
        if length == 0:
            raise ImageError("the file is empty; get a complete copy")
        origin = Origin(path, _sha256(opened), path.version() if isinstance(path, StorePath) else "")
        opened.seek(0)
        return dataclasses.replace(_decode(opened, length, _Wanted(longest, keep, path.stem)), origin=origin)


def _content_of(source: bytes | bytearray | memoryview | IO[bytes]) -> tuple[str, bytes]:
    """The name of a file object, if it has one, and the bytes there are."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = "", bytes(source)
    else:
        given = getattr(source, "name", "")
        name = given if isinstance(given, str) else ""
        if not hasattr(source, "read"):
            kind = type(source).__name__
            taken = "a path, bytes, a file object or a PIL image; as_picture() takes arrays and tensors, too"
            raise ImageError(f"cannot read an object of type {kind}: load() takes {taken}")
        with _as_image_errors(name or "the file object"):
            found: object = source.read()
            if not isinstance(found, bytes):
                raise ImageError("it gives text; open it with mode 'rb'")
            data = found
    if not data:
        raise ImageError(
            f"cannot read {name or 'the picture in memory'}: it is empty, or at its end; a file object that was "
            "written to needs seek(0) first"
        )
    return name, data


def digest(path: str | Path) -> str:
    """The SHA-256 of the bytes of a file in hex, as in :class:`Origin`.

    Raises:
        ImageError: the file is missing, unreadable, or no regular one.
    """
    with open_file(Path(path)) as (file, _):
        return _sha256(file)


def _sha256(file: io.BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def open_file(path: Path, *, parts: bool = False) -> Iterator[tuple[io.BufferedReader, int]]:
    """A regular file, opened, and its length in bytes; any error, of the block too, becomes an ImageError. With
    ``parts``, of a file in a store only what is read is fetched."""
    path = as_path(path)
    with _as_image_errors(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file; give the path of a picture")
        with path.parts_of() if parts and isinstance(path, StorePath) else path.open("rb") as file:
            yield file, status.st_size


@contextlib.contextmanager
def _as_image_errors(what: str | Path) -> Iterator[None]:
    """Any error of the block as an ImageError that names what was to be read."""
    try:
        yield
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise ImageError(one_line(f"cannot read {what}: {_problem(error)}")) from error


def _problem(error: Exception) -> str:
    """What went wrong while reading and what to do about it, in words for the user."""
    if isinstance(error, StylizeError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a known format, or damaged; convert it to PNG or JPEG"
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\d+", str(error))
        return _too_large(int(pixels[0]) if pixels else MAX_PIXELS)
    if isinstance(error, MemoryError):
        return "not enough memory to decode it; scale it down first"
    if isinstance(error, FileNotFoundError) and re.match(r"(https?|ftp):/", str(error.filename)):
        return "an address of the web, from which nothing is fetched; download the picture first"
    if isinstance(error, OSError) and error.strerror and (error.errno or 0) in errno.errorcode.keys() - {errno.EINVAL}:
        return f"{error.strerror}; check the path and its permissions"
    return f"truncated or damaged ({str(error) or type(error).__name__}); get a complete copy"


@dataclass(frozen=True)
class _Wanted:
    """What is wanted of a picture: its longest side in px, whether to keep its own colours, and its name."""

    longest: int | None
    keep: bool
    name: str

    def size(self, height: int, width: int) -> tuple[int, int]:
        return (height, width) if self.longest is None else fit(height, width, self.longest)


def _decode(file: BinaryIO, length: int, wanted: _Wanted) -> Picture:
    """The picture in a file of ``length`` bytes."""
    kind, notes = _identified(file), list[str]()
    if kind in LIGHT:
        values, cut = light(file, kind)
        _refuse_bomb(values.shape[1], values.shape[0])
        notes += ["light beyond white is cut off"] if cut else []
        samples = Samples(values, 1.0, values.shape[2] in (2, 4), 1)
        return _of_samples(samples, wanted, (None, About(bits=16)), notes, Source())
    if kind == "FITS" and (size := fits_size(file)):
        _refuse_bomb(*size)
        samples, depth, notes = fits_samples(file)
        return _of_samples(samples, wanted, (None, About(bits=depth)), notes, Source())
    if kind == "TIFF" and (found := tiff_samples(file, _refuse_bomb)):
        return _of_tiff(file, found, wanted, notes)
    if kind == "BMP" and (fields := bmp_samples(file, _refuse_bomb)):
        return _of_samples(fields, wanted, (None, About()), notes, Source())
    if kind == "Photoshop" and (document := photoshop_document(file, _refuse_bomb)):
        mode = {1: "L", 4: "CMYK"}.get(document.samples.values.shape[2] - document.samples.has_alpha, "RGB")
        source = source_of(document.profile, None, mode, notes, keep=wanted.keep, deep=True)
        carried = about.of_photoshop(file, document.bits, notes, colors=not source.kept)
        return _of_samples(document.samples, wanted, carried, notes, source)
    image, opened = _opened(file, length, kind, notes)
    notes += _frame_notes(image)
    return _of_image(image, opened, length, kind, wanted, notes)


def _of_image(
    image: Image.Image, file: BinaryIO | None, length: int, kind: str, wanted: _Wanted, notes: list[str]
) -> Picture:
    """The picture that Pillow has opened in a file, or in an image that is somebody else's."""
    width, height = image.size
    _refuse_bomb(width, height)
    bits = 0 if file is None else bits_of(image, file)
    if kind == "PNG":  # whose EXIF Pillow looks for behind the pixels, too, and takes no note of damage on the way
        _load(image, length)
    exif = read_exif(image)
    drafted = None
    if wanted.longest is not None and file is not None:  # only JPEG decodes at a fraction of its size
        rows, columns = fit(height, width, wanted.longest)
        drafted = image.draft(None, (GAP * columns, GAP * rows))
    if file is None:
        with _LOADING:
            image.load()
    else:
        _load(image, length)
        image = _righted(image, file, length)
    orientation = exif.get(ExifTags.Base.Orientation)  # after load(), which turns a TIFF by itself
    if kind == "JPEG XL" and not getattr(image, "jpeg", False):  # turned already; its EXIF does not count
        orientation = None
    if drafted is None:
        width, height = image.size

    depth = bits or (16 if image.mode.startswith(("I", "F")) and image.mode != "1" else 8)
    samples = _deep_samples(image, file, bits)
    data = image.info.get("icc_profile") or b""
    encoding = encoding_of(file or io.BytesIO(), length, kind, exif, bool(data))
    counts = b"" if encoding and kind == "PNG" else data
    source = source_of(counts, encoding, image.mode, notes, keep=wanted.keep, deep=samples is not None)
    carried = about.of_image(image, file, kind, depth, notes, colors=not source.kept)
    if samples is not None:
        return _of_samples(samples, wanted, carried, notes, source, orientation)
    box = drafted[1] if drafted else (0, 0, *image.size)
    pixels, has_alpha = _decode_plain(image, box, wanted.size(height, width), source.profile, notes)
    return _finished(pixels, has_alpha, source, orientation, carried, notes, wanted.name)


def _finished(
    pixels: Array,
    has_alpha: bool,
    source: Source,
    orientation: Any,
    carried: tuple[bytes | None, About],
    notes: list[str],
    name: str,
) -> Picture:
    """A picture of (H, W, C) uint8 samples, or float32 ones in [0, 1]; ``carried`` are EXIF and the like."""
    if source.told is not None:
        if source.told.hdr:
            notes.append("HDR picture: brightness mapped to that of a common display")
        unit = pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels
        if unit.shape[2] < 3:
            unit = np.concatenate([np.repeat(unit[..., :1], 3, axis=2), unit[..., 1:]], axis=2)
        pixels = source.told.to_srgb(np.ascontiguousarray(unit))
    white = 255 if pixels.dtype == np.uint8 else 1
    samples = ORIENTATIONS[orientation if orientation in ORIENTATIONS else 1](torch.from_numpy(pixels))
    samples = samples.permute(2, 0, 1)[None]
    rgb = (
        torch.empty(1, 3, *samples.shape[2:], dtype=torch.float32)
        .copy_(samples[:, :-1] if has_alpha else samples)
        .div_(white)
    )
    alpha = None
    if has_alpha and bool((samples[:, -1] < white).any()):
        alpha = torch.empty(1, 1, *samples.shape[2:], dtype=torch.float32).copy_(samples[:, -1:]).div_(white)
    return Picture(rgb, alpha, carried[0], tuple(notes), name, about=carried[1], profile=source.kept)


def _of_tiff(file: BinaryIO, found: tuple[Layout, Samples], wanted: _Wanted, notes: list[str]) -> Picture:
    layout, samples = found
    if layout.pages > 1:
        notes.append(f"first of {layout.pages} pages used")
    exif = Image.Exif()
    with contextlib.suppress(Exception):  # a corrupt EXIF block is no reason to refuse the picture
        file.seek(0)
        exif.load_from_fp(file)
    encoding = None if layout.profile else encoding_of(io.BytesIO(), 0, "TIFF", exif, False)
    mode = {1: "L", 4: "CMYK"}.get(samples.values.shape[2] - samples.has_alpha, "RGB")
    source = source_of(layout.profile, encoding, mode, notes, keep=wanted.keep, deep=True)
    carried = about.of_tiff(file, max(layout.bits), notes, colors=not source.kept)
    return _of_samples(samples, wanted, carried, notes, source)


def _of_samples(
    samples: Samples,
    wanted: _Wanted,
    carried: tuple[bytes | None, About],
    notes: list[str],
    source: Source,
    orientation: Any = None,
) -> Picture:
    """A picture of samples that Pillow had no part in."""
    height, width = samples.values.shape[:2]
    size = wanted.size(height, width)
    notes += [samples.note] if samples.note else []
    if source.profile:  # for the colour engine alone, which takes 8 bits
        notes.append("16 bits read as 8: its colour profile is of a kind that takes no more")
        box = (0, 0, width, height)
        pixels, has_alpha = _decode_plain(_as_image(samples), box, size, source.profile, notes)
    else:
        pixels, has_alpha = _to_unit(samples, size), samples.has_alpha
        if samples.cmyk and source.told is None:
            colour = (1 - pixels[..., :3]) * (1 - pixels[..., 3:4])
            pixels = np.concatenate([colour, pixels[..., 4:]], axis=2)
    turned = samples.orientation if orientation is None else orientation
    return _finished(pixels, has_alpha, source, turned, carried, notes, wanted.name)


def _as_image(samples: Samples) -> Image.Image:
    """The samples in 8 bits."""
    levels = np.rint(np.clip(samples.values / samples.white, 0, 1) * 255).astype(np.uint8)
    if samples.cmyk:
        return Image.fromarray(np.ascontiguousarray(levels[..., :4]), "CMYK")
    return Image.fromarray(levels if levels.shape[2] > 1 else levels[..., 0])


def _identified(file: BinaryIO) -> str:
    """The format of a file by its signature; those that cannot be read are refused by their names."""
    if raw := raw_format(file):
        raise ImageError(f"a raw file of a camera ({raw}): develop it to a TIFF or JPEG first")
    kind = format_name(file)
    if kind in EXTRAS:
        try:
            importlib.import_module(EXTRAS[kind])
            if kind == "HEIC":
                sys.modules[EXTRAS[kind]].register_heif_opener()
        except ImportError as error:
            need = "pip install 'stylize-host[photo]'"
            raise ImageError(f"{kind}, which needs an extra: {need}, or convert it to PNG or JPEG") from error
    file.seek(0)
    return kind


def _opened(file: BinaryIO, length: int, kind: str, notes: list[str]) -> tuple[Image.Image, BinaryIO]:
    """The picture, opened by Pillow, and the file it is read from: perhaps a mended copy in memory."""
    profile, source = b"", file
    if kind == "PNG":
        profile = png_profile(file)
        essence, damaged = png_essence(file)
        source = essence or file
        notes += ["damaged side information ignored"] if damaged else []
    elif kind == "JPEG":
        file.seek(max(0, length - 2))
        if file.read() != b"\xff\xd9" and not _has_end(file, length) and (whole := completed_jpeg(file)):
            source = whole
            notes.append("the mark of its end is missing")
    source.seek(0)
    try:
        image: Image.Image = Image.open(source, formats=_formats())
    except UnidentifiedImageError:
        if not kind:
            raise
        found = f"{kind}, damaged or of a kind that is not supported" if kind in DECODED else kind
        raise ImageError(f"not a picture that can be read: {found}; convert it to PNG or JPEG") from None
    _refuse_bomb(*image.size)
    if profile:
        image.info["icc_profile"] = profile
    return image, file if kind == "PNG" else source


def _righted(image: Image.Image, file: BinaryIO, length: int) -> Image.Image:
    """The decoded picture, with the colours that its format gives them and Pillow does not."""
    if image.format == "JPEG2000" and image.mode == "P" and (palette := jp2_palette(file, length)):
        image.putpalette(palette)
    if image.format == "XBM":  # whose bits are ink
        return ImageChops.invert(image)
    return image


def _has_end(file: BinaryIO, length: int) -> bool:
    """Whether the mark of the end of a JPEG is there, perhaps with other things after it."""
    file.seek(max(0, length - 2**16))
    return b"\xff\xd9" in file.read()


def _load(image: Image.Image, length: int) -> None:
    width, height = image.size
    try:
        image.load()
    except (OSError, SyntaxError) as error:
        if isinstance(image, TiffImagePlugin.TiffImageFile) and (named := uncommon_compression(image.tag_v2.get(259))):
            raise ImageError(f"a TIFF compressed as {named}, which is not supported; save it with another") from error
        if width * height > 1000 * length:
            claim = f"its header claims {width}x{height} pixels but the file has {length} bytes"
            raise ImageError(f"{claim}: truncated, or a decompression bomb; get a complete copy") from error
        raise


def _formats() -> list[str]:
    """The formats Pillow decodes itself. An EPS, by any file name, would be passed to Ghostscript."""
    Image.init()
    return [format for format in Image.ID if format not in UNREAD]


def _refuse_bomb(width: int, height: int) -> None:
    """Raise ImageError when a header promises more pixels than are safe."""
    if width * height < 1:
        raise ImageError(f"it has no pixels ({width}x{height}); get a complete copy")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}x{height} is {_too_large(width * height)}")


def _too_large(pixels: int) -> str:
    return f"{pixels / 1e6:.0f} megapixels, more than the limit of {MAX_PIXELS / 1e6:.0f}; scale it down first"


def _frame_notes(image: Image.Image) -> list[str]:
    count = getattr(image, "n_frames", 1)
    if count < 2 or image.format == "MPO":  # the second picture of a phone's JPEG is a preview or a depth map
        return []
    return [f"first of {count} pages used" if image.format == "TIFF" else f"animated: first of {count} frames used"]


def _deep_samples(image: Image.Image, file: BinaryIO | None, bits: int) -> Samples | None:
    """The samples of a picture of more than 8 bits; None for all others."""
    if bits and file is not None:
        return samples_of(image, file, bits)
    if not image.mode.startswith(("I", "F")):
        return None
    values = np.asarray(image)[..., None]
    if image.mode == "F":
        white, note = float_white(values), ""
    else:
        values, white, note = whole_levels(values, 32, signed=True)
    key = image.info.get("transparency")
    has_key = isinstance(key, int)
    if has_key:
        values = np.concatenate([values, (values != key) * values.dtype.type(white)], axis=2)
    return Samples(values, white, has_key, 1, note=note)


def _to_unit(samples: Samples, wanted: tuple[int, int]) -> Array:
    """Samples -> (*wanted, C) float32 in [0, 1]."""
    values, white = samples.values, samples.white
    channels = values.shape[2]
    if values.shape[:2] != wanted:
        planes = []
        for index in range(channels):
            plane = values[..., index].astype(np.float32)
            if samples.has_alpha and index < channels - 1:
                plane *= values[..., -1]
            planes.append(np.asarray(Image.fromarray(plane).resize(wanted[::-1], RESAMPLING, reducing_gap=GAP)))
        values = np.stack(planes, axis=2)
        if samples.has_alpha:
            values[..., :-1] /= np.maximum(values[..., -1:], white * 1e-6)
    unit = values.astype(np.float32, copy=False) / np.float32(white)
    return np.clip(unit, 0, 1, out=unit)


def _decode_plain(
    image: Image.Image,
    box: tuple[float, float, float, float],
    wanted: tuple[int, int],
    profile: ImageCms.ImageCmsProfile | None,
    notes: list[str],
) -> tuple[Array, bool]:
    """The samples of an 8-bit picture in sRGB, (*wanted, 3 or 4) uint8, and whether there is alpha.

    ``box`` is the part of it that counts.
    """
    plain = "L" if color_space(image.mode) == "GRAY" else "RGB"
    mode = "CMYK" if image.mode == "CMYK" else "RGBA" if image.has_transparency_data else plain
    image = _shrink(image, mode, box, *wanted)
    colour = image if mode == "CMYK" else _convert(image, plain)
    if profile:
        try:
            if profile.profile.xcolor_space == "RGB ":
                colour = colour.convert("RGB")
            colour = ImageCms.profileToProfile(colour, profile, srgb(), outputMode="RGB") or colour
        except ImageCms.PyCMSError as error:
            notes.append(one_line(f"colour profile ignored: {error}"))
    rgb = np.array(_convert(colour, "RGB"))
    if mode != "RGBA":
        return rgb, False
    return np.concatenate([rgb, np.asarray(image.getchannel("A"))[..., None]], axis=2), True


def _shrink(
    image: Image.Image, mode: str, box: tuple[float, float, float, float], height: int, width: int
) -> Image.Image:
    """The part ``box`` of an 8-bit picture, resized and in ``mode``; strip by strip, to save memory."""
    if image.size == (width, height):
        return _convert(image, mode)
    premultiplied = "RGBa" if mode == "RGBA" else mode  # hidden colours do not bleed into their neighbours
    factors = _power_of_two(box[2] / width / GAP), _power_of_two(box[3] / height / GAP)
    coarse = Image.new(premultiplied, (-(-image.width // factors[0]), -(-image.height // factors[1])))
    rows = factors[1] * max(1, 2**20 // (factors[1] * image.width))
    for top in range(0, image.height, rows):
        strip = _convert(image.crop((0, top, image.width, min(top + rows, image.height))), mode)
        coarse.paste(_convert(strip, premultiplied).reduce(factors), (0, top // factors[1]))
    box = (0, 0, box[2] / factors[0], box[3] / factors[1])
    return _convert(coarse.resize((width, height), RESAMPLING, box), mode)


def _power_of_two(factor: float) -> int:
    """The largest one up to ``factor``: Pillow reduces by others inexactly, so that white would no longer be white."""
    return 1 << max(0, int(factor).bit_length() - 1)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "La":  # Pillow has no shorter way
        image = image.convert("LA")
    return image if image.mode == mode else image.convert(mode)
