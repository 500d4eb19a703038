"""Whole folders: every picture of one in the style of another picture, or of each of many, or as they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylize import SettingsError, hookimpl

if TYPE_CHECKING:
    from stylize import Job, Settings

PAIRS = ("cross", "cycle", "random", "name")
EXTENSIONS = ("png", "jpg", "webp", "tiff", "avif")
OPTIONS = (
    click.Option(
        ["--pair"],
        type=click.Choice(PAIRS),
        help="Folders, several styles: every photo in each of them, in turn, in one drawn by the seed, or in that of "
        "its own name. Default: cross for a folder of styles, else a blend of all.",
    ),
    click.Option(["--name"], metavar="TEMPLATE", help="Folders: names of results, of {stem}, {style}, {ext}, {name}."),
    click.Option(["--format"], type=click.Choice(EXTENSIONS), help="Folders: format of results; default: the photo's."),
    click.Option(["--force"], is_flag=True, help="Folders: paint again what is there and up to date."),
    click.Option(["--sidecar"], is_flag=True, help="Folders: write each record into a file beside the picture, too."),
    click.Option(["--watch"], is_flag=True, help="Folders: go on with what arrives, until Ctrl-C."),
)
NAMES = frozenset(str(option.name) for option in OPTIONS)


@hookimpl
def stylize_options(command: click.Command) -> None:
    command.params.extend(OPTIONS)


@hookimpl
def stylize_commands(group: click.Group) -> None:
    from stylize_batch.commands import record

    group.add_command(record)


@hookimpl
def stylize_open(
    source: Path, styles: Sequence[Path], target: Path | None, settings: Settings, options: Mapping[str, Any]
) -> Job | None:
    from stylize_batch.scan import is_many

    if not (any(map(is_many, (source, *styles))) or options.get("pair")):
        for name in sorted(NAMES & set(options.get("given", ()))):
            raise SettingsError(f"--{name} is for folders, and {source} is a picture")
        return None
    from stylize_batch.job import FolderJob

    return FolderJob(source, styles, target, settings, options)
