"""The video job: shot by shot, frame after frame, each kept as it is done, and assembled at the end."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

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
    atomic_write,
    check_distinct,
    digest,
    load,
)
from stylize_video import NAMES, media
from stylize_video.shots import cuts
from stylize_video.steady import DISTANCES, Past, as_tensor, carry, steps_for, still, temporal

Array = NDArray[Any]
LOOK = 160  # px, longest side of the frames in which cuts are looked for

log = logging.getLogger("stylize.video")


class VideoJob(Job):
    """A clip into another.

    The first frame of a shot is painted as a still. Each that follows begins with the last result carried along by
    the optical flow of the contents, is held to it where the scene is the same, and gets as many steps as it has news;
    one in which nothing has changed is the last one again.

    Finished frames lie in a folder beside the target until the clip is done: started again after whatever ended it,
    the job goes on after the last of them, and what comes out is the same.

    Raises:
        SettingsError: options that do not fit.
        StylizeError: no clip, a target that cannot be written, or another run at work on it.
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
        self._settings, self._options, self._flow = settings, options, flow
        self._clip = media.probe(source)
        self._target = target if target is not None else Path(f"{source.stem}-stylized.mp4")
        self._begin, self._end = seconds(options.get("begin"), "--from"), seconds(options.get("end"), "--to")
        if self._begin is not None and self._end is not None and self._end <= self._begin:
            raise SettingsError("--to is not after --from")
        media.span(self._clip, self._begin, self._end)
        self._height, self._width = _even(self._clip, settings)
        media.checked(options.get("codec") or media.fitting(self._target), self._target)
        check_distinct(self._target, source, *styles)
        if self._target.is_dir() or not self._target.parent.is_dir():
            raise ImageError(f"cannot write {self._target}: give the path of a file in a folder that is there")
        self._work = self._target.with_name(f".{self._target.name}.work")
        self._given = {key: value for key, value in options.get("given", {}).items() if key not in NAMES}
        self._plan: dict[str, Any] = {}
        self._pasts: deque[Past] = deque(maxlen=max(DISTANCES))
        self._painted = self._copied = self._steps = 0
        self._lock = FileLock(f"{self._work}.lock")

    # --- the job, as the core sees it

    def begin(self, stylizer: Stylizer) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StylizeError(f"another run is painting {self._target}") from None
        made = stylizer.record(Origin(self._clip.path, digest(self._clip.path)))
        wanted = {
            "record": {key: value for key, value in made.items() if key not in ("stylize", "torch")},
            "options": self._given,
            "size": [self._height, self._width],
            "stretch": [str(self._begin), str(self._end)],
            "steady": [self._options.get(name) for name in ("temporal_weight", "frame_steps", "flow")],
        }
        wanted = json.loads(json.dumps(wanted))
        found = self._found_plan()
        if found.get("wanted") == wanted:
            self._plan = found
        else:
            shutil.rmtree(self._work, ignore_errors=True)
            self._make_work()
            height, width = _small(self._height, self._width)
            count, begins = cuts(self._read(height, width), self._clip.rate)
            if not count:
                raise StylizeError(f"{self._clip.path} has no frames there")
            self._plan = {"wanted": wanted, "frames": count, "cuts": begins}
            with atomic_write(self._work / "plan.json") as file:
                file.write_text(json.dumps(self._plan), encoding="utf-8")
        count, shots = self._plan["frames"], len(self._plan["cuts"]) + 1
        there = sum(1 for number in range(count) if self._file(number).exists())
        log.info(
            "%d frames of %dx%d in %d %s%s",
            *(count, self._width, self._height, shots, "shots" if shots > 1 else "shot"),
            f", {there} done before" if there else "",
        )

    def frames(self) -> Iterator[Frame | None]:
        count, begins = self._plan["frames"], {0, *self._plan["cuts"]}
        for number, samples in enumerate(self._read(self._height, self._width)):
            if number >= count:
                break
            content = _eight(samples[..., :3])
            if number in begins:
                self._pasts.clear()
            same = bool(self._pasts) and still(content, self._pasts[0].content)
            if same:  # compared with the last painted one: slow changes add up until they are painted
                content = self._pasts[0].content
            if self._file(number).exists():
                self._remember(content, load(self._file(number)))
                continue
            picture = _picture(samples, f"frame {number}")
            if same:
                self._copied += 1
                self._keep(number, content, Picture(as_tensor(self._pasts[0].result), picture.alpha))
                continue
            place = {"number": number + 1, "total": count, "data": {"number": number, "content": content}}
            if not self._pasts:
                yield Frame(f"frame {number}", picture, **place)
                continue
            carried = carry(content, list(self._pasts), self._flow)
            steps = steps_for(carried, self._options.get("frame_steps", 24))
            self._steps += steps
            weight = self._options.get("temporal_weight", 5.0)
            terms: list[Term] = []
            if weight:
                terms.append(temporal(carried, weight, grey=self._settings.preserve_color == "luminance"))
            yield Frame(f"frame {number}", picture, init=as_tensor(carried.start), steps=steps, terms=terms, **place)

    def write(self, frame: Frame, result: Picture) -> None:
        self._painted += 1
        self._keep(frame.data["number"], frame.data["content"], result)

    def finish(self) -> Path | None:
        count = self._plan["frames"]
        done = next((number for number in range(count) if not self._file(number).exists()), count)
        if done < count and not (self._options.get("partial") and done):
            log.info("%d of %d frames are done; the same command goes on with the rest", done, count)
            self._lock.release()
            return None
        said = f"{self._painted} frames painted, {self._copied} as the one before"
        log.info("%s, %.1f steps a following frame", said, self._steps / max(1, self._painted - 1))
        first, _ = media.span(self._clip, self._begin, self._end)
        moments = [media.moment(self._clip, first + number) for number in range(done + 1)]
        durations = [end - begin for begin, end in itertools.pairwise(moments)] if self._clip.times else None
        # of the clip as far as it is done; the sound is cut at the same moment
        end = self._end if done == count else moments[-1]
        media.assemble(
            self._clip,
            self._work,
            self._target,
            rate=self._clip.rate,
            durations=durations,
            start=self._begin,
            end=end,
            codec=self._options.get("codec"),
            crf=self._options.get("crf"),
        )
        if done == count:
            shutil.rmtree(self._work, ignore_errors=True)
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)
        return self._target

    # --- frames

    def _read(self, height: int, width: int) -> Iterator[Array]:
        return media.read(self._clip, height, width, start=self._begin, end=self._end)

    def _file(self, number: int) -> Path:
        return self._work / f"{number:08}.png"

    def _keep(self, number: int, content: Array, result: Picture) -> None:
        deep = self._clip.bits > 8
        levels = 65535 if deep else 255
        kept = replace(result, rgb=(result.rgb.clamp(0, 1) * levels).round() / levels, exif=None, record=None)
        kept.save(self._file(number), bits=16 if deep else 8)
        self._remember(content, kept)

    def _remember(self, content: Array, result: Picture) -> None:
        rgb = np.ascontiguousarray(result.rgb[0].permute(1, 2, 0).numpy())
        self._pasts.appendleft(Past(content, rgb))

    def _found_plan(self) -> dict[str, Any]:
        try:
            found = json.loads((self._work / "plan.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _make_work(self) -> None:
        try:
            self._work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"cannot make the folder {self._work}: {error.strerror}") from error


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


def _even(clip: media.Clip, settings: Settings) -> tuple[int, int]:
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
