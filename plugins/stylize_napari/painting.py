"""The slices of a layer painted into an array that can be looked at meanwhile. No napari, no Qt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylize import (
    Chain,
    Frame,
    Host,
    Job,
    Mask,
    Painted,
    Picture,
    Record,
    RunProgress,
    Settings,
    Step,
    StylizeError,
    Stylizer,
    as_mask,
    fit,
    hookimpl,
    load,
    paint_frames,
    plugin_manager,
    resize,
    run,
)
from stylize.arrays import Array, as_array, painted_dtype
from stylize.text import duration
from stylize_napari.layers import Index, Slices, mask_of

PAUSE = 0.25  # s between two looks at the picture, at least
SHARE = 4  # and so many times what the last one took: looking on must not be most of the work

MINI = "painted with mini, the small encoder that comes along: VGG-19's weights were not to be had"
Style = Slices | Path
Look = Callable[[str, float], object]


class LayerJob(Job):
    """A layer, slice by slice, in the style of a layer (its first slice) or a file, or in a blend of several.

    ``canvas`` (*lead, H, W, 3 or 4) holds all that is painted so far, and the content elsewhere; ``record`` says at
    any time how it was made. With ``labels``, (H, W) or (*lead, H, W), only what has a label is painted; the canvas
    then has the content's own size, and holds its very pixels where there is none.

    Raises:
        StylizeError: labels of another size, or none.
    """

    def __init__(
        self, content: Slices, styles: Style | Sequence[Style], size: int, labels: Slices | None = None
    ) -> None:
        self.content = content
        self._styles = (styles,) if isinstance(styles, (Slices, Path)) else tuple(styles)
        self._labels, self._inside = labels, None if labels is None else mask_of(np.asarray(labels.data), content)
        every = [*np.ndindex(content.lead)]
        self._indices = [index for index in every if self._inside is None or self._inside[index].any()]
        if not self._indices:
            raise StylizeError("nothing is labelled in the mask; paint some labels, or choose no mask")
        self.size = content.size if labels is not None else fit(*content.size, size)
        self._dtype = painted_dtype(content.data.dtype)
        self.bits = 8 if self._dtype == np.uint8 else 16
        self.canvas: Array = np.zeros((*content.lead, *self.size, content.channels), self._dtype)
        self.record: dict[str, Any] = {}

    def style(self) -> list[Picture]:
        """The pictures to paint like."""
        return [
            load(style) if isinstance(style, Path) else style.picture((0,) * len(style.lead)) for style in self._styles
        ]

    def lay_out(self) -> None:
        """Put the content on the canvas."""
        for index in np.ndindex(self.content.lead):
            picture = self.content.picture(index)
            if self.content.channels == 4 and picture.alpha is None:
                picture = replace(picture, alpha=torch.ones_like(picture.rgb[:, :1]))
            alpha = None if picture.alpha is None else resize(picture.alpha, *self.size)
            self.canvas[index] = as_array(Picture(resize(picture.rgb, *self.size), alpha), self._dtype)

    def begin(self, stylizer: Stylizer) -> None:
        named = [f"style {number}" if number > 1 else "style" for number in range(1, len(self._styles) + 1)]
        layers = {"content": self.content, **dict(zip(named, self._styles, strict=True)), "mask": self._labels}
        described = {key: layer.described() for key, layer in layers.items() if isinstance(layer, Slices)}
        self._layers = {"layers": described}
        self.record = replace(stylizer.record(None), stopped=True, more=self._layers).to_dict()

    def chains(self) -> Iterator[Chain]:
        """A chain for each slice."""
        for number, index in enumerate(self._indices, 1):
            yield Chain(" ".join(map(str, index)), (number, index))

    def frames(self, chain: Chain) -> Iterator[Frame]:
        number, index = chain.data
        name = " ".join([self.content.name, *map(str, index)])
        place = {"number": number, "total": len(self._indices)}
        yield Frame(name, self.content.picture(index), mask=self.mask(index), data={"index": index}, **place)

    def write(self, frame: Frame, painted: Painted) -> None:
        self.show(frame.data["index"], painted.picture.rgb)
        record = Record.from_dict(painted.picture.record or {})
        stopped = painted.stopped or frame.number != frame.total
        self.record = replace(record, stopped=stopped, more=self._layers).to_dict()

    def mask(self, index: Index) -> Mask | None:
        """Where a slice is painted, if not everywhere."""
        return None if self._inside is None else as_mask(self._inside[index])

    def show(self, index: Index, painted: Tensor) -> None:
        """Put a picture (1, 3, H, W) of any size where it belongs."""
        mask = self.mask(index)
        painted = resize(painted, *self.size) if mask is None else mask.over(self.content.picture(index).rgb, painted)
        self.canvas[index][..., :3] = as_array(Picture(painted), self._dtype)

    def finished(self) -> None:
        """Let the record say that all is painted."""
        self.record = replace(Record.from_dict(self.record), stopped=False).to_dict()


def paint(
    job: LayerJob, settings: Settings, *, look: Look, stop: Callable[[], bool], as_clip: bool = False
) -> list[str]:
    """Paint a layer; what is worth a line: plugins that were left out, and another encoder than hoped for.

    Args:
        job: the layer.
        settings: what the result becomes.
        look: called a few times a second, when the canvas has changed: (what is done, how much of it, 0 to 1).
        stop: asked after every step; once True, the canvas stays as it is.
        as_clip: the first axis is time: each slice starts from the one before, carried along by optical flow.

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
    options = {**host.default_options(), "bits": job.bits}
    if as_clip and job.content.lead:
        _paint_clips(job, stylizer, host, options, look, stop)
    else:
        watched = _Watched(job, look, lambda frame: frame.data["index"])
        host.register(watched, "napari")
        run(job, stylizer, host=host, options=options, on_step=watched.step, stop=stop)
    fallback = settings.encoder == "auto" and job.record["encoder"]["name"] == "mini"
    return host.problems + [MINI] * fallback


def _paint_clips(
    job: LayerJob, stylizer: Stylizer, host: Host, options: dict[str, Any], look: Look, stop: Callable[[], bool]
) -> None:
    """Paint along the first axis; where there are more, one clip for each place along the others."""
    job.begin(stylizer)
    places = [*np.ndindex(job.content.lead[1:])]
    kind = np.dtype(np.uint8 if job.bits == 8 else np.uint16)
    for number, place in enumerate(places):

        def frames(place: Index = place) -> Iterator[Array]:
            for moment in range(job.content.lead[0]):
                picture = job.content.picture((moment, *place))
                alpha = torch.ones_like(picture.rgb[:, :1]) if picture.alpha is None else picture.alpha
                yield as_array(replace(picture, alpha=alpha) if job.content.channels == 4 else picture, kind)

        def masks(place: Index = place) -> Iterator[Array]:
            for moment in range(job.content.lead[0]):
                mask = job.mask((moment, *place))
                assert mask is not None
                yield mask.weights[0, 0].numpy()

        def index(frame: Frame, place: Index = place) -> Index:
            return (frame.number - 1, *place)

        watched = _Watched(job, look, index, (number, len(places)))
        host.register(watched, "napari")
        within = None if job.mask((0, *place)) is None else masks()
        made = paint_frames(frames(), stylizer, host, options=options, masks=within, on_step=watched.step, stop=stop)
        for moment, picture in enumerate(made):
            job.show((moment, *place), picture.rgb)
        host.unregister(watched)
        if stop():
            return
    job.finished()


class _Watched:
    """What is shown of a run: the picture in work, and how far it is. ``clip`` is which one of how many."""

    def __init__(
        self, job: LayerJob, look: Look, index: Callable[[Frame], Index], clip: tuple[int, int] = (0, 1)
    ) -> None:
        self._job, self._look, self._index, self._clip = job, look, index, clip
        self._progress, self._due = RunProgress(), 0.0

    def step(self, frame: Frame, step: Step) -> None:
        """Look at the picture, if it is time to."""
        self._progress.step(step, frame)
        if (now := time.monotonic()) < self._due:
            return
        self._job.show(self._index(frame), step.image())
        self._look(*self._place(frame, step))
        self._due = time.monotonic() + max(PAUSE, SHARE * (time.monotonic() - now))

    @hookimpl
    def stylize_painted(self, frame: Frame, image: Picture) -> None:
        self._progress.painted(frame)
        self._job.show(self._index(frame), image.rgb)

    @hookimpl
    def stylize_copied(self, frame: Frame) -> None:
        self._progress.copied(frame)

    def _place(self, frame: Frame, step: Step) -> tuple[str, float]:
        """How far a run is, in words and as a fraction."""
        total, left = frame.total or 1, self._progress.seconds_left
        slices = f"slice {frame.number} of {total}, " if total > 1 else ""
        rest = "" if left is None else f", {duration(left, rough=True)} left"
        number, count = self._clip
        fraction = (number + (self._progress.fraction or 0.0)) / count
        return f"{slices}{step.width}x{step.height}, step {step.number} of {step.steps}{rest}", fraction
