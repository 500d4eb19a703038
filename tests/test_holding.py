"""Whether the outlines of a photo are left, and what becomes of a picture in which they are not."""

from __future__ import annotations

import logging
from itertools import groupby

import pytest
import torch
from torch import Tensor

from stylize import Settings, Stylizer
from stylize.encoders import EncoderSpec
from stylize.holding import HOLDS, LOOSE, Holding, outlines_left
from stylize.observing import Step
from stylize.prepared import loss_terms
from stylize.pyramid import Scale
from stylize.terms import StyleTarget
from tests.conftest import waves

SETTINGS = Settings(
    encoder="tiny",
    size=48,
    min_size=24,
    steps=(2,),
    tolerance=0.0,
    style_loss="match",
    content_loss="self-similarity",
    content_weight=0.02,
    device="cpu",
)


def disc(row: float, column: float, height: int = 48, width: int = 64) -> Tensor:
    """A white disc on black, (1, 3, height, width)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = ((y - row).square() + (x - column).square()).sqrt() < 10
    return inside.float().expand(1, 3, -1, -1)


def test_outlines_are_left_whatever_the_colours_and_whichever_side_is_brighter() -> None:
    photo = disc(24, 20)
    assert outlines_left(photo, photo) == pytest.approx(1)
    assert outlines_left(1 - photo, photo) == pytest.approx(1, abs=1e-3)
    assert outlines_left(photo * torch.tensor([0.9, 0.1, 0.5]).view(1, 3, 1, 1), photo) == pytest.approx(1, abs=1e-3)
    assert outlines_left(photo[:, :1], photo) == pytest.approx(1, abs=1e-3)


def test_outlines_that_moved_or_drown_in_others_are_lost() -> None:
    photo = disc(24, 20)
    assert outlines_left(disc(24, 46), photo) < 0.2
    noise = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    assert outlines_left(0.2 * photo + 0.8 * noise, photo) < 0.5
    assert outlines_left(0.9 * photo + 0.1 * noise, photo) > 0.8


def test_what_does_not_count_has_no_outlines() -> None:
    photo, painted = torch.maximum(disc(24, 14), disc(24, 50)), disc(24, 14)
    left = torch.zeros(48, 64)
    left[:, :32] = 1
    assert outlines_left(painted, photo) < 0.9
    assert outlines_left(painted, photo, left.flatten() / left.sum()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 3)])
def test_a_photo_without_outlines_has_none_to_lose(shape: tuple[int, int]) -> None:
    assert outlines_left(waves(*shape, 1), torch.full((1, 3, *shape), 0.4)) == 1


def test_a_photo_is_held_more_firmly_until_nothing_firmer_is_known(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    photo, found = disc(24, 20), Holding(0.75, "town.jpg")
    assert found.hold is LOOSE
    assert found.is_lost(disc(24, 46), photo)
    assert found.hold is HOLDS[1]
    assert found.is_lost(disc(24, 46), photo)
    for _ in range(2):
        assert not found.is_lost(disc(24, 46), photo)
    assert found.hold is HOLDS[2]
    assert not caplog.messages
    found.tell()
    (line,) = caplog.messages
    assert line.startswith("town.jpg: ")
    assert "--preset match" in line


def test_what_keeps_its_outlines_is_held_loosely(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    photo, found = disc(24, 20), Holding(0.75)
    assert not found.is_lost(1 - photo, photo)
    assert found.hold is LOOSE
    found.tell()
    assert not caplog.messages


def test_a_picture_that_has_lost_its_photo_is_begun_anew(tiny: EncoderSpec) -> None:
    seen: list[Step] = []

    def painted(min_outlines: float) -> Tensor:
        seen.clear()
        return Stylizer(waves(64, 64, 2), SETTINGS.replace(min_outlines=min_outlines), encoders=[tiny])(
            waves(36, 48, 1), on_step=seen.append
        ).rgb

    free = painted(0)
    assert [(step.scale, step.number) for step in seen] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert torch.equal(painted(0.01), free)  # which it has
    firm = painted(1)
    assert [(step.scale, step.number) for step in seen] == [(1, 1), (1, 2)] * 3 + [(2, 1), (2, 2)]
    assert all(0 < step.fraction <= 1 and (step.seconds_left is None or step.seconds_left >= 0) for step in seen)
    assert not torch.allclose(firm, free, atol=0.01)
    assert torch.equal(painted(1), firm)


def test_what_is_held_the_most_firmly_is_painted_like_the_preset_match(tiny: EncoderSpec) -> None:
    photo, scale = waves(48, 64, 1), Scale(48, 64, 1)
    stylizer = Stylizer(waves(64, 64, 2), SETTINGS.replace(content_weight=0.02, match_weight=0.3), encoders=[tiny])
    target, engine = StyleTarget(stylizer.styles, stylizer.engine), stylizer.engine
    weights = [
        {
            term.name: round(term.weight, 4)
            for term in loss_terms(engine, photo, scale, (target,), None, None, None, hold)
        }
        for hold in HOLDS
    ]
    assert weights[0] == {"content": 0.02, "style": 1.0, "match": 0.3, "tv": 0.0}
    assert weights[1] == weights[0]
    assert weights[2] == {"content": 0.023, "style": 1.0, "match": 0.2, "tv": 0.0}


def test_frames_of_a_clip_go_on_as_the_first_was_held(tiny: EncoderSpec) -> None:
    stylizer = Stylizer(waves(64, 64, 2), SETTINGS, encoders=[tiny])
    photo, seen = waves(36, 48, 1), list[Step]()
    one = stylizer(photo, init=photo, steps=2, on_step=seen.append).rgb
    other = stylizer(photo, init=waves(36, 48, 7), steps=2, on_step=seen.append).rgb
    assert [(step.scale, step.number) for step in seen] == [(1, 1), (1, 2)] * 2  # none is begun anew
    plain = stylizer.settings.replace(min_outlines=0)
    loose = Stylizer(waves(64, 64, 2), plain, encoders=[tiny])
    assert torch.equal(loose(photo, init=photo, steps=2).rgb, one)
    assert not torch.equal(loose(photo, init=waves(36, 48, 7), steps=2).rgb, other)


def test_other_contents_are_never_begun_anew(tiny: EncoderSpec) -> None:
    seen: list[Step] = []
    stylizer = Stylizer(waves(64, 64, 2), SETTINGS, encoders=[tiny], content_loss="features", min_outlines=1)
    stylizer(waves(36, 48, 1), on_step=seen.append)
    assert [number for number, _ in groupby(step.scale for step in seen)] == [1, 2]
