"""The plan of a clip: what is wanted of it, what a look through it finds, and what that will take."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stylize import Flow, Origin, Stylizer
from stylize.text import counted, duration, rounded
from stylize_video.colors import described, is_hdr
from stylize_video.estimate import Samples, disk_space, seconds_per_step, size, steps_of_a_still
from stylize_video.exposure import ExposureMeter
from stylize_video.pace import Pace
from stylize_video.pictures import digest_of
from stylize_video.probe import HIDING
from stylize_video.shots import cuts
from stylize_video.task import Task, as_picture, eight_bits
from stylize_video.work import Plan, Work

log = logging.getLogger("stylize.video")


def wanted_of(task: Task, given: Mapping[str, Any], stylizer: Stylizer) -> dict[str, Any]:
    """What tells a clip from another; on which device it is painted does not. ``given`` are options of the command."""
    areas = task.areas
    origin = Origin(task.clip.path, digest_of(task.clip))
    record = stylizer.record(origin, mask=areas.mask, regions=areas.regions)
    settings = {key: value for key, value in record.settings.items() if key not in ("device", "memory")}
    if record.init is not None:
        settings.pop("init")  # its path
    made = _without_paths(replace(record, settings=settings).to_dict())
    between = {"between": "both sides" + ", paced" * task.paced}
    wanted = {
        "record": {key: value for key, value in made.items() if key not in ("stylize", "torch", "machine")},
        "options": given,
        "size": [task.height, task.width],
        "stretch": [str(task.begin), str(task.end)],
        "steady": [task.temporal_weight, *task.steps, task.options.get("flow"), task.options.get("hold")],
        "every": task.every,
    }
    wanted |= between if task.every > 1 and not task.options.get("hold") else {}
    wanted |= {"hdr": "keep"} if task.keeps_colors else {}
    wanted |= {"bits": 16} if task.more_bits else {}
    wanted |= task.styling.recorded()
    return dict(json.loads(json.dumps(wanted)))


def look(task: Task, flow: Flow, wanted: Mapping[str, Any]) -> Plan:
    """The clip is looked through once: how many frames, where it is cut, how much is new in them."""
    first, stop = task.clip.frame_range(task.begin, task.end)
    samples, reading = Samples(None if stop is None else stop - first, task.every), task.look()
    meter, pace = ExposureMeter(flow), Pace(flow)
    frames = (eight_bits(frame[..., :3]) for frame in reading)
    watched = meter.watch(pace.watch(frames) if task.paced else frames)
    count, begins = cuts(samples.watch(watched), task.clip.rate)
    timing = reading.timing()
    short = stop is not None and count < stop - first and task.clip.codec not in HIDING
    if short or (reading.errors and not timing.steady):
        log.warning(
            "%s is damaged: %s can be decoded; where some are missing, those before them are shown for longer",
            *(task.clip.path, counted(count, "frame") if stop is None else f"{count} of {stop - first} frames"),
        )
    if len(reading.sizes) > 1:
        sizes = ", ".join(f"{width}x{height}" for width, height in sorted(reading.sizes, reverse=True))
        log.warning("%s changes its size (%s); all its frames are scaled to the first", task.clip.path, sizes)
    steps = samples.expected_steps(begins, flow, *task.steps)
    made = Plan(wanted, count, tuple(begins), steps, timing)
    painted = pace.painted(made.shots(), task.every) if task.paced else ()
    return replace(made, exposures=meter.exposures(made.shots()), painted=painted)


def changed(task: Task, flow: Flow, plan: Plan, wanted: Mapping[str, Any]) -> Plan:
    """A plan whose stills are what is wanted, but not the frames that follow them."""
    if task.paced and not plan.painted:
        return look(task, flow, wanted)
    return replace(plan, wanted=wanted, painted=plan.painted if task.paced else ())


def tell(task: Task, plan: Plan, work: Work, stylizer: Stylizer, stills: int) -> None:
    """Log what is to come: frames, shots, time and room. A sheet has so many ``stills``."""
    count, shots = plan.frames, len(plan.begins)
    if (colors := described(task.clip)) and not task.keeps_colors:
        more = "; --hdr keep keeps it" if is_hdr(task.clip) else ""
        log.info("%s has %s, which is converted to BT.709%s", task.clip.path, colors, more)
    done = work.done(range(count))
    log.info(
        "%s of %dx%d in %s%s",
        *(counted(count, "frame"), task.width, task.height, counted(shots, "shot")),
        f", {done} done before" if done else "",
    )
    if done == count:
        return
    step = seconds_per_step(stylizer, as_picture(next(task.read()), "the first frame"))
    still = steps_of_a_still(stylizer, task.height, task.width)
    if task.sheet:
        steps = still * stills
    else:
        following = len(plan.painted) - shots
        if not plan.painted:
            following = sum(math.ceil((len(shot) - 1) / task.every) for shot in plan.shots())
        steps = (still * shots + plan.expected_steps * following) * (1 - done / count)
    needed, free = disk_space(work.path, task.height, task.width, count - done, task.bits)
    log.info(
        "about %s, at %s s per step; up to %s in %s",
        *(duration(step * steps, rough=True), rounded(step, 2), size(needed), work.path),
    )
    if free < needed:
        log.warning("only %s are free there; should they not suffice, free some space and start again", size(free))


def _without_paths(record: Any) -> Any:
    """A record without the paths of files, which their hashes are enough for: on another machine they may be others."""
    if isinstance(record, Mapping):
        return {key: _without_paths(value) for key, value in record.items() if key != "path"}
    return [_without_paths(each) for each in record] if isinstance(record, (list, tuple)) else record
