"""Clips: frame after frame repainted, carried along by optical flow, held steady, with their sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylize import (
    SettingsError,
    StorePath,
    bits_option,
    hookimpl,
    is_file,
    is_folder,
    jobs_option,
    keep_option,
    mask_option,
    quality_option,
    region_option,
    report_option,
)
from stylize_video.codecs import AUDIO, HARDWARE, VIDEO_CODECS

if TYPE_CHECKING:
    from stylize import Check, Flow, Host, Job, Settings

_NAMES = "mp4 mov m4v mkv webm avi mpg mpeg mts m2ts ts vob wmv asf flv f4v ogv 3gp 3g2 mxf dv y4m h264 gif"
EXTENSIONS = frozenset(f".{name}" for name in _NAMES.split())  # files with others are looked into
WRITTEN = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm"))  # of these, the ones that are made
PICTURES = frozenset((".gif", ".webp", ".png", ".apng", ".jpg", ".jpeg", ".tif", ".tiff", ".avif", ".bmp"))


class _Rate(click.ParamType[Any]):
    """Frames per second, as :class:`fractions.Fraction`."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from stylize_video.pictures import rate_of

        try:
            return rate_of(str(value))
        except ValueError:
            self.fail(f"{value!r} is no number of frames per second such as 24, 23.976 or 24000/1001", param, ctx)


OPTIONS = (
    report_option(),
    jobs_option(),
    bits_option(),
    quality_option(),
    mask_option(),
    keep_option(),
    region_option(),
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
        default=12,
        show_default=True,
        metavar="N",
        help="Most gradient steps for a frame that follows another; unless given, 8 with --draft and 40 with --best.",
    ),
    click.Option(
        ["--draft"],
        is_flag=True,
        help="Paint every third frame, or more where much is new, in less than half the time; see --every.",
    ),
    click.Option(
        ["--best"], is_flag=True, help="Frames that follow another as fine as stills, in three times the time."
    ),
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
        ["--hdr"],
        type=click.Choice(("convert", "keep")),
        default="convert",
        show_default=True,
        help="HDR: tone-mapped to BT.709, or kept, with 10 bits (in h265 unless --codec says otherwise).",
    ),
    click.Option(
        ["--audio"],
        type=click.Choice(AUDIO),
        default="copy",
        show_default=True,
        help="Sound: copied where the container can hold it, encoded as AAC (Opus in .webm), or left out.",
    ),
    click.Option(
        ["--style-at"],
        nargs=2,
        multiple=True,
        metavar="TIME STYLE",
        help="From TIME (00:12, 12.5, or shot:3) on, paint in the style of STYLE, or of a blend A,B. May be given "
        "several times.",
    ),
    click.Option(
        ["--fade"],
        type=click.FloatRange(0, 3600),
        default=1.0,
        show_default=True,
        metavar="SECONDS",
        help="How long a style takes to change into that of --style-at; at a shot it changes with the cut.",
    ),
    click.Option(
        ["--every"],
        type=click.IntRange(1),
        metavar="N",
        help="Paint every Nth frame only, and the last of each shot; those between are made of the painted ones on "
        "both sides, warped by the optical flow.",
    ),
    click.Option(["--hold"], is_flag=True, help="With --every: repeat the last painted frame instead."),
    click.Option(
        ["--fps"],
        type=_Rate(),
        metavar="RATE",
        help="Frames per second of a clip made of pictures, such as 24 or 23.976; default: 25.",
    ),
    click.Option(["--preview"], is_flag=True, help="Paint only the first frame of each shot, on a contact sheet."),
    click.Option(["--partial"], is_flag=True, help="After Ctrl-C, make a clip of the frames painted so far."),
)
NAMES = frozenset(str(option.name) for option in OPTIONS)


@hookimpl
def stylize_options(command: click.Command) -> None:
    command.params.extend(OPTIONS)


def _is_clip(source: Path, target: Path | None) -> bool:
    """Whether a source is for us: a clip, or pictures that are to become one."""
    ending = source.suffix.lower()
    if stored := [path for path in (source, target) if isinstance(path, StorePath)]:
        if not {ending, "" if target is None else target.suffix.lower()} & (EXTENSIONS - PICTURES):
            return False
        raise SettingsError(f"{stored[0]} is in a store; clips are painted on disks alone: copy what they are made of")
    into_clip = target is not None and target.suffix.lower() in EXTENSIONS and not is_folder(target)
    if is_folder(source):
        return into_clip or (target is not None and "%" in target.name and not is_folder(target))
    if not is_file(source):
        from stylize_video.pictures import files, is_pattern

        return "%" in source.name and is_pattern(source) and bool(files(source))
    if ending in PICTURES:  # animated ones are stills where a picture is asked for
        return into_clip and (ending == ".gif" or _frames(source) > 1)
    return ending in EXTENSIONS or (_frames(source) == 0 and _holds_video(source))


def _is_many(style: Path) -> bool:
    """Whether a folder or a pattern of pictures stands in the place of a style."""
    return is_folder(style) or ("*" in str(style) and not is_file(style))


def _frames(source: Path) -> int:
    from stylize_video.pictures import frame_count

    return frame_count(source)


def _holds_video(source: Path) -> bool:
    """Whether ffmpeg reads more than one frame in a file whose name does not tell what it is."""
    from stylize import StylizeError
    from stylize_video.probe import probe

    try:
        return (probe(source).frames or 0) > 1
    except StylizeError:
        return False


@hookimpl
def stylize_sources() -> tuple[str, str]:
    return "a clip", "clips"


@hookimpl
def stylize_endings() -> dict[str, str]:
    return {each: each if each in WRITTEN else ".mp4" for each in EXTENSIONS - PICTURES}


@hookimpl
def stylize_commands(group: click.Group) -> None:
    from stylize_video.commands import flicker

    group.add_command(flicker)


@hookimpl
def stylize_checks() -> list[Check]:
    from stylize_video.checks import checks

    return [*checks()]


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
    several = options.get("pair") and len(styles) > 1
    if several or any(map(_is_many, styles)):  # one clip for each style, as for photos
        return None
    if not _is_clip(source, target):
        return None
    from stylize_video.job import VideoJob

    flow = host.call("stylize_flow", name=options.get("flow", "dis"), device=settings.device)
    if flow is None:
        raise SettingsError(f"unknown flow {options.get('flow')!r}; there are dis, farneback and raft")
    return VideoJob(source, styles, target, settings, options, flow)
