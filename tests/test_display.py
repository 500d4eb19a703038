"""The displays of the command line: each keeps the contract, and shows what it should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stylize import Display, Frame, RunProgress, Scale, Schedule, Step, Stylizer
from stylize.cli.display import Json, Live, Quiet
from stylize.testing import DisplayContract


class TestQuiet(DisplayContract):
    @pytest.fixture
    def display(self) -> Display:
        return Quiet()


class TestJson(DisplayContract):
    @pytest.fixture
    def display(self) -> Display:
        return Json()


class TestLive(DisplayContract):
    @pytest.fixture
    def display(self) -> Display:
        return Live()


def paint(display: Display, stylizer: Stylizer, total: int | None) -> None:
    """Two pictures of ``total``, each in two steps."""
    with display:
        for number in (1, 2):
            frame = Frame(f"picture {number}", stylizer.styles[0], number=number, total=total)
            result = stylizer(
                frame.image,
                on_step=lambda step, frame=frame: display.stylize_step(frame, step),  # type: ignore[misc]
            )
            display.stylize_painted(frame, result)
        display.written(Path("out"))


def test_a_display_must_show_warnings() -> None:
    class Silent(Display):
        pass

    with pytest.raises(TypeError, match="warning"):
        Silent()  # type: ignore[abstract]


def test_quiet_shows_warnings_alone(stylizer: Stylizer, capsys: pytest.CaptureFixture[str]) -> None:
    paint(Quiet(), stylizer, 2)
    assert capsys.readouterr() == ("", "")
    Quiet().warning("look")
    assert capsys.readouterr() == ("", "stylize: look\n")


def test_json_tells_which_picture_a_step_belongs_to(stylizer: Stylizer, capsys: pytest.CaptureFixture[str]) -> None:
    paint(Json(), stylizer, None)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["event"], each.get("picture"), each.get("number")) for each in events] == [
        ("plan", None, None),
        *(("step", "picture 1", 1), ("step", "picture 1", 2), ("painted", "picture 1", None)),
        *(("step", "picture 2", 1), ("step", "picture 2", 2), ("painted", "picture 2", None)),
        ("written", None, None),
    ]
    assert {each["pictures"] for each in events[:-1]} == {None}


@pytest.mark.parametrize(("total", "shown"), [(3, ["1/3", "2/3"]), (None, ["1", "2"])])
def test_where_there_is_no_terminal_each_picture_of_several_is_a_line(
    stylizer: Stylizer, capsys: pytest.CaptureFixture[str], total: int | None, shown: list[str]
) -> None:
    paint(Live(), stylizer, total)
    said = capsys.readouterr()
    lines = [line.split() for line in said.err.splitlines()]
    assert [line[0] for line in lines] == shown
    assert [line[1:4] for line in lines] == [["picture", "1", "loss"], ["picture", "2", "loss"]]
    assert said.out == "out\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_names_neither_colour_nor_command_the_terminal(
    stylizer: Stylizer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "dumb")  # rich moves no cursor
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with Live() as display:
        frame = Frame("[/red]\x1b]0;owned\x07\x9b2J.png", stylizer.styles[0], total=2)
        stylizer(frame.image, on_step=lambda step: display.stylize_step(frame, step))
        display.stylize_painted(frame, frame.image)
        display.warning("made with \x1b[31mtorch")
    said = capsys.readouterr().err
    assert "[/red]\\x1b]0;owned\\x07\\x9b2J.png" in said
    assert "made with \\x1b[31mtorch" in said
    assert not set("\x07\x9b") & set(said)


def test_ctrl_c_while_nothing_is_painted_promises_no_step(
    stylizer: Stylizer, capfd: pytest.CaptureFixture[str]
) -> None:
    with Live() as display:
        display.stopping()
        frame = Frame("photo", stylizer.styles[0])
        stylizer(frame.image, on_step=lambda step: display.stylize_step(frame, step))
        display.stopping()
        display.stylize_painted(frame, frame.image)
        display.stopping()
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("stopping")]
    idle = "stopping; press Ctrl-C again to end at once"
    assert said == [idle, "stopping after this step; press Ctrl-C again to discard the picture", idle]


def a_step(fraction: float, seconds: float, left: float | None) -> Step:
    return Step(1, 1, 1, 1, 1, 1, 0.0, {}, 0, True, seconds, fraction, left)


def test_the_progress_of_several_pictures_goes_by_those_that_are_painted(stylizer: Stylizer) -> None:
    first, second, third = (Frame("a", stylizer.styles[0], number=number, total=4) for number in (1, 2, 3))
    progress, seen = RunProgress(), list[tuple[float | None, float | None]]()

    def note() -> None:
        seen.append((progress.fraction, progress.seconds_left))

    for step in (a_step(0.25, 2.0, None), a_step(0.5, 4.0, 4.0)):
        progress.step(step, first)
        note()
    progress.painted(first)
    note()
    progress.copied(second)
    note()
    progress.step(a_step(0.5, 3.0, 3.0), third)
    note()
    progress.finished()
    note()
    assert seen == [(1 / 16, None), (1 / 8, 28.0), (0.25, 12.0), (0.5, 8.0), (0.625, 7.0), (1.0, 0.0)]


def test_the_progress_of_pictures_that_nobody_has_counted_is_not_known(stylizer: Stylizer) -> None:
    progress = RunProgress()
    progress.step(a_step(0.5, 1.0, 1.0), Frame("a", stylizer.styles[0], total=None))
    assert (progress.fraction, progress.seconds_left) == (None, None)


def test_a_step_in_a_run_of_several_pictures_counts_as_part_of_it() -> None:
    part = a_step(0.5, 3.0, 3.0).part(2, 4)
    assert (part.fraction, part.seconds_left) == (0.375, 15.0)


def test_a_schedule_weighs_steps_by_their_size() -> None:
    schedule = Schedule((Scale(64, 64, 10), Scale(128, 128, 20)))
    assert schedule.steps == 30
    assert [schedule.fraction(*place) for place in ((1, 5), (1, 10), (2, 10), (2, 20))] == pytest.approx(
        [1 / 12, 1 / 6, 7 / 12, 1]
    )
