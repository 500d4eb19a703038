"""Reading: file -> picture. Whatever Pillow opens; 16-bit colour through OpenCV, because Pillow cuts it to 8 bits."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from stylize.errors import ImageError
from stylize.images.metadata import (
    ORIENTATIONS,
    camera_exif,
    color_space,
    foreign_profile,
    read_exif,
    srgb,
)
from stylize.images.picture import Origin, Picture, fit
from stylize.text import one_line

MAX_PIXELS = 178_000_000  # just below the size at which Pillow itself refuses to open a file
UNREAD = {"EPS", "WMF", "FPX", "MIC", "PDF", "BUFR", "GRIB", "HDF5", "MPEG"}  # not decoded by Pillow itself
GAP = 3  # coarse, fast shrinking stops at this many times the size wanted
RESAMPLING = Image.Resampling.BICUBIC  # antialiased; the kernel of resize()

_CV2_LOG = threading.Lock()  # OpenCV has one log level for all threads
_LOADING = threading.Lock()  # a Pillow image that is given may be given to several threads

File = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]  # what a picture's file can be given as

Array = NDArray[Any]


class _Silence:
    """``with`` it, warnings are ignored and Pillow has no limit of pixels.

    Unlike warnings.catch_warnings it may be entered by threads that overlap.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours is kept instead

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._limit
                self._caught.__exit__(None, None, None)


SILENCE = _Silence()  # Pillow warns about what is checked or refused here


def load(source: File | Image.Image, *, longest: int | None = None) -> Picture:
    """Read a picture of any mode, upright and in sRGB, its longest side no longer than ``longest`` px.

    ``source`` is the path of a file, its bytes, a file object opened as ``"rb"`` (read from where it stands), or a
    Pillow image, which is taken as from a file, with its mode, profile and EXIF. Only a path becomes the
    picture's ``origin``.

    A larger picture is shrunk to the size :func:`fit` gives while it is decoded: it never takes the memory of its full
    size in floating point.

    Integer greys above 8 bits are relative to 65535 (to 2**31-1 where they exceed it); floating-point ones are
    taken as [0, 1], or as 8 or 16-bit levels where they exceed 1.

    Raises:
        ImageError: the file is missing, unreadable, not a picture, damaged, or too large to decode safely.
    """
    if isinstance(source, Image.Image):
        with _as_image_errors("the PIL image"), SILENCE:
            return _decode(source, None, 0, Path(getattr(source, "filename", "") or "").stem, longest)
    if not isinstance(source, (str, os.PathLike)):
        name, data = _content_of(source)
        with _as_image_errors(name or "the picture in memory"), SILENCE:
            file = io.BytesIO(data)
            return _decode(Image.open(file, formats=_formats()), file, len(data), Path(name).stem, longest)
    path = Path(source)
    with open_file(path) as (opened, length), SILENCE:
        if length == 0:
            raise ImageError("the file is empty; get a complete copy")
        origin = Origin(path, _sha256(opened))
        opened.seek(0)
        image = Image.open(opened, formats=_formats())
        return dataclasses.replace(_decode(image, opened, length, path.stem, longest), origin=origin)


def _content_of(source: bytes | bytearray | memoryview | IO[bytes]) -> tuple[str, bytes]:
    """The name of a file object, if it has one, and the bytes there are."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = "", bytes(source)
    else:
        given = getattr(source, "name", "")
        name = given if isinstance(given, str) else ""
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
def open_file(path: Path) -> Iterator[tuple[io.BufferedReader, int]]:
    """A regular file, opened, and its length in bytes; any error, of the block too, becomes an ImageError."""
    with _as_image_errors(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file; give the path of a picture")
        with path.open("rb") as file:
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


def _decode(image: Image.Image, file: BinaryIO | None, length: int, name: str, longest: int | None) -> Picture:
    """The picture in a file of ``length`` bytes that Pillow has opened, or in an image that is somebody else's."""
    width, height = image.size
    _refuse_bomb(width, height)
    notes = _frame_notes(image) if file is not None else []
    sixteen = file is not None and _has_sixteen_bits(image)
    exif = read_exif(image)
    drafted = None
    if longest is not None and file is not None:  # only JPEG decodes at a fraction of its size
        rows, columns = fit(height, width, longest)
        drafted = image.draft(None, (GAP * columns, GAP * rows))
    try:
        with _LOADING if file is None else contextlib.nullcontext():
            image.load()
    except (OSError, SyntaxError) as error:
        if file is not None and width * height > 1000 * length:
            claim = f"its header claims {width}x{height} pixels but the file has {length} bytes"
            raise ImageError(f"{claim}: truncated, or a decompression bomb; get a complete copy") from error
        raise
    orientation = exif.get(ExifTags.Base.Orientation)  # after load(), which turns a TIFF by itself
    if drafted is None:
        width, height = image.size
    wanted = (height, width) if longest is None else fit(height, width, longest)

    profile = foreign_profile(image, notes)
    deep = _decode_deep(image, file, sixteen, wanted)
    if deep is not None and profile:  # the colour engine takes 8 bits
        notes.append("16 bits read as 8 because of its colour profile")
        levels = np.rint(deep * 255).astype(np.uint8)
        image, deep, drafted = Image.fromarray(levels if levels.shape[2] > 1 else levels[..., 0]), None, None
    box = drafted[1] if drafted else (0, 0, *image.size)
    pixels = _decode_plain(image, box, wanted, profile, notes) if deep is None else deep  # (H, W, C)
    white = 255 if deep is None else 1

    samples = ORIENTATIONS[orientation if orientation in ORIENTATIONS else 1](torch.from_numpy(pixels))
    samples = samples.permute(2, 0, 1)[None]
    has_alpha = samples.shape[1] in (2, 4)
    rgb = torch.empty(1, 3, *samples.shape[2:]).copy_(samples[:, :-1] if has_alpha else samples).div_(white)
    alpha = None
    if has_alpha and bool((samples[:, -1] < white).any()):
        alpha = torch.empty(1, 1, *samples.shape[2:]).copy_(samples[:, -1:]).div_(white)
    return Picture(rgb, alpha, camera_exif(exif), tuple(notes), name)


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


def _has_sixteen_bits(image: Image.Image) -> bool:
    """Whether the file holds 16-bit colour that Pillow would cut to 8; ask before ``load``."""
    if image.mode not in ("RGB", "RGBA"):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return set(image.tag_v2.get(258, ())) == {16}
    return isinstance(image, PngImagePlugin.PngImageFile) and any("16" in str(tile.args) for tile in image.tile)


def _decode_deep(image: Image.Image, file: BinaryIO | None, sixteen: bool, wanted: tuple[int, int]) -> Array | None:
    """The samples of a picture of more than 8 bits, (*wanted, 1 to 4) float32 in [0, 1]; None for all others."""
    if sixteen and file is not None:
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
    """The samples as stored, (H, W, 3 or 4), 0 to 65535; None where OpenCV does not read them as such."""
    import cv2

    file.seek(0)
    with _CV2_LOG:
        log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it writes warnings to stderr
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
    return rgb if mode != "RGBA" else np.concatenate([rgb, np.asarray(image.getchannel("A"))[..., None]], axis=2)


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
