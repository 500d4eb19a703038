"""Recorded steps are the optimizer's steps; as a CUDA graph where the tests run with ``--device cuda``."""

from __future__ import annotations

import logging

import pytest
import torch

from stylize import graphs
from stylize.graphs import LARGEST, WARM_UP, RecordedStep
from stylize.optimizer import LBFGS, Adam, Optimizer


def bowl(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A quadratic whose curvature differs from pixel to pixel."""
    curvature = torch.linspace(1, 30, image.numel(), device=image.device).view(image.shape)
    apart = image - 0.5
    value = (curvature * apart.square()).sum() / 2
    return torch.stack([value, value]), curvature * apart


@pytest.mark.parametrize("kind", [LBFGS, Adam])
def test_recorded_steps_are_the_optimizers(kind: type[Optimizer], device: str) -> None:
    start = torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(0)).to(device)
    plain, wrapped = (kind(bowl, start) for _ in range(2))
    step = RecordedStep(wrapped, 12)
    for _ in range(12):
        plain.step()
        step()
        torch.testing.assert_close(step.report, plain.report, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(wrapped.image, plain.image, rtol=1e-4, atol=1e-5)
    assert wrapped.values[0] < bowl(start)[0][0] / 2
    assert step.recorded == (device != "cpu")


def test_a_step_that_asks_for_a_number_is_not_recorded(
    device: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the GPU, which cannot be recorded: the run goes on step by step, and the log says so."""
    calls = 0

    def waiting(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal calls
        calls += 1
        values, gradient = bowl(image)
        return values, gradient * float(values[0] > 0)

    monkeypatch.setattr(graphs, "_failed", set())
    optimizer = LBFGS(waiting, torch.rand(1, 3, 8, 9, device=device))
    step = RecordedStep(optimizer, 20)
    with caplog.at_level(logging.INFO):
        for _ in range(8):
            step()
    if device == "cpu":
        assert calls == 8
        assert not caplog.records
    else:
        assert calls == 9  # once more for the recording that failed
        assert "not recorded" in caplog.text
        torch.cuda.empty_cache()  # which torch refuses while it records
    assert torch.isfinite(optimizer.image).all()


def test_short_runs_and_large_pictures_are_not_recorded(device: str) -> None:
    for size, steps in ((8, WARM_UP + 1), (int(LARGEST**0.5) + 1, 100)):
        step = RecordedStep(Adam(bowl, torch.zeros(1, 1, size, size, device=device)), steps)
        assert not step._wanted
