"""The video job: shot by shot, frame after frame, each kept as it is done, and assembled at the end."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylize import (
    Flow,
    Frame,
    ImageError,
    Job,
    Origin,
    Picture,
    Settings,
    SettingsError,
    StylizeError,
    Stylizer,
    Term,
    check_distinct,
    check_target,
    digest,
    load,
)
from stylize.text import counted, duration
from stylize_video import NAMES, clip_report, contact_sheet, image_sequence
from stylize_video import flow as flows
from stylize_video.codecs import check_codec, default_codec
from stylize_video.decode import decode
from stylize_video.encode import Encoding, encode
from stylize_video.estimate import Samples, disk_space, seconds_per_step, size, steps_of_a_still
from stylize_video.probe import Clip, probe
from stylize_video.shots import cuts
from stylize_video.steady import DISTANCES, Past, as_tensor, carry, steps_for, still, temporal
from stylize_video.work import Plan, Work

Array = NDArray[Any]
WEIGHT, STEPS = 15.0, 20  # defaults of the temporal weight and of the most steps of a following frame
LOOK = 160  # px, longest side of the frames in which cuts are looked for

log = logging.getLogger("stylize.video")


class VideoJob(Job):
    """A clip into another.

    The first frame of a shot is painted as a still. Each that follows begins with the last result carried along by
    the optical flow of the contents, is held to it where the scene is the same, and gets as many steps as it has news;
    one in which nothing has changed is the last one again.

    Finished frames lie in a folder beside the target until the clip is done: started again after whatever ended it,
    the job goes on after the last of them, and what comes out is the same. Shots know nothing of each other, so that
    several runs can paint one clip: one that finds another at work takes shots that are free, and leaves the rest.

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
        command: Sequence[str] = (),
    ) -> None:
        self._settings, self._options, self._flow, self._command = settings, options, flow, command
        self._styles = ", ".join(path.name for path in styles)
        self._clip = probe(source)
        self._target = image_sequence.named(target) if target is not None else Path(f"{source.stem}-stylized.mp4")
        self._begin, self._end = seconds(options.get("begin"), "--from"), seconds(options.get("end"), "--to")
        if self._begin is not None and self._end is not None and self._end <= self._begin:
            raise SettingsError("--to is not after --from")
        self._clip.frame_range(self._begin, self._end)
        self._height, self._width = _even(self._clip, settings)
        self._sheet = contact_sheet.target(self._target) if options.get("preview") else None
        self._every = options.get("every") or 1
        if options.get("hold") and self._every == 1:
            raise SettingsError("--hold is of the frames that --every leaves out: give that, too")
        self._check(source, *styles)
        self._given = {key: value for key, value in options.get("given", {}).items() if key not in NAMES}
        self._work, self._plan, self._joined = Work(self._target), Plan({}, 0), False
        self._workers: list[subprocess.Popen[bytes]] = []
        self._pasts: deque[Past] = deque()
        self._stopped: tuple[int, Picture] | None = None
        self._painted = self._copied = self._following = self._steps = 0

    def _check(self, *sources: Path) -> None:
        target = self._sheet or self._target
        check_distinct(target, *sources)
        if report := self._options.get("report"):
            check_distinct(report, target, *sources)
        if self._sheet:
            if self._options.get("report"):
                raise SettingsError("--report is of what is painted, and --preview only makes a sheet")
            check_target(target)
        elif image_sequence.is_sequence(target):
            for name in ("codec", "crf"):
                if self._options.get(name) is not None:
                    raise SettingsError(f"--{name} is of clips, and {target} is a sequence of pictures")
            image_sequence.check(target, self._clip.frames or 1, sources)
        else:
            check_codec(self._options.get("codec") or default_codec(target), target, crf=self._options.get("crf"))
        if (target.is_dir() and not image_sequence.is_sequence(target)) or not target.parent.is_dir():
            raise ImageError(f"cannot write {target}: give the path of a file in a folder that is there")

    # --- the job, as the core sees it

    def begin(self, stylizer: Stylizer) -> None:
        wanted = self._wanted(stylizer)
        self._work.make()
        main, found = self._work.take(), self._work.read_plan()
        ours = found is not None and found.wanted == wanted
        if not main and (self._sheet or not ours):
            soon = "" if found else ", and has only begun: to share the work, start this one in a moment"
            raise StylizeError(f"another run is painting {self._target}{soon}")
        if found is not None and ours:
            self._plan, self._joined = found, not main
            if self._joined:
                log.info("another run is painting %s: this one takes shots that are free", self._target)
                return
        else:
            if found is not None and not all(self._free(shot) for shot in found.shots()):  # its main run has ended
                self._work.main.release()
                raise StylizeError(f"another run is painting {self._target}")
            if found is not None and (done := self._work.done(range(found.frames))):
                log.warning("%d frames done before are thrown away: they were of other settings", done)
            self._work.clear()
            self._plan = self._look(wanted)
            self._work.write_plan(self._plan)
        self._tell(stylizer)
        self._share()

    def frames(self) -> Iterator[Frame | None]:
        try:
            while self._needed() and (rest := [shot for shot in self._shots() if self._work.done(shot) < len(shot)]):
                while not any(self._free(shot) for shot in rest):
                    if self._joined:
                        return
                    yield None
                yield from self._pass()
        finally:
            for worker in self._workers:
                worker.terminate()
            for worker in self._workers:  # which might yet make a file where all is cleared away
                worker.wait()

    def _needed(self) -> bool:
        """Whether there is something left to do. A run that joined another is needed until the clip is made; where the
        other has ended before that, this one takes its place."""
        if not self._joined:
            return True
        if self._work.read_plan() != self._plan:
            return False
        if self._work.take():
            if self._work.read_plan() != self._plan:  # it was done at this very moment
                self._work.end()
                return False
            log.info("the other run has ended: this one makes the clip")
            self._joined = False
        return True

    def write(self, frame: Frame, result: Picture) -> None:
        number, told = frame.data["number"], frame.data["told"]
        if (result.record or {}).get("stopped"):  # good for a part of the clip, but none to go on from
            self._stopped = number, result
            return
        self._painted += 1
        self._remember(frame.data["content"], self._save(self._work.file(number), result))
        step = told.get("step")
        if step is not None:
            self._work.note(
                number,
                {
                    "steps": step.number,
                    "seconds": time.perf_counter() - told["begun"],
                    "style": step.terms.get("style"),
                },
            )

    def finish(self) -> Path | None:
        if self._joined:
            log.info("%d frames painted; the other run makes the clip", self._painted)
            return None
        try:
            return self._finish()
        finally:
            self._work.main.release()

    def _finish(self) -> Path | None:
        count = self._plan.frames
        if self._sheet:
            made = self._draw(self._sheet)
            if self._sheet == self._target and made:  # no clip goes on from there
                self._work.remove()
                self._work.end()
            return made
        done = next((number for number in range(count) if not self._work.file(number).exists()), count)
        some = done or (self._stopped is not None and self._stopped[0] == 0)
        if done < count and not (self._options.get("partial") and some):
            log.info("%d of %d frames are done; the same command goes on with the rest", done, count)
            return None
        said = f"{counted(self._painted, 'frame')} painted, {self._copied} unchanged"
        log.info(
            "%s; %.1f steps on average for frames that follow another", said, self._steps / max(1, self._following)
        )
        with self._gathered(done) as frames:
            if image_sequence.is_sequence(self._target):
                image_sequence.write(self._target, frames)
            else:
                self._assemble(frames)
            if self._options.get("report"):
                self._report(self._options["report"], frames)
        if done == count:
            self._work.remove()
            self._work.end()
        return self._target

    # --- before

    def _wanted(self, stylizer: Stylizer) -> dict[str, Any]:
        """What tells this clip from another; on which device it is painted does not."""
        made = stylizer.record(Origin(self._clip.path, digest(self._clip.path)))
        made["settings"] = {key: value for key, value in made["settings"].items() if key not in ("device", "memory")}
        wanted = {
            "record": {key: value for key, value in made.items() if key not in ("stylize", "torch")},
            "options": self._given,
            "size": [self._height, self._width],
            "stretch": [str(self._begin), str(self._end)],
            "steady": [self._options.get(name) for name in ("temporal_weight", "frame_steps", "flow", "hold")],
            "every": self._every,
        }
        return dict(json.loads(json.dumps(wanted)))

    def _look(self, wanted: Mapping[str, Any]) -> Plan:
        """The clip is looked through once: how many frames, where it is cut, how much is new in them."""
        first, stop = self._clip.frame_range(self._begin, self._end)
        samples = Samples(None if stop is None else stop - first)
        small = (_eight(frame[..., :3]) for frame in self._read(*_small(self._height, self._width)))
        count, begins = cuts(samples.watch(small), self._clip.rate)
        if not count:
            raise StylizeError(f"{self._clip.path} has no frames there")
        return Plan(wanted, count, tuple(begins), samples.news(begins, self._flow, self._most))

    def _tell(self, stylizer: Stylizer) -> None:
        """What is to come: frames, shots, time and room."""
        count, shots = self._plan.frames, len(self._plan.begins)
        done = self._work.done(range(count))
        log.info(
            "%s of %dx%d in %s%s",
            *(counted(count, "frame"), self._width, self._height, counted(shots, "shot")),
            f", {done} done before" if done else "",
        )
        if done == count:
            return
        first = next(self._read(self._height, self._width))
        step = seconds_per_step(stylizer, _picture(first, "the first frame"))
        still = steps_of_a_still(stylizer, self._height, self._width)
        if self._sheet:
            steps = still * len(self._shots())
        else:
            steps = (still * shots + self._plan.news * (count - shots) / self._every) * (1 - done / count)
        needed, free = disk_space(
            self._work.path, self._height, self._width, count - done, 16 if self._clip.bits > 8 else 8
        )
        log.info(
            "about %s, at %.2g s per step; up to %s in %s",
            duration(step * steps, rough=True),
            step,
            size(needed),
            self._work.path,
        )
        if free < needed:
            log.warning("only %s are free there; when they are used up, make room and start again", size(free))

    def _share(self) -> None:
        """More runs of the same command, one on each GPU, to take shots that are free."""
        wanted = min(self._options.get("jobs") or 1, len(self._plan.begins)) - 1
        if wanted < 1 or self._sheet:
            return
        if not self._command:
            raise SettingsError("--jobs works from the command line only")
        devices = gpus() if self._settings.device in ("auto", "cuda") else 0
        end = self._command.index("--") if "--" in self._command else len(self._command)
        options = [word for word in self._command[:end] if word != "--json"]  # which excludes --quiet
        for number in range(1, wanted + 1):
            device = [f"--device=cuda:{number % devices}"] if devices else []
            mine = [*options, *device, "--jobs=1", "--quiet", *self._command[end:]]
            command = [sys.executable, "-m", "stylize", *mine]
            self._workers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))  # noqa: S603

    # --- frames

    def _shots(self) -> list[range]:
        shots = self._plan.shots()
        return [range(shot.start, shot.start + 1) for shot in contact_sheet.chosen(shots)] if self._sheet else shots

    def _free(self, shot: range) -> bool:
        with self._work.shot(shot) as ours:
            return ours

    def _pass(self) -> Iterator[Frame]:
        """Once through the clip, at work on every shot that is neither done nor in other hands."""
        read, at = self._read(self._height, self._width), 0
        for shot in self._shots():
            with self._work.shot(shot) as ours:
                if ours and self._needed() and self._work.done(shot) < len(shot):
                    skipped, at = shot.start - at, shot.stop
                    yield from self._shot(shot, itertools.islice(read, skipped, skipped + len(shot)))

    def _shot(self, shot: range, frames: Iterator[Array]) -> Iterator[Frame]:
        pasts = self._pasts = deque[Past](maxlen=max(DISTANCES))
        for number in shot:
            samples = next(frames, None)
            if samples is None:
                raise StylizeError(f"{self._clip.path}: frame {number} can no longer be read")
            content = _eight(samples[..., :3])
            same = bool(pasts) and still(content, pasts[0].content)
            if same:  # compared with the last painted one: slow changes add up until they are painted
                content = pasts[0].content
            between = (number - shot.start) % self._every > 0
            if self._work.file(number).exists():
                if not between:
                    self._remember(content, load(self._work.file(number)))
                continue
            picture = _picture(samples, f"frame {number}")
            if same or (between and self._options.get("hold")):
                self._copied += 1
                self._save(self._work.file(number), Picture(as_tensor(pasts[0].result), picture.alpha))
                self._work.note(number, {"steps": 0, "seconds": 0.0})
                if not between:
                    self._remember(content, load(self._work.file(number)))
                continue
            data = {"number": number, "content": content, "told": {"begun": time.perf_counter()}}
            place: dict[str, Any] = {"number": number + 1, "total": self._plan.frames, "data": data}
            if not pasts:
                yield Frame(f"frame {number}", picture, **place)
                continue
            carried = carry(content, list(pasts), self._flow)
            if between:
                self._save(self._work.file(number), Picture(as_tensor(carried.start), picture.alpha))
                continue
            steps = steps_for(carried, self._most)
            self._following, self._steps = self._following + 1, self._steps + steps
            weight = self._options.get("temporal_weight", WEIGHT)
            terms: list[Term] = []
            if weight:
                terms.append(temporal(carried, weight, grey=self._settings.preserve_color == "luminance"))
            yield Frame(f"frame {number}", picture, init=as_tensor(carried.start), steps=steps, terms=terms, **place)

    @property
    def _most(self) -> int:
        return int(self._options.get("frame_steps", STEPS))

    def _read(self, height: int, width: int) -> Iterator[Array]:
        return decode(self._clip, height, width, start=self._begin, end=self._end)

    def _save(self, path: Path, result: Picture) -> Picture:
        deep = self._clip.bits > 8
        levels = 65535 if deep else 255
        kept = replace(result, rgb=(result.rgb.clamp(0, 1) * levels).round() / levels, exif=None, record=None)
        kept.save(path, bits=16 if deep else 8)
        return kept

    def _remember(self, content: Array, result: Picture) -> None:
        rgb = np.ascontiguousarray(result.rgb[0].permute(1, 2, 0).numpy())
        self._pasts.appendleft(Past(content, rgb))

    # --- after

    @contextmanager
    def _gathered(self, done: int) -> Iterator[list[Path]]:
        """The frames of the clip, in a folder that holds no others; of a part those up to the first that is missing,
        and what there is of that."""
        if done == self._plan.frames:
            yield [self._work.file(number) for number in range(done)]
            return
        with tempfile.TemporaryDirectory(dir=self._work.path) as name:
            made = [Path(name, self._work.file(number).name) for number in range(done)]
            for number, path in enumerate(made):
                try:
                    path.hardlink_to(self._work.file(number))
                except OSError:  # not every file system has links
                    shutil.copyfile(self._work.file(number), path)
            if self._stopped is not None and self._stopped[0] == done:
                made.append(Path(name, self._work.file(done).name))
                self._save(made[-1], self._stopped[1])
            yield made

    def _draw(self, target: Path) -> Path | None:
        """The contact sheet of what is painted."""
        shots = {shot.start: index for index, shot in enumerate(self._plan.shots(), 1)}
        wanted = [shot.start for shot in self._shots() if self._work.done(shot)]
        if not wanted:
            return None
        first, _ = self._clip.frame_range(self._begin, self._end)
        cells = []
        for number, samples in enumerate(self._read(self._height, self._width)):
            if number in wanted:
                moment = float(self._clip.frame_time(first + number))
                label = f"shot {shots[number]}, {int(moment // 60)}:{moment % 60:05.2f}"
                with Image.open(self._work.file(number)) as painted:
                    cells.append((label, Image.fromarray(_eight(samples[..., :3])), painted.convert("RGB")))
            if number >= wanted[-1]:
                break
        contact_sheet.draw(cells).save(target)
        return target

    def _moments(self, count: int) -> list[Fraction]:
        """When each frame is shown, and when the last of them ends."""
        first, _ = self._clip.frame_range(self._begin, self._end)
        return [self._clip.frame_time(first + number) for number in range(count + 1)]

    def _report(self, path: Path, frames: Sequence[Path]) -> None:
        settings = self._settings
        facts = [
            ("clip", str(self._clip.path)),
            ("style", self._styles),
            ("size", f"{self._width}x{self._height} px"),
            ("encoder", self._plan.wanted["record"]["encoder"]["name"]),
            ("content weight", f"{settings.content_weight:g}"),
            ("temporal weight", f"{self._options.get('temporal_weight', WEIGHT):g}"),
        ]
        # by another flow than the one that the frames were carried along by
        name = "dis" if self._options.get("flow") == "farneback" else "farneback"
        flow = flows.engine(name)
        assert flow is not None
        clip_report.write(
            path,
            f"{self._clip.path.name} → {self._target.name}",
            [*facts, ("E_warp by flow", name)],
            painted=frames,
            source=lambda: self._read(self._height, self._width),
            begins=self._plan.begins,
            moments=self._moments(len(frames)),
            notes=self._work.notes(),
            flow=flow,
        )

    def _assemble(self, frames: Sequence[Path]) -> None:
        moments = self._moments(len(frames))
        durations = [end - begin for begin, end in itertools.pairwise(moments)] if self._clip.times else None
        encode(
            Encoding(
                self._clip,
                frames[0].parent,
                self._target,
                rate=self._clip.rate,
                durations=durations,
                start=self._begin,
                # of the clip as far as it is done; the sound is cut at the same moment
                end=self._end if len(frames) == self._plan.frames else moments[-1],
                codec=self._options.get("codec"),
                crf=self._options.get("crf"),
            )
        )


def gpus() -> int:
    """How many there are for CUDA."""
    import torch

    return torch.cuda.device_count()


def seconds(text: str | None, option: str) -> Fraction | None:
    """00:01:20.5, 1:20 or 80.5 as seconds.

    Raises:
        SettingsError: it is none of these.
    """
    if text is None:
        return None
    try:
        parts = [Fraction(part) for part in text.split(":")]
    except (ValueError, ZeroDivisionError):
        parts = []
    if not 1 <= len(parts) <= 3 or any(part < 0 for part in parts):
        raise SettingsError(f"{option} is {text!r}; it must be a time such as 00:01:20.5 or 80.5")
    return sum((part * 60**power for power, part in enumerate(reversed(parts))), Fraction(0))


def _even(clip: Clip, settings: Settings) -> tuple[int, int]:
    """(height, width) to paint at, even, as most codecs ask for."""
    longest = max(clip.height, clip.width)
    size = settings.size if settings.upscale else min(settings.size, longest)
    height, width = (max(2, round(side * size / longest) // 2 * 2) for side in (clip.height, clip.width))
    if settings.upscale and max(height, width) != settings.size:
        raise SettingsError(f"size is {settings.size}; for clips with --upscale it must be even")
    return height, width


def _small(height: int, width: int) -> tuple[int, int]:
    factor = min(1.0, LOOK / max(height, width))
    return max(2, round(height * factor)), max(2, round(width * factor))


def _eight(samples: Array) -> Array:
    return np.ascontiguousarray(samples if samples.dtype == np.uint8 else (samples // 257).astype(np.uint8))


def _picture(samples: Array, name: str) -> Picture:
    unit = samples.astype(np.float32) / np.iinfo(samples.dtype).max
    alpha = as_tensor(unit[..., 3:]) if samples.shape[2] == 4 and bool((unit[..., 3] < 1).any()) else None
    return Picture(as_tensor(unit[..., :3]), alpha, name=name)
