"""Every hook of stylize, on one screen. Implement them with ``stylize.hookimpl``; all are optional."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from stylize.encoders import EncoderSpec
    from stylize.engine import Step
    from stylize.jobs import Frame, Job

hookspec = pluggy.HookspecMarker("stylize")


@hookspec(firstresult=True)
def stylize_open(source: Path, target: Path | None, options: Mapping[str, Any]) -> Job | None:
    """The job for a source, or None if it is not yours; the first result that is not None wins."""
    return None


@hookspec
def stylize_encoders() -> Sequence[EncoderSpec]:
    """Encoders that ``--encoder`` can name."""
    return ()


@hookspec
def stylize_step(frame: Frame, step: Step) -> None:
    """Called after every gradient step."""
