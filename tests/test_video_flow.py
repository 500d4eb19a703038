"""Engines of optical flow: the contract, and RAFT's own way to and from the sizes it takes."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stylize import Flow
from stylize.testing import FlowContract
from stylize_video.flow import engine


class TestContract(FlowContract):
    @pytest.fixture(params=["dis", "farneback"])
    def flow(self, request: pytest.FixtureRequest) -> Flow:
        found = engine(request.param)
        assert found is not None
        return found


@pytest.mark.parametrize(
    ("size", "network_size"),
    [((40, 64), (128, 208)), ((130, 137), (136, 144)), ((128, 136), (128, 136))],
    ids=["enlarged", "padded", "as it is"],
)
@pytest.mark.slow
def test_raft_is_the_network_on_resized_frames_and_its_flow_is_in_pixels_of_the_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], network_size: tuple[int, int]
) -> None:
    """Against torchvision's network with the same random weights, and OpenCV's resizing."""
    from torchvision.models.optical_flow import Raft_Large_Weights, raft_large  # takes a second

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    network = raft_large().eval()
    file = tmp_path / "hub" / "checkpoints" / Raft_Large_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    file.parent.mkdir(parents=True)
    torch.save(network.state_dict(), file)
    flow = engine("raft", "auto")
    assert flow is not None
    one, other = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)

    high, wide = network_size
    enlarged = [
        cv2.resize(frame.astype(np.float32), (wide, high), interpolation=cv2.INTER_LINEAR) for frame in (one, other)
    ]
    with torch.no_grad():
        pair = [torch.from_numpy(frame / 255 * 2 - 1).permute(2, 0, 1)[None].float() for frame in enlarged]
        found = network(*pair)[-1][0].permute(1, 2, 0).numpy()
    expected = cv2.resize(found, size[::-1], interpolation=cv2.INTER_LINEAR) * [size[1] / wide, size[0] / high]
    assert expected.std() > 0.01
    assert not math.isclose(expected[..., 0].std(), expected[..., 1].std(), rel_tol=0.01)  # the axes can be told apart
    np.testing.assert_allclose(flow(one, other), expected, atol=0.02 * np.abs(expected).max())
