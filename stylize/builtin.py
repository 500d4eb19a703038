"""What comes with stylize, as a plugin like any other: encoders, colour modes and the job for a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize.contracts import Executor, Job, hookimpl
from stylize.errors import SettingsError
from stylize.jobs import ImageJob
from stylize.options import (
    bits_option,
    keep_option,
    location_option,
    mask_option,
    profile_option,
    quality_option,
    region_option,
)
from stylize.stores import is_folder

if TYPE_CHECKING:
    from click import Command

    from stylize.colors import ColorMode
    from stylize.encoders import EncoderSpec
    from stylize.settings import Settings


@hookimpl
def stylize_encoders() -> Sequence[EncoderSpec]:
    from stylize import encoders  # imported when asked: with the network modules of weights, it would slow --help

    return encoders.builtin()


@hookimpl
def stylize_color_modes() -> Sequence[ColorMode]:
    from stylize import colors

    return colors.builtin()


@hookimpl(trylast=True)  # which the host takes first
def stylize_options(command: Command) -> None:
    command.params += [
        bits_option(),
        quality_option(),
        location_option(),
        profile_option(),
        mask_option(),
        keep_option(),
        region_option(),
    ]


@hookimpl
def stylize_sources() -> tuple[str, str]:
    return "a picture", "pictures"


@hookimpl(trylast=True)
def stylize_executor(name: str, options: Mapping[str, Any]) -> Executor | None:
    from stylize.executors import Serial
    from stylize.processes import Processes

    jobs = options.get("jobs")
    if name == "serial" and (jobs or 1) > 1:
        raise SettingsError(f"--executor serial paints in one process; --jobs {jobs} needs processes")
    if name == "processes":
        return Processes(jobs or 2)
    return Serial() if name == "serial" else None


@hookimpl(trylast=True)
def stylize_open(
    source: Path, styles: Sequence[Path], target: Path | None, settings: Settings, options: Mapping[str, Any]
) -> Job | None:
    if is_folder(source):
        return None
    from stylize.regions import chosen_areas

    init, areas = settings.start_file, chosen_areas(options, settings)
    job = ImageJob(
        source,
        target,
        bits=options.get("bits"),
        location=not options.get("no_location"),
        profile=options.get("profile") or "srgb",
        quality=options.get("quality"),
        size=settings.size,
        keep=(*styles, *([] if init is None else [init]), *areas.files),
        areas=areas,
    )
    height, width = job.image.size
    if max(height, width) < settings.size != type(settings)().size and not settings.upscale:
        note = f"it has {width}x{height} pixels, and so will the result; --upscale makes it {settings.size}"
        job.image = replace(job.image, notes=(*job.image.notes, note))
    return job
