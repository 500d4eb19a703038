"""The sample notebook, run cell by cell in a kernel of its own."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import SAMPLES

NOTEBOOK = SAMPLES / "stylize.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_stills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name in ("cat.jpg", "bridge.jpg", "coffee.jpg", "waves.jpg", "starry-night.jpg"):
        shutil.copy(SAMPLES / name, tmp_path)
    monkeypatch.setenv("STYLIZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    text = NOTEBOOK.read_text(encoding="utf-8")
    quick = text.replace("SIZE = 192", "SIZE = 32").replace("size=SIZE", "size=SIZE, encoder='mini', steps=(2, 6)")
    assert quick.count("mini") == 2
    notebook = nbformat.reads(quick, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    stills = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    sizes = [Image.open(io.BytesIO(base64.b64decode(still))).size for still in stills]
    assert sizes[0] == (32, 21)
    assert len(sizes) == 3
    (live,) = [output for output in outputs if "base64" in str(output.get("data", {}).get("text/html", ""))]
    assert "bridge 32x" in live.data["text/plain"]


def test_the_notebook_comes_with_its_stills() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    shown = [output for cell in notebook["cells"] for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in output["data"] for output in shown) == 3
    assert not [output for output in shown if output["output_type"] == "error"]
    assert NOTEBOOK.stat().st_size < 400_000
