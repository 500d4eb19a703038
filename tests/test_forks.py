"""Processes forked from one that has loaded everything: where that is safe, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stylize import is_alive
from tests.moments import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")

WORK = """
import os, sys, threading, time
from stylize.forks import fork

def work(connection):
    try:
        while True:
            connection.send((os.getpid(), "colorsys" in sys.modules, connection.recv()))
    except EOFError:
        pass
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", WORK + program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_forked_processes_share_what_is_loaded_and_end_with_their_connection() -> None:
    told = run(
        """
made = fork(3, work, ["colorsys"])
for each in made:
    each.connection.send("hello")
found = [each.connection.recv() for each in made]
print(len({each[0] for each in found} - {os.getpid()}), {each[1:] for each in found})
made[1].close()
print([each.process.is_alive() for each in made])
for each in made:
    each.close()
print([each.process.exitcode for each in made])
"""
    )
    assert told == "3 {(True, 'hello')}\n[True, False, True]\n[0, 0, 0]\n"


def test_nothing_is_forked_from_a_process_with_several_threads() -> None:
    told = run(
        """
import time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
print(fork(2, work, []))
"""
    )
    assert told == "[]\n"


def test_forked_processes_end_when_the_first_is_killed() -> None:
    told = run(
        """
if not os.fork():
    made = fork(2, work, [])
    for each in made:
        each.connection.send("hello")
    print(*[each.connection.recv()[0] for each in made], flush=True)
    os.kill(os.getpid(), 9)
os.wait()
"""
    )
    numbers = [int(number) for number in told.split()]
    assert len(numbers) == 2
    wait_for(lambda: not any(map(is_alive, numbers)))


@pytest.mark.slow
def test_the_command_line_forks_its_workers(cli_environment: dict[str, str], tmp_path: Path) -> None:
    """They need not load PyTorch, which takes most of the time that so small a job takes."""
    program = """
import sys
from stylize import forks, processes
def work(connection):
    print("forked", "torch" in sys.modules, file=sys.stderr)
    worked(connection)
worked, processes._work = processes._work, work
from stylize.cli.main import main
main()
"""
    (tmp_path / "photos").mkdir()
    command = [sys.executable, "-c", program, "photos", "style.png", "--jobs", "2"]
    done = subprocess.run(command, cwd=tmp_path, env=cli_environment, capture_output=True, text=True, timeout=300)
    assert done.stderr.count("forked True\n") == 2, done.stderr
    assert done.returncode == 1
    assert "no pictures" in done.stderr or "style.png" in done.stderr
    assert os.listdir(tmp_path) == ["photos"]  # noqa: PTH208
