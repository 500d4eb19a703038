"""Pictures shared by processes that are stopped and killed, and by Dask: is each painted once, at what cost.

    python -m tests.bench.machines shared [--pictures 40]     # four processes on one folder: one stopped, one killed
    python -m tests.bench.machines dask [--pictures 40]       # CPU time of two Dask workers, against one process
    python -m tests.bench.machines kills [--kills 20]         # worker, nanny, scheduler and client, at random
    python -m tests.bench.machines clip                       # six shots over two workers, against one process

Painted with ``mini`` at ``--size`` 64. Run by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from stylize import claims_inside, is_alive

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
STYLE = SAMPLES / "mosaic.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("shared", "dask", "kills", "clip"))
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        call = Calls(folder, options.size)
        if options.what == "clip":
            clip(folder, call)
            return
        photos(folder / "photos", options.pictures)
        if options.what == "shared":
            shared(folder, call, options.pictures)
        elif options.what == "dask":
            dask(folder, call)
        else:
            kills(folder, call, options.kills, random.Random(options.seed))


class Calls:
    """Starts the command line on the photos of a folder.

    Args:
        folder: where it is started, and where each process has a cache of its own.
        size: of the results, in px.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.options, self.count = folder, ("--encoder", "mini", "--size", str(size)), 0

    def start(self, source: str, target: str, *options: str) -> subprocess.Popen[str]:
        self.count += 1
        environment = {**os.environ, "STYLIZE_CACHE": str(self.folder / f"cache{self.count}"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "stylize", source, str(STYLE), "-o", target, *self.options, *options]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def cpu(self, source: str, target: str, *options: str) -> float:
        """CPU seconds of a whole call, with all processes that it starts."""
        before = _used()
        process = self.start(source, target, *options)
        _, told = process.communicate()
        assert process.returncode == 0, told
        return _used() - before


def _used() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def photos(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        with Image.open(SAMPLES / ("bridge.jpg", "cat.jpg", "moose.jpg")[number % 3]) as image:
            image.crop((number, number, image.width, image.height)).reduce(2).save(folder / f"{number:03}.png")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


def wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.05)


class Marks:
    """Counts how often each result has been written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen, self.again = folder, dict[str, int](), 0

    def look(self) -> int:
        """How many results there are."""
        for path in self.folder.glob("[!.]*.png"):
            mark = path.stat().st_mtime_ns
            self.again += self.seen.setdefault(path.name, mark) != mark
            self.seen[path.name] = mark
        return len(self.seen)


def shared(folder: Path, call: Calls, count: int) -> None:
    """Four processes; one is stopped for a while, one killed, both while they paint."""
    marks = Marks(folder / "out")
    runs = [call.start("photos", "out") for _ in range(4)]
    wait_for(lambda: marks.look() >= 4)
    claims = claims_inside(folder / "out")
    for run, number in ((runs[0], signal.SIGSTOP), (runs[1], signal.SIGKILL)):
        while run.poll() is None and not _paints(claims, run.pid):
            time.sleep(0.05)
        run.send_signal(number)
    wait_for(lambda: marks.look() == count)
    runs[0].send_signal(signal.SIGCONT)
    told = [run.communicate()[1] for run in runs]
    marks.look()
    begun = [line for each in told for line in each.splitlines() if "painted" in line]
    print(f"{marks.look()} of {count} there, {marks.again} written twice; left: {[*(folder / 'out').glob('.*')]}")
    print("\n".join(begun))
    lone = call.start("photos", "alone")
    lone.communicate()
    print("the same as one process paints:", contents(folder / "out") == contents(folder / "alone"))


def _paints(claims: Path, process: int) -> bool:
    for path in claims.glob("*.[0-9]"):
        with contextlib.suppress(OSError):
            if f'"process": {process},' in path.read_text():
                return True
    return False


def dask(folder: Path, call: Calls) -> None:
    """CPU time of two workers and all else that Dask starts, against one process and the executor ``processes``."""
    for turn in range(2):
        plain = call.cpu("photos", f"plain{turn}")
        processes = call.cpu("photos", f"processes{turn}", "--jobs", "2")
        workers = call.cpu("photos", f"dask{turn}", "--jobs", "2", "--executor", "dask")
        ratios = f"processes {processes / plain:.2f}x, dask {workers / plain:.2f}x"
        print(f"one process {plain:.1f} s of CPU, {ratios}", flush=True)
    one, *others = (contents(folder / f"{name}0") for name in ("plain", "processes", "dask"))
    print("the same pictures:", all(other == one for other in others))


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """A scheduler and two nannies with a worker each, restarted by :func:`revive`."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        revive(folder, running)
        yield running
    finally:
        for process in running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def revive(folder: Path, running: dict[str, subprocess.Popen[bytes]]) -> None:
    """Start what is not running, as a supervisor would."""

    def start(name: str, *arguments: str) -> None:
        if name not in running or running[name].poll() is not None:
            command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            running[name] = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **quiet)

    port = os.environ.get("STYLIZE_BENCH_PORT", "18786")
    start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    for name in ("nanny1", "nanny2"):
        start(name, "worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-dashboard", "--death-timeout", "20")


def kills(folder: Path, call: Calls, count: int, draw: random.Random) -> None:
    marks, done, calls = Marks(folder / "out"), dict.fromkeys(("worker", "nanny", "scheduler", "client"), 0), 0
    total = len(list((folder / "photos").iterdir()))
    with cluster(folder) as running:
        client: subprocess.Popen[str] | None = None
        while True:
            revive(folder, running)
            if client is None or client.poll() is not None:
                if client is not None and client.returncode == 0:
                    if sum(done.values()) >= count:
                        break
                    for name in draw.sample(sorted(marks.seen), total // 2):  # all done: take some away and go on
                        (folder / "out" / name).unlink()
                        del marks.seen[name]
                port = os.environ.get("STYLIZE_BENCH_PORT", "18786")
                client = call.start("photos", "out", "--executor", "dask", "--scheduler", f"tcp://127.0.0.1:{port}")
                calls += 1
            there = marks.look()
            until = time.monotonic() + draw.uniform(2, 20)
            while time.monotonic() < until and client.poll() is None:
                if marks.look() > there and sum(done.values()) < count and draw.random() < 0.2:
                    break
                time.sleep(0.05)
            if client.poll() is None and sum(done.values()) < count:
                who = draw.choice(sorted(done))
                done[who] += _kill(who, running, client, draw)
        client.communicate()
    lone = call.start("photos", "alone")
    lone.communicate()
    found, whole = contents(folder / "out"), contents(folder / "alone")
    left = [path.name for path in (folder / "out").glob(".*")]
    print(f"killed: {done}; {calls} calls")
    print(f"{len(found)} of {total} there, {marks.again} written twice; identical to one process: {found == whole}")
    print(f"unfinished files left: {left}")


def _kill(
    who: str, running: dict[str, subprocess.Popen[bytes]], client: subprocess.Popen[str], draw: random.Random
) -> bool:
    if who == "client":
        client.kill()
        client.communicate()
        return True
    nanny = running[draw.choice(("nanny1", "nanny2"))]
    if who == "worker":
        threads = [*Path(f"/proc/{nanny.pid}/task").glob("*/children")]
        workers = [int(each) for children in threads for each in children.read_text().split()]
        workers = [each for each in workers if is_alive(each) and b"spawn_main" in _command(each)]
        for worker in workers[:1]:
            os.kill(worker, signal.SIGKILL)
        return bool(workers)
    process = running["scheduler"] if who == "scheduler" else nanny
    if process.poll() is not None:
        return False
    process.kill()
    process.wait()
    return True


def _command(process: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def clip(folder: Path, call: Calls) -> None:
    """Six shots of eight frames."""
    from tests.test_video import clip as written
    from tests.test_video import moving

    written(folder / "in.mkv", [frame for number in range(6) for frame in moving(8, number % 3)])
    shutil.copy(STYLE, folder / "style.jpg")
    options = ("--codec", "ffv1", "--steps", "20")
    for name, more in {
        "one.mkv": (),
        "dask.mkv": ("--executor", "dask", "--jobs", "2"),
        "jobs.mkv": ("--jobs", "2"),
    }.items():
        process = call.start("in.mkv", name, *options, *more)
        _, told = process.communicate()
        assert process.returncode == 0, told
    one, *others = ((folder / name).read_bytes() for name in ("one.mkv", "dask.mkv", "jobs.mkv"))
    print("the same bytes as one process writes: dask", one == others[0], "processes", one == others[1])


if __name__ == "__main__":
    main()
