"""The command that tells ComfyUI of the nodes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from stylize import StylizeError

NAME = "stylize"  # of the folder in custom_nodes
WORKFLOWS = Path(__file__).parent / "example_workflows"
LOADER = '''"""The nodes of stylize; written by `stylize comfyui install`."""
from stylize_comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
'''


@click.group()
def comfyui() -> None:
    """Use stylize in ComfyUI."""


@comfyui.command()
@click.argument("folder", type=Path)
def install(folder: Path) -> None:
    """Add the nodes of stylize to the ComfyUI in FOLDER, with an example workflow.

    ComfyUI must be started with a Python that stylize is installed in.
    """
    from stylize import atomic_write  # with torch, which other commands need not wait for

    nodes = _custom_nodes(folder) / NAME
    loader = nodes / "__init__.py"
    try:
        if loader.exists() and "stylize_comfyui" not in loader.read_text(encoding="utf-8", errors="replace"):
            raise StylizeError(f"{nodes} belongs to something else; rename or remove it first")
        nodes.mkdir(exist_ok=True)
        with atomic_write(loader) as file:
            file.write_text(LOADER, encoding="utf-8")
        shutil.copytree(WORKFLOWS, nodes / WORKFLOWS.name, dirs_exist_ok=True)
    except OSError as error:
        raise StylizeError(f"cannot write to {nodes}: {error.strerror or error}") from error
    click.echo(f"wrote {loader}")
    others = [python for python in _pythons(nodes.parent.parent) if not _is_this(python)]
    if others:
        click.echo(
            f"ComfyUI seems to run with {others[0]}; install stylize there as well, "
            f"as its nodes load from {sys.prefix} only if ComfyUI runs with that Python",
            err=True,
        )
    click.echo("restart ComfyUI; the nodes are under image > stylize, a workflow under Templates > stylize")


def _custom_nodes(folder: Path) -> Path:
    """The folder for custom nodes of a ComfyUI, whether that or the folder itself is named.

    Raises:
        StylizeError: there is none.
    """
    for found in (folder / "custom_nodes", folder / "ComfyUI" / "custom_nodes", folder):
        if found.is_dir() and found.resolve().name == "custom_nodes":
            return found
    raise StylizeError(f"{folder} is not ComfyUI: it has no folder custom_nodes; give the folder that main.py is in")


def _pythons(comfy: Path) -> Iterator[Path]:
    """The environments that lie in or beside a ComfyUI, where its installers put them."""
    for name in (".venv", "venv", "../python_embeded", "../.venv", "../venv"):
        for python in ("bin/python", "Scripts/python.exe", "python.exe"):
            found = comfy / name / python
            if found.exists():
                yield found


def _is_this(python: Path) -> bool:
    prefix = python.parent.parent if python.parent.name in ("bin", "Scripts") else python.parent
    return prefix.resolve() == Path(sys.prefix).resolve()
