"""Pictures beside each other, in rows of one height, each under its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

GAP, LINE = 6, 20  # px between pictures, and of a line of text
INK, PAPER = "#333333", "white"


def save(path: Path, rows: Sequence[Mapping[str, Path]], height: int = 288, quality: int = 88) -> None:
    """Write a sheet of rows, each of pictures by their names, scaled to one height in px."""
    font = ImageFont.load_default(13)
    made: list[list[tuple[str, Image.Image]]] = []
    for row in rows:
        made.append([])
        for name, place in row.items():
            with Image.open(place) as picture:
                width = max(1, round(picture.width * height / picture.height))
                made[-1].append((name, picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)))
    width = max(sum(small.width + GAP for _, small in pictures) for pictures in made) + GAP
    sheet = Image.new("RGB", (width, len(made) * (height + LINE + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, pictures in enumerate(made):
        left, top = GAP, GAP + number * (height + LINE + GAP)
        for name, small in pictures:
            draw.text((left, top + 2), name, INK, font)
            sheet.paste(small, (left, top + LINE))
            left += small.width + GAP
    sheet.save(path, "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG", quality=quality)
