"""The curvature that L-BFGS found on one frame, brought to the next.

It is kept in bfloat16, and without that of the temporal term: where that one holds differs from frame to frame, and it
is known exactly, 2 w m / N for a weight w, a mask m and N numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from stylize import Curvature


def kept(found: Curvature, mask: Tensor | None, weight: float) -> Curvature:
    """What to keep of the curvature found on a frame that was held at ``mask`` (1, 1, H, W)."""
    if found.moves is None or found.changes is None or not len(found.moves):
        return Curvature()
    changes = found.changes.float()
    if mask is not None:
        changes = changes - _held(mask, weight, found.moves)
    return Curvature(found.moves.bfloat16(), changes.bfloat16())


def warped(known: Curvature, flow: Tensor, mask: Tensor, weight: float) -> Curvature:
    """What is known on a frame that is held at ``mask`` (1, 1, H, W): the pairs of the one before, warped backwards by
    ``flow`` (1, 2, H, W) in px."""
    if known.moves is None or known.changes is None:
        return Curvature()
    grid = _grid(flow.to(known.moves.device))
    moves, changes = (_sampled(pairs, grid) for pairs in (known.moves, known.changes))
    return Curvature(moves, changes.add_(_held(mask, weight, moves)))


def _held(mask: Tensor, weight: float, moves: Tensor) -> Tensor:
    return moves * (mask.to(moves.device, torch.float32) * (2 * weight / moves[0].numel()))


def _grid(flow: Tensor) -> Tensor:
    height, width = flow.shape[2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device), torch.arange(width, device=flow.device), indexing="ij"
    )
    places = torch.stack([x + flow[0, 0], y + flow[0, 1]], 2)
    return (places * places.new_tensor([2 / max(1, width - 1), 2 / max(1, height - 1)]) - 1)[None]


def _sampled(pairs: Tensor, grid: Tensor) -> Tensor:
    """Pairs (N, C, H, W) in bfloat16, one by one for the sake of memory, in float32."""
    made = pairs.new_empty(pairs.shape, dtype=torch.float32)
    for into, pair in zip(made, pairs, strict=True):
        into[:] = grid_sample(pair[None].float(), grid, "bilinear", "border", align_corners=True)[0]
    return made
