"""What is to be done with a clip: where it is read, how large it is painted, and where the result goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylize import Picture, Settings, SettingsError
from stylize_video import image_sequence, steady
from stylize_video.areas import ClipAreas
from stylize_video.colors import is_hdr
from stylize_video.decode import Reading, decode
from stylize_video.probe import Clip
from stylize_video.steady import as_tensor
from stylize_video.styling import Styling

Array = NDArray[Any]

WEIGHT = 2.0  # default of the temporal weight
DEEP = {
    "draft": 16.0,
    "default": steady.DEEP,
    "best": 4.0,
}  # px into new ground from where on it begins with the photo alone
STEPS = {"draft": (4, 8), "default": (4, 12), "best": (14, 40)}  # fewest and most of a frame that follows another
DRAFT = 3  # of so many frames of a draft, one is painted
LOOK = 160  # px, longest side of the frames in which cuts are looked for


@dataclass(frozen=True)
class Task:
    """A stretch of a clip, from ``begin`` to ``end`` in seconds, to be painted at (``height``, ``width``) px.

    ``styles`` is their names, for the report; ``sheet`` is where the contact sheet of a preview goes, None where the
    whole clip is painted; ``options`` are those of the command line,
    ``areas`` what of the frames is painted, ``styling`` in which
    styles over time.
    """

    clip: Clip
    styles: str
    target: Path
    sheet: Path | None
    begin: Fraction | None
    end: Fraction | None
    height: int
    width: int
    settings: Settings
    options: Mapping[str, Any]
    areas: ClipAreas
    styling: Styling

    @property
    def every(self) -> int:
        """Of so many frames, one is painted, or more if the task is :attr:`paced`."""
        return self.options.get("every") or (DRAFT if self.paced else 1)

    @property
    def paced(self) -> bool:
        """Whether more frames are painted where much is new."""
        return self.effort == "draft" and not self.options.get("every")

    @property
    def steps(self) -> tuple[int, int]:
        """The fewest and the most steps of a frame that follows another."""
        fewest, most = STEPS[self.effort]
        if self.effort == "default" or "frame_steps" in self.options.get("given", {}):
            most = int(self.options.get("frame_steps", most))
        return fewest, most

    def steps_after(self, frames: int) -> tuple[int, int]:
        """The fewest and the most steps of a frame that is painted so many frames after another; of drafts half as many
        where none lies between."""
        fewest, most = self.steps
        return min(fewest, 2 * frames) if self.effort == "draft" else fewest, most

    @property
    def temporal_weight(self) -> float:
        return float(self.options.get("temporal_weight", WEIGHT))

    @property
    def deep(self) -> float:
        """How many px into new ground it begins with the photo alone: few steps cannot paint that over."""
        return DEEP[self.effort]

    @property
    def effort(self) -> str:
        """How much is done for a frame that follows another: a key of :data:`STEPS`."""
        return next((name for name in ("draft", "best") if self.options.get(name)), "default")

    @property
    def gives_frames(self) -> bool:
        """Whether the frames in the making are the result themselves, which has a colour profile."""
        is_png = image_sequence.file(self.target, 0).suffix.lower() == ".png"
        return is_png and image_sequence.is_sequence(self.target)

    @property
    def keeps_colors(self) -> bool:
        """Whether HDR stays HDR."""
        return is_hdr(self.clip) and self.options.get("hdr") == "keep"

    @property
    def bits(self) -> int:
        """Per channel, of frames in the making."""
        return 16 if self.clip.bits > 8 or self.more_bits else 8

    @property
    def more_bits(self) -> bool:
        """Whether the frames get more bits per channel than the clip has."""
        asked = self.options.get("bits") == 16 or self.target.suffix.lower() == image_sequence.EXR
        return asked and self.clip.bits <= 8

    def read(self) -> Iterator[Array]:
        """The frames, (H, W, 3 or 4) in uint8 or uint16, at the size they are painted at."""
        return decode(self.clip, self.height, self.width, start=self.begin, end=self.end, convert=not self.keeps_colors)

    def look(self) -> Reading:
        """The frames, small enough to look through the clip, and when they are shown."""
        factor = min(1.0, LOOK / max(self.height, self.width))
        height, width = max(2, round(self.height * factor)), max(2, round(self.width * factor))
        return Reading(self.clip, height, width, start=self.begin, end=self.end, timed=True)


def even_size(clip: Clip, settings: Settings) -> tuple[int, int]:
    """(height, width) to paint at, even, as most codecs ask for.

    Raises:
        SettingsError: the size is odd, and should be reached exactly.
    """
    longest = max(clip.height, clip.width)
    size = settings.size if settings.upscale else min(settings.size, longest)
    height, width = (max(2, round(side * size / longest) // 2 * 2) for side in (clip.height, clip.width))
    if settings.upscale and max(height, width) != settings.size:
        raise SettingsError(f"size is {settings.size}; for clips with --upscale it must be even")
    return height, width


def eight_bits(samples: Array) -> Array:
    """Samples in uint8 or uint16 as uint8."""
    return np.ascontiguousarray(samples if samples.dtype == np.uint8 else (samples // 257).astype(np.uint8))


def as_picture(samples: Array, name: str) -> Picture:
    """A frame (H, W, 3 or 4) in uint8 or uint16 as a picture."""
    unit = samples.astype(np.float32) / np.iinfo(samples.dtype).max
    alpha = as_tensor(unit[..., 3:]) if samples.shape[2] == 4 and bool((unit[..., 3] < 1).any()) else None
    return Picture(as_tensor(unit[..., :3]), alpha, name=name)
