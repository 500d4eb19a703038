"""Clips whose frames are pictures: numbered files, the pictures of a folder, or an animated WebP, PNG or GIF."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from stylize import Picture, StylizeError, digest, is_file, is_folder, load
from stylize.text import one_line
from stylize_video.probe import Clip
from stylize_video.timing import frame_rate

Array = NDArray[Any]

log = logging.getLogger("stylize.video")

RATE = Fraction(25)
SHOWN = 100  # ms: how long browsers show a frame that claims to last no time
LIGHT = frozenset((".exr", ".hdr"))  # endings of pictures of linear light, which Pillow does not know
FILES, ANIMATION = "pictures", "animation"  # names in place of a codec's

_PATTERN = re.compile(r"([^%]*)%0?(\d{0,2})d([^%]*)")
_NTSC = {Fraction(str(value)): Fraction(round(value) * 1000, 1001) for value in (23.976, 29.97, 47.952, 59.94, 119.88)}


def rate_of(text: str) -> Fraction:
    """Frames per second from 24, 23.976 or 24000/1001.

    Raises:
        ValueError: it is none of these.
    """
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(text) from error
    if not 0 < rate <= 1000:
        raise ValueError(text)
    return _NTSC.get(rate, rate)


def is_pattern(source: Path) -> bool:
    """Whether a path names numbered files, as seq/%04d.png does, and is not itself a file."""
    return _PATTERN.fullmatch(source.name) is not None and not is_file(source)


def files(source: Path) -> list[Path]:
    """The pictures of a folder or a pattern, by their numbers; gaps do not matter.

    Raises:
        StylizeError: the folder cannot be read.
    """
    if is_folder(source):
        known = {*Image.registered_extensions(), *LIGHT}
        return sorted((path for path in _entries(source) if _is_picture(path, known)), key=_by_number)
    found = _PATTERN.fullmatch(source.name)
    if found is None or not is_folder(source.parent):
        return []
    before, width, after = found.groups()
    digits = rf"\d{{{int(width)},}}" if width else r"\d+"
    numbered = re.compile(rf"{re.escape(before)}({digits}){re.escape(after)}")
    matches = [(int(match[1]), path) for path in _entries(source.parent) if (match := numbered.fullmatch(path.name))]
    return [path for _, path in sorted(matches)]


def _entries(folder: Path) -> list[Path]:
    try:
        return [*folder.iterdir()]
    except OSError as error:
        raise StylizeError(f"cannot read the folder {folder}: {error.strerror or error}") from error


def _is_picture(path: Path, known: set[str]) -> bool:
    return path.suffix.lower() in known and not path.name.startswith(".") and is_file(path)


def _by_number(path: Path) -> list[tuple[int, str]]:
    """A key by which 2.png comes before 10.png."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def frame_count(path: Path) -> int:
    """How many frames a picture has; 0 if Pillow does not know the file."""
    try:
        with Image.open(path) as image:
            return int(getattr(image, "n_frames", 1))
    except Exception:  # decoders raise nearly anything on damaged files
        return 0


def probe_files(source: Path, rate: Fraction = RATE) -> Clip:
    """The clip that numbered files, or those of a folder, make at ``rate`` frames per second.

    Raises:
        StylizeError: there are none, or one cannot be read.
    """
    paths = files(source)
    if not paths:
        raise StylizeError(f"{source}: there are no such pictures")
    first = load(paths[0])
    height, width = first.size
    deep, transparent, sizes = first.about.bits > 8, first.alpha is not None, set()
    for note in first.notes:
        log.info("%s: %s", paths[0], note)
    for path in paths:
        if path.suffix.lower() in LIGHT:  # others of their kind are as the first is, which shows when they are read
            deep = True
            continue
        try:
            with Image.open(path) as image:
                deep |= "16" in str([tile.args for tile in image.tile]) or image.mode.startswith("I")
                transparent |= image.has_transparency_data
                sizes.add(tuple(sorted(image.size)))
        except Exception as error:  # decoders raise nearly anything on damaged files
            raise StylizeError(one_line(f"cannot read {path}: {error}")) from error
    if len(sizes) > 1:
        raise StylizeError(f"{source}: the pictures have different sizes: {sorted(sizes)}")
    return Clip(
        source,
        width,
        height,
        rate,
        frames=len(paths),
        duration=len(paths) / rate,
        pixel_format="rgb48le" if deep else "rgb24",
        bits=16 if deep else 8,
        alpha=transparent,
        codec=FILES,
        pictures=tuple(paths),
    )


def probe_animation(path: Path) -> Clip:
    """The clip that an animated picture is.

    Raises:
        StylizeError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            lengths, transparent = list[int](), False
            for frame in ImageSequence.Iterator(image):
                alpha = frame.convert("RGBA").getchannel("A")  # only decoded does WebP tell its length
                lengths.append(round(frame.info.get("duration", 0)) or SHOWN)
                transparent |= alpha.getextrema()[0] < 255  # type: ignore[operator]
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise StylizeError(one_line(f"cannot read {path}: {error}")) from error
    edges = [Fraction(edge, 1000) for edge in accumulate(lengths, initial=0)]
    rate, steady = frame_rate(edges[:-1], Fraction(1, 1000), [Fraction(1000, lengths[0])])
    return Clip(
        path,
        width,
        height,
        rate,
        times=None if steady else tuple(edges[:-1]),
        frames=len(lengths),
        duration=edges[-1],
        pixel_format="rgb24",
        alpha=transparent,
        codec=ANIMATION,
        tick=Fraction(1, 1000),
        pictures=(path,),
    )


def read(clip: Clip, height: int, width: int, first: int, stop: int | None) -> Iterator[Array]:
    """The frames from ``first`` to before ``stop``, (height, width, 3 or 4) in uint8 or uint16.

    Raises:
        StylizeError: one cannot be read.
    """
    most = 65535 if clip.bits > 8 else 255
    for picture in _animated(clip, first, stop) if clip.codec == ANIMATION else _from_files(clip, first, stop):
        unit = picture.rgb[0].permute(1, 2, 0).numpy()
        if clip.alpha:
            given = picture.alpha
            alpha = np.ones_like(unit[..., :1]) if given is None else given[0].permute(1, 2, 0).numpy()
            unit = np.concatenate([unit, alpha], 2)
        if unit.shape[:2] != (height, width):
            unit = cv2.resize(unit, (width, height), interpolation=cv2.INTER_AREA)
        yield (unit.clip(0, 1) * most).round().astype(np.uint16 if clip.bits > 8 else np.uint8)


def _from_files(clip: Clip, first: int, stop: int | None) -> Iterator[Picture]:
    for path in clip.pictures[first:stop]:
        picture = load(path)
        if picture.size != (clip.height, clip.width):
            height, width = picture.size
            raise StylizeError(f"{path} is {width}x{height}, and the first of them {clip.width}x{clip.height}")
        yield picture


def _animated(clip: Clip, first: int, stop: int | None) -> Iterator[Picture]:
    with Image.open(clip.path) as image:
        for number in range(first, (clip.frames or 0) if stop is None else stop):
            image.seek(number)
            levels = np.asarray(image.convert("RGBA"), np.float32) / 255
            yield Picture(_planes(levels[..., :3]), _planes(levels[..., 3:]))


def _planes(samples: Array) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(samples)).permute(2, 0, 1)[None]


def digest_of(clip: Clip) -> str:
    """What tells the clip's content from that of others."""
    if clip.codec != FILES:
        return digest(clip.path)
    return digest_of_files(clip.pictures)


def digest_of_files(paths: Sequence[Path]) -> str:
    """The same for many files, by their names, sizes and times."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return sha256(repr(stats).encode()).hexdigest()
