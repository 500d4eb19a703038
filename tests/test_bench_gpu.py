"""The benchmark of a GPU, tried on the CPU: every section comes to an end there."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tests import preloaded
from tests.bench import gpu
from tests.conftest import PATIENCE, ROOT


@pytest.mark.slow
def test_its_sections_run_on_the_cpu(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.run", preloaded.run)
    small = ["--device", "cpu", "--encoder", "tiny", "--sizes", "32", "--rounds", "1", "--jobs", "1"]
    sections = [name for name in gpu.SECTIONS if name not in ("clip", "profile")]
    gpu.main([*sections, *small, "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__}, cpu" in printed
    assert "failed" not in printed
    for name in sections:
        assert f"## {name}" in printed
    for row in ("bare ", "gram, one by one", "wasserstein, one by one", "0 waits", "another in the same style"):
        assert row in printed, row
    assert (tmp_path / "check-default.png").exists()


def test_a_section_that_fails_is_named_and_the_next_one_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: gpu.Bench) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setitem(gpu.SECTIONS, "check", broken)
    gpu.main(["check", "device", "--device", "cpu", "--encoder", "tiny"])
    printed = capsys.readouterr().out
    assert "failed: RuntimeError: out of luck" in printed
    assert printed.index("## check") < printed.index("## device")


WITHOUT_PYAV = """
import sys

for name in [each for each in sys.modules if each.partition(".")[0] in ("av", "ffmpeg", "stylize_video")]:
    del sys.modules[name]
sys.modules |= {"av": None, "ffmpeg": None}

from tests.bench import gpu, gpu_clip

gpu_clip.FRAMES, gpu_clip.COUNTED = 4, 2
gpu.main(["clip", "--device", "cpu", "--encoder", "tiny", "--sizes", "32"])
"""


@pytest.mark.slow
def test_frames_in_memory_are_painted_without_pyav(tmp_path: Path, cli_environment: Mapping[str, str]) -> None:
    """As by the benchmark, on machines that have little."""
    (tmp_path / "bench.py").write_text(WITHOUT_PYAV)
    environment = {**cli_environment, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "bench.py"]
    done = preloaded.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert re.search(r"32x18: [\d.]+ following frames of [\d.]+ steps a second", done.stdout), done.stdout + done.stderr
