"""Saving: stylized layers go through stylize's own writer, with their record; all others are napari's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stylize import save
from stylize_napari.layers import KEY, Array, Slices


def write(path: str, data: Array, meta: Mapping[str, Any]) -> list[str]:
    """Save a layer; a stack as a picture for each slice, ``name-0000.png`` and so on. The files written.

    8 bits per channel are saved as such, deeper layers with 16 where the format holds them.

    Raises:
        ImageError: the file cannot be written.
    """
    record = meta.get("metadata", {}).get(KEY)
    if record is None:
        from napari_builtins.io import napari_write_image

        written = napari_write_image(path, data, dict(meta))
        return [written] if written else []
    target, slices = Path(path), Slices(meta.get("name", ""), np.asarray(data), rgb=True)
    deep = slices.data.dtype != np.uint8 and target.suffix.lower() in (".png", ".tif", ".tiff")
    written = []
    for index in np.ndindex(slices.lead):
        ending = "".join(f"-{each:04}" for each in index)
        file = target.with_name(f"{target.stem}{ending}{target.suffix}")
        save(replace(slices.picture(index), record=record), file, bits=16 if deep else 8)
        written.append(str(file))
    return written
