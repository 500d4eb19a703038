"""The contact sheet of a preview: the first frame of each shot beside the painted one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from stylize import FORMATS, Picture
from stylize_video import image_sequence

MOST = 24  # shots on a sheet
LONGEST = 480  # px, of a frame on it
MARGIN, TEXT, PAPER = 10, 16, (235, 235, 235)


def target(clip: Path) -> Path:
    """The path of the sheet: the target itself if that is a picture, otherwise a name made from it."""
    if clip.suffix.lower() in FORMATS and not image_sequence.is_sequence(clip):
        return clip
    return clip.with_name(f"{image_sequence.base_name(clip)}-preview.png".lstrip("-"))


def chosen(shots: Sequence[range]) -> list[range]:
    """All shots, or :data:`MOST` evenly spread ones."""
    if len(shots) <= MOST:
        return list(shots)
    return [shots[round(number * (len(shots) - 1) / (MOST - 1))] for number in range(MOST)]


def draw(cells: Sequence[tuple[str, Image.Image, Image.Image]]) -> Picture:
    """One picture of (label, frame, painted frame) for each shot."""
    first = cells[0][1]
    factor = min(1.0, LONGEST / max(first.size))
    width, height = (max(1, round(side * factor)) for side in first.size)
    columns = 1 if len(cells) <= 3 or (width > 1.6 * height and len(cells) <= 6) else 2
    rows = -(-len(cells) // columns)
    wide, high = 2 * width + 2 * MARGIN, height + TEXT + 2 * MARGIN
    sheet = Image.new("RGB", (columns * wide + MARGIN, rows * high + MARGIN), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    for index, (label, *pair) in enumerate(cells):
        left, top = MARGIN + index % columns * wide, MARGIN + index // columns * high
        pen.text((left, top), label, "black", font)
        for place, frame in enumerate(pair):
            sheet.paste(frame.resize((width, height)), (left + place * (width + MARGIN // 2), top + TEXT + MARGIN // 2))
    levels = torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).view(1, sheet.height, sheet.width, 3)
    return Picture(levels.permute(0, 3, 1, 2).float() / 255)
