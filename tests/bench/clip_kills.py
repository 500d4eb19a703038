"""A clip, killed at random moments and started again, against an undisturbed run.

    python -m tests.bench.clip_kills CLIP [--kills 20] [--frames 24] [--seed 0]

Says whether every frame was painted once and the clip is the same, frame by frame, as undisturbed. Run by hand.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylize_video.decode import decode
from stylize_video.probe import probe

STYLE = Path(__file__).resolve().parents[2] / "samples" / "mosaic.jpg"


def frames(path: Path) -> list[NDArray[Any]]:
    clip = probe(path)
    return list(decode(clip, clip.height, clip.width))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, rate = random.Random(options.seed), probe(options.clip).rate
    with tempfile.TemporaryDirectory() as work:

        def start(target: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "stylize", str(options.clip), str(STYLE), "-q", "--codec", "ffv1"]
            stretch = ["--to", str(float((options.frames - 0.5) / rate)), "--encoder", "mini", "--size", "128"]
            return subprocess.Popen([*command, *stretch, "--frame-steps", "30", "-o", str(Path(work, target))])

        kills, twice, marks = 0, 0, dict[str, int]()
        while not Path(work, "out.mkv").exists():
            process = start("out.mkv")
            try:
                process.wait(draw.uniform(2, 7) if kills < options.kills else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            for path in Path(work, ".out.mkv.work").glob("0*.png"):
                mark = path.stat().st_mtime_ns
                twice += marks.setdefault(path.name, mark) != mark
        start("undisturbed.mkv").wait()
        resumed, undisturbed = frames(Path(work, "out.mkv")), frames(Path(work, "undisturbed.mkv"))
        same = len(resumed) == len(undisturbed) and all(
            np.array_equal(one, other) for one, other in zip(resumed, undisturbed, strict=True)
        )
        print(f"{kills} kills: {len(resumed)} frames, {twice} painted twice, {'identical to' if same else 'NOT like'}")
        print("an undisturbed run")


if __name__ == "__main__":
    main()
