#!/usr/bin/env python3
"""stylize in GIMP 3: Filters > Artistic > Stylize.

GIMP runs this file with its own Python, which needs PyGObject and the standard library only. The painting is done by
the program that stylize.json, beside it, names; `stylize gimp install` has written both.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gegl", "0.4")
from gi.repository import Gegl, Gimp, Gio, GLib, GObject  # noqa: E402

NAME = "plug-in-stylize"
SHOWN = ("size", "content-weight", "preserve-color", "encoder")  # settings that are always to be seen
NICKS = {"preserve-color": "Keep colours"}
PAUSE = 0.5  # s between two previews in the image, at least
SHARE = 4  # and so many times what the last one took
LARGEST = 2**31 - 1  # the largest whole number of an argument
FOLDER = "stylize-gimp-"  # of a run, followed by the number of its process
PYTHON = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "GI_TYPELIB_PATH")  # GIMP's own, of no use to another Python

Setting = dict[str, Any]


class Failed(Exception):
    """What is said to the user."""


def described() -> dict[str, Any]:
    """What `stylize gimp install` has written of stylize: its command, settings and presets."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("stylize.json").read_text(encoding="utf-8"))
    return found


def argument_name(setting: Setting) -> str:
    """The name of the argument for a setting; GIMP allows no underscores."""
    return str(setting["name"]).replace("_", "-")


def as_text(value: Any) -> str:
    """The value of a setting as the command line takes it."""
    if isinstance(value, dict):
        return ",".join(f"{name}={weight:g}" for name, weight in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def changed(setting: Setting, value: Any) -> list[str]:
    """The option for a setting; none where the value is the default, so that presets count."""
    default, option = setting["default"], str(setting["option"])
    if setting["type"] == "boolean":
        return [option] if value and not default else []
    if setting["type"] == "number":
        return [] if abs(value - default) < 1e-9 else [option, f"{value:.9g}"]
    if setting["type"] == "integer":
        return [] if value == (default or 0) else [option, str(value)]
    text = str(value or "").strip()  # GIMP takes an empty text for none
    if setting["type"] in ("array", "object"):
        text = "".join(text.split())
    return [] if text == as_text(default) else [option, text]


class Run:
    """One run of stylize on files, heard while it lasts.

    Args:
        command: the program and its arguments.
        log: a file for what the program says on its standard error.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self.warnings: list[str] = []
        self._log, self._error = log, ""
        environment = {key: value for key, value in os.environ.items() if key not in PYTHON}
        try:
            with log.open("wb") as stream:
                self._child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stream, env=environment
                )
        except OSError as error:
            raise Failed(
                f"cannot start stylize: {error.strerror}: {command[0]}. Run `stylize gimp install` again."
            ) from error

    def events(self) -> Any:
        """The events of the run, one after the other.

        Raises:
            Failed: it did not end well.
        """
        assert self._child.stdout is not None
        try:
            for line in self._child.stdout:  # the child ends within a step when nobody reads this any more
                event = json.loads(line)
                if event["event"] == "error":
                    self._error = event["text"]
                elif event["event"] == "warning":
                    self.warnings.append(event["text"])
                else:
                    yield event
        finally:
            self._child.stdout.close()
            code = self._child.wait()
        if code:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise Failed(self._error or (said[-1] if said else f"stylize ended with code {code}"))


def work_folder() -> Path:
    """A folder for this run. Those of runs that were cancelled, which GIMP ends at once, are removed."""
    place = Path(tempfile.gettempdir())
    for old in place.glob(f"{FOLDER}*"):
        number = old.name[len(FOLDER) :].partition("-")[0]
        if number.isdigit() and not is_alive(int(number)):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))


def is_alive(number: int) -> bool:
    """Whether there is a process of that number, as far as that can be told."""
    if os.name == "nt":
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def path_of(item: Any, image: Any) -> list[int]:
    """Where a layer lies in an image: its position in each group, from the outermost on."""
    place: list[int] = []
    while item is not None:
        place.insert(0, image.get_item_position(item))
        item = item.get_parent()
    return place


def at(image: Any, place: list[int]) -> Any:
    """The layer at a place in an image."""
    layers = image.get_layers()
    for position in place[:-1]:
        layers = layers[position].get_children()
    return layers[place[-1]]


def is_deep(image: Any) -> bool:
    """Whether an image has more than 8 bits per channel."""
    eight = (Gimp.Precision.U8_LINEAR, Gimp.Precision.U8_NON_LINEAR, Gimp.Precision.U8_PERCEPTUAL)
    return image.get_precision() not in eight


def export(layer: Any, path: Path, *, selected: bool) -> None:
    """Write a layer alone as a PNG in RGB with its colour profile; transparent outside the selection if ``selected``.

    The work is done on a copy of the image: conversions are GIMP's, and nothing of the original is touched.
    """
    image = layer.get_image()
    copy = image.duplicate()
    try:
        copy.undo_disable()
        alone = at(copy, path_of(layer, image))
        if alone.is_group():
            alone = alone.merge()
        if alone.get_mask():
            alone.remove_mask(Gimp.MaskApplyMode.APPLY)
        if selected:
            if not alone.has_alpha():
                alone.add_alpha()
            Gimp.Selection.sharpen(copy)  # soft edges are made by the mask of the result
            alone.add_mask(alone.create_mask(Gimp.AddMaskType.SELECTION))
            alone.remove_mask(Gimp.MaskApplyMode.APPLY)
        Gimp.Selection.none(copy)
        single = Gimp.Image.new_with_precision(
            alone.get_width(), alone.get_height(), copy.get_base_type(), copy.get_precision()
        )
        try:
            write(copy, alone, single, path)
        finally:
            single.delete()
    finally:
        copy.delete()


def write(image: Any, layer: Any, single: Any, path: Path) -> None:
    """Write a layer as a PNG by way of the empty image ``single``, of its size, type and precision."""
    if single.get_base_type() == Gimp.ImageBaseType.INDEXED:
        single.set_palette(image.get_palette())
    profile = image.get_effective_color_profile()
    if profile is not None and single.get_base_type() != Gimp.ImageBaseType.INDEXED:
        single.set_color_profile(profile)
    alone = Gimp.Layer.new_from_drawable(layer, single)
    single.insert_layer(alone, None, 0)
    alone.set_offsets(0, 0)
    alone.set_visible(True)
    alone.set_opacity(100)
    alone.set_mode(Gimp.LayerMode.NORMAL)
    if single.get_base_type() != Gimp.ImageBaseType.RGB:
        single.convert_rgb()
    if is_deep(single):
        single.convert_precision(Gimp.Precision.U16_NON_LINEAR)
    if not Gimp.file_save(Gimp.RunMode.NONINTERACTIVE, single, Gio.File.new_for_path(str(path)), None):
        raise Failed(f"cannot write {path}: {Gimp.get_pdb().get_last_error()}")


def place_above(layer: Any, path: Path, name: str, *, selected: bool) -> Any:
    """Put a picture as a new layer over another, at its size; with the selection as its mask if ``selected``."""
    image = layer.get_image()
    made = Gimp.file_load_layer(Gimp.RunMode.NONINTERACTIVE, image, Gio.File.new_for_path(str(path)))
    if made is None:
        raise Failed(f"cannot read {path}: {Gimp.get_pdb().get_last_error()}")
    made.set_name(name)
    made.set_visible(False)  # until it is where it belongs
    image.insert_layer(made, layer.get_parent(), image.get_item_position(layer))
    if (selected or layer.has_alpha()) and not made.has_alpha():
        made.add_alpha()
    if (made.get_width(), made.get_height()) != (layer.get_width(), layer.get_height()):
        made.scale(layer.get_width(), layer.get_height(), False)
    _, x, y = layer.get_offsets()
    made.set_offsets(x, y)
    if selected:
        made.add_mask(made.create_mask(Gimp.AddMaskType.SELECTION))
    made.set_visible(True)
    return made


def refill(layer: Any, path: Path) -> bool:
    """Put a picture into a layer of an RGB or grey image, at its size; whether it could be read. Nothing of that goes
    into the undo history."""
    loaded = Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path(str(path)))
    if loaded is None:
        return False
    try:
        if layer.get_image().get_base_type() == Gimp.ImageBaseType.GRAY:
            loaded.convert_grayscale()
        profile = layer.get_image().get_effective_color_profile()
        if profile is not None:
            loaded.convert_color_profile(profile, Gimp.ColorRenderingIntent.RELATIVE_COLORIMETRIC, True)
        width, height = layer.get_width(), layer.get_height()
        loaded.scale(width, height)
        area, target = Gegl.Rectangle.new(0, 0, width, height), layer.get_buffer()
        loaded.get_layers()[0].get_buffer().copy(area, Gegl.AbyssPolicy.NONE, target, area)
        target.flush()
        layer.update(0, 0, width, height)
    finally:
        loaded.delete()
    return True


class Results:
    """The layers that a run makes, each above the one that is painted; ``selected``: with the selection as their masks.

    All are inserted together, as one step of the undo history, and filled again without one. No step is left open: GIMP
    ends a plug-in that is cancelled, and would complain.

    Args:
        layers: those that are painted.
        sources: what they hold, as files.
    """

    def __init__(self, layers: list[Any], sources: list[Path], *, selected: bool) -> None:
        self._layers, self._sources, self._selected = layers, sources, selected
        self._image, self._made = layers[0].get_image(), list[Any]()

    def show(self, number: int, file: Path) -> None:
        """Show a file as what becomes of the layer of that number."""
        if not self._made:
            self._insert([file if index == number else source for index, source in enumerate(self._sources)])
        elif self._made[number].is_valid():
            refill(self._made[number], file)

    def finish(self, files: list[Path]) -> None:
        """Let them hold what was painted.

        Raises:
            Failed: a file cannot be read.
        """
        if not all(layer.is_valid() for layer in self._made):  # the user has removed one
            self.remove()
        if not self._made:
            self._insert(files)
            return
        for layer, file in zip(self._made, files):
            if not refill(layer, file):
                raise Failed(f"cannot read {file}: {Gimp.get_pdb().get_last_error()}")

    def remove(self) -> None:
        """Take them away."""
        left = [layer for layer in self._made if layer.is_valid()]
        self._made = []
        if left:
            self._image.undo_group_start()
            for layer in left:
                self._image.remove_layer(layer)
            self._image.undo_group_end()

    def _insert(self, files: list[Path]) -> None:
        self._image.undo_group_start()
        try:
            for layer, file in zip(self._layers, files):
                name = f"{layer.get_name()} stylized"
                self._made.append(place_above(layer, file, name, selected=self._selected))
        finally:
            self._image.undo_group_end()


class Preview:
    """The picture in work, shown in the results until it is done."""

    def __init__(self, results: Results, file: Path) -> None:
        self._results, self._file = results, file
        self._due, self._seen = 0.0, 0

    def update(self, number: int) -> bool:
        """Show the file, of the layer of that number, if it is new and it is time to; whether that was so."""
        begun = time.monotonic()
        if begun < self._due or not self._file.exists():
            return False
        changed = self._file.stat().st_mtime_ns
        if changed == self._seen:
            return False
        self._seen = changed
        self._results.show(number, self._file)
        Gimp.displays_flush()
        now = time.monotonic()
        self._due = now + max(PAUSE, SHARE * (now - begun))
        return True


class Stylize(Gimp.PlugIn):
    """The plug-in, with one procedure."""

    def do_set_i18n(self, name: str) -> bool:
        return False

    def do_query_procedures(self) -> list[str]:
        return [NAME]

    def do_create_procedure(self, name: str) -> Any:
        about = described()
        made = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, self.run, None)
        made.set_image_types("*")
        made.set_sensitivity_mask(Gimp.ProcedureSensitivityMask.DRAWABLE | Gimp.ProcedureSensitivityMask.DRAWABLES)
        made.set_menu_label("St_ylize...")
        made.add_menu_path("<Image>/Filters/Artistic")
        blurb = "Repaint layers in the style of another picture"
        made.set_documentation(blurb, f"{blurb}; within the selection, where there is one.", name)
        made.set_attribution("stylize", "stylize", "2026")
        flags = GObject.ParamFlags.READWRITE
        made.add_file_argument(
            "style", "_Style", "The picture to paint like", Gimp.FileChooserAction.OPEN, True, None, flags
        )
        made.add_drawable_argument("style-layer", "Style _layer", "Or the layer to paint like", True, flags)
        presets = Gimp.Choice.new()
        for number, (each, summary) in enumerate(about["presets"].items()):
            presets.add(each, number, each, summary)
        tip = "Values of the settings; those that are changed below count instead"
        made.add_choice_argument("preset", "_Preset", tip, presets, "default", flags)
        for setting in about["settings"]:
            add_argument(made, setting, flags)
        tip = "More options of `stylize run`, such as those of its plugins"
        made.add_string_argument("options", "More _options", tip, "", flags)
        return made

    def run(self, procedure: Any, mode: Any, image: Any, drawables: Any, config: Any, data: Any) -> Any:
        interactive = mode != Gimp.RunMode.NONINTERACTIVE
        if mode == Gimp.RunMode.INTERACTIVE and not asked(procedure, config, described()["settings"]):
            return procedure.new_return_values(Gimp.PDBStatusType.CANCEL, GLib.Error())
        try:
            paint(image, list(drawables), config, described(), preview=interactive)
        except Failed as error:
            return procedure.new_return_values(Gimp.PDBStatusType.EXECUTION_ERROR, GLib.Error(str(error)))
        return procedure.new_return_values(Gimp.PDBStatusType.SUCCESS, GLib.Error())


def add_argument(procedure: Any, setting: Setting, flags: Any) -> None:
    """Let a procedure have an argument for a setting."""
    name, default = argument_name(setting), setting["default"]
    nick = NICKS.get(name) or setting["name"].replace("_", " ").capitalize()
    tip = f"{setting['help'][0].upper()}{setting['help'][1:]}{', ' if setting['unit'] else ''}{setting['unit']}"
    if setting["choices"]:
        choice = Gimp.Choice.new()
        for number, each in enumerate(setting["choices"]):
            choice.add(each, number, each, "")
        procedure.add_choice_argument(name, nick, tip, choice, default, flags)
    elif setting["type"] == "boolean":
        procedure.add_boolean_argument(name, nick, tip, default, flags)
    elif setting["type"] == "integer":
        low, high = int(setting["minimum"] or 0), min(int(setting["maximum"] or LARGEST), LARGEST)
        procedure.add_int_argument(name, nick, tip, min(low, default or 0), high, default or 0, flags)
    elif setting["type"] == "number":
        least = 0.001 if setting["exclusive"] else float(setting["minimum"] or 0)
        procedure.add_double_argument(name, nick, tip, least, float(setting["maximum"] or 1e6), float(default), flags)
    else:
        procedure.add_string_argument(name, nick, tip, as_text(default), flags)


def asked(procedure: Any, config: Any, settings: list[Setting]) -> bool:
    """Show the dialog; whether to go on."""
    gi.require_version("GimpUi", "3.0")
    from gi.repository import GimpUi

    GimpUi.init(NAME)
    dialog = GimpUi.ProcedureDialog.new(procedure, config, "Stylize")
    for setting in settings:
        if setting["type"] == "number":  # which would have two digits: too few for the content weight
            spin = dialog.get_widget(argument_name(setting), GimpUi.LabelSpin.__gtype__)
            spin.set_digits(3)
            step = 0.005 if setting["default"] < 1 else 0.1
            spin.set_increments(step, 10 * step)
    rest = [argument_name(setting) for setting in settings if argument_name(setting) not in SHOWN]
    dialog.get_label("rest-title", "All settings", False, False)
    dialog.fill_box("rest-box", [*rest, "options"])
    dialog.fill_expander("rest", "rest-title", False, "rest-box")
    dialog.fill(["style", "style-layer", "preset", *SHOWN, "rest"])
    going_on = bool(dialog.run())
    dialog.destroy()
    return going_on


def options(config: Any, about: dict[str, Any]) -> list[str]:
    """The options of the command line for what the dialog holds.

    Raises:
        Failed: further options have quotes that do not match.
    """
    found: list[str] = ["--preset", config.get_property("preset")]
    for setting in about["settings"]:
        found += changed(setting, config.get_property(argument_name(setting)))
    try:
        return found + shlex.split(config.get_property("options") or "")
    except ValueError as error:
        raise Failed(f"more options: {error}") from error


def paint(image: Any, layers: list[Any], config: Any, about: dict[str, Any], *, preview: bool) -> None:
    """Paint layers of an image, each into a new layer above it; one step of the undo history.

    Raises:
        Failed: what to say to the user.
    """
    style, style_layer = config.get_property("style"), config.get_property("style-layer")
    if style is None and style_layer is None:
        raise Failed("no style is chosen; choose a picture or a layer to paint like")
    if not layers:
        raise Failed("no layer is selected")
    selected = not Gimp.Selection.is_empty(image)
    folder = work_folder()
    try:
        names = [f"{number:03}.png" for number in range(len(layers))]
        sources, painted = ([folder / where / name for name in names] for where in ("layers", "painted"))
        for first in (sources[0], painted[0]):
            first.parent.mkdir()
        for layer, source in zip(layers, sources):
            export(layer, source, selected=selected)
        likeness = style.get_path() if style is not None else str(folder / "style.png")
        if style is None:
            export(style_layer, Path(likeness), selected=False)
        source, target = (sources[0], painted[0]) if len(layers) == 1 else (sources[0].parent, painted[0].parent)
        command = [*about["command"], "run", str(source), likeness, "-o", str(target), "--json"]
        command += ["--bits", "16" if is_deep(image) else "8", *options(config, about)]
        results, shown = Results(layers, sources, selected=selected), None
        if preview and image.get_base_type() != Gimp.ImageBaseType.INDEXED:  # whose layers cannot be filled again
            shown = Preview(results, folder / "preview.jpg")
            command += ["--preview-file", str(folder / "preview.jpg")]
        try:
            listen(Run(command, folder / "log.txt"), shown)
            results.finish(painted)
        except BaseException:
            results.remove()
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    Gimp.progress_end()
    Gimp.displays_flush()


def listen(run: Run, preview: Preview | None) -> None:
    """Show the progress of a run, and its picture in the image, until it ends."""
    Gimp.progress_init("Stylize")
    for event in run.events():
        if event.get("fraction") is not None:
            Gimp.progress_update(event["fraction"])  # of which GIMP is told only what moves its bar
        if event["event"] == "download":
            Gimp.progress_set_text("downloading weights, once")
        if event["event"] == "step":
            number, total = event.get("picture_number", 1), event.get("pictures", 1)
            which = f"layer {number} of {total}, " if total and total > 1 else ""
            left = event["seconds_left"]
            rest = "" if left is None else f", {max(1, round(left))} s left"
            text = f"{event['width']}x{event['height']}, step {event['number']} of {event['steps']}"
            if preview and preview.update(number - 1):
                Gimp.progress_init("Stylize")  # its bar, and with it Cancel, goes when a file has been read
                Gimp.progress_update(event["fraction"])
            Gimp.progress_set_text(f"{which}{text}{rest}")
    for warning in run.warnings:
        Gimp.message(warning)


Gimp.main(Stylize.__gtype__, sys.argv)
