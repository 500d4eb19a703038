"""Lists of what the runs in a folder have done: each keeps one in a file, ``.TOKEN.done``, and reads those of others.

An entry is 32 hex digits of the hash of a key and of a mark, which says what was made of it. What is noted is written
within a refresh, unless it must be known before the claim is released.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from hashlib import sha256
from pathlib import Path

from stylize.claims.files import names
from stylize.stores import StorePath

ENTRY = 33  # bytes, with the end of the line
LISTS = 10  # that are read with every refresh; of more, each is read the less often
GROWTH = 0.05  # of the length of a list in a store, before it is written anew: nothing can be appended there


class DoneLists:
    """The lists of a folder, as one run sees them.

    Args:
        folder: where they lie.
        token: the name of this run's list.
        often: seconds that must pass at least before what is noted is written on its own, and what others note is
            looked at again.
    """

    def __init__(self, folder: Path, token: str, often: float) -> None:
        self._often = often
        self._folder, self._own = folder, f".{token}.done"
        self._stored = isinstance(folder, StorePath)
        self._known: dict[str, bool] = {}  # of each entry, whether it is of those that count
        self._listed: list[str] = []  # what this run has done
        self._written = 0  # entries
        self._read: dict[str, int | str] = {}  # how much of each list of another run, or which version
        self._counts = True
        self._learns = False
        self._wrote = self._looked = 0.0  # when, in seconds
        self._passed = 0  # refreshes since all lists were read
        self._lock = threading.Lock()

    def note(self, key: str, mark: str, *, at_once: bool) -> None:
        """Add an entry to this run's list.

        Raises:
            OSError: it cannot be written.
        """
        entry = _entry(key, mark)
        with self._lock:
            self._known[entry] = True
            if self._stored and at_once:
                self._alone(entry).write_bytes(b"")
                return
            self._listed.append(entry)
        if at_once or time.monotonic() - self._wrote >= self._often:
            self.write()

    def knows(self, key: str, mark: str) -> bool:
        """Whether a run has noted that since :meth:`start_anew`, as far as is known without looking."""
        return self._known.get(_entry(key, mark), False)

    def has(self, key: str, mark: str) -> bool:
        """Whether a run has ever noted that: looks at the lists."""
        entry = _entry(key, mark)
        if self._stored and entry not in self._known and self._alone(entry).exists():
            return True
        if not self._stored:
            self.read()
        return entry in self._known

    def start_anew(self) -> None:
        """Count only what other runs note from now on."""
        self._counts = False
        self.read()
        self._counts = self._learns = True

    def exchange(self) -> None:
        """Write what was noted, and read what others have, where there are many not every time.

        Raises:
            OSError: it cannot be written.
        """
        self._passed += 1
        self.write()
        if self._learns and self._passed * LISTS >= len(self._read):
            self.read()

    def look(self) -> None:
        """Read what others have noted, unless that was done a moment ago."""
        if self._learns and time.monotonic() - self._looked >= self._often:
            self.read()

    def write(self, *, last: bool = False) -> None:
        """Write what was noted; in a store, where a list is written whole, not each time unless it is the ``last``.

        Raises:
            OSError: it cannot be written.
        """
        with self._lock:
            new = self._listed[self._written :]
            if not new or (self._stored and not last and len(new) < GROWTH * len(self._listed)):
                return
            path = self._folder / self._own
            if self._stored:
                path.write_bytes(_lines(self._listed))
            else:
                self._folder.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(_lines(new))
            self._written, self._wrote = len(self._listed), time.monotonic()

    def read(self) -> None:
        """Read on the lists of other runs."""
        self._looked, self._passed = time.monotonic(), 0
        with self._lock, contextlib.suppress(OSError):
            if isinstance(self._folder, StorePath):
                for path in self._folder.iterdir():
                    if self._is_others(path.name) and self._read.get(path.name) != (version := path.version()):
                        self._take(path.read_bytes())
                        self._read[path.name] = version
                return
            for name in names(self._folder):
                if self._is_others(name):
                    self._read_on(name)

    def _read_on(self, name: str) -> None:
        begin = int(self._read.get(name, 0))
        with contextlib.suppress(OSError), open(self._folder / name, "rb") as file:  # noqa: PTH123
            file.seek(begin)
            text = file.read()
            self._read[name] = begin + self._take(text)

    def _take(self, text: bytes) -> int:
        """Take entries; how many bytes of whole ones there are, as the rest is being written."""
        whole = len(text) - len(text) % ENTRY
        for entry in text[:whole].decode("ascii", "replace").splitlines():
            self._known.setdefault(entry, self._counts)
        return whole

    def _is_others(self, name: str) -> bool:
        """Whether a file is the list of another run, and not a single entry of a store."""
        return name.endswith(".done") and name != self._own and len(name) == len(self._own)

    def _alone(self, entry: str) -> Path:
        return self._folder / f".{entry}.done"


def _entry(key: str, mark: str) -> str:
    return sha256(os.fsencode(f"{mark}\0{key}")).hexdigest()[: ENTRY - 1]


def _lines(entries: list[str]) -> bytes:
    return "".join(f"{entry}\n" for entry in entries).encode()
