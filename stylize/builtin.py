"""What comes with stylize, entering by the door that third-party plugins use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylize import encoders
from stylize.host import hookimpl
from stylize.jobs import ImageJob, Job


@hookimpl
def stylize_encoders() -> Sequence[encoders.EncoderSpec]:
    return encoders.builtin()


@hookimpl(trylast=True)
def stylize_open(source: Path, target: Path | None, options: Mapping[str, Any]) -> Job | None:
    is_folder = os.path.isdir(source)  # noqa: PTH112, Path's raises OSError
    return None if is_folder else ImageJob(source, target, **options)
