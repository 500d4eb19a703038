"""The paper's experiments: style reconstruction, content reconstruction, and the comparison figure.

Gatys, Ecker and Bethge (2016), "Image Style Transfer Using Convolutional Neural Networks".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stylize.colors import ColorMode
from stylize.encoders import EncoderSpec, Progress
from stylize.errors import SettingsError
from stylize.images import Picture, Source, as_picture, fit
from stylize.objective import enough_memory
from stylize.observing import Observer, Step
from stylize.settings import RECONSTRUCTION, TEXTURE, Settings
from stylize.stylizer import Stylizer

CONTENT_WEIGHTS = (0.01, 0.02, 0.05, 0.15)
MARGIN = 6  # px between the pictures
GRAY = 235

CellObserver = Callable[[int, Step], object]  # (cell, step)


def texture(
    style: Source | Iterable[Source],
    settings: Settings | str | Mapping[str, Any] | None = None,
    *,
    encoders: Iterable[EncoderSpec] | None = None,
    weights: str | Path | None = None,
    progress: Progress | bool | None = None,
    on_step: Observer | None = None,
    stop: Callable[[], bool] | None = None,
    **changes: Any,
) -> Picture:
    """Style reconstruction (fig. 1 of the paper): noise, painted with the style term alone.

    The result has the first style's proportions and ``settings.size``; for the arguments see :class:`Stylizer`.
    """
    settings = Settings.of(settings, TEXTURE, **changes).replace(
        content_weight=0.0, init="noise", preserve_color="none"
    )
    stylizer = Stylizer(style, settings, encoders=encoders, weights=weights, progress=progress)
    height, width = fit(*stylizer.styles[0].size, settings.size, upscale=True)
    with enough_memory(height, width):
        blank = torch.zeros(1, 3, height, width, dtype=torch.float32)
    return stylizer(blank, on_step=on_step, stop=stop)


def reconstruct(
    content: Source,
    layer: str = "relu4_2",
    settings: Settings | str | Mapping[str, Any] | None = None,
    *,
    encoders: Iterable[EncoderSpec] | None = None,
    weights: str | Path | None = None,
    progress: Progress | bool | None = None,
    on_step: Observer | None = None,
    stop: Callable[[], bool] | None = None,
    **changes: Any,
) -> Picture:
    """Content reconstruction (fig. 1 of the paper): noise, optimised until one layer's features equal the content's.

    The result shows what that layer keeps of the picture. It is painted at one scale, as coarser ones would leak what
    the layer has lost; for the arguments see :class:`Stylizer`.
    """
    settings = Settings.of(settings, RECONSTRUCTION, **changes)
    settings = settings.replace(style_weight=0.0, content_weight=1.0, content_layer=layer, init="noise")
    settings = settings.replace(scales=1, preserve_color="none")
    return Stylizer(content, settings, encoders=encoders, weights=weights, progress=progress)(
        content, on_step=on_step, stop=stop
    )


def grid(
    content: Source,
    style: Source,
    settings: Settings | str | Mapping[str, Any] | None = None,
    *,
    content_weights: Sequence[float] = CONTENT_WEIGHTS,
    encoders: Iterable[EncoderSpec] | None = None,
    color_modes: Iterable[ColorMode] | None = None,
    weights: str | Path | None = None,
    progress: Progress | bool | None = None,
    on_step: CellObserver | None = None,
    stop: Callable[[], bool] | None = None,
    **changes: Any,
) -> Picture:
    """The comparison figure (fig. 4 of the paper; fig. 3 of its preprint of 2015), one labelled picture.

    Row r matches the first r + 1 style layers of the settings, column c has the content weight
    ``content_weights[c]``. For the other arguments see :class:`~stylize.Stylizer`.

    When ``stop`` returns True, the cells not yet begun stay empty.
    """
    settings = Settings.of(settings, **changes)
    photo = as_picture(content, settings.size)
    if not content_weights:
        raise SettingsError("content_weights is empty; give at least one")
    layers = [(layer, weight) for layer, weight in settings.style_layers.items() if weight]
    if not layers:
        raise SettingsError("style_layers is empty or all zero; give at least one layer a positive weight")
    height, width = fit(*photo.size, settings.size, upscale=settings.upscale)
    with enough_memory(height, width):
        empty = Picture(torch.ones(1, 3, height, width, dtype=torch.float32))
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
