"""Repaint photos and clips in the style of any picture, by optimising the pixels against VGG features.

    import stylize

    stylize.Stylizer("starry.jpg", stylize.Settings(size=1024))("photo.jpg").save("out.png")

Importing this package does not import torch; the names below are loaded at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stylize.claims import Claims, is_alive
    from stylize.colors import ColorMode
    from stylize.contracts import Chain, Executor, Flow, Frame, Job, Painted, Request, hookimpl
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
    from stylize.executors import Run, Serial, run
    from stylize.figure import grid
    from stylize.host import Host, plugin_manager
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
    from stylize.jobs import check_distinct
    from stylize.losses import Sums, Term
    from stylize.processes import Processes
    from stylize.pyramid import Scale
    from stylize.records import Record
    from stylize.settings import PRESETS, Settings, preset
    from stylize.stylizer import Stylizer, reconstruct, texture

__version__ = "0.1.0"

_HOMES = {
    "stylize.claims": ("Claims", "is_alive"),
    "stylize.colors": ("ColorMode",),
    "stylize.contracts": ("Chain", "Executor", "Flow", "Frame", "Job", "Painted", "Request", "hookimpl"),
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
    "stylize.executors": ("Run", "Serial", "run"),
    "stylize.figure": ("grid",),
    "stylize.host": ("Host", "plugin_manager"),
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
    "stylize.jobs": ("check_distinct",),
    "stylize.losses": ("Sums", "Term"),
    "stylize.processes": ("Processes",),
    "stylize.pyramid": ("Scale",),
    "stylize.records": ("Record",),
    "stylize.settings": ("PRESETS", "Settings", "preset"),
    "stylize.stylizer": ("Stylizer", "reconstruct", "texture"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FORMATS",
    "PRESETS",
    "SPARE",
    "Chain",
    "Claims",
    "ColorMode",
    "DeviceError",
    "Encoder",
    "EncoderSpec",
    "Executor",
    "Flow",
    "Frame",
    "Host",
    "ImageError",
    "Job",
    "OptimizationError",
    "Origin",
    "Painted",
    "Picture",
    "PluginError",
    "Processes",
    "Record",
    "Request",
    "Run",
    "Scale",
    "Serial",
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
    "is_alive",
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
