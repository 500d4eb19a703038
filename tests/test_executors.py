"""Executors: ours keep to the contract; workers that die, fail to start or are interrupted."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
from stylize.testing import ExecutorContract, small_photos
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


def paint(folder: Path, steps: int, **options: Any) -> Path | None:
    small_photos(folder)
    settings = Settings(encoder="mini", size=32, steps=(steps,), tolerance=0.0, device="cpu")
    request = Request(folder / "photos", (folder / "style.png",), folder / "out", settings)
    host = stylize.plugin_manager()
    job = request.open(host)
    return stylize.run(job, request.stylizer(job, host), host=host, executor=Processes(2), **options)


def test_a_job_that_was_not_opened_by_a_request_is_not_for_other_processes(stylizer: Stylizer) -> None:
    with pytest.raises(SettingsError, match="Request"):
        stylize.run(Recorder(), stylizer, executor=Processes(2))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_worker_that_is_killed_is_named_and_another_paints_its_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stylize")
    killed: list[int] = []

    def stop() -> bool:
        """Asked in this process: kill the first worker that has claimed a picture."""
        for claim in (tmp_path / "out" / ".stylize-claims").glob("*.0") if not killed else ():
            if found := re.search(r'"process": (\d+)', claim.read_text()):
                killed.append(int(found[1]))
                os.kill(killed[0], signal.SIGKILL)
        return False

    paint(tmp_path, 300, stop=stop)
    assert killed
    assert len(list((tmp_path / "out").iterdir())) == 4
    told = [record.getMessage() for record in caplog.records if "was killed" in record.getMessage()]
    assert len(told) == 1
    assert re.fullmatch(
        rf"worker \d \(process {killed[0]}\) was killed by signal 9; another one paints \d\.png", told[0]
    )


def test_a_worker_that_cannot_begin_ends_the_run_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_photos(tmp_path)
    host = stylize.plugin_manager()
    settings = Settings(encoder="mini", size=32, steps=(2,), device="cpu")
    request = Request(tmp_path / "photos", (tmp_path / "style.png",), tmp_path / "out", settings)
    job = request.open(host)
    stylizer = request.stylizer(job, host)
    (tmp_path / "style.png").unlink()
    with pytest.raises(StylizeError, match=r"style\.png"):
        stylize.run(job, stylizer, host=host, executor=Processes(2))


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


def started(environment: Mapping[str, str], folder: Path, *options: str) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a terminal starts it."""
    command = [sys.executable, "-m", "stylize", "photos", "style.png", "-o", "out", "--jobs", "2", *options]
    fast = ["--encoder", "mini", "--size", "32", "--steps", "100000", "--optimizer", "adam", "--tolerance", "0"]
    return subprocess.Popen(
        [*command, *fast],
        cwd=folder,
        env={**environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def holders(folder: Path) -> set[int]:
    """The processes that paint a picture."""
    claims = [claim.read_text() for claim in (folder / "out" / ".stylize-claims").glob("*.0")]
    return {int(found[1]) for claim in claims if (found := re.search(r'"process": (\d+)', claim))}


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 300  # of a busy machine
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("to_all", [True, False])
def test_ctrl_c_writes_what_all_workers_have(cli_environment: Mapping[str, str], tmp_path: Path, to_all: bool) -> None:
    small_photos(tmp_path)
    process = started(cli_environment, tmp_path)
    wait_for(lambda: len(holders(tmp_path)) == 2)
    workers = holders(tmp_path)
    time.sleep(1)  # they are in the midst of their steps
    os.killpg(process.pid, signal.SIGINT) if to_all else process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "2 painted, 2 not begun" in err
    assert all((stylize.read_record(tmp_path / "out" / name) or {})["stopped"] for name in ("0.png", "1.png"))
    assert not any(is_alive(worker) for worker in workers)
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_an_idle_worker_that_is_killed_is_replaced(cli_environment: Mapping[str, str], tmp_path: Path) -> None:
    small_photos(tmp_path)
    command = ["photos", "style.png", "-o", "out", "--jobs", "2", "--watch", "--encoder", "mini", "--size", "32"]
    process = subprocess.Popen(
        [sys.executable, "-m", "stylize", *command, "--steps", "2"],
        cwd=tmp_path,
        env={**cli_environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(list((tmp_path / "out").glob("[!.]*.png"))) == 4)
    wait_for(lambda: not holders(tmp_path))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    (tmp_path / "photos" / "late.png").write_bytes((tmp_path / "photos" / "0.png").read_bytes())
    wait_for((tmp_path / "out" / "late.png").exists)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode in (0, 130), err
    assert err.count("was killed by signal 9 while it had nothing to do") == 2
    assert "5 painted" in err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_second_ctrl_c_drops_what_workers_have(cli_environment: Mapping[str, str], tmp_path: Path) -> None:
    small_photos(tmp_path)
    process = started(cli_environment, tmp_path)
    wait_for(lambda: len(holders(tmp_path)) == 2)
    workers = holders(tmp_path)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # so that they do not heed the first
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "stylize: interrupted"
    assert not any(is_alive(worker) for worker in workers)
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_workers_end_when_the_process_that_started_them_is_killed(
    cli_environment: Mapping[str, str], tmp_path: Path
) -> None:
    small_photos(tmp_path)
    process = started(cli_environment, tmp_path)
    wait_for(lambda: len(holders(tmp_path)) == 2)
    workers = holders(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    wait_for(lambda: not any(is_alive(worker) for worker in workers))
    assert not list((tmp_path / "out").glob("*.png"))
