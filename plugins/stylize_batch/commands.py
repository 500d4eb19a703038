"""The command that the folder plugin adds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click


@click.command()
@click.argument("pictures", type=Path, nargs=-1, required=True, metavar="PICTURE...")
def record(pictures: Sequence[Path]) -> None:
    """Print the records of stylized pictures: how each was made, as one JSON object."""
    from stylize import ImageError, digest, read_record

    silent = []
    for picture in pictures:
        found = read_record(picture)
        if found is None:
            digest(picture)  # says what is wrong where it cannot be read
            silent.append(str(picture))
        else:
            click.echo(json.dumps(found, indent=2))
    if silent:
        raise ImageError(f"no record of stylize in {', '.join(silent)}")
