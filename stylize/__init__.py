"""Repaint photos and clips in the style of any picture, by optimising the pixels against VGG features.

    import stylize

    stylize.Stylizer("starry.jpg", stylize.Settings(size=1024))("photo.jpg").save("out.png")

Importing this package does not import torch; the names below are loaded at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stylize.colors import ColorMode, luminance
    from stylize.encoders import Encoder, EncoderSpec
    from stylize.engine import Step
    from stylize.errors import (
        DeviceError,
        ImageError,
        OptimizationError,
        PluginError,
        SettingsError,
        StylizeError,
        WeightsError,
    )
    from stylize.host import Host, hookimpl, plugin_manager
    from stylize.images import (
        FORMATS,
        SPARE,
        Origin,
        Picture,
        atomic_write,
        check_target,
        digest,
        fit,
        load,
        read_record,
        resize,
        save,
    )
    from stylize.jobs import Flow, Frame, Job, check_distinct, run
    from stylize.losses import Sums, Term
    from stylize.paper import grid, reconstruct, texture
    from stylize.pyramid import Scale
    from stylize.settings import PRESETS, Settings, preset
    from stylize.stylizer import Stylizer

__version__ = "0.1.0"

_HOMES = {
    "stylize.colors": ("ColorMode", "luminance"),
    "stylize.encoders": ("Encoder", "EncoderSpec"),
    "stylize.engine": ("Step",),
    "stylize.errors": (
        "DeviceError",
        "ImageError",
        "OptimizationError",
        "PluginError",
        "SettingsError",
        "StylizeError",
        "WeightsError",
    ),
    "stylize.host": ("Host", "hookimpl", "plugin_manager"),
    "stylize.images": (
        "FORMATS",
        "SPARE",
        "Origin",
        "Picture",
        "atomic_write",
        "check_target",
        "digest",
        "fit",
        "load",
        "read_record",
        "resize",
        "save",
    ),
    "stylize.jobs": ("Flow", "Frame", "Job", "check_distinct", "run"),
    "stylize.losses": ("Sums", "Term"),
    "stylize.paper": ("grid", "reconstruct", "texture"),
    "stylize.pyramid": ("Scale",),
    "stylize.settings": ("PRESETS", "Settings", "preset"),
    "stylize.stylizer": ("Stylizer",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FORMATS",
    "PRESETS",
    "SPARE",
    "ColorMode",
    "DeviceError",
    "Encoder",
    "EncoderSpec",
    "Flow",
    "Frame",
    "Host",
    "ImageError",
    "Job",
    "OptimizationError",
    "Origin",
    "Picture",
    "PluginError",
    "Scale",
    "Settings",
    "SettingsError",
    "Step",
    "StylizeError",
    "Stylizer",
    "Sums",
    "Term",
    "WeightsError",
    "atomic_write",
    "check_distinct",
    "check_target",
    "digest",
    "fit",
    "grid",
    "hookimpl",
    "load",
    "luminance",
    "plugin_manager",
    "preset",
    "read_record",
    "reconstruct",
    "resize",
    "run",
    "save",
    "texture",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'stylize' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
