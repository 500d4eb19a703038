"""What runs that share a folder ask for: each picture once, and little of what others have painted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

import stylize
from stylize import Chain, EncoderSpec, Picture, Settings, Stylizer
from stylize_batch.job import FolderJob
from stylize_batch.order import Order
from tests.conftest import waves

QUICK = Settings(encoder="tiny", size=16, steps=(1,), device="cpu")


def test_a_run_alone_keeps_to_the_order() -> None:
    order = Order(5)
    assert order.ahead(2) == [0, 1]
    assert [order.take() for _ in range(3)] == [0, 1, 2]
    assert order.ahead(4) == [3, 4]
    assert [order.take() for _ in range(4)] == [3, 4, None, None]
    assert order.ahead(1) == []
    assert Order(0).take() is None


@pytest.mark.parametrize("seed", range(5))
def test_each_is_taken_once_wherever_the_run_goes_on(seed: int) -> None:
    draw = random.Random(seed)
    order, taken = Order(200, draw), list[int]()
    while (number := order.take()) is not None:
        taken.append(number)
        if draw.random() < 0.2:
            order.go_elsewhere()
        expected = order.ahead(2)
        assert not set(expected) & set(taken)
        assert len(set(expected)) == len(expected)
    assert sorted(taken) == list(range(200))
    assert taken != sorted(taken)


def test_runs_that_meet_go_on_in_different_places() -> None:
    """Each claims what none has claimed yet, and is told of the others only when it meets them."""
    runs, claimed, met = [Order(2000, random.Random(seed)) for seed in range(10)], set[int](), 0
    left = list(runs)
    while left:
        for run in list(left):
            while (number := run.take()) in claimed:
                met += 1
                run.go_elsewhere()
            if number is None:
                left.remove(run)
            else:
                claimed.add(number)
                for other in runs:  # what is done is known to all
                    other._next[number] = max(other._next[number], number + 1)
    assert claimed == set(range(2000))
    assert met < 100


# Folders


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[FolderJob]:
    """Two runs of one command."""
    monkeypatch.setenv("STYLIZE_REFRESH", "0.05")
    (tmp_path / "photos").mkdir()
    for number in range(4):
        Picture(waves(12, 16, number)).save(tmp_path / "photos" / f"{number}.png")
    Picture(waves(16, 16, 9)).save(tmp_path / "style.png")
    return [job_of(tmp_path) for _ in range(2)]


def job_of(folder: Path, **options: object) -> FolderJob:
    return FolderJob(folder / "photos", [folder / "style.png"], folder / "out", QUICK, options)


def stylizer_of(folder: Path, tiny: EncoderSpec, settings: Settings = QUICK) -> Stylizer:
    return Stylizer(folder / "style.png", settings, encoders=[tiny])


def begun(job: FolderJob, stylizer: Stylizer) -> list[Chain]:
    """The first chain of a job that has planned all of them."""
    job.begin(stylizer)
    job.rest = job.chains()  # type: ignore[attr-defined]
    return [next(job.rest)]  # type: ignore[attr-defined]


def left(job: FolderJob) -> list[Chain]:
    """What the job still asks for."""
    job.claims.look_done()
    return list(job.rest)  # type: ignore[attr-defined]


def collected(job: FolderJob, *chains: Chain) -> None:
    for chain in chains:
        outcome = job.outcome(chain)
        assert not isinstance(outcome, Future)
        job.collect(chain, outcome)


def ended(job: FolderJob) -> None:
    job.finish()
    job.claims.close()


def test_what_another_run_has_painted_is_not_even_looked_at(
    jobs: Sequence[FolderJob], tmp_path: Path, tiny: EncoderSpec, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "stylize")
    one, other = jobs
    stylizer = stylizer_of(tmp_path, tiny)
    (first,) = begun(one, stylizer)
    stylize.run(other, stylizer)
    for photo in (tmp_path / "photos").iterdir():
        photo.unlink()
    assert left(one) == []
    assert list(one.frames(first)) == []
    collected(one, first)
    caplog.clear()
    ended(one)
    assert "4 unchanged in" in caplog.text
    assert not (tmp_path / "out" / ".stylize-claims").exists()


def test_what_another_run_has_painted_otherwise_is_looked_at(
    jobs: Sequence[FolderJob], tmp_path: Path, tiny: EncoderSpec
) -> None:
    one, other = jobs
    (first,) = begun(one, stylizer_of(tmp_path, tiny))
    stylize.run(other, stylizer_of(tmp_path, tiny, QUICK.replace(content_weight=0.5)))
    rest = left(one)
    assert len(rest) == 3
    assert len(list(one.frames(rest[0]))) == 1
    collected(one, first, *rest)
    ended(one)


def test_what_was_painted_before_a_run_began_and_is_gone_again_is_painted(
    jobs: Sequence[FolderJob], tmp_path: Path, tiny: EncoderSpec
) -> None:
    one, other = jobs
    stylizer = stylizer_of(tmp_path, tiny)
    begun(one, stylizer)
    stylize.run(other, stylizer)
    (tmp_path / "out" / "2.png").unlink()
    third = job_of(tmp_path)
    (chain,) = begun(third, stylizer)
    assert chain.key == "2.png"
    assert len(list(third.frames(chain))) == 1
    for job in (third, one):
        ended(job)
