"""Seconds and memory of the default recipe by size, on one device.

    python -m tests.bench.sizes CONTENT STYLE [--sizes 256,512,1024] [--device cuda] [--precision float32]
                                [--output FOLDER]

The first size is painted twice and counted the second time, so that start-up is left out.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch

from stylize.images import as_picture
from stylize.observing import Step
from stylize.pyramid import equivalent_steps, pyramid
from stylize.settings import Settings
from stylize.stylizer import Stylizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--sizes", default="256,512,1024")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    content = as_picture(options.content)
    print("size       steps (full-size)  seconds   ms a full-size step   peak GiB   loss")
    for turn, size in enumerate([sizes[0], *sizes]):
        settings = Settings(size=size, upscale=True, device=options.device, precision=options.precision)
        stylizer = Stylizer(options.style, settings)
        cuda = stylizer.engine.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        steps: list[Step] = []
        begun = time.perf_counter()
        picture = stylizer(content, on_step=steps.append)
        seconds = time.perf_counter() - begun
        if turn == 0:
            continue
        equivalent = equivalent_steps(pyramid(*picture.size, settings))
        peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        retries = sum(step.retries > 0 for step in steps)
        print(
            f"{picture.size[1]:5}x{picture.size[0]:<5} {equivalent:10.1f} {seconds:14.2f}"
            f" {seconds / equivalent * 1e3:16.1f} {peak / 2**30:14.2f} {steps[-1].total:11.4f}   retries {retries}"
        )
        if options.output:
            picture.save(options.output / f"{size}-{settings.precision}.png")


if __name__ == "__main__":
    main()
