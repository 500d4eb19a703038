"""The dock widget: what to paint, in what style, and how; the picture repaints itself in a layer meanwhile.

PyTorch is imported in a thread, as it would hold the window for seconds.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import napari
from magicgui.widgets import ComboBox, Container, FileEdit, ProgressBar, PushButton, Select
from napari.layers import Image, Labels, Layer
from napari.qt.threading import create_worker
from napari.utils import progress
from napari.utils.notifications import show_error, show_info
from napari.utils.transforms import Affine
from superqt.utils import ensure_main_thread

from stylize import PRESETS, Settings, StylizeError, plugin_manager, preset
from stylize_napari.form import SettingsForm, align, folded
from stylize_napari.layers import KEY, Index, Slices, in_view, placed, slices_of

if TYPE_CHECKING:
    from stylize_napari.painting import LayerJob, Style

PICTURES = "*.png *.jpg *.jpeg *.webp *.tif *.tiff *.avif *.gif *.bmp"
SLICES, CLIP, VIEW = "every slice by itself", "as a clip", "the slice in view"
DEVICES = ("auto", "cpu", "cuda", "mps")
SHOWN = ("size", "content_weight", "preserve_color")  # settings that are always to be seen
OFTEN = ("style_weights", "style_scale", "seed", "encoder", "device")  # that are unfolded together, with the blend
TOTAL = 1000  # of progress bars

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What to paint: layers, or files, and how."""

    content: Slices
    styles: tuple[Style, ...]
    labels: Slices | None
    settings: Settings
    as_clip: bool
    begin: Index  # the slice of the layer at which it begins


class StylizeWidget(Container):
    """Paints one layer of the viewer at a time, in a thread of its own.

    Run paints into the layer of the last run if that had the same content and was not kept, else into a new one. Stop
    ends the run and leaves what is there; so does removing the layer. Keep leaves the layer as it is now: what is
    painted from then on, in this run or the next, goes into another.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        images = partial(_all, viewer, Image)
        self._offered = {"preserve_color": ["none"], "encoder": ["auto"]}  # until PyTorch is there
        offers = {name: partial(self._offer, name) for name in self._offered}
        self.form = form = SettingsForm({**offers, "device": DEVICES, "init": ("content", "noise", "style")})
        content = ComboBox(name="content", choices=images, tooltip="The layer to repaint.")
        style = ComboBox(name="style", choices=images, nullable=True, tooltip="The layer to paint like.")
        files = FileEdit(name="files", label="or files", mode="rm", filter=PICTURES, nullable=True)
        files.tooltip = "Pictures to paint like, instead of the layer; several are blended."
        mask = ComboBox(name="mask", choices=partial(_all, viewer, Labels), nullable=True)
        mask.tooltip = "Paint only where there is a label."
        stack = ComboBox(name="stack", choices=[SLICES, CLIP, VIEW], value=SLICES)
        stack.tooltip = (
            "Of a stack: every slice by itself; as the frames of a clip, along the first axis; or one slice."
        )
        chosen = ComboBox(name="preset", choices=[*PRESETS], tooltip="Sets all settings.")
        run, stop, keep = (PushButton(name=name.lower(), text=name) for name in ("Run", "Stop", "Keep"))
        run.tooltip, stop.tooltip = "Paint.", "End the run and leave the picture as it is."
        keep.tooltip = "Leave the layer as it is now; what follows goes into a new one."
        buttons = Container(name="buttons", widgets=[run, stop, keep], layout="horizontal", labels=False, label=" ")
        bar = ProgressBar(name="bar", label=" ", min=0, max=TOTAL, tooltip="How much of the run is done.")
        super().__init__(widgets=[content, style, files, mask, stack, chosen, *(form[name] for name in SHOWN)])
        self.extend([buttons, bar])  # only widgets that are added align the labels
        self.blend = Select(name="blend", label="blend with", choices=images, value=[])
        self.blend.tooltip = "More layers to paint like, blended with the style by the style weights."
        more = folded("blend, scale, seed, encoder", [self.blend, *(form[name] for name in OFTEN)])
        rest = folded("all settings", form.rest(SHOWN + OFTEN))
        for fold in (rest, more):
            self.native.layout().insertWidget(len(self) - 2, fold)
        self.native.layout().addStretch()
        align(self, more.box, rest.box)
        self.folds = (more, rest)

        self._viewer = viewer
        self._task: Task | None = None  # while it is painted
        self._job: LayerJob | None = None  # what is painted, as soon as there is something to see
        self._result: Image | None = None  # the layer it is painted into
        self._source: Any = None  # what that is of
        self._worker: Any = None
        self._activity: Any = None  # the bar in napari's activity dock
        self._drawn = True  # whether the viewer has shown the last change of the canvas
        self._stop, self._gone = threading.Event(), threading.Event()

        chosen.changed.connect(lambda name: form.show(preset(name).replace(device=form["device"].value)))
        run.changed.connect(self._run)
        stop.changed.connect(self._stop.set)
        keep.changed.connect(self._release)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._layers_changed)
        viewer.layers.events.removed.connect(self._removed)
        for flag in (self._stop, self._gone):
            self.native.destroyed.connect(flag.set)
        self._enable()
        threading.Thread(target=self._load, name="stylize", daemon=True).start()

    def settings(self) -> Settings:
        """The settings chosen.

        Raises:
            SettingsError: they do not go together.
        """
        return self.form.settings()

    # --- what there is to choose from

    def _load(self) -> None:
        """Import what is slow to import, in a thread, and ask plugins what they add."""
        host = plugin_manager()
        try:
            modes, encoders = [each.name for each in host.color_modes()], [each.name for each in host.encoders()]
            offered = {"preserve_color": modes, "encoder": ["auto", *encoders]}
            ensure_main_thread(self._take)(offered)
        except Exception:  # such as a window closed meanwhile; what matters is said when something is painted
            log.debug("cannot load stylize ahead", exc_info=True)

    def _take(self, offered: dict[str, list[str]]) -> None:
        if not self._gone.is_set():
            self._offered = offered
            for name in offered:
                self.form[name].reset_choices()

    def _offer(self, name: str, combo: ComboBox) -> list[str]:
        return self._offered[name]

    def _layers_changed(self, event: Any = None) -> None:
        self.reset_choices()
        self.blend.reset_choices()

    # --- from layers to a task

    def _chosen(self) -> Task:
        """What to paint.

        Raises:
            StylizeError: something is missing, or does not fit.
        """
        content, style, mask, mode = (self[name].value for name in ("content", "style", "mask", "stack"))
        if content is None:
            raise StylizeError("there is no image layer; open a picture, or a sample of stylize")
        files = [path for path in self["files"].value or () if path.name]
        layers = [layer for layer in dict.fromkeys([style, *self.blend.value]) if layer is not None]
        if not layers and not files:
            raise StylizeError("no style is chosen; choose a layer or a file")
        point = self._viewer.dims.point
        styles = [slices_of(layer).at(*in_view(layer, point)) for layer in layers]
        slices, labels = slices_of(content), None if mask is None else Slices(mask.name, mask.data, rgb=False)
        begin = (0,) * len(slices.lead)
        if mode == VIEW:
            begin = in_view(content, point)
            slices = slices.at(*begin)
            labels = labels and labels.at(*in_view(mask, point))
        return Task(slices, (*styles, *files), labels, self.settings(), mode == CLIP, begin)

    def _placement(self, job: LayerJob) -> dict[str, Any]:
        """What lays the result over its content."""
        assert self._task is not None
        layer = self._source
        linear = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear, ndim=layer.ndim).linear_matrix
        factors = (job.content.size[0] / job.size[0], job.content.size[1] / job.size[1])
        scale, translate = placed(linear, layer.translate, layer.scale, self._task.begin, factors)
        kept = {name: getattr(layer, name) for name in ("rotate", "shear", "affine", "units", "axis_labels")}
        return {"scale": scale, "translate": translate, **kept}

    # --- a run

    def _run(self) -> None:
        if self._task is not None:
            return
        try:
            task = self._chosen()
        except StylizeError as error:
            show_error(str(error))
            return
        content = self["content"].value
        if self._source is not content:
            self._release()
        self._source, self._task, self._drawn = content, task, True
        self._stop.clear()
        self._activity = progress(total=TOTAL, desc="stylize")
        self._activity.gui = True  # no line in the terminal where there is no window
        self._enable()

        def painting() -> None:  # napari shows its name, and of a method the widget, even when that is gone
            self._paint(task)

        self._worker = create_worker(painting, _start_thread=False)
        self._worker.start()

    def _paint(self, task: Task) -> None:
        """In a thread of its own; what concerns the viewer is handed over to its thread."""
        show, done = ensure_main_thread(self._show), ensure_main_thread(self._done)

        def stop() -> bool:
            return self._stop.is_set() or bool(self._worker.abort_requested)  # by napari, when it is closed

        notes, error = list[str](), ""
        try:
            from stylize_napari.painting import LayerJob, paint

            job = LayerJob(task.content, task.styles, task.settings.size, task.labels)

            def look(text: str, fraction: float) -> None:
                if self._drawn:  # else it has not come round to the last one yet
                    self._drawn = False
                    show(job, text, fraction)

            notes = paint(job, task.settings, look=look, stop=stop, as_clip=task.as_clip)
        except StylizeError as problem:
            error = str(problem)
        except Exception as problem:
            log.exception("painting failed")
            error = f"{type(problem).__name__}: {problem}"
        done(notes, error)

    def _show(self, job: LayerJob | None, text: str, fraction: float) -> None:
        """Bring layer and progress up to date."""
        if self._task is not None and not self._gone.is_set():
            self._job = job or self._job
            if self._job is not None:
                self._show_layer(self._job)
            self._show_progress(text, round(TOTAL * fraction))
        self._drawn = True

    def _show_progress(self, text: str, at: int) -> None:
        self["bar"].value = at
        self["bar"].native.setFormat(text)
        self["bar"].tooltip = text  # in full, where the bar is too narrow for it
        activity = self._activity
        activity.update(max(0, at - activity.n))  # in which napari lets the window react: the run may end meanwhile
        if self._activity is activity:
            activity.set_description(f"stylize: {text}")

    def _show_layer(self, job: LayerJob) -> None:
        if self._result is None and not self._stop.is_set():
            self._result = Image(
                job.canvas,
                rgb=True,
                name=f"{job.content.name} stylized",
                interpolation2d="linear",  # coarse scales are no blocks
                **self._placement(job),
            )
            self._viewer.add_layer(self._result)
            self._enable()
        elif self._result is not None and self._result.data is not job.canvas:
            self._result.data = job.canvas
            for name, value in self._placement(job).items():
                setattr(self._result, name, value)
        elif self._result is not None:
            self._result.refresh(extent=False)
        if self._result is not None:
            self._result.metadata = {**self._result.metadata, KEY: job.record}

    def _done(self, notes: list[str], error: str) -> None:
        if self._gone.is_set():
            return
        self._show(None, "stopped" if self._stop.is_set() else "failed" if error else "done", 1.0)
        self._activity.close()
        self._task = self._job = self._activity = None
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
        buttons["run"].enabled = self._task is None
        buttons["stop"].enabled = self._task is not None
        buttons["keep"].enabled = self._result is not None


def _all(viewer: Any, kind: type[Layer], combo: Any) -> list[Layer]:
    return [layer for layer in viewer.layers if isinstance(layer, kind)]
