"""The sky is found above a skyline, and nothing is where there is none."""

import numpy as np
import pytest
from stylize_sky import sky, stylize_regions

from stylize import Frame, Picture, as_picture, save


@pytest.fixture
def photo():
    """A blue sky, darker at the top, over a dark skyline with lit windows."""
    rows = np.linspace(0, 1, 120)[:, None, None]
    made = np.broadcast_to((1 - rows) * (60, 110, 200) + rows * (170, 200, 240), (120, 160, 3)).copy()
    noise = np.random.default_rng(0).normal(0, 3, made.shape)
    skyline = 70 + 12 * (np.arange(160) // 20 % 3)
    ground = np.arange(120)[:, None] >= skyline
    made[ground] = (40, 35, 30)
    made[90:100, ::8] = (250, 220, 120)
    return (made + noise).clip(0, 255).astype(np.uint8), ~ground


def test_the_sky_ends_at_the_skyline(photo):
    pixels, wanted = photo
    found = sky(pixels).weights[0, 0].numpy() > 0.5
    assert np.mean(found == wanted) > 0.97


def test_there_is_no_sky_in_a_wall_of_stones():
    stones = np.random.default_rng(1).integers(0, 256, (100, 140, 3)).astype(np.uint8)
    assert sky(stones).weights.mean() < 0.05


def test_the_region_is_painted_in_the_style_asked_for(photo, stylizer, tmp_path):
    save(as_picture(np.full((20, 20, 3), (255, 0, 0), np.uint8)).rgb, tmp_path / "red.png")
    picture = as_picture(photo[0])
    assert stylize_regions(Frame("photo", picture), {"sky": None}) == []
    regions = stylize_regions(Frame("photo", picture), {"sky": tmp_path / "red.png"})
    assert isinstance(stylizer(picture, regions=regions), Picture)
    assert len(regions) == 1
