"""Painted frames written to files: quickly, and beside the painting where that leaves the host time."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from stylize import ImageError, Picture, atomic_write

WAITING = 2  # results that wait to be written
QUICK = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)


class Writer:
    """Writes one result after the other, ``beside`` the painting or at once. After an error nothing more is written."""

    def __init__(self, *, beside: bool) -> None:
        self._beside = beside
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def __call__(self, write: Callable[[], None]) -> None:
        """Write a result, or raise what happened when one before it was written."""
        if not self._beside:
            write()
            return
        while len(self._waiting) >= WAITING:
            self._waiting.popleft().result()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "write", torch.set_num_threads, (1,))
        self._waiting.append(self._thread.submit(self._write, write))

    def _write(self, write: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            write()
        except BaseException:
            self._failed = True
            raise

    def settle(self) -> None:
        """Wait for the thread to end; what happened in it is kept for :meth:`wait`."""
        concurrent.futures.wait(self._waiting)
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def wait(self) -> None:
        """Wait until all is written, or raise what happened."""
        self.settle()
        while self._waiting:
            self._waiting.popleft().result()


def write_png(path: Path, picture: Picture, bits: int) -> None:
    """Write a frame in a quarter of the time that :meth:`Picture.save` takes, and without a colour profile; painted
    pictures take a few percent more room.

    Raises:
        ImageError: it cannot be written.
    """
    samples = picture.rgb if picture.alpha is None else torch.cat([picture.rgb, picture.alpha], 1)
    if not bool(torch.isfinite(samples).all()):
        raise ImageError(f"cannot write {path}: the picture holds NaN or infinite values")
    levels: Any = (samples[0].permute(1, 2, 0).clamp(0, 1) * (2**bits - 1)).round().numpy()
    pixels = levels.astype(np.uint16 if bits == 16 else np.uint8)[..., [2, 1, 0, 3][: levels.shape[2]]]
    made, data = cv2.imencode(".png", pixels, QUICK)
    if not made:
        raise ImageError(f"cannot write {path}: OpenCV could not encode it")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())
