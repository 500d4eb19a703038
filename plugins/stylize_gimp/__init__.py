"""stylize in GIMP 3: a plug-in for it, and the command that installs that."""

from __future__ import annotations

import click

from stylize import hookimpl


@hookimpl
def stylize_commands(group: click.Group) -> None:
    from stylize_gimp.commands import gimp

    group.add_command(gimp)
