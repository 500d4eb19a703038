"""Plain margins of style pictures: found where there are some, and nowhere else."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylize import Picture, Region, Settings, Stylizer
from stylize.encoders import EncoderSpec
from stylize.images import load, resize
from stylize.margins import margins, without_margins
from tests.conftest import SHARED, waves

IVORY, BLACK = (0.94, 0.91, 0.85), (0.02, 0.02, 0.02)
SETTINGS = Settings(encoder="tiny", size=48, min_size=16, steps=(2,), tolerance=0.0, device="cpu")
STYLES = SHARED / "images" / "style"


def painting(height: int = 240, width: int = 300) -> Tensor:
    """Strokes of many sizes, none of them of a light or dark colour."""
    rough = torch.rand(1, 3, height // 6, width // 6, generator=torch.Generator().manual_seed(1))
    return 0.15 + 0.6 * (0.6 * resize(rough, height, width) + 0.4 * waves(height, width, 5))


def mounted(own: Tensor, color: tuple[float, ...], top: int, bottom: int, left: int, right: int) -> Tensor:
    height, width = own.shape[2:]
    sheet = torch.tensor(color).view(1, 3, 1, 1).repeat(1, 1, height + top + bottom, width + left + right)
    sheet[..., top : top + height, left : left + width] = own
    return sheet


def noisy(image: Tensor, deviation: float = 0.015) -> Tensor:
    return (image + deviation * torch.randn(image.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)


@pytest.mark.parametrize("color", [IVORY, BLACK, (0.95, 0.1, 0.9)])
@pytest.mark.parametrize("sides", [(30, 30, 30, 30), (8, 8, 8, 8), (20, 90, 25, 25)])
def test_a_margin_all_around_is_found(color: tuple[float, ...], sides: tuple[int, int, int, int]) -> None:
    found = margins(noisy(mounted(painting(), color, *sides)))
    for own, side in zip(sides, (found.top, found.bottom, found.left, found.right), strict=True):
        assert own <= side <= own + 8


def test_black_bars_are_found_at_two_sides() -> None:
    found = margins(mounted(painting(), BLACK, 40, 42, 0, 0))
    assert (found.left, found.right) == (0, 0)
    assert 40 <= found.top <= 46
    assert 42 <= found.bottom <= 48
    turned = margins(mounted(painting(), BLACK, 40, 42, 0, 0).transpose(2, 3))
    assert (turned.left, turned.right, turned.top, turned.bottom) == (found.top, found.bottom, 0, 0)


def test_a_mat_within_a_frame_is_found() -> None:
    framed = mounted(mounted(painting(), IVORY, 30, 30, 30, 30), (0.3, 0.2, 0.1), 12, 12, 12, 12)
    found = margins(framed)
    assert 42 <= found.top <= 54
    assert 42 <= found.right <= 54


def test_a_sheet_that_was_photographed_is_turned_and_shaded_and_has_a_label() -> None:
    sheet = mounted(painting(), IVORY, 30, 60, 30, 30)
    sheet[..., 290:300, 60:150] = 0.2
    height, width = sheet.shape[2:]
    angle = np.deg2rad(0.5)
    turn = torch.tensor([[[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0]]], dtype=torch.float32)
    grid = torch.nn.functional.affine_grid(turn, [1, 3, height, width], align_corners=False)
    turned = torch.nn.functional.grid_sample(sheet, grid, padding_mode="border", align_corners=False)
    found = margins(noisy(turned * torch.linspace(1, 0.85, width)))
    assert 30 <= found.top <= 40
    assert 60 <= found.bottom <= 70
    assert 28 <= found.left <= 40
    assert 28 <= found.right <= 40


def vignette() -> Tensor:
    """A drawing that stands free on its paper."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 240), torch.linspace(-1, 1, 300), indexing="ij")
    inside = (rows / 0.7) ** 2 + (columns / 0.6) ** 2 < 1
    return torch.where(inside, painting(), torch.tensor(IVORY).view(1, 3, 1, 1))


def hand() -> Tensor:
    """One square thing at the side of an empty sheet."""
    sheet = mounted(painting(90, 60), IVORY, 100, 110, 30, 260)
    return noisy(sheet, 0.005)


def bands(*colors: tuple[float, ...]) -> Tensor:
    return torch.cat([torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, 60, 300) for color in colors], 2)


def seascape() -> Tensor:
    """A flat sky and a flat sea, with a straight horizon."""
    return noisy(bands((0.7, 0.8, 0.95), (0.7, 0.8, 0.95), (0.1, 0.3, 0.5), (0.1, 0.3, 0.45)), 0.01)


def circle() -> Tensor:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 240), torch.linspace(-1, 1, 240), indexing="ij")
    return torch.where(rows**2 + columns**2 < 0.98, painting(240, 240), torch.tensor(BLACK).view(1, 3, 1, 1))


@pytest.mark.parametrize(
    "image",
    [
        painting(),
        vignette(),
        hand(),
        seascape(),
        circle(),
        bands((0.7, 0.1, 0.2), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.7, 0.1, 0.2)),  # no black bars
        bands((1.0, 1.0, 1.0), (0.7, 0.1, 0.2), (1.0, 1.0, 1.0)),  # wider than bars are
        bands((0.1, 0.1, 0.1), (0.8, 0.1, 0.1), (0.9, 0.8, 0.1)),
        torch.ones(1, 3, 200, 300),
        torch.rand(1, 3, 120, 160, generator=torch.Generator().manual_seed(3)),
        mounted(painting(), IVORY, 30, 0, 0, 0),
        torch.rand(1, 3, 1, 300, generator=torch.Generator().manual_seed(3)),
        torch.zeros(1, 3, 8, 8),
    ],
    ids=[
        "strokes",
        "vignette",
        "hand",
        "sea",
        "circle",
        "flag",
        "wide",
        "stripes",
        "white",
        "noise",
        "top",
        "line",
        "tiny",
    ],
)
def test_a_picture_without_margins_is_left_whole(image: Tensor) -> None:
    assert not margins(image)
    picture = Picture(image)
    assert without_margins(picture) is picture


def test_a_picture_with_transparency_says_itself_what_counts() -> None:
    image = mounted(painting(), IVORY, 30, 30, 30, 30)
    picture = Picture(image, torch.ones(1, 1, *image.shape[2:]))
    assert without_margins(picture) is picture


@pytest.mark.slow
def test_the_style_is_what_is_inside_its_margins(tiny: EncoderSpec, caplog: pytest.LogCaptureFixture) -> None:
    photo, sheet = waves(36, 48, 1), mounted(painting(), IVORY, 30, 30, 30, 30)
    inside = without_margins(Picture(sheet)).rgb

    def painted(style: Tensor, margins: str = "cut") -> NDArray[np.uint8]:
        return Stylizer(style, SETTINGS.replace(style_margins=margins), encoders=[tiny])(photo).numpy()

    caplog.clear()
    with caplog.at_level(logging.INFO, "stylize"):
        cut = painted(sheet)
    (line,) = (message for message in caplog.messages if "margin" in message)
    assert line == (
        f"the plain margin of a style is left out of the style, which is {inside.shape[3]}x{inside.shape[2]} px of "
        "360x300; --style-margins keep includes it"
    )
    assert np.array_equal(cut, painted(inside))
    assert not np.array_equal(cut, painted(sheet, "keep"))


def test_styles_of_regions_have_no_margins_either(tiny: EncoderSpec) -> None:
    photo, sheet = waves(36, 48, 1), mounted(painting(), IVORY, 30, 30, 30, 30)
    inside, left = without_margins(Picture(sheet)), np.zeros((36, 48), np.uint8)
    left[:, :24] = 255
    stylizer = Stylizer(waves(40, 40, 2), SETTINGS, encoders=[tiny])
    one, other = (stylizer(photo, regions=[Region(left, style)]).numpy() for style in (sheet, inside))
    assert np.array_equal(one, other)


@pytest.mark.slow
@pytest.mark.skipif(not STYLES.is_dir(), reason="no pictures at hand")
def test_of_real_paintings_only_the_mounted_drawing_has_a_margin() -> None:
    found = {path.stem: margins(load(path, longest=512).rgb) for path in sorted(STYLES.iterdir())}
    assert [name for name, own in found.items() if own] == ["woman_in_peasant_dress"]
    own = found["woman_in_peasant_dress"]
    assert all(8 <= side <= 30 for side in (own.top, own.bottom, own.left, own.right))
