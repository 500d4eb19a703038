"""stylize beside an earlier version of itself, on several pairs: what a picture costs, and how good it is.

    python -m tests.bench.versions CONTENT STYLE [CONTENT STYLE]... --before /path/to/its/.venv/bin/stylize
        --weights vgg19-features.safetensors --keep FOLDER [--sizes 256,512,1024] [--rounds 1] [--runs N]
        [--score PROGRAM] [--independent PROGRAM]... [--sheet versions.jpg]

Both versions take turns with every pair at every size, each run a process of its own; what is counted is the processor
time of the whole process. At the first size this version also paints with the presets strong and match, with mini, and
with the style upside down; there ``layout`` is 1 where it does not matter where things are in the style.

The yardsticks are programs that take STYLIZED CONTENT STYLE and print JSON: --score, by default tests/bench/score.py,
which also gets --weights, and --independent, by default tests/bench/independent.py. Where two of them have a column of
one name, that of the second bears its number. Printed are tables in Markdown. All that is painted and found stays in
FOLDER: with --runs N it ends after N runs, and the next call goes on. Name one thread, as OMP_NUM_THREADS=1, where
other programs run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from tests.bench import independent, peer_sheet
from tests.bench.peer_runs import FailedError
from tests.bench.peers import Pair, Runs, Scores, Yardstick, processor

HERE = Path(__file__).parent
BEFORE, NOW = "before", "now"
PLAIN, STRONG, MATCH, MINI = "default", "strong", "match", "mini"
OPTIONS = {PLAIN: [], STRONG: ["--preset", "strong"], MATCH: ["--preset", "match"], MINI: ["--encoder", "mini"]}
COLUMNS = ("style", "held", "content", "w2", "real", "colour", "hed", "outlines", "ssim")  # those that a yardstick has


@dataclass(frozen=True)
class Variant:
    """A version, a longest side in px, options by their name, and whether the style is upside down."""

    version: str
    size: int
    kind: str = PLAIN
    turned: bool = False

    def __str__(self) -> str:
        return f"{self.size}-{self.version}-{self.kind}{'-turned' * self.turned}"


def variants(sizes: Sequence[int]) -> list[list[Variant]]:
    """By size, all that is painted of a pair, in turn."""
    made = [[Variant(version, size) for version in (BEFORE, NOW)] for size in sizes]
    made[0] += [Variant(NOW, sizes[0], kind) for kind in (STRONG, MATCH, MINI)]
    made[0] += [Variant(version, sizes[0], PLAIN, True) for version in (BEFORE, NOW)]
    made[0] += [Variant(NOW, sizes[0], kind, True) for kind in (STRONG, MATCH)]
    return made


class Painted:
    """The pictures of one pair, what they cost, and what yardsticks say of them, each once."""

    def __init__(self, pair: Pair, folder: Path, options: argparse.Namespace, runs: Runs) -> None:
        self.pair = pair
        self.seconds: dict[Variant, list[float]] = {}
        self._pictures: dict[Variant, Path] = {}
        self._folder, self._options, self._runs = folder, options, runs

    def paint(self, variant: Variant) -> None:
        """Paint it once more, or find what an earlier call has painted.

        Raises:
            SystemExit: the version gave no picture, or no more runs were asked for.
        """
        style, options = self.pair.style.resolve(), self._options
        if variant.turned:
            style = self._folder / "turned.png"
            if not style.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                with Image.open(self.pair.style) as picture:
                    ImageOps.flip(ImageOps.exif_transpose(picture).convert("RGB")).save(style)
        command = [*options.commands[variant.version], str(self.pair.content.resolve()), str(style), "-o", "out.png"]
        command += ["--size", str(variant.size), "--upscale", "--quiet", *OPTIONS[variant.kind]]
        command += [] if variant.kind == MINI else ["--weights", str(options.weights.resolve())]
        number = len(self.seconds.setdefault(variant, []))
        folder = self._folder / f"{variant}-{number}"
        try:
            found = self._runs(command, {"PYTHONPATH": ""}, folder)
        except FailedError as error:
            (folder / "run.json").unlink()  # so that the next call tries again
            raise SystemExit(f"{self.pair}: {variant}: {error}") from error
        self.seconds[variant].append(found.processor)
        self._pictures.setdefault(variant, found.picture)
        print(f"{self.pair}: {variant}, {found.processor:.1f} s", file=sys.stderr)

    def processor(self, variant: Variant) -> float:
        """Seconds of the processor, the median of all rounds."""
        return statistics.median(self.seconds[variant])

    def picture(self, variant: Variant) -> Path:
        return self._pictures[variant]

    def scores(self, variant: Variant, program: Path, size: int | None = None) -> Scores:
        """What a yardstick says of a picture, brought to the first picture of that size if one is given."""
        small = self._pictures[variant if size is None else Variant(variant.version, size)]
        extra = ["--weights", str(self._options.weights)] if program == self._options.score else []
        return self._kept(
            f"{variant}-at-{size}-{_name(program)}",
            lambda: Yardstick(program, self.pair, *extra)(self.picture(variant), _size(small)),
        )

    def likeness(self, larger: Variant, size: int) -> float:
        """MS-SSIM of a picture, brought to that size, with the one painted at that size."""
        small = self._pictures[Variant(larger.version, size)]
        height, width = independent.read(small).shape[:2]
        one, other = (independent.read(each, (height, width)) for each in (small, self.picture(larger)))
        return independent.similarity(one @ independent.LUMA, other @ independent.LUMA)

    def layout(self, variant: Variant) -> float:
        """How alike it is to the same painted with the style upside down, beyond what the content explains."""
        turned = Variant(variant.version, variant.size, variant.kind, True)
        painted = independent.read(self.picture(variant))
        height, width = painted.shape[:2]
        rest = (independent.read(each, (height, width)) for each in (self.picture(turned), self.pair.content))
        return independent.layout(painted, *rest)

    def _kept(self, name: str, find: Callable[[], Scores]) -> Scores:
        path = self._folder / "scores" / f"{name}.json"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(dict(find())))
        return {key: float(value) for key, value in json.loads(path.read_text()).items()}


def _name(program: Path) -> str:
    return "-".join(program.resolve().parts[-3:])


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


# --- the tables -------------------------------------------------------------------------------------------------------


def cost(painted: Sequence[Painted], sizes: Sequence[int]) -> str:
    """Processor seconds of both versions by pair and size."""
    rows, ratios = dict[tuple[str], dict[str, str]](), list[dict[str, float]]()
    for each in painted:
        found = {size: [each.processor(Variant(version, size)) for version in (NOW, BEFORE)] for size in sizes}
        ratios.append({f"{size} px": now / before for size, (now, before) in found.items()})
        rows[(str(each.pair),)] = {
            f"{size} px": f"{now:.1f} / {before:.1f} = {now / before:.2f}" for size, (now, before) in found.items()
        }
    return _markdown(["CPU s, now / before"], {**rows, ("mean",): _means(ratios)})


def quality(painted: Sequence[Painted], size: int, programs: Sequence[Path]) -> str:
    """What yardsticks say of this version, and in brackets of the one before."""
    now, before = (
        [_merged({program: each.scores(Variant(version, size), program) for program in programs}) for each in painted]
        for version in (NOW, BEFORE)
    )
    names = [*(str(each.pair) for each in painted), "mean"]
    beside = zip(names, [*now, _means(now)], [*before, _means(before)], strict=True)
    rows = {(name,): {key: f"{one[key]:.3f} ({other[key]:.3f})" for key in one} for name, one, other in beside}
    return _markdown([f"{size} px, now (before)"], rows)


def kinds(painted: Sequence[Painted], size: int, programs: Sequence[Path]) -> str:
    """This version's presets and mini beside its default, and the layout of the version before."""
    rows = dict[tuple[str, str], dict[str, float]]()
    for kind in OPTIONS:
        for each in painted:
            variant = Variant(NOW, size, kind)
            row = {"CPU": each.processor(variant) / each.processor(Variant(NOW, size))}
            row |= _merged({program: each.scores(variant, program) for program in programs})
            rows[str(each.pair), kind] = row if kind == MINI else row | {"layout": each.layout(variant)}
        rows["mean", kind] = _means([rows[str(each.pair), kind] for each in painted])
    for each in painted:
        rows[str(each.pair), BEFORE] = {"layout": each.layout(Variant(BEFORE, size))}
    rows["mean", BEFORE] = _means([rows[str(each.pair), BEFORE] for each in painted])
    return _markdown([f"{size} px", "what"], rows)


def likeness(painted: Sequence[Painted], sizes: Sequence[int], programs: Sequence[Path]) -> str:
    """Larger pictures brought to the first size: how like the one painted there, and their scores, with its own."""
    first, *larger = sizes
    rows = dict[tuple[str, str], dict[str, Any]]()
    small = [_merged({program: each.scores(Variant(NOW, first), program) for program in programs}) for each in painted]
    names = [*(str(each.pair) for each in painted), "mean"]
    for size in larger:
        variant = Variant(NOW, size)
        alike = [{"MS-SSIM": each.likeness(variant, first)} for each in painted]
        found = [_merged({program: each.scores(variant, program, first) for program in programs}) for each in painted]
        for name, like, one, other in zip(
            names, [*alike, _means(alike)], [*found, _means(found)], [*small, _means(small)], strict=True
        ):
            beside = {key: f"{one[key]:.3f} ({other[key]:.3f})" for key in one}
            rows[name, f"{size} px"] = {**like, **beside}
    return _markdown([f"brought to {first} px (painted there)", "from"], rows)


def _merged(found: Mapping[Path, Scores]) -> dict[str, float]:
    """The columns of several yardsticks; where a name is there already, with the number of the yardstick."""
    made = dict[str, float]()
    for number, scores in enumerate(found.values(), 1):
        made |= {f"{name} {number}" if name in made else name: scores[name] for name in COLUMNS if name in scores}
    return made


def _means(rows: Sequence[Scores]) -> dict[str, float]:
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def _markdown(begin: Sequence[str], rows: Mapping[Any, Mapping[str, Any]]) -> str:
    """A table of rows by what stands before them; a column that a row lacks is empty there."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"| {' | '.join([*begin, *columns])} |", "|---" * (len(begin) + len(columns)) + "|"]
    for place, row in rows.items():
        cells = [row.get(name, "") for name in columns]
        texts = [cell if isinstance(cell, str) else f"{cell:.3f}" for cell in cells]
        lines.append(f"| {' | '.join([*place, *texts])} |")
    return "\n".join(lines)


# --- the command line -------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="CONTENT STYLE")
    parser.add_argument("--before", required=True, metavar="COMMAND", help="of the earlier version")
    parser.add_argument("--now", default=shlex.join([sys.executable, "-m", "stylize"]), metavar="COMMAND")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--sizes", default="256,512,1024")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--runs", type=int, metavar="N", help="end after so many runs")
    parser.add_argument("--score", type=Path, default=HERE / "score.py", metavar="PROGRAM")
    parser.add_argument("--independent", type=Path, action="append", metavar="PROGRAM")
    parser.add_argument("--sheet", type=Path, help="a JPEG of all results")
    options = parser.parse_args(arguments)
    if len(options.pictures) % 2:
        parser.error("the last content has no style")
    options.commands = {BEFORE: shlex.split(options.before), NOW: shlex.split(options.now)}
    try:
        options.sizes = [int(size) for size in options.sizes.split(",")]
    except ValueError:
        parser.error(f"--sizes {options.sizes}: say numbers of px, as 256,512")
    options.independent = options.independent or [HERE / "independent.py"]
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    runs, sizes, painted = Runs(options.runs), options.sizes, list[Painted]()
    for content, style in zip(options.pictures[::2], options.pictures[1::2], strict=True):
        folder = options.keep.resolve() / f"{content.stem}-{style.stem}"
        painted.append(Painted(Pair(content, style), folder, options, runs))
    for group in variants(sizes):
        for each in painted:
            for _ in range(options.rounds):
                for variant in group:
                    each.paint(variant)
    programs = [options.score, *options.independent]
    made = [cost(painted, sizes), *(quality(painted, size, programs) for size in sizes)]
    made.append(kinds(painted, sizes[0], programs))
    if len(sizes) > 1:
        made.append(likeness(painted, sizes, programs))
    print(*made, sep="\n\n")
    print("", conditions(options), sep="\n")
    if options.sheet:
        peer_sheet.save(options.sheet, [row for each in painted for row in sheet_rows(each, sizes)])


def conditions(options: argparse.Namespace) -> str:
    """Where and how it was measured, a line each."""
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    lines = [f"{processor()}, {os.cpu_count()} cores, OMP_NUM_THREADS {threads}; rounds: {options.rounds}"]
    return "\n".join([*lines, *(f"- {name}: `{shlex.join(command)}`" for name, command in options.commands.items())])


def sheet_rows(painted: Painted, sizes: Sequence[int]) -> list[dict[str, Path]]:
    """Content, style and both versions at all sizes; and what else was painted at the first size."""
    pair, first = painted.pair, sizes[0]
    versions = [Variant(version, size) for size in sizes for version in (BEFORE, NOW)]
    rest = [variant for variant in variants(sizes)[0] if variant not in versions]
    rows: list[dict[str, Path]] = [{pair.content.stem: pair.content, pair.style.stem: pair.style}, {}]
    for row, shown in zip(rows, (versions, rest), strict=True):
        row |= {str(variant): painted.picture(variant) for variant in shown}
    rows[1][f"{first}-{NOW}"] = painted.picture(Variant(NOW, first))
    return rows


if __name__ == "__main__":
    main()
