"""The command that tells how far runs are, on whatever machines: status."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from stylize.claims import STALE, Watch, claims_beside, claims_inside, refresh_interval
from stylize.errors import StylizeError
from stylize.runfiles import Painter, Status, painters, status
from stylize.stores import StorePath, as_path, is_file, is_folder
from stylize.text import counted, duration, rounded

SUFFIX = ".claims"


@click.command("status")
@click.argument("target", type=Path)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status_command(target: Path, as_json: bool) -> None:
    """Show how far the runs are that paint TARGET: an output folder, or a clip in the making.

    Lists every process on every machine that takes part, what it paints, and how fast; and when all will be done.
    Processes of other machines are watched until they give a sign of life, for at most 15 seconds.
    """
    target = as_path(target)
    if is_folder(target) and not isinstance(target, StorePath):
        try:
            next(target.iterdir(), None)
        except OSError as error:
            raise StylizeError(f"cannot read the folder {target}: {error.strerror or error}") from error
    folders = [path for path in _folders(target) if is_folder(path)]
    if not folders and not (is_folder(target) or is_file(target)):
        raise StylizeError(f"{target} does not exist, and no run is painting it; give the output folder or clip")
    found = _watched(folders)
    if as_json:
        click.echo(json.dumps([{"target": str(_named(target, folder)), **_as_json(each)} for folder, each in found]))
        return
    if not any(each.at_work or each.stopped or each.gone for _, each in found):
        click.echo(f"{target}: no run is at work")
    for folder, each in found:
        if each.at_work or each.stopped or each.gone:
            click.echo("\n".join(_lines(_named(target, folder), each)))


def _folders(target: Path) -> Iterator[Path]:
    """Where claims on a target, or on clips in it, may lie."""
    if is_folder(target):
        yield claims_inside(target)
        if not isinstance(target, StorePath):
            yield from sorted(target.glob(f".*{SUFFIX}"))
    if target.name:
        yield claims_beside(target)


def _named(target: Path, folder: Path) -> Path:
    """What is painted under the claims in a folder."""
    if folder.suffix != SUFFIX:
        return target
    return folder.with_name(folder.name[1 : -len(SUFFIX)])


def _watched(folders: Sequence[Path]) -> list[tuple[Path, Status]]:
    """The status of each folder, once it is known of every process whether it lives."""
    watch, refresh = Watch(refresh_interval()), refresh_interval()
    until = time.monotonic() + (STALE + 1) * refresh
    while True:
        running = [each for folder in folders for each in painters(folder) if each.state != "ended"]
        for each in running:
            watch.missed(each.path, each.content)
        unknown = any(watch.is_living(each.path, each.content) is None for each in running)
        if not unknown or time.monotonic() > until:
            return [
                (folder, status(folder, lambda each: watch.is_living(each.path, each.content) is not False))
                for folder in folders
            ]
        time.sleep(min(0.2, refresh / 5))


def _lines(target: Path, status: Status) -> Iterator[str]:
    noun, plural = status.noun, f"{status.noun}s"
    processes = counted(len(status.at_work), "process", "processes")
    if status.total is None:
        yield f"{target}: {processes} at work"
    else:
        failed = f", {status.failed} failed" if status.failed else ""
        yield f"{target}: {status.done} of {counted(status.total, noun, plural)} done{failed}; {processes} at work"
    rows = [("host", "process", "paints", "for", plural, f"per {noun}"), *map(_row, status.at_work)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for each in status.stopped:
        yield f"  process {each.process} on {_host(each)}{_held(each)} is stopped; other runs paint that in its place"
    for each in status.gone:
        yield f"  process {each.process} on {_host(each)}{_held(each)} is gone; what it left is painted by other runs"
    if status.rate is not None:
        yield f"{_speed(status.rate, plural)}{_until(status.seconds_left)}"


def _row(painter: Painter) -> tuple[str, ...]:
    return (
        _host(painter),
        str(painter.process),
        ", ".join(" ".join((key or "it").split()) for key in painter.paints) or "-",
        duration(max(painter.paints.values()), rough=True) if painter.paints else "-",
        str(painter.painted),
        "-" if painter.seconds is None else duration(painter.seconds),
    )


def _held(painter: Painter) -> str:
    return f", which was painting {', '.join(painter.paints)}," if painter.paints else ""


def _host(painter: Painter) -> str:
    return painter.host.rpartition(" ")[0] or painter.host


def _speed(rate: float, plural: str) -> str:
    count, unit = (60 * rate, "a minute") if rate >= 1 / 60 else (3600 * rate, "an hour")
    return f"{rounded(count, 3)} {plural} {unit}"


def _until(seconds: float | None) -> str:
    if seconds is None:
        return ""
    end = datetime.now() + timedelta(seconds=seconds)
    at = f"{end:%H:%M}" if seconds < 86400 / 2 else f"{end:%Y-%m-%d %H:%M}"
    return f"; about {duration(seconds, rough=True)} left, until {at}"


def _as_json(status: Status) -> dict[str, Any]:
    def told(painter: Painter, living: bool, stopped: bool = False) -> dict[str, Any]:
        return {
            "host": _host(painter),
            "process": painter.process,
            "at_work": living,
            "stopped": stopped,
            "paints": dict(painter.paints),
            "painted": painter.painted,
            "seconds": painter.seconds,
        }

    return {
        "done": status.done,
        "total": status.total,
        "failed": status.failed,
        "noun": status.noun,
        "per_minute": None if status.rate is None else 60 * status.rate,
        "seconds_left": status.seconds_left,
        "processes": [
            *(told(each, True) for each in status.at_work),
            *(told(each, False, True) for each in status.stopped),
            *(told(each, False) for each in status.gone),
        ],
    }
