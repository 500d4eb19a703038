"""Settings as the text of a form, and back."""

from __future__ import annotations

from typing import Any

import pytest

from stylize import Settings, SettingsError, setting_fields, setting_text, setting_value


@pytest.mark.parametrize("name", [field.name for field in setting_fields()])
def test_the_text_of_a_default_means_the_default(name: str) -> None:
    default = getattr(Settings(), name)
    if not isinstance(default, bool):
        assert setting_value(name, setting_text(default)) == default


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", " 5,3 ,", (5, 3)),
        ("style_weights", "1, 2.5", (1, 2.5)),
        ("style_weights", "", ()),
        ("style_layers", "relu1_1=2, relu2_1", {"relu1_1": 2, "relu2_1": 1.0}),
        ("scales", "", None),
        ("scales", "3", 3),
        ("content_weight", "1e-3", 0.001),
        ("memory", "8GiB", "8GiB"),
    ],
)
def test_texts_are_read_as_people_write_them(name: str, text: str, value: Any) -> None:
    assert setting_value(name, text) == value


@pytest.mark.parametrize(("name", "text"), [("steps", "many"), ("style_layers", "relu1_1=x"), ("size", "12 px")])
def test_what_is_no_number_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} has "):
        setting_value(name, text)
