"""The benchmark of a GPU, tried on the CPU: every row is there, and what the CPU cannot do says so."""

from __future__ import annotations

import re

import pytest
import torch

from tests.bench import gpu


def test_it_runs_on_the_cpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")  # which it sets
    before = torch.backends.cudnn.allow_tf32
    small = ["--sizes", "64", "--whole", "96", "--tiles", "64,96", "--rounds", "1", "--steps", "2,1"]
    gpu.main(["--device", "cpu", "--encoder", "tiny", "--no-compile", *small])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"cpu, torch {torch.__version__}, tiny with random weights")
    rows = {cells[1]: cells[3:6] for cells in (re.split(r" *\| *", line) for line in lines if line.startswith("| "))}
    notes: dict[str, str] = dict(re.findall(r"^\((\d)\) (.*)$", "\n".join(lines), re.MULTILINE))

    def why(cell: str) -> str:
        return notes[cell.strip("— ()")]

    for what in (
        "bare VGG-19, ms",
        "step with gram, ms",
        "step with wasserstein, ms",
        "gradient in tiles of 64 px, ms",
    ):
        assert float(rows[what][0]) > 0
        assert why(rows[what][1]) == "the device has no TF32"
        assert float(rows[what][2]) > 0
    exact, _, rough = rows["gradient, from float32's"]
    assert float(exact) == 0
    assert 0 < float(rough) < 1
    assert all(float(rows["loss after 2,1"][column].split()[0]) > 0 for column in (0, 2))
    assert why(rows["waits in a step with gram"][0]) == "only CUDA tells when the host waits"
    assert why(rows["gradient in tiles of 64 px, GiB"][2]) == "torch counts memory on CUDA only"
    assert why(rows["gradient in tiles of 96 px, ms"][0]) == "one tile would be the whole"
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_cell_that_fails_is_a_dash_with_its_reason_told_once() -> None:
    table = gpu.Table()

    def cell(name: str) -> str:
        if name == "float32":
            return "1.0"
        raise torch.OutOfMemoryError("too much\nand more")

    table.row("one", 64, cell)
    table.row("other", 64, cell)
    assert str(table).splitlines()[2:] == [
        "| one | 64 | 1.0 | — (1) | — (1) |",
        "| other | 64 | 1.0 | — (1) | — (1) |",
        "",
        "(1) OutOfMemoryError: too much",
    ]
