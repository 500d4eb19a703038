"""RAFT (Teed, Deng 2020), as torchvision has it; its weights are downloaded when it is first asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate
from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

from stylize import WeightsError

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]

GRID, SMALLEST = 8, 128  # px: what both sides are multiples of, and the least they may be


def engine(device: str) -> Flow:
    """The flow on this device, ``auto`` being a GPU for CUDA where there is one, else the CPU.

    Raises:
        WeightsError: the weights can neither be found nor downloaded.
    """
    weights = Raft_Large_Weights.DEFAULT
    place = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[-1])
    network = raft_large().eval().requires_grad_(False)
    try:
        network.load_state_dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # of the network, the disk, or torch's reading of what is no such file
        why = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"no weights for RAFT ({why[:200]}): put {weights.url} at {place}") from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)

    def flow(one: Array, other: Array) -> Array:
        height, width = one.shape[:2]
        factor = max(1.0, SMALLEST / min(height, width))
        high, wide = (math.ceil(side * factor / GRID) * GRID for side in (height, width))
        pair = (torch.from_numpy(np.ascontiguousarray(each)).permute(2, 0, 1)[None].to(device) for each in (one, other))
        with torch.inference_mode():
            first, second = (
                interpolate(each.float() / 127.5 - 1, (high, wide), mode="bilinear", align_corners=False)
                for each in pair
            )
            found = network(first, second)[-1]  # the last of its iterations, (1, 2, H, W)
            found = interpolate(found, (height, width), mode="bilinear", align_corners=False)
            found = found * found.new_tensor([width / wide, height / high]).view(1, 2, 1, 1)
        return np.ascontiguousarray(found[0].permute(1, 2, 0).cpu().numpy())

    return flow
