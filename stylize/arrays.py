"""Arrays: NumPy arrays of any number type <-> :class:`stylize.Picture`.

For programs that hold their pictures as arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stylize.images import Picture

Array = NDArray[Any]


def value_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The values of black and white of this type: the whole range of integers, or [0, 1]."""
    return (0.0, float(np.iinfo(dtype).max)) if np.issubdtype(dtype, np.integer) else (0.0, 1.0)


def as_picture(array: Array, limits: tuple[float, float], name: str = "") -> Picture:
    """An array (H, W), (H, W, 3) or (H, W, 4) of numbers -> a picture.

    ``limits`` are mapped to 0 and 1 and values beyond are clipped; NaN becomes 0. Alpha is kept where it is below 1.
    """
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
    """The type for a painted array: uint8 for 8-bit numbers, uint16 for other integers, otherwise float32."""
    if dtype.kind in "iu":
        return np.dtype(np.uint8 if dtype.itemsize == 1 else np.uint16)
    return np.dtype(np.uint8 if dtype.kind == "b" else np.float32)
