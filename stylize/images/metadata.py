"""What picture files hold beside pixels: EXIF (orientation, the camera's tags) and ICC colour profiles."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from torch import Tensor

from stylize.text import one_line

ORIENTATIONS: dict[Any, Callable[[Tensor], Tensor]] = {  # EXIF tag 274 -> the function that turns (H, W, C) upright
    1: lambda pixels: pixels,
    2: lambda pixels: pixels.flip(1),
    3: lambda pixels: pixels.flip(0, 1),
    4: lambda pixels: pixels.flip(0),
    5: lambda pixels: pixels.transpose(0, 1),
    6: lambda pixels: pixels.transpose(0, 1).flip(1),
    7: lambda pixels: pixels.transpose(0, 1).flip(0, 1),
    8: lambda pixels: pixels.transpose(0, 1).flip(0),
}


def read_exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except Exception:  # a corrupt EXIF block is no reason to refuse the picture
        return Image.Exif()


def color_space(mode: str) -> str:
    """The colour space of a Pillow mode as ICC profiles spell it."""
    if mode in ("CMYK", "LAB"):
        return mode
    return "GRAY" if mode in ("1", "L", "LA", "La", "F") or mode.startswith("I") else "RGB"


def foreign_profile(data: bytes, mode: str, notes: list[str]) -> ImageCms.ImageCmsProfile | None:
    """The ICC profile of pixels of a mode, or None where there is none to convert from: absent, unusable (noted) or
    sRGB."""
    channels = color_space(mode)
    if not data or channels == "LAB":
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        if space != channels and (space, channels) != ("RGB", "GRAY"):
            raise ValueError(f"it is for {space} pixels")
        return None if _looks_like_srgb(profile, space) else profile
    except Exception as error:  # a broken profile is no reason to refuse the picture
        notes.append(one_line(f"colour profile ignored: {error}"))
        return None


def _looks_like_srgb(profile: ImageCms.ImageCmsProfile, space: str) -> bool:
    """Whether a lattice of colours comes through unchanged. Profile names are unreliable, and converting would cost
    the 16 bits."""
    if space == "CMYK":
        return False
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    lattice = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(81, 9, 3))
    if space == "GRAY":
        lattice = lattice.getchannel("R")
    converted = ImageCms.profileToProfile(lattice, profile, srgb(), outputMode="RGB")
    difference = np.asarray(converted).astype(np.int16) - np.asarray(lattice.convert("RGB"))
    return bool(np.abs(difference).max() <= 2)


@functools.cache
def srgb_profile() -> bytes:
    """The sRGB ICC profile to embed, with a fixed date in its header, so that equal pictures make equal files."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


def srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
