"""Writing a clip: what an encoder or a container refuses is found out beforehand, and what was written is checked."""

from __future__ import annotations

import logging
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from stylize import StylizeError, atomic_write
from stylize.text import counted, one_line
from stylize_video.codecs import Codec, check_codec
from stylize_video.encode import FRAME_NAME, SAME_CLOCK_AS_PICTURES, Encoding, concat_list, encode_arguments
from stylize_video.ffmpeg import ffmpeg_process, file_url, last_lines
from stylize_video.probe import Clip
from stylize_video.streams import Track, tracks

TRIAL = 2  # frames that are encoded to find out what an encoder refuses
STRETCH = Fraction(2)  # s of what comes along that are written with them
COVERS = {"mjpeg": ".jpg", "png": ".png"}
# What ffmpeg 5 and older say, and end with code 0 all the same, where the end of a file could not be written.
BROKEN = ("Error writing trailer", "Error closing file", "No space left on device", "Disk quota exceeded")

log = logging.getLogger("stylize.video")

Along = tuple[tuple[Track, str], ...]


def encode(encoding: Encoding) -> None:
    """Write the clip; the target is either complete or untouched.

    Raises:
        StylizeError: frames are missing or of a size the codec does not take, ffmpeg failed, or what it wrote is not
            what was asked for.
    """
    codec, _ = check_codec(encoding.codec_name, encoding.target, encoding.audio, encoding.crf)
    count = _check_frames(encoding.frames, encoding.durations, codec)
    if encoding.along is None:
        with Image.open(encoding.frames / (FRAME_NAME % 0)) as picture:
            encoding = replace(encoding, along=settle(encoding, picture.size))
    assert encoding.along is not None
    try:
        _write(encoding, count)
    except _RefusedError:
        if not encoding.along:
            raise
        # Something comes after the stretch that was tried: which track is it?
        along = _one_by_one(encoding, whole=True)
        if along == encoding.along:
            raise
        _write(replace(encoding, along=along), count)


def settle(encoding: Encoding, size: tuple[int, int]) -> Along:
    """What comes along from the source, and how, found out by writing two frames of ``size`` (width, height); what is
    left out is said, with the reason.

    Raises:
        StylizeError: the encoder or the container refuses the pictures.
    """
    clip = encoding.clip
    _, muxer = check_codec(encoding.codec_name, encoding.target, encoding.audio, encoding.crf)
    wanted, lost = tracks(clip, muxer, encoding.audio)
    with _trial(encoding, size) as trial:
        along = tuple((track, track.ways[0]) for track in wanted)
        try:
            _write(replace(trial, along=along), TRIAL)
        except _RefusedError:
            try:
                _write(replace(trial, along=()), TRIAL)
            except _RefusedError as error:
                name, (width, height) = encoding.codec_name, size
                raise StylizeError(f"{encoding.target}: {name} at {width}x{height} fails: {error.why}") from error
            along = _one_by_one(replace(trial, along=along))
    _say(encoding, along, wanted, lost)
    return along


def _say(encoding: Encoding, along: Along, wanted: Sequence[Track], lost: Sequence[str]) -> None:
    clip, end = encoding.clip, encoding.target.suffix
    codec, muxer = check_codec(encoding.codec_name, encoding.target)
    recoded = [f"{track.name} as {way}" for track, way in along if way != "copy" and track.kind == "a"]
    if recoded and encoding.audio == "copy":
        log.warning("%s: encoded anew, as a %s file cannot hold it otherwise: %s", clip.path, end, ", ".join(recoded))
    kept = [track for track, _ in along]
    refused = [f"{track.name}: ffmpeg cannot write it to a {end} file" for track in wanted if track not in kept]
    missing = [*lost, *refused]
    if clip.timecode and not (encoding.timecode and muxer in ("mp4", "mov", "matroska")):
        missing.append(f"timecode {clip.timecode}: the frame rate or the container does not allow it")
    if clip.alpha and muxer != "gif" and not codec.pixel_formats[2]:
        missing.append(f"transparency: {encoding.codec_name} has none, --codec vp9, prores or ffv1 have")
    if missing:
        log.warning("%s: left out in %s: %s", clip.path, encoding.target.name, "; ".join(missing))


def _one_by_one(encoding: Encoding, *, whole: bool = False) -> Along:
    """Of what comes along, that which can be written by one of its ways, tried with two of the frames."""
    found: list[tuple[Track, str]] = []
    assert encoding.along is not None
    for track, first in encoding.along:
        for way in track.ways[track.ways.index(first) :]:
            try:
                _try_track(replace(encoding, along=((track, way),)), whole=whole)
            except _RefusedError:
                continue
            found.append((track, way))
            break
    return tuple(found)


def _try_track(encoding: Encoding, *, whole: bool) -> None:
    if not whole:
        _write(encoding, TRIAL)
        return
    with Image.open(encoding.frames / (FRAME_NAME % 0)) as picture:
        size = picture.size
    with _trial(encoding, size) as trial:
        _write(replace(trial, end=encoding.end, along=encoding.along), TRIAL)


@contextmanager
def _trial(encoding: Encoding, size: tuple[int, int]) -> Iterator[Encoding]:
    """The same with two frames of noise, and the first seconds of what comes along."""
    clip, begin = encoding.clip, encoding.start or Fraction(0)
    with tempfile.TemporaryDirectory() as folder:
        shape = (size[1], size[0], 4 if clip.alpha else 3)
        for number, noise in enumerate(np.random.default_rng(0).integers(0, 256, (TRIAL, *shape), np.uint8)):
            Image.fromarray(noise).save(Path(folder, FRAME_NAME % number), compress_level=1)
        durations = None if encoding.durations is None else [Fraction(1, 10)] * TRIAL
        end = begin + STRETCH if encoding.end is None else min(begin + STRETCH, encoding.end)
        end = max(end, begin + encoding.delay + 1)  # beyond the frames
        target = Path(folder, f"trial{encoding.target.suffix}")
        yield replace(encoding, frames=Path(folder), target=target, durations=durations, end=end)


def _check_frames(folder: Path, durations: Sequence[Fraction] | None, codec: Codec) -> int:
    count = sum(1 for path in folder.glob("*.png") if path.stem.isdigit() and len(path.stem) == 8)
    if not count or not all((folder / (FRAME_NAME % index)).exists() for index in range(count)):
        raise StylizeError(f"{folder}: frames are missing; there are {count}")
    if durations is not None and len(durations) != count:
        raise StylizeError(f"{folder}: {count} frames, but {len(durations)} durations")
    with Image.open(folder / (FRAME_NAME % 0)) as picture:
        width, height = picture.size
    across, down = codec.multiples
    if width % across or height % down:
        raise StylizeError(f"{folder}: frames are {width}x{height}, but {codec.encoder} takes even sizes only")
    return count


# --- one run of ffmpeg -----------------------------------------------------------------------------------------------


class _RefusedError(StylizeError):
    """ffmpeg failed, though not for want of space."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


def _write(encoding: Encoding, count: int) -> None:
    """Write the target from ``count`` frames.

    Raises:
        _RefusedError: ffmpeg failed.
        StylizeError: the disk is full, or the result is not whole.
    """
    codec, _ = check_codec(encoding.codec_name, encoding.target)
    target = encoding.target
    with tempfile.TemporaryDirectory() as name, atomic_write(target) as temporary:
        folder, list_file = Path(name), None
        frames = _plainly_named(folder, encoding.frames)
        if encoding.durations is not None:
            list_file = folder / "frames.txt"
            list_file.write_text(concat_list(frames, encoding.durations), encoding="utf-8")
        arguments = encode_arguments(replace(encoding, frames=frames), list_file, _covers(encoding, folder))
        command = ["-y", *arguments[:-1], file_url(temporary)]
        if encoding.clip.jumps and target.suffix.lower() != ".gif":
            command += SAME_CLOCK_AS_PICTURES
        with ffmpeg_process(command, subprocess.DEVNULL, encoder=codec.encoder, tied=True) as (process, messages):
            code = process.wait()
            messages.seek(0)
            said, lines = messages.read().decode("utf-8", "replace"), last_lines(messages)
        why = lines or f"ffmpeg ended with code {code}"
        broken = next((each for each in BROKEN if each in said), "")
        if broken.startswith(("No space", "Disk quota")):
            raise StylizeError(one_line(f"cannot write {target}: {broken}; the painted frames are kept"))
        if code or broken or not temporary.stat().st_size:
            raise _RefusedError(one_line(f"cannot write {target}: ffmpeg failed ({why})"), why)
        if problem := _problem(temporary, encoding, count):
            raise _RefusedError(one_line(f"cannot write {target}: {problem} {f'({lines})' if lines else ''}"), problem)


def _plainly_named(folder: Path, frames: Path) -> Path:
    """The folder of frames by a name in which ffmpeg finds nothing special."""
    link = folder / "frames"
    try:
        link.symlink_to(frames.absolute(), target_is_directory=True)
    except OSError:  # not every file system has links
        return frames
    return link


def _covers(encoding: Encoding, folder: Path) -> Mapping[int, Path]:
    """The cover pictures that come along, as files, by their numbers."""
    wanted = [track.number for track, _ in encoding.along or () if track.kind == "v"]
    return {number: path for number in wanted if (path := _cover(encoding.clip, number, folder)) is not None}


def _cover(clip: Clip, number: int, folder: Path) -> Path | None:
    import av

    end = COVERS.get(dict(clip.covers).get(number, ""))
    if end is None:
        return None
    path = folder / f"cover{number if number != clip.covers[0][0] else ''}{end}"
    with av.open(file_url(clip.path), metadata_errors="replace") as container:
        for packet in container.demux(container.streams.video[number]):
            path.write_bytes(bytes(packet))
            return path
    return None


def _problem(path: Path, encoding: Encoding, count: int) -> str:
    """What is wrong with a file that ffmpeg has written without complaint; empty if nothing is."""
    import av

    try:
        with av.open(file_url(path), metadata_errors="replace") as container:
            video = container.streams.video[0]
            shown = [packet for packet in container.demux(video) if packet.size]
            found = len(shown)
            last = max((packet.pts or 0 for packet in shown), default=0) * Fraction(video.time_base or 1)
            sounds = len(container.streams.audio)
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        return f"the result cannot be read again ({getattr(error, 'strerror', None) or error})"
    if found != count:
        return f"the result has {found} of {counted(count, 'frame')}"
    whole = sum(encoding.durations[:-1], Fraction(0)) if encoding.durations else (count - 1) / encoding.rate
    if abs(last - whole - encoding.delay) > max(Fraction(1), whole / 50) and encoding.target.suffix.lower() != ".gif":
        return f"the last frame of the result is at {float(last):.2f} s, not {float(whole + encoding.delay):.2f}"
    wanted = sum(track.kind == "a" for track, _ in encoding.along or ())
    if sounds < wanted:
        log.warning("%s: %d of %s hold nothing there", encoding.target, wanted - sounds, counted(wanted, "sound track"))
    return ""
