"""Records: what they hold, and which two of them are of the same work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from stylize import Record, Stylizer, plugin_manager
from stylize.records import differences, threads
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
    machine={"device": "cpu", "precision": "float32", "threads": 2},
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
        {"machine": {"device": "cpu", "precision": "float32", "threads": 1}},
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


def test_a_picture_says_what_decided_its_bits_besides_the_settings(stylizer: Stylizer) -> None:
    found = stylizer.engine.computed_with()
    assert found["device"] == "cpu"
    assert found["precision"] in ("float32", "bfloat16")
    assert found["threads"] == torch.get_num_threads()
    assert found["instructions"]


@pytest.mark.parametrize(
    ("machine", "wanted"),
    [
        ({"threads": 3}, 3),
        ({}, None),
        ({"threads": 0}, None),
        ({"threads": 10**9}, None),
        ({"threads": "3"}, None),
        ({"threads": True}, None),
        (None, None),
        ("x", None),
    ],
)
def test_the_threads_of_a_record_are_a_number_that_can_be_had(machine: object, wanted: int | None) -> None:
    assert threads({"machine": machine}) == wanted


def test_what_may_differ_is_told_in_short_words(stylizer: Stylizer) -> None:
    now = replace(WHOLE, machine={"device": "cpu", "precision": "bfloat16", "threads": 2})
    made = replace(WHOLE, torch="t" * 1000, machine={**(WHOLE.machine or {}), "instructions": "AVX2"})
    said = list(differences(made.to_dict(), now, plugin_manager()))
    assert len(said) == 4
    assert said[0] == f"it was made with torch {'t' * 77}..., this is 2.6"
    assert "it was computed with precision float32, here with bfloat16" in said
    assert "it was computed with instructions AVX2, here with none" in said
    assert "it was made with plugin grain 1.0, here is none" in said
