"""The embedded encoder: what is shipped, and when it steps in for VGG-19."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from stylize.encoders import Build, EncoderConfig, EncoderSpec, Progress, builtin, load, mini, weights
from stylize.encoders.vgg import VGG
from stylize.errors import SettingsError, WeightsError
from stylize.images import fit, resize
from stylize.images import load as picture
from stylize.observing import Step
from stylize.settings import Settings, preset
from stylize.stylizer import Stylizer
from tests.conftest import SHARED, Cli, waves

CPU = EncoderConfig(torch.device("cpu"), torch.float32)
WEIGHTS = SHARED / "weights" / "vgg19-features.safetensors"


# What is shipped


def test_the_file_is_small_and_says_where_it_comes_from() -> None:
    assert mini.FILE.stat().st_size <= 2_097_152
    with safe_open(mini.FILE, "pt") as file:
        told = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert set(told) == {"teacher", "data", "seed", "steps", "errors"}
    assert set(json.loads(told["errors"])) == set(mini.LAYERS)
    assert all(tensor.dtype == torch.int8 for key, tensor in tensors.items() if key.endswith(".weight"))
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_what_is_saved_is_read_to_half_a_step(tmp_path: Path) -> None:
    tensors = {
        "features.0.weight": waves(12, 8)[0].view(4, 3, 4, 6) * torch.tensor([1e-3, 1.0, 200.0, 0.0]).view(4, 1, 1, 1),
        "features.0.bias": torch.linspace(-3, 3, 4),
    }
    mini.save(tensors, tmp_path / "small.safetensors", {"seed": "7"})
    read = mini.read(tmp_path / "small.safetensors")
    assert set(read) == set(tensors)
    largest = tensors["features.0.weight"].abs().amax((1, 2, 3))
    apart = (read["features.0.weight"] - tensors["features.0.weight"]).abs().amax((1, 2, 3))
    assert (apart <= largest / 127 / 2 * 1.001).all()
    torch.testing.assert_close(read["features.0.bias"], tensors["features.0.bias"], rtol=1e-3, atol=0)


def test_each_map_tells_no_more_than_it_sees() -> None:
    tensors = mini.read()
    for layer in mini.LAYERS:
        axes, channels = tensors[f"{layer}.weight"].shape
        assert axes <= channels
        assert torch.linalg.matrix_rank(tensors[f"{layer}.weight"]) == axes


def test_it_is_positive_on_average_as_activations_are() -> None:
    """By the mean of relu1_1 the paper's units are scaled."""
    seen = mini.encoder(mini.read(), mini.LAYERS, CPU)(waves(64, 96))
    assert all(seen[layer].mean() > 0 for layer in mini.LAYERS)
    settings = Settings(size=64, encoder="mini", device="cpu", normalize="paper", style_loss="gram", steps=(3,))
    assert torch.isfinite(Stylizer(waves(64, 64, 1), settings)(waves(48, 64)).rgb).all()


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mini.safetensors").write_bytes(mini.FILE.read_bytes()[:1000])
    for name in ("mini.safetensors", "nowhere.safetensors"):
        with pytest.raises(WeightsError, match=r"install stylize again$") as raised:
            mini.read(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_no_frame_is_painted_around_flat_colour() -> None:
    """A flat content in a flat style: nothing but the border of the picture could make it uneven."""
    flat = torch.full((1, 3, 48, 64), 0.5)
    painted = Stylizer(flat * 1.2, Settings(size=64, encoder="mini", device="cpu", steps=(10,)))(flat).rgb
    assert painted.std() < 0.1


# When it steps in


def failing(name: str = "vgg19", message: str = "no network; fetch it") -> EncoderSpec:
    def fail(file: Path | None, progress: Progress | None) -> Build:
        raise WeightsError(message)

    return EncoderSpec(name, (*mini.LAYERS, "relu2_2"), fail)


def test_auto_falls_back_and_says_so(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STYLIZE_WEIGHTS", raising=False)
    spec, build = load("auto", ["relu1_1"], [*builtin(), failing()])
    assert spec.name == "mini"
    assert set(build(["relu1_1"], CPU)(waves(16, 16))) == {"relu1_1"}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "painting with the small built-in encoder mini: no network; fetch it"


def test_auto_takes_vgg19_where_it_can(tiny: EncoderSpec, caplog: pytest.LogCaptureFixture) -> None:
    real = EncoderSpec("vgg19", tiny.layers, tiny.load)
    assert load("auto", ["relu1_1"], [*builtin(), real])[0] is real
    assert not caplog.records


def test_what_was_asked_for_by_name_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STYLIZE_WEIGHTS", raising=False)
    specs = [*builtin(), failing()]
    with pytest.raises(WeightsError, match="no network"):
        load("vgg19", ["relu1_1"], specs)
    with pytest.raises(WeightsError, match="no network"):
        load("auto", ["relu1_1"], specs, tmp_path / "mine.safetensors")
    monkeypatch.setenv("STYLIZE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="no network"):
        load("auto", ["relu1_1"], specs)


def test_a_layer_it_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STYLIZE_WEIGHTS", raising=False)
    for name, specs in (("mini", builtin()), ("auto", [*builtin(), failing()])):
        with pytest.raises(SettingsError, match=r"^unknown layer 'relu2_2'; mini has relu1_1, relu2_1, "):
            load(name, ["relu2_2"], specs)


@pytest.mark.slow
def test_a_machine_without_network_paints_and_says_with_what(cli: Cli, pictures: tuple[Path, Path]) -> None:
    offline = {"STYLIZE_WEIGHTS_URL": "http://nowhere.invalid/w.pth"}
    options = ("--size", "32", "--steps", "2")
    done = cli("photo.png", "starry.png", "-o", "out.png", *options, **offline)
    (note,) = [line for line in done.stderr.splitlines() if "mini" in line]
    assert note.startswith("note: painting with the small built-in encoder mini: cannot get the vgg19 weights from ")
    assert "stylize weights fetch" in note
    quiet = cli("photo.png", "starry.png", "-o", "out.png", *options, "-q", **offline)
    assert quiet.stderr == note.replace("note:", "stylize:") + "\n"
    asked = cli("photo.png", "starry.png", "-o", "other.png", *options, "--encoder", "vgg19", check=1, **offline)
    assert asked.stderr.startswith("stylize: cannot get the vgg19 weights from ")


@pytest.mark.slow
def test_it_can_be_asked_for(cli: Cli, pictures: tuple[Path, Path]) -> None:
    done = cli("photo.png", "starry.png", "--encoder", "mini", "--size", "32", "--steps", "2")
    assert "note" not in done.stderr


# On real weights


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not WEIGHTS.exists(), reason="no real weights at hand")
def test_distances_resemble_those_of_vgg19() -> None:
    """Between two real pictures: never more than the teacher's, and most of it but in the deepest layers."""
    least = {"relu4_1": 0.4, "relu4_2": 0.4, "relu5_1": 0.15}
    tensors = weights.read(WEIGHTS, "vgg19")
    teacher = VGG(tensors, weights.ARCHITECTURES["vgg19"], mini.LAYERS, CPU)
    student = mini.encoder(mini.read(), mini.LAYERS, CPU)
    photo = picture(SHARED / "images" / "content" / "tubingen.jpg").rgb
    one = resize(photo, *fit(photo.shape[2], photo.shape[3], 256))
    other = (one.flip(3) * 0.8).contiguous()
    wanted, found = ([encode(image) for image in (one, other)] for encode in (teacher, student))
    for layer in mini.LAYERS:
        ratio = (found[0][layer] - found[1][layer]).square().sum() / (
            wanted[0][layer] - wanted[1][layer]
        ).square().sum()
        assert least.get(layer, 0.6) < ratio < 1.05, layer


@pytest.mark.parametrize("level", [0.0, 0.5, 0.9, 1.0])
def test_the_paper_s_losses_keep_their_balance_on_any_picture(level: float) -> None:
    """Its relu1_1 has a negative mean on bright pictures."""
    plain, photo = torch.full((1, 3, 40, 40), level), waves(40, 40, 1)
    settings = preset("gatys2015").replace(encoder="mini", size=40, steps=(6,), precision="float32")
    for content, style in ((plain, photo), (photo, plain)):
        steps: list[Step] = []
        Stylizer(style, settings)(content, on_step=steps.append)
        assert steps[-1].total < steps[0].total
        assert 1e-9 < steps[0].terms["content"] / steps[0].terms["style"] < 1
