"""What a large picture takes, beside what its plan says.

    python -m tests.bench.memory CONTENT STYLE [--size 4096x4096] [--memory 4GiB] [--steps 6] [--encoder vgg19]
                                 [--set NAME=VALUE ...] [--alpha] [--output FILE]
    python -m tests.bench.memory CONTENT STYLE --all

The content is enlarged to WIDTHxHEIGHT and painted at that one scale on the CPU. Counted is the most resident memory
that the process had, interpreter and torch included. ``--set`` changes settings; ``--alpha`` makes a quarter of the
content transparent; ``--encoder tiny`` is a VGG of at most 20 channels with random weights. ``--all`` runs the cases of
:data:`CASES`, each in a process of its own, and prints a table.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from stylize.errors import StylizeError
from stylize.images import Picture, as_picture, resize
from stylize.settings import Settings
from stylize.stylizer import Stylizer
from stylize.testing import tiny_encoder

CASES = tuple(
    f"--encoder {encoder} --size {size} --memory {memory} {rest}".split()
    for encoder, size, memory, rest in (
        ("mini", "1024x768", "1100MB", ""),
        ("mini", "2048x1536", "1500MB", "--set optimizer=adam"),
        ("mini", "2048x1536", "1500MB", ""),
        ("mini", "2048x1536", "1500MB", "--alpha"),
        ("mini", "2048x1536", "1400MB", "--set content_weight=0"),
        ("mini", "2048x1536", "1500MB", "--set style_scale=1.5"),
        ("mini", "2048x1536", "1600MB", "--set precision=float32"),
        ("mini", "3072x2246", "2GB", ""),
        ("vgg19", "768x768", "1600MB", ""),
        ("vgg19", "1536x1024", "1900MB", "--set optimizer=adam"),
        ("tiny", "3072x2304", "2GB", ""),
    )
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--size", default="4096x4096")
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--encoder", default="vgg19")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--alpha", action="store_true")
    parser.add_argument("--output")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    if options.all:
        _all(options.content, options.style)
        return
    width, height = (int(side) for side in options.size.split("x"))
    photo = resize(as_picture(options.content).rgb, height, width).clamp(0, 1)
    alpha = None
    if options.alpha:
        alpha = torch.ones_like(photo[:, :1])
        alpha[..., : width // 4] = 0
    settings = Settings(
        encoder=options.encoder,
        size=max(height, width),
        upscale=True,
        memory=options.memory,
        scales=1,
        steps=(options.steps,),
        tolerance=0.0,
        device="cpu",
    ).replace(**dict(_setting(each) for each in options.set))
    encoders = [tiny_encoder()] if options.encoder == "tiny" else None
    stylizer = Stylizer(options.style, settings, encoders=encoders)
    plan = stylizer.engine.plan(height, width, steps=options.steps)
    print(plan.description if plan.side else f"{width}x{height} as a whole")
    begun = time.perf_counter()
    painted = stylizer(
        Picture(photo, alpha), on_step=lambda step: print(f"{step.number}: {step.seconds:.0f} s", flush=True)
    )
    seconds = time.perf_counter() - begun
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"planned {plan.peak / 2**30:.2f} GiB, found {found / 2**30:.2f}, {found / plan.peak:.3f}; {seconds:.0f} s")
    if options.output:
        painted.save(options.output)


def _setting(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _all(content: str, style: str) -> None:
    print("| what | painted | planned GiB | found GiB | found over planned |\n|---|---|---|---|---|")
    for case in CASES:
        command = [sys.executable, "-m", "tests.bench.memory", content, style, "--steps", "2", *case]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        if done.returncode:
            print(f"| {' '.join(case)} | {done.stderr.strip().splitlines()[-1]} | | | |", flush=True)
            continue
        numbers = lines[-1].replace(",", "").replace(";", "").split()
        print(f"| {' '.join(case)} | {lines[0]} | {numbers[1]} | {numbers[4]} | {numbers[5]} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except StylizeError as error:
        raise SystemExit(str(error)) from None
