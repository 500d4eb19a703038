"""Claims: which of several runs on one output folder paints which picture."""

from __future__ import annotations

import contextlib
import logging
import os
from hashlib import sha256
from pathlib import Path, PurePath

import platformdirs

try:
    import fcntl
except ImportError:  # no such locks on this system: two runs may paint a picture twice, but still whole
    fcntl = None  # type: ignore[assignment]


log = logging.getLogger("stylize.batch")


class Claims:
    """Locks on single bytes of one file in the user's cache, one byte per result: the system gives them back when a
    process ends, however it ends, and nothing is left in the output folder."""

    def __init__(self, folder: Path) -> None:
        self._file: int | None = None
        if fcntl is None:
            return
        place = Path(os.environ.get("STYLIZE_CACHE") or platformdirs.user_cache_dir("stylize")) / "claims"
        name = sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
        try:
            place.mkdir(parents=True, exist_ok=True)
            self._file = os.open(place / name, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            log.warning("no locks in %s (%s): another run on this folder would do the same work", place, error.strerror)

    def take(self, target: PurePath) -> bool:
        """Whether it is ours to paint."""
        if self._file is None:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(target))
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
        return True

    def give(self, target: PurePath) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(target))

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _place(target: PurePath) -> int:
    return int.from_bytes(sha256(os.fsencode(target)).digest()[:7], "big")
