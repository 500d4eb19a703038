"""Stylize and two other programs as they ship, with the same VGG-19: what they take, and what comes out.

    python -m tests.bench.peers CONTENT STYLE --score score.py --weights vgg19-features.safetensors
        [--style-transfer-pytorch CHECKOUT|COMMAND] [--neural-style-pt CHECKOUT|COMMAND] [--sizes 256,512] [--rounds 3]
        [--options PROGRAM="..."] [--device cpu] [--every 5] [--plot peers.png] [--keep FOLDER]

The programs take turns, each run a process of its own. score.py STYLIZED CONTENT STYLE --weights FILE prints JSON with
style, held and content, the lower the better. Once a size stylize is run again and saves its picture every few steps:
the first that is better in all three than another program's result tells what that result costs with stylize.
Printed is a table in Markdown, of medians; the plot shows style against seconds. Run by hand.

crowsonkb/style-transfer-pytorch and ProGamerGov/neural-style-pt must be able to run in this environment, or be given as
the command of their own, such as /path/to/venv/bin/style_transfer. The latter's own weights are another network's;
"--options neural-style-pt='-model_file FILE'" takes them.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tests.bench import peer_plot
from tests.bench.peer_runs import FailedError, Run, Seen, run

ROOT = Path(__file__).resolve().parents[2]
OURS, CROWSON, PROGAMER = "stylize", "style-transfer-pytorch", "neural-style-pt"
SCORES = ("style", "held", "content")
CURVE = 12  # pictures of another program that are scored for the plot
Scores = Mapping[str, float]


@dataclass
class Bench:
    """One size: the runs of each program that was not left out, the scores of their results, and their curves."""

    size: int
    runs: dict[str, list[Run]] = field(default_factory=dict)
    results: dict[str, Scores] = field(default_factory=dict)
    curves: dict[str, list[tuple[Seen, Scores]]] = field(default_factory=dict)


def dominates(one: Scores, other: Scores) -> bool:
    """Whether it is better in all three."""
    return all(one[name] < other[name] for name in SCORES)


def first_better(curve: Iterable[tuple[Seen, Scores]], other: Scores) -> Seen | None:
    """The first picture of a curve that dominates."""
    return next((seen for seen, scores in curve if dominates(scores, other)), None)


def medians(found: Sequence[Scores]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in found) for name in SCORES}


def thinned(seen: Sequence[Seen], most: int = CURVE) -> list[Seen]:
    """At most so many of them, the last included."""
    step = -(-len(seen) // most)
    return list(seen[::-1][::step][::-1])


def traced(folder: Path, whole: Run) -> list[Seen]:
    """The pictures that tests.bench.traced has saved, and the result, at the steps and seconds they took."""
    lines = [json.loads(line) for line in Path(folder, "steps.jsonl").read_text().splitlines()]
    area = lines[-1]["height"] * lines[-1]["width"]
    seen, steps = [], 0.0
    for line in lines:
        steps += line["height"] * line["width"] / area
        if "picture" in line:
            seen.append(Seen(line["seconds"], folder / line["picture"], steps))
    return [*seen, Seen(whole.seconds - lines[-1]["looked"], whole.picture, steps)]


# --- the programs -----------------------------------------------------------------------------------------------------


def commands(options: argparse.Namespace, size: int | str, work: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """By program, what is run in a folder of its own to leave out.png there, and what is added to its environment."""
    content, style, weights = (str(path.resolve()) for path in (options.content, options.style, options.weights))
    cuda = options.device == "cuda"
    gpu = ["-gpu", "0", "-backend", "cudnn"] if cuda else ["-gpu", "c"]
    ours = ["-o", "out.png", "--size", str(size), "--upscale", "--weights", weights, "--device", options.device, "-q"]
    made = {OURS: ([sys.executable, "-m", "stylize", content, style, *ours], dict[str, str]())}
    if place := options.style_transfer_pytorch:
        begin, home = _start(place, "-m", "style_transfer.cli")
        every = ["--save-every", "50"]  # its default in some versions, for the curve
        made[CROWSON] = [*begin, content, style, "-o", "out.png", "-s", str(size), *every], home
    if place := options.neural_style_pt:
        begin, home = _start(place, str(Path(place, "neural_style.py").resolve()))
        pictures = ["-content_image", content, "-style_image", style, "-output_image", "out.png"]
        # relative, as it tells the network by what it finds anywhere in the path
        made[PROGAMER] = [*begin, *pictures, "-image_size", str(size), "-model_file", "../vgg19.pth", *gpu], home
    shown = {} if cuda else {"CUDA_VISIBLE_DEVICES": ""}
    given = dict(each.partition("=")[::2] for each in options.options)
    return {
        name: (command + shlex.split(given.get(name, "")), {"TORCH_HOME": str(work), **shown, **home})
        for name, (command, home) in made.items()
    }


def _start(place: str, *program: str) -> tuple[list[str], dict[str, str]]:
    """How a program is started that was given as a checkout or a command."""
    if Path(place).is_dir():
        return [sys.executable, *program], {"PYTHONPATH": str(Path(place).resolve())}
    return shlex.split(place), {}


def trace(command: Sequence[str], environment: Mapping[str, str], folder: Path, every: int) -> list[Seen]:
    """Run stylize with the plugin that saves its picture every few steps."""
    plugin, pictures = folder / "plugin", folder / "traced"
    info = plugin / "traced-1.0.dist-info"
    info.mkdir(parents=True)
    pictures.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: traced\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stylize]\ntraced = tests.bench.traced\n")
    paths = [str(plugin), str(ROOT), os.environ.get("PYTHONPATH", "")]
    told = {"TRACE_FOLDER": str(pictures), "TRACE_EVERY": str(every), "TRACE_BEGUN": repr(time.time())}
    told["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return traced(pictures, run(command, {**environment, **told}, folder / "run"))


# --- the measurement --------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, size: int, work: Path, out: dict[str, str]) -> tuple[Bench, list[Seen]]:
    """All rounds of one size, and stylize's own way; programs that fail are put ``out``, with the reason."""
    bench = Bench(size)
    made = commands(options, size, work)
    for number in range(options.rounds):
        for name, (command, environment) in made.items():
            if name in out:
                continue
            try:
                bench.runs.setdefault(name, []).append(run(command, environment, work / f"{size}-{number}-{name}"))
            except FailedError as error:
                out[name] = f"at {size} px: {error}"
                bench.runs.pop(name, None)
            else:
                print(f"{size} px, round {number + 1}: {name} {bench.runs[name][-1].seconds:.0f} s", file=sys.stderr)
    if OURS in out:
        raise SystemExit(f"stylize itself failed: {out[OURS]}")
    return bench, trace(*made[OURS], work / f"{size}-trace", options.every)


class Yardstick:
    """The program that scores pictures; each picture once."""

    def __init__(self, program: Path, content: Path, style: Path, weights: Path) -> None:
        self._program, self._rest = program, [str(content), str(style), "--weights", str(weights)]
        self._known: dict[str, Scores] = {}

    def __call__(self, picture: Path, size: tuple[int, int]) -> Scores:
        """The scores of a picture, brought to (width, height) as one who stopped there would get it."""
        key = hashlib.sha256(picture.read_bytes()).hexdigest()
        if key not in self._known:
            with Image.open(picture) as image:
                if image.size != size:
                    picture = picture.with_suffix(".full.png")
                    image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(picture)
            command = [sys.executable, str(self._program), str(picture), *self._rest]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{self._program} failed: {done.stderr.strip()[-300:]}")
            self._known[key] = json.loads(done.stdout.splitlines()[-1])
        return self._known[key]


def judge(bench: Bench, way: Sequence[Seen], yardstick: Yardstick) -> None:
    """Score the results and the curves."""
    for name, runs in bench.runs.items():
        with Image.open(runs[0].picture) as image:
            size = image.size
        bench.results[name] = medians([yardstick(each.picture, size) for each in runs])
        seen = way if name == OURS else thinned(runs[0].seen)
        bench.curves[name] = [(each, yardstick(each.picture, size)) for each in seen]


def table(benches: Sequence[Bench]) -> str:
    """The Markdown table of medians."""
    lines = [
        "| size | program | wall s | CPU s | peak GiB | style | held | content | stylize is better in all three at |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for bench in benches:
        for name, runs in bench.runs.items():
            wall, processor, peak = (
                statistics.median(getattr(each, what) for each in runs) for what in ("seconds", "processor", "peak")
            )
            scores = " | ".join(f"{bench.results[name][score]:.3f}" for score in SCORES)
            row = f"| {bench.size} | {name} | {wall:.1f} | {processor:.1f} | {peak / 2**30:.2f} | {scores} |"
            lines.append(f"{row} {_overtaken(bench, name)} |")
    return "\n".join(lines)


def _overtaken(bench: Bench, name: str) -> str:
    if name == OURS:
        return ""
    seen = first_better(bench.curves[OURS], bench.results[name])
    return "never" if seen is None else f"step {seen.steps:.1f}, {seen.seconds:.1f} s"


def conditions(options: argparse.Namespace, work: Path, out: Mapping[str, str]) -> str:
    """Where and how it was measured, a line each."""
    cores = f"{os.cpu_count()} cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}"
    versions = f"torch {importlib.metadata.version('torch')}, Python {platform.python_version()}"
    lines = [f"{options.content.name} x {options.style.name}, {options.rounds} rounds, device {options.device};"]
    lines[0] += f" {_processor()}, {cores}; {versions}; steps are counted in those of the full size"
    for name, (command, _) in commands(options, "SIZE", work).items():
        lines.append(f"- {name}: `{shlex.join(command)}`")
    lines += [f"- {name} is left out: {why}" for name, why in out.items()]
    if options.device == "cuda":
        lines.append("- the memory is that of the host")
    return "\n".join(lines)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content", type=Path)
    parser.add_argument("style", type=Path)
    parser.add_argument("--score", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument(f"--{CROWSON}")
    parser.add_argument(f"--{PROGAMER}")
    parser.add_argument("--sizes", default="256")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--options", action="append", default=[], metavar='PROGRAM="..."', help="add to its command")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--every", type=int, default=5, help="steps of stylize between two pictures")
    parser.add_argument("--plot", type=Path, help="a PNG")
    parser.add_argument("--keep", type=Path, help="leave all pictures and logs in this folder")
    options = parser.parse_args(arguments)
    for each in options.options:
        if each.partition("=")[0] not in (OURS, CROWSON, PROGAMER):
            parser.error(f"--options {each}: say --options PROGRAM=..., with {OURS}, {CROWSON} or {PROGAMER}")
    if options.keep and options.keep.exists() and any(options.keep.iterdir()):
        parser.error(f"--keep {options.keep}: not an empty folder")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    out = {name: "not given" for name in (CROWSON, PROGAMER) if not getattr(options, name.replace("-", "_"))}
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.keep or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        convert = [sys.executable, "-m", "tests.bench.peer_weights", options.weights.resolve(), work]
        if subprocess.run([*convert, options.content.resolve(), options.style.resolve()], cwd=ROOT).returncode:
            raise SystemExit(1)
        yardstick = Yardstick(options.score, options.content, options.style, options.weights)
        benches = []
        for size in map(int, options.sizes.split(",")):
            bench, way = measure(options, size, work, out)
            judge(bench, way, yardstick)
            benches.append(bench)
        print(table(benches), conditions(options, work, out), sep="\n\n")
        if options.plot:
            curves = {
                f"{bench.size} px": {
                    name: [(seen.seconds, scores["style"]) for seen, scores in curve]
                    for name, curve in bench.curves.items()
                }
                for bench in benches
            }
            peer_plot.save(options.plot, curves)


if __name__ == "__main__":
    main()
