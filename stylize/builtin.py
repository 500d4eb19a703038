"""What comes with stylize, entering by the door that third-party plugins use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize import colors, encoders
from stylize.contracts import Executor, Job, hookimpl
from stylize.errors import SettingsError
from stylize.jobs import ImageJob

if TYPE_CHECKING:
    from stylize.settings import Settings


@hookimpl
def stylize_encoders() -> Sequence[encoders.EncoderSpec]:
    return encoders.builtin()


@hookimpl
def stylize_color_modes() -> Sequence[colors.ColorMode]:
    return colors.builtin()


@hookimpl(trylast=True)
def stylize_executor(name: str, options: Mapping[str, Any]) -> Executor | None:
    from stylize.executors import Serial
    from stylize.processes import Processes

    if name == "processes":
        return Processes(options.get("jobs") or 2)
    return Serial() if name == "serial" else None


@hookimpl(trylast=True)
def stylize_open(
    source: Path, styles: Sequence[Path], target: Path | None, settings: Settings, options: Mapping[str, Any]
) -> Job | None:
    if os.path.isdir(source):  # noqa: PTH112, Path's raises OSError
        return None
    if options.get("report"):
        raise SettingsError(f"--report is for folders and clips, and {source} is a picture")
    init = settings.start_file
    return ImageJob(
        source,
        target,
        bits=options.get("bits", 8),
        quality=options.get("quality"),
        size=settings.size,
        keep=(*styles, *([] if init is None else [init])),
    )
