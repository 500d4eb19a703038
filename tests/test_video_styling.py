"""Styles that change in the course of a clip: when, how fast, and that nothing else changes with them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylize import Picture, Settings
from stylize_video.probe import probe
from stylize_video.styling import Styling, moved
from stylize_video.timing import Timing
from stylize_video.work import Plan
from tests.conftest import Call, waves
from tests.test_video import FAST, Array, Paint, clip, failing_at, frames_of, moving, paint, picture, style, two_shots

__all__ = ["paint", "style"]  # fixtures

STRONG = ("--steps", "9", "--frame-steps", "9", "--content-weight", "0.01")


@pytest.fixture
def scene(folder: Path) -> Path:
    """Two shots of 6 frames, 10 a second, and two pictures."""
    clip(folder / "in.mkv", two_shots())
    for name, color in (("red.png", (0.7, 0.0, 0.0)), ("blue.png", (0.0, 0.0, 0.7))):
        Picture(waves(20, 20, 4) * 0.3 + torch.tensor(color).view(1, 3, 1, 1)).save(folder / name)
    return folder


def weights(
    changes: Sequence[tuple[str, str]], fade: float = 0.4, base: Sequence[float] = (1.0,), first: int = 0
) -> Array:
    """The weights of all styles in the frames from ``first`` on, in the order of their numbers."""
    times = tuple(Fraction(number, 10) for number in range(first, 12))
    plan = Plan({}, len(times), (6 - first,), timing=Timing(times, Fraction(12, 10), Fraction(10), steady=True))
    styling = Styling({"style_at": tuple(changes), "fade": fade}, Settings(), probe(Path("in.mkv")))
    return np.array(styling.weights(plan, probe(Path("in.mkv")), base)).round(6)


@pytest.mark.usefixtures("scene")
def test_a_style_comes_in_over_the_fade() -> None:
    red = weights([("0.2", "red.png")])[:, 1]
    assert red.tolist() == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1]
    assert weights([("00:00.2", "red.png")], fade=0)[:, 1].tolist() == [0, 0, *[1] * 10]


@pytest.mark.usefixtures("scene")
def test_a_change_within_another_goes_on_from_there() -> None:
    found = weights([("0.4", "blue.png"), ("0.2", "red.png")])
    assert found[4].tolist() == [0.5, 0.0, 0.5]  # half red, as blue begins
    assert found[6].tolist() == [0.25, 0.5, 0.25]
    assert found[8].tolist() == [0.0, 1.0, 0.0]
    assert np.allclose(found.sum(1), 1)


@pytest.mark.usefixtures("scene")
def test_at_a_shot_the_style_changes_with_the_cut() -> None:
    assert weights([("shot:2", "red.png")])[:, 1].tolist() == [*[0] * 6, *[1] * 6]
    assert weights([("shot:1", "red.png")])[:, 1].tolist() == [1] * 12


@pytest.mark.usefixtures("scene")
def test_times_are_those_of_the_source_also_in_a_part_of_it() -> None:
    assert weights([("0.2", "red.png")], first=4)[:3, 1].tolist() == [0.5, 0.75, 1]
    assert weights([("shot:2", "red.png")], first=4)[:, 1].tolist() == [0, 0, *[1] * 6]


@pytest.mark.usefixtures("scene")
def test_blends_lead_to_blends() -> None:
    found = weights([("0.2", "red.png,blue.png"), ("0.8", "red.png")], base=(1.0, 3.0))
    assert found[0].tolist() == [0.25, 0.75, 0, 0]
    assert found[4].tolist() == [0.125, 0.375, 0.25, 0.25]
    assert found[6].tolist() == [0, 0, 0.5, 0.5]
    assert found[10].tolist() == [0, 0, 0.75, 0.25]


def test_how_far_styles_have_moved() -> None:
    assert moved((1.0, 0.0), (0.25, 0.75)) == 0.75
    assert moved((), ()) == 0


@pytest.mark.slow
def test_each_shot_in_its_own_style_is_the_clip_in_that_style(paint: Paint, scene: Path) -> None:
    paint("in.mkv", "--style-at", "shot:2", "red.png")
    changed = frames_of(Path("out.mkv"))
    paint("in.mkv", target="plain.mkv")
    clip(scene / "second.mkv", two_shots()[6:])
    paint("second.mkv", "--style-at", "0", "red.png", "--fade", "0", target="red.mkv")
    assert all(map(np.array_equal, changed[:6], frames_of(Path("plain.mkv"))[:6]))
    assert all(map(np.array_equal, changed[6:], frames_of(Path("red.mkv"))))


@pytest.mark.slow
def test_a_fade_is_painted_also_where_nothing_moves_and_ends_in_the_style(paint: Paint, scene: Path) -> None:
    clip(scene / "still.mkv", [picture(0)] * 12)
    assert "7 unchanged" in paint("still.mkv", "--style-at", "0.3", "red.png", "--fade", "0.4", *STRONG).err
    red = [float(frame[..., 0].mean()) - float(frame[..., 2].mean()) for frame in frames_of(Path("out.mkv"))]
    steps = np.diff(red)
    assert not steps[:3].any()
    assert red[-1] > red[0] + 40
    assert steps.max() < 0.6 * (red[-1] - red[0])  # no jump


@pytest.mark.slow
def test_stopped_in_a_fade_it_goes_on_there(paint: Paint, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(scene / "one.mkv", moving(6))
    options = ("--style-at", "0.1", "red.png", "--fade", "0.4")
    paint("one.mkv", *options, target="whole.mkv")
    with failing_at(4, monkeypatch):
        assert "enough" in paint("one.mkv", *options, check=1).err
    assert "3 done before" in paint("one.mkv", *options).err
    assert all(map(np.array_equal, frames_of(Path("whole.mkv")), frames_of(Path("out.mkv"))))


@pytest.mark.slow
def test_other_times_begin_anew(paint: Paint, scene: Path) -> None:
    preview = ("--preview", "-q")
    paint("in.mkv", "--style-at", "0.3", "red.png", *preview)
    assert "2 done before" in paint("in.mkv", "--style-at", "0.3", "red.png", "--preview").err
    for options in (("--style-at", "0.4", "red.png"), ("--style-at", "0.3", "blue.png"), ()):
        assert "with other settings are kept" in paint("in.mkv", *options, "--preview").err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--style-at", "1:00", "red.png"), "--style-at 1:00: in.mkv is 1.2 s long"),
        (("--style-at", "shot:3", "red.png"), "--style-at shot:3: what is painted has 2 shots"),
        (("--style-at", "shot:0", "red.png"), "shots are counted from 1"),
        (("--style-at", "soon", "red.png"), "it must be a time such as 00:01:20.5 or 80.5, or a shot such as shot:3"),
        (("--style-at", "0.3", "none.png"), "none.png"),
        (("--fade", "2"), "--fade needs --style-at"),
        (("--style-at", "0.3", "out.png"), "also a source"),
    ],
)
def test_what_cannot_be_is_one_clear_line(call: Call, style: Path, scene: Path, options: Any, words: str) -> None:
    Picture(waves(20, 20, 4)).save(scene / "out.png")
    target = "out.png" if "out.png" in options else "out.mkv"
    more = ("--preview",) if target == "out.png" else ()
    done = call("in.mkv", "style.png", "-o", target, *FAST, *more, *options)
    assert done.code in (1, 2)
    assert words in done.err
    assert "Traceback" not in done.err
    assert not (scene / ".out.mkv.work").exists()
