"""Which machine this is, and whether a process on it still runs."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import uuid
from hashlib import sha256
from pathlib import Path

STOPPED = frozenset("Tt")  # states of a process, as /proc has them: stopped by a signal or a debugger
GONE = frozenset("ZX")


@functools.cache
def machine() -> str:
    """The name of this machine, and 8 hex digits that tell it, since it was started, from others of that name, or the
    container on it: process numbers mean the same to all who read the same here."""
    parts = [platform.node()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:  # not Linux
        parts.append(f"{uuid.getnode():x}")
    return f"{parts[0]} {sha256(' '.join(parts).encode()).hexdigest()[:8]}"


def started(process: int) -> str:
    """When a process of this machine was started, in a unit of its own, to tell it from a later one with its number;
    empty if that cannot be told."""
    fields = _status(process)
    return fields[19] if len(fields) > 19 else ""


def is_alive(process: int, begun: str = "") -> bool:
    """Whether a process of this machine may still run: the one that was started at ``begun``, as :func:`started` has
    it, if that is given."""
    if os.name == "nt":  # asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    fields = _status(process)
    if fields and fields[0] in GONE:
        return False
    return not (fields and begun) or fields[19] == begun


def is_stopped(process: int) -> bool:
    """Whether a process of this machine is stopped, so that it cannot do anything until it is continued."""
    fields = _status(process)
    return bool(fields) and fields[0] in STOPPED


def _status(process: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; none where there is no such file."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return []
