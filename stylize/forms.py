"""Settings as the text of a form, and back: lists as "24, 16, 12", tables as "relu1_1=4, relu2_1=2"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylize.errors import SettingsError
from stylize.settings import setting_fields


def setting_text(value: Any) -> str:
    """The value of a setting as text; None is empty."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each:g}" for name, each in value.items())
    if isinstance(value, (tuple, list)):
        return ", ".join(f"{each:g}" if isinstance(each, (int, float)) else str(each) for each in value)
    return "" if value is None else str(value)


def setting_value(name: str, text: str) -> Any:
    """What a text means as the value of a setting. Its range is not checked.

    Raises:
        SettingsError: it is no number, or no list or table of numbers, where there must be one; names the setting.
    """
    (field,) = [each for each in setting_fields() if each.name == name]
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if field.nullable and not parts:
        return None
    if field.type == "array":
        return tuple(part if field.items == "string" else _number(name, part) for part in parts)
    if field.type == "object":
        pairs = (part.partition("=") for part in parts)
        return {layer.strip(): _number(name, weight) if equals else 1.0 for layer, equals, weight in pairs}
    if field.type in ("integer", "number"):
        return _number(name, text)
    return text


def _number(name: str, text: str) -> float | int:
    try:
        return int(text) if text.strip().lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise SettingsError(f"{name} has {text.strip()!r} in it; it must hold numbers, separated by commas") from None
