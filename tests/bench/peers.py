"""Stylize and four other programs as they ship, with the same VGG-19: what they take, and what comes out.

    python -m tests.bench.peers CONTENT STYLE [CONTENT STYLE]... --score score.py --weights vgg19-features.safetensors
        [--style-transfer-pytorch CHECKOUT|COMMAND] [--neural-style-pt CHECKOUT|COMMAND] [--strotss CHECKOUT]
        [--nnst CHECKOUT] [--sizes 256,512] [--rounds 3] [--options PROGRAM="..."] [--device cpu] [--every 5]
        [--independent PROGRAM]... [--plot peers.png] [--sheet peers.jpg] [--keep FOLDER [--runs N]]

The programs take turns, each run a process of its own. score.py STYLIZED CONTENT STYLE --weights FILE prints JSON with
style, held and content, the lower the better. Once a size stylize is run again and saves its picture every few steps:
the first that is better in all three than another program's result tells what that result costs with stylize.
Each further yardstick, --independent PROGRAM STYLIZED CONTENT STYLE, prints JSON, too; its numbers are columns of a
second table. Printed are tables in Markdown, of medians; the plot shows style against seconds, the sheet all pictures.
Run by hand: that takes hours, or with --keep and --runs N in pieces, of which each goes on where the one before ended.

crowsonkb/style-transfer-pytorch and ProGamerGov/neural-style-pt must be able to run in this environment, or be given as
the command of their own, such as /path/to/venv/bin/style_transfer. The latter's own weights are another network's;
"--options neural-style-pt='-model_file FILE'" takes them. nkolkin13's STROTSS and NeuralNeighborStyleTransfer (NNST)
ask for VGG-16 and a GPU: tests/bench/peer_host.py gives them VGG-19 under its numbers, and a CPU. The former paints 64,
128, 256 ... px, up to the size; the latter 512 or 1024 px, of which the next is taken.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tests.bench import peer_plot, peer_sheet
from tests.bench.peer_runs import FailedError, Run, Seen, run

ROOT = Path(__file__).resolve().parents[2]
OURS, CROWSON, PROGAMER, STROTSS, NNST = "stylize", "style-transfer-pytorch", "neural-style-pt", "strotss", "nnst"
OTHERS = (CROWSON, PROGAMER, STROTSS, NNST)
HOST = Path(__file__).with_name("peer_host.py")
SCORES = ("style", "held", "content")
CURVE = 12  # pictures of another program that are scored for the plot
Scores = Mapping[str, float]


@dataclass(frozen=True)
class Pair:
    """A content and a style."""

    content: Path
    style: Path

    def __str__(self) -> str:
        return f"{self.content.stem} x {self.style.stem}"


@dataclass
class Bench:
    """One pair at one size: the runs of each program that was not left out, the scores of their results by the first
    yardstick and by the others, and their curves."""

    pair: Pair
    size: int
    runs: dict[str, list[Run]] = field(default_factory=dict)
    results: dict[str, Scores] = field(default_factory=dict)
    further: dict[str, Scores] = field(default_factory=dict)
    curves: dict[str, list[tuple[Seen, Scores]]] = field(default_factory=dict)


def dominates(one: Scores, other: Scores) -> bool:
    """Whether it is better in all three."""
    return all(one[name] < other[name] for name in SCORES)


def first_better(curve: Iterable[tuple[Seen, Scores]], other: Scores) -> Seen | None:
    """The first picture of a curve that dominates."""
    return next((seen for seen, scores in curve if dominates(scores, other)), None)


def medians(found: Sequence[Scores]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


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


def commands(
    options: argparse.Namespace, pair: Pair, size: int | str, work: Path
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """By program, what is run in a folder of its own to leave out.png there, and what is added to its environment."""
    content, style, weights = (str(path.resolve()) for path in (pair.content, pair.style, options.weights))
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
    if place := options.strotss:
        scales = round(math.log2(size / 64)) + 2 if isinstance(size, int) else "SCALES"
        program = [sys.executable, str(HOST), str(Path(place, "styleTransfer.py").resolve())]
        made[STROTSS] = [*program, content, style, "1.0", str(scales), "out.png", *([] if cuda else ["-cpu"])], {}
    if place := options.nnst:
        program = [sys.executable, str(HOST), str(Path(place, "styleTransfer.py").resolve())]
        pictures = ["--content_path", content, "--style_path", style, "--output_path", "out.png"]
        large = ["--high_res"] if isinstance(size, int) and size > 512 else []
        made[NNST] = [*program, *pictures, *large, *([] if cuda else ["--cpu"])], {}
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


class Runs:
    """Runs programs in a folder, and finds what was run there before; ``left`` may still be run."""

    def __init__(self, left: int | None) -> None:
        self.left = left

    def __call__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Run:
        """The run of a command in a folder.

        Raises:
            FailedError: it failed.
            SystemExit: no more may be run.
        """
        known = folder / "run.json"
        if known.exists():
            told = json.loads(known.read_text())
            if told.get("failed"):
                raise FailedError(told["failed"])
            seen = [Seen(seconds, folder / name) for seconds, name in told["seen"]]
            return Run(told["seconds"], told["processor"], told["peak"], folder / told["picture"], seen)
        self.take()
        shutil.rmtree(folder, ignore_errors=True)  # of a piece that was ended
        try:
            made = run(command, environment, folder)
        except FailedError as error:
            known.write_text(json.dumps({"failed": str(error)}))
            raise
        told = {"seconds": made.seconds, "processor": made.processor, "peak": made.peak}
        told["picture"] = str(made.picture.relative_to(folder))
        told["seen"] = [(each.seconds, str(each.picture.relative_to(folder))) for each in made.seen]
        known.write_text(json.dumps(told))
        return made

    def take(self) -> None:
        """Count one run."""
        if self.left is not None:
            if not self.left:
                raise SystemExit("so many runs were asked for; call again with the same --keep for the next")
            self.left -= 1


def measure(
    options: argparse.Namespace, pair: Pair, size: int, work: Path, out: dict[str, str], runs: Runs
) -> tuple[Bench, list[Seen]]:
    """All rounds of one pair at one size, and stylize's own way; programs that fail are put ``out``, with the
    reason."""
    bench = Bench(pair, size)
    made = commands(options, pair, size, work)
    for number in range(options.rounds):
        for name, (command, environment) in made.items():
            if name in out:
                continue
            try:
                found = runs(command, environment, work / f"{size}-{number}-{name}")
            except FailedError as error:
                out[name] = f"{pair} at {size} px: {error}"
                bench.runs.pop(name, None)
            else:
                bench.runs.setdefault(name, []).append(found)
                print(f"{pair}, {size} px, round {number + 1}: {name} {found.seconds:.0f} s", file=sys.stderr)
    if OURS in out:
        raise SystemExit(f"stylize itself failed: {out[OURS]}")
    folder = work / f"{size}-trace"
    if not (folder / "done").exists():
        runs.take()
        shutil.rmtree(folder, ignore_errors=True)
        way = trace(*made[OURS], folder, options.every)
        (folder / "done").write_text(json.dumps([(each.seconds, str(each.picture), each.steps) for each in way]))
    told = json.loads((folder / "done").read_text())
    return bench, [Seen(seconds, Path(picture), steps) for seconds, picture, steps in told]


class Yardstick:
    """A program that scores pictures; each picture once."""

    def __init__(self, program: Path, pair: Pair, *options: str) -> None:
        self._program, self._rest = program, [str(pair.content), str(pair.style), *options]
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
            told = json.loads(done.stdout.splitlines()[-1])
            self._known[key] = {name: value for name, value in told.items() if isinstance(value, (int, float))}
        return self._known[key]


def judge(bench: Bench, way: Sequence[Seen], yardstick: Yardstick, others: Sequence[Yardstick]) -> None:
    """Score the results, by other yardsticks, too, and the curves."""
    with Image.open(bench.runs[OURS][0].picture) as image:
        size = image.size
    for name, runs in bench.runs.items():
        found = [other(each.picture, size) for other in others for each in runs]
        bench.further[name] = {key: value for each in found for key, value in each.items()}
        bench.results[name] = medians([yardstick(each.picture, size) for each in runs])
        seen = way if name == OURS else thinned(runs[0].seen)
        bench.curves[name] = [(each, yardstick(each.picture, size)) for each in seen]


def table(benches: Sequence[Bench]) -> str:
    """The Markdown table of medians."""
    several = len({bench.pair for bench in benches}) > 1
    columns = "size | program | wall s | CPU s | peak GiB | style | held | content | stylize is better in all three at"
    lines = [f"| {'pair | ' * several}{columns} |", "|---" * (9 + several) + "|"]
    for bench in benches:
        for name, runs in bench.runs.items():
            wall, processor, peak = (
                statistics.median(getattr(each, what) for each in runs) for what in ("seconds", "processor", "peak")
            )
            scores = " | ".join(f"{bench.results[name][score]:.3f}" for score in SCORES)
            begin = f"| {bench.pair} " * several
            row = f"{begin}| {bench.size} | {name} | {wall:.1f} | {processor:.1f} | {peak / 2**30:.2f} | {scores} |"
            lines.append(f"{row} {_overtaken(bench, name)} |")
    return "\n".join(lines)


def further_table(benches: Sequence[Bench]) -> str:
    """The Markdown table of what other yardsticks say, with the means over all pairs and sizes."""
    names = list(dict.fromkeys(key for bench in benches for found in bench.further.values() for key in found))
    lines = [f"| pair | size | program | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    rows: list[tuple[str, str, str, Scores]] = [
        (str(bench.pair), str(bench.size), name, found) for bench in benches for name, found in bench.further.items()
    ]
    if len(benches) > 1:
        everywhere = [name for name in benches[0].further if all(name in bench.further for bench in benches)]
        for name in everywhere:
            means = {key: statistics.fmean(bench.further[name][key] for bench in benches) for key in names}
            rows.append(("mean", "", name, means))
    for *begin, found in rows:
        lines.append(f"| {' | '.join(begin)} | {' | '.join(f'{found[key]:.3f}' for key in names)} |")
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
    pairs = ", ".join(map(str, options.pairs))
    lines = [f"{pairs}; {options.rounds} rounds, device {options.device};"]
    lines[0] += f" {processor()}, {cores}; {versions}; steps are counted in those of the full size"
    for name, (command, _) in commands(options, Pair(Path("CONTENT"), Path("STYLE")), "SIZE", work).items():
        lines.append(f"- {name}: `{shlex.join(command)}`")
    lines += [f"- {name} is left out: {why}" for name, why in out.items()]
    if options.device == "cuda":
        lines.append("- the memory is that of the host")
    return "\n".join(lines)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="CONTENT STYLE")
    parser.add_argument("--score", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    for name in OTHERS:
        parser.add_argument(f"--{name}")
    parser.add_argument("--sizes", default="256")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--options", action="append", default=[], metavar='PROGRAM="..."', help="add to its command")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--every", type=int, default=5, help="steps of stylize between two pictures")
    parser.add_argument("--independent", type=Path, action="append", default=[], metavar="PROGRAM")
    parser.add_argument("--plot", type=Path, help="a PNG")
    parser.add_argument("--sheet", type=Path, help="a JPEG of all results")
    parser.add_argument("--keep", type=Path, help="leave all pictures and logs in this folder, and go on with them")
    parser.add_argument("--runs", type=int, metavar="N", help="end after so many runs")
    options = parser.parse_args(arguments)
    if len(options.pictures) % 2:
        parser.error("the last content has no style")
    options.pairs = [Pair(*pair) for pair in zip(options.pictures[::2], options.pictures[1::2], strict=True)]
    for each in options.options:
        if each.partition("=")[0] not in (OURS, *OTHERS):
            parser.error(f"--options {each}: say --options PROGRAM=..., with {OURS}, {', '.join(OTHERS)}")
    if options.runs is not None and options.keep is None:
        parser.error("--runs needs --keep FOLDER, where the next call goes on")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    out = {name: "not given" for name in OTHERS if not getattr(options, name.replace("-", "_"))}
    runs, benches = Runs(options.runs), []
    with tempfile.TemporaryDirectory() as scratch:
        whole = (options.keep or Path(scratch)).resolve()
        for number, pair in enumerate(options.pairs, 1):
            work = whole / f"{number}-{pair.content.stem}-{pair.style.stem}"
            if not work.exists():
                unfinished = work.with_suffix(".part")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
                convert = [sys.executable, "-m", "tests.bench.peer_weights", options.weights.resolve(), unfinished]
                if subprocess.run([*convert, pair.content.resolve(), pair.style.resolve()], cwd=ROOT).returncode:
                    raise SystemExit(1)
                unfinished.rename(work)
            yardstick = Yardstick(options.score, pair, "--weights", str(options.weights))
            others = [Yardstick(program, pair) for program in options.independent]
            for size in map(int, options.sizes.split(",")):
                bench, way = measure(options, pair, size, work, out, runs)
                judge(bench, way, yardstick, others)
                benches.append(bench)
        print(table(benches), *([further_table(benches)] if options.independent else []), sep="\n\n")
        print("", conditions(options, whole / "PAIR", out), sep="\n")
        if options.plot:
            curves = {
                f"{bench.pair}, {bench.size} px": {
                    name: [(seen.seconds, scores["style"]) for seen, scores in curve]
                    for name, curve in bench.curves.items()
                }
                for bench in benches
            }
            peer_plot.save(options.plot, curves)
        if options.sheet:
            rows = [
                {
                    str(bench.pair.content.stem): bench.pair.content,
                    str(bench.pair.style.stem): bench.pair.style,
                    **{f"{name}, {bench.size} px": runs[-1].picture for name, runs in bench.runs.items()},
                }
                for bench in benches
            ]
            peer_sheet.save(options.sheet, rows)


if __name__ == "__main__":
    main()
