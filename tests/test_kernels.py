"""The Triton kernels against torch's operations: on the GPU with ``--device cuda``, else by Triton's interpreter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import preloaded
from tests.conftest import PATIENCE

pytest.importorskip("triton", reason="Triton is not installed")

PROGRAM = """
import sys
import torch
import torch.nn.functional as F
from stylize import kernels

device = sys.argv[1]
dtype = torch.bfloat16 if device == "cuda" else torch.float16  # the interpreter does not multiply in bfloat16
last = torch.channels_last
generator = torch.Generator().manual_seed(0)

def random(*shape):
    return torch.randn(shape, generator=generator).to(device, dtype).to(memory_format=last)

for height, width, channels in ((8, 10, 64), (7, 9, 128), (2, 3, 64), (13, 6, 24)):
    x = random(1, channels, height, width).relu()
    pooled, winner = kernels.pool(x)
    expected, indices = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(pooled, expected)
    if height * width > 6:
        for place in ((0, 0), (0, 1), (1, 0), (1, 1)):
            spoilt = x.clone()
            spoilt[0, 3, place[0], place[1]] = torch.nan
            assert kernels.pool(spoilt)[0].isnan().sum() == 1, place
    gradient = random(*pooled.shape)
    found = kernels.unpool(gradient, pooled, winner, height, width)
    rest = ((2, 2), (2, 2), (0, 0), (1, 1), False, indices)
    back = torch.ops.aten.max_pool2d_with_indices_backward(gradient, x, *rest)
    assert torch.equal(found, torch.where(x > 0, back, 0)), (height, width, channels)
    if channels % kernels.COLUMNS:
        continue
    matrix, shift = (torch.randn(channels, *rest, generator=generator).to(device) for rest in ((channels,), ()))
    for moved in (shift, None):
        gradient = random(*x.shape)
        rows, own = (each.float()[0].permute(1, 2, 0) for each in (gradient, x))
        expected = rows + own @ matrix.to(dtype).float() + (0 if moved is None else moved)
        expected = torch.where(own > 0, expected, 0)
        kernels.add(gradient, x, matrix, moved)
        close = 2e-2 if dtype == torch.bfloat16 else 2e-3
        torch.testing.assert_close(gradient.float()[0].permute(1, 2, 0), expected, rtol=close, atol=close * 8)

for height, width, channels in ((8, 10, 64), (37, 41, 64), (7, 9, 128), (2, 3, 192), (1, 1, 64)):
    x = random(1, channels, height, width) + 3
    rows = x.double()[0].permute(1, 2, 0).flatten(0, 1)
    few = channels <= 128  # of three tiles of channels, one kind is enough
    for central in (True, False) if few else (True,):
        mean, large = (torch.full(shape, 7.0, device=device) for shape in ((channels,), (channels + 64,) * 2))
        kernels.moments(x, mean, large[:channels, :channels], central=central)
        assert torch.all(large[channels:] == 7) and torch.all(large[:, channels:] == 7)
        torch.testing.assert_close(mean.double(), rows.mean(0), rtol=1e-3, atol=1e-3)
        own = rows - rows.mean(0) if central else rows
        scale = own.square().mean().item() + 1e-3
        close = 2e-2 if dtype == torch.bfloat16 else 4e-3
        torch.testing.assert_close(
            large[:channels, :channels].double(), own.T @ own / len(rows), rtol=close, atol=close * scale
        )
    if not few:
        continue
    x = random(1, channels, height, width) ** 3
    kernels.SAMPLES = 1  # about the first position, which is far from the mean
    kernels.moments(x, mean, large[:channels, :channels], central=True)  # no eigenvalue below zero but for rounding
    values = torch.linalg.eigvalsh(large[:channels, :channels].double())
    assert values[0] > -3e-6 * values[-1].clamp_min(1e-3), (height, width, channels)
"""


@pytest.mark.slow
def test_kernels_compute_what_torch_does(device: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "TRITON_INTERPRET": "0" if device == "cuda" else "1"}
    command = [sys.executable, str(tmp_path / "program.py"), device]
    done = preloaded.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
