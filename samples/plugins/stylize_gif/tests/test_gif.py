"""The GIF job keeps to what every job keeps to, and its results are animated."""

import pytest
from PIL import Image
from stylize_gif import GifJob, stylize_open

import stylize
from stylize.testing import FileJobContract


@pytest.fixture
def gif(tmp_path):
    pictures = [Image.new("RGB", (24, 16), color) for color in ("red", "green", "blue")]
    pictures[0].save(tmp_path / "in.gif", save_all=True, append_images=pictures[1:], duration=[50, 100, 150])
    return tmp_path / "in.gif"


class TestContract(FileJobContract):
    @pytest.fixture
    def job(self, gif, tmp_path):
        return GifJob(gif, tmp_path / "out.gif")


def test_every_frame_is_painted_and_keeps_its_time(gif, tmp_path, stylizer):
    path = stylize.run(GifJob(gif, tmp_path / "out.gif"), stylizer)
    with Image.open(path) as painted:
        assert painted.n_frames == 3
        times = []
        for number in range(3):
            painted.seek(number)
            times.append(painted.info["duration"])
    assert times == [50, 100, 150]


def test_only_gifs_are_opened(gif, tmp_path):
    assert isinstance(stylize_open(gif, None), GifJob)
    assert stylize_open(gif, tmp_path / "out.png") is None
    assert stylize_open(tmp_path / "photo.jpg", None) is None
