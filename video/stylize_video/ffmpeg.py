"""The ffmpeg process: where it is, running it, and how paths and times are spelled for it."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO

from stylize import StylizeError

FLAGS = "lanczos+accurate_rnd+full_chroma_int+full_chroma_inp"  # of the scale filter
LOCAL = "file,crypto,data"  # the protocols allowed: playlists may not name what lies in a network


def executable() -> str:
    """The path of ffmpeg: on the PATH, else the one that comes with imageio-ffmpeg.

    Raises:
        StylizeError: there is none.
    """
    if found := shutil.which("ffmpeg"):
        return found
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise StylizeError("ffmpeg is not installed; install it, or the Python package imageio-ffmpeg") from error


def _command() -> list[str]:
    return [executable(), "-hide_banner", "-nostdin", "-loglevel", "error"]


@contextlib.contextmanager
def ffmpeg_process(arguments: Sequence[str], output: int) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A running ffmpeg, and the file of its error messages; it is killed when the block ends.

    It has a process group of its own, so that Ctrl-C at the terminal reaches this program alone.
    """
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(  # noqa: S603
            [*_command(), *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=messages, process_group=0
        )
        try:
            yield process, messages
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def last_lines(messages: IO[bytes], count: int = 3) -> str:
    """The last lines of ffmpeg's messages, joined."""
    messages.seek(max(0, messages.seek(0, 2) - 4096))
    lines = [line.strip() for line in messages.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return "; ".join(lines[-count:])


def file_url(path: Path) -> str:
    """A path in a form that ffmpeg takes neither for an option nor for another protocol."""
    return f"file:{path.absolute()}"


def in_seconds(time: Fraction) -> str:
    return f"{float(time):.6f}"


def as_ratio(rate: Fraction) -> str:
    return f"{rate.numerator}/{rate.denominator}"
