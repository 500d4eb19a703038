"""Strips and tiles of a TIFF that are pictures of another format, whole by themselves."""

from __future__ import annotations

import importlib
import io
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylize.errors import ImageError

Array = NDArray[Any]

JPEG = 7
FORMATS = {
    JPEG: "JPEG", 33003: "JPEG2000", 33005: "JPEG2000", 34712: "JPEG2000", 34933: "PNG", 50001: "WEBP", 50002: "JXL",
    52546: "JXL",
}  # fmt: skip
_DEEP = ("PNG", "JPEG2000")  # those of more than 8 bits that OpenCV reads
_NO_TRANSFORM = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # the components are stored as they are

_CV2_LOG = threading.Lock()  # OpenCV has one log level for all threads


def holds(compression: int, bits: int, samples: int) -> bool:
    """Whether strips of such samples can be read here."""
    format = FORMATS.get(compression, "")
    if bits == 8:
        return bool(format) and samples <= 4
    return 8 < bits <= 16 and format in _DEEP and samples <= 4 and (format, samples) != ("JPEG2000", 2)


def decoded(data: bytes, compression: int, bits: int, samples: int, tables: bytes = b"") -> Array:
    """A strip or tile, (rows, columns, samples) uint8 or uint16; ``tables`` are those of a JPEG that has none of its
    own.

    Raises:
        ImageError: it is damaged, or a module that reads the format is missing.
    """
    format = FORMATS[compression]
    if format == "JPEG":
        data = b"\xff\xd8" + _NO_TRANSFORM + tables[2:-2] + data[2:]
    if format == "JXL":
        try:
            importlib.import_module("pillow_jxl")
        except ImportError as error:
            need = "pip install 'stylize-host[photo]'"
            raise ImageError(f"JPEG XL in a TIFF, which needs an extra: {need}, or convert it to PNG") from error
    if bits > 8:
        found = by_opencv(data)
        if found is None or found.dtype != np.uint16:
            raise ImageError("truncated or damaged; get a complete copy")
        found = found.reshape(*found.shape[:2], -1)
        order = [2, 1, 0, 3][: found.shape[2]] if found.shape[2] > 2 else [*range(found.shape[2])]
        values = found[..., [0, 3] if samples == 2 and len(order) == 4 else order]
    else:
        with Image.open(io.BytesIO(data), formats=[format]) as image:
            values = np.asarray(image)
            values = values.reshape(*values.shape[:2], -1)
            if image.mode == "CMYK" and format == "JPEG":  # which Pillow inverts beside that mark
                values = 255 - values
    if values.shape[2] != samples or values.dtype != (np.uint16 if bits > 8 else np.uint8):
        raise ImageError(f"a TIFF of {samples} samples whose {format} has {values.shape[2]}; convert it to PNG or JPEG")
    return values


def by_opencv(data: bytes) -> Array | None:
    """What OpenCV makes of a file, its channels in the order blue, green, red; None for what it cannot read."""
    import cv2

    with _CV2_LOG:
        log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it writes warnings to stderr
        try:
            decoded: Array | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        finally:
            cv2.utils.logging.setLogLevel(log_level)
    return decoded
