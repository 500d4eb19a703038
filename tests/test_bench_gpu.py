"""The benchmark of a GPU, tried on the CPU: every section comes to an end there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.bench import gpu


@pytest.mark.slow
def test_its_sections_run_on_the_cpu(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    small = ["--device", "cpu", "--encoder", "tiny", "--sizes", "64", "--rounds", "1", "--kernels", "3"]
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
