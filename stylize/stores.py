"""Object stores: paths such as ``s3://bucket/photos/a.jpg``, with the methods of :class:`pathlib.Path`.

:func:`as_path` makes a :class:`StorePath` of an address that fsspec has a file system for, and a plain path of
anything else. Both are then used alike. A file of a store is read by way of a temporary copy, and written in one go
from one, as stores have neither folders nor renaming.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import posixpath
import re
import secrets
import stat
import tempfile
from collections.abc import Generator, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any

from stylize.errors import SettingsError

BLOCK = 2**18  # bytes that a request for a part of a file asks for
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "mtime", "LastModified", "last_modified", "created")
EXCLUSIVE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory"}  # may create a file exclusively
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}([^/].*)", re.DOTALL)  # a path has lost one of the two slashes
_NO_BUCKET = re.compile("NoSuchBucket|specified bucket|bucket does not exist", re.IGNORECASE)
_UNKNOWN: dict[str, Any] = {}


def as_path(path: str | os.PathLike[str]) -> Path:
    """The path that a text or a path means: a :class:`StorePath` for an address such as ``s3://bucket/photos``."""
    if isinstance(path, StorePath):
        return path
    text = os.fspath(path)
    found = _ADDRESS.fullmatch(text)
    if found is None or not _is_known(found[1]) or os.path.lexists(f"{found[1]}:"):
        return Path(re.sub("^file:/{1,3}", "/", text)) if text.startswith("file:/") else Path(path)
    return StorePath(f"{found[1]}:/{posixpath.normpath(found[2])}")


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or, in a store, anything below the path; no error where that cannot be told."""
    return path.is_dir() if isinstance(path, StorePath) else os.path.isdir(path)  # noqa: PTH112, Path's raises OSError


def is_file(path: Path) -> bool:
    """Whether there is a regular file; no error where that cannot be told."""
    return path.is_file() if isinstance(path, StorePath) else os.path.isfile(path)  # noqa: PTH113, Path's raises OSError


def _is_known(scheme: str) -> bool:
    try:
        from fsspec.registry import known_implementations, registry
    except ImportError:
        return False
    return scheme not in ("file", "local") and (scheme in known_implementations or scheme in registry)


if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())


class StorePath(_Path):
    """A path in an object store. Whatever fails is an :class:`OSError` with a ``strerror`` of one line.

    Folders exist where there is something in them. What a listing told of a file is kept with its path.
    """

    _info: Mapping[str, Any] | None = _UNKNOWN  # None: it is known that there is nothing

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest.lstrip('/')}"

    def __fspath__(self) -> str:
        return str(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return as_path, (str(self),)

    def as_posix(self) -> str:
        return str(self)

    def absolute(self) -> StorePath:
        return self

    def resolve(self, strict: bool = False) -> StorePath:
        return self

    @property
    def scheme(self) -> str:
        """Such as "s3"."""
        return str(self).partition(":")[0]

    # --- looking

    def info(self) -> Mapping[str, Any]:
        """What the store says of a file or folder.

        Raises:
            FileNotFoundError: there is nothing.
            OSError: it cannot be told.
        """
        if self._info is _UNKNOWN:
            with _as_os_errors(self) as (store, place):
                found: Mapping[str, Any] = store.info(place)
                return found
        if self._info is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return self._info

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Kind, size and, as the number of the file, its version."""
        info = self.info()
        folder = info.get("type") == "directory"
        number = int(sha256((str(self) if folder else _version(info)).encode()).hexdigest()[:15], 16)
        mode = (stat.S_IFDIR if folder else stat.S_IFREG) | 0o644
        return os.stat_result((mode, number, 0, 1, 0, 0, int(info.get("size") or 0), 0, 0, 0))

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        try:
            self.info()
        except OSError:
            return False
        return True

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._is("directory")

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._is("file")

    def _is(self, kind: str) -> bool:
        try:
            return self.info().get("type") == kind
        except OSError:
            return False

    def version(self) -> str:
        """Tells what is in a file now from what was or will be there; empty where the store does not say.

        Raises:
            OSError: there is no such file.
        """
        return _version(self.info())

    def iterdir(self) -> Generator[StorePath, None, None]:
        with _as_os_errors(self) as (store, place):
            found = store.ls(place, detail=True)
        for info in found:
            if (name := posixpath.basename(info["name"].rstrip("/"))) and info["name"].strip("/") != place.strip("/"):
                yield _with_info(self / name, info)

    def below(self) -> dict[PurePath, StorePath]:
        """All files below a folder, by their place in it; none where there is no folder."""
        with _as_os_errors(self) as (store, place):
            try:
                found = store.find(place, detail=True)
            except FileNotFoundError:
                return {}
        start = place.strip("/") + "/"
        places = {PurePath(info["name"].strip("/").removeprefix(start)): info for info in found.values()}
        return {relative: _with_info(self / relative, info) for relative, info in places.items()}

    def as_absent(self) -> StorePath:
        """The path of a file that is known not to be there."""
        return _with_info(StorePath(self), None)

    # --- reading

    def open(self, mode: str = "r", *arguments: Any, **options: Any) -> IO[Any]:  # type: ignore[override]
        """A temporary copy, opened for reading."""
        if "r" not in mode or "+" in mode:
            raise OSError(errno.ENOTSUP, "files of a store are written in one go", str(self))
        copy = tempfile.NamedTemporaryFile(prefix="stylize-", suffix=self.suffix[:10])  # noqa: SIM115, closed by its user
        try:
            with _as_os_errors(self) as (store, place):
                store.get_file(place, copy.name)
            return Path(copy.name).open(mode, *arguments, **options)
        finally:
            copy.close()

    def parts_of(self) -> io.BufferedReader:
        """The file, of which only what is read is fetched, in pieces of 256 KiB."""
        return io.BufferedReader(_Parts(self), BLOCK)

    def read_bytes(self) -> bytes:
        with _as_os_errors(self) as (store, place):
            data: bytes = store.cat_file(place)
            return data

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    # --- writing

    def write_bytes(self, data: Any) -> int:
        with _as_os_errors(self) as (store, place):
            store.pipe_file(place, bytes(data))
        return len(data)

    def upload(self, file: Path) -> None:
        """Make this path hold what a file on this machine does."""
        with _as_os_errors(self) as (store, place):
            store.put_file(str(file), place)

    def create(self, data: bytes) -> bool:
        """Write a file unless there is one already; whether it was written. Nobody else may write the same ``data``: it
        tells that a request was carried out of which the answer was lost, so that it was made twice.

        Raises:
            OSError: of number ENOTSUP where the store cannot do that in one step.
        """
        if not _creates_exclusively(self.parent):
            raise OSError(errno.ENOTSUP, "the store has no conditional writes", str(self))
        return self._create(data)

    def _create(self, data: bytes) -> bool:
        try:
            with _as_os_errors(self) as (store, place):
                store.pipe_file(place, data, mode="create")
        except OSError as error:  # there is one already, or such as 409, when two want to create it at once
            try:
                return self.read_bytes() == data
            except OSError:
                if isinstance(error, FileExistsError):
                    return False  # gone again
                raise error from None
        return True

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        return  # it is there once there is something in it

    def rmdir(self) -> None:
        return  # it is gone once nothing is in it

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with _as_os_errors(self) as (store, place):
                store.rm_file(place)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def check_writable(self) -> None:
        """Try whether files can be made in a folder, once in a process.

        Raises:
            OSError: why not.
        """
        _check_writable(self)


def _with_info(path: StorePath, info: Mapping[str, Any] | None) -> StorePath:
    path._info = info
    return path


class _Parts(io.RawIOBase):
    """A file of a store, of which parts are asked for."""

    def __init__(self, path: StorePath) -> None:
        self._path, self._at = path, 0
        self.length = int(path.info().get("size") or 0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self.length)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self.length, self._at + len(buffer))
        if end <= self._at:
            return 0
        with _as_os_errors(self._path) as (store, place):
            data = store.cat_file(place, start=self._at, end=end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _version(info: Mapping[str, Any]) -> str:
    found = next((info[name] for name in VERSIONS if info.get(name)), None)
    found = found.timestamp() if isinstance(found, datetime) else found
    text = f"{found:.3f}" if isinstance(found, float) else str(found or "").strip('"')
    return f"{text} {info.get('size')}" if text else ""


@functools.lru_cache(256)
def _check_writable(folder: StorePath) -> None:
    probe = folder / f".stylize-{secrets.token_hex(8)}"
    probe.write_bytes(b"stylize")
    probe.unlink(missing_ok=True)


@functools.lru_cache(256)
def _creates_exclusively(folder: StorePath) -> bool:
    """Whether a store refuses to create a file that is there, which some ignore that should."""
    if folder.scheme not in EXCLUSIVE:
        return False
    probe = folder / f".stylize-{secrets.token_hex(8)}"
    try:
        return probe._create(secrets.token_bytes(16)) and not probe._create(secrets.token_bytes(16))
    finally:
        probe.unlink(missing_ok=True)


@contextlib.contextmanager
def _as_os_errors(path: StorePath) -> Iterator[tuple[Any, str]]:
    """The file system of a path, and the path in it; whatever the block raises becomes an OSError."""
    try:
        yield _opened(path)
    except SettingsError:
        raise
    except OSError as error:
        if error.strerror and error.errno and isinstance(error.filename, str) and type(error) is OSError:
            raise
        raise _described(error, path) from error
    except ValueError as error:  # such as a name of a bucket that there cannot be
        raise OSError(errno.EINVAL, _line(error), str(path)) from error
    except Exception as error:  # each store has errors of its own
        raise _described(error, path) from error


def _opened(path: StorePath) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        store, place = url_to_fs(str(path), use_listings_cache=False)
    except ImportError as error:
        extra = "'stylize-host[stores]'" if path.scheme in ("s3", "s3a") else "what it names"
        raise SettingsError(f"{path.scheme}:// needs a package ({_line(error)}): pip install {extra}") from error
    return store, place


def _described(error: Exception, path: StorePath) -> OSError:
    """An error of a store in words, as one of the operating system."""
    said, kind = _line(error), type(error).__name__
    if isinstance(error, FileNotFoundError):
        chain = " ".join(str(each) for each in _causes(error))
        said = f"there is no bucket {path.parts[1]}" if _NO_BUCKET.search(chain) else os.strerror(errno.ENOENT)
        return FileNotFoundError(errno.ENOENT, said, str(path))
    if isinstance(error, FileExistsError):
        return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if "Credential" in kind or "credential" in said:
        hint = "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" if path.scheme == "s3" else ""
        return PermissionError(errno.EACCES, f"no valid credentials for the store ({said}){hint}", str(path))
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, f"the store refuses access: {said}", str(path))
    if isinstance(error, (TimeoutError, ConnectionError)) or re.search("Connect|Timeout|Connection", kind):
        return OSError(errno.EIO, f"the store cannot be reached: {said}", str(path))
    return OSError(getattr(error, "errno", None) or errno.EIO, f"the store reports: {said}", str(path))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
