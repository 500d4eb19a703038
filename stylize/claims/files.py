"""The files of claims in one folder, as one run makes and reads them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from stylize.machines import machine, started
from stylize.stores import StorePath

SIZE = 512  # bytes of a claim, at least: the same after every refresh
GONE = {errno.ENOENT, errno.ESTALE}  # the folder may be removed as soon as it is made
BUSY = {errno.EACCES, errno.EBUSY}  # on SMB: a file of that name is removed as soon as nobody reads it any more
TRIES, PAUSE = 10, 0.02  # seconds


class ClaimFiles:
    """The files of claims in a folder.

    Args:
        folder: where they lie; made when it is needed.
        token: what the run writes into its own, to know them by.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self.folder, self.token = folder, token
        self.beat = 0  # written into the claims, and counted up with every refresh

    def create(self, key: str, number: int) -> Path | None:
        """The file of that number of the claim on ``key``, made now; None if there is one.

        Raises:
            OSError: none can be made.
        """
        path = self.path(key, number)
        for more in reversed(range(TRIES)):
            try:
                return path if _create(path, self._written(key)) else None
            except OSError as error:
                if not more or error.errno not in GONE | BUSY:
                    raise
                if error.errno in GONE:
                    self.folder.mkdir(parents=True, exist_ok=True)
                else:
                    time.sleep(PAUSE)
        return None

    def path(self, key: str, number: int) -> Path:
        """Where the file of that number of a claim lies."""
        name = sha256(os.fsencode(key)).hexdigest()[:32]
        return self.folder / f"{name}.{number}"

    def of(self, key: str) -> list[Path]:
        """The files of a claim, that of its holder last."""
        name = self.path(key, 0).stem
        try:
            numbers = [each[33:] for each in names(self.folder) if each.startswith(f"{name}.")]
        except OSError:
            return []
        return [self.folder / f"{name}.{number}" for number in sorted(map(int, filter(str.isdigit, numbers)))]

    def is_ours(self, path: Path) -> bool:
        """Whether this run wrote a file."""
        content = content_of(path)
        return content is not None and self.token.encode() in content

    def rewrite(self, path: Path, key: str) -> bool:
        """Write the file of a claim anew, in place: should another run have taken it, nothing of theirs changes.
        Whether it was this run's.

        Raises:
            FileNotFoundError: someone has removed it.
            OSError: it cannot be written.
        """
        return _rewrite(path, self.token.encode(), self._written(key))

    def of_others(self) -> Iterator[tuple[Path, bytes]]:
        """The files of other runs that have not ended, and what they hold."""
        with contextlib.suppress(OSError):
            for path in list(self.folder.iterdir()):
                if path.suffix[1:].isdigit() or path.suffix == ".run":
                    content = content_of(path)
                    if content is not None and self.token.encode() not in content and b'"ended"' not in content:
                        yield path, content

    def _written(self, key: str) -> bytes:
        """The content of a claim, as long after every refresh."""
        held = {
            "host": machine(),
            "process": os.getpid(),
            "started": started(os.getpid()),
            "run": self.token,
            "beat": f"{self.beat:012}",
            "key": key,
        }
        return json.dumps(held).encode().ljust(SIZE)


def names(folder: Path) -> list[str]:
    """The names of what is in a folder."""
    if isinstance(folder, StorePath):
        return [path.name for path in folder.iterdir()]
    return os.listdir(folder)  # noqa: PTH208, a Path for each takes longer


def _create(path: Path, content: bytes) -> bool:
    """Write a file unless there is one already; whether it was written."""
    if isinstance(path, StorePath):
        return path.create(content)
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(file, content)
    finally:
        os.close(file)
    return True


def _rewrite(path: Path, mark: bytes, content: bytes) -> bool:
    """Write a file that is there, and holds a mark, anew, in place; whether it holds the mark."""
    if isinstance(path, StorePath):
        if mark not in path.read_bytes():
            return False
        path.write_bytes(content)
        return True
    file = os.open(path, os.O_RDWR)
    try:
        if mark not in os.read(file, 4096):
            return False
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, content)
    finally:
        os.close(file)
    return True


def content_of(path: Path) -> bytes | None:
    """What a file holds; None if it is not there."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def look_anew(folder: Path) -> None:
    """Have this machine look anew at which files are in a folder: of a network file system it may remember that, and
    what was missing, for a minute, but not beyond a change that it makes itself."""
    if not isinstance(folder, StorePath):
        with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(prefix=".stylize-", dir=folder):
            pass


def unlink(paths: Iterable[Path]) -> None:
    """Remove files, the lowest number of a claim first: while a higher one is there, nobody can succeed to a lower."""
    for path in list(paths):
        with contextlib.suppress(OSError):
            path.unlink()
