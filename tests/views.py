"""A network file system as one machine sees it: what it remembers of folders, and so does not ask for again.

It remembers which files are in a folder, and so which are not, until it makes or removes one there itself: for ever,
where NFS does so for 30 to 60 s. Files are looked at anew whenever they are opened, as NFS does.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class View:
    """What this process remembers of the folders below one. Within :meth:`elsewhere` it acts as another machine."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root, self._known, self._here = str(root), dict[str, frozenset[str]](), True
        self._list = os.listdir
        monkeypatch.setattr(os, "listdir", self._listed(os.listdir))
        monkeypatch.setattr(os, "scandir", self._scanned(os.scandir))
        for name in ("stat", "lstat"):
            monkeypatch.setattr(os, name, self._seen(getattr(os, name)))
        for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir"):
            monkeypatch.setattr(os, name, self._changing(getattr(os, name)))
        monkeypatch.setattr(os, "open", self._opened(os.open, lambda mode: bool(mode & os.O_CREAT)))
        for module in (io, builtins):
            monkeypatch.setattr(module, "open", self._opened(open, lambda mode: not set("wxa").isdisjoint(mode)))

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        self._here = False
        try:
            yield
        finally:
            self._here = True

    def _names(self, folder: str) -> frozenset[str]:
        if folder not in self._known:
            self._known[folder] = frozenset(self._list(folder))
        return self._known[folder]

    def _is_below(self, path: Any) -> bool:
        if not self._here or not isinstance(path, str | os.PathLike):
            return False
        return os.path.dirname(os.path.abspath(path)).startswith(self._root)  # noqa: PTH100, PTH120

    def _check(self, path: Any) -> None:
        """Raise where the file was not there when its folder was looked at."""
        if not self._is_below(path):
            return
        folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100
        try:
            names = self._names(folder)
        except OSError:  # there is no such folder
            return
        if name not in names:
            raise FileNotFoundError(errno.ENOENT, "remembered as missing", str(path))

    def _look(self, path: Any) -> None:
        """After a change of one's own: what is in the folder is known as it is now."""
        if self._is_below(path):
            folder = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120
            self._known.pop(folder, None)
            with contextlib.suppress(OSError):
                self._names(folder)

    def _listed(self, real: Callable[..., list[str]]) -> Callable[..., list[str]]:
        def listdir(path: Any = ".") -> list[str]:
            below = self._is_below(os.path.join(path, "_")) if isinstance(path, str | os.PathLike) else False  # noqa: PTH118
            return sorted(self._names(os.path.abspath(path))) if below else real(path)  # noqa: PTH100

        return listdir

    def _scanned(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def scandir(path: Any = ".") -> Any:
            below = isinstance(path, str | os.PathLike) and self._is_below(os.path.join(path, "_"))  # noqa: PTH118
            return _Entries(real(path), self._names(os.path.abspath(path))) if below else real(path)  # noqa: PTH100

        return scandir

    def _seen(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def status(path: Any, **options: Any) -> Any:
            self._check(path)
            return real(path, **options)

        return status

    def _changing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(path: Any, *others: Any, **options: Any) -> Any:
            made = real(path, *others, **options)
            for each in (path, *others[:1]):
                self._look(each)
            return made

        return change

    def _opened(self, real: Callable[..., Any], makes: Callable[[Any], bool]) -> Callable[..., Any]:
        def opened(path: Any, mode: Any = "r", *others: Any, **options: Any) -> Any:
            if not makes(mode):
                self._check(path)
                return real(path, mode, *others, **options)
            new = self._is_below(path) and os.path.basename(path) not in self._list(os.path.dirname(path))  # noqa: PTH119, PTH120
            made = real(path, mode, *others, **options)
            if new:
                self._look(path)
            return made

        return opened


class _Entries:
    """What :func:`os.scandir` returns, of the names that are remembered."""

    def __init__(self, entries: Any, names: frozenset[str]) -> None:
        self._entries, self._names = entries, names

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> _Entries:
        return self

    def __next__(self) -> Any:
        return next(entry for entry in self._entries if entry.name in self._names)

    def close(self) -> None:
        self._entries.close()
