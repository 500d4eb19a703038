"""The executor for Dask: it keeps to the contract; workers that are unfit or die; schedulers that do."""

from __future__ import annotations

import contextlib
import os
import pickle
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
from stylize import Chain, Executor, Request, Settings, SettingsError, StylizeError, Stylizer, claims_inside
from stylize.testing import ExecutorContract, small_photos
from stylize_dask import worker
from stylize_dask.executor import Dask
from stylize_dask.worker import Order
from tests import preloaded
from tests.conftest import PATIENCE, Call, Cli
from tests.moments import wait_for
from tests.test_jobs import Recorder

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*[Pp]ort .* is already in use.*"),
]
FAST = ("--encoder", "mini", "--size", "32", "--steps", "3")
LONG = ("--encoder", "mini", "--size", "32", "--steps", "100000", "--optimizer", "adam", "--tolerance", "0")


@contextlib.contextmanager
def running(environment: Mapping[str, str], folder: Path, *missing: str) -> Iterator[str]:
    """The address of a scheduler with a worker, where some modules cannot be imported."""
    program = Path(__file__).with_name("dask_cluster.py")
    process = preloaded.Popen(
        [sys.executable, str(program), *missing],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


@pytest.fixture(scope="module")
def scheduler(plugin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler that the tests share."""
    environment = {**os.environ, "PYTHONPATH": str(plugin_folder)}  # plugins as in this process
    with running(environment, tmp_path_factory.mktemp("elsewhere")) as address:
        yield address


class TestDask(ExecutorContract):
    @pytest.fixture
    def executor(self, scheduler: str) -> Executor:
        return Dask(scheduler)


def test_a_job_that_was_not_opened_by_a_request_is_not_for_other_processes(stylizer: Stylizer) -> None:
    with pytest.raises(SettingsError, match="Request"):
        stylize.run(Recorder(), stylizer, executor=Dask())


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_one_clear_line(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_photos(folder)
    monkeypatch.setattr("stylize_dask.clusters.WAIT", 0.5)
    command = ("photos", "style.png", "-o", "out", *FAST)
    done = call(*command, "--executor", "dask", "--scheduler", "tcp://127.0.0.1:9")
    assert done.code == 1
    assert done.err.startswith("stylize: no scheduler answers at tcp://127.0.0.1:9")
    assert len(done.err.splitlines()) == 1
    done = call(*command, "--scheduler", "tcp://127.0.0.1:9")
    assert (done.code, done.err) == (2, "stylize: --scheduler needs --executor dask\n")


def test_without_dask_it_is_said_what_to_install(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_photos(folder)
    monkeypatch.setattr("stylize_dask.find_spec", lambda name: None)
    done = call("photos", "style.png", "-o", "out", *FAST, "--executor", "dask")
    assert (done.code, done.err) == (
        2,
        "stylize: --executor dask needs Dask: pip install 'stylize-host[dask]'\n",
    )


@pytest.mark.slow
def test_a_cluster_paints_what_one_process_paints(scheduler: str, call: Call, folder: Path) -> None:
    small_photos(folder)
    command = ("photos", "style.png", *FAST)
    assert call(*command, "-o", "one").code == 0
    done = call(*command, "-o", "out", "--executor", "dask", "--scheduler", scheduler)
    assert "4 painted" in done.err
    one, out = ({path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in ("one", "out"))
    assert one == out
    done = call(*command, "-o", "out", "--executor", "dask", "--scheduler", scheduler)
    assert "4 unchanged" in done.err  # by their records: nothing is sent


@pytest.mark.slow
def test_the_shots_of_a_clip_are_painted_on_workers(scheduler: str, call: Call, folder: Path) -> None:
    from tests.test_video import clip, moving

    small_photos(folder)
    clip(folder / "in.mkv", [*moving(6, 0), *moving(6, 1)])
    command = ("in.mkv", "style.png", "--codec", "ffv1", *FAST)
    assert call(*command, "-o", "one.mkv").code == 0
    done = call(*command, "-o", "out.mkv", "--executor", "dask", "--scheduler", scheduler)
    assert done.code == 0, done.err
    assert Path("one.mkv").read_bytes() == Path("out.mkv").read_bytes()
    assert not list(folder.glob(".*"))


def test_errors_of_the_stylizer_are_told(scheduler: str, tmp_path: Path) -> None:
    small_photos(tmp_path)
    settings = Settings(encoder="mini", size=32, steps=(2,), device="cpu")
    request = Request(tmp_path / "photos", (tmp_path / "style.png",), tmp_path / "out", settings)
    host = stylize.plugin_manager()
    job = request.open(host)
    stylizer = request.stylizer(job, host)
    (tmp_path / "style.png").unlink()
    with pytest.raises(StylizeError, match=r"style\.png"):
        stylize.run(job, stylizer, host=host, executor=Dask(scheduler))


# Workers that are not fit


@pytest.mark.slow
def test_a_worker_with_another_version_or_without_a_plugin_is_named(
    scheduler: str, call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_photos(folder)
    command = ("photos", "style.png", "-o", "out", *FAST, "--executor", "dask", "--scheduler", scheduler)
    with monkeypatch.context() as here:
        here.setattr("stylize_dask.team.VERSION", "7.7")
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


@pytest.mark.slow
def test_a_worker_without_stylize_is_named(call: Call, cli_environment: Mapping[str, str], folder: Path) -> None:
    small_photos(folder)
    with running(
        cli_environment, folder, "stylize", "stylize_dask"
    ) as address:  # nor has the scheduler it, which does not matter
        done = call("photos", "style.png", "-o", "out", *FAST, "--executor", "dask", "--scheduler", address)
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert re.match(
        r"stylize: the worker at tcp://127\.0\.0\.1:\d+ cannot load stylize \(.*stylize_dask.*\): "
        "install the same on all machines",
        done.err,
    )
    assert not list((folder / "out").iterdir())


def test_a_worker_that_does_not_see_the_folders_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_photos(tmp_path)
    settings, host = Settings(encoder="mini", size=32, steps=(2,), device="cpu"), stylize.plugin_manager()
    there, missing = (
        Request(tmp_path / name, (tmp_path / "style.png",), tmp_path / "out", settings) for name in ("photos", "none")
    )
    for request, folder, said in (
        (there, tmp_path / "gone", f"a worker cannot use the folder {tmp_path / 'gone'}: No such file or directory"),
        (missing, tmp_path, str(tmp_path / "none")),
    ):
        order = Order("run", request, worker.versions(host), folder, 1, "client")
        done = worker.paint(pickle.dumps(order), Chain("0.png"), stylize.__version__)
        assert done.state == "failed"
        assert done.error.startswith(f"on {platform.node()}: ")
        assert said in done.error


# Claims


@pytest.mark.slow
def test_a_worker_whose_client_is_gone_leaves_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the run would count as one at work for as long as the worker lives."""
    monkeypatch.setattr(worker, "IDLE", 0.05)
    small_photos(tmp_path)
    settings, host = Settings(encoder="mini", size=32, steps=(2,), device="cpu"), stylize.plugin_manager()
    request = Request(tmp_path / "photos", (tmp_path / "style.png",), tmp_path / "out", settings)
    job = request.open(host)
    job.begin(request.stylizer(job, host))
    chains = job.chains()
    order = Order("run", request, worker.versions(host), tmp_path, 1, platform.node())
    for chain in (next(chains), next(chains)):  # the run can be joined again
        assert worker.paint(pickle.dumps(order), chain, stylize.__version__).state == "done"
        wait_for(lambda: not worker._runs)
    chains.close()  # type: ignore[attr-defined]
    assert job.claims is not None
    job.claims.close()
    wait_for(lambda: not claims_inside(tmp_path / "out").exists())
    assert len(list((tmp_path / "out").iterdir())) == 2


# What dies


def holders(folder: Path) -> set[int]:
    """The processes that paint a picture."""
    found = set()
    for claim in claims_inside(folder / "out").glob("*.[0-9]"):
        with contextlib.suppress(OSError):
            found |= {int(number) for number in re.findall(r'"process": (\d+)', claim.read_text())}
    return found


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(
    cli_environment: Mapping[str, str], folder: Path
) -> None:
    small_photos(folder)
    command = ["photos", "style.png", "-o", "out", "--executor", "dask", "--jobs", "2", *FAST[:-1], "100"]
    with preloaded.Popen(
        [sys.executable, "-m", "stylize", *command], cwd=folder, env=cli_environment, stderr=subprocess.PIPE, text=True
    ) as run:
        wait_for(lambda: holders(folder))
        os.kill(holders(folder).pop(), signal.SIGKILL)
        _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, err
    assert "4 painted in" in err
    assert len(list((folder / "out").iterdir())) == 4


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_writes_what_all_workers_have(cli_environment: Mapping[str, str], folder: Path) -> None:
    small_photos(folder)
    command = ["photos", "style.png", "-o", "out", "--executor", "dask", "--jobs", "2", *LONG]
    with preloaded.Popen(
        [sys.executable, "-m", "stylize", *command], cwd=folder, env=cli_environment, stderr=subprocess.PIPE, text=True
    ) as run:
        wait_for(lambda: len(holders(folder)) == 2)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130, err
    assert "Traceback" not in err
    results = list((folder / "out").iterdir())
    assert len(results) == 2
    assert all((stylize.read_record(path) or {})["stopped"] for path in results)


@pytest.fixture
def cluster(cli_environment: Mapping[str, str], tmp_path: Path) -> Iterator[tuple[str, list[preloaded.Popen]]]:
    """The address of a scheduler with one worker, and their processes."""
    (tmp_path / "elsewhere").mkdir()
    started = list[preloaded.Popen]()

    def start(*arguments: str) -> None:
        started.append(
            preloaded.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
                cwd=tmp_path / "elsewhere",
                env={**cli_environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    file = tmp_path / "scheduler.json"
    start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    wait_for(lambda: file.exists() and '"address"' in file.read_text())
    address = re.findall(r'"address": "(tcp://127[^"]+)"', file.read_text())[0]
    start("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
    yield address, started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_scheduler_that_stands_still_is_waited_for(
    cluster: tuple[str, list[preloaded.Popen]], cli_environment: Mapping[str, str], folder: Path
) -> None:
    small_photos(folder)
    address, processes = cluster
    (folder / "program.py").write_text(
        "from stylize_dask import clusters, team; clusters.WAIT = 1; team.COUNT = 0.2\n"
        "from stylize.cli.main import main; main()"
    )
    command = ["photos", "style.png", "-o", "out", *LONG, "--executor", "dask", "--scheduler", address]
    with preloaded.Popen(
        [sys.executable, "program.py", *command], cwd=folder, env={**cli_environment}, stderr=subprocess.PIPE, text=True
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


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_run_and_the_next_goes_on(
    cluster: tuple[str, list[preloaded.Popen]], cli: Cli, cli_environment: Mapping[str, str], folder: Path
) -> None:
    small_photos(folder)
    address, processes = cluster
    command = [sys.executable, "-m", "stylize", "photos", "style.png", "-o", "out"]
    with preloaded.Popen(
        [*command, *LONG, "--executor", "dask", "--scheduler", address],
        cwd=folder,
        env={**cli_environment},
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        wait_for(lambda: holders(folder))
        processes[0].kill()
        _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1, err
    assert "the Dask scheduler is gone; the same command goes on with the rest" in err
    assert "Traceback" not in err
    processes[1].kill()
    processes[1].wait()
    cli("photos", "style.png", "-o", "out", *FAST)
    assert len(list((folder / "out").iterdir())) == 4
