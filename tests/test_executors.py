"""Executors: ours keep to the contract; workers that die, fail to start or are interrupted."""

from __future__ import annotations

import logging
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

import stylize
from stylize import Executor, Processes, Request, Serial, Settings, SettingsError, StylizeError, Stylizer
from stylize.testing import ExecutorContract, _photos
from tests.test_jobs import Recorder


class TestSerial(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return Serial()


class TestProcesses(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return Processes(2)


def paint(folder: Path, steps: int, **options: Any) -> Path | None:
    _photos(folder)
    settings = Settings(encoder="mini", size=32, steps=(steps,), tolerance=0.0, device="cpu")
    request = Request(folder / "photos", (folder / "style.png",), folder / "out", settings)
    host = stylize.plugin_manager()
    job = request.open(host)
    return stylize.run(job, request.stylizer(job, host), host=host, executor=Processes(2), **options)


def test_a_job_that_was_not_opened_by_a_request_is_not_for_other_processes(stylizer: Stylizer) -> None:
    with pytest.raises(SettingsError, match="Request"):
        stylize.run(Recorder(), stylizer, executor=Processes(2))


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
    _photos(tmp_path)
    host = stylize.plugin_manager()
    settings = Settings(encoder="mini", size=32, steps=(2,), device="cpu")
    request = Request(tmp_path / "photos", (tmp_path / "style.png",), tmp_path / "out", settings)
    job = request.open(host)
    stylizer = request.stylizer(job, host)
    (tmp_path / "style.png").unlink()
    with pytest.raises(StylizeError, match=r"style\.png"):
        stylize.run(job, stylizer, host=host, executor=Processes(2))
