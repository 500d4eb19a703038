"""Jobs: what every one of them keeps to, and run(), which drives them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import stylize
from stylize import Chain, Claims, Frame, ImageError, Job, Painted, Picture, Settings, Step, Stylizer, Term, images
from stylize.builtin import stylize_open
from stylize.cli.display import Json
from stylize.jobs import ImageJob, check_distinct
from stylize.painting import paint
from stylize.testing import FileJobContract, tiny_encoder
from stylize_batch.job import FolderJob
from tests.conftest import waves

QUICK = Settings(encoder="tiny", size=16, steps=(2,), tolerance=0.0, device="cpu")


# The contract of every job


def image_job(folder: Path) -> Job:
    Picture(waves(12, 16, 1)).save(folder / "photo.png")
    return ImageJob(folder / "photo.png", folder / "out.png")


class TestImageJob(FileJobContract):
    @pytest.fixture
    def job(self, tmp_path: Path) -> Job:
        return image_job(tmp_path)


class TestFolderJob(FileJobContract):
    @pytest.fixture
    def job(self, tmp_path: Path) -> Job:
        (tmp_path / "photos" / "inner").mkdir(parents=True)
        for number, name in enumerate(("a.png", "b.jpg", "inner/c.png")):
            Picture(waves(12, 16, number)).save(tmp_path / "photos" / name)
        Picture(waves(16, 16, 9)).save(tmp_path / "style.png")
        style, out = tmp_path / "style.png", tmp_path / "out"
        return FolderJob(tmp_path / "photos", [style], out, QUICK, {"bits": 8, "quality": None})


# ImageJob


def test_the_picture_of_an_image_job_is_written_with_its_options(tmp_path: Path) -> None:
    image_job(tmp_path)
    sizes = []
    for quality in (10, 100):
        job = ImageJob(tmp_path / "photo.png", tmp_path / "out.jpg", quality=quality)
        (frame,) = job.frames(Chain(""))
        job.write(frame, Painted(Picture(waves(64, 64, 3))))
        sizes.append((tmp_path / "out.jpg").stat().st_size)
    assert sizes[0] < sizes[1]
    job = ImageJob(tmp_path / "photo.png", tmp_path / "deep.png", bits=16)
    (frame,) = job.frames(Chain(""))
    job.write(frame, Painted(Picture(torch.full((1, 3, 4, 4), 0.3))))
    assert float((images.load(tmp_path / "deep.png").rgb - 0.3).abs().max()) < 0.6 / 65535
    assert frame.name == "photo"


def test_without_a_target_an_image_job_writes_beside_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    image_job(tmp_path)
    monkeypatch.chdir(tmp_path / "work")
    job = ImageJob(tmp_path / "photo.png", None)
    (frame,) = job.frames(Chain(""))
    job.write(frame, Painted(frame.image))
    assert job.finish() == Path("photo-stylized.png")
    assert (tmp_path / "work" / "photo-stylized.png").exists()


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("nowhere/out.png", {}),
        ("out.bmp", {}),
        ("out.jpg", {"bits": 16}),
        ("out.png", {"bits": 12}),
        ("out.jpg", {"quality": 0}),
        ("photo.png", {}),
    ],
)
def test_an_image_job_that_could_not_be_written_is_not_begun(
    tmp_path: Path, target: str, options: dict[str, Any]
) -> None:
    image_job(tmp_path)
    with pytest.raises(ImageError) as raised:
        ImageJob(tmp_path / "photo.png", tmp_path / target, **options)
    assert str(tmp_path / target) in str(raised.value)


def test_an_image_job_reads_little_more_than_its_size(tmp_path: Path) -> None:
    image_job(tmp_path)
    for size, read in ((None, (12, 16)), (2, (6, 8)), (100, (12, 16))):
        job = ImageJob(tmp_path / "photo.png", tmp_path / "out.png", size=size)
        (frame,) = job.frames(Chain(""))
        assert frame.image.size == read


def test_a_result_too_large_for_its_format_is_refused_at_once(tmp_path: Path) -> None:
    Picture(torch.zeros(1, 3, 1, 17000)).save(tmp_path / "wide.png")
    with pytest.raises(ImageError, match="16383 pixels a side"):
        ImageJob(tmp_path / "wide.png", tmp_path / "out.webp", size=20000)
    ImageJob(tmp_path / "wide.png", tmp_path / "out.webp", size=16383)


def test_a_default_target_with_too_long_a_name_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = Path("x" * 245 + ".png")
    Picture(waves(12, 16, 1)).save(source)
    for keep in ((), (source,)):
        with pytest.raises(ImageError, match=r"^cannot write x+-stylized\.png: File name too long; .*$"):
            ImageJob(source, None, keep=keep)


def test_odd_sources_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("x" * 300, "loop", "nul\0"):
        with pytest.raises(ImageError, match="cannot read"):
            stylize_open(tmp_path / name, (), None, QUICK, {})
    assert stylize_open(tmp_path, (), None, QUICK, {}) is None


def test_a_source_that_cannot_be_read_is_refused_when_the_job_is_made(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.png"):
        ImageJob(tmp_path / "missing.png", tmp_path / "out.png")


# run()


class Recorder(Job):
    """A job of three frames that notes what happens; each frame begins where the last ended."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.results: list[Picture] = []
        self.painted: list[Painted] = []

    def begin(self, stylizer: Stylizer) -> None:
        self.log.append("begin")

    def frames(self, chain: Chain) -> Iterator[Frame]:
        last: Tensor | None = None
        for number in range(3):
            self.log.append(f"pull {number}")
            yield Frame(str(number), Picture(waves(12, 16, number)), last)
            last = self.results[-1].rgb if self.results else None

    def write(self, frame: Frame, painted: Painted) -> None:
        self.log.append(f"write {frame.name}")
        self.results.append(painted.picture)
        self.painted.append(painted)

    def finish(self) -> Path | None:
        self.log.append("finish")
        return Path("the end")


WHOLE = ["begin", "pull 0", "write 0", "pull 1", "write 1", "pull 2", "write 2", "finish"]


def test_each_frame_is_written_before_the_next_is_pulled(stylizer: Stylizer) -> None:
    job = Recorder()
    assert stylize.run(job, stylizer) == Path("the end")
    assert job.log == WHOLE


def test_a_frame_begins_where_its_job_says(stylizer: Stylizer) -> None:
    job = Recorder()
    stylize.run(job, stylizer)
    first, second, third = (result.rgb for result in job.results)
    assert torch.equal(first, stylizer(waves(12, 16, 0)).rgb)
    assert torch.equal(second, stylizer(waves(12, 16, 1), init=first).rgb)
    assert torch.equal(third, stylizer(waves(12, 16, 2), init=second).rgb)
    assert not torch.equal(third, stylizer(waves(12, 16, 2)).rgb)


def test_observers_see_every_frame_and_every_step_of_it(stylizer: Stylizer) -> None:
    job = Recorder()
    steps: list[tuple[str, int]] = []

    def on_step(frame: Frame, step: Step) -> None:
        steps.append((frame.name, step.number))

    stylize.run(job, stylizer, on_step=on_step)
    assert steps == [(name, number) for name in "012" for number in (1, 2)]


def test_stop_writes_the_frame_in_work_and_finishes(stylizer: Stylizer) -> None:
    job, steps = Recorder(), list[Step]()
    path = stylize.run(job, stylizer, on_step=lambda frame, step: steps.append(step), stop=lambda: len(steps) >= 3)
    assert job.log == ["begin", "pull 0", "write 0", "pull 1", "write 1", "finish"]
    assert len(steps) == 3
    assert path == Path("the end")
    assert job.results[-1].size == (12, 16)


@pytest.fixture
def unlucky(stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch) -> Stylizer:
    """A stylizer that fails at every second picture."""
    calls = [0]

    def fails(*arguments: Any, **options: Any) -> Tensor:
        calls[0] += 1
        if calls[0] % 2:
            raise stylize.OptimizationError("no luck")
        return paint(*arguments, **options)

    monkeypatch.setattr("stylize.stylizer.paint", fails)
    return stylizer


def test_an_error_of_the_stylizer_reaches_the_caller_and_writes_nothing(tmp_path: Path, unlucky: Stylizer) -> None:
    job = image_job(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(stylize.OptimizationError):
        stylize.run(job, unlucky)
    assert sorted(tmp_path.iterdir()) == before


def test_a_job_may_go_on_after_a_frame_that_failed(unlucky: Stylizer) -> None:
    class Forgiving(Recorder):
        def failed(self, chain: Chain, error: Exception) -> None:
            self.log.append(f"failed: {error}")

    job = Forgiving()
    assert stylize.run(job, unlucky) == Path("the end")
    assert job.log[1:] == ["pull 0", "failed: no luck", "pull 1", "write 1", "pull 2", "failed: no luck", "finish"]


def test_a_frame_that_cannot_be_written_is_the_jobs_to_judge(stylizer: Stylizer) -> None:
    class Full(Recorder):
        def write(self, frame: Frame, painted: Painted) -> None:
            raise ImageError("disk full")

    job = Full()
    with pytest.raises(ImageError, match="disk full"):
        stylize.run(job, stylizer)
    assert job.log == ["begin", "pull 0"]


def test_the_frames_of_a_job_are_closed_before_it_is_finished(stylizer: Stylizer, unlucky: Stylizer) -> None:
    class Tidy(Recorder):
        def frames(self, chain: Chain) -> Iterator[Frame]:
            try:
                yield from super().frames(chain)
            finally:
                self.log.append("closed")

    job = Tidy()
    with pytest.raises(stylize.OptimizationError):
        stylize.run(job, unlucky)
    assert job.log == ["begin", "pull 0", "closed"]
    job = Tidy()
    stylize.run(job, stylizer, stop=lambda: True)
    assert job.log == ["begin", "pull 0", "write 0", "closed", "finish"]


def test_what_was_painted_says_how(stylizer: Stylizer) -> None:
    job, seen = Recorder(), list[Step]()
    stylize.run(job, stylizer, on_step=lambda frame, step: seen.append(step), stop=lambda: len(seen) >= 3)
    whole, part = job.painted
    assert (whole.steps, part.steps) == (2, 1)
    assert (whole.stopped, part.stopped) == (False, True)
    assert whole.terms == seen[1].terms
    assert 0 < whole.seconds < 60
    assert [(painted.picture.record or {}).get("stopped", False) for painted in job.painted] == [False, True]


@pytest.mark.slow
def test_a_job_that_waits_is_asked_for_chains_again_until_stopped(stylizer: Stylizer) -> None:
    class Waiting(Recorder):
        poll = 0.01

        def chains(self) -> Iterator[Chain]:
            self.log.append("chains")
            if self.log.count("chains") == 3:
                yield Chain("late")

    job = Waiting()
    assert stylize.run(job, stylizer, stop=lambda: job.log.count("chains") >= 5) == Path("the end")
    assert [each for each in job.log if each != "chains"] == WHOLE


@pytest.mark.slow
def test_a_chain_is_painted_when_another_run_has_let_it_go(stylizer: Stylizer, tmp_path: Path) -> None:
    class Two(Recorder):
        def chains(self) -> Iterator[Chain]:
            yield Chain("held")
            yield Chain("free")

        def frames(self, chain: Chain) -> Iterator[Frame]:
            self.log.append(chain.key)
            if chain.key == "free":
                other.release("held")
            yield Frame(chain.key, Picture(waves(12, 16, 0)))

    other, job = Claims(tmp_path / "claims"), Two()
    assert other.take("held")
    job.claims = Claims(tmp_path / "claims")
    stylize.run(job, stylizer)
    assert job.log == ["begin", "free", "write free", "held", "write held", "finish"]
    assert not (tmp_path / "claims").exists()


def test_frames_may_have_their_own_styles_each_measured_once(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    styles = [(Picture(waves(20, 20, seed)),) for seed in (5, 6)]

    class Various(Recorder):
        def frames(self, chain: Chain) -> Iterator[Frame]:
            for number in range(4):
                yield Frame(str(number), Picture(waves(12, 16, 0)), styles=styles[number % 2])

    made: list[tuple[Picture, ...]] = []
    restyled = stylizer.restyled
    monkeypatch.setattr(stylizer, "restyled", lambda style, weights: made.append(style) or restyled(style, weights))  # type: ignore[func-returns-value]
    job = Various()
    stylize.run(job, stylizer)
    assert [style is own for style, own in zip(made, styles, strict=True)] == [True, True]
    results = [result.rgb for result in job.results]
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])
    alone = Stylizer(styles[0], stylizer.settings, encoders=[tiny_encoder()])
    assert torch.equal(results[0], alone(waves(12, 16, 0)).rgb)


def test_the_terms_of_a_frame_are_added_to_the_loss(stylizer: Stylizer) -> None:
    class Dark(Recorder):
        def frames(self, chain: Chain) -> Iterator[Frame]:
            for terms in ([], [Term("dark", 100.0, lambda image, features: image.mean())]):
                yield Frame("0", Picture(waves(12, 16, 0)), terms=terms)

    job = Dark()
    stylize.run(job, stylizer)
    plain, dark = (float(result.rgb.mean()) for result in job.results)
    assert dark < plain


# check_distinct()


def test_a_target_that_is_a_source_is_refused_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, cellar = Path("photo.png"), Path("cellar")
    source.touch()
    cellar.mkdir()
    Path("link.png").symlink_to(source)
    Path("hard.png").hardlink_to(source)
    Path("attic").symlink_to(cellar)
    (cellar / "deep.png").touch()
    for target in ("photo.png", "./photo.png", "cellar/../photo.png", "link.png", "hard.png", tmp_path / "photo.png"):
        with pytest.raises(ImageError, match=r"photo\.png|link\.png|hard\.png"):
            check_distinct(Path(target), source)
        with pytest.raises(ImageError):
            check_distinct(source, Path("other.png"), Path(target))
    with pytest.raises(ImageError):
        check_distinct(Path("attic/deep.png"), cellar / "deep.png")


def test_odd_paths_are_compared_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "photo.png").touch()
    for name in ("x" * 300, "loop"):
        check_distinct(tmp_path / name, tmp_path / "photo.png")
        check_distinct(tmp_path / "out.png", tmp_path / name)
    with pytest.raises(ImageError, match="null"):
        check_distinct(tmp_path / "nul\0", tmp_path / "photo.png")


def test_other_targets_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "old.png"):
        Path(name).touch()
    Path("cellar").mkdir()
    for target in ("out.png", "old.png", "cellar/photo.png", "photo.jpg"):
        check_distinct(Path(target), Path("photo.png"), tmp_path / "missing.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cellar", "old.png", "photo.png"]


def test_frames_that_are_copied_are_told_and_neither_painted_nor_written(
    stylizer: Stylizer, capsys: pytest.CaptureFixture[str]
) -> None:
    written = list[str]()

    class Copying(Job):
        def frames(self, chain: Chain) -> Iterator[Frame]:
            for number in (1, 2, 3):
                yield Frame(f"frame {number}", stylizer.styles[0], number=number, total=3, copied=number == 2)

        def write(self, frame: Frame, painted: Painted) -> None:
            written.append(frame.name)

    host, display = stylize.plugin_manager(only=[]), Json()
    host.register(display, "the display")
    with display:
        stylize.run(Copying(), stylizer, host=host)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [(event["event"], event["picture"]) for event in events if event["event"] in ("painted", "copied")]
    assert told == [("painted", "frame 1"), ("copied", "frame 2"), ("painted", "frame 3")]
    assert written == ["frame 1", "frame 3"]
    assert events[-1]["fraction"] == 1


def test_a_run_can_be_stopped_amid_frames_that_are_copied(stylizer: Stylizer) -> None:
    asked = list[int]()

    class Copying(Job):
        def frames(self, chain: Chain) -> Iterator[Frame]:
            for number in range(1, 9):
                asked.append(number)
                yield Frame(f"frame {number}", stylizer.styles[0], number=number, total=8, copied=True)

        def write(self, frame: Frame, painted: Painted) -> None:
            raise AssertionError

    stylize.run(Copying(), stylizer, stop=lambda: len(asked) == 3)
    assert asked == [1, 2, 3]
