"""The live page: pick a photo and a painting in the browser, and watch the one being repainted like the other."""

from __future__ import annotations

import click

from stylize import hookimpl


@hookimpl
def stylize_commands(group: click.Group) -> None:
    from stylize_web.commands import serve

    group.add_command(serve)
