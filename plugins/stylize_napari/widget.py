"""The dock widget: what to paint, in what style, and how; the picture repaints itself in a layer meanwhile."""

from __future__ import annotations

import logging
import threading
from functools import partial
from pathlib import Path
from typing import Any

import napari
import numpy as np
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, FloatSpinBox, ProgressBar, PushButton, SpinBox
from napari.layers import Image, Labels, Layer
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info
from napari.utils.transforms import Affine
from superqt.utils import ensure_main_thread

from stylize import FORMATS, PRESETS, Settings, StylizeError, plugin_manager, preset
from stylize_napari.layers import Index, Slices, placed
from stylize_napari.painting import LayerJob, paint
from stylize_napari.writer import KEY

DEVICES = ("auto", "cpu", "cuda", "mps")
log = logging.getLogger(__name__)


class StylizeWidget(Container):
    """Paints one layer of the viewer at a time, in a thread of its own.

    Run paints into the layer of the last run if that had the same content and was not kept, else into a new one. Stop
    ends the run and leaves what is there; so does removing the layer. Keep leaves the layer as it is now: what is
    painted from then on, in this run or the next, goes into another.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        host, default = plugin_manager(), Settings()
        pictures = " ".join(f"*{ending}" for ending in FORMATS)
        content = ComboBox(name="content", choices=partial(_all, viewer, Image), tooltip="The layer to repaint.")
        style = ComboBox(
            name="style", choices=partial(_all, viewer, Image), nullable=True, tooltip="The layer to paint like."
        )
        file = FileEdit(name="file", label="or a file", filter=pictures, nullable=True, tooltip="Or a picture.")
        mask = ComboBox(
            name="mask", choices=partial(_all, viewer, Labels), nullable=True, tooltip="Paint where there is a label."
        )
        every = CheckBox(name="every", text="every slice of a stack", value=True, tooltip="Else the one in view.")
        chosen = ComboBox(name="preset", choices=[*PRESETS], tooltip="Sets size, content weight and encoder.")
        size = SpinBox(name="size", value=default.size, min=16, max=32768, tooltip="Longest side of the result, px.")
        weight = FloatSpinBox(
            name="content_weight", value=default.content_weight, min=0, max=1e6, step=0.005, tooltip="More: more photo."
        )
        color = ComboBox(
            name="preserve_color", label="keep colours", choices=[each.name for each in host.color_modes()]
        )
        encoder = ComboBox(name="encoder", choices=["auto", *(each.name for each in host.encoders())])
        device = ComboBox(name="device", choices=DEVICES)
        run, stop, keep = (PushButton(name=name.lower(), text=name) for name in ("Run", "Stop", "Keep"))
        buttons = Container(name="buttons", widgets=[run, stop, keep], layout="horizontal", labels=False, label=" ")
        bar = ProgressBar(name="bar", label=" ", min=0, max=1000)
        super().__init__(widgets=[content, style, file, mask, every, chosen, size, weight, color, encoder, device])
        self.extend([buttons, bar])  # only widgets that are added align the labels
        self._viewer = viewer
        self._job: LayerJob | None = None  # while it is painted
        self._result: Image | None = None  # the layer it is painted into
        self._source: Any = None  # what that is of
        self._begin: Index = ()  # and from which slice on
        self._worker: Any = None
        self._drawn = True  # whether the viewer has shown the last change of the canvas
        self._stop, self._gone = threading.Event(), threading.Event()

        chosen.changed.connect(self._take_preset)
        run.changed.connect(self._run)
        stop.changed.connect(self._stop.set)
        keep.changed.connect(self._release)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self.reset_choices)
        viewer.layers.events.removed.connect(self._removed)
        for flag in (self._stop, self._gone):
            self.native.destroyed.connect(flag.set)
        self._enable()

    def settings(self) -> Settings:
        """The settings chosen.

        Raises:
            SettingsError: they do not go together.
        """
        names = ("size", "content_weight", "preserve_color", "encoder", "device")
        return preset(self["preset"].value).replace(**{name: self[name].value for name in names})

    def _take_preset(self, name: str) -> None:
        for knob in ("size", "content_weight", "encoder"):
            self[knob].value = getattr(preset(name), knob)

    # --- from layers to a job

    def _chosen(self) -> LayerJob:
        """What to paint.

        Raises:
            StylizeError: something is missing, or does not fit.
        """
        content, style, file, mask = (self[name].value for name in ("content", "style", "file", "mask"))
        if content is None:
            raise StylizeError("there is no image layer; open a picture, or a sample of stylize")
        if style is None and (file is None or not file.name):
            raise StylizeError("no style is chosen; choose a layer or a file")
        slices, labels = _slices(content), None if mask is None else Slices(mask.name, np.asarray(mask.data), rgb=False)
        if not self["every"].value:
            slices = slices.at(*self._in_view(content))
            labels = labels and labels.at(*self._in_view(mask))
        return LayerJob(
            slices, file if style is None else _slices(style).at(*self._in_view(style)), self["size"].value, labels
        )

    def _in_view(self, layer: Layer) -> Index:
        """The slice of a stack that the viewer shows, or the one nearest to it; () of a single picture."""
        data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
        place = layer.world_to_data(self._viewer.dims.point[-layer.ndim :])
        return tuple(int(np.clip(round(at), 0, count - 1)) for at, count in zip(place[:-2], data.shape, strict=False))

    def _placement(self, job: LayerJob) -> dict[str, Any]:
        """What lays the result over its content."""
        layer = self._source
        linear = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear, ndim=layer.ndim).linear_matrix
        factors = (job.content.size[0] / job.size[0], job.content.size[1] / job.size[1])
        scale, translate = placed(linear, layer.translate, layer.scale, self._begin, factors)
        kept = {name: getattr(layer, name) for name in ("rotate", "shear", "affine", "units", "axis_labels")}
        return {"scale": scale, "translate": translate, **kept}

    # --- a run

    def _run(self) -> None:
        if self._job is not None:
            return
        try:
            settings, job = self.settings(), self._chosen()
        except StylizeError as error:
            show_error(str(error))
            return
        content = self["content"].value
        if self._source is not content:
            self._release()
        self._source, self._job, self._drawn = content, job, True
        self._begin = (0,) * len(job.content.lead) if self["every"].value else self._in_view(content)
        self._stop.clear()
        self._enable()

        def painting() -> None:  # napari shows its name, and of a method the widget, even when that is gone
            self._paint(job, settings)

        self._worker = create_worker(painting, _start_thread=False)
        self._worker.start()

    def _paint(self, job: LayerJob, settings: Settings) -> None:
        """In a thread of its own; what concerns the viewer is handed over to its thread."""
        show, done = ensure_main_thread(self._show), ensure_main_thread(self._done)

        def stop() -> bool:
            return self._stop.is_set() or bool(self._worker.abort_requested)  # by napari, when it is closed

        def look(text: str, fraction: float) -> None:
            if self._drawn:  # else it has not come round to the last one yet
                self._drawn = False
                show(text, fraction)

        try:
            notes, error = paint(job, settings, look=look, stop=stop), ""
        except StylizeError as problem:
            notes, error = [], str(problem)
        except Exception as problem:
            log.exception("painting failed")
            notes, error = [], f"{type(problem).__name__}: {problem}"
        done(notes, error)

    def _show(self, text: str, fraction: float) -> None:
        """Bring layer and progress up to date."""
        self._drawn = True
        job = self._job
        if job is None or self._gone.is_set():
            return
        self["bar"].value = round(1000 * fraction)
        self["bar"].native.setFormat(text)
        if self._result is None and not self._stop.is_set():
            self._result = Image(job.canvas, rgb=True, name=f"{job.content.name} stylized", **self._placement(job))
            self._viewer.add_layer(self._result)
            self._enable()
        elif self._result is not None and self._result.data is not job.canvas:
            self._result.data = job.canvas
            for name, value in self._placement(job).items():
                setattr(self._result, name, value)
        elif self._result is not None:
            self._result.refresh()
        if self._result is not None:
            self._result.metadata = {**self._result.metadata, KEY: job.record}

    def _done(self, notes: list[str], error: str) -> None:
        if self._gone.is_set():
            return
        self._show("stopped" if self._stop.is_set() else "failed" if error else "done", 1.0)
        self._job = None
        self._enable()
        if error and not self._stop.is_set():
            show_error(" ".join(error.split()))
        for note in notes:
            show_info(note)

    def _release(self) -> None:
        """Leave the layer alone from now on."""
        if self._job is not None and self._result is not None:
            self._job.canvas = self._job.canvas.copy()
        self._result = None
        self._enable()

    def _removed(self, event: Any) -> None:
        if event.value is self._result and self._result is not None:
            self._stop.set()
            self._result = None
            self._enable()

    def _enable(self) -> None:
        buttons = self["buttons"]
        buttons["run"].enabled = self._job is None
        buttons["stop"].enabled = self._job is not None
        buttons["keep"].enabled = self._result is not None


def _all(viewer: Any, kind: type[Layer], combo: ComboBox) -> list[Layer]:
    return [layer for layer in viewer.layers if isinstance(layer, kind)]


def _slices(layer: Image) -> Slices:
    """What an image layer holds; of a multiscale one its finest level."""
    data, path = layer.data[0] if layer.multiscale else layer.data, layer.source.path
    low, high = map(float, layer.contrast_limits)
    return Slices(layer.name, data, layer.rgb, (low, high), None if path is None else Path(path))
