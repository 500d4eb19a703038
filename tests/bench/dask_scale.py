"""What Dask costs for very many pictures: a scheduler, a client and simulated workers, each in a process of its own.

    python -m tests.bench.dask_scale [--pictures 10000] [--paint 1] [--workers 200]
    python -m tests.bench.dask_scale --plan [--pictures 100000]

The first form paints nothing: each task only waits for ``--paint`` seconds. It prints the CPU time for each picture and
the memory of client, scheduler and workers. The second plans a folder of so many photos, as a run does before it
begins, and prints what that takes. Run by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stylize
from stylize import Chain, Frame, Job, Painted, Picture, Request, Settings, Stylizer
from stylize.testing import tiny_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--paint", type=float, default=1.0, help="seconds")
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--serve", metavar="ADDRESS", help="be the workers of this scheduler")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(_work(options.serve, options.workers, options.paint))
    elif options.plan:
        _plan(options.pictures or 100_000)
    else:
        _run(options.pictures or 10_000, options.paint, options.workers)


@dataclass
class _Waits:
    """In place of a run in a worker: each chain takes so many seconds."""

    seconds: float
    job: Any = None

    def claim(self, chain: Chain) -> bool:
        return True

    def paint(self, chain: Chain) -> None:
        time.sleep(self.seconds)


class _ManyChains(Job):
    """A job of many chains, none of which is painted."""

    def __init__(self, count: int) -> None:
        self.count, self.collected = count, 0
        self.request = Request(Path("photos"), (), Path("out"), Settings(), {})

    def chains(self) -> Any:
        for number in range(self.count):
            yield Chain(f"folder/photo {number:06}.jpg", {"path": f"photos/folder/photo {number:06}.jpg"})

    def frames(self, chain: Chain) -> Any:
        yield from ()

    def write(self, frame: Frame, painted: Painted) -> None:
        raise AssertionError

    def collect(self, chain: Chain, outcome: Any) -> None:
        self.collected += 1


QUIET = {  # what each worker does all the time, which would keep one process busy for all of them
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1h",
    "distributed.admin.system-monitor.interval": "1h",
    "distributed.admin.tick.interval": "1h",
}


async def _work(scheduler: str, count: int, paint: float) -> None:
    """Simulated workers, until the process is killed."""
    import dask
    from distributed import Worker

    from stylize_dask import worker

    worker._lock = contextlib.nullcontext()  # type: ignore[assignment]
    waits = _Waits(paint), worker._Listener()
    worker._joined = lambda order: waits  # type: ignore[assignment, return-value]
    worker._inside = lambda folder: contextlib.nullcontext()  # type: ignore[assignment, return-value]
    dask.config.set(QUIET)
    started = [Worker(scheduler, nthreads=1, host="127.0.0.1", dashboard=False) for _ in range(count)]
    for begin in range(0, count, 20):
        await asyncio.gather(*started[begin : begin + 20])
    print("ready", flush=True)
    await asyncio.gather(*(each.finished() for each in started))


@contextlib.contextmanager
def _cluster(workers: int, paint: float) -> Iterator[tuple[str, int, int]]:
    """The address of a scheduler, its process and that of its workers."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:

        def start(*command: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        file = Path(folder, "scheduler.json")
        local = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        scheduler = start("distributed.cli.dask_scheduler", *local)
        while not file.exists() or '"address"' not in file.read_text():
            time.sleep(0.1)
        address = file.read_text().split('"address": "')[1].split('"')[0]
        simulated = ("--serve", address, "--workers", str(workers), "--paint", str(paint))
        served = start("tests.bench.dask_scale", *simulated)
        assert served.stdout is not None
        assert served.stdout.readline() == "ready\n"
        yield address, scheduler.pid, served.pid


def _run(pictures: int, paint: float, workers: int) -> None:
    from stylize_dask.executor import Dask

    job = _ManyChains(pictures)
    stylizer = Stylizer(_noise(), Settings(encoder="tiny", size=16, device="cpu"), encoders=[tiny_encoder()])
    with _cluster(workers, paint) as (address, scheduler, served):
        processes = {"client": os.getpid(), "scheduler": scheduler, "workers": served}
        before, begun = {name: _cpu(process) for name, process in processes.items()}, time.monotonic()
        stylize.run(job, stylizer, executor=Dask(address))
        seconds = time.monotonic() - begun
        print(f"{job.collected} pictures of {paint} s on {workers} simulated workers")
        for name, process in processes.items():
            each = 1000 * (_cpu(process) - before[name]) / pictures
            print(f"{name:>10}: {each:5.2f} ms of CPU for each, {_peak(process):5.0f} MiB at most")
        print(f"painting {100 * pictures * paint / workers / seconds:.0f} % of the time")


def _plan(pictures: int) -> None:
    """Planning a folder, with links to a few photos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Picture(_noise()).save(folder / "style.png")
        for number in range(pictures):
            place = folder / "photos" / f"{number // 1000:03}"
            place.mkdir(parents=True, exist_ok=True)
            if number % 1000:  # a file can have only so many links
                os.link(place / f"{number // 1000}000.png", place / f"{number}.png")
            else:
                Picture(_noise()).save(place / f"{number // 1000}000.png")
        settings = Settings(encoder="mini", size=16, device="cpu")
        host = stylize.plugin_manager()
        request = Request(folder / "photos", (folder / "style.png",), folder / "out", settings)
        job = request.open(host)
        stylizer = request.stylizer(job, host)
        before, cpu = _peak(os.getpid()), time.process_time()
        job.begin(stylizer)
        count = sum(1 for _ in job.chains())
        each = 1000 * (time.process_time() - cpu) / count
        print(f"planning {count} photos: {each:.2f} ms of CPU for each, {_peak(os.getpid()) - before:+.0f} MiB")
        if job.claims is not None:
            job.claims.close()


def _noise() -> Any:
    import torch

    return torch.rand(1, 3, 12, 16)


def _cpu(process: int) -> float:
    """Seconds of CPU time of a process so far."""
    if process == os.getpid():
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(process: int) -> float:
    """The most memory that a process has had, in MiB."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
