"""The sample files for many machines: what reads them takes them, and the commands in them exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from stylize import plugin_manager
from stylize.cli.main import extended
from tests.conftest import SAMPLES

FOLDER = SAMPLES / "machines"
UNITS = ("stylize@.service", "dask-worker@.service")
SCRIPT, KUBERNETES_JOB = FOLDER / "stylize.slurm", FOLDER / "stylize-job.yaml"


def linted(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert re.search("^ExecStart=/opt/stylize/bin/", text, re.MULTILINE)
    unit = tmp_path / name.replace("@", "@0")  # an instance, with a program that there is
    unit.write_text(re.sub("^ExecStart=/opt/stylize/bin/\\w+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    linted("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_takes_the_script() -> None:
    linted("bash", "-n", SCRIPT)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck_has_nothing_against_the_script() -> None:
    linted("shellcheck", SCRIPT)


def test_kubernetes_takes_the_job() -> None:
    validation = pytest.importorskip("kubernetes_validate")
    yaml = pytest.importorskip("yaml")
    (job,) = yaml.safe_load_all(KUBERNETES_JOB.read_text(encoding="utf-8"))
    validation.validate(job, "1.33", strict=True)


def commands() -> list[list[str]]:
    """The calls of stylize in the files, as lists of words."""
    found = [re.findall("^ExecStart=(.*stylize .*)$", (FOLDER / UNITS[0]).read_text(), re.MULTILINE)]
    found.append(re.findall("^srun (stylize .*)$", SCRIPT.read_text(), re.MULTILINE))
    arguments = re.findall(r"args: \[(.*)\]", KUBERNETES_JOB.read_text())
    found.append(["stylize " + each.replace(",", "") for each in arguments])
    return [shlex.split(line)[1:] for lines in found for line in lines]


def test_the_commands_can_be_called() -> None:
    assert len(commands()) == 3
    command = extended(plugin_manager()).commands["run"]
    for words in commands():
        made = command.make_context("run", list(words)).params
        assert str(made["content"]).endswith("photos")
        assert str(made["output"]).endswith("painted")
