"""Writes the reference of the command line, ``README.md`` beside this file: ``python -m stylize.cli.reference``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from stylize.cli.main import extended
from stylize.host import Host, plugin_manager

FILE = Path(__file__).with_name("README.md")
PLUGINS = ("batch", "comfyui", "gimp", "video", "web")  # that come with stylize
WIDTH = 100
HEAD = """# Command line

What `--help` says of every command, plugins for folders and clips included.
Generated: after a change, run `make reference` (or `python -m stylize.cli.reference`).
"""


def reference() -> str:
    """The text of the reference: a section for each command."""
    host = plugin_manager(only=PLUGINS)
    sections = (f"\n## {title}\n\n```text\n{text}\n```\n" for title, text in _helps(extended(host), "stylize", host))
    return HEAD + "".join(sections)


def _helps(command: click.Command, name: str, host: Host, parent: click.Context | None = None) -> Iterator[list[str]]:
    context = click.Context(command, parent, name, host, terminal_width=WIDTH, **command.context_settings)
    yield [context.command_path, command.get_help(context).rstrip()]
    if isinstance(command, click.Group):
        for inner in sorted(command.commands):
            yield from _helps(command.commands[inner], inner, host, context)


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
