"""Settings as widgets of a node, and back. Does not import torch or ComfyUI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stylize import SettingField, Settings, plugin_manager, setting_fields, setting_text, setting_value

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
    "init": "Where the optimisation starts, unless a picture is connected to init.",
    "device": "Device to compute on; auto: the one that ComfyUI uses.",
}


def widgets() -> dict[str, Widget]:
    """A widget for each setting, in the form that ComfyUI asks of ``INPUT_TYPES``: lists and tables are text, and 0
    stands for None."""
    return {field.name: _widget(field) for field in setting_fields()}


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
    fields = {field.name: field for field in setting_fields()}
    return Settings(**{name: _value(fields[name], value) for name, value in values.items()})


def _widget(field: SettingField) -> Widget:
    options: dict[str, Any] = {"default": field.default, "tooltip": TIPS.get(field.name) or _tip(field)}
    choices = CHOICES[field.name]() if field.name in CHOICES else list(field.choices)
    if choices:
        return choices, options
    if field.type == "boolean":
        return "BOOLEAN", options
    if field.type == "integer":
        default, low, high = field.default or 0, field.minimum or 0, field.maximum or LARGEST
        options |= {"default": default, "min": min(int(low), default), "max": min(int(high), LARGEST)}
        if field.name == "seed":  # else the browser draws another after each run, and nothing is ever cached
            options["control_after_generate"] = False
        return "INT", options
    if field.type == "number" and not field.nullable:
        step = 0.001 if field.default < 1 else 0.01
        low = step if field.exclusive else float(field.minimum or 0)
        return "FLOAT", {**options, "min": low, "max": float(field.maximum or 1e6), "step": step, "round": False}
    return "STRING", {**options, "default": setting_text(field.default)}


def _tip(field: SettingField) -> str:
    tip = f"{field.help[0].upper()}{field.help[1:]}"
    if field.type in ("integer", "number") and field.minimum is not None and field.maximum is not None:
        tip += f" [{field.minimum:g} to {field.maximum:g}{' ' + field.unit if field.unit else ''}]"
    return tip + ("; 0: the default." if field.nullable and field.type == "integer" else ".")


def _value(field: SettingField, value: Any) -> Any:
    """What a widget holds as the value of a setting."""
    if isinstance(value, str) and field.type != "string":
        return setting_value(field.name, value)
    if field.nullable and not value:
        return None
    return value
