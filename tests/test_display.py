"""The displays of the command line: each keeps the contract, and shows what it should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stylize import Display, Frame, Stylizer
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
