"""RAFT (Teed, Deng 2020), as implemented in torchvision; its weights are downloaded at first use."""

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

MULTIPLE, SMALLEST = 8, 128  # px: both sides must be multiples of the one and at least the other


def engine(device: str) -> Flow:
    """RAFT on a device; ``auto`` is CUDA where there is a GPU, otherwise the CPU.

    Raises:
        WeightsError: the weights can neither be found nor downloaded.
    """
    weights = Raft_Large_Weights.DEFAULT
    place = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[-1])
    network = raft_large().eval().requires_grad_(False)
    try:
        network.load_state_dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # network, disk, or a file torch cannot read
        why = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"no weights for RAFT ({why[:200]}): put {weights.url} at {place}") from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)

    def flow(one: Array, other: Array) -> Array:
        height, width = one.shape[:2]
        factor = max(1.0, SMALLEST / min(height, width))
        high, wide = (math.ceil(side * factor / MULTIPLE) * MULTIPLE for side in (height, width))
        pair = (torch.from_numpy(np.ascontiguousarray(each)).permute(2, 0, 1)[None].to(device) for each in (one, other))
        with torch.inference_mode():
            first, second = (
                interpolate(each.float() / 127.5 - 1, (high, wide), mode="bilinear", align_corners=False)
                for each in pair
            )
            found = network(first, second)[-1]  # of its last iteration, (1, 2, H, W)
            found = interpolate(found, (height, width), mode="bilinear", align_corners=False)
            found = found * found.new_tensor([width / wide, height / high]).view(1, 2, 1, 1)
        return np.ascontiguousarray(found[0].permute(1, 2, 0).cpu().numpy())

    return flow
