"""Clips: what is painted, what is carried over, what survives, through the real command line where it matters."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import stylize
from stylize import Claims, Frame, Job, Painted, Picture, SettingsError, StylizeError, Stylizer
from stylize.testing import FileJobContract
from stylize_video import contact_sheet, stylize_open
from stylize_video.estimate import Samples
from stylize_video.flow import engine
from stylize_video.job import LEAD, VideoJob
from stylize_video.shot import ShotPainter
from stylize_video.timing import seconds
from stylize_video.work import Work
from tests import preloaded
from tests.conftest import Call, Cli, Done, waves
from tests.test_jobs import QUICK

Array = NDArray[Any]
FAST = ("--encoder", "tiny", "--size", "32", "--steps", "2", "--frame-steps", "2", "--codec", "ffv1")


def picture(seed: int, height: int = 24, width: int = 32) -> Array:
    return np.asarray((waves(height, width, seed)[0].permute(1, 2, 0) * 255).round().byte().numpy())


def clip(path: Path, frames: Sequence[Array], rate: int = 10, codec: str = "ffv1", form: str = "bgr0") -> Path:
    """A clip of these frames, lossless unless the codec is another."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = form
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def frames_of(path: Path) -> list[Array]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@contextlib.contextmanager
def failing_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within, the run fails, with "enough", when it is to write so many frames."""
    write, count = ShotPainter.write, 0

    def failing(self: ShotPainter, frame: Frame, painted: Painted) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise StylizeError("enough")
        write(self, frame, painted)

    with monkeypatch.context() as patch:
        patch.setattr(ShotPainter, "write", failing)
        yield


def moving(count: int, seed: int = 0) -> list[Array]:
    wide = picture(seed, 24, 32 + count)
    return [wide[:, number : number + 32] for number in range(count)]


def two_shots() -> list[Array]:
    """Frames 0 to 5, and 6 to 11."""
    return [*moving(6, 0), *moving(6, 1)]


@pytest.fixture
def style(folder: Path) -> Path:
    Picture(waves(20, 20, 9)).save(folder / "style.png")
    return folder / "style.png"


@pytest.fixture
def paint(call: Call, style: Path, folder: Path) -> Callable[..., Done]:
    def run(source: str, *options: object, target: str = "out.mkv", check: int = 0, codec: bool = True) -> Done:
        done = call(source, "style.png", "-o", target, *(FAST if codec else FAST[:-2]), *options)
        assert done.code == check, done.err
        return done

    return run


Paint = Callable[..., Done]


class TestContract(FileJobContract):
    @pytest.fixture
    def job(self, tmp_path: Path) -> Job:
        source = clip(tmp_path / "in.mkv", moving(4))
        (tmp_path / "style.png").touch()
        options = {"partial": True, "codec": "ffv1"}
        flow = engine("dis")
        assert flow is not None
        return VideoJob(source, [tmp_path / "style.png"], tmp_path / "out.mkv", QUICK, options, flow)


@pytest.mark.slow
def test_a_clip_keeps_its_frames_rate_and_size(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", moving(6))
    done = paint("in.mkv")
    assert done.out == "out.mkv\n"
    assert re.search(r"6/6  frame 5  loss", done.err)
    with av.open("out.mkv") as container:
        video = container.streams.video[0]
        assert video.average_rate == 10
        assert (video.width, video.height) == (32, 24)
    assert len(frames_of(Path("out.mkv"))) == 6
    assert [path.name for path in folder.iterdir() if path.name.startswith(".out")] == []  # nothing is left over


@pytest.mark.slow
def test_the_default_is_h264(call: Call, style: Path, folder: Path) -> None:
    clip(folder / "in.mkv", moving(3))
    assert call("in.mkv", "style.png", *FAST[:-2]).out == "in-stylized.mp4\n"
    with av.open("in-stylized.mp4") as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.slow
def test_the_first_frame_is_painted_as_a_still(paint: Paint, call: Call, folder: Path) -> None:
    from PIL import Image

    frames = moving(3)
    clip(folder / "in.mkv", frames)
    paint("in.mkv")
    Image.fromarray(frames[0]).save("first.png")
    assert call("first.png", "style.png", "-o", "still.png", *FAST[:6]).code == 0
    assert np.array_equal(np.asarray(Image.open("still.png")), frames_of(Path("out.mkv"))[0])


@pytest.mark.slow
def test_a_static_shot_is_painted_once_and_never_changes(paint: Paint, folder: Path) -> None:
    noise = np.random.default_rng(0)
    still = picture(0).astype(int)
    frames = [(still + noise.integers(-1, 2, still.shape)).clip(0, 255).astype(np.uint8) for _ in range(30)]
    clip(folder / "in.mkv", frames)
    assert "1 frame painted, 29 unchanged" in paint("in.mkv").err
    painted = frames_of(Path("out.mkv"))
    assert all(np.array_equal(frame, painted[0]) for frame in painted)


@pytest.mark.slow
def test_a_slow_change_is_painted_when_it_has_added_up(paint: Paint, folder: Path) -> None:
    still, other = picture(0).astype(float), picture(1).astype(float)
    clip(folder / "in.mkv", [(still + (other - still) * number / 200).astype(np.uint8) for number in range(30)])
    done = paint("in.mkv")
    painted = int((re.search(r"(\d+) frames? painted", done.err) or ["", "0"])[1])
    assert 5 < painted < 30


@pytest.mark.slow
@pytest.mark.parametrize("flash", [False, True])
def test_a_clip_is_as_bright_as_its_source(paint: Paint, folder: Path, flash: bool) -> None:
    still = picture(0).astype(float) * 0.6 + 20
    gains = [1.0] * 6 + ([1.6] * 2 + [1.0] * 6 if flash else [0.8, 0.6, 0.4, 0.2, 0.0, 0.0])
    clip(folder / "in.mkv", [(still * gain).round().clip(0, 255).astype(np.uint8) for gain in gains])
    paint("in.mkv", "--palette", "free")  # a bright palette would leave flashes no room
    light = [frame.mean() for frame in frames_of(Path("out.mkv"))]
    assert np.allclose([each / light[0] for each in light], gains, atol=0.12)
    assert light[-1] == (light[0] if flash else 0)


@pytest.mark.slow
def test_a_fade_from_black_begins_with_black_and_is_painted_from_where_it_can_be_seen(
    paint: Paint, folder: Path
) -> None:
    still = picture(0).astype(float) * 0.6 + 20
    gains = [0.0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0]
    source = [(still * gain).round().clip(0, 255).astype(np.uint8) for gain in gains]
    done = paint(clip(folder / "in.mkv", source).name)
    frames = frames_of(Path("out.mkv"))
    assert not np.any(frames[:2])
    assert not np.allclose(frames[-1], source[-1], atol=8)
    light = [frame.mean() for frame in frames]
    assert np.allclose([each / light[-1] for each in light], gains, atol=0.08)
    assert " 1 frame painted, 9 unchanged" in done.err


@pytest.mark.slow
def test_a_frame_after_a_cut_knows_nothing_of_the_shot_before(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", two_shots())
    said = paint("in.mkv", "--frame-steps", "3").err
    assert "12 frames of 32x24 in 2 shots" in said
    # the fewest there can be; the first frame of a shot is not counted
    assert "; 3.0 steps on average for frames that follow another" in said
    clip(folder / "other.mkv", two_shots()[6:])
    paint("other.mkv", "--frame-steps", "3", target="alone.mkv")
    together, alone = frames_of(Path("out.mkv")), frames_of(Path("alone.mkv"))
    assert all(np.array_equal(a, b) for a, b in zip(together[6:], alone, strict=True))


@pytest.mark.slow
def test_following_frames_are_steadier_with_the_temporal_term(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", moving(6))
    apart = {}
    for weight in ("0", "50"):
        paint("in.mkv", "--temporal-weight", weight, "--frame-steps", "9")
        frames = [frame.astype(float) for frame in frames_of(Path("out.mkv"))]
        apart[weight] = np.mean([((b[:, :-1] - a[:, 1:])[:, 2:-2] ** 2).mean() for a, b in itertools.pairwise(frames)])
    assert apart["50"] < apart["0"]


@pytest.mark.slow
@pytest.mark.usefixtures("style")
def test_draft_and_best_are_the_ends_of_what_following_frames_get(call: Call, folder: Path) -> None:
    clip(folder / "in.mkv", moving(4))
    quick = [option for option in FAST if option != "--frame-steps"]
    quick.remove("2")  # of one of the two

    def average(*options: str) -> float:
        done = call("in.mkv", "style.png", "-o", "out.mkv", *quick, "--tolerance", "0", *options)
        assert done.code == 0, done.err
        found = re.search(r"([\d.]+) steps on average", done.err)
        assert found
        return float(found[1])

    draft, default, best = average("--draft"), average(), average("--best")
    assert 2 <= draft < default < best
    assert average("--best", "--frame-steps", "3") == 3
    both = call("in.mkv", "style.png", "-o", "out.mkv", *quick, "--draft", "--best")
    assert "--draft and --best exclude each other" in both.err
    assert both.code != 0


@pytest.mark.slow
def test_a_stretch_of_a_clip(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", [np.full((24, 32, 3), 5 * number, np.uint8) for number in range(20)])
    assert "8 frames" in paint("in.mkv", "--from", "0.5", "--to", "00:00:01.3").err
    assert len(frames_of(Path("out.mkv"))) == 8


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("80.5", Fraction(161, 2)), ("1:20", 80), ("00:01:20.5", Fraction(161, 2)), (None, None), ("1:0:0", 3600)],
)
def test_times_are_read(text: str | None, wanted: Fraction | None) -> None:
    assert seconds(text, "--from") == wanted


@pytest.mark.parametrize("text", ["", "a", "1:2:3:4", "-1", "1:-2", "nan", "1/0"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--from is"):
        seconds(text, "--from")


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("in.mkv", "style.png", "--from", "x"), "--from is 'x'", 2),
        (("in.mkv", "style.png", "--from", "2", "--to", "1"), "--to is not after --from", 2),
        (("in.mkv", "style.png", "--from", "99"), "", 1),
        (("in.mkv", "style.png", "-o", "in.mkv"), "also a source", 2),
        (("in.mkv", "style.png", "-o", "no/out.mkv"), "cannot write no/out.mkv", 2),
        (("in.mkv", "style.png", "--flow", "river"), "unknown flow 'river'", 2),
        (("in.mkv", "style.png", "--preview", "--report", "r.html"), "--preview, which only makes a sheet", 2),
        (("broken.mp4", "style.png"), "broken.mp4", 1),
        (("empty.mp4", "style.png"), "empty.mp4", 1),
        (("in.mkv", "missing.png"), "missing.png", 1),
        (("in.mkv", "style.png", "-o", "out.png"), "out.png", 2),
        (("in.mkv", "style.png", "-o", "frames/%d.png"), "cannot write frames/%d.png", 2),
        (("in.mkv", "style.png", "-o", "frames", "--codec", "h264"), "--codec does not apply to a sequence", 2),
        (("in.mkv", "style.png", "-o", "frames", "--crf", "20"), "--crf does not apply to a sequence", 2),
        (("in.mkv", "style.png", "-o", "out%D.png"), "cannot write out%D.png", 2),
        (("in.mkv", "style.png", "-o", "out%99999999999999999999d.png"), "cannot write out%9", 2),
        (("in.mkv", "style.png", "-o", "/"), "cannot write /: give the path", 2),
        (("in.mkv", "style.png", "-o", "/proc/out.mkv"), "no file can be made in /proc", 1),
        (("in.mkv", "style.png", "-o", "o" * 247 + ".mkv"), "File name too long", 1),
        (("in.mkv", "000002.png", "-o", "."), "000002.png is also a source", 2),
        (("in.mkv", "000002.png", "-o", "%06d.png"), "the target 000002.png is also a source", 2),
        (("in.mkv", "style.png", "-o", "out.mkv", "--codec", "ffv1", "--crf", "20"), "ffv1 has no crf", 2),
        (("in.mkv", "style.png", "--hold"), "--hold needs --every N", 2),
        (("in.mkv", "style.png", "--preview", "--partial"), "--preview, which makes no clip", 2),
        (("in.mkv", "style.png", "-o", "out.mp4", "--codec", "prores"), "cannot hold prores; use .mov", 2),
        (("in.mkv", "style.png", "--jobs", "2", "--executor", "serial"), "--jobs 2 needs processes", 2),
    ],
)
def test_a_clip_that_cannot_be_made_is_one_clear_line(
    call: Call, style: Path, folder: Path, arguments: tuple[str, ...], words: str, code: int
) -> None:
    clip(folder / "in.mkv", moving(3))
    (folder / "broken.mp4").write_bytes(os.urandom(5000))
    (folder / "empty.mp4").touch()
    (folder / "000002.png").write_bytes(style.read_bytes())
    before = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    done = call(*arguments, *FAST[:-2])
    assert done.code == code, done.err
    assert words in done.err
    assert done.err.count("\n") == 1
    assert sorted(path for path in folder.iterdir() if not path.name.startswith(".")) == before


def test_pictures_and_unknown_files_are_left_to_others(tmp_path: Path) -> None:
    from stylize.host import plugin_manager

    host = plugin_manager()
    (tmp_path / "a.gif").touch()
    for name in ("a.png", "a.gif", "a", "missing.mp4"):
        assert stylize_open(tmp_path / name, [], None, QUICK, {}, host) is None


def started(environment: Mapping[str, str], folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stylize", "in.mkv", "style.png", "-o", "out.mkv", *FAST, *options]
    return preloaded.Popen(
        command, cwd=folder, env={**environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


KILLED = """
import itertools, os, runpy, signal, sys
from stylize.optimizer import LBFGS

last, step, count = int(sys.argv.pop(1)), LBFGS.step, itertools.count(1)

def counted(self):
    if next(count) > last:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self)

LBFGS.step = counted
runpy.run_module("stylize", run_name="__main__")
"""


@pytest.mark.slow
def test_killed_amid_a_frame_it_goes_on_and_the_clip_is_the_same(
    cli_environment: Mapping[str, str], paint: Paint, folder: Path
) -> None:
    clip(folder / "in.mkv", [*moving(4, 0), *moving(4, 1)])
    (folder / "killed.py").write_text(KILLED)
    times: dict[str, int] = {}
    for steps in (8, 10):  # a few of them measure how long one takes
        command = [sys.executable, "killed.py", str(steps), "in.mkv", "style.png", "-o", "out.mkv", *FAST]
        done = preloaded.run(command, cwd=folder, env={**cli_environment}, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        painted = list((folder / ".out.mkv.work").glob("0*.png"))
        assert len(times) < len(painted) < 8
        for path in painted:
            mark = path.stat().st_mtime_ns
            assert times.setdefault(path.name, mark) == mark  # painted once
        assert not (folder / "out.mkv").exists()
    paint("in.mkv")
    paint("in.mkv", target="undisturbed.mkv")
    resumed, undisturbed = frames_of(folder / "out.mkv"), frames_of(folder / "undisturbed.mkv")
    assert len(resumed) == 8
    assert all(np.array_equal(a, b) for a, b in zip(resumed, undisturbed, strict=True))


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_partial_makes_a_clip_of_it(
    cli_environment: Mapping[str, str], style: Path, folder: Path
) -> None:
    clip(folder / "in.mkv", moving(60))  # events of which are more than a pipe holds: none ends before it is heard
    for options, made in ((("--seed", "1"), False), (("--seed", "1", "--partial"), True)):
        with started(cli_environment, folder, "--steps", "60", "--frame-steps", "60", "--json", *options) as process:
            assert process.stdout is not None
            until = time.monotonic() + 300
            for line in process.stdout:
                if '"painted"' in line or time.monotonic() > until:
                    break
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=300)
        assert process.returncode == 130
        assert (folder / "out.mkv").exists() == made
        assert made or "the same command goes on" in rest
    assert 0 < len(frames_of(folder / "out.mkv")) < 60
    assert (folder / ".out.mkv.work").exists()


def stopping(name: str) -> Callable[..., Any]:
    """A job's run that is stopped, as by Ctrl-C, in the last step of the frame of that name."""
    run = stylize.run

    def stopped(job: Job, stylizer: Stylizer, **given: Any) -> Path | None:
        seen: list[str] = []
        given |= {"on_step": lambda frame, _: seen.append(frame.name), "stop": lambda: name in seen}
        return run(job, stylizer, **given)

    return stopped


@pytest.mark.parametrize("name", ["frame 0", "frame 3"])
@pytest.mark.slow
def test_a_frame_that_was_stopped_is_painted_anew(paint: Paint, folder: Path, name: str) -> None:
    clip(folder / "in.mkv", moving(6))
    paint("in.mkv", target="undisturbed.mkv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stylize.executors.run", stopping(name))
        assert f"{name[-1]} of 6 frames are done" in paint("in.mkv").err
    paint("in.mkv")
    pairs = zip(frames_of(Path("out.mkv")), frames_of(Path("undisturbed.mkv")), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("target", ["out.mkv", "out.gif", "frames"])
@pytest.mark.slow
def test_a_part_ends_before_the_first_frame_that_is_missing(paint: Paint, folder: Path, target: str) -> None:
    clip(folder / "in.mkv", two_shots())
    paint("in.mkv", "--preview", target=target, codec=False)  # the first frame of the second shot is there
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stylize.executors.run", stopping("frame 3"))
        paint("in.mkv", "--partial", "--report", "part.html", target=target, codec=False)
    made = Path(target)
    assert len(list(made.iterdir()) if made.is_dir() else frames_of(made)) == 4  # with what there is of the last
    assert re.search(r"<dt>frames</dt><dd>4</dd>", Path("part.html").read_text())


@pytest.mark.slow
def test_other_settings_begin_anew(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", moving(4))
    with pytest.MonkeyPatch.context() as patch:  # as if killed before it was cleared
        patch.setattr("stylize_video.job.Work.remove", lambda _: None)
        paint("in.mkv")
        assert "4 done before" in paint("in.mkv").err
        said = paint("in.mkv", "--content-weight", "0.2").err
        assert "4 frames done before with other settings are kept in .out.mkv.work-" in said
        assert "4 done before" in paint("in.mkv").err  # and are there when their settings are back


def other_run(folder: Path) -> Claims:
    """The claims of another run on out.mkv, at work or not."""
    return Claims(Work(folder / "out.mkv").claims)


@pytest.mark.slow
def test_a_run_waits_for_the_plan_of_one_that_has_just_begun(
    paint: Paint, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip(folder / "in.mkv", moving(3))
    claims = other_run(folder)
    assert claims.take(LEAD)
    monkeypatch.setattr("stylize.executors.time.sleep", lambda _: claims.close())  # the other gives up meanwhile
    assert "another run has just begun to paint out.mkv: waiting for its plan" in paint("in.mkv").err
    assert len(frames_of(Path("out.mkv"))) == 3


def test_a_sheet_is_not_drawn_of_a_clip_that_another_run_paints(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", moving(3))
    with contextlib.closing(other_run(folder)) as claims:
        assert claims.take(LEAD)
        assert "another run is painting out.mkv" in paint("in.mkv", "--preview", check=1).err


def test_a_stylizer_of_any_size_paints_even_frames(stylizer: Stylizer, tmp_path: Path) -> None:
    flow = engine("dis")
    assert flow is not None
    source = clip(tmp_path / "in.mkv", [picture(0, 22, 34)] * 2)
    for size, wanted in ((33, (20, 32)), (16, (10, 16)), (500, (22, 34))):
        job = VideoJob(source, [], tmp_path / "out.mkv", QUICK.replace(size=size), {}, flow)
        assert (job._task.height, job._task.width) == wanted
    with pytest.raises(SettingsError, match="must be even"):
        VideoJob(source, [], tmp_path / "out.mkv", QUICK.replace(size=77, upscale=True), {}, flow)


@pytest.mark.slow
def test_every_third_frame_is_painted_and_those_between_are_made_of_both_or_held(paint: Paint, folder: Path) -> None:
    frames = moving(8)
    clip(folder / "in.mkv", frames)
    assert "4 frames painted" in paint("in.mkv", "--every", "3").err  # the last one, too
    carried = [frame.astype(int) for frame in frames_of(Path("out.mkv"))]
    assert "3 frames painted, 5 unchanged" in paint("in.mkv", "--every", "3", "--hold", target="held.mkv").err
    held = [frame.astype(int) for frame in frames_of(Path("held.mkv"))]
    assert len(carried) == len(held) == 8
    for number in range(8):
        assert np.array_equal(held[number], held[number // 3 * 3])
    assert np.array_equal(carried[0], held[0])
    for number in (1, 2, 4, 5):  # the contents move by a pixel a frame
        before, after = number // 3 * 3, number // 3 * 3 + 3
        gone = abs(carried[number][:, 2:-6] - carried[before][:, 2 + number - before : number - before - 6]).mean()
        left = abs(carried[number][:, 6:-2] - carried[after][:, 6 - after + number : -2 - after + number]).mean()
        apart = abs(carried[after][:, 2:-6] - carried[before][:, 5:-3]).mean()
        assert gone + left < 1.5 * apart + 0.2 * abs(carried[number][:, 2:-6] - carried[before][:, 2:-6]).mean()


@pytest.mark.slow
def test_a_preview_paints_the_first_frame_of_each_shot_and_the_clip_goes_on_from_there(
    paint: Paint, folder: Path
) -> None:
    from PIL import Image

    clip(folder / "in.mkv", two_shots())
    done = paint("in.mkv", "--preview")
    assert done.out == "out-preview.png\n"
    assert not Path("out.mkv").exists()
    drawn = np.asarray(Image.open("out-preview.png")).astype(int)
    assert "2 done before" in paint("in.mkv").err
    painted = frames_of(Path("out.mkv"))
    for number in (0, 6):
        places = [
            (y, x)
            for y in range(drawn.shape[0] - 23)
            for x in range(drawn.shape[1] - 31)
            if np.array_equal(drawn[y : y + 24, x : x + 32], painted[number])
        ]
        assert len(places) == 1


@pytest.mark.slow
@pytest.mark.parametrize("first", [(), ("--draft",)])
def test_after_a_preview_a_draft_is_one_and_another_clip_is_none(
    paint: Paint, folder: Path, first: tuple[str, ...]
) -> None:
    clip(folder / "in.mkv", moving(4))
    paint("in.mkv", "--preview", *first)
    second = () if first else ("--draft",)
    assert f"{2 if second else 3} frames painted" in paint("in.mkv", *second).err  # each third one would be one


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "drawn"), [("%03d.png", "preview.png"), ("a-%d.png", "a-preview.png"), ("frames", "frames-preview.png")]
)
def test_the_preview_of_a_sequence_is_no_frame_of_it(paint: Paint, folder: Path, target: str, drawn: str) -> None:
    clip(folder / "in.mkv", moving(3))
    assert paint("in.mkv", "--preview", target=target, codec=False).out == f"{drawn}\n"
    assert "1 done before" in paint("in.mkv", target=target, codec=False).err
    assert Path(drawn).exists()


@pytest.mark.slow
def test_a_preview_under_a_name_of_its_own_leaves_nothing_over(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", moving(3))
    assert paint("in.mkv", "--preview", target="sheet.png", codec=False).out == "sheet.png\n"
    assert not list(folder.glob(".sheet*"))


@pytest.mark.slow
def test_frames_can_go_into_this_folder(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", moving(3))
    paint("in.mkv", target=".", codec=False)
    assert sorted(path.name for path in folder.glob("0*")) == ["000001.png", "000002.png", "000003.png"]


@pytest.mark.slow
def test_to_ask_for_what_is_so_anyway_begins_nothing_anew(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", moving(3))
    paint("in.mkv", "--preview")
    assert "1 done before" in paint("in.mkv", "--every", "1").err


def test_a_preview_of_many_shots_shows_some_of_them_first_and_last_among_them() -> None:
    shots = [range(10 * number, 10 * number + 10) for number in range(100)]
    some = contact_sheet.chosen(shots)
    assert len(some) == len(set(some)) == contact_sheet.MOST
    assert (some[0], some[-1]) == (shots[0], shots[-1])
    assert contact_sheet.chosen(shots[:5]) == shots[:5]


@pytest.mark.parametrize(("target", "first"), [("frames/%03d.png", "frames/001.png"), ("frames", "frames/000001.png")])
@pytest.mark.slow
def test_a_sequence_of_pictures_holds_the_frames(paint: Paint, folder: Path, target: str, first: str) -> None:
    from PIL import Image

    clip(folder / "in.mkv", moving(4))
    (folder / "frames").mkdir()
    paint("in.mkv")
    done = paint("in.mkv", target=target, codec=False)
    assert done.out == f"{target}\n"
    found = sorted(Path("frames").iterdir())
    assert str(found[0]) == first
    assert len(found) == 4
    for path, frame in zip(found, frames_of(Path("out.mkv")), strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), frame)


@pytest.mark.slow
def test_shots_side_by_side_are_the_same_clip(paint: Paint, cli: Cli, folder: Path) -> None:
    clip(folder / "in.mkv", two_shots())
    paint("in.mkv", target="one.mkv")
    done = cli("in.mkv", "style.png", "-o", "two.mkv", "--jobs", "2", *FAST)
    assert "12 frames painted" in done.stderr
    one, two = frames_of(folder / "one.mkv"), frames_of(folder / "two.mkv")
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not list(folder.glob(".two*"))


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Something happens when a frame has been written."""

    def at(number: int, happens: Callable[[], object]) -> None:
        write = VideoJob.write

        def written(job: VideoJob, frame: Frame, painted: Painted) -> None:
            write(job, frame, painted)
            if frame.data["number"] == number:
                happens()

        monkeypatch.setattr(VideoJob, "write", written)

    return at


@pytest.mark.slow
def test_a_second_run_takes_the_shots_that_are_free(paint: Paint, folder: Path, after: Callable[..., None]) -> None:
    clip(folder / "in.mkv", two_shots())
    paint("in.mkv", "--preview")  # has made the plan
    work, claims = Work(folder / "out.mkv"), other_run(folder)
    assert claims.take(LEAD)
    assert claims.take("00000000")
    assert "another run is painting out.mkv" in paint("in.mkv", "--content-weight", "0.3", check=1).err

    def made() -> None:
        assert work.done(range(6, 12)) == 6
        assert work.done(range(6)) == 1
        work.remove()  # as the other run does when it has made the clip
        claims.close()

    after(11, made)
    assert "5 frames painted; the other run makes the clip" in paint("in.mkv").err
    assert not list(folder.glob(".out.mkv*"))


@pytest.mark.parametrize("last", [3, 11])
@pytest.mark.slow
def test_a_run_that_joined_another_takes_the_lead_when_that_ends(
    paint: Paint, folder: Path, after: Callable[..., None], last: int
) -> None:
    clip(folder / "in.mkv", two_shots())
    paint("in.mkv", target="undisturbed.mkv")
    paint("in.mkv", "--preview")
    claims = other_run(folder)
    assert claims.take(LEAD)
    after(last, claims.close)
    assert "the other run has ended: this one makes the clip" in paint("in.mkv").err
    pairs = zip(frames_of(Path("out.mkv")), frames_of(Path("undisturbed.mkv")), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    assert not list(folder.glob(".out.mkv*"))


@pytest.mark.slow
def test_other_settings_wait_for_a_run_whose_leading_run_has_ended(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", two_shots())
    paint("in.mkv", "--preview")
    with contextlib.closing(other_run(folder)) as claims:
        assert claims.take("00000006")
        assert "another run is painting out.mkv" in paint("in.mkv", "--content-weight", "0.3", check=1).err
    assert Work(folder / "out.mkv").done(range(12)) == 2


@pytest.mark.slow
def test_time_and_room_are_told_before(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", moving(4))
    assert re.search(r"about \d+ s, at \S+ s per step; up to \d+ kB in \.out\.mkv\.work", paint("in.mkv").err)


@pytest.mark.slow
def test_too_little_room_is_told_before(paint: Paint, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(folder / "in.mkv", moving(4))
    monkeypatch.setattr("stylize_video.planning.disk_space", lambda *_: (5_000_000, 2_000_000))
    assert "only 2 MB are free there" in paint("in.mkv").err


def test_the_expected_steps_of_samples_are_what_frames_get() -> None:
    def steps(frames: Sequence[Array], cuts: Sequence[int] = ()) -> float:
        samples, flow = Samples(len(frames)), engine("dis")
        assert flow is not None
        assert len(list(samples.watch(iter(frames)))) == len(frames)
        return samples.expected_steps(cuts, flow, 3, 24)

    still = [picture(0)] * 10
    assert steps(still) == 0
    assert 3 <= steps(moving(10)) < steps([picture(seed) for seed in range(10)]) <= 24
    assert steps([*still, *[picture(1)] * 10], cuts=[10]) == 0


@pytest.mark.slow
def test_the_report_tells_of_every_frame(paint: Paint, folder: Path) -> None:
    clip(folder / "in.mkv", [*moving(6, 0), *[moving(6, 1)[0]] * 6])
    paint("in.mkv", "--report", "clip.html")
    page = Path("clip.html").read_text()
    assert re.search(r"<dt>frames</dt><dd>12</dd>", page)
    assert re.search(r"<dt>shots</dt><dd>2</dd>", page)
    assert re.search(r"<dt>unchanged</dt><dd>5</dd>", page)
    assert page.count("data:image/jpeg") == 24
    for name in ("E_warp", "style", "in.mkv", "style.png", "tiny"):
        assert name in page


@pytest.mark.parametrize(
    ("report", "words", "code"),
    [("clip.txt", "must end in .html", 2), ("no/clip.html", "cannot write no/clip.html", 2)],
)
def test_a_report_that_cannot_be_written_is_refused_at_once(
    paint: Paint, folder: Path, report: str, words: str, code: int
) -> None:
    clip(folder / "in.mkv", moving(3))
    assert words in paint("in.mkv", "--report", report, check=code).err
    assert not list(folder.glob(".out*"))
