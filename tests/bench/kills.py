"""A folder of pictures, killed at random moments and started again, against an undisturbed run.

    python -m tests.bench.kills [--kills 20] [--count 12] [--seed 0]

Says whether every picture is there, whole, painted once and the same as undisturbed. Run by hand.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from stylize import read_record

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as work:
        photos = Path(work, "photos")
        photos.mkdir()
        for number in range(options.count):
            with Image.open(SAMPLES / ("bridge.jpg", "cat.jpg", "moose.jpg")[number % 3]) as image:
                image.crop((number, number, image.width, image.height)).save(photos / f"{number:02}.png")

        def start(target: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "stylize", str(photos), str(SAMPLES / "mosaic.jpg"), "-q", "-o"]
            return subprocess.Popen([*command, str(Path(work, target)), "--encoder", "mini", "--size", "96"])

        kills, runs, marks = 0, 0, dict[str, int]()
        twice = broken = 0
        while True:
            process, runs = start("out"), runs + 1
            try:
                # the first seconds import torch; the later a kill, the more it may break
                process.wait(draw.uniform(3, 10) if kills < options.kills else None)
                if kills >= options.kills:
                    break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            for path in Path(work, "out").glob("[!.]*.png"):
                mark = path.stat().st_mtime_ns
                twice += marks.setdefault(path.name, mark) != mark
                broken += read_record(path) is None
            if len(marks) == options.count and kills < options.kills:  # all done: take some away and go on
                for name in draw.sample(sorted(marks), 4):
                    Path(work, "out", name).unlink()
                    del marks[name]
        start("undisturbed").wait()
        whole = {path.name: path.read_bytes() for path in Path(work, "undisturbed").iterdir()}
        found = {path.name: path.read_bytes() for path in Path(work, "out").glob("[!.]*")}
        left = [path.name for path in Path(work, "out").glob(".*")]
        same = "identical to" if found == whole else "NOT like"
        print(f"{kills} kills in {runs} runs: {len(found)} of {len(whole)} there, {broken} broken,")
        print(f"{twice} painted twice, {same} an undisturbed run; unfinished files left: {len(left)}")


if __name__ == "__main__":
    main()
