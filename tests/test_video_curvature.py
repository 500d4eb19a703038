"""The curvature of one frame's loss, brought to the next."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from stylize import Curvature
from stylize_video.curvature import kept, warped
from stylize_video.steady import WarpedHistory, temporal
from tests.conftest import waves


def pairs(height: int, width: int) -> Curvature:
    moves = torch.cat([waves(height, width, seed) - 0.5 for seed in range(3)])
    return Curvature(moves, 2 * moves + torch.cat([waves(height, width, seed) for seed in range(3, 6)]) / 100)


def found(known: Curvature) -> tuple[Tensor, Tensor]:
    assert known.moves is not None
    assert known.changes is not None
    return known.moves, known.changes


def test_what_is_kept_is_that_of_the_loss_without_its_temporal_term() -> None:
    """The change of the temporal term's gradient along each move, by automatic differentiation."""
    known, (moves, changes) = pairs(12, 16), found(pairs(12, 16))
    mask = np.random.default_rng(0).random((12, 16)) > 0.4
    carried = WarpedHistory(np.zeros((12, 16, 3), np.float32), mask, np.zeros((12, 16, 2), np.float32), 0.0, 0.0)
    term = temporal(carried, 500.0, grey=False)

    def gradient(image: Tensor) -> Tensor:
        image = image.requires_grad_()
        return torch.autograd.grad(term.weighed(term.function(image, {})), image)[0]

    base = torch.zeros(1, 3, 12, 16)
    held = torch.cat([gradient(move[None].clone()) - gradient(base.clone()) for move in moves])
    with_it = Curvature(moves, changes + held)
    for before, after in zip((moves, changes), found(kept(with_it, carried.mask_tensor(), 500.0)), strict=True):
        assert torch.allclose(after.float(), before, atol=0.03)
    still = warped(kept(with_it, carried.mask_tensor(), 500.0), torch.zeros(1, 2, 12, 16), carried.mask_tensor(), 500.0)
    assert torch.allclose(found(still)[1], found(with_it)[1], atol=0.03)
    assert held.abs().max() > 0.2
    assert kept(known, None, 500.0).changes is not None


def test_pairs_follow_the_flow() -> None:
    known, (moves, changes) = pairs(12, 16), found(pairs(12, 16))
    flow = torch.zeros(1, 2, 12, 16)
    flow[:, 0], flow[:, 1] = 3, -2
    there = warped(Curvature(moves.bfloat16(), changes.bfloat16()), flow, torch.zeros(1, 1, 12, 16), 500.0)
    for before, after in zip(found(known), found(there), strict=True):
        assert torch.allclose(after[..., 2:, :-3], before[..., :-2, 3:], atol=0.02)
    assert warped(Curvature(), flow, torch.zeros(1, 1, 12, 16), 500.0).moves is None
    assert kept(Curvature(), None, math.nan).moves is None
