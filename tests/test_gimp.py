"""The plug-in for GIMP 3, against a stand-in of PyGObject's Gimp whose images are Pillow's; and how it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

from stylize import PRESETS, Settings, setting_fields
from tests import preloaded
from tests.bench import gimp3
from tests.conftest import ROOT, Call

SOURCE = ROOT / "plugins" / "stylize_gimp" / "plug_in.py"
QUICK = {"size": 32, "steps": "3", "encoder": "tiny", "min-size": 32}


class Names:
    """Constants of GIMP: any name there is."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        return int(name == "DRAWABLES") if self._prefix == "sensitivity" else f"{self._prefix} {name}"


class File(str):
    """A file as Gio has it."""

    def get_path(self) -> str:
        return str(self)


class Buffer:
    """The pixels of a layer."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def copy(self, area: Any, policy: str, other: Buffer, place: Any) -> None:
        other.layer.picture = self.layer.picture.copy()

    def flush(self) -> None:
        return


class Layer:
    """A layer: a picture in RGBA, and perhaps a mask."""

    def __init__(self, image: Canvas, picture: Image.Image, name: str = "layer") -> None:
        self.image, self.picture, self.name = image, picture.convert("RGBA"), name
        self.offsets = (0, 0)
        self.mask: Any = None
        self.alive = self.visible = True

    def get_image(self) -> Canvas:
        return self.image

    def get_name(self) -> str:
        return self.name

    def set_name(self, name: str) -> None:
        self.name = name

    def get_width(self) -> int:
        return self.picture.width

    def get_height(self) -> int:
        return self.picture.height

    def get_parent(self) -> None:
        return None

    def get_offsets(self) -> tuple[bool, int, int]:
        return True, *self.offsets

    def set_offsets(self, x: int, y: int) -> None:
        self.offsets = x, y

    def is_group(self) -> bool:
        return False

    def is_valid(self) -> bool:
        return self.alive

    def has_alpha(self) -> bool:
        return True

    def get_mask(self) -> Any:
        return self.mask

    def create_mask(self, kind: str) -> Any:
        assert kind == "mask SELECTION"
        x, y = self.offsets
        assert self.image.selection is not None
        return self.image.selection.crop((x, y, x + self.picture.width, y + self.picture.height))

    def add_mask(self, mask: Any) -> None:
        self.mask = mask

    def remove_mask(self, mode: str) -> None:
        assert mode == "apply APPLY"
        self.picture.putalpha(ImageChops.multiply(self.picture.getchannel("A"), self.mask))
        self.mask = None

    def scale(self, width: int, height: int, local: bool) -> None:
        self.picture = self.picture.resize((width, height))

    def set_visible(self, visible: bool) -> None:
        self.visible = visible

    def get_buffer(self) -> Buffer:
        return Buffer(self)

    def update(self, x: int, y: int, width: int, height: int) -> None:
        assert (x, y, width, height) == (0, 0, *self.picture.size)
        self.image.seen.append("refilled")

    def set_opacity(self, opacity: float) -> None:
        assert opacity == 100

    def set_mode(self, mode: str) -> None:
        assert mode == "mode NORMAL"


class Canvas:
    """An image: layers from the top down, a selection, and what would be in the undo history."""

    def __init__(self, *pictures: Image.Image, precision: str = "precision U8_NON_LINEAR") -> None:
        self.layers = [Layer(self, picture, f"layer {number}") for number, picture in enumerate(pictures)]
        self.selection: Any = None
        self.precision, self.history = precision, list[str]()
        self.frozen = self.depth = 0
        self.seen: list[str] = []

    def duplicate(self) -> Canvas:
        copy = Canvas(*(layer.picture.copy() for layer in self.layers), precision=self.precision)
        for one, other in zip(copy.layers, self.layers, strict=True):
            one.offsets, one.mask = other.offsets, other.mask
        copy.selection = self.selection
        return copy

    def get_layers(self) -> list[Layer]:
        return self.layers

    def get_item_position(self, layer: Layer) -> int:
        return self.layers.index(layer)

    def insert_layer(self, layer: Layer, parent: None, position: int) -> None:
        self.layers.insert(position, layer)
        self.seen.append(layer.name)
        if not self.frozen and not self.depth:
            self.history.append(f"insert {layer.name}")

    def remove_layer(self, layer: Layer) -> None:
        assert self.depth, "a step of its own in the undo history"
        self.layers.remove(layer)
        layer.alive = False

    def undo_group_start(self) -> None:
        assert not self.frozen
        self.depth += 1

    def undo_group_end(self) -> None:
        self.depth -= 1
        self.history.append("group")

    def scale(self, width: int, height: int) -> None:
        for layer in self.layers:
            layer.scale(width, height, False)

    def undo_disable(self) -> None:
        self.frozen += 1

    def get_precision(self) -> str:
        return self.precision

    def convert_precision(self, precision: str) -> None:
        self.precision = precision

    def get_base_type(self) -> str:
        return "base RGB"

    def get_effective_color_profile(self) -> None:
        return None

    def delete(self) -> None:
        return


class Gimp:
    """What the plug-in is told and tells: its arguments, progress and messages."""

    def __init__(self) -> None:
        self.arguments: dict[str, tuple[str, tuple[Any, ...]]] = {}
        self.progress: list[float] = []
        self.begun: list[float] = []  # the progress when a bar was begun
        self.texts: list[str] = []
        self.messages: list[str] = []

    def modules(self) -> dict[str, ModuleType]:
        gimp = self

        class Procedure:
            def __getattr__(self, name: str) -> Any:
                def record(*values: Any) -> None:
                    if name.startswith("add_") and name.endswith("_argument"):
                        assert "_" not in values[0]
                        gimp.arguments[values[0]] = name[4:-9], values[1:]

                return record

            def new_return_values(self, status: str, error: Any) -> tuple[str, str]:
                return status, str(error)

        class Choice:
            def __init__(self) -> None:
                self.names: list[str] = []

            def add(self, name: str, number: int, label: str, help: str) -> None:
                self.names.append(name)

        def save(mode: str, image: Canvas, file: Path, options: None) -> bool:
            (layer,) = image.layers
            layer.picture.save(file)
            return True

        def load_layer(mode: str, image: Canvas, file: Path) -> Layer:
            with Image.open(file) as picture:
                return Layer(image, picture, "loaded")

        def sharpen(image: Canvas) -> None:
            image.selection = image.selection and image.selection.point(lambda value: 255 * (value > 127))

        repository = SimpleNamespace(
            Gimp=SimpleNamespace(
                PlugIn=type("PlugIn", (), {"__gtype__": None}),
                ImageProcedure=SimpleNamespace(new=lambda *_: Procedure()),
                Choice=SimpleNamespace(new=Choice),
                Image=SimpleNamespace(new_with_precision=lambda w, h, base, precision: Canvas(precision=precision)),
                Layer=SimpleNamespace(new_from_drawable=lambda layer, image: Layer(image, layer.picture.copy())),
                Selection=SimpleNamespace(
                    is_empty=lambda image: image.selection is None,
                    none=lambda image: None,
                    sharpen=sharpen,
                ),
                AddMaskType=Names("mask"),
                MaskApplyMode=Names("apply"),
                LayerMode=Names("mode"),
                Precision=Names("precision"),
                ImageBaseType=Names("base"),
                RunMode=Names("run"),
                PDBStatusType=Names("status"),
                PDBProcType=Names("type"),
                FileChooserAction=Names("file"),
                ProcedureSensitivityMask=Names("sensitivity"),
                file_save=save,
                file_load=lambda mode, file: Canvas(Image.open(file)),
                file_load_layer=load_layer,
                progress_init=lambda text: gimp.begun.append(gimp.progress[-1] if gimp.progress else 0.0),
                progress_end=lambda: None,
                progress_update=gimp.progress.append,
                progress_set_text=gimp.texts.append,
                displays_flush=lambda: None,
                message=gimp.messages.append,
                main=lambda kind, arguments: None,
            ),
            Gegl=SimpleNamespace(Rectangle=SimpleNamespace(new=lambda *area: area), AbyssPolicy=Names("policy")),
            Gio=SimpleNamespace(File=SimpleNamespace(new_for_path=File)),
            GLib=SimpleNamespace(Error=lambda text="": text),
            GObject=SimpleNamespace(ParamFlags=Names("flags")),
        )
        package, inner = ModuleType("gi"), ModuleType("gi.repository")
        vars(package).update(require_version=lambda name, version: None, repository=inner)
        vars(inner).update(vars(repository))
        return {"gi": package, "gi.repository": inner}


class Config:
    """What the dialog holds: the defaults of the arguments, and what was changed."""

    def __init__(self, gimp: Gimp, **values: Any) -> None:
        self._values = {
            name: each[1][-2] for name, each in gimp.arguments.items() if each[0] not in ("file", "drawable")
        }
        self._values |= {"style": None, "style-layer": None, **values}

    def get_property(self, name: str) -> Any:
        return self._values[name] or (None if isinstance(self._values[name], str) else self._values[name])


@pytest.fixture
def gimp() -> Gimp:
    return Gimp()


@pytest.fixture
def plug_in(call: Call, folder: Path, gimp: Gimp, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The plug-in as it was installed, with its procedure made; the tiny encoder is found by the program it starts."""
    assert call("gimp", "install", folder / "plug-ins").code == 0
    for name, module in gimp.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    about = folder / "plug-ins" / "stylize" / "stylize.json"
    found = json.loads(about.read_text())
    start = folder / "plug-ins" / "start.py"
    start.write_text(
        f"import sys; sys.path.insert(0, {str(sys.path[0])!r}); from stylize.cli.main import main; main(sys.argv[1:])"
    )
    about.write_text(json.dumps({**found, "command": [sys.executable, str(start)]}))
    spec = importlib.util.spec_from_file_location("plug_in", folder / "plug-ins" / "stylize" / "stylize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": preloaded.Popen}))
    monkeypatch.chdir(folder)
    module.Stylize().do_create_procedure(module.NAME)
    yield module
    assert not list(folder.glob("stylize-gimp-*")), "a folder was left behind"


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def style(folder: Path) -> File:
    picture(40, 40, 7).save(folder / "style.png")
    return File(folder / "style.png")


def run(
    plug_in: Any, gimp: Gimp, image: Canvas, layers: list[Layer], *, mode: str = "NONINTERACTIVE", **values: Any
) -> Any:
    procedure = plug_in.Gimp.ImageProcedure.new()
    config = Config(gimp, **{**QUICK, **{name.replace("_", "-"): value for name, value in values.items()}})
    return plug_in.Stylize().run(procedure, f"run {mode}", image, layers, config, None)


# Installing


def test_it_is_installed_where_gimp_looks_for_it(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIMP3_DIRECTORY", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    done = call("gimp", "install")
    assert done.code == 1
    assert "start GIMP once" in done.err
    for version in ("2.10", "3.0", "3.10", "3.2"):
        (folder / "config" / "GIMP" / version).mkdir(parents=True)
    for _ in range(2):
        assert call("gimp", "install").code == 0
    script = folder / "config" / "GIMP" / "3.10" / "plug-ins" / "stylize" / "stylize.py"
    assert script.read_bytes() == SOURCE.read_bytes()
    assert os.access(script, os.X_OK)
    about = json.loads(script.with_suffix(".json").read_text())
    assert about["command"] == [sys.executable, "-m", "stylize"]
    assert {each["name"] for each in about["settings"]} == {each.name for each in setting_fields()}
    (encoder,) = [each for each in about["settings"] if each["name"] == "encoder"]
    assert "tiny" in encoder["choices"]


def test_what_is_not_ours_is_left_alone(call: Call, folder: Path) -> None:
    other = folder / "stylize" / "stylize.py"
    other.parent.mkdir()
    other.write_text("print('another')")
    done = call("gimp", "install", folder)
    assert done.code == 1
    assert "belongs to something else" in done.err
    assert other.read_text() == "print('another')"


def test_it_needs_only_what_gimps_python_has() -> None:
    code = "import ast, sys; names = {a.name.partition('.')[0] for n in ast.walk(ast.parse(open(sys.argv[1]).read())) "
    code += "if isinstance(n, ast.Import) for a in n.names} - {'gi'}; sys.exit(bool(names - sys.stdlib_module_names))"
    assert subprocess.run([sys.executable, "-c", code, str(SOURCE)], timeout=300).returncode == 0
    compile(SOURCE.read_text(), "plug_in", "exec")


# The procedure


def test_there_is_an_argument_for_every_setting(plug_in: Any, gimp: Gimp) -> None:
    for field in setting_fields():
        kind, values = gimp.arguments[field.name.replace("_", "-")]
        if kind in ("int", "double"):
            _, _, low, high, default, _ = values
            assert low <= default <= high
    kind, values = gimp.arguments["preset"]
    assert (kind, values[2].names) == ("choice", [*PRESETS])
    assert gimp.arguments["content-weight"][1][-2] == Settings().content_weight
    assert gimp.arguments["style-layers"][0] == "string"


def test_only_what_was_changed_is_passed_on(plug_in: Any, gimp: Gimp) -> None:
    about = plug_in.described()
    assert plug_in.options(Config(gimp), about) == ["--preset", "default"]
    changes = {
        "size": 1024,
        "content-weight": 0.1,
        "upscale": True,
        "steps": "5, 3",
        "seed": 4,
        "options": "--bits '16'",
    }
    changes |= {"preset": "strong", "scales": 2, "style-layers": "relu1_1=2"}
    assert plug_in.options(Config(gimp, **changes), about) == [
        *("--preset", "strong", "--size", "1024", "--upscale", "--scales", "2", "--steps", "5,3"),
        *("--content-weight", "0.1", "--style-layers", "relu1_1=2", "--seed", "4", "--bits", "16"),
    ]


@pytest.mark.slow
def test_a_layer_is_painted_into_a_new_one_above_it(plug_in: Any, gimp: Gimp, style: File) -> None:
    image = Canvas(picture(48, 36, 1), picture(48, 36, 2))
    image.layers[1].offsets = (5, 7)
    below = image.layers[1].picture.copy()
    assert run(plug_in, gimp, image, [image.layers[1]], style=style)[0] == "status SUCCESS"
    assert [layer.name for layer in image.layers] == ["layer 0", "layer 1 stylized", "layer 1"]
    made = image.layers[1]
    assert (made.picture.size, made.offsets, made.mask) == ((48, 36), (5, 7), None)
    assert image.layers[2].picture.tobytes() == below.tobytes()
    assert np.abs(np.asarray(made.picture, int) - np.asarray(below, int)).mean() > 0.5
    assert image.history == ["group"]
    assert gimp.progress == sorted(gimp.progress)
    assert gimp.progress[-1] == 1.0
    assert any(text.startswith("32x24, step 3 of 3") for text in gimp.texts)


@pytest.mark.slow
def test_nothing_outside_the_selection_counts_or_changes(plug_in: Any, gimp: Gimp, style: File) -> None:
    selection = Image.new("L", (48, 36), 0)
    selection.paste(255, (24, 0, 48, 36))
    selection.paste(100, (22, 0, 24, 36))  # a soft edge
    made = []
    for seed in (1, 2):
        photo = picture(48, 36, 1)
        photo.paste(picture(16, 36, seed), (0, 0))  # differs outside
        image = Canvas(photo)
        image.selection = selection
        assert run(plug_in, gimp, image, image.layers[:], style=style)[0] == "status SUCCESS"
        assert image.layers[0].mask.tobytes() == selection.tobytes()
        made.append(np.asarray(image.layers[0].picture)[:, 28:])
    np.testing.assert_array_equal(made[0], made[1])


def show_at_once(plug_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show each preview as soon as it is there."""
    monkeypatch.setattr(plug_in, "PAUSE", 0.0)
    monkeypatch.setattr(plug_in, "SHARE", 0)


@pytest.mark.slow
def test_previews_of_several_layers_are_one_step_back(
    plug_in: Any, gimp: Gimp, style: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_at_once(plug_in, monkeypatch)
    made = []
    for mode in ("WITH_LAST_VALS", "NONINTERACTIVE"):
        image = Canvas(picture(48, 36, 1), picture(30, 40, 2))
        assert run(plug_in, gimp, image, image.layers[:], mode=mode, style=style, steps="20")[0] == "status SUCCESS"
        assert [layer.name for layer in image.layers] == ["layer 0 stylized", "layer 0", "layer 1 stylized", "layer 1"]
        assert image.history == ["group"]
        made.append([layer.picture.tobytes() for layer in image.layers])
    assert made[0] == made[1]


@pytest.mark.slow
def test_no_step_of_the_history_is_open_while_it_paints(
    plug_in: Any, gimp: Gimp, style: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIMP ends a plug-in that is cancelled, and would say so in a dialog."""
    monkeypatch.setattr(plug_in, "PAUSE", 0.0)
    image = Canvas(picture(48, 36, 1))
    before, depths = image.layers[0].picture.tobytes(), list[int]()
    monkeypatch.setattr(plug_in.Gimp, "progress_set_text", lambda text: depths.append(image.depth))
    assert run(plug_in, gimp, image, [image.layers[0]], mode="WITH_LAST_VALS", style=style)[0] == "status SUCCESS"
    assert set(depths) == {0}
    assert image.layers[1].picture.tobytes() == before


@pytest.mark.slow
def test_several_layers_are_one_job(plug_in: Any, gimp: Gimp, style: File) -> None:
    image = Canvas(picture(48, 36, 1), picture(30, 40, 2))
    assert run(plug_in, gimp, image, image.layers[:], style=style)[0] == "status SUCCESS"
    assert [layer.name for layer in image.layers] == ["layer 0 stylized", "layer 0", "layer 1 stylized", "layer 1"]
    assert [layer.picture.size for layer in image.layers] == [(48, 36), (48, 36), (30, 40), (30, 40)]
    assert image.history == ["group"]
    assert any(text.startswith("layer 2 of 2, ") for text in gimp.texts)
    assert gimp.progress == sorted(gimp.progress)


@pytest.mark.slow
def test_the_style_may_be_a_layer(plug_in: Any, gimp: Gimp, style: File) -> None:
    image = Canvas(picture(48, 36, 1))
    likeness = Canvas(picture(40, 40, 7)).layers[0]
    assert run(plug_in, gimp, image, [image.layers[0]], style_layer=likeness)[0] == "status SUCCESS"
    other = Canvas(picture(48, 36, 1))
    assert run(plug_in, gimp, other, [other.layers[0]], style=style)[0] == "status SUCCESS"
    assert image.layers[0].picture.tobytes() == other.layers[0].picture.tobytes()


@pytest.mark.slow
def test_deep_images_are_painted_with_16_bits(
    plug_in: Any, gimp: Gimp, style: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    class Run(plug_in.Run):  # type: ignore[misc]
        def __init__(self, command: list[str], log: Path) -> None:
            commands.append(command)
            super().__init__(command, log)

    monkeypatch.setattr(plug_in, "Run", Run)
    for precision, bits in (("U8_LINEAR", "8"), ("FLOAT_LINEAR", "16")):
        image = Canvas(picture(48, 36, 1), precision=f"precision {precision}")
        assert run(plug_in, gimp, image, [image.layers[0]], style=style)[0] == "status SUCCESS"
        assert commands[-1][commands[-1].index("--bits") + 1] == bits


@pytest.mark.slow
def test_the_picture_is_shown_while_it_is_painted_and_leaves_no_trace(
    plug_in: Any, gimp: Gimp, style: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_at_once(plug_in, monkeypatch)
    image = Canvas(picture(48, 36, 1))
    status = run(plug_in, gimp, image, [image.layers[0]], mode="WITH_LAST_VALS", style=style, steps="60", size=48)
    assert status[0] == "status SUCCESS"
    assert image.seen.count("layer 0 stylized") == 1
    assert image.seen.count("refilled") >= 2  # the last time with the result
    assert len(gimp.begun) >= 2  # reading a file has ended the bar
    assert image.layers[0].visible
    assert [layer.name for layer in image.layers] == ["layer 0 stylized", "layer 0"]
    assert image.history == ["group"]
    assert image.depth == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no style is chosen"),
        ({"style": File("missing.png")}, "cannot read missing.png"),
        ({"style": File("style.png"), "steps": "many"}, "'many'"),
        ({"style": File("style.png"), "options": "--no-such"}, "--no-such"),
        ({"style": File("style.png"), "options": "'"}, "quotation"),
    ],
)
def test_errors_are_gimps_and_the_image_stays(
    plug_in: Any, gimp: Gimp, style: File, values: dict[str, Any], message: str
) -> None:
    image = Canvas(picture(48, 36, 1))
    status, error = run(plug_in, gimp, image, [image.layers[0]], mode="WITH_LAST_VALS", **values)
    assert status == "status EXECUTION_ERROR"
    assert message in error
    assert "\n" not in error
    assert [layer.name for layer in image.layers] == ["layer 0"]
    assert (image.history, image.depth) == ([], 0)


def test_a_program_that_is_gone_is_named(
    plug_in: Any, gimp: Gimp, style: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {**plug_in.described(), "command": ["/gone/python"]}
    monkeypatch.setattr(plug_in, "described", lambda: about)
    image = Canvas(picture(48, 36, 1))
    status, error = run(plug_in, gimp, image, [image.layers[0]], style=style)
    assert status == "status EXECUTION_ERROR"
    assert "/gone/python" in error
    assert "stylize gimp install" in error


@pytest.mark.slow
def test_the_program_ends_when_gimp_is_told_to_cancel(plug_in: Any, style: File, folder: Path) -> None:
    """GIMP ends the plug-in at once, which then reads no more."""
    picture(64, 48, 1).save(folder / "photo.png")
    command = [*plug_in.described()["command"], "photo.png", str(style), "-o", "out.png", "--json"]
    command += ["--size", "64", "--min-size", "64", "--steps", "100000", "--tolerance", "0", "--encoder", "tiny"]
    run = plug_in.Run(command, folder / "log.txt")
    events = run.events()
    while next(events)["event"] != "step":
        pass
    run._child.stdout.close()
    assert run._child.wait(300) != 0


@pytest.mark.slow
def test_the_folder_of_a_cancelled_run_is_removed_by_the_next(
    plug_in: Any, gimp: Gimp, style: File, folder: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    (folder / f"stylize-gimp-{gone.pid}-x" / "layers").mkdir(parents=True)
    mine = folder / f"stylize-gimp-{os.getpid()}-y"
    mine.mkdir()
    image = Canvas(picture(48, 36, 1))
    run(plug_in, gimp, image, [image.layers[0]], style=style)
    assert [path.name for path in folder.glob("stylize-gimp-*")] == [mine.name]
    mine.rmdir()


# GIMP itself


@pytest.mark.gimp
@pytest.mark.skipif(shutil.which("gimp-console-3.0") is None, reason="no GIMP 3; Debian 13: apt-get install gimp")
def test_the_real_gimp_paints_selections_and_every_kind_of_image(tmp_path: Path) -> None:
    found = gimp3.look(tmp_path)
    selection = found["selection"]
    assert selection["layers"] == ["Background stylized", "Background"]
    assert selection["size"] == [1024, 768]
    assert selection["kept_outside"]
    assert selection["painted_inside"]
    for name, told in found["kinds"].items():
        assert (told["status"], told["over"]) == ("success", True), name
        assert abs(told["mean"][0] - told["mean"][1]) < 0.15, name
    assert [len(told["layers"]) for told in found["several"].values()] == [4, 5]
    for name, words in {"no style": "no style", "broken style": "broken.jpg", "bad steps": "many"}.items():
        told = found["errors"][name]
        assert (told["status"], told["layers"]) == ("execution-error", ["Background"])
        assert words in told["error"]


@pytest.mark.gimp
@pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("gimp-3.0", "xvfb-run", "openbox", "xdotool", "import")),
    reason="needs GIMP 3, Xvfb, openbox, xdotool and ImageMagick",
)
def test_in_its_window_one_step_undoes_it_and_cancel_ends_it(tmp_path: Path) -> None:
    found = gimp3.look(tmp_path, window=True)
    for name in ("window", "cancelled"):
        assert found[name]["layers"] == ["Background stylized", "Background"]
        assert found[name]["after_one_undo"] == ["Background"]
    assert found["cancelled"]["status"] == "cancel"
    assert found["cancelled"]["as_before"]
    assert found["cancelled"]["still_painting"] == 0
    for told in found["previews"].values():
        assert (told["status"], told["layers"]) == ("success", ["Background stylized", "Background"])
        assert abs(told["mean"][0] - told["mean"][1]) < 0.15
