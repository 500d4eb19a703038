"""The executor ``dask``: paints on a cluster of Dask workers, or on one that it starts on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from stylize import SettingsError, hookimpl

if TYPE_CHECKING:
    from stylize import Executor


@hookimpl
def stylize_options(command: click.Command) -> None:
    help = "With --executor dask: the scheduler to send the work to. Default: --jobs workers are started here."
    command.params.append(click.Option(["--scheduler"], metavar="ADDRESS", help=help))


@hookimpl
def stylize_executor(name: str, options: Mapping[str, Any]) -> Executor | None:
    scheduler = options.get("scheduler")
    if name != "dask":
        if scheduler:
            raise SettingsError("--scheduler needs --executor dask")
        return None
    if find_spec("distributed") is None:
        raise SettingsError("--executor dask needs Dask: pip install 'stylize-host[dask]'")
    from stylize_dask.executor import Dask

    if scheduler and options.get("jobs"):
        raise SettingsError("--jobs says how many workers to start; those of --scheduler are there already")
    return Dask(scheduler, workers=options.get("jobs") or 2)
