"""The paper's comparison figure (Gatys et al. 2016, fig. 4 and its predecessor of 2015, fig. 3): how deep the style is
matched, from row to row, against how much the content weighs, from column to column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from stylize import images
from stylize.colors import ColorMode
from stylize.encoders import EncoderSpec, Progress
from stylize.engine import Step, enough_memory
from stylize.errors import SettingsError
from stylize.images import Picture
from stylize.settings import Settings
from stylize.stylizer import Source, Stylizer, as_picture

CONTENT_WEIGHTS = (0.02, 0.05, 0.1, 0.3)
MARGIN = 6  # px between the pictures
GRAY = 235

Observer = Callable[[int, Step], object]  # (cell, step)


def grid(
    content: Source,
    style: Source,
    settings: Settings | None = None,
    *,
    content_weights: Sequence[float] = CONTENT_WEIGHTS,
    encoders: Iterable[EncoderSpec] | None = None,
    color_modes: Iterable[ColorMode] | None = None,
    weights: str | Path | None = None,
    progress: Progress | None = None,
    on_step: Observer | None = None,
    stop: Callable[[], bool] | None = None,
) -> Picture:
    """The figure as one picture: row r matches the first r + 1 style layers of the settings, column c has the
    content weight ``content_weights[c]``; labelled. For the other arguments see :class:`~stylize.Stylizer`.

    When ``stop`` becomes True the cells not begun stay empty.
    """
    settings = settings or Settings()
    photo = as_picture(content, settings.size)
    if not content_weights:
        raise SettingsError("content_weights is empty; give at least one")
    layers = [(layer, weight) for layer, weight in settings.style_layers.items() if weight]
    if not layers:
        raise SettingsError("style_layers is empty or all zero; give at least one layer a positive weight")
    height, width = images.fit(*photo.size, settings.size, upscale=settings.upscale)
    with enough_memory(height, width):
        empty = Picture(torch.ones(1, 3, height, width))
    cells = [
        settings.replace(style_layers=dict(layers[:depth]), content_weight=content_weight)
        for depth in range(1, len(layers) + 1)
        for content_weight in content_weights
    ]
    painted: list[Picture] = []
    for number, cell in enumerate(cells):
        if stop is not None and stop():
            painted.append(empty)
            continue
        stylizer = Stylizer(style, cell, encoders=encoders, color_modes=color_modes, weights=weights, progress=progress)
        observe = None if on_step is None else lambda step, number=number: on_step(number, step)
        painted.append(stylizer(photo, on_step=observe, stop=stop))
    columns = len(content_weights)
    rows = [painted[first : first + columns] for first in range(0, len(painted), columns)]
    names = [layer if index == 0 else f"+ {layer}" for index, (layer, _) in enumerate(layers)]
    return _compose(rows, names, [f"content {value:g}" for value in content_weights])


def _compose(rows: Sequence[Sequence[Picture]], names: Sequence[str], headings: Sequence[str]) -> Picture:
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    height, width = rows[0][0].size
    text = max(11, round(max(height, width) / 16))
    longest = max(ImageFont.load_default(text).getlength(heading) for heading in headings)
    text = max(6, round(text * min(1, (width - MARGIN) / longest)))
    font = ImageFont.load_default(text)
    left = round(max(font.getlength(name) for name in names)) + 2 * MARGIN
    top = 2 * MARGIN + text
    sheet = Image.new(
        "RGB",
        (left + len(rows[0]) * (width + MARGIN), top + len(rows) * (height + MARGIN)),
        (GRAY, GRAY, GRAY),
    )
    draw = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings):
        draw.text((left + column * (width + MARGIN) + width / 2, top / 2), heading, "black", font, anchor="mm")
    for row, (pictures, name) in enumerate(zip(rows, names, strict=True)):
        y = top + row * (height + MARGIN)
        draw.text((left - MARGIN, y + height / 2), name, "black", font, anchor="rm")
        for column, picture in enumerate(pictures):
            array = (picture.opaque().rgb[0].permute(1, 2, 0) * 255).round().byte().numpy()
            sheet.paste(Image.fromarray(array), (left + column * (width + MARGIN), y))
    return Picture(torch.from_numpy(np.array(sheet)).permute(2, 0, 1)[None].float() / 255)
