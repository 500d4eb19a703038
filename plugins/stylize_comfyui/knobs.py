"""Settings as widgets of a node, and back. Does not import torch or ComfyUI."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any

from stylize import Settings, SettingsError, plugin_manager

AUTO = "auto"
LARGEST = 2**53 - 1  # the largest whole number that the browser can hold
Widget = tuple[Any, dict[str, Any]]


def preserve_color() -> list[str]:
    """The colour modes there are."""
    return [mode.name for mode in plugin_manager().color_modes()]


def encoders() -> list[str]:
    """The encoders there are."""
    return [AUTO, *(spec.name for spec in plugin_manager().encoders())]


CHOICES: Mapping[str, Callable[[], list[str]]] = {
    "preserve_color": preserve_color,
    "encoder": encoders,
    "init": lambda: ["content", "noise", "style"],  # pictures come by the node's own input
    "device": lambda: [AUTO, "cpu", "cuda", "mps"],
}
TIPS = {
    "scales": "Number of scales, each half the size of the next; 0: as many as min_size allows.",
    "init": "Where the optimisation starts, unless a picture is connected to init.",
    "device": "Device to compute on; auto: the one that ComfyUI uses.",
}


def widgets() -> dict[str, Widget]:
    """A widget for each setting, in the form that ComfyUI asks of ``INPUT_TYPES``."""
    return {field.name: _widget(field) for field in dataclasses.fields(Settings) if _kind(field.name)}


def clip_widgets() -> dict[str, Widget]:
    """Widgets for the options of clips, where a plugin for clips is at work."""
    defaults = plugin_manager().default_options()
    weight = "Holds a frame to the one before it: more is steadier."
    steps = "Most gradient steps for a frame that follows another."
    found: dict[str, Widget] = {
        "temporal_weight": ("FLOAT", {"min": 0.0, "max": 1e6, "step": 0.1, "round": False, "tooltip": weight}),
        "frame_steps": ("INT", {"min": 1, "max": 10000, "tooltip": steps}),
        "flow": ("STRING", {"tooltip": "Optical flow: dis, farneback, raft, or one of a plugin."}),
    }
    for name, (_, options) in found.items():
        options["default"] = defaults.get(name)
    return {name: widget for name, widget in found.items() if name in defaults}


def settings(values: Mapping[str, Any]) -> Settings:
    """Settings from what the widgets hold.

    Raises:
        SettingsError: names the setting that is wrong.
    """
    return Settings(**{name: _value(name, value) for name, value in values.items()})


def _widget(field: dataclasses.Field[Any]) -> Widget:
    knob, kind, default = field.metadata["knob"], _kind(field.name), _default(field)
    details = f" [{knob.range}{' ' + knob.unit if knob.unit else ''}]" if knob.range and not knob.choices else ""
    tip = TIPS.get(field.name) or f"{knob.help[0].upper()}{knob.help[1:]}.{details}"
    options: dict[str, Any] = {"default": default, "tooltip": tip}
    choices = CHOICES[field.name]() if field.name in CHOICES else list(knob.choices)
    if choices:
        return choices, options
    if kind is bool:
        return "BOOLEAN", options
    if kind is int:
        low, high = knob.low or 0, LARGEST if knob.high is None else knob.high
        options |= {"min": min(int(low), default), "max": min(int(high), LARGEST)}
        if field.name == "seed":  # else the browser draws another after each run, and nothing is ever cached
            options["control_after_generate"] = False
        return "INT", options
    if kind is float:
        step = 0.001 if default < 1 else 0.01
        low, high = knob.low or 0.0, 1e6 if knob.high is None else knob.high
        low = step if knob.above else low
        return "FLOAT", {**options, "min": float(low), "max": float(high), "step": step, "round": False}
    return "STRING", options


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default of a setting as its widget holds it: lists as text, separated by commas, and None as 0."""
    value = getattr(Settings(), field.name)
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" for each in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each:g}" for name, each in value.items())
    return 0 if value is None else value


def _value(name: str, value: Any) -> Any:
    """What a widget holds as the value of a setting."""
    kind = _kind(name)
    if isinstance(value, str) and kind is tuple:
        return tuple(_number(name, part) for part in _parts(value))
    if isinstance(value, str) and kind is dict:
        pairs = (part.partition("=") for part in _parts(value))
        return {layer.strip(): _number(name, weight) if equals else 1.0 for layer, equals, weight in pairs}
    return None if value == 0 and getattr(Settings(), name) is None else value


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(name: str, text: str) -> float | int:
    try:
        return int(text) if text.strip().lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise SettingsError(f"{name} has {text!r} in it; it must hold numbers, separated by commas") from None


def _kind(name: str) -> type | None:
    """The type of a setting, bool, int, float, str, tuple or dict; None if no widget can hold it."""
    hint = typing.get_type_hints(Settings)[name]
    origin, parts = typing.get_origin(hint), set(typing.get_args(hint)) - {type(None), Ellipsis}
    if origin is tuple:
        return tuple if parts <= {int, float} else None
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict if parts == {str, float} else None
    kinds = parts or {hint}
    return next(iter(kinds)) if len(kinds) == 1 and kinds <= {bool, int, float, str} else None
