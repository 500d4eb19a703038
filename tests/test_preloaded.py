"""Processes forked from one that has imported everything: they behave as those of :mod:`subprocess`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import preloaded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is subprocess itself")

PROGRAM = """
import os, sys
loaded = "torch" in sys.modules
import helper
print(loaded, sys.argv, os.getpid(), os.getcwd(), os.environ.get("COLOUR"), __name__, sys.stdin.read(), flush=True)
print(helper.NAME, file=sys.stderr)
sys.exit(helper.CODE)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "helper.py").write_text("NAME, CODE = 'of the path', 7\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


@pytest.mark.slow
def test_it_gets_arguments_environment_folder_and_streams_and_gives_its_exit_code(program: Path) -> None:
    environment = {**os.environ, "COLOUR": "f\udcffr", "PYTHONPATH": str(program.parent / "beside")}
    with preloaded.Popen(
        [sys.executable, "program.py", "a b", ""],
        cwd=program.parent,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
    ) as process:
        out, err = process.communicate("asked", timeout=300)
    colour = "f\\udcffr" if "f\\udcffr" in out else "f\udcffr"
    assert out == f"True ['program.py', 'a b', ''] {process.pid} {program.parent} {colour} __main__ asked\n"
    assert err == "of the path\n"
    assert process.returncode == 7


def test_it_dies_of_a_signal(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("import time\nprint(flush=True)\ntime.sleep(1000)\n")
    with preloaded.Popen([sys.executable, "long.py"], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.poll() is None
        process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("import sys; sys.exit('bad luck')", 1, "bad luck"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import atexit; atexit.register(print, 'at the end')", 0, "at the end"),
        ("import threading; threading.Timer(0.05, print, ['later']).start()", 0, "later"),
    ],
)
def test_it_ends_as_an_interpreter_does(tmp_path: Path, code: str, status: int, said: str) -> None:
    (tmp_path / "program.py").write_text(code)
    command = [sys.executable, "program.py"]
    done = preloaded.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == status
    assert said in done.stdout
    plain = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert plain.returncode == status
    assert said in plain.stdout


def test_what_is_not_a_module_or_a_file_is_started_as_ever(tmp_path: Path) -> None:
    done = preloaded.run([sys.executable, "-c", "import sys; print('torch' in sys.modules)"], capture_output=True)
    assert done.stdout == b"False\n"
    with pytest.raises(FileNotFoundError):
        preloaded.run(["no-such-program"])


TESTS = """
import sys
from tests import preloaded
print("torch" in sys.modules, "scipy.optimize" in sys.modules, sys.argv)
done = preloaded.run([sys.executable, sys.stdin.readline()], capture_output=True, text=True)
print(done.stdout, done.returncode)
"""


@pytest.mark.slow
def test_a_process_that_runs_tests_starts_and_waits_for_processes(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys\nprint('torch' in sys.modules, end='')\nsys.exit(7)\n")
    command = [sys.executable, "-u", "-c", TESTS]
    done = preloaded.run(command, input=str(tmp_path / "program.py"), capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == "True True ['-c']\nTrue 7\n"
