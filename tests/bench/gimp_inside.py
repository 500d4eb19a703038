"""What GIMP 3 does with the plug-in, looked at from inside: run by tests/bench/gimp3.py in GIMP's own Python.

The environment names the folder for pictures and results (STYLIZE_GIMP_FOLDER), and whether there is a window
(STYLIZE_GIMP_WINDOW).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gegl", "0.4")
from gi.repository import Gegl, Gimp, Gio  # noqa: E402

FOLDER = Path(os.environ["STYLIZE_GIMP_FOLDER"])
SETTINGS = {"size": 96, "encoder": "mini", "steps": "6"}
ENDLESS = {"size": 384, "steps": "100000", "options": "--optimizer adam --tolerance 0"}
CANCEL = 282, 23  # px from the lower right corner of the window to the button, beside the bar


def opened(name: str) -> Any:
    return Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path(str(FOLDER / name)))


def seen(image: Any, x: int, y: int, width: int, height: int) -> str:
    """The digest of a part of what an image shows, in its own numbers."""
    copy = image.duplicate()
    layer = copy.flatten()
    buffer, place = layer.get_buffer(), Gegl.Rectangle.new(x, y, width, height)
    data = buffer.get(place, 1.0, None, Gegl.AbyssPolicy.NONE)
    copy.delete()
    return hashlib.sha256(bytes(data)).hexdigest()


def stylized(image: Any, layers: list[Any], *, mode: Any = None, **values: Any) -> dict[str, Any]:
    """Run the procedure; its status, and how many layers there are."""
    procedure = Gimp.get_pdb().lookup_procedure("plug-in-stylize")
    config = procedure.create_config()
    config.set_property("image", image)
    config.set_core_object_array("drawables", layers)
    if mode is not None:
        config.set_property("run-mode", mode)
    style = Gio.File.new_for_path(str(FOLDER / "waves.jpg"))
    for name, value in {"style": style, **SETTINGS, **values}.items():
        if value is not None:
            config.set_property(name.replace("_", "-"), value)
    result = procedure.run(config)
    status = result.index(0)
    error = "" if status == Gimp.PDBStatusType.SUCCESS else Gimp.get_pdb().get_last_error()
    names = [layer.get_name() for layer in image.get_layers()]
    return {"status": status.value_nick, "error": error, "layers": names}


def selection() -> dict[str, Any]:
    """A photo of 1024x768 with a selection: nothing outside it may change."""
    image = opened("large.png")
    image.select_rectangle(Gimp.ChannelOps.REPLACE, 300, 200, 400, 300)
    outside = [(0, 0, 1024, 200), (0, 500, 1024, 268), (0, 200, 300, 300), (700, 200, 324, 300)]
    before, inside = [seen(image, *part) for part in outside], seen(image, 300, 200, 400, 300)
    told = stylized(image, [image.get_layers()[0]])
    top = image.get_layers()[0]
    size = [top.get_width(), top.get_height()]
    kept, painted = before == [seen(image, *part) for part in outside], inside != seen(image, 300, 200, 400, 300)
    save(image, "selection.png")
    return {**told, "size": size, "kept_outside": kept, "painted_inside": painted}


def kinds() -> dict[str, Any]:
    """Grey, indexed, 16 bits, floats with alpha, and a profile of its own."""
    found: dict[str, Any] = {}
    for name in ("grey", "indexed", "deep", "float", "group", "moved"):
        image = converted(opened("small.png"), name)
        layer = image.get_layers()[0]
        if name == "group":
            group = Gimp.GroupLayer.new(image, "group")
            image.insert_layer(group, None, 0)
            image.reorder_item(layer, group, 0)
        if name == "moved":
            layer.set_offsets(20, 10)
        told = stylized(image, [layer])
        _, x, y = layer.get_offsets()
        over = [each for each in at_level(layer, image) if each.get_name().endswith(" stylized")]
        places = [(each.get_width(), each.get_height(), *each.get_offsets()[1:]) for each in over]
        told["over"] = places == [(layer.get_width(), layer.get_height(), x, y)]
        told["mean"] = [round(mean(each), 3) for each in (layer, *over)]
        save(image, f"kind-{name}.png")
        found[name] = told
    return found


def converted(image: Any, kind: str) -> Any:
    if kind == "grey":
        image.convert_grayscale()
    elif kind == "indexed":
        image.convert_indexed(Gimp.ConvertDitherType.NONE, Gimp.ConvertPaletteType.GENERATE, 32, False, False, "")
    elif kind == "deep":
        image.convert_precision(Gimp.Precision.U16_NON_LINEAR)
    elif kind == "float":
        image.convert_precision(Gimp.Precision.FLOAT_LINEAR)
        image.get_layers()[0].add_alpha()
    return image


def previews() -> dict[str, Any]:
    """With previews, by the values of the last run, a result is what it is without."""
    found: dict[str, Any] = {}
    for kind in ("grey", "indexed", "deep", "float"):
        image = converted(opened("large.png"), kind)
        told = stylized(image, [image.get_layers()[0]], mode=Gimp.RunMode.WITH_LAST_VALS)
        told["mean"] = [round(mean(each), 3) for each in image.get_layers()]
        save(image, f"preview-{kind}.png")
        found[kind] = told
    return found


def at_level(layer: Any, image: Any) -> list[Any]:
    """The layers beside a layer."""
    parent = layer.get_parent()
    return list(image.get_layers() if parent is None else parent.get_children())


def mean(layer: Any) -> float:
    """The mean brightness of a layer, in [0, 1]."""
    data = layer.get_buffer().get(
        Gegl.Rectangle.new(0, 0, layer.get_width(), layer.get_height()), 1.0, "Y' u8", Gegl.AbyssPolicy.NONE
    )
    return float(sum(data)) / len(data) / 255


def several() -> dict[str, Any]:
    """Two layers at once, and a layer as the style."""
    image = opened("small.png")
    copy = image.get_layers()[0].copy()
    image.insert_layer(copy, None, 0)
    both = stylized(image, image.get_layers())
    other = opened("waves.jpg")
    by_layer = stylized(image, [image.get_layers()[-1]], style=None, style_layer=other.get_layers()[0])
    return {"both": both, "by_layer": by_layer}


def errors() -> dict[str, Any]:
    """What goes wrong is said, and leaves the image as it was."""
    image = opened("small.png")
    layers = image.get_layers()
    broken = Gio.File.new_for_path(str(FOLDER / "broken.jpg"))
    return {
        "no style": stylized(image, layers, style=None),
        "broken style": stylized(image, layers, style=broken),
        "bad steps": stylized(image, layers, steps="many"),
        "bad options": stylized(image, layers, options="--no-such-option"),
        "quotes": stylized(image, layers, options="--name 'x"),
    }


def window() -> dict[str, Any]:
    """With the dialog, previews in the window, and one step back."""
    image = opened("large.png")
    image.select_ellipse(Gimp.ChannelOps.REPLACE, 112, 84, 800, 600)
    Gimp.Display.new(image)
    Gimp.displays_flush()
    time.sleep(2)
    welcome = ["xdotool", "search", "--name", "Welcome to GIMP", "windowactivate", "--sync", "key", "Escape"]
    subprocess.run(welcome, check=False)  # where it is shown
    hand = "sleep 14; import -window root dialog.png; xdotool key Return; "
    hand += "for n in $(seq -w 40); do sleep 0.8; import -window root during-$n.png; done"
    hands = subprocess.Popen(["bash", "-c", hand], cwd=FOLDER)
    told = stylized(image, [image.get_layers()[0]], mode=Gimp.RunMode.INTERACTIVE, size=384, steps="40,16,33")
    hands.terminate()
    time.sleep(2)
    shoot("after.png")
    subprocess.run(["xdotool", "key", "ctrl+z"], check=True)
    time.sleep(3)
    told["after_one_undo"] = [layer.get_name() for layer in image.get_layers()]
    shoot("undone.png")
    return told


def cancelled() -> dict[str, Any]:
    """Cancel pressed while it is painted. It comes before the others, as the dialog begins with what was set for the
    last run that ended well."""
    image = opened("large.png")
    layers, shown = image.get_layers(), seen(image, 0, 0, 1024, 768)
    Gimp.Display.new(image)
    Gimp.displays_flush()
    time.sleep(2)
    hand = "sleep 14; xdotool key Return; "
    hand += "for n in $(seq 600); do sleep 0.5; pgrep -f ${TMPDIR:-/tmp}/stylize-gimp- && break; done; sleep 8; "
    hand += "eval $(xdotool getactivewindow getwindowgeometry --shell); "  # away from the canvas, whose hints hide it
    hand += f"xdotool mousemove $((X + WIDTH - {CANCEL[0]})) $((Y + HEIGHT - {CANCEL[1]})); sleep 3; "
    hand += "import -window root running.png; date +%s.%N > pressed; xdotool click 1"
    with subprocess.Popen(["bash", "-c", hand], cwd=FOLDER):
        told = stylized(image, [layers[0]], mode=Gimp.RunMode.INTERACTIVE, **ENDLESS)
    begun = float((FOLDER / "pressed").read_text())
    while (found := painting()) and time.time() - begun < 300:
        time.sleep(0.1)
    told |= {"still_painting": found, "seconds_to_end": round(time.time() - begun, 1)}
    shoot("cancelled.png")
    subprocess.run(["xdotool", "key", "ctrl+z"], check=True)
    time.sleep(3)
    told["after_one_undo"] = [layer.get_name() for layer in image.get_layers()]
    told["as_before"] = seen(image, 0, 0, 1024, 768) == shown
    return told


def painting() -> int:
    """How many programs paint for this GIMP."""
    pattern = f"{os.environ.get('TMPDIR', '/tmp')}/stylize-gimp-"
    return len(subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True).stdout.split())


def shoot(name: str) -> None:
    subprocess.run(["import", "-window", "root", str(FOLDER / name)], check=True)


def save(image: Any, name: str) -> None:
    copy = image.duplicate()
    copy.flatten()
    Gimp.file_save(Gimp.RunMode.NONINTERACTIVE, copy, Gio.File.new_for_path(str(FOLDER / name)), None)
    copy.delete()


def main() -> None:
    parts = (
        [cancelled, window, previews] if os.environ.get("STYLIZE_GIMP_WINDOW") else [selection, kinds, several, errors]
    )
    found: dict[str, Any] = {}
    for part in parts:
        try:
            found[part.__name__] = part()
        except Exception as error:
            found[part.__name__] = repr(error)
    (FOLDER / "found.json").write_text(json.dumps(found, indent=1))


main()
