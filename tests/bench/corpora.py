"""Collections of odd pictures, read and compared with ImageMagick: ``python -m tests.bench.corpora FOLDER``.

Every file is read by ``stylize.load`` and shrunk to 48 x 48 over grey, as ImageMagick's ``convert`` does; pictures that
differ by more than .012 on average are listed, as are files that only one of the two can read. Then the folder is
painted by ``stylize FOLDER ... --encoder mini --size 48 --steps 1``, and each line that is no line of stylize, such as
a traceback or a library's warning, is listed. Where this was run: tests/images of Pillow, test/fixtures of sharp,
test/test-suite/images of libvips.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import stylize
from stylize import images

SIDE = 48  # px
BOUND = 0.012  # of the mean difference of channels in [0, 1]
GREY = 0.5
SECONDS = 60  # for one file
# How lines of stylize begin, on a terminal of any width; others are those of libraries.
OURS = re.compile(
    r"\s*((warning|note|failed|left|error|stylize): |\d+(/\d+)? |\S.*: cannot read |cannot read |\S+ becomes |\S.* → )"
)


def ours(path: Path) -> NDArray[np.float64] | str:
    """The picture as stylize reads it, (48, 48, 3) in [0, 1], or why not."""
    try:
        picture = images.load(path)
    except stylize.ImageError as error:
        return str(error)
    alpha = torch.ones_like(picture.rgb[:, :1]) if picture.alpha is None else picture.alpha
    over = picture.rgb * alpha + GREY * (1 - alpha)
    small = images.resize(over, SIDE, SIDE)
    return small[0].permute(1, 2, 0).double().numpy()


def theirs(path: Path, profile: Path) -> NDArray[np.float64] | str:
    """The same by ImageMagick."""
    command = ["convert", "-quiet", f"{path}[0]", "-profile", str(profile), "-colorspace", "sRGB", "-background"]
    command += ["gray50", "-flatten", "-auto-orient", "+repage", "-filter", "Catrom", "-resize", f"{SIDE}x{SIDE}!"]
    try:
        made = subprocess.run([*command, "-depth", "16", "rgb:-"], capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "it takes too long"
    if len(made.stdout) != SIDE * SIDE * 6:
        return made.stderr.decode(errors="replace").split("\n")[0] or "nothing"
    return np.frombuffer(made.stdout, "<u2").reshape(SIDE, SIDE, 3) / 65535


def compare(files: list[Path], sheet: Path | None) -> None:
    """Print what differs; a ``sheet`` shows the pictures that do, stylize's on the left."""
    read = compared = 0
    shown: list[NDArray[np.float64]] = []
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder, "srgb.icc")
        profile.write_bytes(images.srgb_profile())
        for path in files:
            a, b = ours(path), theirs(path, profile)
            read += not isinstance(a, str)
            if isinstance(a, str):
                if not isinstance(b, str):
                    print(f"refused  {path}: {a.removeprefix(f'cannot read {path}: ')}")
            elif isinstance(b, str):
                print(f"alone    {path}: {b.removeprefix('convert-im6.q16: ')[:80]}")
            else:
                compared += 1
                if (difference := float(np.abs(a - b).mean())) > BOUND:
                    print(f"{difference:.3f}    {path}")
                    shown.append(np.concatenate([a, b], axis=1))
    print(f"{len(files)} files, {read} read, {compared} compared, {len(shown)} of them differ by more than {BOUND}")
    if sheet is not None and shown:
        shown += [np.ones_like(shown[0])] * (-len(shown) % 8)
        rows = [np.concatenate(shown[index : index + 8], axis=1) for index in range(0, len(shown), 8)]
        Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8)).save(sheet)


def paint(folder: Path, style: Path) -> None:
    """Paint the folder and print what stylize would not say."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "stylize", str(folder), str(style), "-o", f"{out}/painted"]
        command += ["--encoder", "mini", "--size", str(SIDE), "--steps", "1"]
        made = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", errors="backslashreplace")
    lines = [line for line in (made.stdout + made.stderr).splitlines() if line.strip()]
    others = [line for line in lines if not OURS.match(line)]
    print(f"folder job: exit code {made.returncode}, {len(lines)} lines, {len(others)} of them not stylize's")
    print(*others, sep="\n")
    print("last:", *lines[-1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sheet", type=Path, help="a PNG of the pictures that differ, stylize's beside ImageMagick's")
    parser.add_argument("--skip", choices=("compare", "paint"))
    chosen = parser.parse_args()
    files = sorted(path for path in chosen.folder.rglob("*") if path.is_file())
    if chosen.skip != "compare":
        compare(files, chosen.sheet)
    if chosen.skip != "paint":
        paint(chosen.folder, Path(__file__).parents[2] / "samples" / "starry-night.jpg")


if __name__ == "__main__":
    main()
