"""The ffmpeg process: which one is used, running it, and how paths and times are spelled for it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

from stylize import StylizeError

FLAGS = "lanczos+accurate_rnd+full_chroma_int+full_chroma_inp"  # of the scale filter
LOCAL = "file,crypto,data"  # the protocols allowed: playlists may not name what lies in a network
OLDEST = (4, 4)  # with the bitstream filter setts, and `option` in lists of files
FPS_MODE = (5, 1)  # called vsync before
INSTALL = "install ffmpeg, or the Python package imageio-ffmpeg"

# On Linux a process can ask for a signal when its parent ends. This starts a command that is killed then. The numbers
# are PR_SET_PDEATHSIG and SIGKILL: to import signal would take a quarter of the time.
_TIED = """import ctypes, os, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(parent):
    os.execv(command[0], command)"""


@dataclass(frozen=True)
class Program:
    """An ffmpeg. ``version`` is None for a build without one, which is taken for a new one; ``encoders`` are the names
    of those built in."""

    path: str
    version: tuple[int, int] | None
    encoders: frozenset[str]

    def lacks(self, encoder: str) -> str:
        """Why it cannot be used, with an encoder if one is named; empty if it can."""
        if self.version is not None and self.version < OLDEST:
            return f"{self.path} is version {_dotted(self.version)}, {_dotted(OLDEST)} or newer is needed"
        return f"{self.path} has no encoder {encoder}" if encoder and encoder not in self.encoders else ""


def executable(encoder: str = "") -> str:
    """The path of an ffmpeg that has an encoder: the one on the PATH if it can be used, else the one that comes with
    imageio-ffmpeg.

    Raises:
        StylizeError: there is none; the message says what those that there are lack.
    """
    return _program(encoder)[0].path


def choice(encoder: str) -> tuple[str, list[str]]:
    """The path of an ffmpeg that has an encoder, and why those before it on the list are not used.

    Raises:
        StylizeError: as :func:`executable`.
    """
    program, reasons = _program(encoder)
    return program.path, reasons


def _program(encoder: str) -> tuple[Program, list[str]]:
    reasons: list[str] = []
    for path in _paths():
        found = _ask(path)
        if found is None:
            reasons.append(f"{path} does not run")
        elif reason := found.lacks(encoder):
            reasons.append(reason)
        else:
            return found, reasons
    if not reasons:
        raise StylizeError(f"ffmpeg is not installed; {INSTALL}")
    raise StylizeError(f"no ffmpeg here can be used: {'; '.join(reasons)}; {INSTALL}")


def _paths() -> Iterator[str]:
    if found := shutil.which("ffmpeg"):
        yield found
    with contextlib.suppress(ImportError, RuntimeError):
        yield str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())


@functools.cache
def _ask(path: str) -> Program | None:
    """What an ffmpeg says about itself; None if it does not run."""
    said = []
    for question in ("-version", "-encoders"):
        try:
            command = [path, "-hide_banner", "-nostdin", question]
            done = subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode:
            return None
        said.append(done.stdout.decode("utf-8", "replace"))
    number = re.match(r"ffmpeg version n?(\d+)\.(\d+)", said[0])
    version = None if number is None else (int(number[1]), int(number[2]))
    return Program(path, version, frozenset(re.findall(r"^ [VAS][\w.]{5} ([\w-]+)", said[1], re.MULTILINE)))


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


@contextlib.contextmanager
def ffmpeg_process(
    arguments: Sequence[str], output: int, *, encoder: str = "", level: str = "error", tied: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A running ffmpeg, and the file of its messages; it is killed when the block ends.

    It has a process group of its own, so that Ctrl-C at the terminal reaches this program alone.

    Args:
        arguments: of ffmpeg.
        output: its standard output, as :class:`subprocess.Popen` takes it.
        encoder: one that it must have.
        level: of the messages; each line names its own.
        tied: whether it is killed when this process ends in whatever way (on Linux). One that writes to a pipe ends
            with the reader anyway.
    """
    program, _ = _program(encoder)
    if program.version is not None and program.version < FPS_MODE:
        arguments = ["-vsync" if word == "-fps_mode" else word for word in arguments]
    command = [program.path, "-hide_banner", "-nostdin", "-nostats", "-loglevel", f"repeat+level+{level}", *arguments]
    if tied and sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=messages, process_group=0
        )
        try:
            yield process, messages
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def last_lines(messages: IO[bytes], count: int = 3) -> str:
    """The last errors among ffmpeg's messages, joined."""
    messages.seek(max(0, messages.seek(0, 2) - 16384))
    lines = [line.strip() for line in messages.read().decode("utf-8", "replace").splitlines()]
    found = [re.sub(r"\[(error|fatal|panic|warning)\] ", "", line) for line in lines if line and "[info]" not in line]
    return "; ".join(dict.fromkeys(found[-count:]))


def file_url(path: Path) -> str:
    """A path in a form that ffmpeg takes neither for an option nor for another protocol."""
    return f"file:{path.absolute()}"


def in_seconds(time: Fraction) -> str:
    return f"{float(time):.6f}"


def as_ratio(rate: Fraction) -> str:
    return f"{rate.numerator}/{rate.denominator}"
