"""The executor for Dask: it keeps to the contract; workers and schedulers that die; clusters of one's own."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

pytest.importorskip("distributed")

import stylize
from stylize import Executor, Request, Settings, SettingsError, StylizeError, Stylizer, claims_inside
from stylize.testing import ExecutorContract, small_photos
from stylize_dask.executor import Dask
from tests.conftest import PATIENCE, Call, Cli
from tests.moments import wait_for
from tests.test_jobs import Recorder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*[Pp]ort .* is already in use.*"),
]
FAST = ("--encoder", "mini", "--size", "32", "--steps", "3")


class TestDask(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return Dask(workers=2)


def test_a_job_that_was_not_opened_by_a_request_is_not_for_other_processes(stylizer: Stylizer) -> None:
    with pytest.raises(SettingsError, match="Request"):
        stylize.run(Recorder(), stylizer, executor=Dask())


def test_a_scheduler_that_does_not_answer_is_one_clear_line(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_photos(folder)
    monkeypatch.setattr("stylize_dask.executor.WAIT", 0.5)
    command = ("photos", "style.png", "-o", "out", *FAST)
    done = call(*command, "--executor", "dask", "--scheduler", "tcp://127.0.0.1:9")
    assert done.code == 1
    assert done.err.startswith("stylize: no scheduler answers at tcp://127.0.0.1:9")
    assert len(done.err.splitlines()) == 1
    done = call(*command, "--scheduler", "tcp://127.0.0.1:9")
    assert (done.code, done.err) == (2, "stylize: --scheduler needs --executor dask\n")


def holders(folder: Path) -> set[int]:
    """The processes that paint a picture."""
    found = set()
    for claim in claims_inside(folder / "out").glob("*.[0-9]"):
        with contextlib.suppress(OSError):
            found |= {int(number) for number in re.findall(r'"process": (\d+)', claim.read_text())}
    return found


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stylize")
    small_photos(tmp_path)
    settings = Settings(encoder="mini", size=32, steps=(60,), tolerance=0.0, device="cpu")
    request = Request(tmp_path / "photos", (tmp_path / "style.png",), tmp_path / "out", settings)
    host = stylize.plugin_manager()
    job = request.open(host)
    killed: list[int] = []

    def stop() -> bool:
        """Asked in this process: kill the first worker that has claimed a picture."""
        if not killed and (found := holders(tmp_path)):
            killed.append(found.pop())
            os.kill(killed[0], signal.SIGKILL)
        return False

    stylize.run(job, request.stylizer(job, host), host=host, executor=Dask(workers=2), stop=stop)
    assert killed
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert re.search(r"4 painted in ", caplog.text)


# A cluster of one's own


@pytest.fixture
def cluster(cli_environment: Mapping[str, str], tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler with one worker, and their processes."""
    (tmp_path / "elsewhere").mkdir()
    started = []

    def start(*arguments: str) -> None:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
                cwd=tmp_path / "elsewhere",
                env={**cli_environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    file = tmp_path / "scheduler.json"
    start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    wait_for(lambda: file.exists() and '"address"' in file.read_text())
    address = re.findall(r'"address": "(tcp://127[^"]+)"', file.read_text())[0]
    start("worker", address, "--nthreads", "1", "--resources", "GPU=1", "--no-dashboard")
    yield address, started
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_cluster_paints_what_one_process_paints(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], cli: Cli, folder: Path
) -> None:
    small_photos(folder)
    address, _ = cluster
    cli("photos", "style.png", "-o", "one", *FAST)
    done = cli("photos", "style.png", "-o", "out", *FAST, "--executor", "dask", "--scheduler", address)
    assert "4 painted" in done.stderr
    one, out = ({path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in ("one", "out"))
    assert one == out
    done = cli("photos", "style.png", "-o", "out", *FAST, "--executor", "dask", "--scheduler", address)
    assert "4 unchanged" in done.stderr  # by their records: nothing is sent


def test_a_worker_with_another_version_or_without_a_plugin_is_named(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_photos(folder)
    command = ("photos", "style.png", "-o", "out", *FAST, "--executor", "dask", "--scheduler", cluster[0])
    with monkeypatch.context() as here:
        here.setattr("stylize_dask.executor.VERSION", "7.7")
        done = call(*command)
        assert (done.code, "Traceback" in done.err) == (1, False)
        assert f"the worker on {platform.node()} has stylize {stylize.__version__}, not 7.7: install" in done.err
    for found, said in (
        ({"film": "film-stock 2.0"}, "lacks the plugin film of film-stock 2.0 (it has none that can be loaded)"),
        (
            {"batch": "stylize-host 7.7"},
            f"lacks the plugin batch of stylize-host 7.7 (it has stylize-host {stylize.__version__})",
        ),
    ):
        with monkeypatch.context() as here:
            here.setattr("stylize_dask.worker.versions", lambda host, found=found: found)
            done = call(*command)
        assert (done.code, len(done.err.splitlines())) == (1, 1)
        assert f"the worker on {platform.node()} {said}: install the same on all machines" in done.err


def test_a_scheduler_that_stands_still_is_waited_for(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], cli_environment: Mapping[str, str], folder: Path
) -> None:
    small_photos(folder)
    address, processes = cluster
    program = (
        "from stylize_dask import executor; executor.WAIT = 1; executor.COUNT = 0.2\n"
        "from stylize.cli.main import main; main()"
    )
    command = ["photos", "style.png", "-o", "out", "--encoder", "mini", "--size", "32", "--steps", "60"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *command, "--executor", "dask", "--scheduler", address],
        cwd=folder,
        env={**cli_environment},
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr is not None
        wait_for(lambda: holders(folder))
        os.kill(processes[0].pid, signal.SIGSTOP)
        said = next(line for line in run.stderr if "has not answered" in line)
        os.kill(processes[0].pid, signal.SIGCONT)
        assert "the Dask scheduler has not answered for 1 seconds; waiting for it" in said
        assert "the Dask scheduler answers again" in next(line for line in run.stderr if "answers again" in line)
        os.kill(processes[0].pid, signal.SIGSTOP)
        next(line for line in run.stderr if "has not answered" in line)
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
    assert run.returncode == 1, rest
    assert "the Dask scheduler does not answer; what its workers have in work they may still write" in rest
    assert "Traceback" not in rest
    os.kill(processes[0].pid, signal.SIGCONT)


def test_a_scheduler_that_dies_ends_the_run_and_the_next_goes_on(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], cli: Cli, cli_environment: Mapping[str, str], folder: Path
) -> None:
    small_photos(folder)
    address, processes = cluster
    command = ["photos", "style.png", "-o", "out", "--encoder", "mini", "--size", "32", "--steps", "100"]
    with subprocess.Popen(
        [sys.executable, "-m", "stylize", *command, "--executor", "dask", "--scheduler", address],
        cwd=folder,
        env={**cli_environment},
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        wait_for(lambda: holders(folder))
        os.killpg(processes[0].pid, signal.SIGKILL)
        _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1, err
    assert "the Dask scheduler is gone; the same command goes on with the rest" in err
    assert "Traceback" not in err
    os.killpg(processes[1].pid, signal.SIGKILL)
    cli(*command)
    assert len(list((folder / "out").iterdir())) == 4


def test_the_shots_of_a_clip_are_painted_on_workers(call: Call, folder: Path) -> None:
    from tests.test_video import clip, moving

    small_photos(folder)
    clip(folder / "in.mkv", [*moving(8, 0), *moving(8, 1)])
    command = ("in.mkv", "style.png", "--codec", "ffv1", *FAST)
    assert call(*command, "-o", "one.mkv").code == 0
    done = call(*command, "-o", "out.mkv", "--executor", "dask")
    assert done.code == 0, done.err
    assert Path("one.mkv").read_bytes() == Path("out.mkv").read_bytes()


def test_errors_of_the_stylizer_are_told(tmp_path: Path) -> None:
    small_photos(tmp_path)
    settings = Settings(encoder="mini", size=32, steps=(2,), device="cpu")
    request = Request(tmp_path / "photos", (tmp_path / "style.png",), tmp_path / "out", settings)
    host = stylize.plugin_manager()
    job = request.open(host)
    stylizer = request.stylizer(job, host)
    (tmp_path / "style.png").unlink()
    with pytest.raises(StylizeError, match=r"style\.png"):
        stylize.run(job, stylizer, host=host, executor=Dask(workers=1))
