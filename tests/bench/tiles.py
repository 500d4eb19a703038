"""Tiles against the whole picture: how far apart the gradients are, and what a step costs.

    python -m tests.bench.tiles CONTENT STYLE [--sizes 513x771 ...] [--sides 256 512 1024] [--encoder vgg19]
        [--precision float32]

Sizes are height x width; each is seen whole once, and in tiles of every side that gives more than one. "border" is the
mean error within two px of where tiles meet, over that elsewhere: 1 if no seam can come of it.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from stylize import Scale, Settings, Stylizer, load, resize, tiles
from stylize.objective import objective
from stylize.optimizer import Evaluate


def timed(evaluate: Evaluate, image: Tensor) -> tuple[Tensor, float]:
    begun = time.perf_counter()
    _, gradient = evaluate(image)
    return gradient, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--sizes", nargs="+", default=["513x771", "640x480", "777x1025", "850x640", "1000x1333"])
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 512, 1024])
    parser.add_argument("--encoder", default="vgg19")
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    photo = load(options.content).rgb
    settings = Settings(encoder=options.encoder, precision=options.precision, tv_weight=0.1)
    stylizer = Stylizer(options.style, settings)
    print("| picture | tiles | gradients apart | border | s, over whole |\n|---|---|---|---|---|")
    for size in options.sizes:
        height, width = map(int, size.split("x"))
        terms = stylizer.terms(resize(photo, height, width), Scale(height, width, 1))
        noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 0.05
        image = (resize(photo, height, width) + noise).clamp(0, 1)
        encoder = tiles.tileable(stylizer.engine.encoder, height, width)
        assert encoder is not None
        whole, seconds = timed(objective(stylizer.engine, terms, 0), image)
        for side in options.sides:
            made = tiles.tiles(height, width, side, encoder)
            if len(made) == 1:
                continue
            gradient, taken = timed(objective(stylizer.engine, terms, side), image)
            error = (gradient - whole).abs().sum(1)[0]
            border = torch.zeros(height, width, dtype=torch.bool)
            for tile in made:
                for place, across in ((tile.rows[0], border), (tile.columns[0], border.T)):
                    across[max(0, place - 2) : place + 2 if place else 0] = True
            apart = float((gradient - whole).norm() / whole.norm())
            seam = float(error[border].mean() / error[~border].mean())
            print(
                f"| {width}x{height} | {len(made)} of {side} | {apart:.0e} | {seam:.2f} | {taken / seconds:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
