"""Sample pictures: a photo and a style each, side by side. Read without PyTorch, which would hold the window."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HERE = Path(__file__).parent
FOLDER = next(
    folder for folder in (HERE.parent / "stylize" / "samples", HERE.parents[1] / "samples") if folder.is_dir()
)  # wheel, checkout
GAP = 20  # px between the two


def pair(photo: str, style: str) -> list[tuple[NDArray[Any], dict[str, Any], str]]:
    """Layer data of two pictures of the samples, the style to the right of the photo."""
    left, right = (np.asarray(Image.open(FOLDER / name).convert("RGB")) for name in (photo, style))
    beside = (0, left.shape[1] + GAP)
    return [
        (left, {"name": Path(photo).stem}, "image"),
        (right, {"name": Path(style).stem, "translate": beside}, "image"),
    ]


bridge = partial(pair, "bridge.jpg", "starry-night.jpg")
cat = partial(pair, "cat.jpg", "waves.jpg")
