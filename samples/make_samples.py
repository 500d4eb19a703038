"""Make every picture in this folder: the painted styles from nothing, the rest from what packages bundle.

    python samples/make_samples.py                      paint swirls.jpg, waves.jpg and mosaic.jpg
    python samples/make_samples.py --only waves         just one of them
    python samples/make_samples.py --sources FOLDER     cut the photos and the starry night
    python samples/make_samples.py --demo PICTURE       set bridge.jpg and starry-night.jpg beside what was made of them
    python samples/make_samples.py --encoders FOLDER    set results named bridge-vgg19.png, cat-mini.png... side by side

FOLDER is otherwise any folder that holds the unpacked packages named in CREDITS.md; files are found there by name
and taken only if their SHA-256 is the one written below. Needs numpy, opencv-python and Pillow.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps

# isort: split
from painters import PAINTERS

HERE = Path(__file__).resolve().parent
MOST_BYTES = 150_000

# name here: (file to look for, its SHA-256, what to keep of it). A ".rcc" is a Qt bundle with WebP pictures inside.
Box = tuple[int, int, int, int]
SOURCES: dict[str, tuple[str, str, Box | None]] = {
    "bridge": ("cincinnati-bridge.jpg", "09772d09318b34a5c5edd58ee86ff462bcd2907006f31cc8e0704310f8e9ab60", None),
    "cat": ("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb", None),
    "coffee": ("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7", None),
    "moose": (
        "explore_world_animals.rcc",
        "2252a671c2e0ade9ce6ff6d41957348a81ebccfd952ba59bfddceff0b059ea48",
        (90, 43, 1010, 683),
    ),
    "starry-night": (
        "starry_night.jpg",
        "accda7a19a90f22a4a922fdc8c230167d7abf5f80882171e2cee125c5f12481d",
        (20, 20, 732, 580),  # the canvas without its margin
    ),
}


def save(name: str, picture: Image.Image) -> None:
    """Write samples/NAME.jpg without metadata, at the best quality up to 88 that stays under MOST_BYTES."""
    for quality in range(88, 60, -2):
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() <= MOST_BYTES:
            break
    (HERE / f"{name}.jpg").write_bytes(buffer.getvalue())
    print(f"{name}.jpg  {picture.width}x{picture.height}  {buffer.tell() // 1000} kB, quality {quality}")


def streams(path: Path) -> Iterator[bytes]:
    """The file itself, or each WebP picture inside a Qt bundle."""
    data = path.read_bytes()
    if path.suffix != ".rcc":
        yield data
        return
    at = data.find(b"RIFF")
    while at >= 0:
        yield data[at : at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")]
        at = data.find(b"RIFF", at + 4)


def cut(name: str, folder: Path) -> None:
    wanted, digest, box = SOURCES[name]
    for path in sorted(folder.rglob(wanted)):
        for data in streams(path):
            if hashlib.sha256(data).hexdigest() == digest:
                picture = Image.open(io.BytesIO(data)).convert("RGB").crop(box)
                picture.thumbnail((640, 640), Image.Resampling.LANCZOS)
                save(name, picture)
                return
    print(f"{name}.jpg  not made: no {wanted} with the right SHA-256 in {folder}")


def demo(painted: Path) -> None:
    """demo.jpg: the content above the style, and to their right the result, with thin white gaps."""
    result = Image.open(painted).convert("RGB")
    gap = 4
    height = (result.height - gap) // 2
    beside = [Image.open(HERE / f"{name}.jpg").convert("RGB") for name in ("bridge", "starry-night")]
    width = max(round(picture.width * height / picture.height) for picture in beside)
    sheet = Image.new("RGB", (width + gap + result.width, result.height), "white")
    for picture, top in zip(beside, (0, result.height - height), strict=True):
        sheet.paste(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS), (0, top))
    sheet.paste(result, (width + gap, 0))
    save("demo", sheet)


def encoders(folder: Path) -> None:
    """encoders.jpg: what VGG-19 (above) and mini (below) make of the same pictures."""
    rows = [
        [Image.open(folder / f"{name}-{encoder}.png").convert("RGB") for name in ("bridge", "cat", "coffee")]
        for encoder in ("vgg19", "mini")
    ]
    height = min(picture.height for row in rows for picture in row)
    sheet = Image.new("RGB", (sum(picture.width + 4 for picture in rows[0]) - 4, 2 * height + 4), "white")
    for number, row in enumerate(rows):
        left = 0
        for picture in row:
            sheet.paste(ImageOps.fit(picture, (picture.width, height)), (left, number * (height + 4)))
            left += picture.width + 4
    save("encoders", sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures in samples/.")
    parser.add_argument("--sources", type=Path, help="folder with the unpacked packages named in CREDITS.md")
    parser.add_argument("--only", choices=sorted(PAINTERS), help="paint just this one")
    parser.add_argument("--demo", type=Path, metavar="PICTURE", help="make demo.jpg around this result")
    parser.add_argument("--encoders", type=Path, metavar="FOLDER", help="make encoders.jpg of the results there")
    arguments = parser.parse_args()
    if arguments.encoders:
        encoders(arguments.encoders)
        return
    if arguments.demo:
        demo(arguments.demo)
        return
    if arguments.sources:
        for name in SOURCES:
            cut(name, arguments.sources)
        return
    for name, painter in PAINTERS.items():
        if arguments.only in (None, name):
            save(name, painter())


if __name__ == "__main__":
    main()
