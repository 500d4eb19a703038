"""The slices of a layer painted one by one, into an array that can be looked at meanwhile. No napari, no Qt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylize import (
    Chain,
    Frame,
    Job,
    Painted,
    Picture,
    Record,
    Settings,
    Step,
    StylizeError,
    Stylizer,
    fit,
    load,
    plugin_manager,
    resize,
    run,
)
from stylize.arrays import Array, as_array, composited, masked, painted_dtype
from stylize_napari.layers import Index, Slices, mask_of

PAUSE = 0.25  # s between two looks at the picture, at least
SHARE = 4  # and so many times what the last one took: looking on must not be most of the work

MINI = "painted with mini, the small encoder that comes along: VGG-19's weights were not to be had"
Look = Callable[[str, float], object]


class LayerJob(Job):
    """A layer, slice by slice, in the style of a layer (its first slice) or a file.

    ``canvas`` (*lead, H, W, 3 or 4) holds all that is painted so far, and the content elsewhere; ``record`` says at
    any time how it was made. With ``labels``, (H, W) or (*lead, H, W), only what has a label is painted; the canvas
    then has the content's own size, and holds its very pixels where there is none.

    Raises:
        StylizeError: labels of another size, or none.
    """

    def __init__(self, content: Slices, style: Slices | Path, size: int, labels: Slices | None = None) -> None:
        self.content, self._style = content, style
        self._labels, self._mask = labels, None if labels is None else mask_of(np.asarray(labels.data), content)
        self._indices = [index for index in np.ndindex(content.lead) if self._mask is None or self._mask[index].any()]
        if not self._indices:
            raise StylizeError("nothing is labelled in the mask; paint some labels, or choose no mask")
        self.size = content.size if labels is not None else fit(*content.size, size)
        self._dtype = painted_dtype(content.data.dtype)
        self.bits = 8 if self._dtype == np.uint8 else 16
        self.canvas: Array = np.zeros((*content.lead, *self.size, content.channels), self._dtype)
        self.record: dict[str, Any] = {}

    def style(self) -> Picture:
        """The picture to paint like."""
        return load(self._style) if isinstance(self._style, Path) else self._style.picture((0,) * len(self._style.lead))

    def lay_out(self) -> None:
        """Put the content on the canvas."""
        for index in np.ndindex(self.content.lead):
            picture = self.content.picture(index)
            if self.content.channels == 4 and picture.alpha is None:
                picture = replace(picture, alpha=torch.ones_like(picture.rgb[:, :1]))
            alpha = None if picture.alpha is None else resize(picture.alpha, *self.size)
            self.canvas[index] = as_array(Picture(resize(picture.rgb, *self.size), alpha), self._dtype)

    def begin(self, stylizer: Stylizer) -> None:
        layers = {"content": self.content, "style": self._style, "mask": self._labels}
        described = {key: layer.described() for key, layer in layers.items() if isinstance(layer, Slices)}
        self._layers = {"layers": described}
        self.record = replace(stylizer.record(None), stopped=True, more=self._layers).to_dict()

    def chains(self) -> Iterator[Chain]:
        """A chain for each slice."""
        for number, index in enumerate(self._indices, 1):
            yield Chain(" ".join(map(str, index)), (number, index))

    def frames(self, chain: Chain) -> Iterator[Frame]:
        number, index = chain.data
        picture = self.content.picture(index)
        if self._mask is not None:
            picture = masked(picture, self._mask[index])
        name = " ".join([self.content.name, *map(str, index)])
        yield Frame(name, picture, number=number, total=len(self._indices), data={"index": index})

    def write(self, frame: Frame, painted: Painted) -> None:
        self.show(frame.data["index"], frame.image, painted.picture.rgb)
        record = Record.from_dict(painted.picture.record or {})
        stopped = painted.stopped or frame.number != frame.total
        self.record = replace(record, stopped=stopped, more=self._layers).to_dict()

    def show(self, index: Index, content: Picture, painted: Tensor) -> None:
        """Put a picture (1, 3, H, W) of any size where it belongs."""
        painted = resize(painted, *self.size)
        if self._mask is not None:
            painted = composited(content.rgb, painted, self._mask[index])
        self.canvas[index][..., :3] = as_array(Picture(painted), self._dtype)


def paint(job: LayerJob, settings: Settings, *, look: Look, stop: Callable[[], bool]) -> list[str]:
    """Paint a layer; what is worth a line: plugins that were left out, and another encoder than hoped for.

    Args:
        job: the layer.
        settings: what the result becomes.
        look: called a few times a second, when the canvas has changed: (what is done, how much of it, 0 to 1).
        stop: asked after every step; once True, the canvas stays as it is.

    Raises:
        StylizeError: whatever is wrong with the pictures, settings, weights or the device.
    """
    job.lay_out()
    look("begun", 0.0)

    def on_download(done: int, total: int | None) -> None:
        if stop():
            raise StylizeError("stopped before the weights were downloaded; the next run goes on with them")
        look(f"weights: {done / 1e6:.0f} MB", done / total if total else 0.0)

    host = plugin_manager()
    encoders, modes = host.encoders(), host.color_modes()
    stylizer = Stylizer(job.style(), settings, encoders=encoders, color_modes=modes, progress=on_download)
    due = 0.0

    def on_step(frame: Frame, step: Step) -> None:
        nonlocal due
        if (now := time.monotonic()) < due:
            return
        job.show(frame.data["index"], frame.image, step.image())
        look(*_place(frame, step))
        due = time.monotonic() + max(PAUSE, SHARE * (time.monotonic() - now))

    run(job, stylizer, host=host, options={**host.default_options(), "bits": job.bits}, on_step=on_step, stop=stop)
    fallback = settings.encoder == "auto" and job.record["encoder"]["name"] == "mini"
    return host.problems + [MINI] * fallback


def _place(frame: Frame, step: Step) -> tuple[str, float]:
    """How far a run is, in words and as a fraction; each scale takes four times as long as the one before."""
    total = frame.total or 1
    slices = f"slice {frame.number} of {total}, " if total > 1 else ""
    before, whole = ((4**scales - 1) / 3 for scales in (step.scale - 1, step.scales))
    painted = (before + 4 ** (step.scale - 1) * step.number / step.steps) / whole
    text = f"{slices}{step.width}x{step.height}, step {step.number} of {step.steps}"
    return text, (frame.number - 1 + painted) / total
