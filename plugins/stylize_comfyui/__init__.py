"""stylize in ComfyUI: nodes that repaint pictures, clips and textures, and the command that installs them there."""

from __future__ import annotations

import click

from stylize import hookimpl


@hookimpl
def stylize_commands(group: click.Group) -> None:
    from stylize_comfyui.commands import comfyui

    group.add_command(comfyui)
