"""Clips: frame after frame repainted, carried along by optical flow, held steady, with their sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylize import SettingsError, hookimpl

if TYPE_CHECKING:
    from stylize import Flow, Host, Job, Settings

_NAMES = "mp4 mov m4v mkv webm avi mpg mpeg mts m2ts ts wmv flv ogv 3gp gif"
EXTENSIONS = frozenset(f".{name}" for name in _NAMES.split())
CODECS = ("h264", "h265", "av1", "vp9", "prores", "ffv1")
OPTIONS = (
    click.Option(["--from", "begin"], metavar="TIME", help="Clips: begin there, 00:01:20.5 or seconds."),
    click.Option(["--to", "end"], metavar="TIME", help="Clips: end there."),
    click.Option(
        ["--temporal-weight"],
        type=click.FloatRange(0),
        default=15.0,
        help="Clips: how firmly a frame is held to the last one. (default 15)",
    ),
    click.Option(
        ["--frame-steps"],
        type=click.IntRange(1),
        default=20,
        help="Clips: at most so many steps for a frame that follows another. (default 20)",
    ),
    click.Option(
        ["--flow"], default="dis", metavar="NAME", help="Clips: optical flow: dis, farneback, raft, or a plugin's."
    ),
    click.Option(["--codec"], type=click.Choice(CODECS), help="Clips: default h264, vp9 for .webm."),
    click.Option(
        ["--crf"], type=click.IntRange(0, 63), help="Clips: quality of h264, h265, av1 and vp9; less is better."
    ),
    click.Option(
        ["--every"],
        type=click.IntRange(1),
        metavar="N",
        help="Clips: paint every Nth frame, for a draft; those between are the last one carried along.",
    ),
    click.Option(["--hold"], is_flag=True, help="Clips, with --every: those between are the last one as it is."),
    click.Option(["--preview"], is_flag=True, help="Clips: only the first frame of each shot, on a contact sheet."),
    click.Option(["--partial"], is_flag=True, help="Clips: after Ctrl-C, make a clip of what is there."),
)
NAMES = frozenset(str(option.name) for option in OPTIONS)


@hookimpl
def stylize_options(command: click.Command) -> None:
    command.params.extend(OPTIONS)


@hookimpl
def stylize_commands(group: click.Group) -> None:
    from stylize_video.commands import flicker

    group.add_command(flicker)


@hookimpl(trylast=True)
def stylize_flow(name: str, device: str) -> Flow | None:
    from stylize_video.flow import engine

    return engine(name, device)


@hookimpl
def stylize_open(
    source: Path,
    styles: Sequence[Path],
    target: Path | None,
    settings: Settings,
    options: Mapping[str, Any],
    host: Host,
) -> Job | None:
    ours = source.suffix.lower() in EXTENSIONS and source.is_file()
    if source.suffix.lower() == ".gif":  # a still of it where a picture is asked for
        ours = ours and target is not None and target.suffix.lower() in EXTENSIONS
    if not ours:
        return None
    from stylize_video.job import VideoJob

    flow = host.call("stylize_flow", name=options.get("flow", "dis"), device=settings.device)
    if flow is None:
        raise SettingsError(f"unknown flow {options.get('flow')!r}; there are dis, farneback and raft")
    return VideoJob(source, styles, target, settings, options, flow)
