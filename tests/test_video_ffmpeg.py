"""Clips: what is found in them, their frames, and painted frames with the sound of the source as a clip again."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylize import StylizeError
from stylize_video.assemble import encode
from stylize_video.decode import Reading, decode, decode_arguments
from stylize_video.encode import FRAME_NAME, Encoding, concat_list, encode_arguments, quoted
from stylize_video.ffmpeg import executable
from stylize_video.probe import Clip, probe
from stylize_video.timing import frame_rate
from tests.conftest import OWN_PATH

COUNT = 10
RATE = Fraction(10)
RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
PATCHES = [RED, GREEN, BLUE, (128, 128, 128), YELLOW, (20, 60, 200), (255, 255, 255), (0, 0, 0)]
PLAIN = Clip(Path("/in/a.mp4"), 64, 48, RATE, frames=COUNT, duration=Fraction(1))


def engine() -> str:
    try:
        return executable()
    except StylizeError:
        pytest.skip("there is no ffmpeg here")


def run(*arguments: object) -> None:
    command = [engine(), "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def source_of(size: str = "64x48", *, sound: bool = True) -> list[str]:
    """Arguments for a clip of ten frames at ten a second, with a second of sound."""
    picture = ["-f", "lavfi", "-i", f"testsrc=s={size}:r=10:d=1"]
    return picture + (["-f", "lavfi", "-i", "sine=d=1"] if sound else [])


def chart(alpha: bool = False) -> Image.Image:
    pixels = np.zeros((96, 192, 4 if alpha else 3), np.uint8)
    for index, color in enumerate(PATCHES):
        y, x = index // 4 * 48, index % 4 * 48
        pixels[y : y + 48, x : x + 48, :3] = color
    if alpha:
        pixels[:48, :, 3] = 255
    return Image.fromarray(pixels)


def far(frame: np.ndarray[Any, Any]) -> float:
    """The largest error in the middle of a patch of the chart."""
    worst = 0.0
    for index, color in enumerate(PATCHES):
        y, x = index // 4 * 48 + 24, index % 4 * 48 + 24
        patch = frame[y - 8 : y + 8, x - 8 : x + 8, :3].reshape(-1, 3).astype(float)
        patch = patch / 257 if frame.dtype == np.uint16 else patch
        worst = max(worst, float(np.abs(patch.mean(0) - color).max()))
    return worst


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    small = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    run(*source_of(), *small, folder / "plain.mp4")
    varied = ["-vf", "settb=1/1000,setpts='if(lt(N,4),N*100,round((0.4+(N-4)*0.25)*1000))'", "-fps_mode", "passthrough"]
    varied += ["-enc_time_base", "1:1000", "-bf", "0"]
    run(*source_of(), *varied, *small, folder / "varied.mp4")
    run(*source_of(), *varied, *small, folder / "varied.mkv")
    run(*source_of(), "-vf", "setsar=4/3", *small, folder / "wide.mp4")
    run(*source_of("63x47"), "-c:v", "ffv1", "-pix_fmt", "bgr0", folder / "odd.mkv")
    run(*source_of(), "-c:v", "ffv1", "-pix_fmt", "yuv420p10le", "-c:a", "pcm_s16le", folder / "deep.mkv")
    run(*source_of(sound=False), "-c:v", "libx264", "-pix_fmt", "yuv444p", folder / "mute.mp4")
    run(*source_of(sound=False), folder / "moving.gif")
    run(*source_of(), *small, "-bf", "2", folder / "stream.ts")
    run(*source_of(), "-c:v", "mpeg4", folder / "old.avi")
    if "-display_rotation" in subprocess.run([engine(), "-h", "full"], capture_output=True, text=True).stdout:
        run("-display_rotation", "-90", "-i", folder / "plain.mp4", "-c", "copy", folder / "turned.mp4")
    else:
        run("-i", folder / "plain.mp4", "-c", "copy", "-metadata:s:v", "rotate=90", folder / "turned.mp4")
    (folder / "notes.srt").write_text("1\n00:00:00,100 --> 00:00:00,500\nhello\n")
    chapter = "[CHAPTER]\nTIMEBASE=1/1000\nSTART={}\nEND={}\ntitle=Part\n"
    head = ";FFMETADATA1\ntitle=A title\n"
    (folder / "chapters.txt").write_text(head + chapter.format(0, 500) + chapter.format(500, 1000))
    extra = ["-i", folder / "notes.srt", "-i", folder / "chapters.txt", "-map", "0:v", "-map", "0:a", "-map", "1:s"]
    kept = ["-map_metadata", "2", "-map_chapters", "2", "-c:v", "copy", "-c:a", "copy"]
    run("-i", folder / "plain.mp4", *extra, *kept, "-c:s", "mov_text", folder / "full.mp4")
    run("-i", folder / "plain.mp4", *extra, *kept, "-c:s", "srt", folder / "full.mkv")
    (folder / "chart").mkdir()
    for index in range(COUNT):
        chart().save(folder / "chart" / (FRAME_NAME % index))
    (folder / "glass").mkdir()
    chart(alpha=True).save(folder / "glass" / (FRAME_NAME % 0))
    still = ["-framerate", "10", "-loop", "1", "-t", "1", "-i", folder / "glass" / (FRAME_NAME % 0)]
    run(*still, "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-crf", "10", "-b:v", "0", folder / "alpha.webm")
    still[-1] = folder / "chart" / (FRAME_NAME % 0)
    for name, matrix, kind, value in [
        ("bt709", "bt709", "tv", "yuv444p"),
        ("bt601", "smpte170m", "tv", "yuv444p"),
        ("full", "bt709", "pc", "yuv444p"),
        ("deep709", "bt709", "tv", "yuv444p10le"),
        ("untagged", "", "tv", "yuv444p"),
    ]:
        scale = f"scale=out_color_matrix={matrix or 'smpte170m'}:out_range={kind}:flags=accurate_rnd+full_chroma_int"
        tags = ["-colorspace", matrix, "-color_range", kind] if matrix else []
        out = folder / f"{name}.chart.mkv"
        run(*still, "-vf", f"{scale},format={value}", "-c:v", "libx264", "-crf", "1", *tags, out)
    return folder


@pytest.fixture(params=["path", "package"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, clips: Path) -> str:
    """With the ffmpeg on the PATH, and with the one of imageio-ffmpeg."""
    if request.param == "package":
        pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed")
        monkeypatch.setattr(shutil, "which", lambda name: None)
        assert "imageio_ffmpeg" in executable()
        return "package"
    monkeypatch.setenv("PATH", os.environ.get(OWN_PATH, os.environ["PATH"]))
    if not shutil.which("ffmpeg"):
        pytest.skip("there is no ffmpeg on the PATH")
    return "path"


@pytest.fixture
def frames(clips: Path, tmp_path: Path) -> Callable[..., Path]:
    """A folder of painted frames."""

    def make(count: int = COUNT, size: tuple[int, int] = (64, 48), name: str = "frames") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for index in range(count):
            Image.new("RGB", size, (index * 20, 100, 50)).save(folder / (FRAME_NAME % index))
        return folder

    return make


# What a file holds


@pytest.mark.slow
def test_a_plain_clip(clips: Path) -> None:
    clip = probe(clips / "plain.mp4")
    assert (clip.width, clip.height, clip.rate, clip.frames, clip.times) == (64, 48, 10, 10, None)
    assert (clip.duration, clip.start, clip.rotation, clip.aspect) == (1, 0, 0, 1)
    assert (clip.pixel_format, clip.bits, clip.alpha, clip.audio, clip.codec) == ("yuv420p", 8, False, ("aac",), "h264")
    assert (clip.subtitles, clip.chapters) == ((), 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["varied.mp4", "varied.mkv"])
def test_the_times_of_a_variable_rate(clips: Path, name: str) -> None:
    clip = probe(clips / name)
    wanted = [
        Fraction(index, 10) if index < 4 else Fraction(2, 5) + (index - 4) * Fraction(1, 4) for index in range(10)
    ]
    assert clip.times is not None
    assert [round(time, 3) for time in clip.times] == wanted
    assert clip.duration is not None
    assert clip.duration > wanted[-1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wide.mp4", {"width": 85, "height": 48, "aspect": Fraction(4, 3)}),
        ("turned.mp4", {"width": 48, "height": 64}),
        ("odd.mkv", {"width": 63, "height": 47}),
        ("deep.mkv", {"bits": 10, "audio": ("pcm_s16le",)}),
        ("mute.mp4", {"pixel_format": "yuv444p", "audio": ()}),
        ("moving.gif", {"alpha": False, "rate": 10, "times": None}),
        ("alpha.webm", {"alpha": True, "codec": "vp9"}),
        ("old.avi", {"codec": "mpeg4", "audio": ("mp3",)}),
        ("full.mp4", {"subtitles": ("mov_text",), "chapters": 2}),
        ("full.mkv", {"subtitles": ("subrip",), "chapters": 2}),
        ("full.chart.mkv", {"color_range": "pc", "matrix": "bt709"}),
        ("bt601.chart.mkv", {"color_range": "tv", "matrix": "smpte170m"}),
    ],
)
def test_what_is_found(clips: Path, name: str, expected: dict[str, Any]) -> None:
    clip = probe(clips / name)
    assert {key: getattr(clip, key) for key in expected} == expected
    assert clip.frames == COUNT


def test_what_is_no_clip(tmp_path: Path, clips: Path) -> None:
    (tmp_path / "text.mp4").write_text("no clip")
    (tmp_path / "text.txt").write_text("words\n" * 100)
    (tmp_path / "empty.mp4").touch()
    chart().save(tmp_path / "picture.png")
    chart().save(tmp_path / "picture.jpg")
    run("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "sound.wav")
    (tmp_path / "cut.mp4").write_bytes((clips / "plain.mp4").read_bytes()[:2000])
    for path in [*tmp_path.iterdir(), tmp_path, tmp_path / "nothing.mp4"]:
        with pytest.raises(StylizeError) as caught:
            probe(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(25), Fraction(60), Fraction(1, 3), Fraction(120)])
def test_a_coarse_clock_does_not_make_a_rate_vary(rate: Fraction) -> None:
    times = [Fraction(round(index / rate * 1000), 1000) for index in range(500)]
    assert frame_rate(times, Fraction(1, 1000), [rate]) == (rate, True)
    assert frame_rate(times, Fraction(1, 1000), [])[1]
    times[250] += 1 / rate / 2
    assert not frame_rate(times, Fraction(1, 1000), [rate])[1]


# Arguments


def test_arguments_for_reading() -> None:
    arguments = decode_arguments(PLAIN, 24, 32)
    assert arguments[arguments.index("-i") + 1] == "file:/in/a.mp4"
    assert arguments[-1] == "pipe:1"
    text = " ".join(arguments)
    for part in ("in_color_matrix=bt601", "in_range=tv", "w=32", "h=24", "-fps_mode passthrough", "-pix_fmt rgb24"):
        assert part in text
    assert "-ss" not in arguments
    assert "trim" not in text


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"width": 1280, "height": 720}, "in_color_matrix=bt709"),
        ({"matrix": "bt2020nc"}, "in_color_matrix=bt2020:"),
        ({"matrix": "smpte170m", "width": 1920}, "in_color_matrix=bt601"),
        ({"color_range": "pc"}, "in_range=pc"),
        ({"bits": 10}, "-pix_fmt rgb48le"),
        ({"alpha": True}, "-pix_fmt rgba "),
        ({"alpha": True, "bits": 12}, "-pix_fmt rgba64le"),
        ({"alpha": True, "codec": "vp9"}, "-c:v libvpx-vp9"),
    ],
)
def test_arguments_follow_the_clip(change: dict[str, Any], part: str) -> None:
    assert part in " ".join(decode_arguments(dataclasses.replace(PLAIN, **change), 48, 64))


def test_colours_that_are_rgb_are_not_converted() -> None:
    assert "in_color" not in " ".join(decode_arguments(dataclasses.replace(PLAIN, pixel_format="bgra"), 48, 64))


def test_the_stretch_between_start_and_end() -> None:
    assert PLAIN.frame_range(Fraction(3, 10), Fraction(7, 10)) == (3, 7)
    assert PLAIN.frame_range(Fraction(31, 100), None) == (4, 10)
    assert PLAIN.frame_range(None, Fraction(50)) == (0, 10)
    assert dataclasses.replace(PLAIN, frames=None).frame_range() == (0, None)
    varied = dataclasses.replace(PLAIN, times=(Fraction(0), Fraction(1), Fraction(3)), frames=3)
    assert varied.frame_range(Fraction(1), Fraction(3)) == (1, 2)
    for start, end in [(Fraction(2), None), (Fraction(1, 2), Fraction(1, 2)), (None, Fraction(0))]:
        with pytest.raises(StylizeError, match="no frame between"):
            PLAIN.frame_range(start, end)


def test_a_late_start_is_sought_with_a_lead() -> None:
    long = dataclasses.replace(PLAIN, frames=1000, start=Fraction(1, 2))
    arguments = decode_arguments(long, 48, 64, start=Fraction(60), end=Fraction(61))
    assert arguments[arguments.index("-ss") + 1] == "50"
    assert "trim=end=11.499000:start=10.499000" in " ".join(arguments)  # just before the frames


def test_arguments_for_assembling() -> None:
    clip = dataclasses.replace(PLAIN, audio=("aac", "pcm_s16le"), subtitles=("subrip", "hdmv_pgs_subtitle"), chapters=1)
    arguments = encode_arguments(Encoding(clip, Path("/w/50%:a"), Path("/-out.mp4"), rate=Fraction(30000, 1001)))
    assert [arguments[i + 1] for i, word in enumerate(arguments) if word == "-i"] == [
        "file:/w/50%%:a/%08d.png",
        "file:/in/a.mp4",
    ]
    assert arguments[-1] == "file:/-out.mp4"
    text = " ".join(arguments)
    for part in (
        "-framerate 30000/1001",
        "-start_number 0",
        "-c:v libx264",
        "-crf 18",
        "-preset medium",
        "-profile:v high",
        "-pix_fmt yuv420p",
        "-movflags +faststart",
        "out_color_matrix=bt709",
        "-colorspace bt709 ",
        "-color_range tv",
        "-map 1:a:0 -map 1:a:1 -map 1:s:0 -",
        "-c:a:0 copy",
        "-c:a:1 aac",
        "-c:s:0 mov_text",
        "-map_metadata 1",
        "-map_chapters 1",
    ):
        assert part in text


def test_arguments_for_other_targets() -> None:
    def text(target: str, clip: Clip = PLAIN, **options: Any) -> str:
        return " ".join(encode_arguments(Encoding(clip, Path("/w"), Path(target), rate=RATE, **options)))

    assert "-tag:v:0 hvc1" in text("a.mp4", codec="h265", crf=30)
    assert "-crf 30" in text("a.mp4", codec="h265", crf=30)
    assert "hvc1" not in text("a.mkv", codec="h265")
    deep = dataclasses.replace(PLAIN, bits=10)
    assert "-pix_fmt yuv420p10le" in text("a.mkv", deep, codec="av1")
    clear = dataclasses.replace(PLAIN, alpha=True, audio=("aac", "opus"))
    assert "-pix_fmt yuva420p" in text("a.webm", clear)
    assert "-c:a:0 libopus" in text("a.webm", clear)
    assert "-c:a:1 copy" in text("a.webm", clear)
    assert "-pix_fmt yuva444p10le" in text("a.mov", clear, codec="prores")
    assert "-pix_fmt bgra" in text("a.mkv", clear, codec="ffv1")
    assert "1:a:0" not in text("a.mkv", clear, audio="none")
    assert "-c:a:1 aac" in text("a.mkv", clear, audio="aac")
    gif = text("a.gif", clear)
    assert "paletteuse" in gif
    assert "-loop 0" in gif
    cut = text("a.mp4", clear, start=Fraction(3, 10), end=Fraction(7, 10))
    assert "-ss 0.300000 -i file:/in/a.mp4" in cut
    assert "-t 0.400000" in cut
    list_file = Path("/w/list.txt")
    timed = Encoding(PLAIN, Path("/w"), Path("a.mp4"), rate=RATE, durations=[Fraction(1)])
    assert "-f concat -safe 0 -i file:/w/list.txt" in " ".join(encode_arguments(timed, list_file))


@pytest.mark.parametrize(
    ("target", "options", "match"),
    [
        ("a.mkv", {"codec": "prores"}, ".mkv files cannot hold prores; use .mov"),
        ("a.webm", {"codec": "h264"}, ".webm files cannot hold h264"),
        ("a.xyz", {}, "one of the extensions .mp4"),
        ("a", {}, "one of the extensions"),
        ("a.mp4", {"codec": "cinepak"}, "unknown codec 'cinepak'"),
        ("a.mov", {"codec": "prores", "crf": 20}, "prores has no crf"),
        ("a.mp4", {"audio": "loud"}, "unknown audio mode 'loud'"),
        ("a.mp4", {"durations": [Fraction(1)]}, "need a list file"),
    ],
)
def test_what_does_not_go_together(target: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(StylizeError, match=match):
        encode_arguments(Encoding(PLAIN, Path("/w"), Path(target), rate=RATE, **options))


def unquoted(text: str) -> str:
    """A word as ffmpeg reads it: nothing is special between single quotes, a backslash takes the next outside."""
    found, inside, letters = "", False, iter(text)
    for letter in letters:
        if letter == "'":
            inside = not inside
        elif letter == "\\" and not inside:
            found += next(letters)
        else:
            found += letter
    assert not inside
    return found


@given(st.text().filter(lambda text: not set(text) & set("\n\r\0")))
def test_a_quoted_name_is_read_as_it_was(name: str) -> None:
    assert unquoted(quoted(name)) == name
    assert quoted(name)[0] == quoted(name)[-1] == "'"


def test_a_line_break_cannot_be_quoted() -> None:
    with pytest.raises(StylizeError, match="line break"):
        quoted("a\nb")


@pytest.mark.slow
@given(st.lists(st.fractions(Fraction(1, 1000), 10), min_size=1, max_size=50))
def test_rounding_in_a_list_does_not_add_up(durations: list[Fraction]) -> None:
    lines = concat_list(Path("/w"), durations).splitlines()
    listed = [Fraction(line.split()[1]) for line in lines if line.startswith("duration")]
    assert len(listed) == len(durations)
    assert abs(sum(listed, Fraction(0)) - sum(durations, Fraction(0))) < Fraction(1, 1_000_000)


# Frames


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "plain.mp4",
        "varied.mp4",
        "varied.mkv",
        "wide.mp4",
        "turned.mp4",
        "odd.mkv",
        "deep.mkv",
        "mute.mp4",
        "moving.gif",
        "alpha.webm",
        "stream.ts",
        "old.avi",
    ],
)
def test_every_frame_is_read_once(clips: Path, either: str, name: str) -> None:
    clip = probe(clips / name)
    found = list(decode(clip, clip.height, clip.width))
    assert len(found) == COUNT == clip.frames
    assert {frame.shape for frame in found} == {(clip.height, clip.width, 4 if clip.alpha else 3)}
    assert {frame.dtype for frame in found} == {np.dtype(np.uint16 if clip.bits > 8 else np.uint8)}
    if name != "alpha.webm":
        assert len({frame.tobytes() for frame in found}) == COUNT
        part = list(decode(clip, clip.height, clip.width, start=clip.frame_time(3), end=clip.frame_time(7)))
        assert [frame.tobytes() for frame in part] == [frame.tobytes() for frame in found[3:7]]


def test_a_turned_clip_is_upright(clips: Path, either: str) -> None:
    clip = probe(clips / "turned.mp4")
    assert clip.rotation in (90, 270)
    straight = next(decode(probe(clips / "plain.mp4"), 48, 64)).astype(int)
    assert np.abs(np.rot90(straight, -clip.rotation // 90) - next(decode(clip, 64, 48)).astype(int)).mean() < 3


def test_frames_are_scaled(clips: Path, either: str) -> None:
    small = next(decode(probe(clips / "bt709.chart.mkv"), 48, 96))
    assert small.shape == (48, 96, 3)
    assert far(small.repeat(2, 0).repeat(2, 1)) <= 3


@pytest.mark.parametrize("name", ["bt709", "bt601", "full", "deep709", "untagged"])
def test_colours_are_read_as_they_are(clips: Path, either: str, name: str) -> None:
    assert far(next(decode(probe(clips / f"{name}.chart.mkv"), 96, 192))) <= 3


def test_alpha_is_read(clips: Path, either: str) -> None:
    frame = next(decode(probe(clips / "alpha.webm"), 96, 192))
    assert frame[:40, :, 3].min() > 250
    assert frame[56:, :, 3].max() < 5


def test_frames_are_one_s_own(clips: Path) -> None:
    first, second, *_ = decode(probe(clips / "plain.mp4"), 48, 64)
    assert first.flags.writeable
    assert not np.shares_memory(first, second)


def test_a_generator_closed_early_leaves_no_process(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    frames = decode(probe(clips / "plain.mp4"), 1080, 1920)  # more than a pipe holds
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    (process,) = started
    assert process.returncode is not None
    assert process.stdout is not None
    assert process.stdout.closed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fields.mpg", "fields.mp4"])
def test_interlaced_frames_are_deinterlaced(tmp_path: Path, name: str) -> None:
    fields = ["-flags", "+ilme+ildct", *(["-x264-params", "tff=1"] if name.endswith("mp4") else ["-c:v", "mpeg2video"])]
    source = ["-f", "lavfi", "-i", "testsrc2=size=128x96:rate=50", "-t", "0.4", "-vf", "interlace=scan=tff"]
    subprocess.run([executable(), "-v", "error", *source, *fields, str(tmp_path / name)], check=True)
    clip = probe(tmp_path / name)
    assert clip.interlaced

    def combed(clip: Clip) -> float:  # how far rows are from the mean of their neighbours
        frames = [frame.astype(float) for frame in decode(clip, 96, 128)]
        assert len(frames) == 10
        return float(np.mean([abs(frame[1:-1] - (frame[:-2] + frame[2:]) / 2).mean() for frame in frames]))

    assert combed(clip) < 0.8 * combed(dataclasses.replace(clip, interlaced=False))


def test_a_truncated_clip_gives_the_frames_there_are(clips: Path, tmp_path: Path, either: str) -> None:
    path = tmp_path / "cut.mkv"
    data = (clips / "deep.mkv").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    clip = probe(path)
    assert clip.frames is not None
    assert 0 < clip.frames < COUNT
    reading = Reading(clip, 48, 64, timed=True)
    found = len(list(reading))
    assert 0 < found <= clip.frames
    assert reading.timing().moments() == [index / RATE for index in range(found + 1)]


def test_a_failing_ffmpeg_says_why(clips: Path, tmp_path: Path) -> None:
    clip = dataclasses.replace(probe(clips / "plain.mp4"), path=tmp_path / "gone.mp4")
    with pytest.raises(StylizeError, match="No such file"):
        list(decode(clip, 48, 64))


def test_no_ffmpeg_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(StylizeError, match="ffmpeg is not installed"):
        executable()


# Clips of painted frames


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "codec", "options"),
    [
        ("a.mp4", None, {}),
        ("a.mkv", "h264", {}),
        ("a.mov", "h265", {}),
        ("a.mkv", "av1", {}),
        ("a.mov", "prores", {}),
        ("a.mkv", "ffv1", {}),
        ("a.webm", None, {}),
        ("a.gif", None, {}),
    ],
)
def test_colours_survive(
    clips: Path, tmp_path: Path, either: str, target: str, codec: str | None, options: dict[str, Any]
) -> None:
    clip = probe(clips / "plain.mp4")
    out = tmp_path / target
    encode(Encoding(clip, clips / "chart", out, rate=clip.rate, codec=codec))
    made = probe(out)
    assert (made.frames, made.rate, made.times) == (COUNT, RATE, None)
    assert (made.width, made.height) == (192, 96)
    if made.pixel_format.startswith("yuv"):
        assert (made.matrix, made.primaries, made.transfer, made.color_range) == ("bt709", "bt709", "bt709", "tv")
    found = list(decode(made, 96, 192))
    assert len(found) == COUNT
    assert max(map(far, found)) <= 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [target]


@pytest.mark.slow
def test_alpha_survives_in_webm(clips: Path, tmp_path: Path, either: str) -> None:
    clip = probe(clips / "alpha.webm")
    encode(Encoding(clip, clips / "glass", tmp_path / "a.webm", rate=clip.rate))
    made = probe(tmp_path / "a.webm")
    assert made.alpha
    (frame,) = decode(made, 96, 192)
    assert frame[:40, :, 3].min() > 250
    assert frame[56:, :, 3].max() < 5


def title(path: Path) -> str | None:
    with av.open(str(path)) as container:
        return container.metadata.get("title")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["full.mp4", "full.mkv"])
@pytest.mark.parametrize("target", ["a.mp4", "a.mkv", "a.webm"])
def test_what_comes_with_a_clip_survives(
    clips: Path, tmp_path: Path, frames: Callable[..., Path], either: str, source: str, target: str
) -> None:
    clip = probe(clips / source)
    out = tmp_path / target
    encode(Encoding(clip, frames(), out, rate=clip.rate))
    made = probe(out)
    assert made.audio == ("opus",) if target == "a.webm" else made.audio == ("aac",)
    assert made.subtitles == {"a.mp4": ("mov_text",), "a.mkv": ("subrip",), "a.webm": ("webvtt",)}[target]
    assert made.chapters == 2
    assert title(out) == "A title"
    assert made.duration is not None
    assert clip.duration is not None
    assert abs(made.duration - clip.duration) <= 1 / clip.rate
    assert abs(length(out) - length(clip.path)) <= 1 / clip.rate


def length(path: Path) -> Fraction:
    with av.open(str(path)) as container:
        return Fraction(container.duration or 0, av.time_base)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["a.mp4", "a.mkv", "a.gif"])
@pytest.mark.parametrize("source", ["varied.mp4", "varied.mkv"])
def test_a_variable_rate_survives(
    clips: Path, tmp_path: Path, frames: Callable[..., Path], either: str, source: str, target: str
) -> None:
    clip = probe(clips / source)
    durations = [clip.frame_time(index + 1) - clip.frame_time(index) for index in range(COUNT)]
    folder = frames(name="it's 100% [odd]: \\ -x")
    encode(Encoding(clip, folder, tmp_path / target, rate=clip.rate, durations=durations))
    made = probe(tmp_path / target)
    assert made.times is not None
    assert clip.times is not None
    slack = Fraction(1, 100) if target == "a.gif" else Fraction(1, 1000)
    assert max(abs(a - b) for a, b in zip(made.times, clip.times, strict=True)) <= slack
    assert made.duration is not None
    assert clip.duration is not None
    assert abs(made.duration - clip.duration) <= 1 / clip.rate
    assert len(list(decode(made, 48, 64))) == COUNT


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["h265", "av1"])
def test_other_codecs_keep_a_variable_rate(clips: Path, tmp_path: Path, either: str, codec: str) -> None:
    clip = probe(clips / "varied.mp4")
    durations = [clip.frame_time(index + 1) - clip.frame_time(index) for index in range(COUNT)]
    encode(Encoding(clip, clips / "chart", tmp_path / "a.mp4", rate=clip.rate, durations=durations, codec=codec))
    made = probe(tmp_path / "a.mp4")
    assert made.times == clip.times
    assert made.duration is not None
    assert clip.duration is not None
    assert abs(made.duration - clip.duration) <= Fraction(1, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["a.mp4", "a.mkv"])
def test_a_stretch_takes_its_sound_along(
    clips: Path, tmp_path: Path, frames: Callable[..., Path], either: str, target: str
) -> None:
    clip = probe(clips / "full.mp4")
    begin, end = Fraction(3, 10), Fraction(7, 10)
    encode(Encoding(clip, frames(4), tmp_path / target, rate=clip.rate, start=begin, end=end))
    made = probe(tmp_path / target)
    assert made.frames == 4
    assert abs(length(tmp_path / target) - Fraction(4, 10)) <= 1 / clip.rate
    assert made.start <= Fraction(3, 100)
    assert (made.audio, made.chapters) == (("aac",), 2)
    with av.open(str(tmp_path / target)) as container:
        said = [packet for packet in container.demux(subtitles=0) if packet.size > 2]
    (shown,) = [(packet.pts or 0) * packet.time_base for packet in said]
    assert shown < Fraction(1, 1000)  # from 0.1 s in the source, cut at 0.3


@pytest.mark.slow
def test_a_late_picture_stays_late(clips: Path, tmp_path: Path, frames: Callable[..., Path], either: str) -> None:
    path = tmp_path / "late.mkv"
    late = ["-itsoffset", "0.25", "-i", clips / "mute.mp4", "-i", clips / "plain.mp4", "-map", "0:v", "-map", "1:a"]
    run(*late, "-c", "copy", path)
    clip = probe(path)
    assert abs(clip.start - Fraction(1, 4)) < Fraction(3, 100)
    folder = frames()
    for target in ("a.mp4", "a.mkv"):
        encode(Encoding(clip, folder, tmp_path / target, rate=clip.rate))
        made = probe(tmp_path / target)
        assert abs(made.start - clip.start) < Fraction(3, 100)
        assert (made.rate, made.times, made.frames) == (RATE, None, COUNT)


@pytest.mark.slow
def test_sound_that_is_not_taken_is_encoded(
    clips: Path, tmp_path: Path, frames: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    clip = probe(clips / "deep.mkv")
    encode(Encoding(clip, frames(), tmp_path / "a.mp4", rate=clip.rate))
    assert probe(tmp_path / "a.mp4").audio == ("aac",)
    assert "encoded anew, as a .mp4 file cannot hold it otherwise: sound track 1 (pcm_s16le) as aac" in caplog.text


@pytest.mark.slow
def test_one_track_that_fails_is_left_out_and_named(
    clips: Path, tmp_path: Path, frames: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    clip = dataclasses.replace(probe(clips / "plain.mp4"), audio=("aac", "aac", ""))  # two that are not there
    encode(Encoding(clip, frames(), tmp_path / "a.mp4", rate=clip.rate))
    assert probe(tmp_path / "a.mp4").audio == ("aac",)
    (said,) = (record.getMessage() for record in caplog.records)
    assert "sound track 3 (unknown codec): ffmpeg does not know its codec" in said
    assert "sound track 2 (aac): ffmpeg cannot write it to a .mp4 file" in said


@pytest.mark.slow
@pytest.mark.parametrize("audio", ["copy", "aac"])
def test_broken_sound_does_not_stop_the_clip(
    clips: Path, tmp_path: Path, frames: Callable[..., Path], either: str, audio: str
) -> None:
    path = tmp_path / "broken.mkv"
    run("-i", clips / "plain.mp4", "-c", "copy", "-bsf:a", "noise=amount=3", path)
    clip = probe(path)
    encode(Encoding(clip, frames(), tmp_path / "a.mp4", rate=clip.rate, audio=audio))
    assert probe(tmp_path / "a.mp4").frames == COUNT


@pytest.mark.slow
def test_a_failing_ffmpeg_leaves_nothing(clips: Path, tmp_path: Path, frames: Callable[..., Path]) -> None:
    folder = frames()
    (folder / (FRAME_NAME % 0)).write_bytes((folder / (FRAME_NAME % 0)).read_bytes()[:60])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(StylizeError, match=r"9 of 10 frames|ffmpeg failed") as caught:
        encode(Encoding(probe(clips / "plain.mp4"), folder, out / "a.mp4", rate=RATE))
    assert "\n" not in str(caught.value)
    assert list(out.iterdir()) == []


def test_frames_that_do_not_fit(tmp_path: Path, frames: Callable[..., Path]) -> None:
    with pytest.raises(StylizeError, match="63x47, but libx264 takes even sizes only"):
        encode(Encoding(PLAIN, frames(1, (63, 47), "odd"), tmp_path / "a.mp4", rate=RATE))
    with pytest.raises(StylizeError, match="frames are missing"):
        encode(Encoding(PLAIN, tmp_path / "nowhere", tmp_path / "a.mp4", rate=RATE))
    folder = frames()
    with pytest.raises(StylizeError, match="10 frames, but 3 durations"):
        encode(Encoding(PLAIN, folder, tmp_path / "a.mp4", rate=RATE, durations=[RATE] * 3))
    (folder / (FRAME_NAME % 4)).unlink()
    with pytest.raises(StylizeError, match="frames are missing"):
        encode(Encoding(PLAIN, folder, tmp_path / "a.mp4", rate=RATE))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["-odd.mp4", "a:b.mp4", "50%d.mp4", "it's.mp4", "ü ☃.mp4"])
def test_odd_names(clips: Path, tmp_path: Path, frames: Callable[..., Path], name: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(clips / "plain.mp4", name)
    clip = probe(Path(name))
    assert len(list(decode(clip, 48, 64))) == COUNT
    Path("out").mkdir()
    encode(Encoding(clip, frames(name="-f %d:"), Path("out", name), rate=clip.rate))
    assert probe(Path("out", name)).frames == COUNT
