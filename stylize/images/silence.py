"""Keeping decoders quiet: what they have to say is checked and said here."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import threading
import warnings
from pathlib import Path

from PIL import Image

MAX_PIXELS = 300_000_000  # of a picture that is decoded


class _Silence:
    """``with`` it, warnings are ignored and Pillow has our limit of pixels.

    Unlike warnings.catch_warnings it may be entered by threads that overlap.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                _hush()
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
                # Pillow warns of what is larger, and refuses at twice the size
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS // 2

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._limit
                self._caught.__exit__(None, None, None)


SILENCE = _Silence()  # Pillow warns about what is checked or refused here


@functools.cache
def _hush() -> None:
    """Keep Pillow's log off the terminal where nobody has set up logging, and libtiff's own lines in any case.

    libtiff writes to the standard error of the process by itself; the functions that do so can be taken from it.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    Image.init()  # has libtiff loaded
    with contextlib.suppress(Exception):
        lines = Path("/proc/self/maps").read_text().splitlines()
        paths = {line.split(maxsplit=5)[5] for line in lines if "libtiff" in line}
        for path in paths:
            library = ctypes.CDLL(path)
            for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                function = getattr(library, name)
                function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
                function(None)
