"""Repaint photos and clips in the style of any picture, by optimising the pixels against VGG features.

    import stylize

    stylize.paint("photo.jpg", "starry.jpg", size=1024).save("out.png")

Importing this package does not import torch; the names below are loaded at first use.
"""

TYPE_CHECKING = False  # typing's, which takes a while to import
if TYPE_CHECKING:
    from stylize.checks import Check, module_checks, package_check
    from stylize.claims import Claims, claims_beside, claims_inside
    from stylize.colors import ColorMode, luminance
    from stylize.contracts import Chain, Executor, Flow, Frame, Job, Painted, Request, hookimpl
    from stylize.display import Display, RunProgress
    from stylize.encoders import Build, Encoder, EncoderConfig, EncoderSpec, Progress
    from stylize.errors import (
        ClaimLostError,
        DeviceError,
        ImageError,
        OptimizationError,
        PluginError,
        SettingsError,
        StylizeError,
        TargetError,
        WeightsError,
    )
    from stylize.executors import Backlog, Run, Serial, join, run
    from stylize.forks import Forked, fork, without_interrupts
    from stylize.forms import setting_text, setting_value
    from stylize.host import Host, plugin_manager
    from stylize.images import (
        FORMATS,
        SPARE,
        Origin,
        Picture,
        Saved,
        Source,
        as_picture,
        atomic_write,
        check_folder,
        check_target,
        digest,
        fit,
        is_leftover,
        keeping_edits,
        load,
        read_record,
        resize,
        save,
        saved_state,
        thumbnail,
    )
    from stylize.iteration import Painting
    from stylize.jobs import check_distinct
    from stylize.machines import is_alive
    from stylize.masks import Mask, as_mask, mask_file, mask_of
    from stylize.objective import Sums, Term
    from stylize.observing import Step
    from stylize.optimizer import Curvature
    from stylize.options import (
        bits_option,
        jobs_option,
        keep_option,
        location_option,
        mask_option,
        profile_option,
        quality_option,
        region_option,
        report_option,
    )
    from stylize.paper import grid, reconstruct, texture
    from stylize.processes import Processes
    from stylize.pyramid import Scale, Schedule
    from stylize.records import Record, saving_of
    from stylize.regions import Areas, Region, chosen_areas
    from stylize.sequences import paint_frames
    from stylize.settings import PRESETS, TEXTURE, SettingField, Settings, preset, setting_fields
    from stylize.shortcuts import paint, paint_clip, paint_folder
    from stylize.stores import StorePath, as_path, is_file, is_folder
    from stylize.stylizer import Stylizer
    from stylize.tiles import TileWindow

__version__ = "0.1.0"

_HOMES = {
    "stylize.checks": ("Check", "module_checks", "package_check"),
    "stylize.claims": ("Claims", "claims_beside", "claims_inside"),
    "stylize.colors": ("ColorMode", "luminance"),
    "stylize.contracts": ("Chain", "Executor", "Flow", "Frame", "Job", "Painted", "Request", "hookimpl"),
    "stylize.display": ("Display", "RunProgress"),
    "stylize.encoders": ("Build", "Encoder", "EncoderConfig", "EncoderSpec", "Progress"),
    "stylize.observing": ("Step",),
    "stylize.errors": (
        "ClaimLostError",
        "DeviceError",
        "ImageError",
        "OptimizationError",
        "PluginError",
        "SettingsError",
        "StylizeError",
        "TargetError",
        "WeightsError",
    ),
    "stylize.executors": ("Backlog", "Run", "Serial", "join", "run"),
    "stylize.forks": ("Forked", "fork", "without_interrupts"),
    "stylize.forms": ("setting_text", "setting_value"),
    "stylize.host": ("Host", "plugin_manager"),
    "stylize.images": (
        "FORMATS",
        "SPARE",
        "Origin",
        "Picture",
        "Saved",
        "Source",
        "as_picture",
        "atomic_write",
        "check_folder",
        "check_target",
        "digest",
        "fit",
        "is_leftover",
        "keeping_edits",
        "load",
        "read_record",
        "resize",
        "save",
        "saved_state",
        "thumbnail",
    ),
    "stylize.iteration": ("Painting",),
    "stylize.jobs": ("check_distinct",),
    "stylize.machines": ("is_alive",),
    "stylize.masks": ("Mask", "as_mask", "mask_file", "mask_of"),
    "stylize.objective": ("Sums", "Term"),
    "stylize.optimizer": ("Curvature",),
    "stylize.options": (
        "bits_option",
        "jobs_option",
        "keep_option",
        "location_option",
        "mask_option",
        "profile_option",
        "quality_option",
        "region_option",
        "report_option",
    ),
    "stylize.paper": ("grid", "reconstruct", "texture"),
    "stylize.processes": ("Processes",),
    "stylize.pyramid": ("Scale", "Schedule"),
    "stylize.records": ("Record", "saving_of"),
    "stylize.regions": ("Areas", "Region", "chosen_areas"),
    "stylize.sequences": ("paint_frames",),
    "stylize.settings": ("PRESETS", "TEXTURE", "SettingField", "Settings", "preset", "setting_fields"),
    "stylize.shortcuts": ("paint", "paint_clip", "paint_folder"),
    "stylize.stores": ("StorePath", "as_path", "is_file", "is_folder"),
    "stylize.stylizer": ("Stylizer",),
    "stylize.tiles": ("TileWindow",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FORMATS",
    "PRESETS",
    "SPARE",
    "TEXTURE",
    "Areas",
    "Backlog",
    "Build",
    "Chain",
    "Check",
    "ClaimLostError",
    "Claims",
    "ColorMode",
    "Curvature",
    "DeviceError",
    "Display",
    "Encoder",
    "EncoderConfig",
    "EncoderSpec",
    "Executor",
    "Flow",
    "Forked",
    "Frame",
    "Host",
    "ImageError",
    "Job",
    "Mask",
    "OptimizationError",
    "Origin",
    "Painted",
    "Painting",
    "Picture",
    "PluginError",
    "Processes",
    "Progress",
    "Record",
    "Region",
    "Request",
    "Run",
    "RunProgress",
    "Saved",
    "Scale",
    "Schedule",
    "Serial",
    "SettingField",
    "Settings",
    "SettingsError",
    "Source",
    "Step",
    "StorePath",
    "StylizeError",
    "Stylizer",
    "Sums",
    "TargetError",
    "Term",
    "TileWindow",
    "WeightsError",
    "as_mask",
    "as_path",
    "as_picture",
    "atomic_write",
    "bits_option",
    "check_distinct",
    "check_folder",
    "check_target",
    "chosen_areas",
    "claims_beside",
    "claims_inside",
    "digest",
    "fit",
    "fork",
    "grid",
    "hookimpl",
    "is_alive",
    "is_file",
    "is_folder",
    "is_leftover",
    "jobs_option",
    "join",
    "keep_option",
    "keeping_edits",
    "load",
    "location_option",
    "luminance",
    "mask_file",
    "mask_of",
    "mask_option",
    "module_checks",
    "package_check",
    "paint",
    "paint_clip",
    "paint_folder",
    "paint_frames",
    "plugin_manager",
    "preset",
    "profile_option",
    "quality_option",
    "read_record",
    "reconstruct",
    "region_option",
    "report_option",
    "resize",
    "run",
    "save",
    "saved_state",
    "saving_of",
    "setting_fields",
    "setting_text",
    "setting_value",
    "texture",
    "thumbnail",
    "without_interrupts",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'stylize' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
