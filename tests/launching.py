"""The command line on machines of other names: a program that gives its process a host name of its own.

Of its variables, CLOCK_LATE says by how many seconds the clock of that machine is wrong, and SLEPT names a file: when
that is there, the machine has been asleep for hours.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import preloaded

NEW_NAME, NEW_USER = 0x04000000, 0x10000000  # CLONE_NEWUTS, CLONE_NEWUSER


def start(host: str, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> preloaded.Popen:
    """``stylize ARGUMENTS`` as on a machine of that name."""
    return preloaded.Popen(
        [sys.executable, str(Path(__file__).resolve()), host, *arguments],
        cwd=cwd,
        env={**environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _take_the_name(host: str) -> None:
    """Be alone in a namespace of host names, which takes the rights of root: this user is root there."""
    maps = {"setgroups": "deny", "uid_map": f"0 {os.getuid()} 1", "gid_map": f"0 {os.getgid()} 1"}
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NAME | NEW_USER):
        raise OSError(ctypes.get_errno(), "no host name of its own")
    for name, text in maps.items():
        Path("/proc/self", name).write_text(text)
    socket.sethostname(host)
    platform._uname_cache = None  # type: ignore[attr-defined]


def _set_the_clocks() -> None:
    if late := float(os.environ.get("CLOCK_LATE", 0)):
        now = time.time
        time.time = lambda: now() - late
    if slept := os.environ.get("SLEPT"):
        for name in ("monotonic", "clock_gettime"):
            clock = getattr(time, name)
            setattr(time, name, lambda *which, clock=clock: clock(*which) + 10000 * Path(slept).exists())


if __name__ == "__main__":
    from stylize.cli.main import main

    _take_the_name(sys.argv[1])
    _set_the_clocks()
    main(sys.argv[2:])
