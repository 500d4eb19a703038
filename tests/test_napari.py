"""The napari plugin in napari: its manifest, layers without a screen, the widget offscreen, the viewer under Xvfb."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

import stylize
from tests.conftest import ROOT

REASON = "napari is not installed; pip install 'stylize-host[napari]'"
npe2 = pytest.importorskip("npe2", reason=REASON)
components = pytest.importorskip("napari.components", reason=REASON)
notifications = pytest.importorskip("napari.utils.notifications", reason=REASON)

PLUGIN = "stylize-host"


@pytest.fixture(scope="session")
def application() -> Any:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    try:
        from qtpy.QtWidgets import QApplication
    except ImportError as error:
        pytest.skip(f"Qt cannot be loaded here: {error}")
    return QApplication.instance() or QApplication([])


# The manifest


def manifest() -> Any:
    return npe2.PluginManifest.from_distribution(PLUGIN)


def test_the_manifest_is_valid_and_all_it_names_is_there(application: Any) -> None:
    found = manifest()
    found.validate_imports()
    commands = {command.id for command in found.contributions.commands}
    used = {
        contribution.command
        for kind in (found.contributions.widgets, found.contributions.sample_data, found.contributions.writers)
        for contribution in kind
    }
    assert used == commands
    (menu,) = found.contributions.menus.values()
    assert [item.command for item in menu] == ["stylize-host.widget"]


def test_the_manifest_validates_on_the_command_line() -> None:
    command = [sys.executable, "-m", "npe2", "validate", PLUGIN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


# Without a screen


@pytest.fixture
def viewer() -> Iterator[Any]:
    from napari.plugins import _initialize_plugins

    _initialize_plugins()
    yield components.ViewerModel()
    notifications.notification_manager.records.clear()


@pytest.mark.parametrize("key", ["bridge", "cat"])
def test_a_sample_is_two_layers(viewer: Any, key: str) -> None:
    viewer.open_sample(PLUGIN, key)
    photo, style = viewer.layers
    assert photo.rgb
    assert style.rgb
    assert style.extent.world[0, 1] > photo.extent.world[1, 1]


def test_layers_are_saved_with_their_record_or_as_napari_does(viewer: Any, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)
    made = viewer.add_image(data, metadata={"stylize": {"settings": {}}})
    other = viewer.add_image(data[..., 0])
    for layer, record in ((made, {"settings": {}}), (other, None)):
        path = tmp_path / f"{layer.name}.png"
        assert layer.save(str(path), plugin=PLUGIN) == [str(path)]
        np.testing.assert_array_equal(np.asarray(PillowImage.open(path)), layer.data)
        assert stylize.read_record(path) == record


# The widget, offscreen


@pytest.fixture
def widget(application: Any, viewer: Any) -> Iterator[Any]:
    from stylize_napari.widget import StylizeWidget

    generator = np.random.default_rng(0)
    viewer.add_image(generator.integers(0, 255, (48, 64, 3), np.uint8), name="content")
    viewer.add_image(generator.integers(0, 255, (40, 40, 3), np.uint8), name="style")
    made = StylizeWidget(viewer)
    made["style"].value = viewer.layers["style"]
    wait(made, lambda: "mini" in made.form["encoder"].choices)
    made["size"].value, made.form["encoder"].value, made.form["device"].value = 32, "mini", "cpu"
    yield made
    press(made, "stop")
    wait(made)
    made.close()


def press(widget: Any, button: str) -> None:
    widget["buttons"][button].native.click()


def running(widget: Any) -> bool:
    return not widget["buttons"]["run"].enabled


def wait(widget: Any, until: Callable[[], object] | None = None) -> None:
    """Let Qt go on until something is so; else until the run is over."""
    from qtpy.QtWidgets import QApplication

    begun = time.monotonic()
    while not until() if until else running(widget):
        assert time.monotonic() - begun < 300
        QApplication.processEvents()
        time.sleep(0.005)


def said(viewer: Any) -> list[str]:
    return [str(record.message) for record in notifications.notification_manager.records]


def test_a_run_paints_a_layer_over_its_content(widget: Any, viewer: Any) -> None:
    content = viewer.layers["content"]
    content.scale, content.translate, content.rotate, content.shear = (2, 3), (5, 7), 30, [0.2]
    content.affine = [[1, 0.5, 0], [0, 1, 4], [0, 0, 1]]
    press(widget, "run")
    assert running(widget)
    wait(widget)
    made = viewer.layers[-1]
    assert made.name == "content stylized"
    assert made.data.shape == (24, 32, 3)
    assert made.data.dtype == np.uint8
    for mine, its in (((-0.5, -0.5), (-0.5, -0.5)), ((23.5, 31.5), (47.5, 63.5))):
        np.testing.assert_allclose(made.data_to_world(mine), content.data_to_world(its))
    record = made.metadata["stylize"]
    assert record["settings"]["size"] == 32
    assert record["layers"]["content"]["layer"] == "content"
    assert "stopped" not in record
    assert not said(viewer)


def test_the_picture_is_there_at_once_and_repaints_itself(widget: Any, viewer: Any) -> None:
    seen: list[Any] = []
    widget["size"].value = 64
    press(widget, "run")
    wait(widget, lambda: len(viewer.layers) == 3)
    made = viewer.layers[-1]
    made.events.set_data.connect(lambda: seen.append(made.data.copy()))
    assert running(widget)
    wait(widget)
    assert len(seen) >= 2
    assert any((one != other).any() for one, other in pairwise(seen))


def test_stop_keeps_what_is_there(widget: Any, viewer: Any) -> None:
    widget["preset"].value = "gatys2015"  # 500 steps
    widget.form["encoder"].value, widget["size"].value = "mini", 64
    press(widget, "run")
    wait(widget, lambda: "step" in widget["bar"].native.format())
    press(widget, "stop")
    wait(widget)
    made = viewer.layers[-1]
    assert made.metadata["stylize"]["stopped"]
    assert (made.data != viewer.layers["content"].data).any()
    assert widget["bar"].native.format() == "stopped"
    assert not said(viewer)


def test_runs_share_a_layer_until_it_is_kept(widget: Any, viewer: Any) -> None:
    for size in (16, 32):
        widget["size"].value = size
        press(widget, "run")
        wait(widget)
        assert len(viewer.layers) == 3
    kept = viewer.layers[-1]
    assert kept.data.shape == (24, 32, 3)
    np.testing.assert_allclose(kept.scale, [2, 2])
    press(widget, "keep")
    before = kept.data.copy()
    widget["content_weight"].value = 0.5
    press(widget, "run")
    wait(widget)
    assert len(viewer.layers) == 4
    np.testing.assert_array_equal(kept.data, before)
    assert kept.metadata["stylize"]["settings"]["content_weight"] == stylize.Settings().content_weight
    assert viewer.layers[-1].metadata["stylize"]["settings"]["content_weight"] == 0.5


def test_keep_during_a_run_goes_on_in_another_layer(widget: Any, viewer: Any) -> None:
    widget["size"].value = 64
    press(widget, "run")
    wait(widget, lambda: len(viewer.layers) == 3)
    press(widget, "keep")
    kept, before = viewer.layers[-1], viewer.layers[-1].data.copy()
    wait(widget)
    assert len(viewer.layers) == 4
    np.testing.assert_array_equal(kept.data, before)
    assert (viewer.layers[-1].data != before).any()


def test_removing_the_layer_ends_the_run(widget: Any, viewer: Any) -> None:
    widget["size"].value = 64
    press(widget, "run")
    wait(widget, lambda: len(viewer.layers) == 3)
    viewer.layers.pop()
    wait(widget)
    assert [layer.name for layer in viewer.layers] == ["content", "style"]


def test_a_stack_is_painted_slice_by_slice_or_only_the_one_in_view(widget: Any, viewer: Any) -> None:
    data = np.random.default_rng(1).integers(0, 60000, (3, 24, 32), np.uint16)
    viewer.add_image(data, name="stack", scale=(10, 1, 1))
    widget["content"].value = viewer.layers["stack"]
    widget["size"].value = 16
    press(widget, "run")
    wait(widget)
    made = viewer.layers[-1]
    assert (made.data.shape, made.data.dtype) == ((3, 12, 16, 3), np.uint16)
    np.testing.assert_allclose(made.scale, [10, 2, 2])
    press(widget, "keep")
    widget["stack"].value = "the slice in view"
    viewer.dims.set_point(0, 20)
    press(widget, "run")
    wait(widget)
    one = viewer.layers[-1]
    np.testing.assert_array_equal(one.data[0], made.data[2])
    np.testing.assert_allclose(one.translate, [20, 0.5, 0.5])


def test_a_stack_is_painted_as_a_clip(widget: Any, viewer: Any) -> None:
    frame = np.asarray(PillowImage.open(ROOT / "samples" / "cat.jpg").resize((32, 24)))
    viewer.add_image(np.stack([frame] * 3), name="clip", rgb=True)
    widget["content"].value = viewer.layers["clip"]
    widget["stack"].value, widget["size"].value = "as a clip", 16
    press(widget, "run")
    wait(widget)
    assert not said(viewer)
    made = viewer.layers[-1]
    assert made.data.shape == (3, 12, 16, 3)
    np.testing.assert_array_equal(made.data[1], made.data[0])  # nothing moves: painted once
    assert "stopped" not in made.metadata["stylize"]
    small = PillowImage.fromarray(frame).resize((16, 12))
    assert (made.data[0] != np.asarray(small)).any(-1).mean() > 0.5


def test_only_what_is_labelled_is_painted(widget: Any, viewer: Any) -> None:
    labels = np.zeros((48, 64), int)
    labels[:, 40:] = 1
    widget["mask"].value = viewer.add_labels(labels, name="here")
    press(widget, "run")
    wait(widget)
    made, content = viewer.layers[-1].data, viewer.layers["content"].data
    np.testing.assert_array_equal(made[:, :38], content[:, :38])
    assert (made[:, 40:] != content[:, 40:]).any(-1).mean() > 0.9


def test_layers_and_files_are_blended(widget: Any, viewer: Any, tmp_path: Path) -> None:
    viewer.add_image(np.zeros((20, 20, 3), np.uint8), name="black")
    viewer.layers["content"].save(str(tmp_path / "third.png"))
    widget.blend.value = [viewer.layers["black"]]
    widget["files"].value = (tmp_path / "third.png",)
    widget.form["style_weights"].value = "1, 2, 3"
    press(widget, "run")
    wait(widget)
    assert not said(viewer)
    record = viewer.layers[-1].metadata["stylize"]
    assert record["settings"]["style_weights"] == [1.0, 2.0, 3.0]
    assert len(record["styles"]) == 3
    assert [record["layers"][name]["layer"] for name in ("style", "style 2")] == ["style", "black"]


def test_all_settings_are_there_explained_and_kept_to_their_ranges(widget: Any) -> None:
    assert widget.settings() == stylize.Settings(size=32, encoder="mini", device="cpu")
    for field in stylize.setting_fields():
        assert widget.form[field.name].tooltip
    for box in (widget, *(fold.box for fold in widget.folds)):
        for each in box:
            assert each.tooltip or each.name == "buttons", each.name
    widget.form["style_layers"].value, widget.form["seed"].value = "relu1_1=2, relu3_1", 7
    widget.form["scales"].value, widget.form["upscale"].value = 2, True
    made = widget.settings()
    assert (made.style_layers, made.seed, made.scales, made.upscale) == ({"relu1_1": 2.0, "relu3_1": 1.0}, 7, 2, True)
    widget["preset"].value = "gatys2015"
    assert widget.settings() == stylize.preset("gatys2015").replace(device="cpu")


def test_labels_are_of_one_width(widget: Any) -> None:
    boxes = (widget, *(fold.box for fold in widget.folds))
    labels = [each._labeled_widget() for box in boxes for each in box]
    widths = {label._label_widget.native.maximumWidth() for label in labels if label is not None}
    assert len(widths) == 1


def test_the_run_is_shown_in_the_activity_dock_and_smoothly(widget: Any, viewer: Any) -> None:
    from napari.utils import progress

    widget["size"].value = 64
    press(widget, "run")
    (bar,) = progress._all_instances
    wait(widget, lambda: "step" in bar.desc)
    assert viewer.layers[-1].interpolation2d == "linear"
    assert 0 < bar.n < bar.total
    wait(widget)
    assert not progress._all_instances


def test_the_window_does_not_wait_for_pytorch() -> None:
    code = "import sys, stylize_napari.widget; from stylize_napari import samples; samples.bridge(); "
    code += "sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=300).returncode == 0


def test_the_style_may_be_a_file(widget: Any, viewer: Any, tmp_path: Path) -> None:
    path = tmp_path / "style.png"
    viewer.layers["style"].save(str(path))
    widget["style"].value, widget["files"].value = None, (path,)
    press(widget, "run")
    wait(widget)
    (style,) = viewer.layers[-1].metadata["stylize"]["styles"]
    assert style == {"path": str(path), "sha256": stylize.digest(path)}


def test_a_layer_read_from_a_file_can_be_painted_again_from_what_was_saved(
    widget: Any, viewer: Any, tmp_path: Path
) -> None:
    for name in ("content", "style"):
        viewer.layers[name].save(str(tmp_path / f"{name}.png"))
    (layer,) = viewer.open(tmp_path / "content.png", plugin="napari")
    widget["content"].value, widget["style"].value, widget["files"].value = layer, None, (tmp_path / "style.png",)
    press(widget, "run")
    wait(widget)
    viewer.layers[-1].save(str(tmp_path / "painted.png"), plugin=PLUGIN)
    command = [sys.executable, "-m", "stylize", "replay", "painted.png", "-o", "again.png"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    again = np.asarray(PillowImage.open(tmp_path / "again.png"))
    np.testing.assert_array_equal(again, viewer.layers[-1].data)


def test_a_preset_sets_what_it_changes(widget: Any) -> None:
    widget["preset"].value = "draft"
    assert (widget["size"].value, widget.settings().steps) == (256, (12, 12, 16))
    widget["preset"].value = "strong"
    assert (widget["size"].value, widget.settings().content_weight) == (512, 0.014)


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("style", None, "no style is chosen; choose a layer or a file"),
        ("steps", "many", "steps has 'many' in it; it must hold numbers, separated by commas"),
        ("device", "mps", "device mps is not there; use --device cpu or auto"),
        ("mask", "labels", "the mask is 5x5, and the content 48x64; use labels of the same size"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(widget: Any, viewer: Any, knob: str, value: Any, message: str) -> None:
    box = widget.form if knob in ("device", "steps") else widget
    box[knob].value = viewer.add_labels(np.ones((5, 5), int), name="labels") if value == "labels" else value
    press(widget, "run")
    wait(widget)
    assert said(viewer) == [message]


def test_an_unreadable_style_is_said_in_one_line(widget: Any, viewer: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    widget["style"].value, widget["files"].value = None, (path,)
    press(widget, "run")
    wait(widget)
    (message,) = said(viewer)
    assert message.startswith(f"cannot read {path}")
    assert "\n" not in message


# The viewer


@pytest.fixture
def screen() -> Iterator[str]:
    """The name of a display of its own."""
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb; apt-get install xvfb libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1")
    for library in ("xcb-cursor", "xcb-icccm", "xcb-keysyms", "GL"):
        if ctypes.util.find_library(library) is None:
            pytest.skip(f"Qt needs lib{library} for a screen")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x800x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL) as server:
        os.close(writer)
        with os.fdopen(reader) as pipe:
            number = pipe.readline().strip()
        yield f":{number}"
        server.terminate()


def test_the_viewer_shows_a_stylized_sample_and_closes_during_a_run(screen: str, tmp_path: Path) -> None:
    shot, layer = tmp_path / "shot.png", tmp_path / "layer.png"
    options = ["--size", "64", "--layer", str(layer)]
    own = {"DISPLAY": screen, "QT_QPA_PLATFORM": "xcb", "NAPARI_CONFIG": str(tmp_path / "napari.yaml")}
    # no weights are to be had: what a new user without network has
    own |= {"STYLIZE_CACHE": str(tmp_path), "STYLIZE_WEIGHTS": "", "STYLIZE_WEIGHTS_URL": "http://127.0.0.1:9/"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.napari_shot", str(shot), *options],
        cwd=ROOT,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    record = stylize.read_record(layer)
    assert record is not None
    assert (record["settings"]["size"], record["encoder"]["name"]) == (64, "mini")
    painted = stylize.load(layer).rgb
    assert painted.shape == (1, 3, 47, 64)
    canvas = np.asarray(PillowImage.open(shot).convert("RGB")).reshape(-1, 3).astype(int)
    apart = [np.abs(canvas - np.round(255 * painted[0, :, y, x].numpy())).max(1).min() for y, x in ((3, 3), (20, 30))]
    assert max(apart) <= 2, "the stylized layer is not to be seen"
