"""A frame's time comes with the frame: whatever is lost on the way, picture and sound stay in step."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stylize import StylizeError
from stylize_video.decode import Reading
from stylize_video.ffmpeg import executable
from stylize_video.probe import probe
from stylize_video.timing import SHORTEST, Timing, timing, told
from tests.test_video import Paint, paint, style

__all__ = ["paint", "style"]  # fixtures

TICK, RATE = Fraction(1, 90_000), Fraction(25)
SMALL = ("--size", "48", "--steps", "1", "--frame-steps", "1")


def run(*arguments: object) -> None:
    subprocess.run([executable(), "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True)


def flash_and_beep(path: Path, *options: object, at: float = 1, length: float = 1.6) -> Path:
    """A clip of 48x32 at 25 a second, dark but for a white flash and a beep, both ``at`` seconds."""
    flash = f"drawbox=t=fill:color=white:w=48:h=32:enable='between(t,{at - 0.001},{at + 0.11})'"
    picture = f"testsrc2=s=48x32:r=25:d={length},lutyuv=y=val/4,{flash}"
    sound = f"aevalsrc='0.8*sin(2*PI*1000*t)*between(t,{at},{at + 0.1})':s=48000:d={length}"
    run("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, *options, path)
    return path


def apart(path: Path) -> float:
    """How many seconds the flash comes after the beep."""
    with av.open(str(path)) as container:
        shown = [(frame.time or 0.0, frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]
    levels = np.array([level for _, level in shown])
    flash = shown[int(np.argmax(levels > (levels.min() + levels.max()) / 2))][0]
    with av.open(str(path)) as container:
        for sound in container.decode(audio=0):
            wave: Any = sound.to_ndarray()
            loud = np.abs(wave / np.iinfo(wave.dtype).max if wave.dtype.kind == "i" else wave)[0] > 0.2
            if loud.any():
                return flash - (sound.time or 0.0) - int(np.argmax(loud)) / sound.sample_rate
    raise AssertionError("no beep")


def cut_amid_a_group(folder: Path, codec: str) -> Path:
    """A recording whose first second lacks its key frame."""
    options = ["-c:v", codec, "-g", "30", *(["-bf", "2"] if codec == "libx264" else []), "-c:a", "mp2"]
    data = flash_and_beep(folder / "whole.ts", *options, at=1.5, length=2).read_bytes()
    packets = [data[place : place + 188] for place in range(0, len(data), 188)]
    tables = [packet for packet in packets if (packet[1] & 0x1F) << 8 | packet[2] in (0, 17, 0x1000)][:3]
    (folder / "in.ts").write_bytes(b"".join(tables + packets[len(packets) // 6 :]))
    return folder / "in.ts"


def damaged(folder: Path) -> Path:
    """A recording with packets of the picture lost in the middle."""
    data = bytearray(flash_and_beep(folder / "whole.ts", "-c:v", "libx264", "-g", "10", "-c:a", "mp2").read_bytes())
    places = [place for place in range(0, len(data), 188) if (data[place + 1] & 0x1F) << 8 | data[place + 2] == 0x100]
    for place in places[len(places) // 3 : len(places) // 3 + 12]:  # of the picture
        data[place : place + 188] = b"G\x1f\xff\x10" + b"\xff" * 184  # stuffing
    (folder / "in.ts").write_bytes(data)
    return folder / "in.ts"


def hidden_frames(folder: Path) -> Path:
    options = ["-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-b:v", "300k", "-an"]
    for number in ("1", "2"):
        log = ["-pass", number, "-passlogfile", folder / "log"]
        flash_and_beep(folder / "mute.webm", *options, *log, at=2.5, length=3)
    flash_and_beep(folder / "sound.mkv", "-c:v", "ffv1", "-c:a", "libvorbis", at=2.5, length=3)
    sound = ["-i", folder / "sound.mkv", "-map", "0:v", "-map", "1:a"]
    run("-i", folder / "mute.webm", *sound, "-c", "copy", folder / "in.webm")
    return folder / "in.webm"


def late_sound(folder: Path) -> Path:
    """A stream in which the picture begins half a second before the sound."""
    flash_and_beep(folder / "whole.mkv", "-c:v", "ffv1", "-c:a", "pcm_s16le")
    late = ["-i", folder / "whole.mkv", "-ss", "0.5", "-i", folder / "whole.mkv", "-map", "0:v", "-map", "1:a"]
    run(*late, "-af", "asetpts=PTS+0.5/TB", "-c:v", "mpeg2video", "-c:a", "mp2", folder / "in.ts")
    return folder / "in.ts"


KINDS: dict[str, Callable[[Path], Path]] = {
    "cut h264": lambda folder: cut_amid_a_group(folder, "libx264"),
    "cut mpeg2": lambda folder: cut_amid_a_group(folder, "mpeg2video"),
    "damaged": damaged,
    "hidden": hidden_frames,
    "late sound": late_sound,
}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "target"), [*((kind, "out.mp4") for kind in KINDS), ("cut h264", "out.mkv")])
def test_picture_and_sound_stay_in_step(paint: Paint, folder: Path, kind: str, target: str) -> None:
    source = KINDS[kind](folder)
    assert abs(apart(source)) <= 0.041, "the clip that the test makes"
    paint(source.name, *SMALL, "--style-weight", "0", "--temporal-weight", "0", target=target, codec=False)
    assert abs(apart(folder / target)) <= 0.041


@pytest.mark.slow
def test_a_stretch_stays_in_step(paint: Paint, folder: Path) -> None:
    source = hidden_frames(folder)
    weights = ("--style-weight", "0", "--temporal-weight", "0")
    paint(source.name, *SMALL, *weights, "--from", "2", "--to", "2.9", target="out.mp4", codec=False)
    assert abs(apart(folder / "out.mp4")) <= 0.041
    assert probe(folder / "out.mp4").frames in (22, 23)


@pytest.mark.slow
def test_what_hides_behind_packets_is_neither_counted_nor_reported(paint: Paint, folder: Path) -> None:
    said = paint(hidden_frames(folder).name, *SMALL, target="out.mp4", codec=False).err
    assert "75 frames of" in said
    assert "decoded" not in said
    made = probe(folder / "out.mp4")
    assert (made.frames, made.rate, made.times) == (75, RATE, None)


@pytest.mark.slow
def test_frames_that_are_lost_are_named_and_the_others_keep_their_times(paint: Paint, folder: Path) -> None:
    source = damaged(folder)
    reading = Reading(probe(source), 32, 48, timed=True)
    count, shown = len(list(reading)), reading.timing()
    assert count < 40
    assert not shown.steady
    places = [(time - shown.begin) * RATE for time in shown.times]
    assert all(abs(place - round(place)) < Fraction(1, 100) for place in places)
    assert (
        f"in.ts is damaged: {count} of {probe(source).frames} frames can be decoded"
        in paint(source.name, *SMALL, target="out.mkv").err
    )


def test_a_rate_that_varies_is_no_damage(folder: Path) -> None:
    """Of frames that follow each other faster than the rate of the clip, ffmpeg complains as it writes them."""
    with av.open("in.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate((0, 100, 200, 300, 310, 320, 330, 430)):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 30 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    reading = Reading(probe(folder / "in.mkv"), 24, 32, timed=True)
    assert sum(1 for _ in reading) == 8
    assert not reading.timing().steady
    assert reading.errors == 0


@pytest.mark.slow
def test_a_change_of_size_is_named(paint: Paint, folder: Path) -> None:
    for number, size in enumerate(("48x32", "32x48")):
        run("-f", "lavfi", "-i", f"testsrc2=s={size}:d=0.4", "-c:v", "mpeg2video", f"{number}.ts")
    (folder / "in.ts").write_bytes(b"".join((folder / f"{number}.ts").read_bytes() for number in range(2)))
    said = paint("in.ts", *SMALL).err
    assert "in.ts changes its size (48x32, 32x48); all its frames are scaled to the first" in said


def test_an_end_before_the_end_of_the_clip_ends_the_last_frame() -> None:
    shown = timing([Fraction(0), Fraction(1), Fraction(3)], TICK, [], [Fraction(2), Fraction(7, 2), Fraction(9)])
    assert (shown.end, shown.steady) == (Fraction(7, 2), False)
    assert shown.moments(2) == [0, 1, 3]
    assert shown.durations() == [1, 2, Fraction(1, 2)]


def test_a_steady_rate_is_told_from_a_coarse_clock() -> None:
    times = [Fraction(round(number / RATE * 1000) + 7, 1000) for number in range(100)]
    shown = timing(times, Fraction(1, 1000), [RATE])
    assert (shown.steady, shown.rate, shown.durations()) == (True, RATE, None)
    assert shown.moments()[-1] == Fraction(7, 1000) + 100 / RATE


def test_times_that_go_back_do_not() -> None:
    shown = timing([Fraction(0), Fraction(1), Fraction(1), Fraction(0), Fraction(2)], TICK, [])
    assert shown.times == (0, 1, 1 + SHORTEST, 1 + 2 * SHORTEST, 2)


def test_a_timing_is_read_as_it_was_written() -> None:
    shown = timing([Fraction(1, 3), Fraction(2, 3), Fraction(5, 3)], TICK, [])
    assert Timing.from_json(shown.to_json()) == shown
    for broken in ({}, {**shown.to_json(), "times": []}, {**shown.to_json(), "times": ["x"]}):
        with pytest.raises((KeyError, ValueError)):
            Timing.from_json(broken)


def test_what_ffmpeg_tells_of_frames() -> None:
    head = b"[Parsed_showinfo_1 @ 0x55] [info] "
    lines: list[Any] = [
        head + b"config in time_base: 1/1000, frame_rate: 25/1",
        head + b"n:   0 pts:     40 pts_time:0.04    pos: 1 fmt:yuv420p sar:1/1 s:96x64 i:P iskey:1 type:I",
        b"[h264 @ 0x1] [error] no frame!",
        head + b"config in time_base: 1/500, frame_rate: 25/1",
        head + b"n:   0 pts:     40 pts_time:0.08    duration: 4 fmt:yuv420p cl:left sar:1/1 s:64x96 i:P iskey:1",
        head + b"n:   1 pts:  NOPTS pts_time:NOPTS   fmt:yuv420p sar:1/1 s:64x96 i:P iskey:1 type:I",
    ]
    assert list(told(lines, Fraction(10))) == [
        (Fraction(1004, 100), (96, 64)),
        (Fraction(1008, 100), (64, 96)),
        (None, (64, 96)),
    ]


def test_times_that_are_not_told_are_an_error(folder: Path) -> None:
    reading = Reading(probe(flash_and_beep(folder / "in.mkv", "-c:v", "ffv1")), 32, 48)
    assert len(list(reading)) == 40
    with pytest.raises(StylizeError, match="the times of 40 frames are unknown"):
        reading.timing()
