"""Write the report of a finished clip: its frames are measured, and some shown."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylize import atomic_write
from stylize_video.measure import measure
from stylize_video.report import Row, page, picks

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]

LONGEST, QUALITY = 320, 80  # of the frames on the page: px, JPEG quality


def write(
    path: Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    *,
    painted: Sequence[Path],
    source: Callable[[], Iterator[Array]],
    begins: Sequence[int],
    moments: Sequence[Fraction],
    notes: Mapping[int, Mapping[str, float]],
    flow: Flow,
) -> None:
    """Write the page about a clip.

    Args:
        path: of the page.
        title, facts: see :func:`stylize_video.report.page`.
        painted: the frames, as PNG.
        source: returns an iterator over the frames they were painted from, of the same size; called twice.
        begins: the numbers of the frames that begin a shot.
        moments: when each frame is shown, in seconds.
        notes: steps, seconds and the style term's value of frames that were painted.
        flow: the engine of optical flow to measure with.
    """
    rows = []
    for found in measure(map(_read, painted), source(), flow, frozenset(begins)):
        told = notes.get(found.number, {})
        steps = told.get("steps")
        row = Row(
            number=found.number,
            time=float(moments[found.number]),
            shot=found.shot,
            steps=None if steps is None else int(steps),
            seconds=told.get("seconds"),
            warp=found.warp,
            source_warp=found.source_warp,
            style=told.get("style"),
            luminance=found.luminance,
            source_luminance=found.source_luminance or 0.0,
        )
        rows.append(row)
    wanted = frozenset(picks(rows))
    strip = [
        (number, _jpeg(frame), _jpeg(_read(painted[number])))
        for number, frame in enumerate(source())
        if number in wanted
    ]
    with atomic_write(path) as file:
        file.write_text(page(title, facts, rows, strip), encoding="utf-8")


def _read(path: Path) -> Array:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _jpeg(frame: Array) -> bytes:
    levels = frame[..., :3] if frame.dtype == np.uint8 else (frame[..., :3] // 257).astype(np.uint8)
    picture, made = Image.fromarray(np.ascontiguousarray(levels)), io.BytesIO()
    picture.thumbnail((LONGEST, LONGEST))
    picture.save(made, "JPEG", quality=QUALITY)
    return made.getvalue()
