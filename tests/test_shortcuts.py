"""Whole runs from Python: a picture, a folder, a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stylize
from stylize import Frame, Settings, SettingsError, Step
from tests.conftest import waves

QUICK: dict[str, Any] = {"size": 16, "encoder": "mini", "steps": (1,), "scales": 1, "device": "cpu"}


@pytest.fixture
def photos(folder: Path) -> Path:
    """A folder of two photos and, beside it, a style."""
    (folder / "photos").mkdir()
    for number, name in enumerate(("photos/a.jpg", "photos/b.jpg", "starry.png")):
        stylize.save(waves(24, 32, number), folder / name)
    return folder


def test_a_picture_in_one_line(photos: Path) -> None:
    steps: list[Step] = []
    made = stylize.paint(photos / "photos" / "a.jpg", photos / "starry.png", "strong", on_step=steps.append, **QUICK)
    assert made.size == (12, 16)
    assert len(steps) == 1
    assert (made.record or {})["settings"]["content_weight"] == stylize.preset("strong").content_weight
    assert stylize.paint(np.asarray(made), [waves(9, 9, 1), made.pil()], QUICK, stop=lambda: True).size == (12, 16)


def test_a_part_of_a_picture_in_one_line(photos: Path) -> None:
    photo, style, left = photos / "photos" / "a.jpg", photos / "starry.png", np.arange(16) < 8
    more = {**QUICK, "steps": (4,)}
    mask = np.broadcast_to(left, (12, 16))
    small = stylize.resize(stylize.load(photo).rgb, 12, 16)
    made = stylize.paint(small, style, more, mask=mask).rgb
    assert made[..., 8:].equal(small[..., 8:])
    assert not made[..., :8].equal(small[..., :8])
    assert not stylize.paint(small, style, more, regions=[(mask, waves(9, 9, 5))]).rgb.equal(
        stylize.paint(small, style, more).rgb
    )


@pytest.mark.slow
def test_a_folder_in_one_line(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames: list[str] = []

    def on_step(frame: Frame, step: Step) -> None:
        frames.append(frame.name)

    result = stylize.paint_folder(
        str(photos / "photos"),
        str(photos / "starry.png"),
        str(photos / "painted"),
        Settings(**QUICK),
        format="png",
        bits=16,
        on_step=on_step,
        progress=True,
    )
    assert result == photos / "painted"
    assert sorted(path.name for path in result.iterdir() if path.suffix == ".png") == ["a.png", "b.png"]
    assert frames == ["a.jpg", "b.jpg"]
    record = stylize.read_record(result / "a.png") or {}
    assert record["saving"]["bits"] == 16
    assert "100%" in capsys.readouterr().err
    frames.clear()
    options = {**QUICK, "format": "png", "bits": 16}
    stylize.paint_folder(photos / "photos", [photos / "starry.png"], result, on_step=on_step, **options)
    assert frames == []  # all are up to date


@pytest.mark.slow
def test_a_clip_in_one_line(photos: Path) -> None:
    stills = [Image.fromarray((waves(24, 32, n)[0].permute(1, 2, 0) * 255).byte().numpy()) for n in range(2)]
    stills[0].save(photos / "clip.gif", save_all=True, append_images=stills[1:], duration=100)
    target = stylize.paint_clip(photos / "clip.gif", photos / "starry.png", photos / "out.gif", every=2, **QUICK)
    assert target == photos / "out.gif"
    with Image.open(photos / "out.gif") as made:
        assert made.n_frames == 2  # type: ignore[attr-defined]


def test_what_is_no_folder_or_no_clip_is_refused(photos: Path) -> None:
    photo, style = photos / "photos" / "a.jpg", photos / "starry.png"
    with pytest.raises(SettingsError, match=r"is a file, not a folder; stylize.paint paints a picture"):
        stylize.paint_folder(photo, style)
    with pytest.raises(SettingsError, match=r"is a folder, not a clip"):
        stylize.paint_clip(photos / "photos", style)
    with pytest.raises(SettingsError, match=r"a.jpg is not a clip"):
        stylize.paint_clip(photo, style)


def test_unknown_names_and_bad_values_are_refused(photos: Path) -> None:
    arguments = photos / "photos", photos / "starry.png"
    with pytest.raises(SettingsError, match=r"unknown setting or option 'pare'; known: .*\bpair\b.*\bsize\b"):
        stylize.paint_folder(*arguments, pare="cross")
    with pytest.raises(SettingsError, match=r"'--bits': 7 is not one of"):
        stylize.paint_folder(*arguments, bits=7)
    with pytest.raises(SettingsError, match="size is 3"):
        stylize.paint_folder(*arguments, size=3)
    with pytest.raises(SettingsError, match="--every belongs to clips"):
        stylize.paint_folder(*arguments, every=2)
