"""Frames as pictures of their own: a folder of them, or a pattern such as frames/%05d.png, counted from 1."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from stylize import ImageError, atomic_write

_PATTERN = re.compile(r"[^%]*%(0?\d*)d[^%]*\.png", re.IGNORECASE)


def is_one(target: Path) -> bool:
    """Whether a target names a sequence: a pattern, or a folder that is there or has a name without ending."""
    return bool(_PATTERN.fullmatch(target.name)) or target.is_dir() or (not target.suffix and not target.exists())


def file(target: Path, number: int) -> Path:
    """Where frame ``number``, counted from 0, goes."""
    if _PATTERN.fullmatch(target.name):
        return target.with_name(target.name % (number + 1))
    return target / f"{number + 1:06}.png"


def write(target: Path, frames: Sequence[Path]) -> None:
    """Copies of the frames, each whole or not there.

    Raises:
        ImageError: the folder cannot be made.
    """
    try:
        file(target, 0).parent.mkdir(exist_ok=True)
    except OSError as error:
        raise ImageError(f"cannot make the folder {target}: {error.strerror}") from error
    for number, frame in enumerate(frames):
        with atomic_write(file(target, number)) as copy:
            shutil.copyfile(frame, copy)
