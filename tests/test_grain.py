"""The grain of a painting: whether noise has its spectrum and colours, and where it is added."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylize.grain import Grain, Grains

SHARE = 0.5


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + 0.08 * torch.randn(1, channels, height, width, generator=generator)


def stripes(height: int, width: int, seed: int = 0) -> Tensor:
    """Noise that is smooth along rows, more red than blue."""
    made = F.avg_pool2d(noise(height, width + 6, seed, 1) - 0.5, (1, 7), stride=1) * 2
    return 0.5 + made * torch.tensor([1.0, 0.5, 0.2]).view(1, 3, 1, 1)


def flat(height: int, width: int, level: float = 0.5) -> Tensor:
    return torch.full((1, 3, height, width), level)


def grain_of(*pictures: Tensor, shares: list[float] | None = None) -> Grain:
    found = Grain.of([(picture, None) for picture in pictures], shares)
    assert found is not None
    return found


def spectrum(image: Tensor) -> np.ndarray:
    """Energy by frequency along rows and columns, in four bands each, of red."""
    power = np.abs(np.fft.fft2(image[0, 0].numpy() - image[0, 0].numpy().mean())) ** 2
    rows, columns = (np.minimum(7, (np.abs(np.fft.fftfreq(side)) * 16).astype(int)) // 2 for side in power.shape)
    found = np.zeros((4, 4))
    np.add.at(found, (rows[:, None].repeat(power.shape[1], 1), columns[None].repeat(power.shape[0], 0)), power)
    return found / power.size**2


def test_the_noise_has_energy_spectrum_and_colours_of_the_painting() -> None:
    painting = stripes(256, 320)
    made = grain_of(painting).added(flat(256, 320), SHARE)
    found, wanted = spectrum(made) / SHARE**2, spectrum(painting)
    fine = wanted[2:].sum()  # what half the size cannot hold
    assert 0.75 * fine < found[2:].sum() < 1.05 * fine  # a little less: that of calm places
    assert found[2:, :2].sum() / found[2:].sum() == pytest.approx(wanted[2:, :2].sum() / fine, rel=0.03)  # along rows
    red, green, blue = (made[0, channel].std().item() for channel in range(3))
    assert (green / red, blue / red) == (pytest.approx(0.5, rel=0.03), pytest.approx(0.2, rel=0.03))


def test_it_is_added_where_there_is_none_yet() -> None:
    image = torch.cat([flat(96, 96), noise(96, 96, seed=3)], 3)
    changed = grain_of(noise(128, 128)).added(image) - image
    there, not_there = changed[..., 120:].std(), changed[..., :72].std()
    assert not_there > 0.02
    assert there < 0.3 * not_there


def test_it_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    grain = grain_of(noise(64, 64))
    assert torch.equal(grain.added(flat(40, 50), seed=1), grain.added(flat(40, 50), seed=1))
    assert not torch.equal(grain.added(flat(40, 50), seed=1), grain.added(flat(40, 50), seed=2))


@pytest.mark.slow
def test_a_large_picture_gets_the_noise_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    grain, image = grain_of(noise(64, 64)), noise(50, 41, seed=2)
    whole = grain.added(image)
    monkeypatch.setattr("stylize.grain.PART", 41 * 7)
    torch.testing.assert_close(grain.added(image), whole)
    torch.testing.assert_close(grain_of(noise(64, 64)).kernel, grain.kernel, atol=0.01, rtol=0)


def test_grey_pictures_stay_grey_and_all_stay_within_range() -> None:
    grain = grain_of(noise(64, 64))
    assert grain.added(flat(40, 50)[:, :1]).shape == (1, 1, 40, 50)
    for level in (0.0, 1.0):
        made = grain.added(flat(40, 50, level))
        assert made.min() >= 0
        assert made.max() <= 1
        assert not torch.equal(made, flat(40, 50, level))


@pytest.mark.parametrize("picture", [flat(64, 64), noise(15, 300)], ids=["flat", "too small"])
def test_what_has_no_grain_gives_none(picture: Tensor) -> None:
    assert Grain.of([(picture, None)]) is None


def test_lines_on_an_even_ground_are_no_grain() -> None:
    drawing = flat(96, 96)
    drawing[..., 48:50] = 0
    assert Grain.of([(drawing, None)]) is None
    paper = drawing + 0.1 * (noise(96, 96) - 0.5)
    assert grain_of(paper).energy < 0.02 * grain_of(noise(96, 96)).energy


def test_what_is_transparent_does_not_count() -> None:
    picture = torch.cat([flat(64, 96), noise(64, 96)], 3)
    alpha = torch.cat([torch.ones(1, 1, 64, 64), torch.zeros(1, 1, 64, 128)], 3)
    assert Grain.of([(picture, alpha)]) is None
    assert Grain.of([(picture, torch.zeros_like(alpha))]) is None
    assert Grain.of([(picture, 1 - alpha)]) is not None


def test_a_blend_has_energy_by_shares() -> None:
    strong, weak = noise(96, 96), noise(96, 96, seed=1) * 0.2 + 0.4
    energies = [grain_of(each).energy for each in (strong, weak)]
    mixed = grain_of(strong, weak, shares=[3.0, 1.0])
    assert mixed.energy == pytest.approx(0.75 * energies[0] + 0.25 * energies[1])
    assert grain_of(strong, weak, shares=[1.0, 0.0]).energy == energies[0]


def test_each_part_gets_its_own() -> None:
    left = torch.cat([torch.ones(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)], 3)
    grain, image = grain_of(noise(64, 64)), flat(32, 64)
    asked: list[int] = []

    def known(longest: int) -> Grain:
        asked.append(longest)
        return grain

    made = Grains([(known, left), (None, 1 - left), (lambda _: None, None)], seed=5).added(image, SHARE)
    assert torch.equal(made[..., 32:], image[..., 32:])
    torch.testing.assert_close(made[..., :32], grain.added(image, SHARE, 5)[..., :32])
    assert asked == [64]
