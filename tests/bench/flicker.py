"""How steady a clip is: E_warp, the mean squared difference of each frame from its predecessor carried along.

    python -m tests.bench.flicker PAINTED [--source CLIP --from SECONDS] [--flow farneback]

The flow is that of the source where one is given, by an engine that the painting did not use; pixels that were not to
be seen before do not count. Prints E_warp of both and their ratio, and how the mean brightness drifts.
"""

from __future__ import annotations

import argparse
import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np

from stylize_video import media
from stylize_video.flow import engine, valid, warp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("painted", type=Path)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--from", dest="begin", type=Fraction, default=Fraction(0))
    parser.add_argument("--flow", default="farneback")
    options = parser.parse_args()
    painted = media.probe(options.painted)
    size = painted.height, painted.width
    frames = media.read(painted, *size)
    source = media.read(painted, *size)
    if options.source is not None:
        source = media.read(media.probe(options.source), *size, start=options.begin)
    flow = engine(options.flow)
    assert flow is not None
    errors, brightness = [], []
    for (one, one_source), (two, two_source) in itertools.pairwise(zip(frames, source, strict=False)):
        back = flow(two_source, one_source)
        mask = valid(back, flow(one_source, two_source))
        error = [
            ((b / 255 - warp(a / 255.0, back)) ** 2)[mask].mean() for a, b in ((one, two), (one_source, two_source))
        ]
        errors.append(error)
        brightness.append(two.mean() / 255)
    own, theirs = np.mean(errors, 0)
    print(
        f"{len(errors) + 1} frames: E_warp {own:.6f}, the source's {theirs:.6f}, ratio {own / max(theirs, 1e-12):.2f}"
    )
    print(f"brightness {brightness[0]:.4f} to {brightness[-1]:.4f}, within {np.ptp(brightness):.4f}")


if __name__ == "__main__":
    main()
