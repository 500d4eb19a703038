"""What sharing the work costs: claims on a common folder, and Dask, with a simulated time to paint.

    python -m tests.bench.scale [--pictures 120] [--paint 0.2] [--runs 1 2 4]
    python -m tests.bench.scale --dask [--pictures 5000] [--paint 1] [--workers 200]

The first form starts N processes of the folder job, as on N machines, in which the optimisation only waits for
``--paint`` seconds, and prints for each N the seconds of CPU per picture, the operations on the claims folder per
picture, and how much of the time was spent painting. The second submits that many chains to simulated workers in the
process of the scheduler, and prints milliseconds of CPU per chain, and what scheduler and client grow by. Run by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import stylize
from stylize import Chain, Frame, Job, Painted, Picture, Request, Settings, Stylizer, claims_inside
from stylize.testing import tiny_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--paint", type=float, help="seconds")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--one", type=Path, help="be one of the runs, in this folder")
    options = parser.parse_args()
    if options.one is not None:
        _one(options.one, options.paint)
    elif options.dask:
        _dask(options.pictures or 5000, options.paint or 1.0, options.workers)
    else:
        _shared(options.pictures or 120, options.paint or 0.2, options.runs)


# A folder on a common disk


def _shared(pictures: int, paint: float, runs: list[int]) -> None:
    print(f"{pictures} pictures, {paint} s each")
    print(f"{'runs':>5}{'CPU per picture':>18}{'on claims, each':>18}{'painting':>10}  painted by each")
    for count in runs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "photos").mkdir()
            Picture(_noise()).save(folder / "style.png")
            for number in range(pictures):
                Picture(_noise()).save(folder / "photos" / f"{number:06}.png")
            command = [sys.executable, "-m", "tests.bench.scale", "--one", name, "--paint", str(paint)]
            started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
            told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
            assert len(list((folder / "out").glob("*.png"))) == pictures
        painted = [each["painted"] for each in told]
        assert sum(painted) == pictures, "painted twice"
        cpu = 1000 * sum(each["cpu"] for each in told) / pictures
        operations = sum(each["operations"] for each in told) / pictures
        share = pictures * paint / sum(each["seconds"] for each in told)
        print(f"{count:>5}{cpu:>15.1f} ms{operations:>18.1f}{100 * share:>9.0f}%  {' '.join(map(str, painted))}")


def _noise() -> Any:
    import torch

    return torch.rand(1, 3, 12, 16)


def _one(folder: Path, paint: float) -> None:
    """One run of the folder job; prints what it cost."""
    seen: Counter[str] = Counter()
    claims = str(claims_inside(folder / "out"))

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir") and arguments:
            seen[event] += str(arguments[0]).startswith(claims)

    def wait(self: Stylizer, content: Picture, **_: Any) -> Picture:
        time.sleep(paint)
        record = self.record(content.origin).to_dict()
        return replace(content, rgb=content.rgb[..., :8, :8].contiguous(), record=record)

    settings = Settings(encoder="tiny", size=16, steps=(1,), device="cpu")
    host = stylize.plugin_manager()
    stylizer = Stylizer(folder / "style.png", settings, encoders=[tiny_encoder()])
    with contextlib.suppress(AttributeError):
        Stylizer.__call__ = wait  # type: ignore[method-assign, assignment]
    request = Request(folder / "photos", (folder / "style.png",), folder / "out", settings)
    job = request.open(host)
    painted: list[Frame] = []
    written = job.write

    def write(frame: Frame, result: Painted) -> None:
        painted.append(frame)
        written(frame, result)

    job.write = write  # type: ignore[method-assign, assignment]
    sys.addaudithook(audit)
    begun, cpu = time.monotonic(), time.process_time()
    stylize.run(job, stylizer, host=host)
    print(
        json.dumps(
            {
                "painted": len(painted),
                "seconds": time.monotonic() - begun,
                "cpu": time.process_time() - cpu,
                "operations": seen.total(),
            }
        )
    )


# Dask


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


def _dask(chains: int, paint: float, workers: int) -> None:
    import dask
    from distributed import LocalCluster

    from stylize_dask import worker
    from stylize_dask.executor import Dask

    worker._lock = contextlib.nullcontext()  # type: ignore[assignment]
    waits = _Waits(paint), worker._Listener()
    worker._joined = lambda order: waits  # type: ignore[assignment, return-value]
    worker._inside = lambda folder: contextlib.nullcontext()  # type: ignore[assignment, return-value]
    with (
        dask.config.set({"distributed.worker.heartbeat": "1s"}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=False,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
    ):
        job = _ManyChains(chains)
        stylizer = Stylizer(_noise(), Settings(encoder="tiny", size=16, device="cpu"), encoders=[tiny_encoder()])
        before, begun, cpu = _resident(), time.monotonic(), time.process_time()
        stylize.run(job, stylizer, executor=Dask(cluster.scheduler_address))
        seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
        print(f"{job.collected} chains of {paint} s on {workers} simulated workers: {seconds:.0f} s")
        print(f"CPU of client, scheduler and {workers} workers: {1000 * cpu / chains:.2f} ms per chain")
        print(f"painting {100 * chains * paint / workers / seconds:.0f} % of the time")
        print(f"memory: {_resident() - before:+.0f} MiB while it ran, {_resident():.0f} MiB in all")
        print(f"largest: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def _resident() -> float:
    """MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
