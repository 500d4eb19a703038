"""The nodes for ComfyUI, against a stand-in of the two modules of ComfyUI that they use; and how they are installed."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import stylize_comfyui
from stylize import Picture, Settings, SettingsError, Stylizer, paint_frames, plugin_manager
from stylize import preset as preset_settings
from stylize.encoders import EncoderSpec
from stylize_comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, StylizeSettings
from tests.conftest import ROOT, Call, waves


class Interrupted(Exception):
    """ComfyUI's InterruptProcessingException."""


class Comfy:
    """What the stand-in is told and tells: interruption, its device, and all that bars are shown."""

    def __init__(self) -> None:
        self.asked = False  # to interrupt
        self.calls: list[str] = []
        self.bars: list[tuple[int, int, Any]] = []
        self.on_update: Callable[[], None] = lambda: None

    def modules(self) -> dict[str, ModuleType]:
        comfy = self

        class ProgressBar:
            def __init__(self, total: int, node_id: str | None = None) -> None:
                self.total = total

            def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
                comfy.bars.append((value, total or self.total, preview))
                comfy.on_update()

        def throw() -> None:
            if comfy.asked:
                comfy.asked = False
                raise Interrupted

        package, utils, management = map(ModuleType, ("comfy", "comfy.utils", "comfy.model_management"))
        vars(package).update(__path__=[], utils=utils, model_management=management)
        vars(utils).update(ProgressBar=ProgressBar)
        vars(management).update(
            get_torch_device=lambda: torch.device("cpu"),
            processing_interrupted=lambda: comfy.asked,
            throw_exception_if_processing_interrupted=throw,
            unload_all_models=lambda: comfy.calls.append("unload"),
            soft_empty_cache=lambda: comfy.calls.append("empty"),
        )
        return {module.__name__: module for module in (package, utils, management)}


@pytest.fixture
def comfy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfy]:
    """ComfyUI, with the tiny encoder at hand."""
    made = Comfy()
    for name, module in made.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    forget()
    yield made
    forget()


def forget() -> None:
    """Let the next node import ComfyUI anew."""
    sys.modules.pop("stylize_comfyui.painting", None)
    vars(stylize_comfyui).pop("painting", None)


def image(height: int, width: int, seed: int = 0, count: int = 1) -> Tensor:
    """A batch (count, H, W, 3) as ComfyUI makes it: in inference mode."""
    with torch.inference_mode():
        return torch.cat([waves(height, width, seed + number) for number in range(count)]).movedim(1, -1).contiguous()


def settings(**changes: Any) -> Settings:
    return Settings(**{"size": 32, "steps": (3,), "min_size": 16, "encoder": "tiny", **changes})


def run(name: str, **inputs: Any) -> tuple[Any, ...]:
    """Run a node as the engine does: in inference mode, with the defaults of its widgets."""
    kind = NODE_CLASS_MAPPINGS[name]
    required = kind.INPUT_TYPES()["required"]  # type: ignore[attr-defined]
    widgets = {key: spec[1]["default"] for key, spec in required.items() if "default" in spec[1]}
    choices = {key: spec[0][0] for key, spec in required.items() if isinstance(spec[0], list) and key not in widgets}
    with torch.inference_mode():
        made: tuple[Any, ...] = getattr(kind(), kind.FUNCTION)(**{**widgets, **choices, **inputs})  # type: ignore[attr-defined]
    return made


def ours(batch: Tensor) -> Tensor:
    return batch.movedim(-1, 1).clone()


# What ComfyUI asks of a node


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_a_node_declares_what_the_engine_needs(name: str, comfy: Comfy) -> None:
    kind: Any = NODE_CLASS_MAPPINGS[name]
    inputs = kind.INPUT_TYPES()
    assert set(inputs) <= {"required", "optional", "hidden"}
    arguments = {key for group in inputs.values() for key in group}
    code = getattr(kind, kind.FUNCTION).__code__
    if not code.co_flags & 0x08:  # **values
        assert arguments <= set(code.co_varnames[: code.co_argcount])
    for group in inputs.values():
        for key, (type_, options) in group.items():
            assert isinstance(type_, list | str), key
            assert options.get("tooltip"), key
            if type_ in ("INT", "FLOAT"):
                assert options["min"] <= options["default"] <= options["max"], key
            if isinstance(type_, list) and "default" in options:
                assert options["default"] in type_, key
    assert len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES)
    assert kind.DESCRIPTION
    assert kind.CATEGORY == "image/stylize"
    assert NODE_DISPLAY_NAME_MAPPINGS[name]
    json.dumps(inputs)  # as the server sends it to the browser


def test_the_nodes_are_listed_without_torch() -> None:
    code = "import sys; from stylize_comfyui.nodes import NODE_CLASS_MAPPINGS; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=300).returncode == 0


def test_settings_have_a_widget_each_whose_defaults_are_the_settings_defaults(comfy: Comfy) -> None:
    (made,) = run("StylizeSettings")
    assert made == Settings()
    assert set(StylizeSettings.INPUT_TYPES()["required"]) == set(Settings.__dataclass_fields__)


def test_lists_and_tables_are_written_as_text(comfy: Comfy) -> None:
    (made,) = run("StylizeSettings", steps="5, 3", style_weights="1,2.5", style_layers="relu1_1=2, relu2_1", scales=2)
    assert (made.steps, made.style_weights, made.scales) == ((5, 3), (1.0, 2.5), 2)
    assert made.style_layers == {"relu1_1": 2.0, "relu2_1": 1.0}


@pytest.mark.parametrize(("name", "text"), [("steps", "many"), ("style_layers", "relu1_1=x"), ("style_weights", "1;2")])
def test_what_is_no_list_of_numbers_is_refused_by_name(comfy: Comfy, name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} "):
        run("StylizeSettings", **{name: text})


# Painting


@pytest.mark.slow
def test_a_node_paints_what_the_stylizer_paints(comfy: Comfy, tiny: EncoderSpec) -> None:
    content, style = image(24, 32, 1), image(30, 20, 2)
    made, record = run("Stylize", content=content, style=style, settings=settings())
    wanted = Stylizer(ours(style), settings(device="cpu"), encoders=[tiny])(ours(content))
    assert torch.equal(ours(made), wanted.rgb)
    assert json.loads(record)["encoder"]["name"] == "tiny"


@pytest.mark.slow
def test_the_widgets_of_the_node_count_more_than_settings_and_presets(comfy: Comfy) -> None:
    given = {"content": image(24, 32, 1), "style": image(20, 20, 2), "settings": settings()}
    plain = json.loads(run("Stylize", **given)[1])["settings"]
    assert (plain["size"], plain["content_weight"]) == (32, Settings().content_weight)
    changed = {"size": 16, "content_weight": 0.5, "preserve_color": "luminance"}
    told = json.loads(run("Stylize", **given, **changed, preset="strong")[1])["settings"]
    assert {name: told[name] for name in changed} == changed
    preset = {**given, "settings": None, "encoder": "tiny", "size": 16}
    told = json.loads(run("Stylize", **preset, preset="strong")[1])["settings"]
    assert (told["content_weight"], told["encoder"], told["size"]) == (
        preset_settings("strong").content_weight,
        "tiny",
        16,
    )


@pytest.mark.slow
def test_a_batch_is_painted_one_by_one_on_one_bar_that_only_rises(comfy: Comfy) -> None:
    made, record = run("Stylize", content=image(24, 32, 1, count=3), style=image(20, 20, 2), settings=settings())
    assert made.shape == (3, 24, 32, 3)
    assert len(json.loads(record)) == 3
    alone, _ = run("Stylize", content=image(24, 32, 2), style=image(20, 20, 2), settings=settings())
    assert torch.equal(made[1], alone[0])
    values = [value for value, total, _ in comfy.bars if total == 3000]
    assert len(values) == 18  # three steps at each of two scales
    assert values == sorted(values)
    assert values[-1] == 3000


def test_previews_are_pictures_as_comfyui_sends_them(comfy: Comfy) -> None:
    run("Stylize", content=image(24, 32, 1), style=image(20, 20, 2), settings=settings())
    shown = [preview for _, _, preview in comfy.bars if preview is not None]
    assert shown
    for kind, picture, longest in shown:
        assert kind == "JPEG"
        assert isinstance(picture, Image.Image)
        assert picture.mode == "RGB"
        assert max(picture.size) <= longest
        assert abs(picture.width / picture.height - 4 / 3) < 0.1


def test_only_what_is_masked_is_painted_at_the_contents_own_size(comfy: Comfy) -> None:
    content, mask = image(40, 60, 1), torch.zeros(1, 40, 60)
    mask[:, 10:30, 20:50] = 1
    mask[:, 10:12, 20:50] = 0.5
    made, _ = run("Stylize", content=content, style=image(20, 20, 2), mask=mask, settings=settings())
    assert made.shape == content.shape
    outside = mask[0] == 0
    assert torch.equal(made[0][outside], content[0][outside])
    assert (made[0][mask[0] == 1] - content[0][mask[0] == 1]).abs().mean() > 0.01
    for _, _, preview in comfy.bars:
        if preview is not None:
            assert preview[1].size == (60, 40)


@pytest.mark.slow
def test_a_mask_of_another_size_is_fitted_and_an_empty_one_leaves_the_picture(comfy: Comfy) -> None:
    content, style = image(24, 32, 1, count=2), image(20, 20, 2)
    made, record = run("Stylize", content=content, style=style, mask=torch.zeros(64, 64), settings=settings())
    assert torch.equal(made, content)
    assert json.loads(record) == [None, None]
    half = torch.zeros(1, 12, 16)
    half[:, :, 8:] = 1
    made, _ = run("Stylize", content=content, style=style, mask=half, settings=settings())
    assert torch.equal(made[:, :, :14], content[:, :, :14])
    assert (made[:, :, 18:] - content[:, :, 18:]).abs().mean() > 0.01


@pytest.mark.slow
def test_alpha_grey_and_values_beyond_the_range_are_taken(comfy: Comfy) -> None:
    content = torch.cat([image(24, 32, 1), torch.ones(1, 24, 32, 1)], 3)
    content[:, :, :8, 3] = 0
    made, _ = run("Stylize", content=content, style=image(20, 20, 2), settings=settings())
    assert made.shape == (1, 24, 32, 4)
    assert torch.equal(made[..., 3], content[..., 3])
    grey = image(24, 32, 1)[..., :1] * 3 - 1
    grey[0, 0, 0] = torch.nan
    made, _ = run("Stylize", content=grey, style=image(20, 20, 2), settings=settings())
    assert made.shape == (1, 24, 32, 3)
    assert made.isfinite().all()


@pytest.mark.slow
def test_it_starts_from_the_picture_that_is_connected(comfy: Comfy) -> None:
    given = {"content": image(24, 32, 1), "style": image(20, 20, 2), "settings": settings(steps=(1,))}
    start = image(24, 32, 9)
    plain, begun = run("Stylize", **given)[0], run("Stylize", **given, init=start)[0]
    assert (begun - start).abs().mean() < (plain - start).abs().mean()


@pytest.mark.slow
def test_several_styles_are_blended(comfy: Comfy, tiny: EncoderSpec) -> None:
    content, styles = image(24, 32, 1), image(20, 20, 2, count=2)
    made, _ = run("Stylize", content=content, style=styles, settings=settings(style_weights=(1.0, 3.0)))
    both = [Picture(ours(style[None])) for style in styles]
    wanted = Stylizer(both, settings(style_weights=(1.0, 3.0), device="cpu"), encoders=[tiny])(ours(content))
    assert torch.equal(ours(made), wanted.rgb)


@pytest.mark.slow
def test_a_style_is_measured_once(comfy: Comfy, monkeypatch: pytest.MonkeyPatch) -> None:
    painting = importlib.import_module("stylize_comfyui.painting")
    made: list[Any] = []

    def counted(*arguments: Any, **options: Any) -> Stylizer:
        made.append(arguments)
        return Stylizer(*arguments, **options)

    monkeypatch.setattr(painting, "Stylizer", counted)
    for seed in (1, 3):
        run("Stylize", content=image(24, 32, seed), style=image(20, 20, 2), settings=settings())
    assert len(made) == 1
    run("Stylize", content=image(24, 32, 1), style=image(20, 20, 4), settings=settings())
    run("Stylize", content=image(24, 32, 1), style=image(20, 20, 4), settings=settings(content_weight=0.5))
    assert len(made) == 3


@pytest.mark.slow
def test_an_interruption_is_heard_within_a_step(comfy: Comfy) -> None:
    def interrupt() -> None:
        comfy.asked = len(comfy.bars) >= 2

    comfy.on_update = interrupt
    with pytest.raises(Interrupted):
        run("Stylize", content=image(24, 32, 1, count=2), style=image(20, 20, 2), settings=settings(steps=(50,)))
    assert len(comfy.bars) == 2
    comfy.on_update = lambda: None
    made, _ = run("Stylize", content=image(24, 32, 1), style=image(20, 20, 2), settings=settings())
    assert made.shape == (1, 24, 32, 3)


def test_models_make_room_for_large_pictures_only(comfy: Comfy) -> None:
    painting = importlib.import_module("stylize_comfyui.painting")
    run("Stylize", content=image(24, 32, 1), style=image(20, 20, 2), settings=settings())
    assert comfy.calls == []
    painting.make_room(1024, 1536)
    assert comfy.calls == ["unload", "empty"]


class Device:
    """A device as PyTorch names it, also of kinds that this machine has none of."""

    def __init__(self, name: str) -> None:
        self._name, self.type = name, name.partition(":")[0]

    def __str__(self) -> str:
        return self._name


def test_it_paints_on_the_device_of_comfyui(comfy: Comfy, monkeypatch: pytest.MonkeyPatch) -> None:
    painting = importlib.import_module("stylize_comfyui.painting")
    for device, wanted in (("cuda:1", "cuda:1"), ("mps", "mps"), ("xpu", "cpu")):
        monkeypatch.setattr(painting.management, "get_torch_device", lambda device=device: Device(device))
        assert painting.on_comfy_device(settings()).device == wanted
    assert painting.on_comfy_device(settings(device="cpu")).device == "cpu"


# Clips


def moving(count: int) -> Tensor:
    """Frames (count, 24, 32, 3) of a picture that moves to the right."""
    return torch.cat([torch.roll(image(24, 32, 1), 2 * number, 2) for number in range(count)])


@pytest.mark.slow
def test_a_clip_is_painted_as_frames_that_start_from_the_ones_before(comfy: Comfy, tiny: EncoderSpec) -> None:
    frames, style, options = moving(2), image(20, 20, 2), {"temporal_weight": 50.0, "frame_steps": 3, "flow": "dis"}
    (made,) = run("StylizeClip", frames=frames, style=style, settings=settings(min_size=32), **options)
    values = [value for value, total, _ in comfy.bars if total == 2000]
    assert values == sorted(values)
    assert values[-1] == 2000
    levels = [(frame * 255).round().byte().numpy() for frame in frames.clone()]
    stylizer = Stylizer(ours(style), settings(min_size=32, device="cpu"), encoders=[tiny])
    wanted = list(paint_frames(levels, stylizer, plugin_manager(), options=options))
    assert torch.equal(ours(made), torch.cat([each.rgb for each in wanted]))
    assert not torch.equal(made[1], run("StylizeClip", frames=frames[1:], style=style, settings=settings())[0][0])


@pytest.mark.slow
def test_a_clip_is_painted_within_its_mask(comfy: Comfy) -> None:
    frames, mask = moving(2), torch.zeros(24, 32)
    mask[:, 16:] = 1
    (made,) = run("StylizeClip", frames=frames, style=image(20, 20, 2), mask=mask, settings=settings(min_size=32))
    assert torch.equal(made[:, :, :16], frames[:, :, :16])
    assert (made - frames)[:, :, 16:].abs().mean() > 0.01


@pytest.mark.slow
def test_a_clip_hears_an_interruption_within_a_step(comfy: Comfy) -> None:
    def interrupt() -> None:
        comfy.asked = len(comfy.bars) >= 2

    comfy.on_update = interrupt
    with pytest.raises(Interrupted):
        run("StylizeClip", frames=moving(3), style=image(20, 20, 2), settings=settings(steps=(50,)))
    assert len(comfy.bars) == 2


# Textures


def test_a_texture_has_the_styles_proportions_and_depends_on_the_seed(comfy: Comfy) -> None:
    given = {"style": image(20, 40, 2), "settings": settings(steps=(2,))}
    (made,) = run("StylizeTexture", **given)
    assert made.shape == (1, 16, 32, 3)
    assert torch.equal(made, run("StylizeTexture", **given)[0])
    assert not torch.equal(made, run("StylizeTexture", **given, seed=1)[0])
    assert run("StylizeTexture", **given, size=24)[0].shape == (1, 12, 24, 3)


# Installing


@pytest.mark.parametrize("where", [".", "custom_nodes"])
def test_it_is_installed_into_comfyui(call: Call, folder: Path, where: str) -> None:
    nodes = folder / "ComfyUI" / "custom_nodes"
    nodes.mkdir(parents=True)
    for _ in range(2):  # again is no harm
        done = call("comfyui", "install", folder / "ComfyUI" / where)
        assert (done.code, done.err) == (0, "")
    loader = nodes / "stylize" / "__init__.py"
    assert len(loader.read_text().splitlines()) == 3
    scope: dict[str, Any] = {}
    exec(loader.read_text(), scope)
    assert scope["NODE_CLASS_MAPPINGS"] is NODE_CLASS_MAPPINGS
    assert scope["NODE_DISPLAY_NAME_MAPPINGS"] is NODE_DISPLAY_NAME_MAPPINGS
    assert [path.suffix for path in (nodes / "stylize" / "example_workflows").iterdir()] == [".json"]


def test_it_tells_of_another_python_that_comfyui_may_run_with(call: Call, folder: Path) -> None:
    (folder / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    (folder / "ComfyUI" / "venv" / "bin").mkdir(parents=True)
    (folder / "ComfyUI" / "venv" / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    done = call("comfyui", "install", folder / "ComfyUI")
    assert done.code == 0
    assert str(folder / "ComfyUI" / "venv" / "bin" / "python") in done.err


def test_what_is_not_comfyui_or_not_ours_is_left_alone(call: Call, folder: Path) -> None:
    for wrong in (folder, folder / "missing"):
        done = call("comfyui", "install", wrong)
        assert done.code == 1
        assert "is not ComfyUI" in done.err
    other = folder / "custom_nodes" / "stylize" / "__init__.py"
    other.parent.mkdir(parents=True)
    other.write_text("NODE_CLASS_MAPPINGS = {}")
    done = call("comfyui", "install", folder)
    assert done.code == 1
    assert "belongs to something else" in done.err
    assert other.read_text() == "NODE_CLASS_MAPPINGS = {}"
    other.parent.joinpath("__init__.py").unlink()
    other.parent.rmdir()
    (folder / "custom_nodes" / "stylize").write_text("a file")
    done = call("comfyui", "install", folder)
    assert done.code == 1
    assert "cannot write" in done.err


def test_the_example_workflow_fits_the_nodes(comfy: Comfy) -> None:
    workflow = json.loads((ROOT / "plugins/stylize_comfyui/example_workflows/stylize.json").read_text())
    by_id = {node["id"]: node for node in workflow["nodes"]}
    (node,) = [node for node in by_id.values() if node["type"] == "Stylize"]
    inputs = NODE_CLASS_MAPPINGS["Stylize"].INPUT_TYPES()  # type: ignore[attr-defined]
    sockets = {key: spec[0] for group in inputs.values() for key, spec in group.items() if spec[0].__class__ is str}
    wired = {each["name"]: each["type"] for each in node["inputs"]}
    assert wired == {name: kind for name, kind in sockets.items() if kind not in ("INT", "FLOAT")}
    widgets = {key: spec for key, spec in inputs["required"].items() if key not in wired}
    for value, (kind, options) in zip(node["widgets_values"], widgets.values(), strict=True):
        assert value in kind if isinstance(kind, list) else options["min"] <= value <= options["max"]
    for _, source, slot, target, place, kind in workflow["links"]:
        assert by_id[source]["outputs"][slot]["type"] == kind == by_id[target]["inputs"][place]["type"]


# ComfyUI itself


@pytest.mark.skipif("COMFYUI" not in os.environ, reason="set COMFYUI to a checkout of ComfyUI with its requirements")
def test_the_real_server_shows_progress_and_previews_caches_and_hears_interruptions(call: Call, folder: Path) -> None:
    home = Path(os.environ["COMFYUI"])
    assert call("comfyui", "install", home).code == 0
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, "-m", "tests.bench.comfyui", str(home), "--keep", str(folder / "kept")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["once"]["progress"] == 40
    assert found["once"]["previews"] >= 20
    assert found["once"]["full"]
    assert found["again"]["progress"] == 0
    assert "stylize" in found["again"]["cached"]
    assert (found["batch of 3"]["progress"], found["batch of 3"]["pictures"]) == (120, 3)
    assert found["batch of 3"]["rises"]
    assert found["interrupted"]["end"] == "interrupted"
    assert found["interrupted"]["steps_after_interrupt"] <= 1
    assert found["after that"]["end"] == "success"
    clip = found["clip"]
    assert (clip["end"], clip["pictures"], clip["rises"], clip["full"]) == ("success", 3, True, True)
    assert clip["progress"] >= 40
    assert "stylize" in found["clip again"]["cached"]
    assert found["clip interrupted"]["end"] == "interrupted"
    assert found["clip interrupted"]["steps_after_interrupt"] <= 1
    assert (found["texture"]["end"], found["texture"]["pictures"]) == ("success", 1)
    assert "numbers, separated by commas" in found["bad setting"]["error"]
