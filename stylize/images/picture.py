"""The picture in memory, and its geometry: size, resizing, and the filling of transparent pixels."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from stylize.stores import StorePath

if TYPE_CHECKING:
    from PIL import Image

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
}  # the formats pictures are saved in, by extension
SPARE = 4  # a picture is read at up to this many times the painted size, so that all scales come from fine detail


@dataclass(frozen=True)
class Origin:
    """The file a picture was read from, and the SHA-256 of its bytes in hex; in a store also its version there."""

    path: Path
    sha256: str
    version: str = ""

    def described(self) -> dict[str, str]:
        """What a record says of it, with an absolute path."""
        path = str(self.path) if isinstance(self.path, StorePath) else os.path.abspath(self.path)  # noqa: PTH100
        return {"path": path, "sha256": self.sha256} | ({"version": self.version} if self.version else {})


@dataclass(frozen=True)
class About:
    """What a photographer put into a file beside EXIF, for the files made from it.

    ``xmp`` is a packet, ``iptc`` the records of IPTC, ``dpi`` the resolution across and down, ``bits`` those per
    channel that the file had.
    """

    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    bits: int = 8


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """A picture in memory: ``rgb`` (1, 3, H, W) float32 sRGB in [0, 1] and what came with it.

    Notebooks show it; ``numpy.asarray(picture)`` is ``picture.numpy()``.

    ``alpha`` is (1, 1, H, W) in [0, 1], or None when every pixel is opaque. ``exif`` is the camera's, with the
    orientation already applied to the pixels and set to 1. ``notes`` say in a few words what reading dropped.
    ``name`` is the stem of the file. ``record`` says how the picture was made, in JSON values, and is embedded when it
    is saved; :func:`load` does not read it, so that pictures made from this one do not inherit it.
    ``origin`` is the file it was read from, if any, and ``about`` what it held beside the pixels and EXIF. ``profile``
    is an ICC profile where the colours are not sRGB but those of the photo's own, which :func:`load` keeps on request.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()
    name: str = ""
    record: Mapping[str, Any] | None = None
    origin: Origin | None = None
    about: About = About()
    profile: bytes = b""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rgb.shape[-2], self.rgb.shape[-1]

    def opaque(self) -> Picture:
        """The same picture without alpha, its transparent pixels painted over by :func:`fill_transparent`."""
        if self.alpha is None:
            return self
        return dataclasses.replace(self, rgb=fill_transparent(self.rgb, self.alpha), alpha=None)

    def in_profile(self, profile: bytes = b"") -> Picture:
        """The same picture in the colours of an ICC profile, without one in sRGB; computed with 8 bits."""
        from stylize.images.profiles import in_profile  # which imports this module

        return in_profile(self, profile)

    def save(self, target: str | Path | IO[bytes], **options: Any) -> None:
        """Write it to a path, or into a file object; the options are those of :func:`save`."""
        from stylize.images.write import save  # which imports this module

        save(self, target, **options)

    def numpy(self, dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """A new array (H, W, 3), or (H, W, 4) with alpha, of sRGB, or of the colours of its ``profile``: integers over
        their whole range, rounded to nearest, or floats in [0, 1].

        Raises:
            ImageError: the picture holds NaN or infinity.
            SettingsError: not a type of unsigned integers or floats.
        """
        from stylize.images.exchange import to_numpy  # which imports this module

        return to_numpy(self, np.dtype(dtype))

    def pil(self) -> Image.Image:
        """A Pillow image of mode RGB, or RGBA with alpha, with 8 bits per channel, its colour profile and the EXIF.

        Raises:
            ImageError: the picture holds NaN or infinity.
        """
        from stylize.images.exchange import to_pillow  # which imports this module

        return to_pillow(self)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("the array of a picture is always a copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def _repr_png_(self) -> bytes:
        from stylize.images.exchange import preview  # which imports this module

        return preview(self)

    def __repr__(self) -> str:
        height, width = self.size
        parts = [f"{width}x{height}", "with alpha" if self.alpha is not None else "", repr(self.name)]
        return f"<Picture {' '.join(filter(None, parts))}>"


def fit(height: int, width: int, longest: int, upscale: bool = False) -> tuple[int, int]:
    """(height, width) in proportion, with the longest side ``longest`` px, or its own where that is smaller.

    Rounded to nearest, at least 1; ``upscale`` lets the result be larger than the picture.
    """
    side = max(height, width)
    longest = longest if upscale else min(longest, side)
    return max(1, (2 * height * longest + side) // (2 * side)), max(1, (2 * width * longest + side) // (2 * side))


def resize(image: Tensor, height: int, width: int, *, clamp: bool = True) -> Tensor:
    """(1, C, H, W) -> (1, C, height, width), antialiased bicubic; the very same tensor when the size is the same.

    Bicubic overshoots at edges; ``clamp`` brings the result back to [0, 1].
    """
    if image.shape[-2:] == (height, width):
        return image
    try:
        resized = F.interpolate(image, (height, width), mode="bicubic", align_corners=False, antialias=True)
    except RuntimeError as error:
        # MPS before torch 2.8; on CUDA the filter of a large reduction does not fit the shared memory of a block
        if image.device.type == "cpu" or isinstance(error, torch.OutOfMemoryError):
            raise
        return resize(image.cpu(), height, width, clamp=clamp).to(image.device)
    return resized.clamp(0, 1) if clamp else resized


def fill_transparent(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Replace the colour of pixels with alpha 0 by a smooth continuation of the visible ones around them.

    (1, 3, H, W) and (1, 1, H, W) -> (1, 3, H, W). Colours hidden under alpha 0 have no influence; pixels with any
    alpha keep theirs exactly. Push-pull: averages weighted by alpha on ever coarser grids (pull), then the holes of
    each grid are filled from the next coarser one (push). Mid grey where nothing is visible at all.
    """
    visible = alpha > 0
    levels = [(torch.where(visible, rgb * alpha, 0.0), torch.where(visible, alpha, 0.0))]
    while max(levels[-1][1].shape[-2:]) > 1:
        height, width = levels[-1][1].shape[-2:]
        window = (min(2, height), min(2, width))
        colour, weight = (F.avg_pool2d(grid, window, ceil_mode=True) for grid in levels[-1])
        levels.append((colour, weight))
    colour, weight = levels.pop()
    filled = torch.where(weight > 0, colour / weight, 0.5)
    while levels:
        colour, weight = levels.pop()  # colour is premultiplied: this is weight * colour + (1 - weight) * filled
        coarse = F.interpolate(filled, weight.shape[-2:], mode="bilinear", align_corners=False)
        filled = colour + (1 - weight) * coarse
    return torch.where(visible, rgb, filled.clamp(0, 1))
