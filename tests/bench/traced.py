"""A plugin for tests.bench.peers: saves the picture every few steps, and says when, without the time that takes.

Told by the environment: TRACE_FOLDER, TRACE_EVERY, and TRACE_BEGUN, the time at which the program was started.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from PIL import Image

from stylize import Frame, Step, hookimpl

FOLDER, EVERY, BEGUN = (
    Path(os.environ["TRACE_FOLDER"]),
    int(os.environ["TRACE_EVERY"]),
    float(os.environ["TRACE_BEGUN"]),
)
looked = 0.0  # seconds spent here


@hookimpl
def stylize_step(frame: Frame, step: Step) -> None:
    global looked
    begun = time.time()
    place = {"scale": step.scale, "number": step.number, "height": step.height, "width": step.width}
    line: dict[str, float | str] = {**place, "seconds": begun - BEGUN - looked, "looked": looked}
    if step.number % EVERY == 0:
        array = (step.image()[0].permute(1, 2, 0) * 255).round().byte().numpy()
        line["picture"] = name = f"{step.scale}-{step.number:05}.png"
        Image.fromarray(array).save(FOLDER / name, compress_level=1)
    with Path(FOLDER, "steps.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    looked += time.time() - begun
