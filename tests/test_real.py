"""The method on real weights and pictures, measured with the yardstick that lies beside them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from stylize import Settings, Stylizer, preset
from stylize.engine import Step
from stylize.pyramid import equivalent_steps, pyramid
from tests.conftest import SHARED

WEIGHTS = SHARED / "weights" / "vgg19-features.safetensors"
CONTENT = SHARED / "images" / "content" / "tubingen.jpg"
STYLE = SHARED / "images" / "style" / "starry_night.jpg"
SCORE = SHARED / "bench" / "score.py"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not WEIGHTS.exists(), reason="no real weights at hand"),
]


@pytest.fixture(scope="module")
def yardstick() -> Any:
    spec = importlib.util.spec_from_file_location("score", SCORE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_default_reaches_its_scores_within_its_steps(yardstick: Any, tmp_path: Path) -> None:
    settings = Settings(size=256)
    picture = Stylizer(STYLE, settings, weights=WEIGHTS)(CONTENT)
    picture.save(tmp_path / "out.png")
    found = yardstick.score_files(tmp_path / "out.png", CONTENT, STYLE, yardstick.load_weights())
    assert found["style"] <= 0.285
    assert found["held"] <= 0.230
    assert found["content"] <= 0.60
    assert equivalent_steps(pyramid(*picture.size, settings)) <= 80


def test_the_same_seed_gives_the_same_bits() -> None:
    settings = Settings(size=96, steps=(8,), init="noise", device="cpu")
    first, second = (Stylizer(STYLE, settings, weights=WEIGHTS)(CONTENT).rgb for _ in range(2))
    assert torch.equal(first, second)


def test_the_papers_preset_balances_content_and_style() -> None:
    steps: list[Step] = []
    settings = preset("gatys2015").replace(size=128, steps=(60,), device="cpu")
    Stylizer(STYLE, settings, weights=WEIGHTS)(CONTENT, on_step=steps.append)
    totals = [step.total for step in steps]
    assert totals[-1] < totals[0] / 10
    assert all(max(totals[i + 10 : i + 20]) <= max(totals[i : i + 10]) * 1.001 for i in range(0, 40, 10))
    assert 0.1 < steps[-1].terms["content"] / steps[-1].terms["style"] < 10
