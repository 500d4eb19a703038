"""Every hook of stylize, on one screen. Implement them with ``stylize.hookimpl``; all are optional, and an
implementation names only the arguments it needs. ``options`` holds the values of all options of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from click import Command, Group

    from stylize import (
        Check,
        ColorMode,
        EncoderSpec,
        Executor,
        Flow,
        Frame,
        Host,
        Job,
        Picture,
        Region,
        Settings,
        Step,
        Term,
    )
    from stylize.display import Display

hookspec = pluggy.HookspecMarker("stylize")


@hookspec
def stylize_options(command: Command) -> None:
    """Append ``click.Option`` objects to the ``params`` of ``run``; if you open sources, they are for those alone."""


@hookspec
def stylize_sources() -> tuple[str, str]:
    """What a source that you open is called, and several: "a clip", "clips"; for messages and ``run --help``."""
    return "", ""


@hookspec
def stylize_endings() -> Mapping[str, str]:
    """Endings of files that are opened one by one where they lie in a folder, with those of their results."""
    return {}


@hookspec
def stylize_commands(group: Group) -> None:
    """Add commands beside ``run``, with ``group.add_command``."""


@hookspec
def stylize_checks() -> Sequence[Check]:
    """Lines of ``stylize doctor``: whether the packages, programs and devices that you need are there and work."""
    return ()


@hookspec
def stylize_encoders() -> Sequence[EncoderSpec]:
    """Encoders that ``--encoder`` can name; the last one of a name counts."""
    return ()


@hookspec
def stylize_color_modes() -> Sequence[ColorMode]:
    """Colour modes that ``--preserve-color`` can name; the last one of a name counts."""
    return ()


@hookspec(firstresult=True)
def stylize_display(options: Mapping[str, Any]) -> Display | None:
    """What shows the run, observing hooks included; the first result that is not None wins."""
    return None


@hookspec(firstresult=True)
def stylize_open(
    source: Path,
    styles: Sequence[Path],
    target: Path | None,
    settings: Settings,
    options: Mapping[str, Any],
    host: Host,
) -> Job | None:
    """The job for a source, or None if it is not yours; the first result that is not None wins."""
    return None


@hookspec(firstresult=True)
def stylize_executor(name: str, options: Mapping[str, Any]) -> Executor | None:
    """What paints the chains of a job, by its name; the first result that is not None wins."""
    return None


@hookspec(firstresult=True)
def stylize_flow(name: str, device: str) -> Flow | None:
    """The engine of optical flow that ``--flow`` names; the first result that is not None wins."""
    return None


@hookspec
def stylize_terms(frame: Frame, settings: Settings, options: Mapping[str, Any]) -> Sequence[Term]:
    """More terms of the loss for a frame, on any layers of the encoder."""
    return ()


@hookspec
def stylize_regions(frame: Frame, settings: Settings, options: Mapping[str, Any]) -> Sequence[Region]:
    """Parts of a frame to paint in styles of their own; they lie over those that are given."""
    return ()


@hookspec
def stylize_step(frame: Frame, step: Step) -> None:
    """Look on after every gradient step; a plugin that fails here is left out from then on."""


@hookspec
def stylize_finish(image: Picture, frame: Frame, settings: Settings, options: Mapping[str, Any]) -> Picture | None:
    """Change a stylized picture before it is written, or None to leave it; each plugin gets what the last one gave."""
    return None


@hookspec
def stylize_painted(frame: Frame, image: Picture) -> None:
    """Look on when a frame is done, before it is written; a plugin that fails here is left out from then on."""


@hookspec
def stylize_copied(frame: Frame) -> None:
    """Look on when a frame needs no painting, as its job has the result already; a plugin that fails is left out."""
