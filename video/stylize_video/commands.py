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

if TYPE_CHECKING:
    from stylize import Flow, Host
    from stylize_video.measure import Measured, Summary
    from stylize_video.media import Clip


@click.command()
@click.argument("painted", type=Path)
@click.option("--source", type=Path, metavar="CLIP", help="What it was painted from: its flow, and its own flicker.")
@click.option("--from", "begin", metavar="TIME", help="Where in the source PAINTED begins, 00:01:20.5 or seconds.")
@click.option("--flow", "flow_name", default="farneback", metavar="NAME", help="farneback, dis, raft, or a plugin's.")
@click.option("--size", type=click.IntRange(16), metavar="PX", help="Measure at this longest side; default: its own.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, with the values of every frame.")
@click.pass_obj
def flicker(
    host: Host, painted: Path, source: Path | None, begin: str | None, flow_name: str, size: int | None, as_json: bool
) -> None:
    """Measure how steady the clip PAINTED is.

    E_warp is the mean squared difference, of pixels between 0 and 1, of each frame from the one before it carried along
    by the optical flow, of the source where one is given. What could not be seen before does not count, nor does the
    first frame of a shot. Drift is by how much a frame became lighter since its shot began, beyond what the source did.
    """
    from stylize import SettingsError, StylizeError
    from stylize_video import media
    from stylize_video.measure import summary
    from stylize_video.task import seconds

    if source is None and begin is not None:
        raise SettingsError("--from says where in the source the clip begins: give --source, too")
    flow = host.call("stylize_flow", name=flow_name, device="cpu")
    if flow is None:
        raise SettingsError(f"unknown flow {flow_name!r}; there are farneback, dis and raft")
    clip = media.probe(painted)
    origin = None if source is None else media.probe(source)
    start = seconds(begin, "--from")
    count = _shared(clip, origin, start)
    height, width = _within(clip, size)
    measured = list(_measured(clip, origin, start, count, (height, width), flow))
    if len(measured) < 2:
        raise StylizeError(f"{painted}: only one frame can be read; how steady a clip is shows from two on")
    total, times = summary(measured), [float(media.moment(clip, each.number)) for each in measured]
    if as_json:
        about: dict[str, Any] = {"painted": str(painted), "source": None if source is None else str(source)}
        about |= {"flow": flow_name, "width": width, "height": height}
        click.echo(json.dumps(about | _as_json(total, measured, times)))
    else:
        shots = f"{total.shots} {'shot' if total.shots == 1 else 'shots'}"
        click.echo(f"{_frames(total.frames)}, {shots}, at {width}x{height} px, flow {flow_name}")
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
            lengths = f"{clip.path} has {_frames(count)}, {origin.path} {there}{' from there on' if start else ''}"
            click.echo(f"stylize: {lengths}: the first {min(count, there)} are compared", err=True)
        if there < count:
            count, short = there, origin
    if count < 2:
        raise StylizeError(f"{short.path}: only one frame to measure; how steady a clip is shows from two on")
    return count


def _count(clip: Clip, start: Fraction | None) -> int:
    from stylize_video import media

    first, stop = media.span(clip, start)
    assert stop is not None  # a probed clip knows its frames
    return stop - first


def _measured(
    clip: Clip, origin: Clip | None, start: Fraction | None, count: int, size: tuple[int, int], flow: Flow
) -> Iterator[Measured]:
    """What the frames measure at a size (height, width); cuts are looked for in the source, where there is one."""
    from stylize_video import media
    from stylize_video.measure import measure
    from stylize_video.shots import cuts
    from stylize_video.task import LOOK

    seen = clip if origin is None else origin
    small = media.read(seen, *_within(seen, LOOK), start=start)
    _, begins = cuts(itertools.islice(small, count), seen.rate)
    frames = itertools.islice(media.read(clip, *size), count)
    return measure(frames, None if origin is None else media.read(origin, *size, start=start), flow, set(begins))


def _within(clip: Clip, longest: int | None) -> tuple[int, int]:
    """(height, width) of a clip whose longest side is at most ``longest`` px."""
    factor = 1.0 if longest is None else min(1.0, longest / max(clip.height, clip.width))
    return max(2, round(clip.height * factor)), max(2, round(clip.width * factor))


# --- what is said ----------------------------------------------------------------------------------------------------


def _lines(total: Summary, times: Sequence[float]) -> Iterator[str]:
    if total.warp is None or total.median is None or total.worst is None:
        yield "E_warp     not known: no pixel could be followed from one frame to the next"
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


def _frames(count: int) -> str:
    return f"{count} {'frame' if count == 1 else 'frames'}"
