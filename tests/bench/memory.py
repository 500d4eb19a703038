"""What a large picture takes, beside what its plan says.

    python -m tests.bench.memory CONTENT STYLE [--size 4096x4096] [--memory 4GiB] [--steps 6] [--encoder vgg19]
                                 [--output FILE]

The content is enlarged to WIDTHxHEIGHT and painted at that one scale on the CPU. Counted is the most resident memory
there was, less what the interpreter with torch and torchvision had taken. ``--encoder tiny`` is a VGG of at most 20
channels with random weights.
"""

from __future__ import annotations

import argparse
import resource
import time

import torchvision  # noqa: F401  part of what is there before

from stylize.images import Picture, as_picture, resize
from stylize.settings import Settings
from stylize.stylizer import Stylizer
from stylize.testing import tiny_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--size", default="4096x4096")
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--encoder", default="vgg19")
    parser.add_argument("--output")
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    photo = resize(as_picture(options.content).rgb, height, width).clamp(0, 1)
    settings = Settings(
        encoder=options.encoder,
        size=max(height, width),
        upscale=True,
        memory=options.memory,
        scales=1,
        steps=(options.steps,),
        tolerance=0.0,
        device="cpu",
    )
    encoders = [tiny_encoder()] if options.encoder == "tiny" else None
    stylizer = Stylizer(options.style, settings, encoders=encoders)
    plan = stylizer.engine.plan(height, width, steps=options.steps)
    print(plan.description if plan.side else f"{width}x{height} as a whole")
    begun = time.perf_counter()
    painted = stylizer(Picture(photo), on_step=lambda step: print(f"{step.number}: {step.seconds:.0f} s", flush=True))
    seconds = time.perf_counter() - begun
    found = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(f"planned {plan.peak / 2**30:.2f} GiB, found {found / 2**30:.2f}, {plan.peak / found:.3f}; {seconds:.0f} s")
    if options.output:
        painted.save(options.output)


if __name__ == "__main__":
    main()
