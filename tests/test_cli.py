"""The command line: what it writes, what it prints, how it fails and how it is interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import stylize
from stylize.cli.main import main
from stylize.cli.options import SECTION, SECTIONS
from stylize.cli.reference import FILE, reference
from stylize.display import Display
from stylize.errors import StylizeError
from stylize.settings import PRESETS, Settings, preset
from tests import preloaded
from tests.conftest import PATIENCE, Call, Done
from tests.test_video import clip, moving

FAST = ("--encoder", "tiny", "--size", "16", "--steps", "1")
HEAVY = {"torch", "torchvision", "numpy", "PIL", "cv2", "rich", "safetensors"}
# Adam without a tolerance never ends by itself
STOPPABLE = ("--encoder", "tiny", "--optimizer", "adam", "--tolerance", "0", "--steps", "100000", "--json")


@pytest.fixture
def settings_of(call: Call, pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """The settings that ``stylize run photo.png starry.png OPTIONS`` arrives at."""

    def seen(*options: object) -> Settings:
        found: list[Settings] = []

        def stylizer(styles: object, settings: Settings, **rest: object) -> None:
            found.append(settings)
            raise StylizeError("seen")

        monkeypatch.setattr("stylize.stylizer.Stylizer", stylizer)
        done = call("run", *pictures, *options)
        assert done.err == "stylize: seen\n"
        return found[0]

    return seen


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of a picture that decodes completely."""
    with Image.open(path) as image:
        image.load()
        return image.size


def save(path: Path, *shape: int, value: int | None = None) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels if value is None else np.full(shape, value, np.uint8)).save(path)
    return path


# What it writes and prints


@pytest.mark.slow
def test_a_picture_is_painted_and_its_path_printed(cli: Any, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    done = cli("photo.png", "starry.png", "-o", "out.png", "--encoder", "tiny", "--size", "32", "--steps", "3")
    assert done.stdout == "out.png\n"
    assert re.search(r"32x24 +3 steps +loss \d", done.stderr)
    assert size_of(tmp_path / "out.png") == (32, 24)


@pytest.mark.slow
def test_run_is_the_default_command(call: Call, pictures: tuple[Path, Path], folder: Path) -> None:
    assert call("photo.png", "starry.png", "-o", "bare.png", *FAST).code == 0
    assert call("run", "photo.png", "starry.png", "-o", "named.png", *FAST).code == 0
    assert (folder / "bare.png").read_bytes() == (folder / "named.png").read_bytes()


def test_options_may_stand_before_the_pictures(call: Call, pictures: tuple[Path, Path], folder: Path) -> None:
    done = call("-o", "out.png", "--json", *FAST, "photo.png", "starry.png")
    assert done.code == 0, done.err
    assert size_of(folder / "out.png") == (16, 12)


def test_without_an_output_the_result_is_named_after_the_content(call: Call, pictures: tuple[Path, Path]) -> None:
    done = call("photo.png", "starry.png", *FAST)
    assert done.out == "photo-stylized.png\n"
    assert size_of(Path("photo-stylized.png")) == (16, 12)


def test_progress_is_one_line_per_scale_where_there_is_no_terminal(call: Call, pictures: tuple[Path, Path]) -> None:
    done = call("photo.png", "starry.png", "--encoder", "tiny", "--min-size", "24", "--steps", "2,3")
    lines = done.err.splitlines()
    assert [re.findall(r"\d+x\d+ +\d steps", line) for line in lines] == [["32x24  2 steps"], ["48x36  3 steps"]]


def test_a_scale_that_settles_early_has_its_line_unbroken(
    call: Call, pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    done = call("photo.png", "starry.png", "--encoder", "tiny", "--steps", "40", "--tolerance", "0.9")
    (line,) = done.err.splitlines()
    assert re.fullmatch(r" +48x36  1\d steps  loss \S+  content \S+  style \S+  \d+ s", line)


@pytest.mark.parametrize("extension", ["jpg", "webp", "tiff"])
def test_the_extension_chooses_the_format(call: Call, pictures: tuple[Path, Path], extension: str) -> None:
    assert call("photo.png", "starry.png", "-o", f"out.{extension}", *FAST).code == 0
    with Image.open(f"out.{extension}") as image:
        assert (image.format or "").lower() == {"jpg": "jpeg"}.get(extension, extension)
        assert image.size == (16, 12)


@pytest.mark.slow
def test_two_styles_are_blended_by_their_weights(call: Call, pictures: tuple[Path, Path], folder: Path) -> None:
    save(folder / "other.png", 30, 20, 3)
    painted = {}
    for weights in ("1,1", "3,1", "1,3"):
        options = (*FAST[:4], "--steps", "3", "--style-weights", weights)
        assert call("photo.png", "starry.png", "other.png", "-o", "out.png", *options).code == 0
        painted[weights] = (folder / "out.png").read_bytes()
    assert len(set(painted.values())) == 3


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "luminance", "match"])
def test_every_color_mode_paints_colour_grey_and_single_colours(
    call: Call, pictures: tuple[Path, Path], folder: Path, mode: str
) -> None:
    save(folder / "grey.png", 20, 30)
    save(folder / "flat.png", 20, 30, 3, value=77)
    for content in ("photo.png", "grey.png", "flat.png"):
        for style in ("starry.png", "grey.png", "flat.png"):
            done = call(content, style, "-o", "out.png", "--preserve-color", mode, *FAST[:4], "--steps", "2")
            assert done.code == 0, (content, style, done.err)
            assert max(size_of(folder / "out.png")) == 16


def test_a_grey_photo_stays_grey_when_its_colours_are_kept(
    call: Call, pictures: tuple[Path, Path], folder: Path
) -> None:
    save(folder / "grey.png", 20, 30)
    assert call("grey.png", "starry.png", "-o", "out.png", "--preserve-color", "luminance", *FAST).code == 0
    pixels = np.asarray(Image.open(folder / "out.png")).astype(int)
    assert np.ptp(pixels, axis=2).max() <= 1
    assert np.ptp(pixels) > 20


def test_json_events_are_one_per_line_and_consistent(call: Call, pictures: tuple[Path, Path]) -> None:
    options = ("--encoder", "tiny", "--min-size", "24", "--steps", "2,4", "--tv-weight", "0.1", "--json")
    done = call("photo.png", "starry.png", "-o", "out.png", *options)
    assert done.err == ""
    plan, *steps, last = done.events
    assert last == {"event": "written", "path": "out.png", "fraction": 1.0, "seconds_left": 0.0}
    assert {**plan, "seconds_left": None, "memory": None} == {
        "event": "plan",
        "width": 48,
        "height": 36,
        "steps": 6,
        "pictures": 1,
        "memory": None,
        "scales": [{"width": 32, "height": 24, "steps": 2}, {"width": 48, "height": 36, "steps": 4}],
        "fraction": steps[0]["fraction"],
        "seconds_left": None,
    }
    assert plan["memory"] > 48 * 36
    assert plan["seconds_left"] > 0
    assert [step["event"] for step in steps] == ["step"] * 6
    assert [(step["scale"], step["number"], step["steps"]) for step in steps] == [
        *((1, 1, 2), (1, 2, 2)),
        *((2, 1, 4), (2, 2, 4), (2, 3, 4), (2, 4, 4)),
    ]
    assert {(step["scale"], step["width"], step["height"]) for step in steps} == {(1, 32, 24), (2, 48, 36)}
    assert {step["scales"] for step in steps} == {2}
    assert all(set(step["terms"]) == {"content", "style", "tv"} for step in steps)
    assert all(step["total"] == pytest.approx(sum(step["terms"].values()), rel=1e-4) for step in steps)
    assert all(step["finite"] and step["retries"] == 0 for step in steps if step["number"] == 1)
    seconds = [step["seconds"] for step in steps]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    fractions = [step["fraction"] for step in steps]
    assert fractions == sorted(set(fractions))
    assert 0 < fractions[0] < fractions[1] < 0.5  # the small scale is the smaller part of the work
    assert fractions[-1] == 1
    assert [step["seconds_left"] is None for step in steps] == [True] + 5 * [False]
    assert steps[-1]["seconds_left"] == 0
    assert steps[-1]["total"] < steps[2]["total"]


def test_json_tells_what_reading_left_out(call: Call, pictures: tuple[Path, Path], folder: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    notes = [event["text"] for event in call("moving.gif", "starry.png", *FAST, "--json").events if "text" in event]
    assert notes == ["animated: first of 2 frames used"]


@pytest.mark.parametrize("command", [("photo.png", "starry.png"), ("texture", "starry.png")])
def test_quiet_prints_nothing(call: Call, pictures: tuple[Path, Path], command: tuple[str, ...]) -> None:
    done = call(*command, "-o", "out.png", "--quiet", *FAST)
    assert done == Done(0, "", "")
    assert Path("out.png").exists()


def test_sixteen_bits_are_really_written(call: Call, pictures: tuple[Path, Path], folder: Path) -> None:
    assert call("photo.png", "starry.png", "-o", "deep.png", "--bits", "16", *FAST, "--steps", "3").code == 0
    assert (folder / "deep.png").read_bytes()[24] == 16  # IHDR: bit depth
    pixels = cv2.imread(str(folder / "deep.png"), cv2.IMREAD_UNCHANGED)
    assert isinstance(pixels, np.ndarray)
    assert pixels.dtype == np.uint16
    assert (pixels % 257).any()  # not 8 bits stretched


@pytest.mark.slow
def test_quality_changes_the_size_of_the_file(call: Call, pictures: tuple[Path, Path], folder: Path) -> None:
    sizes = []
    for quality in ("20", "100"):
        assert call("photo.png", "starry.png", "-o", "out.jpg", "--quality", quality, *FAST).code == 0
        sizes.append((folder / "out.jpg").stat().st_size)
    assert sizes[0] < sizes[1]


@pytest.mark.slow
def test_the_start_may_be_a_picture(call: Call, pictures: tuple[Path, Path], folder: Path) -> None:
    for name, init in (("a.png", "content"), ("b.png", "starry.png")):
        assert call("photo.png", "starry.png", "-o", name, "--init", init, *FAST).code == 0
    assert (folder / "a.png").read_bytes() != (folder / "b.png").read_bytes()


def test_an_old_target_is_replaced(call: Call, pictures: tuple[Path, Path], folder: Path) -> None:
    (folder / "out.png").write_bytes(b"old")
    assert call("photo.png", "starry.png", "-o", "out.png", *FAST).code == 0
    assert size_of(folder / "out.png") == (16, 12)


@pytest.mark.slow
def test_a_target_whose_name_is_not_utf8_is_written_and_reported(
    cli_environment: Mapping[str, str], pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    name = os.fsdecode(b"out-\xff.png")
    try:
        (tmp_path / name).write_bytes(b"")
    except OSError:
        pytest.skip("this file system has no such names")
    command = [sys.executable, "-m", "stylize", "photo.png", "starry.png", "-o", name, *FAST]
    done = preloaded.run(command, env=cli_environment, cwd=tmp_path, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"out-\xff.png\n"
    assert (tmp_path / name).stat().st_size > 0


# Settings


def test_every_setting_has_its_option(settings_of: Callable[..., Settings], folder: Path) -> None:
    values: dict[str, tuple[str, object]] = {
        "size": ("100", 100),
        "min_size": ("20", 20),
        "scales": ("2", 2),
        "steps": ("5,4", (5, 4)),
        "content_weight": ("0.3", 0.3),
        "style_weight": ("2", 2.0),
        "tv_weight": ("0.1", 0.1),
        "content_layer": ("relu3_1", "relu3_1"),
        "style_layers": ("relu1_1=4,relu2_1", {"relu1_1": 4.0, "relu2_1": 1.0}),
        "brush": ("0.5", 0.5),
        "palette": ("free", "free"),
        "style_loss": ("gram", "gram"),
        "match_weight": ("0.3", 0.3),
        "content_loss": ("self-similarity", "self-similarity"),
        "min_outlines": ("0.5", 0.5),
        "normalize": ("paper", "paper"),
        "optimizer": ("adam", "adam"),
        "history": ("7", 7),
        "memory": ("3GiB", "3GiB"),
        "learning_rate": ("0.5", 0.5),
        "tolerance": ("0.1", 0.1),
        "pooling": ("average", "average"),
        "init": ("noise", "noise"),
        "style_scale": ("0.5", 0.5),
        "style_weights": ("3", (3.0,)),
        "style_margins": ("keep", "keep"),
        "preserve_color": ("match", "match"),
        "seed": ("9", 9),
        "device": ("cpu", "cpu"),
        "precision": ("float32", "float32"),
        "encoder": ("vgg16", "vgg16"),
    }
    names = {field.name for field in dataclasses.fields(Settings)} - {"upscale"}  # a flag: below
    assert set(values) == names
    options = [item for name, (text, _) in values.items() for item in ("--" + name.replace("_", "-"), text)]
    found = settings_of("--upscale", *options)
    assert found.upscale
    assert {name: getattr(found, name) for name in values} == {name: value for name, (_, value) in values.items()}


def test_an_option_beats_the_config_and_the_config_beats_the_preset(
    settings_of: Callable[..., Settings], folder: Path
) -> None:
    (folder / "my.toml").write_text("steps = [3]\nseed = 5\n")
    config = ("--config", "my.toml")
    assert settings_of() == Settings()
    assert settings_of("--preset", "draft") == preset("draft")
    assert settings_of(*config) == Settings(steps=(3,), seed=5)
    assert settings_of("--preset", "draft", *config) == preset("draft").replace(steps=(3,), seed=5)
    assert settings_of(*config, "--steps", "2", "--preset", "draft") == preset("draft").replace(steps=(2,), seed=5)


def test_a_config_may_name_its_preset(settings_of: Callable[..., Settings], folder: Path) -> None:
    (folder / "my.toml").write_text('preset = "gatys2015"\nsize = 100\n')
    assert settings_of("--config", "my.toml") == preset("gatys2015").replace(size=100)


@pytest.mark.parametrize("name", PRESETS)
def test_a_printed_preset_comes_back_through_config(
    settings_of: Callable[..., Settings], call: Call, folder: Path, name: str
) -> None:
    (folder / "my.toml").write_text(call("presets", name).out)
    assert settings_of("--config", "my.toml") == preset(name)


def test_presets_lists_every_preset_with_what_it_changes(call: Call) -> None:
    done = call("presets")
    assert done.code == 0
    for name, (summary, values) in PRESETS.items():
        assert re.search(rf"^{name} +{re.escape(summary)}$", done.out, re.MULTILINE)
        assert all(f"  {key} = " in done.out for key in values)


# The other commands


def test_texture_has_the_proportions_of_the_style_and_the_size_asked_for(
    call: Call, pictures: tuple[Path, Path], folder: Path
) -> None:
    save(folder / "wide.png", 10, 20, 3)
    done = call("texture", "wide.png", "--encoder", "tiny", "--size", "32", "--steps", "2", "--json")
    assert done.events[-1]["path"] == "wide-texture.png"
    assert size_of(folder / "wide-texture.png") == (32, 16)
    assert all(set(event["terms"]) == {"style"} for event in done.steps)


def test_reconstruct_starts_from_the_layer_asked_for(call: Call, pictures: tuple[Path, Path], folder: Path) -> None:
    painted = []
    for layer in ("relu1_1", "relu3_1"):
        options = ("--layer", layer, "--encoder", "tiny", "--size", "24", "--steps", "3", "--json")
        done = call("reconstruct", "photo.png", *options)
        assert done.events[-1]["path"] == f"photo-{layer}.png"
        assert all(set(event["terms"]) == {"content"} for event in done.steps)
        assert {event["scales"] for event in done.steps} == {1}
        assert size_of(folder / f"photo-{layer}.png") == (24, 18)
        painted.append((folder / f"photo-{layer}.png").read_bytes())
    assert painted[0] != painted[1]


def test_grid_draws_one_cell_per_depth_and_content_weight(
    call: Call, pictures: tuple[Path, Path], folder: Path
) -> None:
    layers = ("--style-layers", "relu1_1,relu2_1,relu3_1=0", "--content-weights", "0.05,0.2,1")
    done = call("grid", "photo.png", "starry.png", "-o", "grid.png", *layers, *FAST, "--json")
    assert done.code == 0, done.err
    assert [event["label"] for event in done.steps] == [f"{cell}/6" for cell in range(1, 7)]
    width, height = size_of(folder / "grid.png")
    assert 3 * 16 < width < 3 * 16 + 200
    assert 2 * 12 < height < 2 * 12 + 100


def test_the_weights_of_this_machine_are_listed_without_network(call: Call, folder: Path) -> None:
    done = call("weights")
    assert done.code == 0
    for name, size in (("vgg16", "528 MB"), ("vgg19", "548 MB")):
        assert re.search(
            rf"^{name}  not here; .*stylize weights fetch {name}.* downloads {size}", done.out, re.MULTILINE
        )
    assert f"STYLIZE_WEIGHTS, {folder / 'cache'}" in done.out


def cut_vgg19(path: Path) -> Path:
    """VGG-19 after its first convolution: a valid file of 7 KB."""
    tensors = {"features.0.weight": torch.randn(64, 3, 3, 3) * 0.2, "features.0.bias": torch.zeros(64)}
    save_file(tensors, path)
    return path


def test_weights_that_are_there_are_listed_verified_and_used(
    call: Call, pictures: tuple[Path, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_vgg19(folder / "cut.safetensors")
    layers = ("--content-layer", "relu1_1", "--style-layers", "relu1_1", "--size", "16", "--steps", "1")
    done = call("photo.png", "starry.png", "-o", "out.png", "--weights", "cut.safetensors", *layers)
    assert done.code == 0, done.err
    done = call("weights", "verify", "--weights", "cut.safetensors")
    assert re.fullmatch(r"cut.safetensors: vgg19, 1 convolutions, sha256 [0-9a-f]{16}: ok\n", done.out)
    monkeypatch.setenv("STYLIZE_WEIGHTS", "cut.safetensors")
    assert "vgg19  cut.safetensors (STYLIZE_WEIGHTS, 0 MB)" in call("weights").out
    assert call("weights", "verify").out == done.out


def test_verify_refuses_what_is_missing_damaged_or_another_network(call: Call, folder: Path) -> None:
    cut_vgg19(folder / "cut.safetensors")
    whole = (folder / "cut.safetensors").read_bytes()
    (folder / "damaged.safetensors").write_bytes(whole[:-100])
    save_file({"features.0.weight": torch.zeros(8, 3, 3, 3)}, folder / "other.safetensors")
    for arguments, words in (
        ((), "weights fetch vgg19"),
        (("vgg16",), "weights fetch vgg16"),
        (("nonsense",), "nonsense"),
        (("--weights", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--weights", "damaged.safetensors"), "truncated"),
        (("--weights", "other.safetensors"), "vgg19 needs"),
    ):
        done = call("weights", "verify", *arguments)
        assert_one_error(done, 1)
        assert words in done.err


@pytest.mark.slow
def test_a_broken_plugin_is_named_and_the_rest_goes_on(
    call: Call, pictures: tuple[Path, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = folder / "broken" / "broken_plugin-3.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 3.2\n")
    (info / "entry_points.txt").write_text("[stylize]\nbroken = a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(folder / "broken"))
    done = call("photo.png", "starry.png", "-o", "out.png", "-q", *FAST)
    assert done.code == 0
    assert re.fullmatch(
        r"stylize: plugin broken \(broken-plugin 3\.2\) left out: .*a_module_that_is_not_there.*\n", done.err
    )
    done = call("doctor", "--json")
    assert done.code == 1
    assert [check["found"] for check in json.loads(done.out) if check["state"] == "fail"] == [
        "plugin broken (broken-plugin 3.2) left out: ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
    ]


# Help, and what must not be imported for it


@pytest.mark.slow
def test_help_of_every_command_works_and_imports_nothing_heavy() -> None:
    code = """
import sys, click
from stylize.cli.main import cli, main
def visit(command, path):
    sys.stdout.write(f'<{" ".join(path)}>\\n')
    try:
        main([*path, "--help"])
    except SystemExit as exit:
        assert exit.code == 0, path
    for name, inner in getattr(command, "commands", {}).items():
        visit(inner, [*path, name])
visit(cli, [])
print("modules", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    *helps, modules = done.stdout.splitlines()
    text = "\n".join(helps)
    commands = ["", "run", "texture", "reconstruct", "grid", "presets", "weights", "weights verify", "doctor"]
    for path in commands:
        assert f"<{path}>\nUsage: stylize" in text, path
    assert not HEAVY & set(modules.split())
    assert all(f"--{field.name.replace('_', '-')}" in text for field in dataclasses.fields(Settings))


def test_every_setting_is_listed_in_a_section_of_its_own_subject(call: Call) -> None:
    text = call("run", "--help").out
    titles = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert titles == [*SECTIONS, "Folders and clips", "Folders", "Clips"]
    sections = dict(zip(titles, re.split(r"^\S.*:$", text, flags=re.MULTILINE)[1:], strict=True))
    for title, flags in {
        "General": ("--output", "--help"),
        "Picture": ("--size", "--bits"),
        "Optimisation": ("--steps",),
        "Folders": ("--pair",),
        "Clips": ("--crf",),
    }.items():
        assert all(re.search(rf"^  (-\w, )?{flag}\b", sections[title], re.MULTILINE) for flag in flags), title
    assert {field.name for field in dataclasses.fields(Settings)} <= set(SECTION)


def test_help_shows_defaults_and_ranges_in_one_way(call: Call) -> None:
    text = " ".join(call("run", "--help").out.split())
    for shown in ("[default: 512; 16<=x<=32768]", "[default: 20,20,28,15,12; 1<=x<=100000]", "[default: 0; x>=0]"):
        assert shown in text
    assert "[default: 2.0; x>=0]" in text  # of a plugin
    assert "(default" not in text
    text = " ".join(call("texture", "--help").out.split())
    assert "[default: 100,60; 1<=x<=100000]" in text  # what texture starts from


def test_the_reference_is_what_the_program_says(call: Call) -> None:
    assert FILE.read_text(encoding="utf-8") == reference(), "stale; run `make reference`"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, stylize; dir(stylize); stylize.Settings; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert "stylize.settings" in done.stdout.split()
    assert not HEAVY & set(done.stdout.split())


WATCHED = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch", *(os.environ.get(key) for key in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")), flush=True)
            os._exit(0)  # the rest is not of interest

sys.meta_path.insert(0, Watch())
sys.argv = ["stylize", "doctor"]
from stylize.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        ({}, "None 10000"),
        ({"OMP_WAIT_POLICY": "active"}, "active None"),
        ({"GOMP_SPINCOUNT": "100"}, "None 100"),
    ],
)
def test_waiting_threads_spin_shortly_unless_the_user_has_chosen(
    cli_environment: Mapping[str, str], tmp_path: Path, chosen: Mapping[str, str], seen: str
) -> None:
    keys = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {**{key: value for key, value in cli_environment.items() if key not in keys}, **chosen}
    command = [sys.executable, "-c", WATCHED]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.splitlines()[0] == f"torch {seen}", done.stderr


def test_the_version_is_printed(call: Call) -> None:
    assert call("--version") == Done(0, f"stylize, version {stylize.__version__}\n", "")


def test_without_arguments_the_help_is_shown_as_it_is_meant_to_be_read(call: Call) -> None:
    done = call()
    text = done.out + done.err
    assert text.startswith("Usage: stylize")
    assert re.search(r"^  doctor ", text, re.MULTILINE)


def test_a_reader_that_goes_away_early_is_no_traceback(cli_environment: Mapping[str, str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = preloaded.run(
            [sys.executable, "-m", "stylize", "presets"],
            env=dict(cli_environment),
            cwd=tmp_path,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


# Bad input


def assert_one_error(done: Done, code: int) -> None:
    assert done.code == code, done
    assert re.fullmatch(r"stylize: [^\n]+\n", done.err), done.err
    assert "Traceback" not in done.err
    assert done.out == "" or [(each["event"], each["text"]) for each in done.events] == [("error", done.err[9:-1])]


def damaged(folder: Path) -> dict[str, Path]:
    """Files that are no picture, by what is wrong with them."""
    save(folder / "whole.jpg", 60, 80, 3)
    whole = (folder / "whole.jpg").read_bytes()
    header = struct.pack(">IIBBBBB", 10000, 10000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )
    made = {"empty": b"", "text": b"this is no picture\n" * 9, "truncated": whole[: len(whole) // 2], "bomb": bomb}
    for name, data in made.items():
        (folder / f"{name}.jpg").write_bytes(data)
    (folder / "directory.jpg").mkdir()
    (folder / "whole.jpg").unlink()
    return {name: folder / f"{name}.jpg" for name in ("missing", "directory", *made)}


PROBLEMS = {
    "missing": "No such file",
    "directory": "",
    "empty": "empty",
    "text": "not a picture",
    "truncated": "truncated",
    "bomb": "10000x10000",
}


@pytest.mark.parametrize("role", ["content", "style", "init", "texture", "reconstruct", "grid"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_file_that_is_no_picture_is_refused_in_one_line(
    call: Call, pictures: tuple[Path, Path], folder: Path, problem: str, role: str
) -> None:
    bad = damaged(folder)[problem].name
    (folder / "out.png").write_bytes(b"old")
    before = sorted(folder.iterdir())
    arguments = {
        "content": (bad, "starry.png"),
        "style": ("photo.png", "starry.png", bad),
        "init": ("photo.png", "starry.png", "--init", bad),
        "texture": ("texture", bad),
        "reconstruct": ("reconstruct", bad),
        "grid": ("grid", "photo.png", bad),
    }[role]
    done = call(*arguments, "-o", "out.png", *FAST)
    assert_one_error(done, 2 if problem == "directory" and role in ("content", "style") else 1)
    assert bad in done.err
    assert PROBLEMS[problem] in done.err
    assert (folder / "out.png").read_bytes() == b"old"
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("code", "options", "words"),
    [
        (2, ("--size", "0"), "size is 0"),
        (2, ("--size", "many"), "many"),
        (2, ("--steps", "0"), "steps is 0"),
        (2, ("--steps", "3,x"), "20,20,16"),
        (2, ("--content-weight", "nan"), "content_weight is nan"),
        (2, ("--style-weight", "inf"), "style_weight is inf"),
        (2, ("--tv-weight", "-1"), "tv_weight is -1"),
        (2, ("--learning-rate", "nan"), "learning_rate is nan"),
        (2, ("--style-scale", "nan"), "style_scale is nan"),
        (2, ("--style-weights", "nan"), "style_weights is nan"),
        (2, ("--style-weights", "1,2"), "style_weights has 2 numbers for 1 style"),
        (2, ("--style-weights", "0"), "style_weights are all zero"),
        (2, ("--style-layers", "relu1_1=nan"), "style_layers is nan"),
        (2, ("--style-layers", "relu9_9"), "relu9_9"),
        (2, ("--style-layers", "relu1_1=0"), "style_layers"),
        (2, ("--style-layers", "relu1_1=much"), "relu1_1=4"),
        (2, ("--content-layer", "conv4"), "unknown layer 'conv4'"),
        (2, ("--content-weight", "0", "--style-weight", "0"), "both 0"),
        (2, ("--encoder", "nonsense"), "unknown encoder 'nonsense'; known: auto, vgg16, vgg19, mini, tiny"),
        (2, ("--preset", "nonsense"), "unknown preset 'nonsense'"),
        (2, ("--config", "nowhere.toml"), "nowhere.toml"),
        (2, ("--config", "photo.png"), "photo.png"),
        (2, ("--nonsense", "1"), "--nonsense"),
        (2, ("--device", "nonsense"), "device is 'nonsense'"),
        (2, ("--device", "meta"), "device is 'meta'"),
        (2, ("--seed", "-1"), "seed is -1"),
        (2, ("--json", "--quiet"), "--quiet and --json cannot be combined"),
        (2, ("-o", "nowhere/out.png"), "there is no folder nowhere"),
        (2, ("-o", "out.bmp"), "unknown extension '.bmp'"),
        (2, ("-o", "out"), "unknown extension ''"),
        (2, ("-o", "cellar.png"), "folder"),
        (2, ("-o", "photo.png/out.png"), "photo.png"),
        (2, ("-o", "out.jpg", "--bits", "16"), "8 bits per channel"),
        (2, ("-o", ""), "nothing is given after -o"),
        (2, ("--output=",), "nothing is given after --output"),
        (2, ("--preset", ""), "nothing is given after --preset"),
        (2, ("--quality", "50"), "--quality belongs to JPEG, WebP and AVIF; out.png"),
        (2, ("--weights", "photo.png", "--encoder", "mini"), "mini comes with its weights; photo.png"),
        (2, ("--executor", "serial", "--jobs", "2"), "--jobs 2 needs processes"),
        (2, ("--bits", "12"), "'12' is not one of '8', '16'"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    call: Call, pictures: tuple[Path, Path], folder: Path, code: int, options: tuple[str, ...], words: str
) -> None:
    (folder / "out.png").write_bytes(b"old")
    (folder / "cellar.png").mkdir()
    before = sorted(folder.iterdir())
    done = call("photo.png", "starry.png", "-o", "out.png", *FAST, *options)
    assert_one_error(done, code)
    assert words in done.err
    assert (folder / "out.png").read_bytes() == b"old"
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("photo.png",), "STYLE"),
        (("reconstruct", "photo.png", "--layer", "relu9_9"), "unknown layer 'relu9_9'"),
        (("texture", "starry.png", "--style-layers", "relu9_9"), "unknown layer 'relu9_9'"),
        (("texture", "starry.png", "--style-weight", "0"), "both 0"),
        (("grid", "photo.png", "starry.png", "--content-weights", "0.1,nan"), "content_weight is nan"),
        (("grid", "photo.png", "starry.png", "--content-weights", ""), "content-weights"),
        (("grid", "photo.png", "starry.png", "--style-weight", "0", "--style-layers", "relu1_1=0"), "style"),
        (("presets", "nonsense"), "unknown preset 'nonsense'"),
        (("weights", "nonsense"), "nonsense"),
    ],
)
def test_a_command_called_wrongly_says_so_in_one_line(
    call: Call, pictures: tuple[Path, Path], folder: Path, arguments: tuple[str, ...], words: str
) -> None:
    before = sorted(folder.iterdir())
    done = call(*arguments, *(FAST if arguments[0] not in ("presets", "weights") else ()))
    assert_one_error(dataclasses.replace(done, err="\n".join(done.err.splitlines()[-1:]) + "\n", out=""), 2)
    assert words in done.err
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("options", [("-o", "out.jpg", "--quality", "0"), ("-o", "out.jpg", "--quality", "101")])
@pytest.mark.parametrize("command", [("photo.png", "starry.png"), ("texture", "starry.png")])
def test_a_wrong_quality_is_refused_before_the_work(
    call: Call, pictures: tuple[Path, Path], command: tuple[str, ...], options: tuple[str, ...]
) -> None:
    done = call(*command, *options, *FAST, "--json")
    assert_one_error(done, 2)  # no step on standard output
    assert "quality" in done.err


@pytest.mark.parametrize("spelling", ["photo.png", "./photo.png", "cellar/../photo.png", "link.png", "hard.png"])
def test_the_content_is_not_written_over(call: Call, pictures: tuple[Path, Path], folder: Path, spelling: str) -> None:
    (folder / "cellar").mkdir()
    (folder / "link.png").symlink_to("photo.png")
    (folder / "hard.png").hardlink_to(folder / "photo.png")
    before = (folder / "photo.png").read_bytes()
    for command in (("photo.png", "starry.png"), ("reconstruct", "photo.png"), ("grid", "photo.png", "starry.png")):
        done = call(*command, "-o", spelling, *FAST)
        assert_one_error(done, 2)
        assert "source" in done.err
    assert (folder / "photo.png").read_bytes() == before


def test_a_content_named_through_a_link_is_not_written_over(
    call: Call, pictures: tuple[Path, Path], folder: Path
) -> None:
    (folder / "link.png").symlink_to("photo.png")
    before = (folder / "photo.png").read_bytes()
    assert_one_error(call("link.png", "starry.png", "-o", "photo.png", *FAST), 2)
    assert (folder / "photo.png").read_bytes() == before


@pytest.mark.parametrize("options", [("-o", "starry.png"), ("-o", "other.png"), ("-o", "./start.png")])
def test_styles_and_the_start_are_not_written_over(
    call: Call, pictures: tuple[Path, Path], folder: Path, options: tuple[str, ...]
) -> None:
    for name in ("other.png", "start.png"):
        save(folder / name, 20, 20, 3)
    target = folder / options[1]
    before = target.read_bytes()
    done = call("photo.png", "starry.png", "other.png", "--init", "start.png", *options, *FAST)
    assert target.read_bytes() == before
    assert_one_error(done, 2)


def test_the_style_of_a_texture_is_not_written_over(call: Call, pictures: tuple[Path, Path], folder: Path) -> None:
    before = (folder / "starry.png").read_bytes()
    assert_one_error(call("texture", "starry.png", "-o", "starry.png", *FAST), 2)
    assert (folder / "starry.png").read_bytes() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:200"])
def test_cuda_that_is_not_there_is_refused_in_one_line(
    call: Call, pictures: tuple[Path, Path], folder: Path, device: str
) -> None:
    done = call("photo.png", "starry.png", "-o", "out.png", "--device", device, *FAST)
    assert_one_error(done, 1)
    assert "--device cpu" in done.err
    assert not (folder / "out.png").exists()


def test_unusable_weights_are_refused_in_one_line(
    call: Call, pictures: tuple[Path, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"features.0.weight": torch.zeros(8, 3, 3, 3), "features.0.bias": torch.zeros(8)}, "other.safetensors")
    cut_vgg19(folder / "cut.safetensors")
    for code, weights, words in (
        (1, "other.safetensors", "vgg19 needs (64, 3, 3, 3)"),
        (1, "nowhere.safetensors", "--weights nowhere.safetensors"),
        (1, "photo.png", "not a safetensors or torch file"),
        (2, "cut.safetensors", "this encoder has relu1_1"),
    ):
        done = call("photo.png", "starry.png", "-o", "out.png", "--weights", weights, "--size", "16", "-q")
        assert_one_error(done, code)
        assert words in done.err
    monkeypatch.setenv("STYLIZE_WEIGHTS", str(folder / "elsewhere"))
    done = call("photo.png", "starry.png", "-o", "out.png", "--size", "16")
    assert_one_error(done, 1)
    assert f"STYLIZE_WEIGHTS {folder / 'elsewhere'}" in done.err
    assert not (folder / "out.png").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused_before_the_work(
    call: Call, pictures: tuple[Path, Path], folder: Path
) -> None:
    (folder / "locked").mkdir(mode=0o555)
    done = call("photo.png", "starry.png", "-o", "locked/out.png", *FAST, "--json")
    assert_one_error(done, 1)
    assert "permission" in done.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "size"), [((1, 1, 3), (1, 1)), ((2000, 1, 3), (1, 32)), ((1, 2000, 3), (32, 1)), ((3, 2, 3), (2, 3))]
)
@pytest.mark.parametrize("mode", ["none", "luminance", "match"])
def test_the_thinnest_pictures_are_painted(
    call: Call, pictures: tuple[Path, Path], folder: Path, shape: tuple[int, ...], size: tuple[int, int], mode: str
) -> None:
    save(folder / "thin.png", *shape)
    options = ("--encoder", "tiny", "--size", "32", "--steps", "2", "--min-size", "16", "--preserve-color", mode)
    done = call("thin.png", "starry.png", "-o", "out.png", *options, "--tv-weight", "0.01")
    assert done.code == 0, done.err
    assert size_of(folder / "out.png") == size
    done = call("starry.png", "thin.png", "-o", "out.png", *options)
    assert done.code == 0, done.err
    assert size_of(folder / "out.png") == (32, 32)


def test_running_out_of_memory_is_one_line(
    call: Call, pictures: tuple[Path, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def optimizer(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has a total ...")

    monkeypatch.setattr("stylize.objective.LBFGS", optimizer)
    done = call("photo.png", "starry.png", "-o", "out.png", *FAST)
    assert_one_error(done, 1)
    assert "memory" in done.err


def test_memory_that_is_short_before_the_first_step_is_one_line(
    call: Call, pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def noise(*arguments: object, **options: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("stylize.prepared.noise", noise)
    for command in (("texture", "starry.png"), ("photo.png", "starry.png", "--init", "noise")):
        done = call(*command, "-o", "out.png", *FAST)
        assert_one_error(done, 1)
        assert "not enough memory for 16x1" in done.err


def test_a_fault_of_ours_is_one_line_and_its_traceback_can_be_had(
    call: Call, pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pyramid(*arguments: object) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr("stylize.stylizer.pyramid", pyramid)
    done = call("photo.png", "starry.png", *FAST)
    assert_one_error(done, 1)
    assert "unexpected ZeroDivisionError: oh no; STYLIZE_TRACEBACK=1 shows where" in done.err
    monkeypatch.setenv("STYLIZE_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["photo.png", "starry.png", *FAST])


# For other programs


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("photo.png", "nosuch.png", "--json"), 1, "cannot read nosuch.png"),
        (("photo.png", "starry.png", "--json", "--bla"), 2, "--bla"),
        (("texture", "nosuch.png", "--json"), 1, "cannot read nosuch.png"),
        (("photo.png", "starry.png", "--json", "--size", "1"), 2, "size is 1; it must be 16 to 32768"),
    ],
)
def test_an_error_is_an_event(
    call: Call, pictures: tuple[Path, Path], words: tuple[str, ...], code: int, said: str
) -> None:
    done = call(*words)
    (event,) = done.events
    assert (event["event"], event["code"], done.code) == ("error", code, code)
    assert said in event["text"]
    assert done.err == f"stylize: {event['text']}\n"


@pytest.mark.parametrize("words", [("nosuch.png", "starry.png"), ("presets", "--json"), ("plugins", "--json", "--bla")])
def test_where_no_events_were_asked_for_an_error_is_no_event(call: Call, words: tuple[str, ...]) -> None:
    done = call(*words)
    assert done.code
    assert done.out == ""


@pytest.mark.slow
@pytest.mark.parametrize("command", [("photo.png", "starry.png"), ("texture", "starry.png")])
def test_the_preview_file_ends_as_the_picture(
    call: Call, pictures: tuple[Path, Path], folder: Path, command: tuple[str, ...]
) -> None:
    for _ in range(2):  # an old preview is replaced
        assert call(*command, "-o", "out.png", "--preview-file", "now.jpg", *FAST).code == 0
    expected = io.BytesIO(stylize.thumbnail(stylize.load(folder / "out.png").rgb, 1024))
    painted, shown = (np.asarray(Image.open(file), float) for file in (expected, folder / "now.jpg"))
    assert shown.shape == painted.shape
    assert np.abs(shown - painted).mean() < 1
    assert [path.name for path in folder.glob(".*")] == []


@pytest.mark.slow
def test_the_preview_file_is_a_whole_picture_at_any_moment(
    cli_environment: Mapping[str, str], pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    command = ("photo.png", "starry.png", "-o", "out.png", "--size", "48", "--preview-file", "now.jpg", *STOPPABLE)
    seen = set[int]()  # files, by when they were written
    with started(cli_environment, tmp_path, *command) as process:
        wait_for(process, "step")
        assert process.stdout is not None
        reader = threading.Thread(target=process.stdout.read, daemon=True)  # a full pipe would stop the run
        reader.start()
        until = time.monotonic() + PATIENCE
        while len(seen) < 4 and time.monotonic() < until:
            with contextlib.suppress(FileNotFoundError), (tmp_path / "now.jpg").open("rb") as file:
                Image.open(io.BytesIO(file.read())).load()
                seen.add(os.fstat(file.fileno()).st_mtime_ns)
        process.terminate()
        process.wait(PATIENCE)
        reader.join(PATIENCE)
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("photo.jpg", 1, "photo.jpg is there and no preview of stylize"),
        ("now.png", 2, "--preview-file now.png must end in .jpg"),
        ("nowhere/now.jpg", 2, "there is no folder nowhere"),
        ("out.jpg", 2, "--preview-file out.jpg is also the file of the result"),
    ],
)
def test_a_preview_file_must_not_be_anything_else(
    call: Call, pictures: tuple[Path, Path], folder: Path, path: str, code: int, said: str
) -> None:
    Image.open("photo.png").save("photo.jpg")
    before = (folder / "photo.jpg").read_bytes()
    done = call("photo.jpg", "starry.png", "-o", "out.jpg", "--preview-file", path, *FAST)
    assert done.code == code
    assert said in done.err
    assert (folder / "photo.jpg").read_bytes() == before
    assert not (folder / "out.jpg").exists()


def test_the_settings_are_described_for_forms_without_torch(cli_environment: Mapping[str, str], tmp_path: Path) -> None:
    code = "import sys\nfrom stylize.cli.main import main\ntry: main(['settings', '--json'])\n"
    code += "finally: assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**cli_environment, "STYLIZE_PLUGINS": ""}, capture_output=True, check=True
    )
    described = json.loads(done.stdout)
    fields = {each["name"]: each for each in described["settings"]}
    assert [*fields] == [each.name for each in dataclasses.fields(Settings)]
    assert {name: field["default"] for name, field in fields.items()} == {
        **dict.fromkeys(fields),
        **json.loads(json.dumps(Settings().to_dict())),
    }
    assert {name: fields["size"][name] for name in ("type", "minimum", "maximum", "unit", "section")} == {
        "type": "integer",
        "minimum": 16,
        "maximum": 32768,
        "unit": "px",
        "section": "Picture",
    }
    assert (fields["learning_rate"]["minimum"], fields["learning_rate"]["exclusive"]) == (0, True)
    assert (fields["steps"]["type"], fields["steps"]["items"]) == ("array", "integer")
    assert fields["scales"]["nullable"]
    assert fields["style_loss"]["choices"] == ["wasserstein", "gram", "match"]
    assert [each["name"] for each in described["presets"]] == [*PRESETS]
    for each in described["presets"]:
        assert Settings.from_dict(each["values"]) == preset(each["name"])


def test_the_settings_are_listed(call: Call) -> None:
    out = call("settings").out
    for each in dataclasses.fields(Settings):
        assert re.search(rf"^{each.name} ", out, re.MULTILINE)


# Streams that break


@pytest.mark.slow
@pytest.mark.parametrize(("options", "code"), [(("--json",), 130), ((), 0)])
def test_a_reader_that_goes_away_does_not_cost_the_picture(
    cli_environment: Mapping[str, str], pictures: tuple[Path, Path], tmp_path: Path, options: tuple[str, ...], code: int
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "stylize", "photo.png", "starry.png", "-o", "out.png", *FAST, *options]
    try:
        done = preloaded.run(
            command, env=dict(cli_environment), cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, timeout=PATIENCE
        )
    finally:
        os.close(writing)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr
    assert size_of(tmp_path / "out.png") == (16, 12)


@pytest.mark.slow
def test_a_full_disk_behind_the_messages_does_not_cost_the_picture(
    cli_environment: Mapping[str, str], pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "stylize", "photo.png", "starry.png", "-o", "out.png", *FAST]
    with Path("/dev/full").open("w") as full:
        done = preloaded.run(
            command, env=dict(cli_environment), cwd=tmp_path, stdout=full, stderr=full, timeout=PATIENCE
        )
    assert done.returncode == 0
    assert size_of(tmp_path / "out.png") == (16, 12)


# Interruption


@contextlib.contextmanager
def started(environment: Mapping[str, str], folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "stylize", *arguments]
    with preloaded.Popen(
        command, env=dict(environment), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], event: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == event:
            return
    assert process.stderr is not None
    raise AssertionError(f"no {event}: {process.stderr.read()}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "size"),
    [
        (("photo.png", "starry.png", "--size", "512", "--upscale"), (512, 384)),  # stopped at its coarsest scale
        (("texture", "starry.png", "--size", "48"), (48, 48)),
    ],
)
def test_one_ctrl_c_writes_the_picture_as_far_as_it_is(
    cli_environment: Mapping[str, str],
    pictures: tuple[Path, Path],
    tmp_path: Path,
    command: tuple[str, ...],
    size: tuple[int, int],
) -> None:
    before = set(tmp_path.iterdir())
    with started(cli_environment, tmp_path, *command, "-o", "out.png", *STOPPABLE) as process:
        wait_for(process, "step")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    last = json.loads(out.splitlines()[-1])
    assert (last["event"], last["path"]) == ("written", "out.png")
    assert last["fraction"] < 1
    assert size_of(tmp_path / "out.png") == size
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "out.png", tmp_path / "cache"}


def test_a_signal_while_the_display_is_asked_is_heard() -> None:
    from stylize.cli.session import interruptible

    class Signalling(Display):
        looks = 0

        @property
        def abandoned(self) -> bool:  # type: ignore[override]
            self.looks += 1
            if self.looks == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return False

        def warning(self, text: str) -> None: ...

    with interruptible(Signalling()) as stop:
        assert [stop() for _ in range(4)] == [False, True, True, True]


# Holds up the second step until the program has noticed two signals, and tells of each.
SLOW = """
import signal, time
from stylize import hookimpl

noticed = []

@hookimpl
def stylize_step(frame, step):
    if step.number == 2:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, telling(signal.getsignal(number)))
        print('{"event": "asleep"}', flush=True)
        while len(noticed) < 2:
            time.sleep(0.01)

def telling(notice):
    def on_signal(number, frame):
        notice(number, frame)
        noticed.append(number)
        print('{"event": "noticed"}', flush=True)
    return on_signal
"""


@pytest.fixture
def slow_environment(cli_environment: Mapping[str, str], tmp_path: Path) -> Mapping[str, str]:
    """With the plugin SLOW."""
    info = tmp_path / "slow" / "slow_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "slow" / "slow_plugin.py").write_text(SLOW)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stylize]\nslow = slow_plugin\n")
    return {**cli_environment, "PYTHONPATH": os.pathsep.join([cli_environment["PYTHONPATH"], str(tmp_path / "slow")])}


def test_the_first_sigterm_is_a_ctrl_c_and_the_second_changes_nothing(
    slow_environment: Mapping[str, str], pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    command = ("photo.png", "starry.png", "-o", "out.png", "--size", "16", *STOPPABLE)
    with started(slow_environment, tmp_path, *command) as process:
        wait_for(process, "asleep")
        for _ in range(2):
            process.terminate()
            wait_for(process, "noticed")
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["event"] == "written"
    assert size_of(tmp_path / "out.png") == (16, 12)


def test_a_sigterm_before_the_first_step_ends_the_run(
    cli_environment: Mapping[str, str], pictures: tuple[Path, Path], tmp_path: Path, plugin_folder: Path
) -> None:
    info = tmp_path / "slow" / "slow_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    code = "import time\nfrom stylize import hookimpl\n\n@hookimpl\ndef stylize_open(host):\n"
    code += "    print('{}', flush=True)\n    time.sleep(1000)\n"
    (tmp_path / "slow" / "slow_plugin.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stylize]\nslow = slow_plugin\n")
    search = os.pathsep.join([cli_environment["PYTHONPATH"], str(tmp_path / "slow")])
    command = ("photo.png", "starry.png", "-o", "out.png", "--json")
    with started({**cli_environment, "PYTHONPATH": search}, tmp_path, *command) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "{}\n"
        process.terminate()
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.strip() == "stylize: interrupted"
    assert json.loads(out) == {"event": "error", "text": "interrupted", "code": 130}


@pytest.mark.skipif(sys.platform == "win32", reason="needs poll")
def test_a_run_ends_when_its_reader_is_gone(
    cli_environment: Mapping[str, str], pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    command = ("photo.png", "starry.png", "-o", "out.png", "--size", "16", *STOPPABLE)
    with started(cli_environment, tmp_path, *command) as process:
        wait_for(process, "step")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=PATIENCE) == 130
    assert size_of(tmp_path / "out.png") == (16, 12)


def test_a_second_ctrl_c_drops_the_picture_at_once(
    slow_environment: Mapping[str, str], pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "out.png").write_bytes(b"old")
    before = set(tmp_path.iterdir())
    command = ("photo.png", "starry.png", "-o", "out.png", "--size", "16", *STOPPABLE)
    with started(slow_environment, tmp_path, *command) as process:
        wait_for(process, "asleep")
        process.send_signal(signal.SIGINT)
        wait_for(process, "noticed")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.strip() == "stylize: interrupted"
    assert "written" not in out
    assert set(tmp_path.iterdir()) - {tmp_path / "cache"} == before
    assert (tmp_path / "out.png").read_bytes() == b"old"


@pytest.mark.slow
def test_a_second_ctrl_c_at_any_moment_leaves_no_half_picture(
    cli_environment: Mapping[str, str], pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    command = ("photo.png", "starry.png", "-o", "out.png", "--size", "1000", "--upscale", "--scales", "1", *STOPPABLE)
    with started(cli_environment, tmp_path, *command) as process:
        wait_for(process, "step")
        process.send_signal(signal.SIGINT)
        wait_for(process, "note")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "out.png", tmp_path / "cache"}
    if (tmp_path / "out.png").exists():
        assert size_of(tmp_path / "out.png") == (1000, 750)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a pipe of known size")
def test_ctrl_c_while_the_reader_of_the_events_is_slow_writes_the_picture(
    cli_environment: Mapping[str, str], pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    import fcntl
    import termios

    environment = {key: value for key, value in cli_environment.items() if key != "PYTHONUNBUFFERED"}
    command = ("photo.png", "starry.png", "-o", "out.png", "--size", "16", *STOPPABLE)
    with started(environment, tmp_path, *command) as process:
        assert process.stdout is not None
        with contextlib.suppress(OSError):  # there is more in it already
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        waiting, still = -1, 0
        while still < 5:  # until the pipe is full, and the process blocked in a write
            time.sleep(0.1)
            (now,) = struct.unpack("i", fcntl.ioctl(process.stdout, termios.FIONREAD, b"\0" * 4))
            still = still + 1 if now == waiting and now > 0 else 0
            waiting = now
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    assert process.returncode == 130
    assert json.loads(out.splitlines()[-1])["event"] == "written"
    assert size_of(tmp_path / "out.png") == (16, 12)


def without_streams(
    closed: str, environment: Mapping[str, str], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-m", "stylize", *arguments]
    return subprocess.run(
        command, env=dict(environment), cwd=folder, timeout=PATIENCE, check=False, capture_output=True, text=True
    )


@pytest.mark.slow
def test_closed_streams_do_not_cost_the_picture(
    pictures: tuple[Path, Path], cli_environment: Mapping[str, str], tmp_path: Path
) -> None:
    command = ("photo.png", "starry.png", "-o", "out.png", *FAST)
    done = without_streams("<&- >&- 2>&-", cli_environment, tmp_path, *command)
    assert done.returncode == 0
    assert size_of(tmp_path / "out.png") == (16, 12)


@pytest.mark.slow
def test_messages_do_not_go_to_another_stream(cli_environment: Mapping[str, str], tmp_path: Path) -> None:
    done = without_streams("2>&-", cli_environment, tmp_path, "presets", "nonsense")
    assert (done.returncode, done.stdout) == (2, "")


# Makes Ctrl-C come while the program is imported.
EARLY = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
time.sleep(1000)
"""


def test_ctrl_c_before_all_is_imported_ends_without_a_traceback(
    cli_environment: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "click.py").write_text(EARLY)
    done = subprocess.run(
        [sys.executable, "-m", "stylize", "presets"],
        env={**cli_environment, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        timeout=PATIENCE,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stylize: interrupted\n")


LOCKED = {  # calls about a folder that may not be entered, and one where nothing may be written
    "a photo": ("locked/x.png", "starry.png"),
    "a style": ("photo.png", "locked/x.png"),
    "a style for a folder": ("photos", "locked/x.png", "-o", "out"),
    "a folder": ("locked", "starry.png", "-o", "out"),
    "a folder below": ("locked/photos", "starry.png", "-o", "out"),
    "a pattern": ("locked/*.png", "starry.png", "-o", "out"),
    "a folder of styles": ("photos", "locked", "-o", "out"),
    "numbered pictures": ("locked/%03d.png", "starry.png", "-o", "out.mkv"),
    "a folder as a clip": ("locked", "starry.png", "-o", "out.mkv"),
    "a clip": ("locked/clip.mkv", "starry.png", "-o", "out.mkv"),
    "a clip's mask": ("clip.mkv", "starry.png", "--mask", "locked/x.png", "-o", "out.mkv"),
    "a clip's region": ("clip.mkv", "starry.png", "--region", "locked/x.png", "starry.png", "-o", "out.mkv"),
    "a clip's target": ("clip.mkv", "starry.png", "-o", "locked/out.mkv"),
    "a clip's folder": ("clip.mkv", "starry.png", "-o", "closed"),
    "a mask": ("photo.png", "starry.png", "--mask", "locked/x.png=#ff0000"),
    "a folder of masks": ("photos", "starry.png", "--mask-folder", "locked", "-o", "out"),
    "a target": ("photo.png", "starry.png", "-o", "locked/out.png"),
    "a target of a folder": ("photos", "starry.png", "-o", "closed/new"),
    "a report": ("photos", "starry.png", "--report", "closed/report.html", "-o", "out"),
    "a report unseen": ("clip.mkv", "starry.png", "--report", "locked/report.html", "-o", "out.mkv"),
    "settings": ("photo.png", "starry.png", "--config", "locked/my.toml"),
}


@pytest.mark.usefixtures("permissions")
@pytest.mark.parametrize("words", LOCKED.values(), ids=LOCKED.keys())
def test_what_may_not_be_read_or_written_is_said_in_one_line_before_anything_is_painted(
    words: tuple[str, ...], call: Call, folder: Path, pictures: tuple[Path, Path]
) -> None:
    for name in ("locked", "closed", "photos"):
        (folder / name).mkdir()
    (folder / "photos" / "photo.png").write_bytes(pictures[0].read_bytes())
    if "clip.mkv" in words:
        clip(folder / "clip.mkv", moving(2))
    (folder / "locked").chmod(0)
    (folder / "closed").chmod(0o555)
    there = {*folder.iterdir()}
    done = call(*words, *([] if "-o" in words else ["-o", "out.png"]), *FAST)
    (folder / "locked").chmod(0o755)
    assert done.code in (1, 2)
    assert re.fullmatch(r"stylize: .*(locked|closed).*\n", done.err)
    assert not re.search("unexpected|plugin", done.err)
    assert {*folder.iterdir()} - there <= {folder / "cache"}


@pytest.mark.usefixtures("permissions")
def test_the_status_of_a_folder_that_may_not_be_read(call: Call, folder: Path) -> None:
    (folder / "locked").mkdir(0)
    done = call("status", "locked")
    (folder / "locked").chmod(0o755)
    assert (done.code, done.err) == (1, "stylize: cannot read the folder locked: Permission denied\n")
    assert call("status", "locked").out == "locked: no run is at work\n"


@pytest.mark.slow
def test_a_size_beyond_the_photo_is_noted_and_so_is_an_address(call: Call, pictures: tuple[Path, Path]) -> None:
    quick = ("-o", "out.png", "--encoder", "tiny", "--steps", "1")
    assert "note: it has 48x36 pixels, and so will the result; --upscale makes it 64\n" in (
        call(*pictures, "--size", "64", *quick).err
    )
    for options in (("--size", "64", "--upscale"), ("--size", "48"), ("--size", "16"), ()):
        assert "--upscale" not in call(*pictures, *options, *quick).err
    done = call("https://example.org/a.png", pictures[1], *quick)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "download the picture first" in done.err
