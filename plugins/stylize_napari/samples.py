"""Sample pictures: a photo and a style each, side by side."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stylize import load
from stylize.arrays import Array, as_array

HERE = Path(__file__).parent
FOLDER = next(
    folder for folder in (HERE / "samples", HERE.parents[1] / "samples") if folder.is_dir()
)  # wheel, checkout
GAP = 20  # px between the two


def pair(photo: str, style: str) -> list[tuple[Array, dict[str, Any], str]]:
    """Layer data of two pictures of the samples, the style to the right of the photo."""
    left, right = (as_array(load(FOLDER / name), np.dtype(np.uint8)) for name in (photo, style))
    beside = (0, left.shape[1] + GAP)
    return [
        (left, {"name": Path(photo).stem}, "image"),
        (right, {"name": Path(style).stem, "translate": beside}, "image"),
    ]


bridge = partial(pair, "bridge.jpg", "starry-night.jpg")
cat = partial(pair, "cat.jpg", "waves.jpg")
