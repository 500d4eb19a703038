"""Colour modes: what becomes of the content's colours.

Gatys, Bethge, Hertzmann, Shechtman 2016, "Preserving Color in Neural Artistic Style Transfer".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stylize.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from stylize.images import Picture

Prepare = Callable[["Picture", Sequence["Picture"]], tuple["Tensor", Sequence["Picture"]]]
Finish = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True)
class ColorMode:
    """A way to keep colours, asked for by ``--preserve-color NAME``.

    ``prepare(content, styles)`` gives what is painted, (1, 3, H, W), or (1, 1, H, W) to paint in grey, and the styles
    to paint it in; both get pictures without transparent pixels' colours. ``finish(painted, content)`` gets what came
    out and the content, (1, 3, H, W) of the same size, and gives the picture.
    """

    name: str
    prepare: Prepare | None = None
    finish: Finish | None = None


def builtin() -> tuple[ColorMode, ...]:
    """none; luminance: only the brightness is painted; match: the style gets the content's colours first."""
    return (ColorMode("none"), ColorMode("luminance", _grey, _with_chroma), ColorMode("match", _matched))


def choose(name: str, modes: Iterable[ColorMode]) -> ColorMode:
    """The mode of that name.

    Raises:
        SettingsError: there is none; the message lists those there are.
    """
    known = {mode.name: mode for mode in modes}
    if name not in known:
        raise SettingsError(f"preserve_color is {name!r}; it must be one of {', '.join(known)}")
    return known[name]


def _grey(content: Picture, styles: Sequence[Picture]) -> tuple[Tensor, Sequence[Picture]]:
    from stylize import images

    y = images.luminance(content.rgb)
    made = []
    for style in styles:
        grey = images.luminance(style.rgb)
        grey = images.match_luminance(grey, y, style_alpha=style.alpha, content_alpha=content.alpha)
        made.append(images.Picture(grey.expand(-1, 3, -1, -1), style.alpha))
    return y, made


def _with_chroma(painted: Tensor, content: Tensor) -> Tensor:
    from stylize import images

    return images.with_chroma(painted, content)


def _matched(content: Picture, styles: Sequence[Picture]) -> tuple[Tensor, Sequence[Picture]]:
    from stylize import images

    return content.rgb, [
        images.Picture(
            images.match_color(style.rgb, content.rgb, style_alpha=style.alpha, content_alpha=content.alpha),
            style.alpha,
        )
        for style in styles
    ]
