"""Frames in memory painted as a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stylize import PluginError, Settings, SettingsError, Step, Stylizer, paint_frames, plugin_manager
from stylize.encoders import EncoderSpec
from tests.conftest import waves


def clip(count: int, kind: str = "uint8", *, alpha: bool = False) -> list[NDArray[Any]]:
    """A picture that moves to the right, 40x30, above which nothing is opaque where there is alpha."""
    whole = waves(30, 40)[0].permute(1, 2, 0).numpy()
    if alpha:
        whole = np.concatenate([whole, np.ones_like(whole[..., :1])], 2)
        whole[:8, :, 3] = 0
    levels = (whole * np.iinfo(kind).max).round().astype(kind)
    return [np.roll(levels, 3 * number, 1) for number in range(count)]


@pytest.fixture
def stylizer(tiny: EncoderSpec) -> Stylizer:
    return Stylizer(waves(24, 24, 2), Settings(size=40, steps=(4,), min_size=40, encoder="tiny"), encoders=[tiny])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "alpha"), [("uint8", False), ("uint16", True)])
def test_frames_come_out_in_order_and_the_first_is_painted_like_a_picture(
    stylizer: Stylizer, folder: Path, kind: str, alpha: bool
) -> None:
    frames, seen = clip(4, kind, alpha=alpha), list[tuple[int, int | None]]()

    def on_step(frame: Any, step: Step) -> None:
        seen.append((frame.number, frame.total))

    made = list(paint_frames(frames, stylizer, plugin_manager(), on_step=on_step))
    assert [each.size for each in made] == [(30, 40)] * 4
    assert sorted(set(seen)) == [(number, 4) for number in (1, 2, 3, 4)]
    assert seen == sorted(seen)
    assert not list(folder.iterdir())
    if alpha:
        for each in made:
            assert each.alpha is not None
            assert not each.alpha[..., :8, :].any()
    else:  # nothing was lost on the way to the painter, and 8 bits on the way back
        content = torch.from_numpy(frames[0]).permute(2, 0, 1)[None] / 255
        assert torch.allclose(made[0].rgb, stylizer(content).rgb, atol=0.51 / 255)


@pytest.mark.slow
def test_frames_are_painted_within_masks_of_their_own(stylizer: Stylizer, folder: Path) -> None:
    frames = clip(3, "uint16")
    inside = np.zeros((3, 30, 40), bool)
    for number in range(3):
        inside[number, :, 12 + 4 * number :] = True
    made = list(paint_frames(frames, stylizer, plugin_manager(), masks=inside))
    assert len(made) == 3
    for frame, mask, picture in zip(frames, inside, made, strict=True):
        levels = (picture.rgb[0].permute(1, 2, 0).numpy() * 65535).round().astype(np.uint16)
        assert np.array_equal(levels[~mask], frame[~mask])
        assert np.mean(levels[mask] != frame[mask]) > 0.9


@pytest.mark.slow
def test_a_still_clip_is_painted_once(stylizer: Stylizer, folder: Path) -> None:
    seen: list[int] = []
    still = clip(1) * 5
    made = list(paint_frames(still, stylizer, plugin_manager(), on_step=lambda frame, step: seen.append(frame.number)))
    assert len(made) == 5
    assert set(seen) == {1}
    assert all(torch.equal(each.rgb, made[0].rgb) for each in made)


@pytest.mark.slow
def test_a_stopped_clip_gives_the_frames_so_far(stylizer: Stylizer, folder: Path) -> None:
    seen: list[int] = []

    def stop() -> bool:
        return bool(seen) and seen[-1] == 3

    made = list(
        paint_frames(
            clip(6), stylizer, plugin_manager(), on_step=lambda frame, step: seen.append(frame.number), stop=stop
        )
    )
    assert 2 <= len(made) <= 3
    assert max(seen) == 3


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "at least one frame"),
        ([np.zeros((8, 8), "uint8")], r"must be \(H, W, 3 or 4\)"),
        ([np.zeros((8, 8, 3), "float32")], "float32"),
        ([np.zeros((8, 8, 3), "uint8"), np.zeros((8, 9, 3), "uint8")], "one size"),
    ],
)
def test_what_are_no_frames_is_refused(stylizer: Stylizer, folder: Path, frames: list[Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        list(paint_frames(frames, stylizer, plugin_manager()))


def test_without_a_plugin_for_clips_it_is_said(stylizer: Stylizer, folder: Path) -> None:
    with pytest.raises(PluginError, match="video"):
        list(paint_frames(clip(2), stylizer, plugin_manager(only=["batch"])))
