"""Layers: their slices as pictures, masks, and where a result lies.

Does not import napari, nor PyTorch until a slice is read, as that would hold the window for seconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylize import ImageError

if TYPE_CHECKING:
    from stylize import Picture

KEY = "stylize"  # of a layer's metadata: the record of how it was made

Array = NDArray[Any]
Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Slices:
    """The data of an image layer: (..., H, W), or (..., H, W, 3 or 4) where ``rgb``, of any number type.

    ``data`` need only have a shape, a dtype and indexing: slices of lazy stacks are read when they are needed. Grey
    is taken as displayed: black at ``limits[0]``, white at ``limits[1]``. Colours are taken over the whole range of
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
        from stylize import load
        from stylize.arrays import as_picture, value_range

        limits = value_range(self.data.dtype) if self.rgb else self.limits
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


def in_view(layer: Any, point: Any) -> Index:
    """The slice of a stack at a point in world coordinates, or the one nearest to it; () of a single picture."""
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    place = layer.world_to_data(point[-layer.ndim :])
    return tuple(int(np.clip(round(at), 0, count - 1)) for at, count in zip(place[:-2], data.shape, strict=False))


def slices_of(layer: Any) -> Slices:
    """What an image layer of napari holds; of a multiscale one its finest level."""
    data, path = layer.data[0] if layer.multiscale else layer.data, layer.source.path
    low, high = map(float, layer.contrast_limits)
    return Slices(layer.name, data, layer.rgb, (low, high), None if path is None else Path(path))


def mask_of(labels: Array, content: Slices) -> Array:
    """Where to paint, booleans (*lead, H, W): wherever there is a label, of one mask for all slices or one for each.

    Raises:
        ImageError: the labels have another size than the content.
    """
    wanted = (*content.lead, *content.size)
    if labels.shape not in (wanted, content.size):
        shapes = ("x".join(map(str, shape)) for shape in (labels.shape, wanted))
        raise ImageError("the mask is {}, and the content {}; use labels of the same size".format(*shapes))
    return np.broadcast_to(labels != 0, wanted)


def placed(
    linear: Array, translate: Array, scale: Array, lead: Index, factors: tuple[float, float]
) -> tuple[Array, Array]:
    """Scale and translation that place a result over its content.

    ``linear`` (N, N) and ``translate`` (N,) map the content's pixels to world coordinates, ``scale`` (N,) is the scale
    in that map; ``lead`` is the slice at which the result begins, ``factors`` the size of a pixel of the result in
    pixels of the content. Coordinates are of pixel centres, so that coarser pixels are shifted by half the difference.
    """
    factor = np.array([*(1.0 for _ in lead), *factors])
    begin = np.array([*lead, *((each - 1) / 2 for each in factors)])
    return scale * factor, translate + linear @ begin


def _same(one: Picture, other: Picture) -> bool:
    """Whether two pictures have the same pixels."""
    import torch

    def channels(picture: Picture) -> list[Any]:
        return [picture.rgb, torch.ones_like(picture.rgb[:, :1]) if picture.alpha is None else picture.alpha]

    return one.size == other.size and all(map(torch.equal, channels(one), channels(other)))
