"""Image sequences: a folder of frames, or a pattern such as frames/%05d.png (.jpg, .exr), counted from 1."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stylize import (
    ImageError,
    Picture,
    StylizeError,
    TargetError,
    atomic_write,
    check_distinct,
    is_file,
    is_folder,
    load,
)
from stylize.text import one_line
from stylize_video.ffmpeg import ffmpeg_process, file_url, last_lines

EXR = ".exr"
LOSSY = frozenset((".jpg", ".jpeg", ".webp"))
_PATTERN = re.compile(r"([^%]*)%0?\d{0,2}d([^%]*)\.(?i:png|jpe?g|webp|tiff?|exr)")


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
    return (
        bool(_PATTERN.fullmatch(target.name))
        or is_folder(target)
        or (not target.suffix and not os.path.lexists(target))
    )


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
        if is_folder(folder) and (is_file(source) or is_folder(source)) and source.resolve().parent.samefile(folder):
            for number in range(count):
                check_distinct(file(target, number), source)


def write(target: Path, frames: Sequence[Path], quality: int | None = None) -> None:
    """Write the frames, which are PNG files, as the target calls for; each is complete or missing. ``quality`` is that
    of JPEG and WebP. EXR holds linear light in half floats.

    Raises:
        ImageError: the folder cannot be made.
    """
    try:
        file(target, 0).parent.mkdir(exist_ok=True)
    except OSError as error:
        raise ImageError(f"cannot make the folder {target}: {error.strerror}") from error
    for number, frame in enumerate(frames):
        made = file(target, number)
        ending = made.suffix.lower()
        if ending == ".png":
            with atomic_write(made) as copy:
                shutil.copyfile(frame, copy)
        elif ending == EXR:
            _write_exr(made, load(frame))
        else:
            picture = load(frame)
            bits = 16 if ending.startswith(".tif") and _is_deep(frame) else 8
            picture = picture.opaque() if ending.startswith(".jp") else picture
            replace(picture, origin=None).save(made, bits=bits, **({} if quality is None else {"quality": quality}))


def _is_deep(frame: Path) -> bool:
    with frame.open("rb") as opened:
        return opened.read(25)[24] == 16  # of the header of a PNG


def _write_exr(path: Path, picture: Picture) -> None:
    """Write linear light, 1 being white, by ffmpeg.

    Raises:
        StylizeError: it has no encoder for EXR, or fails.
    """
    levels = picture.rgb[0].numpy()
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)[[1, 2, 0]]
    alpha = [] if picture.alpha is None else [picture.alpha[0].numpy()]
    planes = np.concatenate([light, *alpha]).astype("<f4")
    kind, (_, height, width) = "gbrapf32le" if alpha else "gbrpf32le", planes.shape
    with tempfile.TemporaryDirectory() as name, atomic_write(path) as made:
        raw = Path(name, "frame.raw")
        raw.write_bytes(planes.tobytes())
        given = ["-f", "rawvideo", "-pix_fmt", kind, "-s", f"{width}x{height}", "-i", file_url(raw)]
        wanted = ["-c:v", "exr", "-format", "half", "-frames:v", "1", "-f", "image2pipe", file_url(made)]
        with ffmpeg_process(["-y", *given, *wanted], subprocess.DEVNULL, encoder="exr") as (process, messages):
            code = process.wait()
            if code or not made.stat().st_size:
                raise StylizeError(one_line(f"cannot write {path}: {last_lines(messages)}"))
