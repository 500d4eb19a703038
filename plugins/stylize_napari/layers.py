"""Layers and pictures: arrays of any kind <-> :class:`stylize.Picture`, masks, and where a result lies. No napari."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stylize import ImageError, Picture, load

Array = NDArray[Any]
Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Slices:
    """What an image layer holds: ``data`` (..., H, W), or (..., H, W, 3 or 4) where ``rgb``, of any number type.

    ``data`` need only have a shape, a dtype and indices: slices of lazy stacks are read as they are asked for. Grey
    is taken as it is seen: black at ``limits[0]``, white at ``limits[1]``. Colours are taken over the whole range of
    integers, or in [0, 1]. ``path`` is the file the layer was read from, if any.
    """

    name: str
    data: Any
    rgb: bool
    limits: tuple[float, float] = (0.0, 1.0)
    path: Path | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.data.shape[-3:-1] if self.rgb else self.data.shape[-2:]
        return int(height), int(width)

    @property
    def lead(self) -> Index:
        """The shape of the axes before height and width: () of a single picture."""
        return tuple(map(int, self.data.shape[: -3 if self.rgb else -2]))

    @property
    def channels(self) -> int:
        """4 with alpha, otherwise 3."""
        return int(self.data.shape[-1]) if self.rgb else 3

    def at(self, *index: int) -> Slices:
        """One slice as a stack of one, which keeps its number of axes."""
        return dataclasses.replace(self, data=self.data[tuple(slice(i, i + 1) for i in index)])

    def picture(self, index: Index = ()) -> Picture:
        """One slice as a picture, whose origin is the file if the pixels are the very ones in it."""
        limits = span(self.data.dtype) if self.rgb else self.limits
        made = as_picture(np.asarray(self.data[index]), limits, self.name)
        if self.path is None or self.lead:
            return made
        try:
            found = load(self.path)
        except ImageError:
            return made
        return dataclasses.replace(made, origin=found.origin) if _same(made, found) else made

    def described(self) -> dict[str, Any]:
        """For the record: the layer's name, its shape and type, and the SHA-256 of its numbers, in hex."""
        digest = hashlib.sha256()
        for index in np.ndindex(self.lead):
            digest.update(np.ascontiguousarray(self.data[index]).tobytes())
        shape = list(map(int, self.data.shape))
        return {"layer": self.name, "shape": shape, "dtype": str(self.data.dtype), "sha256": digest.hexdigest()}


def span(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Black and white of colours of this type."""
    return (0.0, float(np.iinfo(dtype).max)) if np.issubdtype(dtype, np.integer) else (0.0, 1.0)


def as_picture(array: Array, limits: tuple[float, float], name: str = "") -> Picture:
    """(H, W), (H, W, 3) or (H, W, 4) -> a picture; ``limits`` become 0 and 1, what lies beyond is cut off, NaN is 0."""
    low, high = limits
    exact = np.dtype(np.float32 if array.dtype.itemsize <= 2 else np.float64)
    unit: Array = (array.astype(exact) - low) / ((high - low) or 1.0)
    unit = np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1).astype(np.float32)
    if unit.ndim == 2:
        unit = np.repeat(unit[..., None], 3, axis=2)
    made = torch.from_numpy(unit).permute(2, 0, 1)[None].contiguous()  # (1, 3 or 4, H, W)
    alpha = made[:, 3:].contiguous() if bool((made[:, 3:] < 1).any()) else None
    return Picture(made[:, :3].contiguous(), alpha, name=name)


def as_array(picture: Picture, dtype: np.dtype[Any]) -> Array:
    """A picture -> (H, W, 3), or (H, W, 4) with alpha; integers over their whole range, rounded to nearest."""
    channels = picture.rgb if picture.alpha is None else torch.cat([picture.rgb, picture.alpha], 1)
    unit: Array = channels[0].permute(1, 2, 0).clamp(0, 1).numpy()
    if np.issubdtype(dtype, np.integer):
        unit = (unit * np.float64(np.iinfo(dtype).max)).round()
    return unit.astype(dtype)


def painted_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What a painted layer of this type is of: 8 bits of 8, 16 of other integers, otherwise 32-bit floats."""
    if dtype.kind in "iu":
        return np.dtype(np.uint8 if dtype.itemsize == 1 else np.uint16)
    return np.dtype(np.uint8 if dtype.kind == "b" else np.float32)


def mask_of(labels: Array, content: Slices) -> Array:
    """Where to paint, (*lead, H, W): wherever there is a label; one for all slices, or one for each.

    Raises:
        ImageError: it has another size.
    """
    wanted = (*content.lead, *content.size)
    if labels.shape not in (wanted, content.size):
        shapes = ("x".join(map(str, shape)) for shape in (labels.shape, wanted))
        raise ImageError("the mask is {}, and the content {}; use labels of the same size".format(*shapes))
    return np.broadcast_to(labels != 0, wanted)


def soft(mask: Array) -> Tensor:
    """A mask (H, W) as weights (1, 1, H, W), its edge two pixels wide to either side."""
    weights = torch.tensor(mask, dtype=torch.float32)[None, None]
    for _ in range(2):
        weights = F.avg_pool2d(F.pad(weights, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return weights


def placed(
    linear: Array, translate: Array, scale: Array, lead: Index, factors: tuple[float, float]
) -> tuple[Array, Array]:
    """Scale and translation that lay a result over its content.

    ``linear`` (N, N) and ``translate`` (N,) take the content's pixels to the world, ``scale`` is its part of that;
    ``lead`` is the slice the result begins at, ``factors`` how many of the content's pixels one of its own is. Both
    have the centre of the first pixel at 0, so that a coarser one begins half a pixel further in.
    """
    factor = np.array([*(1.0 for _ in lead), *factors])
    begin = np.array([*lead, *((each - 1) / 2 for each in factors)])
    return scale * factor, translate + linear @ begin


def _same(one: Picture, other: Picture) -> bool:
    def channels(picture: Picture) -> Iterator[Tensor]:
        yield picture.rgb
        yield torch.ones_like(picture.rgb[:, :1]) if picture.alpha is None else picture.alpha

    return one.size == other.size and all(map(torch.equal, channels(one), channels(other)))
