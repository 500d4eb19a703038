"""Clips: frame after frame repainted, carried along by optical flow, held steady, with their sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylize import SettingsError, hookimpl, jobs_option, report_option
from stylize_video.codecs import HARDWARE, VIDEO_CODECS

if TYPE_CHECKING:
    from stylize import Flow, Host, Job, Settings

_NAMES = "mp4 mov m4v mkv webm avi mpg mpeg mts m2ts ts wmv flv ogv 3gp gif"
EXTENSIONS = frozenset(f".{name}" for name in _NAMES.split())
OPTIONS = (
    report_option(),
    jobs_option(),
    click.Option(["--from", "begin"], metavar="TIME", help="Start of the part to paint: 00:01:20.5, or seconds."),
    click.Option(["--to", "end"], metavar="TIME", help="End of the part to paint."),
    click.Option(
        ["--temporal-weight"],
        type=click.FloatRange(0),
        default=2.0,
        show_default=True,
        metavar="X",
        help="Weight of the temporal term, which holds a frame to the one before it.",
    ),
    click.Option(
        ["--frame-steps"],
        type=click.IntRange(1),
        default=25,
        show_default=True,
        metavar="N",
        help="Most gradient steps for a frame that follows another; unless given, 8 with --draft and 40 with --best.",
    ),
    click.Option(["--draft"], is_flag=True, help="Frames that follow another in a third of the time, less finely."),
    click.Option(["--best"], is_flag=True, help="Frames that follow another as fine as stills, in twice the time."),
    click.Option(
        ["--flow"],
        default="dis",
        show_default=True,
        metavar="NAME",
        help="Optical flow: dis, farneback, raft, or one of a plugin.",
    ),
    click.Option(
        ["--codec"],
        type=click.Choice((*VIDEO_CODECS, *HARDWARE)),
        metavar="NAME",
        help=f"Video codec: {', '.join(VIDEO_CODECS)}; or an encoder of a graphics card that ffmpeg has, such as "
        "h264_nvenc. Default: h264, or vp9 in .webm.",
    ),
    click.Option(
        ["--crf"],
        type=click.IntRange(0, 63),
        metavar="N",
        help="Constant rate factor of h264, h265, av1 and vp9; lower is better and larger.",
    ),
    click.Option(
        ["--every"],
        type=click.IntRange(1),
        metavar="N",
        help="Paint every Nth frame only, for a draft; the frames between are warped from the last painted one.",
    ),
    click.Option(["--hold"], is_flag=True, help="With --every: repeat the last painted frame instead of warping it."),
    click.Option(["--preview"], is_flag=True, help="Paint only the first frame of each shot, on a contact sheet."),
    click.Option(["--partial"], is_flag=True, help="After Ctrl-C, make a clip of the frames painted so far."),
)
NAMES = frozenset(str(option.name) for option in OPTIONS)


@hookimpl
def stylize_options(command: click.Command) -> None:
    command.params.extend(OPTIONS)


@hookimpl
def stylize_sources() -> tuple[str, str]:
    return "a clip", "clips"


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
