"""The executor: hands chains to the workers of a cluster, or to those that it starts here."""

from __future__ import annotations

import contextlib
import pickle
import platform
import secrets
from multiprocessing.connection import Connection
from pathlib import Path

from stylize import Backlog, Executor, Forked, Request, Run, Serial, SettingsError, StylizeError, fork

# modules, before workers are forked; this one must not load them, nor PyTorch
LOADED = ("stylize.host", "stylize.stylizer", "stylize_dask.clusters", "stylize_dask.team")


class Dask(Executor):
    """Paints on the workers of a Dask cluster. Sources, styles and targets must lie where all of them see them, under
    the same paths.

    Args:
        scheduler: its address, such as "tcp://host:8786"; None: workers are started on this machine.
        workers: how many, then.
    """

    def __init__(self, scheduler: str | None = None, *, workers: int = 2) -> None:
        self.scheduler, self.workers = scheduler, workers
        self._forked: list[Forked] = []

    def prepare(self) -> None:
        if self.scheduler is None and not self._forked:
            self._forked = fork(self.workers, _serve, LOADED)

    def close(self) -> None:
        while self._forked:
            self._forked.pop().close()

    def paint(self, run: Run) -> None:
        request = run.job.request
        if request is None:
            raise SettingsError("this job cannot be painted by other processes: it was not opened by Request.open()")
        with contextlib.closing(run.backlog()) as backlog:
            if (chain := backlog.sole()) is not None:  # as well painted here, where the job may keep its result
                backlog.put_back(chain)
                Serial().paint_backlog(run, backlog)
                return
            self._paint(run, backlog, request)

    def _paint(self, run: Run, backlog: Backlog, request: Request) -> None:
        import torch

        from stylize_dask import clusters, team, worker

        versions = worker.versions(run.host)
        order = worker.Order(
            secrets.token_hex(4), request, versions, Path.cwd(), torch.get_num_threads(), platform.node()
        )
        try:
            packed = pickle.dumps(order)
        except Exception as error:
            raise StylizeError(f"an option cannot be sent to another process: {error}") from error
        if self.scheduler is not None:
            with clusters.connected(self.scheduler) as client:
                team.Team(run, backlog, client, order, packed).paint()
            return
        forked, self._forked = self._forked, []
        try:
            with contextlib.closing(clusters.Local(self.workers, forked)) as local:
                team.Team(run, backlog, local.client, order, packed, local.replace).paint()
        finally:
            for each in forked:
                each.close()


def _serve(connection: Connection) -> None:
    from stylize_dask import clusters

    clusters.serve(connection)
