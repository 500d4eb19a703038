"""Writing a clip: what is refused beforehand, what comes along, and what happens where the end cannot be written."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest

from stylize import StylizeError
from stylize_video.ffmpeg import executable
from stylize_video.probe import Clip, probe
from stylize_video.streams import timecode_at, tracks
from tests.test_video import Paint, clip, moving, paint, style

__all__ = ["paint", "style"]  # fixtures

FAKE = """#!{python}
import os, subprocess, sys
words = sys.argv[1:]
done = subprocess.run([{real!r}, *words])
target = words[-1]
if target.endswith(".mp4") and "trial" not in target and target.startswith("file:"):
    {after}
sys.exit(done.returncode)
"""


@pytest.fixture
def sources(folder: Path) -> Path:
    """A clip with two kinds of sound, subtitles, a font, a cover picture and titles."""
    (folder / "notes.ass").write_text(
        "[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\nFormat: Name, Fontname\nStyle: Default, Some\n"
        "[Events]\nFormat: Start, End, Style, Text\nDialogue: 0:00:00.10,0:00:00.50,Default,hello\n"
    )
    (folder / "font.ttf").write_bytes(b"\0\1\0\0" + bytes(100))
    run("-f", "lavfi", "-i", "testsrc=s=32x32:d=1", "-frames:v", "1", "cover.jpg")
    inputs = ["-f", "lavfi", "-i", "testsrc=s=48x32:r=10:d=1", "-f", "lavfi", "-i", "sine=d=1", "-i", "notes.ass"]
    maps = ["-map", "0", "-map", "1", "-map", "1", "-map", "2", "-c:v", "ffv1", "-c:a:0", "aac", "-c:a:1", "pcm_s16le"]
    tags = ["-metadata:s:v", "title=Camera A", "-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "title=Comment"]
    attached = ["-attach", "font.ttf", "-metadata:s:t", "mimetype=application/x-truetype-font"]
    show = ["-disposition:a:0", "0", "-disposition:a:1", "default", "-disposition:s:0", "0"]
    show += ["-default_mode", "passthrough"]
    run(*inputs, *maps, *tags, *attached, *show, "rich.mkv")
    run("-i", "rich.mkv", "-i", "cover.jpg", "-map", "0:v", "-map", "0:a:0", "-map", "1", "-c:v:0", "libx264",
        "-c:a", "copy", "-c:v:1", "copy", "-disposition:v:1", "attached_pic", "cover.mp4")  # fmt: skip
    return folder


def run(*arguments: object) -> None:
    subprocess.run([executable(), "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True)


def found(path: Path) -> list[tuple[str, str, str]]:
    """(type, title or language, whether it is shown by default) of every track."""
    with av.open(str(path)) as container:
        return [
            (
                stream.type,
                stream.metadata.get("title")
                or stream.metadata.get("language")
                or stream.metadata.get("filename")
                or "",
                "default" if stream.disposition & av.stream.Disposition.default else "",
            )
            for stream in container.streams
        ]


@pytest.mark.slow
def test_everything_that_a_container_can_hold_is_kept_as_it_was(paint: Paint, sources: Path) -> None:
    said = paint("rich.mkv").err
    assert "left out" not in said
    assert found(sources / "out.mkv") == [
        ("video", "Camera A", "default"),
        ("audio", "deu", ""),
        ("audio", "Comment", "default"),
        ("subtitle", found(sources / "rich.mkv")[3][1], ""),
        ("attachment", "font.ttf", ""),
    ]


@pytest.mark.slow
def test_a_clip_made_again_has_the_same_bytes(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", moving(2))
    paint("in.mkv")
    first = (folder / "out.mkv").rename(folder / "first.mkv")
    paint("in.mkv")
    assert (folder / "out.mkv").read_bytes() == first.read_bytes()


@pytest.mark.slow
def test_what_a_container_cannot_hold_is_named_and_the_rest_is_kept(paint: Paint, sources: Path) -> None:
    said = paint("rich.mkv", target="out.mp4", codec=False).err
    assert "left out in out.mp4: attachment font.ttf: .mp4 files cannot hold it" in said
    assert "sound track 2 (pcm_s16le) as aac" in said
    assert [kind for kind, _, _ in found(sources / "out.mp4")] == ["video", "audio", "audio", "subtitle"]


@pytest.mark.slow
def test_a_cover_picture_is_kept(paint: Paint, sources: Path) -> None:
    for target, said in (("out.mp4", ""), ("out.mkv", ""), ("out.webm", "cover picture (mjpeg): .webm files cannot")):
        done = paint("cover.mp4", target=target, codec=False)
        assert said in done.err
        assert ("left out" in done.err) == bool(said)
        made = probe(sources / target)
        assert [codec for _, codec in made.covers] == ([] if said else ["mjpeg"])
        assert made.frames == 10


@pytest.mark.slow
def test_a_track_that_ffmpeg_does_not_know_costs_no_other(paint: Paint, folder: Path) -> None:
    run("-f", "lavfi", "-i", "testsrc=s=48x32:r=10:d=1", "-f", "lavfi", "-i", "sine=d=1", "-map", "0", "-map", "1",
        "-map", "1", "-c:v", "libx264", "-c:a", "aac", "two.mp4")  # fmt: skip
    data = (folder / "two.mp4").read_bytes()
    last = data.rindex(b"mp4a")
    unknown = data[last + 4 :].replace(b"esds", b"free", 1)
    (folder / "in.mov").write_bytes(data[:last] + b"apac" + unknown)
    for target in ("out.mp4", "out.mov", "out.mkv"):
        said = paint("in.mov", target=target, codec=False).err
        assert "sound track 2 (unknown codec): ffmpeg does not know its codec" in said
        assert probe(folder / target).audio == ("aac",)


@pytest.mark.slow
def test_the_timecode_goes_along(paint: Paint, folder: Path) -> None:
    run("-f", "lavfi", "-i", "testsrc=s=48x32:r=25:d=0.2", "-c:v", "libx264", "-timecode", "10:00:00:00", "in.mov")
    paint("in.mov", target="out.mov", codec=False)
    assert probe(folder / "out.mov").timecode == "10:00:00:00"
    paint("in.mov", "--from", "0.08", target="out.mov", codec=False)
    assert probe(folder / "out.mov").timecode == "10:00:00:02"
    assert "timecode 10:00:00:00" in paint("in.mov", target="out.webm", codec=False).err


@pytest.mark.parametrize(
    ("text", "rate", "frames", "wanted"),
    [
        ("01:00:00:00", Fraction(25), 26, "01:00:01:01"),
        ("23:59:59:24", Fraction(25), 1, "00:00:00:00"),
        ("00:00:59;29", Fraction(30000, 1001), 1, "00:01:00;02"),
        ("00:09:59;29", Fraction(30000, 1001), 1, "00:10:00;00"),
        ("00:00:00;00", Fraction(30000, 1001), 107892, "01:00:00;00"),
        ("00:00:00;00", Fraction(60000, 1001), 3600, "00:01:00;04"),
        ("00:00:00:00", Fraction(30000, 1001), 1800, "00:01:00:00"),
        ("00:00:00:00", Fraction(27, 2), 1, ""),
        ("nonsense", Fraction(25), 1, ""),
        ("00:00:00:25", Fraction(25), 1, ""),
    ],
)
def test_timecodes_count_frames(text: str, rate: Fraction, frames: int, wanted: str) -> None:
    assert timecode_at(text, rate, frames) == wanted


def test_the_ways_of_tracks() -> None:
    source = Clip(Path("in"), 32, 32, Fraction(25), audio=("aac", "", "vorbis"), subtitles=("hdmv_pgs_subtitle",))
    kept, lost = tracks(source, "mp4")
    assert [(track.number, track.ways) for track in kept] == [(0, ("copy", "aac")), (2, ("aac",))]
    assert len(lost) == 2
    assert [track.ways for track in tracks(source, "matroska")[0]] == [("copy", "aac")] * 2 + [("copy",)]
    assert tracks(source, "mp4", "none")[0] == []


@pytest.mark.slow
@pytest.mark.usefixtures("own_path")  # newer encoders take small frames
@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (("--codec", "h265", "--crf", "60"), "the crf of h265 is 0 to 51, not 60", 2),
        (("--codec", "h264", "--crf", "52"), "the crf of h264 is 0 to 51, not 52", 2),
        (("--codec", "av1"), "av1 at 32x24 fails:", 1),
        (("--codec", "h264_nvenc"), "h264_nvenc", 1),
    ],
)
def test_what_an_encoder_refuses_is_said_before_anything_is_painted(
    paint: Paint, folder: Path, options: tuple[str, ...], words: str, code: int
) -> None:
    clip(folder / "in.mkv", moving(3))
    done = paint("in.mkv", *options, target="out.mp4", codec=False, check=code)
    assert words in done.err
    assert "painted" not in done.err
    assert "sound" not in done.err
    assert not list(folder.glob(".out*"))


@pytest.mark.slow
def test_crf_0_is_lossless(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", moving(3))
    paint("in.mkv", "--crf", "0", target="out.mp4", codec=False)
    assert probe(folder / "out.mp4").frames == 3


def wrapped(folder: Path, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """An ffmpeg on the PATH that does something after the clip is written."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "ffmpeg"
    program.write_text(FAKE.format(python=sys.executable, real=executable(), after=after))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("after", "words"),
    [
        ("os.truncate(target[5:], 600)", "the result"),
        ("print('av_interleaved_write_frame(): No space left on device', file=sys.stderr)", "No space left on device"),
        ("print('Error writing trailer of x', file=sys.stderr)", "ffmpeg failed"),
        (
            "subprocess.run([{real!r}, '-v', 'error', '-y', '-i', target, '-frames:v', '2', '-f', 'mp4', 'part'])"
            "; os.replace('part', target[5:])",
            "2 of 4 frames",
        ),
    ],
)
def test_a_result_that_is_not_whole_does_not_cost_the_painted_frames(
    paint: Paint, folder: Path, monkeypatch: pytest.MonkeyPatch, after: str, words: str
) -> None:
    clip(folder / "in.mkv", moving(4))
    with monkeypatch.context() as patch:
        wrapped(folder, patch, after.format(real=executable()))
        done = paint("in.mkv", target="out.mp4", codec=False, check=1)
    assert words in done.err
    assert not (folder / "out.mp4").exists()
    assert len(list((folder / ".out.mp4.work").glob("0*.png"))) == 4
    assert "4 done before" in paint("in.mkv", target="out.mp4", codec=False).err
    assert probe(folder / "out.mp4").frames == 4


def old(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, encoders: str) -> None:
    """An ffmpeg on the PATH of another version, with other encoders."""
    (folder / "old").mkdir()
    program = folder / "old" / "ffmpeg"
    lines = f"case \"$*\" in *-version) echo 'ffmpeg version {version}';; *) printf '{encoders}';; esac"
    program.write_text(f"#!/bin/sh\n{lines}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder / 'old'}")


def test_an_ffmpeg_that_cannot_do_it_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    old(folder, monkeypatch, "4.2.2-static", " V....D libx264  x\\n")
    assert executable() == bundled
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(StylizeError, match=r"is version 4\.2, 4\.4 or newer is needed"):
        executable()


def test_an_ffmpeg_without_the_encoder_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    old(folder, monkeypatch, "5.1", " V....D ffv1    x\\n A....D aac   x\\n")
    assert Path(executable()).parent == folder / "old"
    assert Path(executable("ffv1")).parent == folder / "old"
    assert executable("libx264") == bundled
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(StylizeError, match="has no encoder libx264"):
        executable("libx264")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my%20dog.mp4", "50%d", "a'b.mp4", "a\nb.mp4"])
def test_names_mean_nothing_to_ffmpeg(paint: Paint, folder: Path, name: str) -> None:
    varied = ["-vf", "settb=1/1000,setpts='N*100+gt(N,1)*50'", "-fps_mode", "passthrough", "-enc_time_base", "1:1000"]
    run("-f", "lavfi", "-i", "testsrc=s=48x32:r=10:d=0.5", *varied, "-c:v", "libx264", "-f", "mp4", "in.mp4")
    (folder / name).mkdir()
    shutil.move("in.mp4", folder / name / "in.mp4")
    paint(f"{name}/in.mp4", target=f"{name}/out.mp4", codec=False)
    made = probe(folder / name / "out.mp4")
    assert made.times is not None
    assert [round(time, 2) for time in made.times] == [
        0,
        Fraction(1, 10),
        Fraction(1, 4),
        Fraction(7, 20),
        Fraction(9, 20),
    ]
