"""Masks: where a picture is painted, and how much of it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ImageColor
from torch import Tensor

from stylize.errors import SettingsError
from stylize.images import Origin, Picture, Source, as_picture, resize

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LEVELS = 65535  # of a mask: black and white stay exactly that
SAME, OTHER = 16 / 255, 40 / 255  # differences of a channel up to which a colour is the one, and from which another
PROPORTIONS = 0.02  # by how much those of a mask may differ from the picture's
_COLOR_LAST = re.compile(r"(.+)=(#[0-9a-f]{3}|#[0-9a-f]{6})", re.IGNORECASE | re.DOTALL)
_COLOR_FIRST = re.compile(r"(#[0-9a-f]{3}|#[0-9a-f]{6}|[a-z]+) of (.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, eq=False)
class Mask:
    """How much of each pixel counts: ``weights`` (1, 1, H, W) in [0, 1].

    ``origin`` is the file it was read from, ``color`` the colour ("#ff0000") of the map there that it is, if it is not
    the brightness; ``inverted`` says that black counts.
    """

    weights: Tensor
    origin: Origin | None = None
    color: str = ""
    inverted: bool = False

    def inverse(self) -> Mask:
        """What this one leaves out."""
        return dataclasses.replace(self, weights=1 - self.weights, inverted=not self.inverted)

    def at(self, height: int, width: int) -> Tensor:
        """How much of each pixel of a picture of that size is painted, (1, 1, height, width): softened inward, so that
        what is black stays exactly that."""
        return softened(resize(self.weights, height, width), inward=True)

    def over(self, content: Tensor, painted: Tensor) -> Tensor:
        """What is painted laid over the content, both (1, C, H, W), of any size and of the content's: where the mask is
        black, these are the content's own pixels."""
        size = (content.shape[2], content.shape[3])
        return laid_over(content, resize(painted, *size), self.at(*size))

    def check_proportions(self, height: int, width: int) -> None:
        """Refuse a picture of that size if it is shaped otherwise.

        Raises:
            SettingsError: names the mask's file and both sizes.
        """
        rows, columns = self.weights.shape[2:]
        allowed = PROPORTIONS + 1 / min(height, width) + 1 / min(rows, columns)
        if abs(columns * height / (rows * width) - 1) > allowed:
            named = "a mask" if self.origin is None else f"the mask {self.origin.path}"
            shapes = f"{named} is {columns}x{rows}, and the picture {width}x{height}"
            raise SettingsError(f"{shapes}; the proportions must be the same")

    def described(self) -> dict[str, Any]:
        """What a record says of it: the file and its SHA-256, or that of its weights."""
        if self.origin is None:
            levels = (self.weights * LEVELS).round().to(torch.int32).numpy().astype("<u2")
            found: dict[str, Any] = {"sha256": hashlib.sha256(levels.tobytes()).hexdigest()}
        else:
            found = dict(self.origin.described())
        found |= {"color": self.color} if self.color else {}
        return found | ({"inverted": True} if self.inverted else {})


MaskSource = Mask | Source  # what can be given as a mask; see as_mask()


def as_mask(source: MaskSource) -> Mask:
    """A mask from whatever holds one.

    Args:
        source: a mask; the text ``"map.png=#ff0000"`` or ``"#ff0000 of map.png"``, for one colour of a map; or a
            picture as :func:`~stylize.as_picture` takes it, and arrays or tensors (H, W) of booleans, too. White
            counts, grey in part, black and what is transparent not.

    Raises:
        SettingsError: it is none of these.
        ImageError: a file that cannot be read.
    """
    if isinstance(source, Mask):
        return source
    if isinstance(source, str):
        path, color = mask_file(source)
        return mask_of(as_picture(path), color)
    return mask_of(as_picture(_with_levels(source)))


def mask_of(picture: Picture, color: str = "") -> Mask:
    """The mask that a picture is: its brightness, or where it has a colour, "#rrggbb"."""
    return Mask(_nearness(picture, color) if color else _brightness(picture), picture.origin, color)


def mask_file(text: str) -> tuple[Path, str]:
    """The file that a text names as a mask, and the colour of it, "#rrggbb", or nothing.

    Raises:
        SettingsError: it names a colour that there is not.
    """
    path, color = (text, "") if os.path.lexists(text) else parsed(text)
    return Path(path), color


def parsed(text: str) -> tuple[str, str]:
    """The path and the colour, "#rrggbb" or nothing, that a text names.

    Raises:
        SettingsError: it names a colour that there is not.
    """
    if found := _COLOR_LAST.fullmatch(text):
        path, color = found.groups()
    elif found := _COLOR_FIRST.fullmatch(text):
        color, path = found.groups()
    else:
        return text, ""
    try:
        red, green, blue = ImageColor.getrgb(color)[:3]
    except ValueError as error:
        raise SettingsError(f"{text!r}: {color!r} is no colour; write it as #ff0000 or red") from error
    return path, f"#{red:02x}{green:02x}{blue:02x}"


def _with_levels(source: Source) -> Source:
    """A mask of booleans, or a tensor (H, W), as a picture would be given."""
    if isinstance(source, np.ndarray) and source.dtype == bool:
        return cast(Source, source.astype(np.uint8) * np.uint8(255))
    if isinstance(source, Tensor):
        source = source.to(torch.uint8) * 255 if source.dtype == torch.bool else source
        return source[None] if source.dim() == 2 else source
    return source


def _brightness(picture: Picture) -> Tensor:
    red, green, blue = (picture.rgb[:, index : index + 1].double() for index in range(3))
    return _seen(picture, LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)


def _nearness(picture: Picture, color: str) -> Tensor:
    wanted = torch.tensor(ImageColor.getrgb(color)[:3], dtype=torch.float64).view(1, 3, 1, 1) / 255
    apart = (picture.rgb.double() - wanted).abs().amax(1, keepdim=True)
    return _seen(picture, ((OTHER - apart) / (OTHER - SAME)).clamp(0, 1))


def _seen(picture: Picture, weights: Tensor) -> Tensor:
    if picture.alpha is not None:
        weights = weights * picture.alpha
    return ((weights * LEVELS).round() / LEVELS).float()


def laid_over(content: Tensor, painted: Tensor, weights: Tensor) -> Tensor:
    """What is painted over the content, mixed by weights (1, 1, H, W); where they are 0, exactly the content."""
    return torch.where(weights > 0, torch.lerp(content, painted, weights), content)


def softened(weights: Tensor, *, inward: bool = False) -> Tensor:
    """Weights (1, 1, H, W) blurred over two pixels to either side of an edge; ``inward``: no pixel gets more than it
    had, so that what is left out stays exactly that."""
    soft = weights
    for _ in range(2):
        soft = F.avg_pool2d(F.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return torch.minimum(weights, soft) if inward else soft
