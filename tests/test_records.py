"""Records: what they hold, and which two of them are of the same work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stylize import Record, Stylizer
from tests.conftest import waves

WHOLE = Record(
    stylize="1.0",
    torch="2.6",
    settings={"size": 16, "device": "cpu", "memory": "auto", "encoder": "auto", "init": "start.png"},
    encoder={"name": "tiny", "sha256": "e"},
    content={"path": "a.png", "sha256": "a"},
    styles=({"path": "s.png", "sha256": "s"}, None),
    init={"path": "start.png", "sha256": "i"},
    options={"grain": 0.1},
    saving={"bits": 8, "quality": None},
    plugins={"grain": "1.0"},
)


@pytest.mark.parametrize("record", [WHOLE, replace(WHOLE, stopped=True, more={"layers": {"content": "a"}}), Record()])
def test_a_record_comes_back_from_a_file(record: Record) -> None:
    assert Record.from_dict(record.to_dict()) == record


def test_a_finished_picture_does_not_say_that_it_is_not_stopped() -> None:
    assert "stopped" not in WHOLE.to_dict()
    assert replace(WHOLE, stopped=True).to_dict()["stopped"] is True


def test_a_stylizer_says_nothing_of_how_a_picture_is_saved(stylizer: Stylizer) -> None:
    record = stylizer(waves(12, 16)).record
    assert record is not None
    assert set(record) == {"stylize", "torch", "settings", "encoder", "content", "styles", "init"}


@pytest.mark.parametrize(
    "change",
    [
        {"stylize": "2.0"},
        {"torch": "3.0"},
        {"settings": {**WHOLE.settings, "device": "cuda"}},
        {"settings": {**WHOLE.settings, "init": "elsewhere/start.png"}},
        {"content": {"path": "b.png", "sha256": "a"}},
        {"plugins": None},
    ],
)
def test_what_does_not_change_a_picture_is_the_same_work(change: dict[str, Any]) -> None:
    assert WHOLE.same_work_as(replace(WHOLE, **change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {**WHOLE.settings, "size": 17}}, ["settings"]),
        ({"encoder": {"name": "tiny", "sha256": "f"}}, ["encoder"]),
        ({"content": {"path": "a.png", "sha256": "b"}}, ["photo"]),
        ({"content": None}, ["photo"]),
        ({"styles": ({"path": "s.png", "sha256": "s"},)}, ["style"]),
        ({"init": {"path": "start.png", "sha256": "j"}}, ["start"]),
        ({"options": {}, "saving": {"bits": 16, "quality": None}}, ["options", "saving"]),
        ({"stopped": True}, ["stopped"]),
    ],
)
def test_what_changes_a_picture_is_named(change: dict[str, Any], words: list[str]) -> None:
    other = replace(WHOLE, **change)
    assert WHOLE.changes_since(other) == words
    assert not other.same_work_as(WHOLE)


@pytest.mark.parametrize("found", [{"settings": "x"}, {"settings": {}, "styles": 5, "content": [], "init": 3}, {}])
def test_a_strange_record_is_of_other_work(found: dict[str, Any]) -> None:
    assert WHOLE.changes_since(Record.from_dict(found))
