"""Executors: ours keep to the contract; workers that die, fail to start or are interrupted."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import stylize
import stylize.executors
from stylize import (
    Chain,
    Claims,
    Executor,
    Frame,
    Host,
    Job,
    Painted,
    Processes,
    Request,
    Serial,
    Settings,
    SettingsError,
    StylizeError,
    Stylizer,
    is_alive,
)
from stylize.machines import is_stopped
from stylize.testing import ExecutorContract, small_photos
from tests import moments, preloaded
from tests.conftest import PATIENCE
from tests.moments import moment, wait_for
from tests.test_jobs import Recorder


class TestSerial(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return Serial()


@pytest.mark.slow
class TestProcesses(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return Processes(2)


def opened(folder: Path, steps: int, **options: Any) -> tuple[Job, Stylizer, Host]:
    small_photos(folder)
    settings = Settings(encoder="mini", size=32, steps=(steps,), tolerance=0.0, device="cpu")
    request = Request(folder / "photos", (folder / "style.png",), folder / "out", settings, options)
    host = stylize.plugin_manager()
    job = request.open(host)
    return job, request.stylizer(job, host), host


def messages(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def test_a_job_that_was_not_opened_by_a_request_is_not_for_other_processes(stylizer: Stylizer) -> None:
    with pytest.raises(SettingsError, match="Request"):
        stylize.run(Recorder(), stylizer, executor=Processes(2))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_worker_that_is_killed_is_named_and_another_paints_its_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "stylize")
    monkeypatch.syspath_prepend(str(moments.plugin(tmp_path / "moments")))
    for name, value in moment("kill", "step 3", file=tmp_path / "killed").items():
        monkeypatch.setenv(name, value)
    job, painter, host = opened(tmp_path, 6)
    stylize.run(job, painter, host=host, executor=Processes(2))
    assert (tmp_path / "killed").exists()
    assert len(list((tmp_path / "out").iterdir())) == 4
    (told,) = messages(caplog, "was killed")
    assert re.fullmatch(r"worker \d \(process \d+\) was killed by signal 9; another one paints \d\.png", told)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_idle_worker_that_is_killed_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "stylize")
    job, painter, host = opened(tmp_path, 2, watch=True)
    collect, collected, killed = job.collect, list[Chain](), list[int | None]()
    late = tmp_path / "photos" / "late.png"

    def collecting(chain: Chain, outcome: Any) -> None:
        collected.append(chain)
        collect(chain, outcome)

    def stop() -> bool:
        """Asked in this process, whenever something has come from a worker or nothing for a moment."""
        if len(collected) == 4 and not killed:  # all of them are known to be idle
            for worker in multiprocessing.active_children():
                killed.append(worker.pid)
                worker.kill()
        if len(messages(caplog, "was killed")) == 2 and not late.exists():
            shutil.copy(tmp_path / "photos" / "0.png", tmp_path / "late.png")
            (tmp_path / "late.png").rename(late)
        return len(collected) == 5

    monkeypatch.setattr(job, "collect", collecting)
    stylize.run(job, painter, host=host, executor=Processes(2), stop=stop)
    assert len(killed) == 2
    assert len(messages(caplog, "was killed by signal 9 while it had nothing to do")) == 2
    assert (tmp_path / "out" / "late.png").exists()


def test_a_worker_that_cannot_begin_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    job, painter, host = opened(tmp_path, 2)
    (tmp_path / "style.png").unlink()
    with pytest.raises(StylizeError, match=r"style\.png"):
        stylize.run(job, painter, host=host, executor=Processes(2))


def test_a_job_of_one_chain_may_keep_its_result_until_it_finishes(stylizer: Stylizer) -> None:
    job = Recorder()
    job.request = Request(Path("photo"), (), None, Settings())
    assert stylize.run(job, stylizer, executor=Processes(2)) == Path("the end")
    assert len(job.results) == 3


class Overtaken(Recorder):
    """A job that fails once, as files do that another run has removed; ``lost``: as that has taken its claim over."""

    def __init__(self, folder: Path, where: str, *, lost: bool) -> None:
        super().__init__()
        self.claims = Claims(folder)
        self._folder, self._where, self._lost = folder, where, lost

    def _fail(self, where: str) -> None:
        if where != self._where:
            return
        self._where = ""
        for claim in self._folder.glob("*.0") if self._lost else ():
            claim.unlink()
        raise StylizeError("the file is gone")

    def frames(self, chain: Chain) -> Iterator[Frame]:
        for frame in super().frames(chain):
            yield frame
            self._fail("frames")

    def write(self, frame: Frame, painted: Painted) -> None:
        self._fail("write")
        super().write(frame, painted)

    def outcome(self, chain: Chain) -> None:
        self._fail("outcome")


@pytest.mark.parametrize("where", ["frames", "write", "outcome"])
def test_no_error_of_work_that_another_run_has_taken_over_counts(
    stylizer: Stylizer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(stylize.executors, "RETRY", 0.0)
    job = Overtaken(tmp_path / "lost", where, lost=True)
    assert stylize.run(job, stylizer) == Path("the end")
    assert [picture.size for picture in job.results[-3:]] == [(12, 16)] * 3
    assert "another run has taken it over while this one stood still" in caplog.text
    with pytest.raises(StylizeError, match="the file is gone"):
        stylize.run(Overtaken(tmp_path / "kept", where, lost=False), stylizer)


# From the command line


def started(environment: Mapping[str, str], folder: Path, file: Path) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a terminal starts it, whose workers make a file when they have taken
    three steps of a picture."""
    search = os.pathsep.join([environment["PYTHONPATH"], str(moments.plugin(folder / "moments"))])
    command = [sys.executable, "-m", "stylize", "photos", "style.png", "-o", "out", "--jobs", "2"]
    endless = ["--encoder", "mini", "--size", "32", "--steps", "100000", "--optimizer", "adam", "--tolerance", "0"]
    return preloaded.Popen(
        [*command, *endless],
        cwd=folder,
        env={**environment, "PYTHONPATH": search, **moment("tell", "step 3", file=file)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def painting(
    cli_environment: Mapping[str, str], tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], Sequence[int]]]:
    """A process whose two workers are in the midst of the steps of a picture, and their numbers."""
    small_photos(tmp_path)
    with started(cli_environment, tmp_path, tmp_path / "steps") as process:
        wait_for(lambda: len([*tmp_path.glob("steps.*")]) == 2)
        yield process, [int(path.suffix[1:]) for path in tmp_path.glob("steps.*")]
        process.kill()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("to_all", [True, False])
def test_ctrl_c_writes_what_all_workers_have(
    painting: tuple[subprocess.Popen[str], Sequence[int]], tmp_path: Path, to_all: bool
) -> None:
    process, workers = painting
    os.killpg(process.pid, signal.SIGINT) if to_all else process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "2 painted, 2 not begun" in err
    results = list((tmp_path / "out").iterdir())
    assert len(results) == 2
    assert all((stylize.read_record(path) or {})["stopped"] for path in results)
    assert not any(is_alive(worker) for worker in workers)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_second_ctrl_c_drops_what_workers_have(
    painting: tuple[subprocess.Popen[str], Sequence[int]], tmp_path: Path
) -> None:
    process, workers = painting
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # so that they do not heed the first
    wait_for(lambda: all(map(is_stopped, workers)))
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert any("press Ctrl-C again" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "stylize: interrupted"
    assert not any(is_alive(worker) for worker in workers)
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_workers_end_when_the_process_that_started_them_is_killed(
    painting: tuple[subprocess.Popen[str], Sequence[int]], tmp_path: Path
) -> None:
    process, workers = painting
    process.kill()
    process.communicate(timeout=PATIENCE)
    wait_for(lambda: not any(is_alive(worker) for worker in workers))
    assert not list((tmp_path / "out").glob("*.png"))
