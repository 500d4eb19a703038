"""Runs of one command on several machines with a common folder: processes with names, caches and working folders of
their own, which are killed, stopped and continued."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stylize import claims_inside
from stylize.testing import small_photos
from tests.conftest import Call
from tests.launching import Launched, Launcher

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-r", "-u", "hostname", "x"], capture_output=True, check=False).returncode != 0,
        reason="no names of machines of one's own",
    ),
]

REFRESH = 0.5
FAST = ("--encoder", "tiny", "--size", "16", "--tolerance", "0", "--optimizer", "adam")
Start = Callable[..., Launched]


@pytest.fixture(scope="module")
def launcher(plugin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    environment = {**os.environ, "PYTHONPATH": str(plugin_folder), "OMP_NUM_THREADS": "1"}
    launcher = Launcher(environment, tmp_path_factory.mktemp("told"))
    yield launcher
    launcher.close()


@pytest.fixture
def start(launcher: Launcher, cli_environment: Mapping[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start a run as on a machine of that name."""
    started: list[Launched] = []

    def run(host: str, *arguments: str, **environment: str) -> Launched:
        home = tmp_path / host
        home.mkdir(exist_ok=True)
        shared = {"STYLIZE_CACHE": str(home / "cache"), "STYLIZE_REFRESH": str(REFRESH), "OMP_NUM_THREADS": "1"}
        process = launcher.start(host, [*arguments, *FAST], home, {**cli_environment, **shared, **environment})
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def ended(process: Launched) -> str:
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return err


def painted(said: str) -> int:
    return int((re.search(r"(\d+) (frames )?painted", said) or ["", "0"])[1])


def visible(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*")) if path.is_file()}


def written(folder: Path) -> dict[str, int]:
    """When each result was written: a process that was stopped amid a write has a temporary, hidden file there too."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*.png")}


def paints(folder: Path, process: Launched) -> bool:
    """Whether a process has claimed a picture."""
    holders = [json.loads(path.read_text() or "{}") for path in claims_inside(folder).glob("*.[0-9]")]
    return any(holder.get("process") == process.pid for holder in holders)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_photos(tmp_path)
    return tmp_path


def options(steps: int) -> tuple[str, ...]:
    return "../photos", "../style.png", "-o", "../out", "--steps", str(steps)


def test_machines_share_a_folder_and_what_one_leaves_is_painted_by_the_others(start: Start, folder: Path) -> None:
    ended(start("alone", "../photos", "../style.png", "-o", "../alone-out", "--steps", "40"))
    runs = [start(host, *options(40)) for host in ("alpha", "beta", "gamma")]
    dies = runs[0]
    wait_for(lambda: paints(folder / "out", dies))
    dies.kill()
    said = [ended(run) for run in runs[1:]]
    assert visible(folder / "out") == visible(folder / "alone-out")
    assert sum(map(painted, said)) in (3, 4)  # the first may have written one before
    assert not claims_inside(folder / "out").exists()
    unfinished = [path.name for path in (folder / "out").glob(".*")]  # its own machine alone knows that it is dead
    assert all(f".{dies.pid}-" in name for name in unfinished)


def test_a_stopped_machine_loses_its_picture_and_does_not_write_it_when_it_goes_on(start: Start, folder: Path) -> None:
    one = start("alpha", *options(60))
    wait_for(lambda: paints(folder / "out", one))
    one.send_signal(signal.SIGSTOP)
    before = set(visible(folder / "out"))
    other = ended(start("beta", *options(60)))
    assert painted(other) == 4 - len(before)
    marks = written(folder / "out")
    assert len(marks) == 4
    one.send_signal(signal.SIGCONT)
    said = ended(one)
    assert "another run has taken it over" in said
    assert painted(said) == len(before)
    assert written(folder / "out") == marks
    assert not claims_inside(folder / "out").exists()


def test_machines_that_stand_still_together_do_not_take_from_each_other(start: Start, folder: Path) -> None:
    runs = [start(host, *options(60)) for host in ("alpha", "beta")]
    wait_for(lambda: all(paints(folder / "out", run) for run in runs))
    for signalled in (signal.SIGSTOP, signal.SIGCONT):
        for run in runs:
            run.send_signal(signalled)
        time.sleep(5 * REFRESH if signalled == signal.SIGSTOP else 0)
    said = [ended(run) for run in runs]
    assert not any("taken it over" in each for each in said)
    assert sum(map(painted, said)) == 4


def test_clocks_need_not_agree(start: Start, folder: Path) -> None:
    said = [ended(run) for run in (start("alpha", *options(40)), start("beta", *options(40), CLOCK_LATE="3600"))]
    assert sum(map(painted, said)) == 4
    assert all(map(painted, said))


def test_forced_runs_share_the_work_as_well(start: Start, folder: Path) -> None:
    ended(start("alpha", *options(20)))
    marks = written(folder / "out")
    one = start("alpha", *options(100), "--force")
    wait_for(lambda: paints(folder / "out", one))
    said = [ended(run) for run in (one, start("beta", *options(100), "--force"))]
    assert sum(map(painted, said)) == 4
    assert all(written(folder / "out")[name] != mark for name, mark in marks.items())
    assert "4 painted" in ended(start("alpha", *options(40), "--force"))
    assert not claims_inside(folder / "out").exists()


def moving_clip(path: Path) -> None:
    """Three shots of eight frames."""
    from tests.test_video import clip, moving

    clip(path, [*moving(8, 0), *moving(8, 1), *moving(8, 2)])


def test_machines_share_the_shots_of_a_clip(start: Start, tmp_path: Path) -> None:
    small_photos(tmp_path)
    moving_clip(tmp_path / "in.mkv")
    given = ("../in.mkv", "../style.png", "--codec", "ffv1", "--steps", "40", "--frame-steps", "20")
    ended(start("alone", *given, "-o", "../alone.mkv"))
    runs = [start(host, *given, "-o", "../out.mkv") for host in ("alpha", "beta")]
    work = tmp_path / ".out.mkv.work"
    wait_for(lambda: len(list(work.glob("0*.png"))) >= 2)
    leads = next(run for run in runs if "clip" in claims_of(tmp_path, run))
    follows = next(run for run in runs if run is not leads)
    leads.send_signal(signal.SIGSTOP)
    assert "the other run has ended: this one makes the clip" in ended(follows)
    made = (tmp_path / "out.mkv").stat().st_mtime_ns
    leads.send_signal(signal.SIGCONT)
    assert "the other run makes the clip" in ended(leads)
    assert (tmp_path / "out.mkv").stat().st_mtime_ns == made
    assert same_frames(tmp_path / "out.mkv", tmp_path / "alone.mkv")
    assert not list(tmp_path.glob(".out*"))


def test_a_clip_claimed_by_a_dead_machine_is_painted_by_a_run_with_other_settings(start: Start, tmp_path: Path) -> None:
    small_photos(tmp_path)
    moving_clip(tmp_path / "in.mkv")
    given = ("../in.mkv", "../style.png", "-o", "../out.mkv", "--codec", "ffv1")
    one = start("alpha", *given, "--steps", "100000")
    wait_for(lambda: "00000000" in claims_of(tmp_path, one))
    one.kill()
    said = ended(start("beta", *given, "--steps", "3"))
    assert "lives" in said
    assert (tmp_path / "out.mkv").exists()


def claims_of(folder: Path, process: Launched) -> set[str]:
    """The keys of what a process has claimed of out.mkv."""
    found = set()
    for path in folder.glob(".out.mkv.claims/*.[0-9]"):
        with contextlib.suppress(OSError, ValueError):
            told: dict[str, Any] = json.loads(path.read_text())
            if told["process"] == process.pid:
                found.add(told["key"])
    return found


def same_frames(one: Path, other: Path) -> bool:
    import numpy as np

    from tests.test_video import frames_of

    pairs = zip(frames_of(one), frames_of(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


# stylize status


def test_status_tells_who_does_what_how_far_how_fast_and_until_when(
    start: Start, folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLIZE_REFRESH", str(REFRESH))
    monkeypatch.chdir(folder)
    runs = [start(host, *options(1000)) for host in ("alpha", "beta")]
    wait_for(lambda: len(visible(folder / "out")) >= 1)
    for run in runs:
        run.send_signal(signal.SIGSTOP)  # as if nothing happened meanwhile
    time.sleep(REFRESH)
    for run in runs:
        run.send_signal(signal.SIGCONT)
    said = call("status", "out").out
    assert re.match(r"out: \d of 4 pictures done; 2 processes at work\n", said)
    for run, host in zip(runs, ("alpha", "beta"), strict=True):
        long = r"(-|\d[\d. minhs]*)"
        assert re.search(rf"^  {host} +{run.pid} +(\d\.png(, \d\.png)?|-) +{long} +\d+ +{long}$", said, re.MULTILINE), (
            said
        )
    assert re.search(r"^[\d.]+ pictures an? (minute|hour); about .* left, until .*\d\d:\d\d$", said, re.MULTILINE)
    runs[0].kill()
    runs[0].communicate()
    found: list[dict[str, Any]] = []

    def living() -> dict[str, bool]:
        found[:] = json.loads(call("status", "out", "--json").out)
        return {each["host"]: each["at_work"] for each in found[0]["processes"]}

    wait_for(lambda: living() == {"alpha": False, "beta": True})
    assert found[0]["total"] == 4
    runs[1].kill()
    shutil.rmtree(claims_inside(folder / "out"))
    assert call("status", "out").out == "out: no run is at work\n"


def test_status_tells_who_is_stopped(tmp_path: Path, call: Call) -> None:
    program = (
        "import sys, time; from pathlib import Path; from stylize import Claims\n"
        "claims = Claims(Path(sys.argv[1])); claims.tell(total=3); claims.take('a.png'); claims.count(2.0)\n"
        "claims.tell(more=1); time.sleep(0.2); print('begun', flush=True); time.sleep(1000)"
    )
    command = [sys.executable, "-c", program, str(claims_inside(tmp_path / "out"))]
    environment = {**os.environ, "STYLIZE_REFRESH": "0.05"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        run.stdout.readline()
        assert call("status", tmp_path / "out").out.startswith(
            f"{tmp_path / 'out'}: 1 of 3 pictures done; 1 process at"
        )
        run.send_signal(signal.SIGSTOP)
        said = call("status", tmp_path / "out").out
        assert "; 0 processes at work\n" in said
        place = "is stopped; other runs paint that in its place\n"
        assert re.search(rf"  process {run.pid} on .*, which was painting a\.png, {place}", said)
        assert "a minute" not in said
        (process,) = json.loads(call("status", tmp_path / "out", "--json").out)[0]["processes"]
        assert (process["at_work"], process["stopped"]) == (False, True)
        run.kill()


def test_status_of_a_clip(start: Start, tmp_path: Path, cli: Any) -> None:
    small_photos(tmp_path)
    moving_clip(tmp_path / "in.mkv")
    run = start("alpha", "../in.mkv", "../style.png", "-o", "../out.mkv", "--codec", "ffv1", "--steps", "100000")
    wait_for(lambda: "00000000" in claims_of(tmp_path, run))
    for target in ("out.mkv", "."):
        said = cli("status", target, STYLIZE_REFRESH=str(REFRESH)).stdout
        assert re.match(r"out.mkv: \d+ of 24 frames done; 1 process at work\n", said)
    run.send_signal(signal.SIGINT)
    run.communicate()
    assert cli("status", "nowhere", check=1).stderr.startswith("stylize: nowhere does not exist")
