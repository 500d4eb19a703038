"""What sharing the work costs: claims on a common folder, with a simulated time to paint.

    python -m tests.bench.scale [--pictures 120] [--paint 0.2] [--runs 1 2 4]

Starts N processes of the folder job, as on N machines, in which the optimisation only waits for ``--paint`` seconds.
Prints for each N, in sum over all processes and for each picture: the CPU time, the operations on the claims folder
(opening, listing, making, renaming and removing), how often a photo and a result were opened; and how much of the time
was spent painting. What Dask costs is measured by ``dask_scale``. Run by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import stylize
from stylize import Frame, Painted, Picture, Request, Settings, Stylizer, claims_inside
from stylize.testing import tiny_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--paint", type=float, help="seconds")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--one", type=Path, help="be one of the runs, in this folder")
    options = parser.parse_args()
    if options.one is not None:
        _one(options.one, options.paint)
    else:
        _shared(options.pictures or 120, options.paint or 0.2, options.runs)


# A folder on a common disk


def _shared(pictures: int, paint: float, runs: list[int]) -> None:
    print(f"{pictures} pictures, {paint} s each")
    print("for each picture:")
    print(f"{'runs':>5}{'CPU':>11}{'on claims':>12}{'photo':>8}{'result':>8}{'painting':>10}  painted by each")
    for count in runs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "photos").mkdir()
            Picture(_noise()).save(folder / "style.png")
            for number in range(pictures):
                Picture(_noise()).save(folder / "photos" / f"{number:06}.png")
            command = [sys.executable, "-m", "tests.bench.scale", "--one", name, "--paint", str(paint)]
            started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
            told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
            assert len(list((folder / "out").glob("*.png"))) == pictures
        painted = [each["painted"] for each in told]
        assert sum(painted) == pictures, "painted twice"
        cpu = 1000 * sum(each["cpu"] for each in told) / pictures
        seen = [sum(each[kind] for each in told) / pictures for kind in ("claims", "photos", "out")]
        share = pictures * paint / sum(each["seconds"] for each in told)
        told_seen = f"{seen[0]:>12.1f}{seen[1]:>8.1f}{seen[2]:>8.1f}"
        print(f"{count:>5}{cpu:>8.1f} ms{told_seen}{100 * share:>9.0f}%  {' '.join(map(str, painted))}", flush=True)


def _noise() -> Any:
    import torch

    return torch.rand(1, 3, 12, 16)


def _one(folder: Path, paint: float) -> None:
    """One run of the folder job; prints what it cost."""
    seen: Counter[str] = Counter()
    places = {"claims": claims_inside(folder / "out"), "photos": folder / "photos", "out": folder / "out"}
    kinds = ("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir")

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in kinds and arguments:
            place = str(arguments[0])
            kind = next((kind for kind, folder in places.items() if place.startswith(str(folder))), "")
            seen[kind] += kind == "claims" or event == "open"

    def wait(self: Stylizer, content: Picture, **_: Any) -> Picture:
        time.sleep(paint)
        record = self.record(content.origin).to_dict()
        return replace(content, rgb=content.rgb[..., :8, :8].contiguous(), record=record)

    settings = Settings(encoder="tiny", size=16, steps=(1,), device="cpu")
    host = stylize.plugin_manager()
    stylizer = Stylizer(folder / "style.png", settings, encoders=[tiny_encoder()])
    with contextlib.suppress(AttributeError):
        Stylizer.__call__ = wait  # type: ignore[method-assign, assignment]
    request = Request(folder / "photos", (folder / "style.png",), folder / "out", settings)
    job = request.open(host)
    painted: list[Frame] = []
    written = job.write

    def write(frame: Frame, result: Painted) -> None:
        painted.append(frame)
        written(frame, result)

    job.write = write  # type: ignore[method-assign, assignment]
    sys.addaudithook(audit)
    begun, cpu = time.monotonic(), time.process_time()
    stylize.run(job, stylizer, host=host)
    print(
        json.dumps(
            {
                "painted": len(painted),
                "seconds": time.monotonic() - begun,
                "cpu": time.process_time() - cpu,
                **{kind: seen[kind] for kind in places},
            }
        )
    )


if __name__ == "__main__":
    main()
