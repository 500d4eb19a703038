"""The command that the clip plugin adds."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylize.text import counted

if TYPE_CHECKING:
    from stylize import Flow, Host
    from stylize_video.measure import Measured, Summary
    from stylize_video.probe import Clip


@click.command()
@click.argument("painted", type=Path)
@click.option(
    "--source", type=Path, metavar="CLIP", help="The clip it was painted from: gives the flow, and a value to compare."
)
@click.option("--from", "begin", metavar="TIME", help="Where in the source PAINTED begins: 00:01:20.5, or seconds.")
@click.option(
    "--flow",
    "flow_name",
    default="farneback",
    show_default=True,
    metavar="NAME",
    help="Optical flow: farneback, dis, raft, or one of a plugin.",
)
@click.option(
    "--size", type=click.IntRange(16), metavar="PX", help="Longest side to measure at; default: that of PAINTED."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the values of every frame.")
@click.pass_obj
def flicker(
    host: Host, painted: Path, source: Path | None, begin: str | None, flow_name: str, size: int | None, as_json: bool
) -> None:
    """Measure how much the clip PAINTED flickers.

    E_warp is the mean squared difference between each frame and the previous one warped by optical flow (the source's,
    where one is given), with pixels in [0, 1]. Pixels that were occluded in the previous frame do not count, nor does
    the first frame of a shot. Drift is how much brighter a frame is than the first of its shot, relative to the source.
    """
    from stylize import SettingsError, StylizeError
    from stylize_video.measure import summary
    from stylize_video.probe import probe
    from stylize_video.timing import seconds

    if source is None and begin is not None:
        raise SettingsError("--from needs --source: it says where in the source the clip begins")
    flow = host.call("stylize_flow", name=flow_name, device="cpu")
    if flow is None:
        raise SettingsError(f"unknown flow {flow_name!r}; there are farneback, dis and raft")
    clip = probe(painted)
    origin = None if source is None else probe(source)
    start = seconds(begin, "--from")
    count = _shared(clip, origin, start)
    height, width = _within(clip, size)
    measured = list(_measured(clip, origin, start, count, (height, width), flow))
    if len(measured) < 2:
        raise StylizeError(f"{painted}: only one frame can be read; flicker needs at least two")
    total, times = summary(measured), [float(clip.frame_time(each.number)) for each in measured]
    if as_json:
        about: dict[str, Any] = {"painted": str(painted), "source": None if source is None else str(source)}
        about |= {"flow": flow_name, "width": width, "height": height}
        click.echo(json.dumps(about | _as_json(total, measured, times)))
    else:
        counts = f"{counted(total.frames, 'frame')}, {counted(total.shots, 'shot')}"
        click.echo(f"{counts}, at {width}x{height} px, flow {flow_name}")
        click.echo("\n".join(_lines(total, times)))


def _shared(clip: Clip, origin: Clip | None, start: Fraction | None) -> int:
    """How many frames there are to compare; says so where one clip has more."""
    from stylize import StylizeError

    count, short = _count(clip, None), clip
    if origin is not None:
        wide, high = origin.width / clip.width, origin.height / clip.height
        if abs(wide / high - 1) > max(0.02, 3 / min(clip.width, clip.height)):  # more than rounded sides explain
            sizes = f"{clip.path} is {clip.width}x{clip.height}, {origin.path} {origin.width}x{origin.height}"
            raise StylizeError(f"{sizes}: a clip and its source must have the same proportions")
        there = _count(origin, start)
        if there != count:
            lengths = (
                f"{clip.path} has {counted(count, 'frame')}, {origin.path} {there}{' from there on' if start else ''}"
            )
            click.echo(f"stylize: {lengths}; comparing the first {min(count, there)}", err=True)
        if there < count:
            count, short = there, origin
    if count < 2:
        raise StylizeError(f"{short.path}: only one frame to measure; flicker needs at least two")
    return count


def _count(clip: Clip, start: Fraction | None) -> int:
    first, stop = clip.frame_range(start)
    assert stop is not None  # a probed clip knows its frames
    return stop - first


def _measured(
    clip: Clip, origin: Clip | None, start: Fraction | None, count: int, size: tuple[int, int], flow: Flow
) -> Iterator[Measured]:
    """What the frames measure at a size (height, width); cuts are looked for in the source, where there is one."""
    from stylize_video.decode import decode
    from stylize_video.measure import measure
    from stylize_video.shots import cuts
    from stylize_video.task import LOOK

    seen = clip if origin is None else origin
    small = decode(seen, *_within(seen, LOOK), start=start)
    _, begins = cuts(itertools.islice(small, count), seen.rate)
    frames = itertools.islice(decode(clip, *size), count)
    return measure(frames, None if origin is None else decode(origin, *size, start=start), flow, set(begins))


def _within(clip: Clip, longest: int | None) -> tuple[int, int]:
    """(height, width) of a clip whose longest side is at most ``longest`` px."""
    factor = 1.0 if longest is None else min(1.0, longest / max(clip.height, clip.width))
    return max(2, round(clip.height * factor)), max(2, round(clip.width * factor))


# --- what is said ----------------------------------------------------------------------------------------------------


def _lines(total: Summary, times: Sequence[float]) -> Iterator[str]:
    if total.warp is None or total.median is None or total.worst is None:
        yield "E_warp     unknown: no pixel could be followed from one frame to the next"
    else:
        theirs = "" if total.source_warp is None else f", the source's {total.source_warp:.6f}"
        ratio = "" if total.ratio is None else f", {total.ratio:.2f} times as much"
        yield f"E_warp     {total.warp:.6f}{theirs}{ratio}"
        worst = f"worst {total.worst.warp:.6f} at {times[total.worst.number]:.2f} s (frame {total.worst.number})"
        yield f"of frames  median {total.median:.6f}, {worst}"
    theirs = "" if total.source_luminance is None else ", the source's {:.3f} to {:.3f}".format(*total.source_luminance)
    yield f"luminance  {total.luminance[0]:.3f} to {total.luminance[1]:.3f}{theirs}, drift {total.drift:+.3f}"


def _as_json(total: Summary, measured: Sequence[Measured], times: Sequence[float]) -> dict[str, Any]:
    found = dataclasses.asdict(total)
    if total.worst is not None:
        found["worst"] = {"number": total.worst.number, "time": times[total.worst.number], "warp": total.worst.warp}
    frames = [{"time": time} | dataclasses.asdict(each) for time, each in zip(times, measured, strict=True)]
    return found | {"per_frame": frames}
