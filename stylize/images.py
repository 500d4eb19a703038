"""Pictures: file <-> (1, 3, H, W) float32 sRGB in [0, 1], with alpha, EXIF and ICC kept; colour and size.

Reading takes whatever Pillow opens; 16-bit colour goes through OpenCV, because Pillow cuts it to 8 bits.
Writing is atomic: a target is either the complete new picture or what it was before. A picture may carry a record,
a text saying how it was made, which is found again without decoding it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import html
import io
import json
import os
import re
import secrets
import stat
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError, features
from torch import Tensor

from stylize.errors import ImageError

MAX_PIXELS = 178_000_000  # just below the size at which Pillow itself refuses to open a file
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
}  # what save() writes, by extension
DEEP_FORMATS = ("PNG", "TIFF")  # those of them that hold 16 bits per channel
SIDES = {"JPEG": 65500, "WEBP": 16383, "AVIF": 32768}  # px a side they hold: what libjpeg and libavif read again
UNREAD = {"EPS", "WMF", "FPX", "MIC", "PDF", "BUFR", "GRIB", "HDF5", "MPEG"}  # not decoded by Pillow itself
RECORD_LIMIT = 2**20  # bytes of an embedded record; a longer one is neither written nor read
SPARE = 4  # how many times larger than painted a picture is read, so that its scales are made from fine detail
GAP = 3  # how many times larger than wanted a picture stays after coarse, fast shrinking
RESAMPLING = Image.Resampling.BICUBIC  # antialiased; the kernel of resize()
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the Y of YIQ
NOISE = 0.5 / 255  # a standard deviation below half a level of 8 bits is quantisation, not colour

Array = NDArray[Any]


@dataclass(frozen=True)
class Origin:
    """The file a picture was read from, and the SHA-256 of its bytes in hex."""

    path: Path
    sha256: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture in memory: ``rgb`` (1, 3, H, W) float32 sRGB in [0, 1] and what came with it.

    ``alpha`` is (1, 1, H, W) in [0, 1], or None when every pixel is opaque. ``exif`` is the camera's, with the
    orientation already applied to the pixels and set to 1. ``notes`` say in a few words what reading left out.
    ``name`` is the stem of the file. ``record`` says how the picture was made, in values that JSON has, and is
    embedded when it is saved; reading leaves it out, so that what is made of a picture does not pass for it.
    ``origin`` is the file it was read from, if any.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()
    name: str = ""
    record: Mapping[str, Any] | None = None
    origin: Origin | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rgb.shape[-2], self.rgb.shape[-1]

    def opaque(self) -> Picture:
        """The same picture without alpha, its transparent pixels painted over by :func:`fill_transparent`."""
        if self.alpha is None:
            return self
        return dataclasses.replace(self, rgb=fill_transparent(self.rgb, self.alpha), alpha=None)

    def save(self, path: str | Path, **options: Any) -> None:
        """Write it to ``path``; the options are those of :func:`save`."""
        save(self, path, **options)


# --- reading ---------------------------------------------------------------------------------------------------------


def load(path: str | Path, *, longest: int | None = None) -> Picture:
    """Read a picture of any mode, upright and in sRGB, its longest side no longer than ``longest`` px.

    A larger one is shrunk to the size :func:`fit` gives while it is decoded: it never takes the memory of its full
    size in floating point.

    Integer greys above 8 bits are relative to 65535 (to 2**31-1 where they exceed it); floating-point ones are
    taken as [0, 1], or as 8 or 16-bit levels where they exceed 1.

    Raises:
        ImageError: the file is missing, unreadable, not a picture, damaged, or too large to decode safely.
    """
    path = Path(path)
    with _reading(path) as (file, length), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about what is checked or refused here
        if length == 0:
            raise ImageError("the file is empty; get a complete copy")
        origin = Origin(path, _sha256(file))
        file.seek(0)
        return dataclasses.replace(_decode(file, length, path.stem, longest), origin=origin)


def digest(path: str | Path) -> str:
    """The SHA-256 of the bytes of a file in hex, as in :class:`Origin`.

    Raises:
        ImageError: the file is missing, unreadable, or no regular one.
    """
    with _reading(Path(path)) as (file, _):
        return _sha256(file)


def _sha256(file: io.BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tuple[io.BufferedReader, int]]:
    """A regular file, open, and its length; what goes wrong in the block too is an ImageError of one line."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file; give the path of a picture")
        with path.open("rb") as file:
            yield file, status.st_size
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise ImageError(_one_line(f"cannot read {path}: {_problem(error)}")) from error


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _problem(error: Exception) -> str:
    """What went wrong while reading and what to do about it, in words for the user."""
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a known format, or damaged; convert it to PNG or JPEG"
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\d+", str(error))
        return _too_large(int(pixels[0]) if pixels else MAX_PIXELS)
    if isinstance(error, MemoryError):
        return "not enough memory to decode it; scale it down first"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; check the path and its permissions"
    return f"truncated or damaged ({str(error) or type(error).__name__}); get a complete copy"


def _decode(file: BinaryIO, length: int, name: str, longest: int | None) -> Picture:
    image: Image.Image = Image.open(file, formats=_formats())
    width, height = image.size
    _refuse_bomb(width, height)
    notes = _frame_notes(image)
    sixteen = _has_sixteen_bits(image)
    exif = _read_exif(image)
    drafted = None
    if longest is not None:  # only JPEG decodes at a fraction of its size
        rows, columns = fit(height, width, longest)
        drafted = image.draft(None, (GAP * columns, GAP * rows))
    try:
        image.load()
    except (OSError, SyntaxError) as error:
        if width * height > 1000 * length:
            claim = f"its header claims {width}x{height} pixels but the file has {length} bytes"
            raise ImageError(f"{claim}: truncated, or a decompression bomb; get a complete copy") from error
        raise
    orientation = exif.get(ExifTags.Base.Orientation)  # after load(), which turns a TIFF by itself
    if drafted is None:
        width, height = image.size
    wanted = (height, width) if longest is None else fit(height, width, longest)

    profile = _foreign_profile(image, notes)
    deep = _decode_deep(image, file, sixteen, wanted)
    if deep is not None and profile:  # the colour engine takes 8 bits
        notes.append("16 bits read as 8 because of its colour profile")
        levels = np.rint(deep * 255).astype(np.uint8)
        image, deep, drafted = Image.fromarray(levels if levels.shape[2] > 1 else levels[..., 0]), None, None
    box = drafted[1] if drafted else (0, 0, *image.size)
    pixels = _decode_plain(image, box, wanted, profile, notes) if deep is None else deep  # (H, W, C)
    white = 255 if deep is None else 1

    samples = _ORIENTATIONS[orientation if orientation in _ORIENTATIONS else 1](torch.from_numpy(pixels))
    samples = samples.permute(2, 0, 1)[None]
    has_alpha = samples.shape[1] in (2, 4)
    rgb = torch.empty(1, 3, *samples.shape[2:]).copy_(samples[:, :-1] if has_alpha else samples).div_(white)
    alpha = None
    if has_alpha and bool((samples[:, -1] < white).any()):
        alpha = torch.empty(1, 1, *samples.shape[2:]).copy_(samples[:, -1:]).div_(white)
    return Picture(rgb, alpha, _camera_exif(exif), tuple(notes), name)


def _formats() -> list[str]:
    """The formats Pillow decodes by itself. It would hand an EPS to Ghostscript, whatever the name of the file."""
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


_ORIENTATIONS: dict[Any, Callable[[Tensor], Tensor]] = {  # EXIF tag 274 -> what turns (H, W, C) upright
    1: lambda pixels: pixels,
    2: lambda pixels: pixels.flip(1),
    3: lambda pixels: pixels.flip(0, 1),
    4: lambda pixels: pixels.flip(0),
    5: lambda pixels: pixels.transpose(0, 1),
    6: lambda pixels: pixels.transpose(0, 1).flip(1),
    7: lambda pixels: pixels.transpose(0, 1).flip(0, 1),
    8: lambda pixels: pixels.transpose(0, 1).flip(0),
}

# Tags that describe the file they were read from, not the photograph: layout, thumbnails, XMP, IPTC, ICC.
_LAYOUT_TAGS = {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330}
_LAYOUT_TAGS |= {338, 339, 347, 512, 513, 514, 529, 530, 531, 532, 700, 33723, 34377, 34665, 34675, 34853, 37724}


def _read_exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except Exception:  # a corrupt EXIF block is no reason to refuse the picture
        return Image.Exif()


def _camera_exif(exif: Image.Exif) -> bytes | None:
    """What the camera wrote, fit for another file of sRGB pixels: upright, without sizes and thumbnails."""
    try:
        kept = Image.Exif()
        for tag, value in exif.items():
            if tag not in _LAYOUT_TAGS:
                kept[tag] = value
        photo = dict(exif.get_ifd(ExifTags.IFD.Exif))
        for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.IFD.Interop):
            photo.pop(tag, None)
        if ExifTags.Base.ColorSpace in photo:
            photo[ExifTags.Base.ColorSpace] = 1  # sRGB
        for ifd, values in ((ExifTags.IFD.Exif, photo), (ExifTags.IFD.GPSInfo, exif.get_ifd(ExifTags.IFD.GPSInfo))):
            if values:
                kept[ifd] = values
        kept.pop(ExifTags.Base.Orientation, None)
        if not kept:
            return None
        kept[ExifTags.Base.Orientation] = 1
        return kept.tobytes()
    except Exception:  # as above
        return None


def _has_sixteen_bits(image: Image.Image) -> bool:
    """Whether the file holds 16-bit colour that Pillow would cut to 8; ask before ``load``."""
    if image.mode not in ("RGB", "RGBA"):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return set(image.tag_v2.get(258, ())) == {16}
    return isinstance(image, PngImagePlugin.PngImageFile) and any("16" in str(tile.args) for tile in image.tile)


def _decode_deep(image: Image.Image, file: BinaryIO, sixteen: bool, wanted: tuple[int, int]) -> Array | None:
    """The samples of a picture of more than 8 bits, (*wanted, 1 to 4) float32 in [0, 1]; None for all others."""
    if sixteen:
        values = _decode_sixteen(image, file)
        return None if values is None else _to_unit(values, 65535, wanted)
    if not image.mode.startswith(("I", "F")):
        return None
    values = np.asarray(image)[..., None]
    highest = float(values.max())
    if not np.isfinite(values).all():
        raise ImageError("it holds NaN or infinite values; write it anew without them")
    if image.mode == "F":
        white = next((white for white in (1.0, 255.0, 65535.0) if highest <= white), highest)
    else:
        white = 65535.0 if highest <= 65535 else 2.0**31 - 1
    key = image.info.get("transparency")
    if isinstance(key, int):
        values = np.concatenate([values, (values != key) * values.dtype.type(white)], axis=2)
    return _to_unit(values, white, wanted)


def _to_unit(values: Array, white: float, wanted: tuple[int, int]) -> Array:
    """(H, W, C) of any numbers -> (*wanted, C) float32 with ``white`` as 1."""
    channels = values.shape[2]
    if values.shape[:2] != wanted:
        planes = []
        for index in range(channels):
            plane = values[..., index].astype(np.float32)
            if channels in (2, 4) and index < channels - 1:
                plane *= values[..., -1]
            planes.append(np.asarray(Image.fromarray(plane).resize(wanted[::-1], RESAMPLING, reducing_gap=GAP)))
        values = np.stack(planes, axis=2)
        if channels in (2, 4):
            values[..., :-1] /= np.maximum(values[..., -1:], white * 1e-6)
    unit = values.astype(np.float32, copy=False) / np.float32(white)
    return np.clip(unit, 0, 1, out=unit)


def _decode_sixteen(image: Image.Image, file: BinaryIO) -> Array | None:
    """The samples as they are, (H, W, 3 or 4), 0 to 65535."""
    import cv2

    file.seek(0)
    log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it writes its warnings to stderr
    try:
        pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(log_level)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != (image.height, image.width):
        return None
    order = [2, 1, 0, 3] if pixels.shape[2] == 4 and image.has_transparency_data else [2, 1, 0]
    pixels = pixels[..., order]
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(338) == (1,):  # premultiplied
        pixels = pixels.astype(np.float32)
        pixels[..., :3] = np.minimum(pixels[..., :3] / np.maximum(pixels[..., 3:] / 65535, 1 / 65535), 65535)
    return pixels


def _decode_plain(
    image: Image.Image,
    box: tuple[float, float, float, float],
    wanted: tuple[int, int],
    profile: ImageCms.ImageCmsProfile | None,
    notes: list[str],
) -> Array:
    """The samples of an 8-bit picture in sRGB, (*wanted, 3 or 4) uint8; ``box`` is the part of it that counts."""
    plain = "L" if _channels(image.mode) == "GRAY" else "RGB"
    mode = "CMYK" if image.mode == "CMYK" else "RGBA" if image.has_transparency_data else plain
    image = _shrink(image, mode, box, *wanted)
    colour = image if mode == "CMYK" else _convert(image, plain)
    if profile:
        try:
            if profile.profile.xcolor_space == "RGB ":
                colour = colour.convert("RGB")
            colour = ImageCms.profileToProfile(colour, profile, _srgb(), outputMode="RGB") or colour
        except ImageCms.PyCMSError as error:
            notes.append(_one_line(f"colour profile ignored: {error}"))
    rgb = np.array(_convert(colour, "RGB"))
    return rgb if mode != "RGBA" else np.concatenate([rgb, np.asarray(image.getchannel("A"))[..., None]], axis=2)


def _shrink(
    image: Image.Image, mode: str, box: tuple[float, float, float, float], height: int, width: int
) -> Image.Image:
    """What ``box`` holds of an 8-bit picture, resized and in ``mode``; strip by strip, to need little memory."""
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
    """The largest one up to ``factor``: by others Pillow reduces inexactly, and white is no longer white."""
    return 1 << max(0, int(factor).bit_length() - 1)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "La":  # Pillow has no shorter way
        image = image.convert("LA")
    return image if image.mode == mode else image.convert(mode)


def _channels(mode: str) -> str:
    """The colour space of a Pillow mode as ICC profiles spell it."""
    if mode in ("CMYK", "LAB"):
        return mode
    return "GRAY" if mode in ("1", "L", "LA", "La", "F") or mode.startswith("I") else "RGB"


def _foreign_profile(image: Image.Image, notes: list[str]) -> ImageCms.ImageCmsProfile | None:
    """The embedded ICC profile, or None where there is none to convert from: absent, unusable (noted) or sRGB."""
    data, channels = image.info.get("icc_profile"), _channels(image.mode)
    if not data or channels == "LAB":
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        if space != channels and (space, channels) != ("RGB", "GRAY"):
            raise ValueError(f"it is for {space} pixels")
        return None if _looks_like_srgb(profile, space) else profile
    except Exception as error:  # a broken profile is no reason to refuse the picture
        notes.append(_one_line(f"colour profile ignored: {error}"))
        return None


def _looks_like_srgb(profile: ImageCms.ImageCmsProfile, space: str) -> bool:
    """Whether a lattice of colours comes through unchanged: names lie, and converting would cost the 16 bits."""
    if space == "CMYK":
        return False
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    lattice = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(81, 9, 3))
    if space == "GRAY":
        lattice = lattice.getchannel("R")
    converted = ImageCms.profileToProfile(lattice, profile, _srgb(), outputMode="RGB")
    difference = np.asarray(converted).astype(np.int16) - np.asarray(lattice.convert("RGB"))
    return bool(np.abs(difference).max() <= 2)


@functools.cache
def srgb_profile() -> bytes:
    """The sRGB ICC profile that is embedded, with a fixed date in its header: equal pictures are equal files."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))


# --- writing ---------------------------------------------------------------------------------------------------------


def save(picture: Picture | Tensor, path: str | Path, *, quality: int | None = None, bits: int = 8) -> None:
    """Write a picture, or a bare (1, 3, H, W) tensor of sRGB in [0, 1], in the format of the extension of ``path``.

    Values are clamped to [0, 1] and rounded to nearest. PNG and TIFF are lossless, with 8 or 16 ``bits``; for JPEG,
    WebP and AVIF ``quality`` is 1 to 100, by default 95, 95 and 90, with chroma at full size where the format has
    it. An sRGB profile, the camera's EXIF (in JPEG, of up to 64 KB) and the picture's record go along. JPEG has no
    alpha: transparent pixels are laid over white.

    Raises:
        ImageError: the target cannot be written, the picture holds NaN or infinity, or its record is longer than 64 KB
            in JPEG or :data:`RECORD_LIMIT` elsewhere; an old target is left as it was. The picture is then kept as a
            PNG in the system's temporary folder, which the message names; not so when the options or the extension
            were wrong from the beginning.
    """
    if problem := _option_problem(Path(path), quality, bits):
        raise ImageError(_one_line(f"cannot write {path}: {problem}"))
    picture = picture if isinstance(picture, Picture) else Picture(picture)
    try:
        _write(picture, path, quality, bits)
    except ImageError as error:
        kept = _keep(picture, bits)
        if kept is None:
            raise
        raise ImageError(_one_line(f"{error}; the picture was kept as {kept}")) from error


def _write(picture: Picture, path: str | Path, quality: int | None, bits: int) -> None:
    format = FORMATS[Path(path).suffix.lower()]
    try:
        data = _encode(picture, format, quality, bits, Path(path).parent)
    except Exception as error:  # encoders raise nearly anything
        problem = "not enough memory" if isinstance(error, MemoryError) else str(error)
        raise ImageError(_one_line(f"cannot write {path}: {problem}")) from error
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _keep(picture: Picture, bits: int) -> str | None:
    """Write a picture that could not go where it should into the temporary folder; where it lies, if that went well."""
    try:
        data = _encode(picture, "PNG", None, bits, Path(tempfile.gettempdir()))
        with tempfile.NamedTemporaryFile(prefix="stylize-", suffix=".png", delete=False) as file:
            try:
                file.write(data)
                file.flush()
            except BaseException:
                Path(file.name).unlink()
                raise
        return file.name
    except Exception:  # the first error is the one to report
        return _keep(dataclasses.replace(picture, record=None), bits) if picture.record else None


def check_target(
    path: str | Path, *, quality: int | None = None, bits: int = 8, size: tuple[int, int] | None = None
) -> None:
    """Raise now whatever :func:`save` would raise about ``path`` and its options after the work is done.

    ``size`` is the (height, width) of the picture to come, where it is known. Whether the folder takes a new file is
    tried with a hidden, empty one, which is removed again.

    Raises:
        ImageError: unknown extension, missing or unwritable folder, a target that is no plain writable file, a
            quality out of range, 16 bits in a format that has 8, or a size the format cannot hold.
    """
    problem = _option_problem(Path(path), quality, bits)
    if not problem and size is not None:
        problem = _size_problem(FORMATS[Path(path).suffix.lower()], size)
    problem = problem or _target_problem(Path(path)) or _folder_problem(Path(path))
    if problem:
        raise ImageError(_one_line(f"cannot write {path}: {problem}"))


def _option_problem(path: Path, quality: int | None, bits: int) -> str:
    """What is wrong with an extension and its options, or nothing."""
    extension = path.suffix.lower()
    if extension not in FORMATS:
        return f"unknown extension {path.suffix!r}; use one of {', '.join(FORMATS)}"
    if FORMATS[extension] == "AVIF" and not features.check("avif"):
        return "this Pillow was built without AVIF; use another extension"
    if bits not in (8, 16):
        return f"{bits} bits per channel are not to be had; use 8 or 16"
    if bits == 16 and FORMATS[extension] not in DEEP_FORMATS:
        deep = ", ".join(name for name, format in FORMATS.items() if format in DEEP_FORMATS)
        return f"{extension} holds 8 bits per channel; for 16 use one of {deep}"
    if quality is not None and not 1 <= quality <= 100:
        return f"quality is {quality}; it must be 1 to 100"
    return ""


def _size_problem(format: str, size: tuple[int, int]) -> str:
    """Why a format cannot hold a picture of (height, width), or nothing."""
    limit = SIDES.get(format)
    if limit is None or max(size) <= limit:
        return ""
    return f"{format} holds {limit} pixels a side, and the picture is {size[1]}x{size[0]}; use .png or a smaller size"


def _target_problem(path: Path) -> str:
    """Why no file can have this path, or nothing."""
    try:
        target = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # a loop or a name too long raises others
            mode = target.stat().st_mode
            if stat.S_ISDIR(mode):
                return "it is a folder; give the path of a file"
            if not stat.S_ISREG(mode):
                return "it is not a regular file; give another path"
            if not os.access(target, os.W_OK):
                return "it is write-protected; give another path or change its permissions"
        if not target.parent.is_dir():
            return f"there is no folder {path.parent}; create it first"
    except (OSError, ValueError) as error:
        return f"{getattr(error, 'strerror', None) or error}; give another path"
    return ""


def _folder_problem(path: Path) -> str:
    """Why no file can be made beside ``path``, or nothing: not every reason shows in the permissions."""
    temporary = _hidden(Path(os.path.realpath(path)))
    try:
        temporary.open("xb").close()
        temporary.unlink()
    except OSError as error:
        return f"no file can be made in its folder ({error.strerror or error}); choose another one"
    return ""


def _hidden(target: Path) -> Path:
    """A new name beside ``target``, with its extension."""
    unique = f"{os.getpid()}-{secrets.token_hex(4)}"
    # 40 + 10 characters of up to 4 bytes: well below the 255 bytes a file name may have
    return target.with_name(f".{target.stem[:40]}.{unique}.tmp{target.suffix[:10]}")


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A hidden, empty file beside ``path``, with its extension, that takes its place when the block ends well.

    The content reaches the disk before the name does. A new file gets the mode of the umask, a replaced one keeps
    its own; a symbolic link is followed. When the block raises, the target stays as it was and nothing is left over.

    Raises:
        ImageError: for any OSError, of the block too; for a target that is a folder or no regular file.
    """
    if problem := _target_problem(Path(path)):
        raise ImageError(_one_line(f"cannot write {path}: {problem}"))
    target = Path(os.path.realpath(path))
    temporary = _hidden(target)
    try:
        temporary.open("xb").close()
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except OSError as error:
        raise ImageError(_one_line(f"cannot write {path}: {error.strerror or error}")) from error
    finally:
        temporary.unlink(missing_ok=True)


_ENCODERS: dict[str, dict[str, Any]] = {  # Pillow's options
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": "4:4:4", "optimize": True},
    "WEBP": {"quality": 95, "method": 4, "exact": True},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}


def _encode(picture: Picture, format: str, quality: int | None, bits: int, folder: Path) -> bytes:
    if picture.rgb.ndim != 4 or picture.rgb.shape[:2] != (1, 3) or not picture.rgb.numel():
        raise ImageError(f"a tensor of shape {tuple(picture.rgb.shape)} is no picture; it must be (1, 3, H, W)")
    if problem := _size_problem(format, picture.size):
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
    pixels = levels.contiguous().numpy().astype(np.uint16 if bits == 16 else np.uint8)  # (H, W, 3 or 4)
    exif = picture.exif or b""
    record = b"" if picture.record is None else _embedded(_relative(picture.record, folder), format)
    if format == "TIFF":
        return _tiff(pixels, exif, record)
    if bits == 16:
        return _deep_png(pixels, exif, record)
    options = dict(_ENCODERS[format])
    if record and format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add(b"iTXt", _ITXT + record)
    elif record:
        options["xmp"] = record
    if quality and "quality" in options:
        options["quality"] = quality
    if exif and not (format == "JPEG" and len(exif) > 65533):
        options["exif"] = exif
    buffer = io.BytesIO()
    with _room_for(pixels.size):
        Image.fromarray(pixels).save(buffer, format, icc_profile=srgb_profile(), **options)
    return buffer.getvalue()


@contextlib.contextmanager
def _room_for(samples: int) -> Iterator[None]:
    """Pillow gives libjpeg a buffer of two bytes a pixel, which noise does not fit into."""
    before = ImageFile.MAXBLOCK
    ImageFile.MAXBLOCK = max(before, 2 * samples)
    try:
        yield
    finally:
        ImageFile.MAXBLOCK = before


def _deep_png(pixels: Array, exif: bytes, record: bytes) -> bytes:
    """A 16-bit PNG by OpenCV; profile, record and EXIF, which it does not know, are put in after the header."""
    import cv2

    ok, data = cv2.imencode(".png", pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    if not ok:
        raise ImageError("OpenCV could not encode it")
    png = data.tobytes()
    chunks = _png_chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile()))
    if record:
        chunks += _png_chunk(b"iTXt", _ITXT + record)
    if exif:
        chunks += _png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    header = 8 + 25  # signature, IHDR
    return png[:header] + chunks + png[header:]


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff(pixels: Array, exif: bytes, record: bytes) -> bytes:
    """A TIFF of one deflated strip.

    Written here because OpenCV drops the profile and the meaning of alpha, and Pillow has 8 bits and fails on GPS tags.
    """
    height, width, channels = pixels.shape
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]  # modulo 2**bits: the horizontal predictor
    strip = zlib.compress(differences.astype(pixels.dtype.newbyteorder("<")).tobytes())
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    camera = Image.Exif()
    camera.load(exif)
    for tag in camera:
        directory[tag] = camera.get_ifd(tag) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else camera[tag]
    directory[256], directory[257], directory[258] = width, height, (8 * pixels.itemsize,) * channels
    directory[259], directory[262], directory[317] = 8, 2, 2  # deflate, RGB, horizontal predictor
    directory[273], directory[278], directory[279] = 0, height, len(strip)  # the strip follows the directory
    directory[277], directory[284] = channels, 1
    if channels == 4:
        directory[338] = 2  # the fourth sample is alpha, not premultiplied
    if record:
        directory[700] = record
    directory.tagtype[34675] = 7
    directory[34675] = srgb_profile()
    buffer = io.BytesIO()
    buffer.write(struct.pack("<2sHL", b"II", 42, 8))
    directory.save(buffer)
    return buffer.getvalue() + strip


# --- records ---------------------------------------------------------------------------------------------------------

_ITXT = b"stylize\0\0\0\0\0"  # what precedes the text in a PNG: keyword, not compressed, no language, no translation
_XMP_HEAD = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:stylize="https://stylize.invalid/ns/1.0/"><stylize:record>"""
_XMP_TAIL = """</stylize:record></rdf:Description>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""
_JPEG_LIMIT = 65502  # bytes of XMP in a segment of a JPEG
_HEAD = 2**24  # bytes of a PNG, JPEG or TIFF within which what is not pixels lies
_WHOLE = 2**30  # bytes of a WebP or AVIF that are read, as those are only read whole


def read_record(path: str | Path) -> dict[str, Any] | None:
    """The record in a file that :func:`save` wrote; None without one, and whatever is wrong with the file.

    What stands under a key ``path`` in it is relative to the folder of the picture. The pixels are not decoded: a
    truncated file is found out, damage among the pixels is not.
    """
    try:
        with _reading(Path(path)) as (file, length), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in load()
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


def _relative(record: Any, folder: Path) -> Any:
    """The record with every path in it seen from a folder: results and sources may be moved together."""
    if isinstance(record, list):
        return [_relative(each, folder) for each in record]
    if not isinstance(record, Mapping):
        return record
    seen = {key: _relative(value, folder) for key, value in record.items()}
    if isinstance(seen.get("path"), str):
        with contextlib.suppress(ValueError):  # another drive
            seen["path"] = Path(os.path.relpath(seen["path"], os.path.realpath(folder))).as_posix()
    return seen


def _embedded(record: Any, format: str) -> bytes:
    """What a file of this format holds for a record: in PNG JSON, elsewhere an XMP packet around it."""
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
    """The text in an opened file; empty if there is none, or none just as save() would write it."""
    if isinstance(image, PngImagePlugin.PngImageFile):
        text = image.info.get("stylize")
        return str(text) if isinstance(text, PngImagePlugin.iTXt) and len(text) <= RECORD_LIMIT else ""
    data = image.info.get("xmp", b"")
    packet = data.decode() if len(data) <= RECORD_LIMIT else ""
    inner = packet.removeprefix(_XMP_HEAD).removesuffix(_XMP_TAIL)
    text = html.unescape(inner)
    return text if packet == _XMP_HEAD + html.escape(text) + _XMP_TAIL else ""


def _is_complete(image: Image.Image, file: BinaryIO, length: int) -> bool:
    """Whether nothing is missing at the end of a file, as save() writes them; Pillow opens no truncated WebP."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return bool(image.tag_v2[273][0] + image.tag_v2[279][0] == length)
    if image.format == "AVIF":
        position = 0
        while position < length:
            file.seek(position)
            position += max(8, int.from_bytes(file.read(4)))  # the length of a box
        return position == length
    file.seek(-12, os.SEEK_END)
    end = {"PNG": _png_chunk(b"IEND", b""), "JPEG": b"\xff\xd9", "WEBP": b""}[str(image.format)]
    return file.read().endswith(end)


# --- size and transparency -------------------------------------------------------------------------------------------


def fit(height: int, width: int, longest: int, upscale: bool = False) -> tuple[int, int]:
    """(height, width) in proportion, with the longest side ``longest`` px, or its own where that is smaller.

    Rounded to nearest, at least 1; ``upscale`` lets the result be larger than the picture.
    """
    side = max(height, width)
    longest = longest if upscale else min(longest, side)
    return max(1, (2 * height * longest + side) // (2 * side)), max(1, (2 * width * longest + side) // (2 * side))


def resize(image: Tensor, height: int, width: int, *, clamp: bool = True) -> Tensor:
    """(1, C, H, W) -> (1, C, height, width), antialiased bicubic; the very same tensor when the size is the same.

    Bicubic overshoots at edges; ``clamp`` brings the result back to [0, 1].
    """
    if image.shape[-2:] == (height, width):
        return image
    try:
        resized = F.interpolate(image, (height, width), mode="bicubic", align_corners=False, antialias=True)
    except (NotImplementedError, RuntimeError):
        # MPS before torch 2.8; on CUDA the filter of a large reduction does not fit the shared memory of a block
        if image.device.type == "cpu":
            raise
        return resize(image.cpu(), height, width, clamp=clamp).to(image.device)
    return resized.clamp(0, 1) if clamp else resized


def fill_transparent(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Replace the colour of pixels with alpha 0 by a smooth continuation of the visible ones around them.

    (1, 3, H, W) and (1, 1, H, W) -> (1, 3, H, W). The colours hidden under alpha 0 have no influence whatever; pixels
    with any alpha keep theirs bit by bit. Push-pull: averages weighted by alpha on ever coarser grids (pull), then
    each grid takes what it lacks from the next coarser one (push). Mid grey where nothing is visible at all.
    """
    visible = alpha > 0
    levels = [(torch.where(visible, rgb * alpha, 0.0), torch.where(visible, alpha, 0.0))]
    while max(levels[-1][1].shape[-2:]) > 1:
        height, width = levels[-1][1].shape[-2:]
        window = (min(2, height), min(2, width))
        colour, weight = (F.avg_pool2d(grid, window, ceil_mode=True) for grid in levels[-1])
        levels.append((colour, weight))
    colour, weight = levels.pop()
    filled = torch.where(weight > 0, colour / weight, 0.5)
    while levels:
        colour, weight = levels.pop()  # colour is premultiplied: this is weight * colour + (1 - weight) * filled
        coarse = F.interpolate(filled, weight.shape[-2:], mode="bilinear", align_corners=False)
        filled = colour + (1 - weight) * coarse
    return torch.where(visible, rgb, filled.clamp(0, 1))


# --- colour ----------------------------------------------------------------------------------------------------------


def luminance(rgb: Tensor) -> Tensor:
    """(1, 3, H, W) -> (1, 1, H, W): Y of YIQ, in [0, 1]."""
    return (rgb * rgb.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def with_chroma(y: Tensor, rgb: Tensor) -> Tensor:
    """The luminance of one picture, ``y`` (1, 1, H, W), with the chroma (I and Q) of another, (1, 3, H, W), in [0, 1].

    Gatys, Bethge, Hertzmann, Shechtman 2016, "Preserving Color in Neural Artistic Style Transfer", sect. 4. Where
    the two do not fit into the gamut together the chroma is scaled towards grey, so that the luminance stays.
    """
    y = y.clamp(0, 1)
    chroma = rgb - luminance(rgb)
    room = torch.where(chroma > 0, 1 - y, y)
    scale = (room / chroma.abs().clamp_min(1e-12)).amin(1, keepdim=True).clamp(max=1)
    return (y + scale * chroma).clamp(0, 1)


def match_luminance(
    style: Tensor, content: Tensor, *, style_alpha: Tensor | None = None, content_alpha: Tensor | None = None
) -> Tensor:
    """The luminance of the style, (1, 1, H, W), with the mean and standard deviation of the content's, in [0, 1].

    Eq. 3 of the paper cited in :func:`with_chroma`. A constant style becomes the content's mean. The alphas,
    (1, 1, H, W), weigh the pixels; transparent ones do not count.
    """
    style_mean, style_variance = _statistics(style, style_alpha)
    content_mean, content_variance = _statistics(content, content_alpha)
    deviation, wanted = style_variance.sqrt(), content_variance.sqrt()
    gain = wanted / deviation if deviation > NOISE else torch.zeros_like(wanted)
    matched = (style.double() - style_mean.view(1, 1, 1, 1)) * gain.view(1, 1, 1, 1) + content_mean.view(1, 1, 1, 1)
    return matched.clamp(0, 1).to(style.dtype)


def match_color(
    style: Tensor, content: Tensor, *, style_alpha: Tensor | None = None, content_alpha: Tensor | None = None
) -> Tensor:
    """The style, (1, 3, H, W), recoloured so that its pixels have the mean and covariance of the content's.

    x -> A (x - m_s) + m_c with A = C_c^1/2 C_s^-1/2 (symmetric roots, the image-analogies form of sect. 3 of the
    paper cited in :func:`with_chroma`), clamped to [0, 1]. Directions in which the style hardly varies, as in grey
    or single-colour pictures, are left out instead of amplified. The alphas weigh the pixels, as above.
    """
    style_mean, style_covariance = _statistics(style, style_alpha)
    content_mean, content_covariance = _statistics(content, content_alpha)
    matrix = _power(content_covariance, 0.5) @ _power(style_covariance, -0.5)  # (3, 3)
    centred = style.double() - style_mean.view(1, 3, 1, 1)
    matched = torch.einsum("ij,bjhw->bihw", matrix, centred) + content_mean.view(1, 3, 1, 1)
    return matched.clamp(0, 1).to(style.dtype)


def _statistics(image: Tensor, alpha: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) over the pixels of (1, C, H, W), in float64, weighted by alpha."""
    pixels = image[0].double().flatten(1)  # (C, H*W)
    weights = pixels.new_ones(pixels.shape[1]) if alpha is None else alpha.double().flatten()
    weights = torch.where(weights > 0, weights, 0.0)
    if not bool(weights.any()):
        weights = torch.ones_like(weights)
    weights = weights / weights.sum()
    mean = pixels @ weights
    centred = pixels - mean[:, None]
    return mean, (centred * weights) @ centred.T


def _power(covariance: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive semidefinite matrix, zero in the directions of mere noise."""
    values, vectors = torch.linalg.eigh(covariance)
    powers = torch.where(values > NOISE**2, values.clamp_min(1e-30) ** exponent, 0.0)
    power: Tensor = (vectors * powers) @ vectors.T
    return power
