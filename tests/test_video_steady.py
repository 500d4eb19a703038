"""Flow, masks, what is carried over, and cuts: against clips whose motion is known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stylize import WeightsError
from stylize_video.flow import engine, valid, warp
from stylize_video.shots import cuts
from stylize_video.steady import (
    Motion,
    WarpedHistory,
    expected_steps,
    is_static,
    recolored,
    temporal,
    warp_history,
)
from tests.conftest import waves

Array = NDArray[Any]


def texture(height: int, width: int, seed: int = 0) -> Array:
    """A picture with detail everywhere, (H, W, 3) in uint8."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 3, height // 4, width // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
    return np.asarray((smooth[0].permute(1, 2, 0) * 255).round().byte().numpy())


def moved(picture: Array, right: int, down: int) -> Array:
    return np.roll(picture, (down, right), (0, 1))


@pytest.mark.parametrize("name", ["dis", "farneback"])
@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, 0), (-2, 5)])
def test_an_engine_finds_where_pixels_went(name: str, right: int, down: int) -> None:
    flow = engine(name)
    assert flow is not None
    one = texture(96, 128)
    found = flow(one, moved(one, right, down))
    assert found.shape == (96, 128, 2)
    assert found.dtype == np.float32
    assert np.median(found[16:-16, 16:-16], (0, 1)) == pytest.approx([right, down], abs=0.3)


@pytest.mark.parametrize("noise", [0.0, 1.5, 3.0])
def test_dis_is_exact_to_a_tenth_of_a_pixel_in_the_noise_of_a_recording(noise: float) -> None:
    """A camera that turns and zooms over a textured plane, of which every pixel's motion is known."""
    plane, rng = texture(240, 320).astype(np.float32) * 0.1 + 90, np.random.default_rng(0)  # of low contrast
    y, x = np.mgrid[:144, :256].astype(np.float32)

    def seen(number: int) -> tuple[Array, Array, Array]:
        angle, zoom = 0.005 * number, 1 - 0.005 * number
        c, s = zoom * np.cos(angle), zoom * np.sin(angle)
        u = c * (x - 127.5) - s * (y - 71.5) + 160 + 1.7 * number
        v = s * (x - 127.5) + c * (y - 71.5) + 120 + 0.4 * number
        frame = cv2.remap(plane, u.astype(np.float32), v.astype(np.float32), cv2.INTER_CUBIC)
        return (frame + rng.normal(0, noise or 1e-9, frame.shape)).round().clip(0, 255).astype(np.uint8), u, v

    (before, *_), (frame, u, v) = seen(0), seen(1)
    exact = np.stack([u - 160 + 127.5 - x, v - 120 + 71.5 - y], 2)  # frame 0 shows the plane as it is
    flow = dis()
    back = flow(frame, before)
    error = np.linalg.norm(back - exact, axis=2)[8:-8, 8:-8]
    assert error.mean() < 0.1
    assert valid(back, flow(before, frame))[8:-8, 8:-8].mean() > 0.97


@pytest.mark.parametrize("size", [(8, 8), (2, 2), (16, 200)])
@pytest.mark.parametrize("name", ["dis", "farneback"])
def test_the_smallest_frames_have_a_flow(name: str, size: tuple[int, int]) -> None:
    flow, frame = engine(name), np.zeros((*size, 3), np.uint8)
    assert flow is not None
    assert flow(frame, frame).shape == (*size, 2)


def test_an_unknown_engine_is_none() -> None:
    assert engine("nonsense") is None


def test_warping_follows_the_flow() -> None:
    picture = texture(32, 48) / 255  # in float64, which OpenCV moves wrongly
    flow = np.zeros((32, 48, 2), np.float32)
    assert np.allclose(warp(picture, flow), picture)
    flow[..., 0], flow[..., 1] = 3, -2
    assert np.allclose(warp(picture, flow)[4:-4, 4:-4], picture[2:-6, 7:-1], atol=1e-6)
    half = np.full((32, 48, 2), 0.5, np.float32)
    y, x = np.mgrid[:32, :48].astype(np.float32)
    ramp = np.stack([x, y, x + y], 2)
    assert np.allclose(warp(ramp, half)[4:-4, 4:-4], (ramp + np.array([0.5, 0.5, 1]))[4:-4, 4:-4], atol=1e-4)


def test_pixels_from_outside_and_ways_that_do_not_lead_back_are_invalid() -> None:
    back = np.zeros((20, 30, 2), np.float32)
    back[..., 0] = -4  # the scene moved to the right by 4
    assert valid(back, -back)[:, 4:].all()
    assert not valid(back, -back)[:, :4].any()
    assert not valid(back, -3 * back).any()
    edge = back.copy()
    edge[:, 15:] = 0
    assert not valid(edge, -edge)[:, 14:16].any()  # a motion boundary


def carried_from(before: Array, content: Array, result: Array | None = None, deep: float = 8.0) -> WarpedHistory:
    """What a frame gives another; its result is as it is itself, if no other is given."""
    made = before.astype(np.float32) / 255 if result is None else result
    return warp_history(content, made, Motion.between(content, before, dis(), deep))


def dis() -> Any:
    found = engine("dis")
    assert found is not None
    return found


def test_a_still_scene_is_carried_whole_and_worth_no_step() -> None:
    content = texture(64, 96)
    carried = carried_from(content, content)
    assert np.allclose(carried.start, content / 255, atol=2e-3)
    assert carried.mask.all()
    assert (carried.unseen, carried.changed) == (0, pytest.approx(0, abs=1e-4))


@pytest.mark.parametrize(
    ("frequency", "fades"), [((0.5, 0.5), True), ((0.32, 0.32), True), ((0.5, 0), False), ((0.1, 0.1), False)]
)
def test_only_the_finest_diagonals_fade_in_long_shots(frequency: tuple[float, float], fades: bool) -> None:
    content, (y, x) = texture(64, 96), np.mgrid[:64, :96]
    waves = 0.2 * np.cos(2 * np.pi * (frequency[0] * y + frequency[1] * x) + 0.3)[..., None]
    result = (0.5 + np.repeat(waves, 3, 2)).astype(np.float32)
    for _ in range(25):
        result = carried_from(content, content, result).start
    left = np.abs(result - 0.5).mean() / np.abs(waves).mean()
    assert left < 0.4 if fades else left > 0.95


def test_noise_is_still_and_a_small_thing_that_moves_is_not() -> None:
    content = texture(64, 96)
    noise = np.random.default_rng(0).integers(-2, 3, content.shape)
    assert is_static(content, content)
    assert is_static((content + noise).clip(0, 255).astype(np.uint8), content)
    small = content.copy()
    small[10:16, 10:16] ^= 128
    assert not is_static(small, content)
    assert not is_static((content * 0.95).astype(np.uint8), content)  # a fade


@pytest.mark.parametrize("sigma", [1.5, 3.0, 6.0])
def test_the_noise_of_a_recording_is_no_news(sigma: float) -> None:
    content, rng = texture(144, 256), np.random.default_rng(0)

    def recorded(scene: Array) -> Array:
        return (scene + rng.normal(0, sigma, scene.shape)).round().clip(0, 255).astype(np.uint8)

    before = recorded(content)
    assert is_static(recorded(content), before)
    small = content.astype(float)
    small[40:52, 40:52] += 8 * sigma
    assert not is_static(recorded(small), before)
    assert not is_static(recorded(content * 0.98), before)  # two frames of a slow fade
    assert not is_static(recorded(moved(content, 1, 0)), before)
    assert carried_from(before, recorded(content)).changed < 1e-4
    assert carried_from(before, recorded(texture(144, 256, 1))).changed > 0.02


def test_a_moving_scene_is_carried_along() -> None:
    content = texture(64, 96)
    now = moved(content, 4, 2)
    carried = carried_from(content, now)
    assert np.abs(carried.start - now / 255)[carried.mask].mean() < 0.01
    assert carried.mask[12:-4, 12:-4].mean() > 0.95
    assert not carried.mask[:, :3].any()


def test_new_ground_begins_with_the_content_in_the_colors_of_the_result() -> None:
    """A painter that swaps channels and darkens; the camera pans on by 4 px, and something is uncovered."""
    wide = texture(96, 160)
    before, now = wide[:, :128].copy(), wide[:, 4:132].copy()
    before[30:60, 50:70] = 128

    def paint(content: Array) -> Array:
        return np.float32(0.2) + np.float32(0.6) * content[..., [2, 0, 1]].astype(np.float32) / 255

    carried = carried_from(before, now, paint(before), deep=1.0)
    off = np.abs(carried.start - paint(now)).mean(2)
    assert off[:, -3:].mean() < 0.02  # the border, drawn out, would be off by ten times as much
    assert off[34:56, 50:62].mean() < 0.03
    assert not carried.mask[:, -3:].any()
    assert not carried.mask[34:56, 50:62].any()
    assert 0.05 < carried.unseen < 0.15


def test_colors_cannot_be_told_from_a_few_pixels() -> None:
    content, few = texture(64, 96), np.zeros((64, 96), bool)
    few[0, :10] = True
    assert np.allclose(recolored(content, np.zeros((64, 96, 3), np.float32), few), content / 255, atol=1e-6)


def test_more_news_are_worth_more_steps() -> None:
    def steps(unseen: float, changed: float, fewest: int = 3) -> int:
        nothing = np.zeros((1, 1, 3))
        return expected_steps(WarpedHistory(nothing, nothing[..., 0], nothing[..., :2], unseen, changed), fewest, 12)

    found = [steps(unseen, 0.0) for unseen in (0, 0.01, 0.05, 0.1, 0.3, 1)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (3, 12)
    assert steps(0.0, 0.5) == 12
    assert steps(0.0, 0.0, fewest=20) == 12


@pytest.mark.parametrize("grey", [False, True])
def test_the_temporal_term_is_the_masked_mean_square(grey: bool) -> None:
    start = np.random.default_rng(0).random((6, 8, 3)).astype(np.float32)
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:7] = True
    term = temporal(WarpedHistory(start, mask, np.zeros((6, 8, 2), np.float32), 0.0, 0.0), 5.0, grey=grey)
    assert (term.name, term.weight) == ("temporal", 5.0)
    image = waves(6, 8).requires_grad_()
    value = term.function(image, {})
    wanted = np.repeat(start @ [[0.299], [0.587], [0.114]], 3, 2) if grey else start
    pixels = image.detach()[0].permute(1, 2, 0).numpy()
    assert float(value.detach()) == pytest.approx(((pixels - wanted) ** 2 * mask[..., None]).mean(), rel=1e-5)
    (gradient,) = torch.autograd.grad(value, image)
    assert not gradient[0, :, ~torch.from_numpy(mask)].any()
    assert gradient.any()


def test_cuts_are_found_and_motion_is_none() -> None:
    shots = [np.asarray((waves(60, 120, seed)[0].permute(1, 2, 0) * 255).byte().numpy()) for seed in range(3)]
    frames = [shot[:, number : number + 80] for shot in shots for number in range(20)]
    assert cuts(iter(frames), Fraction(25)) == (60, [20, 40])
    assert cuts(iter(frames[:20]), Fraction(25)) == (20, [])
    assert cuts(iter(frames[:1]), Fraction(25)) == (1, [])
    assert cuts(iter([]), Fraction(25)) == (0, [])


@pytest.fixture
def raft_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch looks for RAFT's weights, of which there are none here."""
    from torchvision.models.optical_flow import Raft_Large_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return Path(folder, Raft_Large_Weights.DEFAULT.url.rsplit("/", 1)[-1])


@pytest.mark.slow
def test_raft_without_weights_says_where_they_belong(raft_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no\nnetwork")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(WeightsError, match=r"^no weights for RAFT \(no network\): put https://\S+ at ") as caught:
        engine("raft")
    assert str(raft_weights) in str(caught.value)
    raft_weights.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="no weights for RAFT"):
        engine("raft")
