"""What is made of painted frames: the clip, a sequence of pictures, the report, or a contact sheet."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from stylize import Picture
from stylize_video import assemble, clip_report, contact_sheet, image_sequence
from stylize_video import flow as flows
from stylize_video.assemble import Along
from stylize_video.encode import Encoding
from stylize_video.task import Task, eight_bits
from stylize_video.timing import Timing
from stylize_video.work import Plan, Work


def write(
    task: Task,
    plan: Plan,
    work: Work,
    stopped: Picture | None,
    save: Callable[[Path, Picture], object],
    along: Along | None,
) -> None:
    """Write the clip and its report, as far as its frames are done.

    Args:
        task, plan, work: the clip.
        along: what comes along from the source; None: that is found out now.
        stopped: the first frame that is missing, as far as it is painted.
        save: writes such a frame.
    """
    with _gathered(plan, work, stopped, save) as frames:
        if image_sequence.is_sequence(task.target):
            image_sequence.write(task.target, frames, task.options.get("quality"))
        else:
            assemble.encode(_encoding(task, plan, frames[0].parent, len(frames), along))
        if report := task.options.get("report"):
            _report(report, task, plan, work, frames)


@contextmanager
def _gathered(
    plan: Plan, work: Work, stopped: Picture | None, save: Callable[[Path, Picture], object]
) -> Iterator[list[Path]]:
    """The frames of the clip, in a folder that holds no others; of a part those up to the first that is missing,
    and what there is of that."""
    done = work.first_missing(plan)
    if done == plan.frames:
        yield [work.file(number) for number in range(done)]
        return
    with tempfile.TemporaryDirectory(dir=work.path) as name:
        made = [Path(name, work.file(number).name) for number in range(done)]
        for number, path in enumerate(made):
            try:
                path.hardlink_to(work.file(number))
            except OSError:  # not every file system has links
                shutil.copyfile(work.file(number), path)
        if stopped is not None:
            made.append(Path(name, work.file(done).name))
            save(made[-1], stopped)
        yield made


def draw(task: Task, plan: Plan, work: Work, wanted: Sequence[int]) -> None:
    """Draw the contact sheet of the frames ``wanted``, each the first of its shot."""
    shots = {shot.start: index for index, shot in enumerate(plan.shots(), 1)}
    moments = timing(plan).moments()
    cells = []
    for number, samples in enumerate(task.read()):
        if number in wanted:
            moment = float(moments[number])
            label = f"shot {shots[number]}, {int(moment // 60)}:{moment % 60:05.2f}"
            with Image.open(work.file(number)) as painted:
                cells.append((label, Image.fromarray(eight_bits(samples[..., :3])), painted.convert("RGB")))
        if number >= wanted[-1]:
            break
    assert task.sheet is not None
    contact_sheet.draw(cells).save(task.sheet)


def settle(task: Task, plan: Plan) -> Along:
    """What comes along from the source, found out before anything is painted, with whatever else may be refused.

    Raises:
        StylizeError: the encoder or the container refuses the pictures.
    """
    return assemble.settle(_encoding(task, plan, task.target.parent, plan.frames, None), (task.width, task.height))


def _encoding(task: Task, plan: Plan, frames: Path, count: int, along: Along | None) -> Encoding:
    """The clip of the first ``count`` frames."""
    shown = timing(plan)
    end = shown.moments(count)[-1]
    cut = count < plan.frames or (task.end is not None and end < task.clip.start + (task.clip.duration or 0))
    return Encoding(
        task.clip,
        frames,
        task.target,
        rate=shown.rate,
        durations=shown.durations(count),
        begin=shown.begin,
        start=None if task.begin is None else shown.begin,
        end=end if cut else None,  # the sound is cut with the frames
        codec=task.options.get("codec"),
        crf=task.options.get("crf"),
        audio=task.options.get("audio") or "copy",
        along=along,
        hdr=task.keeps_colors,
    )


def timing(plan: Plan) -> Timing:
    """When the frames of a plan that was made by looking through the clip are shown."""
    assert plan.timing is not None
    return plan.timing


def _report(path: Path, task: Task, plan: Plan, work: Work, frames: Sequence[Path]) -> None:
    facts = [
        ("clip", str(task.clip.path)),
        ("style", task.styles),
        ("size", f"{task.width}x{task.height} px"),
        ("encoder", plan.wanted["record"]["encoder"]["name"]),
        ("content weight", f"{task.settings.content_weight:g}"),
        ("temporal weight", f"{task.temporal_weight:g}"),
    ]
    # measured by another flow than the one that the frames were warped by
    name = "dis" if task.options.get("flow") == "farneback" else "farneback"
    flow = flows.engine(name)
    assert flow is not None
    clip_report.write(
        path,
        f"{task.clip.path.name} → {task.target.name}",
        [*facts, ("E_warp by flow", name)],
        painted=frames,
        source=task.read,
        begins=plan.begins,
        moments=timing(plan).moments(len(frames)),
        notes=work.notes(),
        flow=flow,
    )
