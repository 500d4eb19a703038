"""The command that puts the plug-in where GIMP looks for it."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from stylize import PRESETS, Host, StylizeError, plugin_manager, setting_fields

NAME = "stylize"  # GIMP asks that a plug-in lies in a folder of its own name
SOURCE = Path(__file__).with_name("plug_in.py")


@click.group()
def gimp() -> None:
    """Use stylize in GIMP 3."""


@gimp.command()
@click.argument("folder", type=Path, required=False)
@click.pass_context
def install(context: click.Context, folder: Path | None) -> None:
    """Add stylize to GIMP 3, in the folder for plug-ins FOLDER.

    Default: that of the newest GIMP 3 of this user. Install again after an update of stylize or of its plugins.
    """
    from stylize import atomic_write  # imports what reads pictures, which --help has no need of

    target = (newest() if folder is None else folder) / NAME
    description = json.dumps(described(context.find_object(Host) or plugin_manager()), indent=1)
    script = target / f"{NAME}.py"
    try:
        if script.exists() and "plug-in-stylize" not in script.read_text(encoding="utf-8", errors="replace"):
            raise StylizeError(f"{target} belongs to something else; rename or remove it first")
        target.mkdir(parents=True, exist_ok=True)
        with atomic_write(target / f"{NAME}.json") as file:
            file.write_text(description, encoding="utf-8")
        with atomic_write(script) as file:
            file.write_text(SOURCE.read_text(encoding="utf-8"), encoding="utf-8")
        script.chmod(0o755)
    except OSError as error:
        raise StylizeError(f"cannot write to {target}: {error.strerror or error}") from error
    click.echo(f"wrote {script}")
    click.echo("restart GIMP; the plug-in is Filters > Artistic > Stylize")


def newest() -> Path:
    """The folder for plug-ins of the newest GIMP 3 that this user has run.

    Raises:
        StylizeError: there is none.
    """
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    places = [Path(os.environ["GIMP3_DIRECTORY"]).parent] if "GIMP3_DIRECTORY" in os.environ else []
    places += [config / "GIMP", home / ".var/app/org.gimp.GIMP/config/GIMP"]
    places += [home / "Library/Application Support/GIMP", Path(os.environ.get("APPDATA") or home) / "GIMP"]
    for place in places:
        versions = [each for each in place.glob("3.*") if each.is_dir() and re.fullmatch(r"3\.\d+", each.name)]
        if versions:
            return max(versions, key=lambda each: int(each.name[2:])) / "plug-ins"
    raise StylizeError(
        "no settings of GIMP 3 are there; start GIMP once, or give the folder for plug-ins that its preferences name"
    )


def described(host: Host) -> dict[str, Any]:
    """What the plug-in knows of stylize: how to start it, its settings and its presets."""
    fields = [asdict(field) for field in setting_fields()]
    choices = {"preserve_color": [mode.name for mode in host.color_modes()]}
    choices["encoder"] = ["auto", *(spec.name for spec in host.encoders())]
    for field in fields:
        field["choices"] = choices.get(field["name"]) or list(field["choices"])
    presets = {name: summary for name, (summary, _) in PRESETS.items()}
    return {"command": [sys.executable, "-m", "stylize"], "settings": fields, "presets": presets}
