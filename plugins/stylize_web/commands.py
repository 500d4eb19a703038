"""The command that serves the page."""

from __future__ import annotations

from pathlib import Path

import click

from stylize import Host, SettingsError, StylizeError

HOST, PORT = "127.0.0.1", 8750


@click.command()
@click.option("--host", "address", default=HOST, show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help=f"Port to listen on; 0: any that is free. Default: {PORT}, or another if that is taken.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Offer the pictures, folders and clips in FOLDER; what becomes of folders and clips goes to FOLDER/painted.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Also keep every painted picture in FOLDER. Without it, they are gone when the server ends.",
)
@click.option(
    "--allow-host", "names", multiple=True, metavar="NAME", help="Answer requests for this host name, too; repeatable."
)
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@click.pass_context
def serve(
    context: click.Context,
    address: str,
    port: int | None,
    folder: Path | None,
    output: Path | None,
    names: tuple[str, ...],
    show: bool,
) -> None:
    """Paint in the browser, on a page that this machine serves.

    Only this machine can open the page, unless --host says otherwise; then it asks for the token that is printed with
    its address. Ctrl-C ends.
    """
    try:
        from stylize_web.server import Place, listen, serve_page
    except ImportError as error:
        raise StylizeError(f"{error}; the page needs the extra web: pip install 'stylize-host[web]'") from error

    if output is not None and not output.parent.is_dir():
        raise SettingsError(f"--output {output}: there is no folder {output.parent}; create it first")
    socket = listen(address, port, PORT)
    with socket:
        place = Place(address, socket.getsockname()[1], names)
        click.echo(f"stylize: {place.url}  (Ctrl-C ends)", err=True)
        serve_page(socket, place, context.find_object(Host) or Host(), folder=folder, output=output, show=show)
