"""Folders in which there are clips, too: each file is painted by whoever opens it, and only once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stylize
from stylize_batch.notes import noted
from tests.conftest import Call
from tests.test_video import Array, clip, frames_of, moving, picture, style

__all__ = ["style"]  # a fixture

QUICK = ("--encoder", "tiny", "--size", "32", "--steps", "2", "--frame-steps", "2", "--codec", "ffv1")


@pytest.fixture
def mixed(folder: Path, style: Path) -> Path:
    """A folder with a photo, a clip, another below, and what is neither."""
    made = folder / "mixed"
    (made / "sub").mkdir(parents=True)
    Image.fromarray(picture(3)).save(made / "photo.png")
    clip(made / "a.mkv", moving(3))
    clip(made / "sub" / "b.mkv", moving(2, 1))
    (made / "notes.txt").touch()
    return made


def differ(one: list[Array], other: list[Array]) -> bool:
    return len(one) == len(other) and not any(map(np.array_equal, one, other))


@pytest.mark.slow
def test_photos_and_clips_of_a_folder_are_painted(call: Call, mixed: Path) -> None:
    done = call("mixed", "style.png", "-o", "out", *QUICK)
    assert done.code == 0, done.err
    assert "3 painted, 1 ignored" in done.err
    assert "2/3  a.mkv: frame 1" in done.err
    assert differ(frames_of(Path("out/a.mkv")), moving(3))
    assert differ(frames_of(Path("out/sub/b.mkv")), moving(2, 1))
    assert Path("out/photo.png").is_file()
    call("mixed/a.mkv", "style.png", "-o", "alone.mkv", *QUICK)
    assert all(map(np.array_equal, frames_of(Path("out/a.mkv")), frames_of(Path("alone.mkv"))))
    assert "3 of 3 are up to date" in call("mixed", "style.png", "-o", "out", *QUICK).err
    record = noted(Path("out/a.mkv")) or {}
    assert Path(record["content"]["path"]).name == "a.mkv"
    assert record["options"]["codec"] == "ffv1"


@pytest.mark.slow
def test_a_clip_is_painted_again_when_it_has_changed_and_an_edited_result_is_left(call: Call, mixed: Path) -> None:
    (mixed / "photo.png").unlink()
    call("mixed", "style.png", "-o", "out", *QUICK)
    clip(mixed / "a.mkv", moving(2, 4))
    with Path("out/sub/b.mkv").open("ab") as file:
        file.write(b"\0")
    Path("out/c.mkv").write_bytes(b"somebody's")
    clip(mixed / "c.mkv", moving(2, 5))
    done = call("mixed", "style.png", "-o", "out", *QUICK)
    assert done.code == 0, done.err
    assert "1 of 3 to be painted again: changed: photo" in done.err
    assert "sub/b.mkv is left as it is: it was edited since it was painted" in done.err
    assert "c.mkv is left as it is: there is a file without a record" in done.err
    assert len(frames_of(Path("out/a.mkv"))) == 2
    assert call("mixed", "style.png", "-o", "out", *QUICK, "--force").code == 0
    assert differ(frames_of(Path("out/c.mkv")), moving(2, 5))


@pytest.mark.slow
def test_a_clip_that_cannot_be_painted_costs_itself(call: Call, mixed: Path) -> None:
    (mixed / "sub" / "b.mkv").write_text("no clip")
    done = call("mixed", "style.png", "-o", "out", *QUICK)
    assert done.code == 1
    assert "2 painted, 1 failed, 1 ignored" in done.err
    assert "b.mkv as a clip" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_a_clip_in_each_of_several_styles(call: Call, mixed: Path) -> None:
    Path("styles").mkdir()
    for number, name in enumerate(("one", "two"), 5):
        Image.fromarray(picture(number)).save(f"styles/{name}.png")
    done = call("mixed/a.mkv", "styles", "-o", "out", *QUICK)
    assert done.code == 0, done.err
    assert differ(frames_of(Path("out/a-one.mkv")), frames_of(Path("out/a-two.mkv")))
    call("mixed/a.mkv", "styles/two.png", "-o", "alone.mkv", *QUICK)
    assert all(map(np.array_equal, frames_of(Path("out/a-two.mkv")), frames_of(Path("alone.mkv"))))
    done = call("mixed/a.mkv", "styles/one.png", "styles/two.png", "--pair", "cross", "-o", "pair", *QUICK)
    assert sorted(path.name for path in Path("pair").glob("*.mkv")) == ["a-one.mkv", "a-two.mkv"]


@pytest.mark.slow
def test_what_a_clip_becomes_is_a_clip_whatever_photos_become(call: Call, mixed: Path) -> None:
    (mixed / "a.mkv").rename(mixed / "a.avi")
    options = ("--name", "{style}/{stem}-p.png", "--bits", "16")
    done = call("mixed", "style.png", "-o", "out", *options, *QUICK[:-2], "--codec", "h264", "--every", "2")
    assert done.code == 0, done.err
    found = sorted(str(path.relative_to("out")) for path in Path("out").rglob("[!.]*") if path.is_file())
    assert found == ["style/a-p.mp4", "style/photo-p.png", "sub/style/b-p.mkv"]


@pytest.mark.slow
def test_each_clip_has_the_mask_of_its_name(call: Call, mixed: Path) -> None:
    Path("masks").mkdir()
    black = [np.zeros((24, 32, 3), np.uint8)] * 3
    clip(Path("masks/a.mkv"), black)
    done = call("mixed", "style.png", "-o", "out", "--mask-folder", "masks", *QUICK)
    assert done.code == 0, done.err
    assert all(map(np.array_equal, frames_of(Path("out/a.mkv")), moving(3)))
    assert not Path("out/sub").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("mixed")
def test_stopped_within_a_clip_it_goes_on_there() -> None:
    settings = {"encoder": "tiny", "size": 32, "steps": (2,), "codec": "ffv1", "frame_steps": 2}
    frames: list[str] = []

    def paint(stop: int) -> None:
        frames.clear()
        stylize.paint_folder(
            "mixed",
            "style.png",
            "out",
            on_step=lambda frame, step: frames.append(frame.name),
            stop=lambda: len(frames) > stop,
            **settings,  # type: ignore[arg-type]
        )

    paint(3)
    assert {*frames} == {"a.mkv: frame 0", "a.mkv: frame 1"}
    assert not Path("out/a.mkv").exists()
    paint(1000)
    assert "a.mkv: frame 0" not in frames
    assert "a.mkv: frame 1" in frames
    assert len(frames_of(Path("out/a.mkv"))) == 3
    paint(1000)
    assert not frames


@pytest.mark.usefixtures("style")
def test_options_of_clips_are_refused_where_there_are_none(call: Call, folder: Path) -> None:
    (folder / "photos").mkdir()
    Image.fromarray(picture(3)).save(folder / "photos" / "photo.png")
    done = call("photos", "style.png", "-o", "out", "--every", "2", "--encoder", "tiny")
    assert done.code == 2
    assert "--every belongs to clips" in done.err
