"""The front page and the chapters: links lead somewhere, commands and options exist, code runs."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click
import pytest

from stylize import plugin_manager
from stylize.cli.main import extended
from stylize.encoders import EncoderSpec
from stylize.testing import EncoderContract
from tests import preloaded
from tests.conftest import ROOT, SAMPLES

CHAPTERS = sorted(
    path
    for folder in (ROOT, *(path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")))
    for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
)
NAMES = [path.relative_to(ROOT).as_posix() for path in CHAPTERS]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(name), re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """What headings are called in links to them."""
    titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_front_page_is_short() -> None:
    assert len(text("README.md").splitlines()) <= 140


def test_the_front_page_leads_to_every_chapter() -> None:
    chapters = {name for name in NAMES if name != "README.md" and not name.startswith("samples/plugins/")}
    assert len(chapters) >= 10
    assert chapters <= set(LINK.findall(text("README.md")))


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_leads_to_a_file_and_a_heading(name: str) -> None:
    for link in LINK.findall(text(name)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_python_compiles(name: str) -> None:
    for block in blocks(name, "python"):
        compile(block, name, "exec")


def commands(page: str) -> Iterator[list[str]]:
    """The words after ``stylize`` of each command in an indented block."""
    for line in re.findall(r"^    (?:[A-Z_]+=\S+ )*stylize (.*)$", page, re.MULTILINE):
        yield shlex.split(line, comments=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_the_options_it_is_shown_with(name: str) -> None:
    samples = {"--grain", "--detail", "--shadow", "--sky"}  # options of the sample plugins
    group = extended(plugin_manager())
    for words in commands(text(name)):
        command: click.Command = group.commands.get(words[0], group.commands["run"])
        if isinstance(command, click.Group) and len(words) > 1:
            command = command.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts} | {"--no-plugin"}
        assert {word for word in words if re.match("--?[a-z]", word)} <= known | samples, words


@pytest.mark.slow
def test_the_folder_example_paints_a_folder(tmp_path: Path, cli_environment: Mapping[str, str]) -> None:
    (block,) = blocks("plugins/stylize_batch/README.md", "python")
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "coffee.jpg"):
        (tmp_path / "photos" / name).write_bytes((SAMPLES / name).read_bytes())
    (tmp_path / "starry.jpg").write_bytes((SAMPLES / "starry-night.jpg").read_bytes())
    small = block.replace("size=1024", 'size=32, encoder="mini", steps=(2,)')
    assert small != block
    (tmp_path / "example.py").write_text(small)
    command = [sys.executable, str(tmp_path / "example.py"), "--jobs"]  # so that its workers are preloaded, too
    preloaded.run(command, cwd=tmp_path, env={**os.environ}, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "painted").iterdir()} == {"cat.jpg", "coffee.jpg"}


class TestTheEncoderOfTheChapter(EncoderContract):
    @pytest.fixture
    def spec(self) -> EncoderSpec:
        (block,) = blocks("stylize/encoders/README.md", "python")
        scope: dict[str, Callable[[], list[EncoderSpec]]] = {}
        exec(compile(block, "stylize/encoders/README.md", "exec"), scope)
        (spec,) = scope["stylize_encoders"]()
        return spec
