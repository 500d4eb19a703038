"""Random calls of the command line, half of them valid: ``python -m tests.bench.calls [--seed N] [--count 200]``.

Options, ranges and choices are those that the program declares. A valid call must paint a picture of the right size; an
invalid one must say why in one line, exit with 1 or 2, and leave no file behind. All calls run in this process, on
small pictures, with the encoder ``mini``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from PIL import Image

from stylize.cli.main import main as stylize
from stylize.settings import Settings, knob_of, type_of

SMALL = {"size": "32", "steps": "2", "encoder": "mini"}  # unless a call is about these
FIXED = {"device", "memory", "encoder", "init", "content_layer", "style_layers", "style_weights", "preserve_color"}
VALID = {  # values that no range tells
    "init": ["content", "noise", "style", "style.png"],
    "content_layer": ["auto", "relu3_1", "relu4_2"],
    "style_layers": ["relu1_1", "relu1_1=4,relu3_1=0.5", "relu2_1=1,relu5_1=1"],
    "style_weights": ["1", "0.5"],
    "preserve_color": ["none", "luminance", "match"],
    "memory": ["auto", "2GiB", "1500MB"],
}
INVALID = {
    "init": ["nowhere.png", "torn.png", "folder", "/dev/null", "pipe.png"],
    "content_layer": ["relu9_9", "conv1", "\x1b[31m", "relu1_1,relu2_1"],
    "style_layers": ["relu9_1", "relu1_1=", "relu1_1=nan", "relu1_1=-1", "relu1_1=0", ",", "relu1_1=1=2"],
    "style_weights": ["0", "1,2", "nan", "-1", "a"],
    "preserve_color": ["colour", "Luminance"],
    "memory": ["1XB", "0", "-1GB", "nan"],
    "device": ["gpu", "cuda:-1", "meta"],
    "encoder": ["vgg20", "/etc/passwd", "Mini"],
    "output": [
        "out.xyz",
        "out",
        "nowhere/out.png",
        "folder",
        "photo.png",
        "style.png",
        "/dev/null",
        "a" * 300 + ".png",
    ],
    "bits": ["7", "32", "x"],
    "quality": ["0", "101", "50"],  # of a PNG, the last
    "config": ["nowhere.toml", "photo.png", "folder", "/dev/zero", "pipe.png", "bad.toml"],
    "preset": ["nonsense", "Default"],
    "executor": ["nobody"],
    "pair": ["cross", "nonsense"],
    "crf": ["20"],
    "watch": [""],
    "every": ["0", "2"],
    "nonsense": ["1"],
}
NUMBERS = ["nan", "inf", "-inf", "1e999", "abc", "0x10", "9" * 5000, "--", "1_0x", "3 2"]
SOURCES = ["nowhere.png", "torn.png", "text.png", "empty.png", "/dev/zero", "pipe.png", "loop.png", "a" * 5000, "["]


def _number(name: str, rng: random.Random) -> str:
    """A valid value of a number or a choice, from what its field declares."""
    knob = knob_of(name)
    if knob.choices:
        return rng.choice(knob.choices)
    low, high = knob.low or 0, knob.high if knob.high is not None else 10
    if type_of(name) is bool:
        return ""
    if name in ("size", "min_size"):
        return str(rng.choice([16, 17, 31, 48]))
    if name in ("scales", "history", "steps"):
        return str(rng.randint(1, 5))
    if name == "seed":
        return str(rng.choice([0, 1, rng.randrange(2**63)]))
    return f"{low + (min(high, 10.0) - low) * rng.uniform(0.001, 1):.6g}"


def valid(rng: random.Random) -> list[str]:
    """A call that must paint a picture."""
    chosen = dict(SMALL)
    names = [field.name for field in fields(Settings)]
    for name in rng.sample([each for each in names if each not in ("device", "encoder")], rng.randint(0, 5)):
        chosen[name] = rng.choice(VALID[name]) if name in VALID else _number(name, rng)
    return ["photo.png", "style.png", "-o", "out.png", *_flags(chosen)]


def invalid(rng: random.Random) -> list[str]:
    """A call that must be refused: one thing about it is wrong."""
    words = ["photo.png", "style.png"]
    kind = rng.random()
    if kind < 0.25:
        words[rng.randrange(2)] = rng.choice(SOURCES)
        return [*words, "-o", "out.png", *_flags(SMALL)]
    chosen = dict(SMALL)
    if kind < 0.6:
        name = rng.choice(list(INVALID))
        chosen[name] = rng.choice(INVALID[name])
    else:
        ranged = [each.name for each in fields(Settings) if each.name not in FIXED and type_of(each.name) is not bool]
        name = rng.choice(ranged)
        knob = knob_of(name)
        beyond = [str(end) for end in (knob.low and knob.low - 1, knob.high and knob.high * 2) if end]
        chosen[name] = rng.choice([*NUMBERS, *beyond])
    target = [] if "output" in chosen else ["-o", "out.png"]
    return [*words, *target, *_flags(chosen)]


def _flags(chosen: dict[str, str]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" if value else f"--{name}" for name, value in chosen.items()]


def run(words: list[str]) -> tuple[object, str, str]:
    """The exit code, and what went to standard output and standard error."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
    code: object = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            stylize(words)
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = repr(error)
    said = []
    for stream in (out, err):
        stream.flush()
        stream.seek(0)
        said.append(stream.read())
    return code, said[0], said[1]


def faults(words: list[str], right: bool) -> Iterator[str]:
    """What is wrong with how a call ended."""
    before = {path: path.lstat().st_mtime_ns for path in Path().rglob("*")}
    code, _, err = run(words)
    if "unexpected" in err or "Traceback" in err or not isinstance(code, int):
        yield f"a fault of the program: {code} {err[-200:]!r}"
    if re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", err):
        yield "control characters"
    if right:
        diverged = "diverged" in err  # at extreme weights it may, and says so
        if code != 0 and not diverged:
            yield f"exit code {code}"
        elif code == 0:
            with Image.open("out.png") as picture:
                picture.load()
                wanted = next(int(word.partition("=")[2]) for word in words if word.startswith("--size="))
                if max(picture.size) > wanted:
                    yield f"{picture.size} px where {wanted} were asked for"
        Path("out.png").unlink(missing_ok=True)
        return
    if code not in (1, 2):
        yield f"exit code {code}"
    if len([line for line in err.splitlines() if line.startswith("stylize: ")]) != 1:
        yield f"{len(err.splitlines())} lines"
    if len(err) > 6000:
        yield f"{len(err)} characters"
    if {path: path.lstat().st_mtime_ns for path in Path().rglob("*")} != before:
        yield "files made or changed"


def prepare() -> None:
    """Pictures, and files that are none, in the current folder."""
    Image.radial_gradient("L").convert("RGB").resize((48, 40)).save("photo.png")
    Image.linear_gradient("L").convert("RGB").resize((40, 40)).save("style.png")
    Path("torn.png").write_bytes(Path("photo.png").read_bytes()[:200])
    Path("text.png").write_text("no picture")
    Path("empty.png").touch()
    Path("folder").mkdir()
    Path("loop.png").symlink_to("loop.png")
    Path("bad.toml").write_text("size = 1e400\n")
    os.mkfifo("pipe.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="of each kind")
    given = parser.parse_args()
    rng, wrong = random.Random(given.seed), 0
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STYLIZE_CACHE"] = str(Path(folder) / "cache")
        (Path(folder) / "work").mkdir()
        os.chdir(Path(folder) / "work")
        prepare()
        for number in range(2 * given.count):
            right = number % 2 == 0
            words = valid(rng) if right else invalid(rng)
            for fault in faults(words, right):
                wrong += 1
                print(f"{'valid' if right else 'invalid'}: {fault}: {' '.join(word[:60] for word in words)!r}")
        os.chdir(home)
    print(f"{given.count} valid and {given.count} invalid calls, seed {given.seed}: {wrong} faults")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
