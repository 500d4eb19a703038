"""The memory that the C library keeps of what is freed.

A step allocates and frees tensors of tens of megabytes, the same again and again. The GNU C library gives such memory
back to the system each time, which clears every page before the next use: a fifth of the time of a step with mini at
1024 px. Told to, it keeps the memory for the next step instead.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

MMAP_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -4, -3, -1  # parameters of mallopt, as in malloc.h
# The threshold is said, as the library raises it to the largest block that was freed, up to 32 MiB: smaller ones are
# then parts of the heap, where holes remain between them, and how much that takes differs from run to run.
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 2**20, TRIM_THRESHOLD: 128 * 1024}
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}  # nothing from outside the heap, and no part of that is given back

_allowed = False


def allow() -> None:
    """Let :func:`keep` have an effect on this process, which it does not have on programs that only use the package;
    nor where the user has set the allocator."""
    global _allowed
    _allowed = not os.environ.keys() & {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"}


def keep(*, wanted: bool) -> bool:
    """Keep what is freed from now on, or give all of it back, and what follows as soon as it is free. Returns whether
    that could be done."""
    library = _library() if _allowed else None
    if library is None:
        return False
    for parameter, value in (KEPT if wanted else USUAL).items():
        library.mallopt(parameter, value)
    if not wanted:
        library.malloc_trim(0)
    return True


def trim() -> None:
    """Give back the pages that are free now, in any program: it changes nothing of how memory is allocated. Blocks of
    less than the library's threshold leave holes between others, up to gigabytes where large pictures are painted."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)


@contextmanager
def giving_back() -> Iterator[None]:
    """Give back, in the end, what was kept meanwhile."""
    try:
        yield
    finally:
        keep(wanted=False)


@cache
def _library() -> ctypes.CDLL | None:
    """The C library, if it is GNU's."""
    try:
        found = ctypes.CDLL(None)
        _ = found.mallopt, found.malloc_trim, found.gnu_get_libc_version
    except (OSError, AttributeError, TypeError):  # none, another, or Windows
        return None
    return found
