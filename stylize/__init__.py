"""Repaint photos and clips in the style of any picture, by optimising the pixels against VGG features.

    import stylize

    stylize.Stylizer("starry.jpg", stylize.Settings(size=1024))("photo.jpg").save("out.png")

Importing this package does not import torch; the names below are loaded at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stylize.colors import ColorMode
    from stylize.display import Display
    from stylize.encoders import Build, Encoder, EncoderConfig, EncoderSpec, Progress
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
        luminance,
        read_record,
        resize,
        save,
    )
    from stylize.jobs import Flow, Frame, Job, check_distinct, run
    from stylize.losses import Sums, Term, TileWindow
    from stylize.options import bits_option, jobs_option, quality_option, report_option
    from stylize.pyramid import Scale
    from stylize.settings import PRESETS, Settings, preset
    from stylize.stylizer import Stylizer, reconstruct, texture

__version__ = "0.1.0"

_HOMES = {
    "stylize.colors": ("ColorMode",),
    "stylize.display": ("Display",),
    "stylize.encoders": ("Build", "Encoder", "EncoderSpec", "EncoderConfig", "Progress"),
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
        "luminance",
        "read_record",
        "resize",
        "save",
    ),
    "stylize.jobs": ("Flow", "Frame", "Job", "check_distinct", "run"),
    "stylize.losses": ("TileWindow", "Sums", "Term"),
    "stylize.options": ("bits_option", "jobs_option", "quality_option", "report_option"),
    "stylize.pyramid": ("Scale",),
    "stylize.settings": ("PRESETS", "Settings", "preset"),
    "stylize.stylizer": ("Stylizer", "reconstruct", "texture"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FORMATS",
    "PRESETS",
    "SPARE",
    "Build",
    "ColorMode",
    "DeviceError",
    "Display",
    "Encoder",
    "EncoderConfig",
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
    "Progress",
    "Scale",
    "Settings",
    "SettingsError",
    "Step",
    "StylizeError",
    "Stylizer",
    "Sums",
    "Term",
    "TileWindow",
    "WeightsError",
    "atomic_write",
    "bits_option",
    "check_distinct",
    "check_target",
    "digest",
    "fit",
    "grid",
    "hookimpl",
    "jobs_option",
    "load",
    "luminance",
    "plugin_manager",
    "preset",
    "quality_option",
    "read_record",
    "reconstruct",
    "report_option",
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
