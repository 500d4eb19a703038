"""Masks and regions of clips: pictures that hold for all frames, or clips with a mask for each frame."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylize import (
    Mask,
    Origin,
    Picture,
    Region,
    Settings,
    SettingsError,
    StylizeError,
    as_mask,
    chosen_areas,
    is_file,
    is_folder,
    mask_file,
    mask_of,
    resize,
)
from stylize.text import counted
from stylize_video.decode import InOrder, decode
from stylize_video.pictures import digest_of, frame_count, is_pattern, probe_animation, probe_files
from stylize_video.probe import HIDING, Clip, probe

Array = NDArray[Any]

LEAST = 0.02  # of a pixel that is painted: from less, what is painted cannot be told
ALIKE = 1 / 255  # by how much masks may differ that are the same
BLACK, WHITE = 8 / 255, 247 / 255  # what is darker and brighter is just that, in clips, most of which are noisy


@dataclass(frozen=True, eq=False)
class MaskClip(Mask):
    """A mask for each frame of a clip: those of ``clip`` from number ``first`` on. ``weights`` mean nothing."""

    clip: Clip | None = None
    first: int = 0


@dataclass(frozen=True, eq=False)
class FrameAreas:
    """What of a frame is painted, and which parts of it in styles of their own.

    ``weights`` (1, 1, H, W) is how much of each pixel is painted, None: all. ``parts`` (H, W) in uint8 is where each
    pixel belongs: 0 is not painted, 1 is in no region.
    """

    mask: Mask | None
    regions: tuple[Region, ...]
    weights: Tensor | None
    parts: Array

    def same_as(self, other: FrameAreas) -> bool:
        """Whether nothing has moved."""
        if not np.array_equal(self.parts, other.parts):
            return False
        if self.weights is None or other.weights is None:
            return self.weights is other.weights
        return bool((self.weights - other.weights).abs().max() <= ALIKE)

    def inside(self, content: Array, other: Array) -> Array:
        """A content (H, W, 3) where it is painted, and another one elsewhere."""
        return np.where((self.parts > 0)[..., None], content, other)

    def over(self, painted: Tensor, shown: Tensor) -> Tensor:
        """What is painted laid over what the source shows, both (1, 3, H, W)."""
        if self.weights is None:
            return painted
        return torch.where(self.weights > 0, torch.lerp(shown, painted, self.weights), shown)

    def unmixed(self, mixed: Tensor, content: Tensor) -> Tensor:
        """What was painted, where it lies over a content, both (1, 3, H, W)."""
        if self.weights is None:
            return mixed
        painted = content + (mixed - content) / self.weights.clamp_min(LEAST)
        return torch.where(self.weights >= LEAST, painted.clamp(0, 1), mixed)


class ClipAreas:
    """What ``--mask``, ``--keep`` and ``--region`` say of a clip.

    Args:
        options: of the command line.
        settings: those of the run.
        clip: what is painted.
        first, stop: the numbers of its frames that are.

    Attributes:
        mask, regions: for the record; those of clips tell nothing but their files.
        files: all that are read.

    Raises:
        SettingsError: they do not fit together, or a mask clip has another number of frames than the clip.
        StylizeError: a file that cannot be read.
    """

    def __init__(
        self, options: Mapping[str, Any], settings: Settings, clip: Clip, first: int = 0, stop: int | None = None
    ) -> None:
        self._clip, self._first, self._stop = clip, first, stop
        self._readers: dict[Path, tuple[Clip, InOrder]] = {}
        areas = chosen_areas(options, settings, self._read)
        areas.check_proportions(clip.height, clip.width)
        self.mask, self.regions, self.files = areas.mask, areas.regions, areas.files
        self._known: dict[tuple[int, int], FrameAreas] = {}

    @property
    def _moves(self) -> bool:
        return any(isinstance(each, MaskClip) for each in (self.mask, *(region.mask for region in self.regions)))

    def at(self, number: int, height: int, width: int) -> FrameAreas | None:
        """Those of the frame ``number``, counted from the first that is painted; None if there are none.

        Raises:
            StylizeError: a mask clip has no such frame.
        """
        if self.mask is None and not self.regions:
            return None
        if not self._moves:
            if (height, width) not in self._known:
                self._known[height, width] = _made(self.mask, self.regions, height, width)
            return self._known[height, width]
        regions = []
        for region in self.regions:
            made = copy.copy(region)
            made.mask = self._frame(region.mask, number, height, width)
            regions.append(made)
        mask = None if self.mask is None else self._frame(self.mask, number, height, width)
        return _made(mask, tuple(regions), height, width)

    def _frame(self, mask: Mask, number: int, height: int, width: int) -> Mask:
        if not isinstance(mask, MaskClip):
            return mask
        assert mask.clip is not None
        index = 0 if mask.clip.frames == 1 else mask.first + number
        _, reader = self._readers[mask.clip.path]
        samples = reader.at(index)
        if samples is None:
            raise StylizeError(f"the mask {mask.clip.path} ends after {counted(reader.count, 'frame')}")
        most = np.iinfo(samples.dtype).max
        unit = torch.from_numpy(samples.astype(np.float32) / most).permute(2, 0, 1)[None].contiguous()
        made = mask_of(Picture(unit[:, :3], unit[:, 3:] if unit.shape[1] == 4 else None), mask.color)
        weights = made.weights
        if not mask.clip.pictures and not mask.color:
            weights = ((weights - BLACK) / (WHITE - BLACK)).clamp(0, 1)
        made = Mask(resize(weights, height, width), mask.origin, mask.color)
        return made.inverse() if mask.inverted else made

    def _read(self, text: str) -> Mask:
        """The mask that a text names: a picture, or a clip."""
        path, color = mask_file(text)
        if path not in self._readers:
            clip = _as_clip(path)
            if clip is None:
                return as_mask(text)
            self._readers[path] = clip, InOrder(partial(decode, clip, clip.height, clip.width))
        clip, _ = self._readers[path]
        nothing = torch.zeros(1, dtype=torch.float32).expand(1, 1, clip.height, clip.width)
        return MaskClip(nothing, Origin(path, digest_of(clip)), color, clip=clip, first=self._offset(clip))

    def _offset(self, mask: Clip) -> int:
        """The number of the frame of a mask clip that belongs to the first frame that is painted.

        Raises:
            SettingsError: it has as many frames neither as the clip nor as the part that is painted.
        """
        count, whole = _count(mask), _count(self._clip)
        part = (whole if self._stop is None else self._stop) - self._first
        if count in (1, whole):
            return self._first
        if count == part:
            return 0
        has, needs = counted(count, "frame"), counted(whole, "frame")
        asked = f", of which {part} are painted" if part != whole else ""
        both = f"the mask {mask.path} has {has}, and {self._clip.path} {needs}{asked}"
        raise SettingsError(f"{both}; it must have as many, or be a picture")


def _made(mask: Mask | None, regions: Iterable[Region], height: int, width: int) -> FrameAreas:
    regions = tuple(regions)
    parts = np.ones((height, width), np.uint8)
    for number, region in enumerate(regions, 2):
        parts[resize(region.mask.weights, height, width)[0, 0].numpy() > 0.5] = number
    weights = None if mask is None else mask.at(height, width)
    if weights is not None:
        parts[weights[0, 0].numpy() < LEAST] = 0
    return FrameAreas(mask, regions, weights, parts)


def _as_clip(path: Path) -> Clip | None:
    """The clip that a file, a folder or a pattern of pictures is; None if it is a picture, or nothing known."""
    if is_folder(path) or is_pattern(path):
        return probe_files(path)
    frames = frame_count(path)
    if frames == 1 or not is_file(path):
        return None
    if frames > 1 and path.suffix.lower() != ".gif":
        return probe_animation(path)
    try:
        clip = probe(path)
    except StylizeError:
        return None
    return clip


def _count(clip: Clip) -> int:
    """How many frames a clip has: where packets hide some, they are decoded."""
    if clip.frames is None or clip.codec in HIDING:
        return sum(1 for _ in decode(clip, 16, 16))
    return clip.frames
