"""Repaint photos and clips in the style of any picture, by optimising the pixels against VGG features.

    import stylize

    stylize.Stylizer("starry.jpg", stylize.Settings(size=1024))("photo.jpg").save("out.png")

Importing this package does not import torch; the names below are loaded at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from stylize.figure import grid
    from stylize.host import hookimpl
    from stylize.images import Picture, load, save
    from stylize.jobs import Frame, Job, run
    from stylize.losses import Term
    from stylize.pyramid import Scale
    from stylize.settings import PRESETS, Settings, preset
    from stylize.stylizer import Stylizer, reconstruct, texture

__version__ = "0.1.0"

_HOMES = {
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
    "stylize.figure": ("grid",),
    "stylize.host": ("hookimpl",),
    "stylize.images": ("Picture", "load", "save"),
    "stylize.jobs": ("Frame", "Job", "run"),
    "stylize.losses": ("Term",),
    "stylize.pyramid": ("Scale",),
    "stylize.settings": ("PRESETS", "Settings", "preset"),
    "stylize.stylizer": ("Stylizer", "reconstruct", "texture"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "PRESETS",
    "DeviceError",
    "Encoder",
    "EncoderSpec",
    "Frame",
    "ImageError",
    "Job",
    "OptimizationError",
    "Picture",
    "PluginError",
    "Scale",
    "Settings",
    "SettingsError",
    "Step",
    "StylizeError",
    "Stylizer",
    "Term",
    "WeightsError",
    "grid",
    "hookimpl",
    "load",
    "preset",
    "reconstruct",
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
