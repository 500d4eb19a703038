"""The training of the embedded encoder: on a tiny teacher, and once through its command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from stylize.encoders import EncoderConfig, mini, weights
from stylize.encoders.vgg import VGG
from stylize.testing import TINY_WIDTHS, random_weights
from tests.bench import distill_mini
from tests.bench.distill_mini import ERRORS, Training, augment, gather
from tests.conftest import waves

NARROW = (8, None, 8, 6, None, 12, 10, None, 14, 14, None, 10)  # against the tiny teacher's TINY_WIDTHS
CPU = EncoderConfig(torch.device("cpu"), torch.float32)


def pictures(count: int) -> list[Tensor]:
    return [(waves(90 + seed, 100, seed)[0] * 255).round().to(torch.uint8) for seed in range(count)]


def training(steps: int = 40, seed: int = 0) -> Training:
    teacher = VGG(random_weights(TINY_WIDTHS), TINY_WIDTHS, ERRORS, CPU)
    return Training(teacher, pictures(4), pictures(2), steps, seed, widths=NARROW)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SMALL": (2, 32),
        "LARGE": (1, 48),
        "WARM_UP": 5,
        "WALK_EVERY": 6,
        "WALK_PICTURES": 1,
        "LOG_EVERY": 10,
        "WALK_SIZE": 32,
    }.items():
        monkeypatch.setattr(distill_mini, name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_student_learns_every_layer() -> None:
    made, lines = training(20), list[str]()
    probe = torch.cat([waves(64, 64, seed) for seed in (7, 8)])
    with torch.no_grad():
        before = made.errors(probe)
    made.train(lines.append)
    with torch.no_grad():
        after = made.errors(probe)
    assert [json.loads(line)["step"] for line in lines] == [10, 20]
    assert len(made.walks) == 3
    for layer in ERRORS:
        assert after[layer] < 0.95 * before[layer], layer


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, first, second = training(14), training(14), training(14)
    whole.train(lambda line: None)
    while first.done < 9:
        if first.done == 6:
            first.refresh(6)
        first.step()
    torch.save(first.state(), tmp_path / "checkpoint.pt")
    second.restore(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    second.train(lambda line: None)
    assert all(torch.equal(whole.parameters[key], second.parameters[key]) for key in whole.parameters)
    assert all(torch.equal(*pair) for pair in zip(whole.walks, second.walks, strict=True))


@pytest.mark.usefixtures("small")
def test_channels_that_nothing_wakes_begin_anew() -> None:
    made = training(4)
    kernel, bias, columns = (made.parameters[key] for key in ("features.8.weight", "features.8.bias", "relu3_1.weight"))
    with torch.no_grad():
        bias[3] = -1000
    before = [tensor.detach().clone() for tensor in (kernel, bias, columns)]
    made._wake(0)
    assert made._activations(waves(48, 48))["relu3_1"][:, 3].max() > 0
    assert bias[3] > 0
    assert not columns[:, 3].any()
    others = torch.arange(len(kernel)) != 3
    assert torch.equal(kernel[others], before[0][others])
    assert torch.equal(bias[others], before[1][others])
    assert torch.equal(columns[:, others], before[2][:, others])
    made.step()
    assert columns[:, 3].any()


@pytest.mark.usefixtures("small")
def test_another_seed_gives_another_student() -> None:
    first, second = training(2), training(2, seed=1)
    assert not torch.equal(first.parameters["features.0.weight"], second.parameters["features.0.weight"])


@pytest.mark.usefixtures("small")
def test_what_is_folded_keeps_the_distances_of_the_prediction() -> None:
    made = training(3)
    made.train(lambda line: None)
    tensors = made.folded()
    encoder = mini.encoder(tensors, ERRORS, CPU, NARROW)
    one, other = waves(40, 48, 1), waves(40, 48, 2)
    with torch.no_grad():
        predicted = [made._predict(image) for image in (one, other)]
        seen = [encoder(image) for image in (one, other)]
    for layer in ERRORS:
        wanted = (predicted[0][layer] - predicted[1][layer]).norm() * made.unit[layer]
        assert (seen[0][layer] - seen[1][layer]).norm().item() == pytest.approx(wanted.item(), rel=0.05)
        axes, width = tensors[f"{layer}.weight"].shape
        assert axes <= width


@pytest.mark.parametrize("gentle", [False, True])
@pytest.mark.parametrize("size", [(20, 300), (100, 90), (400, 500)])
def test_a_crop_has_its_size_and_range(size: tuple[int, int], gentle: bool) -> None:
    picture = torch.randint(256, (3, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for seed in range(30):
        crop, again = (augment(picture, 80, torch.Generator().manual_seed(seed), gentle=gentle) for _ in range(2))
        assert crop.shape == (3, 80, 80)
        assert 0 <= crop.min() <= crop.max() <= 1
        assert torch.equal(crop, again)


def test_pictures_are_gathered_in_order_and_without_those_held_out(tmp_path: Path) -> None:
    for name, size in {"b.png": (30, 20), "a.jpg": (1280, 960), "held.png": (9, 9)}.items():
        Image.new("RGB", size, (10, 20, 30)).save(tmp_path / name)
    first, second = gather([tmp_path], without=["held"])
    assert first.shape == (3, 480, 640)
    assert second.shape == (3, 20, 30)
    assert second.dtype == torch.uint8
    assert second[:, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill_mini, "LOG_EVERY", 1)
    save_file(random_weights(weights.ARCHITECTURES["vgg19"][:17]), tmp_path / "teacher.safetensors")
    for folder in ("photos", "paintings"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (50, 40), (200, 20, 30)).save(tmp_path / folder / "x.png")
    arguments = ["--teacher", "teacher.safetensors", "--pictures", "photos", "--paintings", "paintings"]
    monkeypatch.chdir(tmp_path)
    distill_mini.main([*arguments, "--steps", "1", "--output", "mini.safetensors"])
    assert capsys.readouterr().out.splitlines()[-1] == "mini.safetensors"
    distill_mini.main([*arguments, "--steps", "2", "--output", "mini.safetensors"])
    assert [json.loads(line)["step"] for line in Path("distill/log.jsonl").read_text().splitlines()] == [1, 2]
    with safe_open("mini.safetensors", "pt") as file:
        assert set(file.metadata()) == {"teacher", "data", "seed", "steps", "errors"}
        assert set(json.loads(file.metadata()["errors"])) == set(ERRORS)
    encoder = mini.encoder(mini.read(Path("mini.safetensors")), mini.LAYERS, CPU)
    assert set(encoder(waves(32, 32))) == set(mini.LAYERS)
