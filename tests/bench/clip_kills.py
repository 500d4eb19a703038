"""A clip, killed at random moments and started again, against an undisturbed run.

    python -m tests.bench.clip_kills CLIP [--kills 50] [--frames 24] [--jobs 2] [--every 3] [--seed 0] [--full FOLDER]

Kills with SIGKILL and SIGTERM by turns, every other run with --jobs processes, and with --full, a tmpfs, fills that
file system at random moments. With --every, clips are made that way, of frames painted and between. Says whether every
frame was painted once, whether anything was left running, and whether the clip is the same, frame by frame, as
undisturbed. Run by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylize_video.decode import decode
from stylize_video.probe import probe

STYLE = Path(__file__).resolve().parents[2] / "samples" / "mosaic.jpg"
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
GONE = 3.0  # s in which everything must have ended after a kill


def frames(path: Path) -> list[NDArray[Any]]:
    clip = probe(path)
    return list(decode(clip, clip.height, clip.width))


def running(mark: str) -> list[int]:
    """The processes of this machine that were started in the environment of a run."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


@contextlib.contextmanager
def filled(folder: Path, room: int) -> Iterator[None]:
    """A file system on which only ``room`` bytes are left."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - room))
    try:
        yield
    finally:
        ballast.unlink()


class Trial:
    """One clip that is painted, disturbed again and again."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self._options, self._work, self._draw = options, work, random.Random(options.seed)
        self._marks: dict[str, int] = {}
        self.kills = self.fills = self.twice = self.left = self.codes = 0

    def start(self, target: str, *more: str) -> subprocess.Popen[bytes]:
        rate = probe(self._options.clip).rate
        command = [sys.executable, "-m", "stylize", str(self._options.clip), str(STYLE), "-q", "--codec", "ffv1"]
        stretch = ["--to", str(float((self._options.frames - 0.5) / rate)), "--encoder", "mini", "--size", "64"]
        stretch += ["--every", str(self._options.every)] if self._options.every else []
        environment = {**os.environ, "CLIP_KILLS": str(self._work)}
        return subprocess.Popen(
            [*command, *stretch, "--frame-steps", "30", "--tolerance", "0", "-o", str(self._work / target), *more],
            env=environment,
            stderr=subprocess.PIPE,
        )

    def disturb(self) -> None:
        """One run that is killed, or out of room, unless it ends before."""
        jobs = ["--jobs", str(self._options.jobs)] if self._draw.random() < 0.5 else []
        if self._options.full and self._draw.random() < 0.3:
            with filled(self._work, self._draw.randrange(4096, 150_000)):
                process = self.start("out.mkv", *jobs)
                _, said = process.communicate()
            self.fills += 1
            self.codes += process.returncode == 1 and b"No space left" not in said
        else:
            process = self.start("out.mkv", *jobs)
            try:
                process.wait(self._draw.uniform(*self._options.between))
            except subprocess.TimeoutExpired:
                process.send_signal(SIGNALS[self.kills % len(SIGNALS)])
                process.communicate()
                self.kills += 1
        self._look()

    def _look(self) -> None:
        until = time.monotonic() + GONE
        while (left := running(f"CLIP_KILLS={self._work}")) and time.monotonic() < until:
            time.sleep(0.1)
        self.left += len(left)
        for path in self._work.glob(".out.mkv.work/0*.png"):
            mark = path.stat().st_mtime_ns
            self.twice += self._marks.setdefault(path.name, mark) != mark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--every", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--between", type=float, nargs=2, default=(2.0, 9.0), help="seconds that a run is given")
    parser.add_argument("--full", type=Path, help="a small file system that may be filled")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.full) as name:
        work, done = Path(name), 0
        trial = Trial(options, work)
        with trial.start("undisturbed.mkv") as process:
            process.communicate()
        undisturbed, same = frames(work / "undisturbed.mkv"), 0
        while trial.kills + trial.fills < options.kills:
            trial.disturb()
            if (work / "out.mkv").exists():  # once more
                resumed, done = frames(work / "out.mkv"), done + 1
                same += len(resumed) == len(undisturbed) and all(map(np.array_equal, resumed, undisturbed))
                (work / "out.mkv").unlink()
                trial._marks.clear()
        with trial.start("out.mkv") as process:
            process.communicate()
        resumed, done = frames(work / "out.mkv"), done + 1
        same += len(resumed) == len(undisturbed) and all(map(np.array_equal, resumed, undisturbed))
        print(f"{trial.kills} kills, {trial.fills} full disks, {trial.codes} of these without saying so")
        print(f"{trial.twice} frames painted twice, {trial.left} processes left running")
        print(f"{same} of {done} clips identical to an undisturbed run")
        left = [path.name for path in work.iterdir() if path.name.startswith(".")]
        print(f"left over: {', '.join(left) or 'nothing'}")


if __name__ == "__main__":
    main()
