"""Image sequences: a folder of frames, or a pattern such as frames/%05d.png, counted from 1."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from stylize import ImageError, TargetError, atomic_write, check_distinct

_PATTERN = re.compile(r"([^%]*)%0?\d{0,2}d([^%]*)\.(?i:png)")


def named(target: Path) -> Path:
    """The target as a path with a name, from which other names can be made: ``.`` is resolved.

    Raises:
        TargetError: it is the root of the file system.
    """
    target = target if target.name not in ("", "..") else target.resolve()
    if not target.name:
        raise TargetError(f"cannot write {target}: give the path of a file, or of a folder that has a name")
    return target


def is_sequence(target: Path) -> bool:
    """Whether a target is a sequence: a pattern, an existing folder, or a new path without extension."""
    return bool(_PATTERN.fullmatch(target.name)) or target.is_dir() or (not target.suffix and not target.exists())


def file(target: Path, number: int) -> Path:
    """The file of frame ``number``, counted from 0."""
    if _PATTERN.fullmatch(target.name):
        return target.with_name(target.name % (number + 1))
    return target / f"{number + 1:06}.png"


def base_name(target: Path) -> str:
    """The name of a sequence without its numbers."""
    found = _PATTERN.fullmatch(target.name)
    return (found[1] + found[2]).strip("-_. ") if found else target.stem


def check(target: Path, count: int, sources: Sequence[Path]) -> None:
    """Make sure that no frame is written over a source.

    Raises:
        TargetError: one would be; the message names it.
    """
    folder = file(target, 0).parent
    for source in sources:  # few of which lie there
        if source.exists() and folder.is_dir() and source.resolve().parent.samefile(folder):
            for number in range(count):
                check_distinct(file(target, number), source)


def write(target: Path, frames: Sequence[Path]) -> None:
    """Copy the frames; each is complete or missing.

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
