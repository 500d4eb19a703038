"""Writing: picture -> file, atomically: a target is either the complete new picture or what it was before."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import features
from torch import Tensor

from stylize.errors import ImageError, TargetError
from stylize.images.encode import DEEP_FORMATS, ENCODERS, encode, size_problem
from stylize.images.picture import FORMATS, Picture
from stylize.machines import is_alive, machine
from stylize.stores import StorePath, as_path
from stylize.text import one_line

_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENOTTY}
_HIDDEN = re.compile(r"\..{0,40}\.(\d+)-([0-9a-f]{8})[0-9a-f]{0,8}\.tmp(\.\w+)?", re.DOTALL)  # see _hidden()
_DAY = 86400  # seconds


def save(
    picture: Picture | Tensor,
    target: str | Path | IO[bytes],
    *,
    format: str | None = None,
    quality: int | None = None,
    bits: int | None = None,
    location: bool = True,
) -> None:
    """Write a picture, or a bare (1, 3, H, W) tensor of sRGB in [0, 1], to a path or into a file object.

    The format is ``format`` ("png", "JPEG", ".webp"), else that of the extension of the path or of the file object's
    name, else PNG for a file object. Values are clamped to [0, 1] and rounded to nearest. PNG and TIFF are lossless,
    with 8 or 16 ``bits``, by default 16 where the picture was read from more than 8; for JPEG, WebP and AVIF
    ``quality`` is 1 to 100, by default 95, 95 and 90, with chroma at full size where the format has it. An sRGB
    profile, EXIF (in JPEG, of up to 64 KB), XMP, IPTC (in WebP and AVIF as XMP), resolution and the picture's record
    go along; without ``location``, GPS, names of places and paths of files do not. JPEG has no alpha: transparent
    pixels are laid over white.

    Raises:
        ImageError: the target cannot be written, the picture holds NaN or infinity, or its record is longer than 64 KB
            in JPEG or :data:`RECORD_LIMIT` elsewhere; an old target is left as it was. The picture is then kept as a
            PNG in the system's temporary folder, which the message names; not so when the options or the extension
            were wrong from the beginning.
    """
    path = as_path(target) if isinstance(target, (str, os.PathLike)) else None
    name = str(target) if path is not None else _name_of(target)
    extension = _extension(name, format, in_memory=path is None)
    if problem := _option_problem(extension, quality, bits):
        raise TargetError(one_line(f"cannot write {name}: {problem}"))
    picture = picture if isinstance(picture, Picture) else Picture(picture)
    try:
        _write(picture, path or target, name, FORMATS[extension], quality, bits, location)
    except ImageError as error:
        kept = _keep(picture, bits, location)
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
    picture: Picture,
    target: str | Path | IO[bytes],
    name: str,
    format: str,
    quality: int | None,
    bits: int | None,
    location: bool,
) -> None:
    folder = Path(target).parent if isinstance(target, (str, os.PathLike)) else None
    try:
        data = encode(picture, format, quality, bits, folder, location)
        if not isinstance(target, (str, os.PathLike)):
            target.write(data)
            return
    except Exception as error:  # encoders raise nearly anything
        problem = "not enough memory" if isinstance(error, MemoryError) else str(error)
        raise ImageError(one_line(f"cannot write {name}: {problem}")) from error
    with atomic_write(target) as temporary:
        temporary.write_bytes(data)


def _keep(picture: Picture, bits: int | None, location: bool) -> str | None:
    """Write a picture whose target failed into the temporary folder instead; its path, or None if that failed, too."""
    try:
        data = encode(picture, "PNG", None, bits, Path(tempfile.gettempdir()), location)
        with tempfile.NamedTemporaryFile(prefix="stylize-", suffix=".png", delete=False) as file:
            try:
                file.write(data)
                file.flush()
            except BaseException:
                Path(file.name).unlink()
                raise
        return file.name
    except Exception:  # the first error is the one to report
        return _keep(dataclasses.replace(picture, record=None), bits, location) if picture.record else None


def check_target(
    path: str | Path, *, quality: int | None = None, bits: int | None = None, size: tuple[int, int] | None = None
) -> None:
    """Raise now whatever :func:`save` would raise later about ``path`` and its options.

    ``size`` is the (height, width) of the picture to come, where it is known. Whether the folder takes new files is
    tried with a hidden, empty one, which is removed again.

    Raises:
        TargetError: unknown extension, missing folder, a target that is no file, a quality out of range, 16 bits in a
            format that has 8, or a size the format cannot hold.
        ImageError: the file or its folder is write-protected, or no file can be made there for another reason.
    """
    path = as_path(path)
    problem = _option_problem(path.suffix.lower(), quality, bits)
    if not problem and size is not None:
        problem = size_problem(FORMATS[path.suffix.lower()], size)
    if isinstance(path, StorePath):
        if problem:
            raise TargetError(one_line(f"cannot write {path}: {problem}"))
        with _as_image_error(path):
            path.parent.check_writable()
        return
    if problem:
        raise TargetError(one_line(f"cannot write {path}: {problem}"))
    check_file(path)


def check_file(path: Path) -> None:
    """Raise now whatever :func:`atomic_write` would raise later about a path on a disk.

    Raises:
        TargetError: the folder is missing, or the path is that of something else than a file.
        ImageError: the file or its folder is write-protected, or no file can be made there for another reason.
    """
    if problem := _meaning_problem(path):
        raise TargetError(one_line(f"cannot write {path}: {problem}"))
    if problem := _protection_problem(path) or _folder_problem(path):
        raise ImageError(one_line(f"cannot write {path}: {problem}"))


def check_folder(folder: Path) -> None:
    """Raise now, and once, what would be raised of every file that is to be made in a folder that is there.

    Raises:
        ImageError: no file can be made there.
    """
    try:
        if isinstance(folder, StorePath):
            folder.check_writable()
            return
        with tempfile.NamedTemporaryFile(prefix=".stylize-", dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ImageError(f"no file can be made in {folder} ({reason}); choose another folder with -o") from error


def _option_problem(extension: str, quality: int | None, bits: int | None) -> str:
    """What is wrong with an extension and its options, or nothing."""
    if extension not in FORMATS:
        return f"unknown extension {extension!r}; use one of {', '.join(FORMATS)}"
    if FORMATS[extension] == "AVIF" and not features.check("avif"):
        return "this Pillow was built without AVIF; use another extension"
    if bits not in (None, 8, 16):
        return f"unsupported bit depth {bits}; use 8 or 16"
    if bits == 16 and FORMATS[extension] not in DEEP_FORMATS:
        deep = ", ".join(name for name, format in FORMATS.items() if format in DEEP_FORMATS)
        return f"{extension} holds 8 bits per channel; for 16 use one of {deep}"
    if quality is not None and not 1 <= quality <= 100:
        return f"quality is {quality}; it must be 1 to 100"
    return ""


def is_lossy(path: Path) -> bool:
    """Whether the format of a target has a quality to choose."""
    return "quality" in ENCODERS.get(FORMATS.get(path.suffix.lower(), ""), {})


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
    if target.exists() and not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
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

    In a store it is a temporary file on this machine, which is uploaded then.

    The content is synced to disk before the rename. A new file gets the mode of the umask, a replaced one keeps
    its own; a symbolic link is followed. When the block raises, the target stays as it was and nothing is left over.

    Raises:
        ImageError: for any OSError, of the block too; for a target that is a folder or no regular file.
    """
    path = as_path(path)
    if isinstance(path, StorePath):
        with _as_image_error(path), tempfile.TemporaryDirectory(prefix="stylize-") as folder:
            temporary = Path(folder, f"picture{path.suffix[:10]}")
            temporary.touch()
            yield temporary
            path.upload(temporary)
        return
    if problem := _meaning_problem(path) or _protection_problem(path):
        raise ImageError(one_line(f"cannot write {path}: {problem}"))
    target = Path(os.path.realpath(path))
    temporary = _hidden(target)
    with _as_image_error(path):
        try:
            temporary.open("xb").close()
            yield temporary
            _sync(temporary)
            if target.exists():
                _give_mode(temporary, stat.S_IMODE(target.stat().st_mode))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _as_image_error(path: Path) -> Iterator[None]:
    """An error of the operating system as an ImageError that says what cannot be written."""
    try:
        yield
    except OSError as error:
        raise ImageError(one_line(f"cannot write {path}: {error.strerror or error}")) from error


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
