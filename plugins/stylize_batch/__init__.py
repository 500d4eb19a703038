"""Whole folders: every picture of one in the style of another picture, or of each of many, or as they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylize import (
    bits_option,
    hookimpl,
    jobs_option,
    keep_option,
    location_option,
    mask_option,
    profile_option,
    quality_option,
    region_option,
    report_option,
)

if TYPE_CHECKING:
    from stylize import Host, Job, Settings

PAIRS = ("cross", "cycle", "random", "name")
EXTENSIONS = ("png", "jpg", "webp", "tiff", "avif")
OPTIONS = (
    bits_option(),
    quality_option(),
    location_option(),
    profile_option(),
    report_option(),
    jobs_option(),
    mask_option(),
    keep_option(),
    region_option(),
    click.Option(
        ["--mask-folder"],
        type=Path,
        metavar="FOLDER",
        help="A mask for each picture, as --mask takes it: the one of the same name, at the same place in FOLDER. "
        "Pictures without one are left out.",
    ),
    click.Option(
        ["--pair"],
        type=click.Choice(PAIRS),
        help="Which styles each picture is painted in, where there are several; cross: in each of them; cycle: in the "
        "next one in turn; random: in one drawn by --seed; name: in the one with the picture's name. Default: cross "
        "for a folder of styles, otherwise a blend of all.",
    ),
    click.Option(
        ["--name"], metavar="TEMPLATE", help="Names of the results, made of {stem}, {style}, {ext} and {name}."
    ),
    click.Option(
        ["--format"], type=click.Choice(EXTENSIONS), help="Format of the results; default: that of the picture."
    ),
    click.Option(
        ["--exclude"],
        metavar="PATTERN",
        multiple=True,
        help="Leave out files and folders of this name, such as '*-old.*', or at this place, such as 'raw/**'. May be "
        "given several times.",
    ),
    click.Option(
        ["--force"],
        is_flag=True,
        help="Paint results again even if they are up to date, and over files that were edited or not made by stylize.",
    ),
    click.Option(["--sidecar"], is_flag=True, help="Also write each record into a JSON file beside its picture."),
    click.Option(["--watch"], is_flag=True, help="Keep running and paint pictures as they arrive, until Ctrl-C."),
)
NAMES = frozenset(str(option.name) for option in OPTIONS)


@hookimpl
def stylize_options(command: click.Command) -> None:
    command.params.extend(OPTIONS)


@hookimpl
def stylize_sources() -> tuple[str, str]:
    return "painted as a folder", "folders"  # a folder or a pattern; or one picture, in several styles


@hookimpl
def stylize_commands(group: click.Group) -> None:
    from stylize_batch.commands import record

    group.add_command(record)


@hookimpl
def stylize_open(
    source: Path,
    styles: Sequence[Path],
    target: Path | None,
    settings: Settings,
    options: Mapping[str, Any],
    host: Host,
) -> Job | None:
    from stylize_batch.scan import is_many

    many = any(map(is_many, (source, *styles)))
    if not many and not (options.get("pair") and len(styles) > 1):
        return None  # where one picture and one style are given with --pair, the host says whose option it is
    from stylize_batch.job import FolderJob

    return FolderJob(source, styles, target, settings, options, host)
