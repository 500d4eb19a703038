"""What clips need of a machine: packages, and an ffmpeg with the usual encoder."""

from __future__ import annotations

from collections.abc import Iterator

from stylize import Check, StylizeError, module_checks, package_check
from stylize_video import ffmpeg

ENCODER = "libx264"  # of the default codec


def checks() -> Iterator[Check]:
    """The lines of ``stylize doctor`` about clips."""
    yield package_check("ffmpeg-python")
    yield package_check("av")
    yield package_check("scenedetect-headless", "scenedetect")
    yield from module_checks("ffmpeg", "av", "scenedetect", purpose="clips")
    yield _ffmpeg()


def _ffmpeg() -> Check:
    try:
        path, unusable = ffmpeg.choice(ENCODER)
    except StylizeError as error:
        return Check("note", "ffmpeg", str(error), "clips need it")
    return Check("ok", "ffmpeg", path + (f" ({'; '.join(unusable)})" if unusable else ""))
