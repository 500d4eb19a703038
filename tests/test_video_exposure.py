"""Fades and flashes: found in clips whose exposure is known, and followed by what is painted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stylize_video.exposure import NONE, Exposure, ExposureMeter
from stylize_video.flow import engine

Array = NDArray[Any]


def scene(count: int, seed: int = 0) -> list[Array]:
    """A camera that pans by 1.5 px a frame, with noise."""
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    coarse = torch.rand(1, 3, 12, 40, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, (90, 300), mode="bicubic")[0].permute(1, 2, 0).numpy() * 180 + 30
    frames = [wide[:, number * 3 // 2 : number * 3 // 2 + 160] for number in range(count)]
    return [frame + rng.normal(0, 1, frame.shape) for frame in frames]


def exposed(frames: Sequence[Array], known: Sequence[tuple[float, float]]) -> list[Array]:
    shown = [frame * gain + lift for frame, (gain, lift) in zip(frames, known, strict=True)]
    return [frame.round().clip(0, 255).astype(np.uint8) for frame in shown]


def measured(frames: Sequence[Array], shots: Sequence[range] = ()) -> tuple[Exposure, ...]:
    flow = engine("dis")
    assert flow is not None
    meter = ExposureMeter(flow)
    assert len(list(meter.watch(iter(frames)))) == len(frames)
    return meter.exposures(shots or [range(len(frames))])


FADE = [(max(0.0, min(1.0, (20 - number) / 12)), 0.0) for number in range(24)]
SHAPES = {
    "to black": FADE,
    "from black": FADE[::-1],
    "to white": [(gain, 255 * (1 - gain)) for gain, _ in FADE],
    "from white": [(gain, 255 * (1 - gain)) for gain, _ in FADE[::-1]],
    "half": [(1.0, 0.0)] * 12 + [(0.5, 0.0)] * 3 + [(1.0, 0.0)] * 9,
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_fade_is_measured_while_the_camera_moves(name: str) -> None:
    known = SHAPES[name]
    found = measured(exposed(scene(24), known))
    for each, (gain, lift) in zip(found, known, strict=True):
        assert each.hides == (gain < 0.1)
        shown = each.of(torch.tensor([0.2, 0.8])) * 255
        assert np.allclose(shown, np.array([51, 204]) * gain + lift, atol=20 if each.hides else 8)


def test_a_flash_is_over_when_it_is_over() -> None:
    known = [(1.0, 0.0)] * 10 + [(1.5, 40.0)] * 2 + [(1.0, 0.0)] * 12
    found = measured(exposed(scene(24), known))
    assert all(each.hides for each in found[10:12])
    assert found[:10] + found[12:] == (NONE,) * 22


@pytest.mark.slow
def test_where_nothing_changes_but_the_picture_there_is_no_exposure() -> None:
    plain = [(1.0, 0.0)] * 24
    assert measured(exposed(scene(24), plain)) == ()
    dark = [frame * np.linspace(1.0, 0.3, 160)[:, None] for frame in scene(24)]  # a shadow that stays on the screen
    assert measured(exposed(dark, plain)) == ()
    entering = scene(24)
    for number, frame in enumerate(entering):  # something bright
        frame[20:70, : 6 * number] = 240
    assert measured(exposed(entering, plain)) == ()


def test_shots_have_their_own() -> None:
    frames = exposed(scene(12), [(1.0, 0.0)] * 12) + exposed(scene(12, 1), FADE[12:])
    found = measured(frames, [range(12), range(12, 24)])
    assert found[:12] == (NONE,) * 12
    assert found[23].gain == pytest.approx(0, abs=0.02)


def test_what_is_removed_comes_back() -> None:
    frame = np.random.default_rng(0).integers(60, 200, (8, 9, 3)).astype(np.uint16) * 257
    exposure = Exposure(0.5, 0.1)
    shown = (frame * 0.5 + 6553.5).round().astype(np.uint16)
    assert np.abs(exposure.removed(shown).astype(int) - frame).max() <= 2
    assert exposure.removed(np.dstack([shown, shown[..., :1]]))[..., 3].tolist() == shown[..., 0].tolist()
    unit = torch.rand(1, 3, 4, 5)
    assert torch.allclose(exposure.inverse().of(exposure.of(unit)), unit, atol=1e-6)
    assert NONE.of(unit) is unit
    assert Exposure(0.5, 0.2).then(Exposure(2.0, 0.1)) == Exposure(1.0, 0.5)
