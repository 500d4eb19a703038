"""A folder of pictures against as many single runs: processor time of all processes, alternating.

    python -m tests.bench.folder [--size 128] [--count 16] [--encoder auto] [--rounds 1]

The pictures are crops of the samples. Run by hand; prints a table.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


def stylize(*arguments: object) -> tuple[float, float]:
    """(processor, wall) seconds of one run."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "stylize", *map(str, arguments), "-q"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--encoder", default="auto")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        photos = Path(work, "photos")
        photos.mkdir()
        sources = ["bridge", "cat", "coffee", "moose"]
        for number in range(options.count):
            with Image.open(SAMPLES / f"{sources[number % 4]}.jpg") as image:
                left = 20 * (number // 4)
                image.crop((left, left, image.width, image.height)).save(photos / f"{number:02}.png")
        shared = ("--size", options.size, "--encoder", options.encoder)
        style = SAMPLES / "starry-night.jpg"
        singles, folders = [], []
        for number in range(options.rounds):
            runs = [
                stylize(photo, style, "-o", Path(work, "single.png"), *shared) for photo in sorted(photos.iterdir())
            ]
            singles.append((sum(run[0] for run in runs), sum(run[1] for run in runs)))
            folders.append(stylize(photos, style, "-o", Path(work, f"out{number}"), *shared))
    single, folder = (
        tuple(statistics.median(column) for column in zip(*each, strict=True)) for each in (singles, folders)
    )
    print("| | CPU s | wall s |\n|---|---|---|")
    print(f"| {options.count} single runs | {single[0]:.0f} | {single[1]:.0f} |")
    print(f"| one folder | {folder[0]:.0f} | {folder[1]:.0f} |")
    print(f"| ratio | {folder[0] / single[0]:.2f} | {folder[1] / single[1]:.2f} |")


if __name__ == "__main__":
    main()
