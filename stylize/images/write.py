"""Writing: picture -> file, atomically: a target is either the complete new picture or what it was before."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import re
import secrets
import stat
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, features
from torch import Tensor

from stylize.errors import ImageError, TargetError
from stylize.images.containers import png_chunk
from stylize.images.metadata import srgb_profile
from stylize.images.picture import FORMATS, Picture
from stylize.images.record import embed, pixel_digest, relative_to
from stylize.images.silence import SILENCE
from stylize.machines import is_alive, machine
from stylize.text import one_line

DEEP_FORMATS = ("PNG", "TIFF")  # those that hold 16 bits per channel
_PNG_HEADER = 8 + 25  # bytes: signature, IHDR
SIDES = {"JPEG": 65500, "WEBP": 16383, "AVIF": 32768}  # px: the longest side libjpeg, libwebp and libavif read again

_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENOTTY}
_MAXBLOCK = threading.Lock()  # ImageFile.MAXBLOCK is one for all threads

_HIDDEN = re.compile(r"\..{0,40}\.(\d+)-([0-9a-f]{8})[0-9a-f]{0,8}\.tmp(\.\w+)?", re.DOTALL)  # see _hidden()
_DAY = 86400  # seconds

Array = NDArray[Any]


def save(
    picture: Picture | Tensor,
    target: str | Path | IO[bytes],
    *,
    format: str | None = None,
    quality: int | None = None,
    bits: int = 8,
) -> None:
    """Write a picture, or a bare (1, 3, H, W) tensor of sRGB in [0, 1], to a path or into a file object.

    The format is ``format`` ("png", "JPEG", ".webp"), else that of the extension of the path or of the file object's
    name, else PNG for a file object. Values are clamped to [0, 1] and rounded to nearest. PNG and TIFF are lossless,
    with 8 or 16 ``bits``; for JPEG, WebP and AVIF ``quality`` is 1 to 100, by default 95, 95 and 90, with chroma at
    full size where the format has it. An sRGB profile, the camera's EXIF (in JPEG, of up to 64 KB) and the picture's
    record go along. JPEG has no alpha: transparent pixels are laid over white.

    Raises:
        ImageError: the target cannot be written, the picture holds NaN or infinity, or its record is longer than 64 KB
            in JPEG or :data:`RECORD_LIMIT` elsewhere; an old target is left as it was. The picture is then kept as a
            PNG in the system's temporary folder, which the message names; not so when the options or the extension
            were wrong from the beginning.
    """
    path = Path(target) if isinstance(target, (str, os.PathLike)) else None
    name = str(target) if path is not None else _name_of(target)
    extension = _extension(name, format, in_memory=path is None)
    if problem := _option_problem(extension, quality, bits):
        raise TargetError(one_line(f"cannot write {name}: {problem}"))
    picture = picture if isinstance(picture, Picture) else Picture(picture)
    try:
        _write(picture, target, name, FORMATS[extension], quality, bits)
    except ImageError as error:
        kept = _keep(picture, bits)
        if kept is None:
            raise
        raise ImageError(one_line(f"{error}; the picture was kept as {kept}")) from error


def _name_of(target: object) -> str:
    if not callable(getattr(target, "write", None)):
        raise ImageError(f"a picture is written to a path or a file object, not to {type(target).__name__}")
    name = getattr(target, "name", "")
    return name if isinstance(name, str) and name else "the file object"


def _extension(name: str, format: str | None, *, in_memory: bool) -> str:
    """The extension of :data:`FORMATS` that stands for what is asked for."""
    if format is not None:
        return f".{format.lower().removeprefix('.')}"
    extension = Path(name).suffix.lower()
    return ".png" if in_memory and extension not in FORMATS else extension


def _write(
    picture: Picture, target: str | Path | IO[bytes], name: str, format: str, quality: int | None, bits: int
) -> None:
    folder = Path(target).parent if isinstance(target, (str, os.PathLike)) else None
    try:
        data = _encode(picture, format, quality, bits, folder)
        if not isinstance(target, (str, os.PathLike)):
            target.write(data)
            return
    except Exception as error:  # encoders raise nearly anything
        problem = "not enough memory" if isinstance(error, MemoryError) else str(error)
        raise ImageError(one_line(f"cannot write {name}: {problem}")) from error
    with atomic_write(target) as temporary:
        temporary.write_bytes(data)


def _keep(picture: Picture, bits: int) -> str | None:
    """Write a picture whose target failed into the temporary folder instead; its path, or None if that failed, too."""
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
    """Raise now whatever :func:`save` would raise later about ``path`` and its options.

    ``size`` is the (height, width) of the picture to come, where it is known. Whether the folder takes new files is
    tried with a hidden, empty one, which is removed again.

    Raises:
        TargetError: unknown extension, missing folder, a target that is no file, a quality out of range, 16 bits in a
            format that has 8, or a size the format cannot hold.
        ImageError: the file or its folder is write-protected, or no file can be made there for another reason.
    """
    path = Path(path)
    problem = _option_problem(path.suffix.lower(), quality, bits)
    if not problem and size is not None:
        problem = _size_problem(FORMATS[path.suffix.lower()], size)
    if problem := problem or _meaning_problem(path):
        raise TargetError(one_line(f"cannot write {path}: {problem}"))
    if problem := _protection_problem(path) or _folder_problem(path):
        raise ImageError(one_line(f"cannot write {path}: {problem}"))


def _option_problem(extension: str, quality: int | None, bits: int) -> str:
    """What is wrong with an extension and its options, or nothing."""
    if extension not in FORMATS:
        return f"unknown extension {extension!r}; use one of {', '.join(FORMATS)}"
    if FORMATS[extension] == "AVIF" and not features.check("avif"):
        return "this Pillow was built without AVIF; use another extension"
    if bits not in (8, 16):
        return f"unsupported bit depth {bits}; use 8 or 16"
    if bits == 16 and FORMATS[extension] not in DEEP_FORMATS:
        deep = ", ".join(name for name, format in FORMATS.items() if format in DEEP_FORMATS)
        return f"{extension} holds 8 bits per channel; for 16 use one of {deep}"
    if quality is not None and not 1 <= quality <= 100:
        return f"quality is {quality}; it must be 1 to 100"
    return ""


def is_lossy(path: Path) -> bool:
    """Whether the format of a target has a quality to choose."""
    return "quality" in _ENCODERS.get(FORMATS.get(path.suffix.lower(), ""), {})


def _size_problem(format: str, size: tuple[int, int]) -> str:
    """Why a format cannot hold a picture of (height, width), or nothing."""
    limit = SIDES.get(format)
    if limit is None or max(size) <= limit:
        return ""
    return f"{format} holds {limit} pixels a side, and the picture is {size[1]}x{size[0]}; use .png or a smaller size"


def _meaning_problem(path: Path) -> str:
    """Why no file can have this path, or nothing."""
    try:
        target = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # a loop or a name too long raises others
            mode = target.stat().st_mode
            if stat.S_ISDIR(mode):
                return "it is a folder; give the path of a file"
            if not stat.S_ISREG(mode):
                return "it is not a regular file; give another path"
        if not target.parent.is_dir():
            return f"there is no folder {path.parent}; create it first"
    except (OSError, ValueError) as error:
        return f"{getattr(error, 'strerror', None) or error}; give another path"
    return ""


def _protection_problem(path: Path) -> str:
    """Why a file that is there cannot be replaced, or nothing."""
    target = Path(os.path.realpath(path))
    if target.exists() and not os.access(target, os.W_OK):
        return "it is write-protected; give another path or change its permissions"
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
    unique = f"{os.getpid()}-{machine()[-8:]}{secrets.token_hex(4)}"
    # 40 + 10 characters of up to 4 bytes, and 30 more: below the 255 bytes a file name may have
    return target.with_name(f".{target.stem[:40]}.{unique}.tmp{target.suffix[:10]}")


def is_leftover(path: Path) -> bool:
    """Whether a file is one in the making whose process is gone. One of another machine cannot be asked: its files are
    left over when they are a day old."""
    match = _HIDDEN.fullmatch(path.name)
    if match is None or is_alive(int(match[1])):
        return False
    try:
        return match[2] == machine()[-8:] or time.time() - path.stat().st_mtime > _DAY
    except OSError:
        return False


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A hidden, empty file beside ``path``, with its extension, that replaces ``path`` when the block succeeds.

    The content is synced to disk before the rename. A new file gets the mode of the umask, a replaced one keeps
    its own; a symbolic link is followed. When the block raises, the target stays as it was and nothing is left over.

    Raises:
        ImageError: for any OSError, of the block too; for a target that is a folder or no regular file.
    """
    if problem := _meaning_problem(Path(path)) or _protection_problem(Path(path)):
        raise ImageError(one_line(f"cannot write {path}: {problem}"))
    target = Path(os.path.realpath(path))
    temporary = _hidden(target)
    try:
        temporary.open("xb").close()
        yield temporary
        _sync(temporary)
        if target.exists():
            _give_mode(temporary, stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except OSError as error:
        raise ImageError(one_line(f"cannot write {path}: {error.strerror or error}")) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have a file's content on the disk, where the file system can tell."""
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _UNSUPPORTED:  # such as a full disk, noticed only now
                raise


def _give_mode(path: Path, mode: int) -> None:
    """Set the permissions of a file, where its file system has any of its own; shares and exFAT have fixed ones."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        with contextlib.suppress(OSError):
            path.chmod(mode)


_ENCODERS: dict[str, dict[str, Any]] = {  # Pillow's options
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": "4:4:4", "optimize": True},
    "WEBP": {"quality": 95, "method": 4, "exact": True},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}


def _encode(picture: Picture, format: str, quality: int | None, bits: int, folder: Path | None) -> bytes:
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
    if picture.record is None:
        return _encode_pixels(pixels, format, quality, exif, b"")
    record = picture.record if folder is None else relative_to(picture.record, folder)
    if format == "PNG":
        png = _encode_pixels(pixels, format, quality, exif, b"")
        return png[:_PNG_HEADER] + embed(record, format, _digest_of(png)) + png[_PNG_HEADER:]
    unknown = secrets.token_hex(32)  # what was encoded shows only when it is decoded
    data = _encode_pixels(pixels, format, quality, exif, embed(record, format, unknown))
    return data.replace(unknown.encode(), _digest_of(data).encode())


def _digest_of(data: bytes) -> str:
    """The digest of the pixels of a file, or nothing for one so large that it would not be read."""
    with SILENCE, contextlib.suppress(Image.DecompressionBombError):
        return pixel_digest(io.BytesIO(data))
    return ""


def _encode_pixels(pixels: Array, format: str, quality: int | None, exif: bytes, xmp: bytes) -> bytes:
    """A file of (H, W, 3 or 4) samples of 8 or 16 bits."""
    if format == "TIFF":
        return _tiff(pixels, exif, xmp)
    if pixels.dtype == np.uint16:
        return _deep_png(pixels, exif)
    options = dict(_ENCODERS[format])
    if xmp:
        options["xmp"] = xmp
    if quality and "quality" in options:
        options["quality"] = quality
    if exif and not (format == "JPEG" and len(exif) > 65533):
        options["exif"] = exif
    buffer = io.BytesIO()
    with _buffer_of(pixels.size):
        Image.fromarray(pixels).save(buffer, format, icc_profile=srgb_profile(), **options)
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


def _deep_png(pixels: Array, exif: bytes) -> bytes:
    """A 16-bit PNG by OpenCV, which writes no profile or EXIF: they are inserted after the header."""
    import cv2

    ok, data = cv2.imencode(".png", pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    if not ok:
        raise ImageError("OpenCV could not encode it")
    png = data.tobytes()
    chunks = png_chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile()))
    if exif:
        chunks += png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    return png[:_PNG_HEADER] + chunks + png[_PNG_HEADER:]


def _tiff(pixels: Array, exif: bytes, xmp: bytes) -> bytes:
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
    if xmp:
        directory[700] = xmp
    directory.tagtype[34675] = 7
    directory[34675] = srgb_profile()
    buffer = io.BytesIO()
    buffer.write(struct.pack("<2sHL", b"II", 42, 8))
    directory.save(buffer)
    return buffer.getvalue() + strip
