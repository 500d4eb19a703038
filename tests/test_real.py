"""The method on real weights and pictures, measured by :mod:`tests.bench.score`."""

from __future__ import annotations

import itertools

import pytest
import torch

from stylize import Settings, Stylizer, preset
from stylize.encoders import EncoderConfig, builtin, choose
from stylize.encoders.vgg import VGG
from stylize.images import load
from stylize.observing import Step
from stylize.pyramid import equivalent_steps, pyramid
from tests.bench.score import encoder, scores
from tests.conftest import SHARED

WEIGHTS = SHARED / "weights" / "vgg19-features.safetensors"
CONTENT = SHARED / "images" / "content" / "tubingen.jpg"
STYLE = SHARED / "images" / "style" / "starry_night.jpg"

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not WEIGHTS.exists(), reason="no real weights at hand"),
]


def test_the_default_reaches_its_scores_within_its_steps() -> None:
    settings = Settings(size=160)
    picture = Stylizer(STYLE, settings, weights=WEIGHTS)(CONTENT)
    found = scores(picture.rgb, load(CONTENT).rgb, load(STYLE).rgb, encoder(weights=WEIGHTS))
    assert found["style"] <= 0.305
    assert found["held"] <= 0.25
    assert found["content"] <= 0.75
    assert equivalent_steps(pyramid(*picture.size, settings)) <= 30


def test_the_same_seed_gives_the_same_bits() -> None:
    settings = Settings(size=64, steps=(8,), init="noise", device="cpu")
    first, second = (Stylizer(STYLE, settings, weights=WEIGHTS)(CONTENT).rgb for _ in range(2))
    assert torch.equal(first, second)


def test_average_pooling_is_scaled_to_the_mean_of_max_pooling() -> None:
    """The factor after each pooling, seen through a network that copies its input, against VGG-19's own activations."""
    identity = torch.eye(3)[:, :, None, None] * torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    copies = {f"features.{index}.weight": identity for index in (0, 3, 6, 9, 12)}
    copies |= {f"features.{index}.bias": torch.zeros(3) for index in (0, 3, 6, 9, 12)}
    after = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    white = torch.ones(1, 3, 32, 32)  # constant: pooling changes nothing but the factor
    place = EncoderConfig(torch.device("cpu"), torch.float32, "average")
    seen = VGG(copies, (3, None, 3, None, 3, None, 3, None, 3), after, place)(white)
    factors = [float(seen[deep].mean() / seen[shallow].mean()) for shallow, deep in itertools.pairwise(after)]

    before = ("relu1_2", "relu2_2", "relu3_4", "relu4_4")
    spec = choose("vgg19", builtin())
    network = spec.load(WEIGHTS, None)(before, EncoderConfig(torch.device("cpu"), torch.float32))
    with torch.no_grad():
        features = [network(load(path, longest=256).rgb) for path in (CONTENT, STYLE)]
    for layer, factor in zip(before, factors, strict=True):
        largest, mean = (
            sum(float(pool(each[layer], 2).mean()) for each in features)
            for pool in (torch.nn.functional.max_pool2d, torch.nn.functional.avg_pool2d)
        )
        assert factor == pytest.approx(largest / mean, rel=0.1), layer


def test_the_papers_preset_balances_content_and_style() -> None:
    steps: list[Step] = []
    settings = preset("gatys2015").replace(size=64, steps=(60,), device="cpu")
    Stylizer(STYLE, settings, weights=WEIGHTS)(CONTENT, on_step=steps.append)
    totals = [step.total for step in steps]
    assert totals[-1] < totals[0] / 10
    assert all(max(totals[i + 10 : i + 20]) <= max(totals[i : i + 10]) * 1.001 for i in range(0, 40, 10))
    assert 0.1 < steps[-1].terms["content"] / steps[-1].terms["style"] < 10
