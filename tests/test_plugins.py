"""Plugins as their authors make them: the samples and that of the chapter, built and installed."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from stylize import read_record
from tests import preloaded
from tests.conftest import PATIENCE, ROOT, SAMPLES

README = (ROOT / "README.md").read_text(encoding="utf-8")
CHAPTER = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path, cli_environment: Mapping[str, str]) -> Callable[[Path], Run]:
    """A folder of installed packages besides those of this environment; ``install(plugin)`` gives its command line."""
    packages = tmp_path / "packages"
    packages.mkdir()

    def install(plugin: Path) -> Run:
        wheels = tmp_path / "wheels"
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
        subprocess.run(build, cwd=plugin, check=True, capture_output=True)
        for wheel in wheels.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(packages)  # what installing a pure wheel is
        return run

    def run(module: str, *arguments: object, check: int = 0) -> subprocess.CompletedProcess[str]:
        done = preloaded.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=tmp_path,
            env={**cli_environment, "PYTHONPATH": str(packages), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == check, done.stdout + done.stderr
        return done

    return install


def copied(plugin: Path, folder: Path) -> Path:
    """The plugin elsewhere, so that building it leaves nothing in the repository."""
    for path in plugin.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = folder / plugin.name / path.relative_to(plugin)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder / plugin.name


QUICK = ("--encoder", "mini", "--size", "32", "--steps", "2")


@pytest.mark.slow
def test_the_gif_sample_repaints_every_frame(environment: Callable[[Path], Run], tmp_path: Path) -> None:
    plugin = copied(SAMPLES / "plugins" / "stylize_gif", tmp_path)
    assert sum(map(bool, (plugin / "stylize_gif.py").read_text().splitlines())) < 40  # of code
    run = environment(plugin)
    frames = [Image.new("RGB", (32, 24), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:], duration=[50, 100, 150])
    style = SAMPLES / "mosaic.jpg"
    done = run("stylize", "in.gif", style, "-o", "out.gif", *QUICK)
    assert done.stdout == "out.gif\n"
    assert "3/3  frame 3" in done.stderr
    with Image.open(tmp_path / "out.gif") as painted:
        assert painted.n_frames == 3  # type: ignore[attr-defined]
    run("pytest", "-q", "-p", "no:cacheprovider", plugin / "tests")
    assert re.search(r"^gif +stylize-gif 1.0.0  stylize_open$", run("stylize", "plugins").stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_grain_sample_adds_a_term_and_a_filter(environment: Callable[[Path], Run], tmp_path: Path) -> None:
    plugin = copied(SAMPLES / "plugins" / "stylize_grain", tmp_path)
    run = environment(plugin)
    photo, style = SAMPLES / "bridge.jpg", SAMPLES / "mosaic.jpg"
    done = run("stylize", photo, style, "-o", "out.png", *QUICK, "--detail", "0.1", "--grain", "0.5", "--json")
    assert '"detail": ' in done.stdout
    assert (read_record(tmp_path / "out.png") or {})["options"] == {"detail": 0.1, "grain": 0.5}
    again = run("stylize", "replay", "out.png", "-q", "-o", "again.png")
    assert again.stderr == ""
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    without = run("stylize", "replay", "out.png", "-o", "less.png", "--no-plugin", "grain").stderr
    assert "it was made with plugin grain 1.0.0, here is none" in without
    assert "not the same picture" in without
    run("pytest", "-q", "-p", "no:cacheprovider", plugin / "tests")


@pytest.mark.slow
def test_the_chapter_leads_from_an_empty_folder_to_a_result(environment: Callable[[Path], Run], tmp_path: Path) -> None:
    files = dict(re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```$", CHAPTER, re.DOTALL | re.MULTILINE))
    assert set(files) == {"pyproject.toml", "stylize_shadow.py", "test_shadow.py"}
    plugin = tmp_path / "mine"
    plugin.mkdir()
    for name, text in files.items():
        (plugin / name).write_text(text)
    (console,) = re.findall(r"^```console\n(.*?)^```$", CHAPTER, re.DOTALL | re.MULTILINE)
    first, *commands = console.splitlines()
    assert first == "pip install ."
    run = environment(plugin)
    for name, sample in (("photo.jpg", "bridge.jpg"), ("starry.jpg", "starry-night.jpg")):
        (tmp_path / name).write_bytes((SAMPLES / sample).read_bytes())
    said = [run("stylize", *command.split()[1:]) for command in commands]
    assert re.search(r"^shadow +stylize-shadow 1.0 ", said[0].stdout, re.MULTILINE)
    assert "shadow 0." in said[1].stderr
    with Image.open(tmp_path / "out.png") as painted:
        assert max(painted.size) == 136
        assert painted.getpixel((0, 0)) == (0, 0, 0)
    run("pytest", "-q", "-p", "no:cacheprovider", plugin / "test_shadow.py")


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(tmp_path: Path, cli_environment: Mapping[str, str]) -> None:
    (block,) = re.findall(r"^### In Python\n\n```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    for name, sample in (("one.jpg", "cat.jpg"), ("two.jpg", "coffee.jpg"), ("starry.jpg", "starry-night.jpg")):
        (tmp_path / name).write_bytes((SAMPLES / sample).read_bytes())
    small = block.replace("size=1024", 'size=32, encoder="mini", steps=(2,)')
    assert small != block
    (tmp_path / "example.py").write_text(small)
    preloaded.run([sys.executable, "example.py"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "painted-one.jpg").exists()
    assert (tmp_path / "painted-two.jpg").exists()


@pytest.mark.slow
def test_the_sky_sample_paints_the_sky_in_a_style_of_its_own(
    environment: Callable[[Path], Run], tmp_path: Path
) -> None:
    plugin = copied(SAMPLES / "plugins" / "stylize_sky", tmp_path)
    run = environment(plugin)
    photo, style, other = (SAMPLES / name for name in ("bridge.jpg", "mosaic.jpg", "waves.jpg"))
    run("stylize", photo, style, "-o", "plain.png", *QUICK)
    run("stylize", photo, style, "-o", "out.png", *QUICK, "--sky", other)
    assert (read_record(tmp_path / "out.png") or {})["plugins"]["sky"] == "1.0.0"
    assert (tmp_path / "out.png").read_bytes() != (tmp_path / "plain.png").read_bytes()
    again = run("stylize", "replay", "out.png", "-q", "-o", "again.png")
    assert again.stderr == ""
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    run("pytest", "-q", "-p", "no:cacheprovider", plugin / "tests")
