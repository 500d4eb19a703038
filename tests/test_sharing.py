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
from stylize.machines import is_stopped
from stylize.testing import small_photos
from tests import launching, moments
from tests.conftest import Call
from tests.moments import moment, wait_for
from tests.preloaded import Popen

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-r", "-u", "hostname", "x"], capture_output=True, check=False).returncode != 0,
        reason="no names of machines of one's own",
    ),
]

REFRESH = 0.5  # seconds, where claims are to be taken over
NEVER = {"STYLIZE_REFRESH": "600"}  # where none is, however long a process has to wait for the machine
FAST = ("--encoder", "tiny", "--size", "16", "--tolerance", "0", "--optimizer", "adam")
Start = Callable[..., Popen]


@pytest.fixture(scope="module")
def search(plugin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The search path of the runs: the tiny encoder's plugin, and that of the moments."""
    return f"{plugin_folder}{os.pathsep}{moments.plugin(tmp_path_factory.mktemp('moments'))}"


@pytest.fixture
def start(search: str, cli_environment: Mapping[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start a run as on a machine of that name."""
    started: list[Popen] = []

    def run(host: str, *arguments: str, **environment: str) -> Popen:
        home = tmp_path / host
        home.mkdir(exist_ok=True)
        shared = {"STYLIZE_CACHE": str(home / "cache"), "STYLIZE_REFRESH": str(REFRESH), "PYTHONPATH": search}
        process = launching.start(host, [*arguments, *FAST], home, {**cli_environment, **shared, **environment})
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def ended(process: Popen) -> str:
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_photos(tmp_path)
    return tmp_path


OPTIONS = ("../photos", "../style.png", "--steps", "8", "-o")
AMID = "step 5"  # of the first picture of a process: it has claimed that, and written none


@pytest.fixture(scope="module")
def alone(search: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one machine makes of it."""
    folder = tmp_path_factory.mktemp("alone")
    small_photos(folder)
    (folder / "alone").mkdir()
    own = {"STYLIZE_CACHE": str(folder / "cache"), "PYTHONPATH": search}
    ended(launching.start("alone", [*OPTIONS, "../out", *FAST], folder / "alone", {**os.environ, **own}))
    return visible(folder / "out")


def test_machines_share_a_folder_and_what_one_leaves_is_painted_by_the_others(
    start: Start, folder: Path, alone: dict[str, bytes]
) -> None:
    dies = start("alpha", *OPTIONS, "../out", **moment("stop", AMID))
    wait_for(lambda: is_stopped(dies.pid))
    others = [start(host, *OPTIONS, "../out") for host in ("beta", "gamma")]
    dies.kill()
    said = [ended(run) for run in others]
    assert visible(folder / "out") == alone
    assert sum(map(painted, said)) == 4
    assert not claims_inside(folder / "out").exists()


def test_a_stopped_machine_loses_its_picture_and_does_not_write_it_when_it_goes_on(
    start: Start, folder: Path, alone: dict[str, bytes]
) -> None:
    one = start("alpha", *OPTIONS, "../out", **moment("stop", AMID))
    wait_for(lambda: is_stopped(one.pid))
    assert painted(ended(start("beta", *OPTIONS, "../out"))) == 4
    marks = written(folder / "out")
    one.send_signal(signal.SIGCONT)
    said = ended(one)
    assert "another run has taken it over" in said
    assert painted(said) == 0
    assert written(folder / "out") == marks
    assert visible(folder / "out") == alone
    assert not claims_inside(folder / "out").exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_machine_that_is_stopped_as_it_writes_does_no_harm(
    start: Start, folder: Path, alone: dict[str, bytes], when: str
) -> None:
    one = start("alpha", *OPTIONS, "../out", **moment("stop", when, "out/0.png"))
    wait_for(lambda: is_stopped(one.pid))
    there = len(visible(folder / "out"))
    assert there == (when == "after")
    assert painted(ended(start("beta", *OPTIONS, "../out"))) == 4 - there
    one.send_signal(signal.SIGCONT)
    assert painted(ended(one)) >= 1  # where writing is slow, more were painted meanwhile
    assert visible(folder / "out") == alone
    assert not claims_inside(folder / "out").exists()
    assert not [*(folder / "out").glob(".*")]


def test_machines_that_stand_still_together_do_not_take_from_each_other(start: Start, folder: Path) -> None:
    asleep = {**NEVER, "SLEPT": str(folder / "slept")}
    one = start("alpha", *OPTIONS, "../out", **moment("stop", AMID), **asleep)
    wait_for(lambda: is_stopped(one.pid))
    other = start("beta", *OPTIONS, "../out", **asleep)
    wait_for(lambda: len(visible(folder / "out")) == 3)
    other.send_signal(signal.SIGSTOP)
    wait_for(lambda: is_stopped(other.pid))
    (folder / "slept").touch()
    other.send_signal(signal.SIGCONT)
    time.sleep(0.5)  # it looks for what the first is painting
    one.send_signal(signal.SIGCONT)
    said = [ended(run) for run in (one, other)]
    assert not any("taken it over" in each for each in said)
    assert [*map(painted, said)] == [1, 3]


def test_clocks_need_not_agree(start: Start, folder: Path) -> None:
    clocks = (("alpha", "0"), ("beta", "36000"))
    runs = [start(host, *OPTIONS, "../out", **moment("stop", AMID), **NEVER, CLOCK_LATE=late) for host, late in clocks]
    wait_for(lambda: all(is_stopped(run.pid) for run in runs))
    for run in runs:
        run.send_signal(signal.SIGCONT)
    said = [ended(run) for run in runs]
    assert sum(map(painted, said)) == 4
    assert all(map(painted, said))


def test_forced_runs_share_the_work_as_well(start: Start, folder: Path) -> None:
    ended(start("alpha", *OPTIONS, "../out"))
    marks = written(folder / "out")
    options = (*OPTIONS, "../out", "--force")
    runs = [start(host, *options, **moment("stop", AMID), **NEVER) for host in ("alpha", "beta")]
    wait_for(lambda: all(is_stopped(run.pid) for run in runs))
    for run in runs:
        run.send_signal(signal.SIGCONT)
    assert sum(painted(ended(run)) for run in runs) == 4
    assert all(written(folder / "out")[name] != mark for name, mark in marks.items())
    assert "4 painted" in ended(start("alpha", *options))
    assert not claims_inside(folder / "out").exists()


def moving_clip(path: Path) -> None:
    """Three shots of four frames."""
    from tests.test_video import clip, moving

    clip(path, [*moving(4, 0), *moving(4, 1), *moving(4, 2)])


def test_machines_share_the_shots_of_a_clip(start: Start, tmp_path: Path) -> None:
    small_photos(tmp_path)
    moving_clip(tmp_path / "in.mkv")
    given = ("../in.mkv", "../style.png", "--codec", "ffv1", "--steps", "8", "--frame-steps", "4", "-o")
    ended(start("alone", *given, "../alone.mkv"))
    leads = start("alpha", *given, "../out.mkv", **moment("stop", "step 3", "frame 2"))
    wait_for(lambda: is_stopped(leads.pid))
    assert claims_of(tmp_path, leads) == {"clip", "00000000"}
    assert "the other run has ended: this one makes the clip" in ended(start("beta", *given, "../out.mkv"))
    made = (tmp_path / "out.mkv").stat().st_mtime_ns
    leads.send_signal(signal.SIGCONT)
    assert "the other run makes the clip" in ended(leads)
    assert (tmp_path / "out.mkv").stat().st_mtime_ns == made
    assert same_frames(tmp_path / "out.mkv", tmp_path / "alone.mkv")
    assert not list(tmp_path.glob(".out*"))


def test_a_clip_claimed_by_a_dead_machine_is_painted_by_a_run_with_other_settings(start: Start, tmp_path: Path) -> None:
    small_photos(tmp_path)
    moving_clip(tmp_path / "in.mkv")
    given = ("../in.mkv", "../style.png", "-o", "../out.mkv", "--codec", "ffv1", "--frame-steps", "2")
    start("alpha", *given, "--steps", "8", **moment("kill", AMID)).communicate()
    assert "lives" in ended(start("beta", *given, "--steps", "3"))
    assert (tmp_path / "out.mkv").exists()


def claims_of(folder: Path, process: Popen) -> set[str]:
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


# What the dead leave


def test_what_killed_machines_left_is_removed_by_the_next_run_also_when_all_is_painted(
    start: Start, folder: Path, alone: dict[str, bytes]
) -> None:
    runs = [start(host, *OPTIONS, "../out", **moment("stop", AMID)) for host in ("alpha", "beta")]
    wait_for(lambda: all(is_stopped(run.pid) for run in runs))
    for run in runs:
        run.kill()
        run.communicate()
    assert claims_inside(folder / "out").exists()
    for name, data in alone.items():
        (folder / "out" / name).write_bytes(data)
    said = ended(start("gamma", *OPTIONS, "../out"))
    assert "4 unchanged" in said
    assert not claims_inside(folder / "out").exists()


def test_what_a_machine_left_that_was_killed_when_its_clip_was_there_is_removed_by_the_next_run(
    start: Start, tmp_path: Path
) -> None:
    small_photos(tmp_path)
    moving_clip(tmp_path / "in.mkv")
    given = ("../in.mkv", "../style.png", "--codec", "ffv1", "--steps", "3", "--frame-steps", "2", "-o", "../out.mkv")
    start("alpha", *given, **moment("kill", "after", "/out.mkv")).communicate()
    assert (tmp_path / "out.mkv").exists()
    assert list(tmp_path.glob(".out*"))
    ended(start("beta", *given))
    assert not list(tmp_path.glob(".out*"))


# stylize status


def test_status_tells_who_does_what_how_far_how_fast_and_until_when(
    start: Start, folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLIZE_REFRESH", str(REFRESH))
    monkeypatch.chdir(folder)
    one = start("alpha", *OPTIONS, "../out", **moment("wait", AMID, "1.png"))
    wait_for(lambda: (folder / "out" / "0.png").exists())
    other = start("beta", *OPTIONS, "../out", **moment("wait", AMID))
    said: list[str] = []

    def tells(pattern: str, *words: str) -> bool:
        said[:] = [call("status", "out", *words).out]
        return re.search(pattern, said[0], re.MULTILINE) is not None

    long = r"\d[\d. minhs]*"
    wait_for(lambda: tells(rf"^  beta +{other.pid} +\d\.png +{long} +0 +-$"))
    wait_for(lambda: tells(rf"^  alpha +{one.pid} +1\.png +{long} +1 +{long}$"))
    wait_for(lambda: tells(r"\Aout: 1 of 4 pictures done; 2 processes at work\n"))
    assert re.search(r"^[\d.]+ pictures an? (minute|hour); about .* left, until .*\d\d:\d\d$", said[0], re.MULTILINE)
    one.kill()
    found: list[dict[str, Any]] = []

    def living() -> dict[str, bool]:
        found[:] = json.loads(call("status", "out", "--json").out)
        return {each["host"]: each["at_work"] for each in found[0]["processes"]}

    wait_for(lambda: living() == {"alpha": False, "beta": True})
    assert found[0]["total"] == 4
    other.kill()
    other.communicate()
    shutil.rmtree(claims_inside(folder / "out"))
    assert call("status", "out").out == "out: no run is at work\n"


def test_status_tells_who_is_stopped(tmp_path: Path, call: Call) -> None:
    program = (
        "import sys, time; from pathlib import Path; from stylize import Claims\n"
        "claims = Claims(Path(sys.argv[1])); claims.tell(total=3); claims.take('a.png'); claims.count(2.0)\n"
        "while '\"painted\": 1' not in next(Path(sys.argv[1]).glob('.*.run')).read_text(): time.sleep(0.01)\n"
        "print('begun', flush=True); time.sleep(1000)"
    )
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py"), str(claims_inside(tmp_path / "out"))]
    environment = {**os.environ, "STYLIZE_REFRESH": "0.05"}
    with Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        run.stdout.readline()
        assert call("status", tmp_path / "out").out.startswith(
            f"{tmp_path / 'out'}: 1 of 3 pictures done; 1 process at"
        )
        run.send_signal(signal.SIGSTOP)
        wait_for(lambda: is_stopped(run.pid))
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
    run = start("alpha", "../in.mkv", "../style.png", "-o", "../out.mkv", "--codec", "ffv1", **moment("wait", AMID))
    wait_for(lambda: "00000000" in claims_of(tmp_path, run))
    for target in ("out.mkv", "."):
        said = cli("status", target, STYLIZE_REFRESH=str(REFRESH)).stdout
        assert re.match(r"out.mkv: \d+ of 12 frames done; 1 process at work\n", said)
    assert cli("status", "nowhere", check=1).stderr.startswith("stylize: nowhere does not exist")
