"""The EXIF of an image that Pillow has opened, and what its orientation means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor

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
