"""Sample pictures: a photo and a style each, side by side. Read without PyTorch, which would hold the window."""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import threading
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
    _prepare()
    return [
        (left, {"name": Path(photo).stem}, "image"),
        (right, {"name": Path(style).stem, "translate": beside}, "image"),
    ]


def _prepare() -> None:
    """Load what napari itself loads for the first layer of a window, units and thumbnails, which takes half a second:
    in a thread, while the window goes on to be drawn."""
    core: Any = sys.modules.get("qtpy.QtCore")
    application = core and core.QCoreApplication.instance()
    if not application or threading.current_thread() is not threading.main_thread():
        return
    worker = threading.Thread(target=_load, name="stylize samples", daemon=True)
    worker.start()
    while worker.is_alive():
        application.processEvents(core.QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
        worker.join(0.01)


def _load() -> None:
    with contextlib.suppress(Exception):  # other versions of napari may need neither
        importlib.import_module("scipy.ndimage")
        _ = importlib.import_module("pint").get_application_registry().pixel
    gc.collect()  # or so much that is new would make Python do it amid the layers


bridge = partial(pair, "bridge.jpg", "starry-night.jpg")
cat = partial(pair, "cat.jpg", "waves.jpg")
