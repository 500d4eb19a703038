"""The video job: shot by shot, frame after frame, each kept as it is done, and assembled at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stylize import (
    Chain,
    Claims,
    Flow,
    Frame,
    Job,
    Painted,
    Settings,
    SettingsError,
    StylizeError,
    Stylizer,
    TargetError,
    check_distinct,
    check_folder,
    check_target,
    is_folder,
)
from stylize.text import counted
from stylize_video import NAMES, contact_sheet, finish, image_sequence, planning
from stylize_video.areas import ClipAreas
from stylize_video.assemble import Along
from stylize_video.codecs import check_codec, default_codec
from stylize_video.colors import is_hdr
from stylize_video.ffmpeg import executable
from stylize_video.pictures import RATE, frame_count, is_pattern, probe_animation, probe_files
from stylize_video.probe import Clip, probe
from stylize_video.shot import Counts, ShotPainter
from stylize_video.styling import Styling
from stylize_video.task import Task, even_size
from stylize_video.timing import seconds
from stylize_video.work import Plan, Shot, Work

FOLLOWING = ("steady", "every", "between")  # keys of a plan's wants that concern frames that follow others
LEAD = "clip"  # the claim of the run that makes the clip
POLL = 0.5  # seconds between looks at what another run, from which this one waits to hear, has done

log = logging.getLogger("stylize.video")


class VideoJob(Job):
    """A clip into another, shot by shot; a shot is a chain.

    Finished frames lie in a folder beside the target until the clip is done: started again after whatever ended it,
    the job goes on after the last of them, and what comes out is the same. Shots are independent, so that several runs
    can paint one clip: the first leads and makes the clip, others take shots that are free, and one of them takes the
    lead if the first ends before the clip is made.

    Raises:
        SettingsError: options that do not fit.
        StylizeError: no clip, a target that cannot be written, or another run at work on it for another clip.
    """

    def __init__(
        self,
        source: Path,
        styles: Sequence[Path],
        target: Path | None,
        settings: Settings,
        options: Mapping[str, Any],
        flow: Flow,
    ) -> None:
        self._task = _task(source, styles, target, settings, options)
        self._flow = flow
        self._given = {key: value for key, value in options.get("given", {}).items() if key not in NAMES}
        self._work, self._plan, self._leads = Work(self._task.target), Plan({}, 0), False
        self._painter = ShotPainter(self._task, self._work, flow)
        self._counts = Counts()
        self._along: Along | None = None
        self._clip: dict[str, Any] | None = None  # see planning.wanted_of()
        self._said: set[str] = set()
        self.claims: Claims = Claims(self._work.claims)

    # --- the job, as the core sees it

    def begin(self, stylizer: Stylizer) -> None:
        self._stylizer = stylizer
        self._painter.begin(stylizer)

    def chains(self) -> Iterator[Chain]:
        self.poll = None if self._agree() else POLL
        if self.poll is not None:
            return
        self.claims.tell(total=len(self._shots()) if self._task.sheet else self._plan.frames, noun="frame")
        self.claims.tell(done=self._work.count)
        for shot in self._shots():
            if self._work.done(shot) < len(shot):
                yield Chain(f"{shot.start:08}", Shot(shot, self._plan))
        if not self._leads:  # wait for the run that does: it makes the clip, or ends before that
            yield Chain(LEAD, Shot(range(0), self._plan))

    def frames(self, chain: Chain) -> Iterator[Frame]:
        shot: Shot = chain.data
        self.claims.look_anew(self._work.path)
        # else another run has made the clip, or painted the shot
        if self._work.read_plan() == shot.plan and self._work.done(shot.frames) < len(shot.frames):
            yield from self._painter.frames(shot)

    def write(self, frame: Frame, painted: Painted) -> None:
        self._painter.write(frame, painted)

    def outcome(self, chain: Chain) -> Counts:
        return self._painter.take_counts()

    def collect(self, chain: Chain, outcome: Counts) -> None:
        self._counts += outcome

    def finish(self) -> Path | None:
        if not self._takes_the_lead():
            log.info("%s painted; the other run makes the clip", counted(self._counts.painted, "frame"))
            return None
        self.claims.look_anew(self._work.path)
        return self._made_sheet() if self._task.sheet else self._made_clip()

    def _takes_the_lead(self) -> bool:
        if self._leads and self.claims.holds(LEAD):  # else this run has stood still, and another leads
            return True
        if self._work.read_plan() != self._plan or not self.claims.take(LEAD) or self._work.read_plan() != self._plan:
            return False
        log.info("the other run has ended: this one makes the clip")
        return True

    def _made_clip(self) -> Path | None:
        plan, counts = self._plan, self._counts
        done, unfinished = self._work.first_missing(plan), counts.unfinished()
        stopped = None if unfinished is None or unfinished[0] != done else unfinished[1]
        if done < plan.frames and not (self._task.options.get("partial") and (done or stopped)):
            count = self._work.done(range(plan.frames))  # also those after a gap
            log.info("%d of %d frames are done; the same command goes on with the rest", count, plan.frames)
            return None
        said, average = f"{counted(counts.painted, 'frame')} painted", counts.steps / max(1, counts.following)
        log.info("%s, %d unchanged; %.1f steps on average for frames that follow another", said, counts.copied, average)
        finish.write(self._task, plan, self._work, stopped, self._painter.save, self._along)
        if done == plan.frames:
            self._work.remove()
        return self._task.target

    def _made_sheet(self) -> Path | None:
        wanted = [shot.start for shot in self._shots() if self._work.done(shot)]
        if not wanted:
            return None
        finish.draw(self._task, self._plan, self._work, wanted)
        if self._task.sheet == self._task.target:  # no clip goes on from there
            self._work.remove()
        return self._task.sheet

    def _shots(self) -> list[range]:
        shots = self._plan.shots()
        return (
            [range(shot.start, shot.start + 1) for shot in contact_sheet.chosen(shots)] if self._task.sheet else shots
        )

    # --- before

    def _agree(self) -> bool:
        """Settle with other runs on a plan, and on who leads; False if that has to be tried again in a moment.

        Raises:
            StylizeError: another run is at work on the same target, but not for the same clip.
        """
        if self._clip is None:
            self._clip = planning.wanted_of(self._task, self._given, self._stylizer)
        wanted = self._clip
        self._work.make()
        self._leads = self.claims.take(LEAD)
        self.claims.look_anew(self._work.path)
        found = self._work.read_plan()
        ours = found is not None and self._fits(found, wanted)
        if not self._leads:
            same = found is not None and found.wanted == wanted
            return self._join(found if same and not self._task.sheet else None, started=found is not None)
        if found is not None and ours:
            self._plan = found
            if not self._task.sheet and found.wanted != wanted:  # only in what its stills do not depend on
                self._plan = planning.changed(self._task, self._flow, found, wanted)
                self._work.write_plan(self._plan)
        else:
            if found is not None and not self._are_free(found.shots()):
                self.claims.release(LEAD)
                self._leads = False
                return False
            self._plan = self._begun_anew(found, wanted)
        self._settle()
        planning.tell(self._task, self._plan, self._work, self._stylizer, len(self._shots()))
        return True

    def _fits(self, found: Plan, wanted: Mapping[str, Any]) -> bool:
        """Whether the frames of a plan that is there can be used: it is the same, or what is wanted of it, or done, are
        no more than the first frames of shots, which depend on nothing that concerns those that follow."""
        if found.wanted == wanted:
            return True
        kept = [{key: value for key, value in each.items() if key not in FOLLOWING} for each in (found.wanted, wanted)]
        return kept[0] == kept[1] and (self._task.sheet is not None or not self._beyond_a_preview(found))

    def _beyond_a_preview(self, plan: Plan) -> int:
        """How many frames are done that are not the first of a shot."""
        firsts = sum(self._work.done(range(shot.start, shot.start + 1)) for shot in plan.shots())
        return self._work.done(range(plan.frames)) - firsts

    def _begun_anew(self, found: Plan | None, wanted: Mapping[str, Any]) -> Plan:
        """The plan where the one that is found, if any, is another; its frames are put aside."""
        if done := self._work.count():
            aside = self._work.put_aside(found)
            log.warning(
                "%s done before with other settings are kept in %s, from where a run with those settings goes on; "
                "delete it if there will be none",
                *(counted(done, "frame"), aside),
            )
        if plan := self._work.bring_back(wanted):
            return plan
        self._work.clear()
        plan = planning.look(self._task, self._flow, wanted)
        self._work.write_plan(plan)
        return plan

    def _settle(self) -> None:
        """Find out what may be refused before anything is painted."""
        try:
            self._painter.check(self._plan)
            if not self._task.sheet and not image_sequence.is_sequence(self._task.target):
                self._along = finish.settle(self._task, self._plan)
        except StylizeError:
            if not self._work.done(range(self._plan.frames)):
                self._work.remove()
            raise

    def _join(self, plan: Plan | None, *, started: bool) -> bool:
        """Take part in what another run leads, if that paints the same clip, by its ``plan``; False if it has no plan
        yet, or if it is not known whether it lives."""
        target = self._task.target
        if plan is not None:
            self._plan = plan
            log.info("another run is painting %s: this one takes shots that are free", target)
            return True
        lives = self.claims.is_held_by_the_living(LEAD)
        if lives and (started or self._task.sheet):
            raise StylizeError(f"another run is painting {target}")
        self._wait_for("another run has just begun to paint %s: waiting for its plan" if lives else "")
        return False

    def _are_free(self, shots: Sequence[range]) -> bool:
        """Whether no run is at work on any of the shots, also none whose leading run has ended; False if that is not
        known yet.

        Raises:
            StylizeError: a run is.
        """
        keys = [f"{shot.start:08}" for shot in shots]
        held = [key for key in keys if not self.claims.take(key)]
        for key in keys:
            self.claims.release(key)
        if any(self.claims.is_held_by_the_living(key) for key in held):
            raise StylizeError(f"another run is painting {self._task.target}")
        if held:
            self._wait_for()
        return not held

    def _wait_for(self, reason: str = "") -> None:
        reason = reason or "waiting to see whether another run, which has begun to paint %s, lives"
        if reason not in self._said:
            self._said.add(reason)
            log.info(reason, self._task.target)


def _task(
    source: Path, styles: Sequence[Path], target: Path | None, settings: Settings, options: Mapping[str, Any]
) -> Task:
    """What the options ask for.

    Raises:
        SettingsError, TargetError, StylizeError: they do not fit the clip or the target.
    """
    clip = _clip(source, options)
    stem = source.parent.resolve().name if is_pattern(source) else source.stem
    target = image_sequence.named(target) if target is not None else Path(f"{stem}-stylized.mp4")
    begin, end = seconds(options.get("begin"), "--from"), seconds(options.get("end"), "--to")
    if begin is not None and end is not None and end <= begin:
        raise SettingsError("--to is not after --from")
    begin = begin or None  # from the start
    areas = ClipAreas(options, settings, clip, *clip.frame_range(begin, end))
    height, width = even_size(clip, settings)
    preview = contact_sheet.target(target) if options.get("preview") else None
    styling = Styling(options, settings, clip)
    names = ", ".join(path.name for path in styles) + styling.named
    task = Task(clip, names, target, preview, begin, end, height, width, settings, options, areas, styling)
    if options.get("draft") and options.get("best"):
        raise SettingsError("--draft and --best exclude each other; give one of them")
    if options.get("hdr") == "keep":
        task = _keeping_hdr(task)
    if options.get("hold") and (task.every == 1 or task.paced):
        raise SettingsError("--hold needs --every N, whose frames in between it is about")
    if options.get("partial") and preview:
        raise SettingsError("--partial cannot be combined with --preview, which makes no clip")
    _check_targets(task, source, *styles, *areas.files, *styling.files)
    return task


def _clip(source: Path, options: Mapping[str, Any]) -> Clip:
    """What the source holds, whichever kind of clip it is."""
    given = options.get("fps")
    if is_folder(source) or is_pattern(source):
        return probe_files(source, given or RATE)
    if given is not None:
        raise SettingsError(f"--fps is for pictures that are made a clip; {source} has its own rate")
    return probe_animation(source) if frame_count(source) > 1 and source.suffix.lower() != ".gif" else probe(source)


def _keeping_hdr(task: Task) -> Task:
    """The task with a codec that holds HDR."""
    if not is_hdr(task.clip):
        raise SettingsError(f"--hdr keep: {task.clip.path} is not HDR")
    if image_sequence.is_sequence(task.target) or task.sheet:
        return task
    codec = task.options.get("codec") or {"h264": "h265"}.get(found := default_codec(task.target), found)
    if codec in ("h264", "gif") or codec.startswith("h264_"):
        raise SettingsError(f"--hdr keep: {codec} has too few bits for HDR; use h265, av1, vp9, prores or ffv1")
    return replace(task, options={**task.options, "codec": codec})


def _check_targets(task: Task, *sources: Path) -> None:
    target, options = task.sheet or task.target, task.options
    check_distinct(target, *sources)
    if report := options.get("report"):
        check_distinct(report, target, *sources)
    if task.sheet:
        if options.get("report"):
            raise SettingsError("--report cannot be combined with --preview, which only makes a sheet")
        check_target(target)
    elif image_sequence.is_sequence(target):
        if target.suffix.lower() == image_sequence.EXR:
            executable("exr")  # raises if no ffmpeg can write it
        for name in ("codec", "crf"):
            if options.get(name) is not None:
                raise SettingsError(f"--{name} does not apply to a sequence of pictures such as {target}")
        image_sequence.check(target, task.clip.frames or 1, [*sources, *task.clip.pictures[:1]])
        lossy = target.suffix.lower() in image_sequence.LOSSY
        if options.get("quality") is not None and not lossy:
            raise SettingsError(f"--quality is of JPEG and WebP; {image_sequence.file(target, 0).name} is neither")
        if options.get("bits") == 16 and lossy:
            raise SettingsError(f"--bits 16: {target.suffix} files hold 8 bits per channel; use PNG, TIFF or EXR")
    else:
        for name, other in (("bits", "use a codec such as h265"), ("quality", "use --crf")):
            if name in options.get("given", {}) or options.get(name) not in (None, 8):
                raise SettingsError(f"--{name} is of pictures; for a clip, {other}")
        check_codec(options.get("codec") or default_codec(target), target, crf=options.get("crf"))
    if (is_folder(target) and not image_sequence.is_sequence(target)) or not is_folder(target.parent):
        raise TargetError(f"cannot write {target}: give the path of a file in a folder that is there")
    if not task.sheet:
        check_folder(target.parent)
        if image_sequence.is_sequence(target) and is_folder(target):
            check_folder(target)
