"""A content as it is painted: its colours, the styles of its parts and where they count, where it begins, the terms of
its loss, and how the colours of the result come about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from stylize import colors
from stylize.colors import ColorMode
from stylize.features import Engine
from stylize.grain import Grains
from stylize.holding import LOOSE, Hold, Holding
from stylize.images import Picture, Source, as_picture, resize
from stylize.margins import without_margins
from stylize.objective import Term
from stylize.palette import Palettes
from stylize.pyramid import Scale
from stylize.regions import Layout
from stylize.settings import Settings
from stylize.terms import (
    Positions,
    StyleMoments,
    StyleTarget,
    coarser_term,
    content_term,
    self_similarity_term,
    variation_term,
)

KEPT = 16  # styles of regions and of other profiles whose statistics are kept

Blend = tuple[tuple[Picture, ...], tuple[float, ...]]  # styles and their weights; no weights: equal


class Styles:
    """The styles of a stylizer and of regions in its colour mode, whose statistics are computed once."""

    def __init__(self, engine: Engine, color: ColorMode, blend: Blend) -> None:
        self._engine, self._color, self._moments = engine, color, StyleMoments(engine)
        self._seen: list[tuple[tuple[Picture, ...], bytes, tuple[Picture, ...]]] = []
        self._kept: list[StyleTarget] = []
        self.main = StyleTarget(self._as_seen(blend[0], b""), engine, blend[1], self._moments)

    def prepare(
        self, picture: Picture, size: tuple[int, int], blend: Blend, layout: Layout | None, *, recolor: bool
    ) -> Prepared:
        """A content as it is painted.

        Args:
            picture: the content.
            size: (height, width) of the result.
            blend: the style of what is in no region.
            layout: its parts, if it has any.
            recolor: whether it begins with the style's colours, where the settings have a palette.
        """
        content = Picture(picture.opaque().rgb, picture.alpha, profile=picture.profile, name=picture.name)
        photo, target = self.of(content, blend)
        targets = (target,) if layout is None else self.of_parts(layout, content, blend)
        photo = self._engine.placed(photo)
        return Prepared(self._engine, self._color, content, photo, target, targets, size, layout, recolor=recolor)

    def of(self, content: Picture, blend: Blend) -> tuple[Tensor, StyleTarget]:
        """What is painted of a content, (1, 3 or 1, H, W), and the style for it."""
        styles, weights = self._as_seen(blend[0], content.profile), blend[1]
        if self._color.prepare is None:
            return content.rgb, self._known(styles, weights)
        shown = [Picture(style.opaque().rgb, style.alpha) for style in styles]
        photo, styles_for_it = self._color.prepare(content, shown)
        return photo, StyleTarget(styles_for_it, self._engine, weights)

    def of_parts(self, layout: Layout, content: Picture, rest: Blend) -> list[StyleTarget | None]:
        """The styles of the parts of a layout, of which ``rest`` is that of what is in no region; none for what is too
        small to count."""
        blends = [rest, *((region.styles, region.style_weights) for region in layout.regions)]
        pairs = zip(layout.parts(content), blends, strict=True)
        return [None if part is None else self.of(part, blend)[1] for part, blend in pairs]

    def _as_seen(self, styles: tuple[Picture, ...], profile: bytes) -> tuple[Picture, ...]:
        """Styles without margins, in the colours of a photo; the same objects for the same, so that their statistics
        are known."""
        for known, of, made in self._seen:
            if known == styles and of == profile:
                return made
        made = styles
        if profile:
            made = tuple(style.in_profile(profile) for style in self._as_seen(styles, b""))
        elif self._engine.settings.style_margins == "cut":
            made = tuple(map(without_margins, styles))
        self._seen = [(styles, profile, made), *self._seen][:KEPT]
        return made

    def _known(self, styles: tuple[Picture, ...], weights: tuple[float, ...]) -> StyleTarget:
        known = [each for each in (self.main, *self._kept) if each.styles == styles and each.weights == weights]
        found = known[0] if known else StyleTarget(styles, self._engine, weights, self._moments)
        if found is not self.main:
            self._kept = [found, *(each for each in self._kept if each is not found)][:KEPT]
        return found


class Prepared:
    """A content as it is painted.

    Args:
        engine: the encoder on its device, with the settings.
        color: the colour mode.
        content: without transparency; its alpha says where it counts.
        photo: what is painted of it, (1, 3 or 1, H, W).
        target: the style of what is in no region.
        targets: the styles of the parts, None for what is too small to count.
        size: (height, width) of the result.
        layout: the parts; None: it is one.
        recolor: whether it begins with the style's colours, where the settings have a palette.

    Attributes:
        alpha: that of the result, (1, 1, *size), if the content has any.
        recolored: the photo with the style's colours, (1, 3 or 1, H, W) of any size.
        grain: what :func:`stylize.painting.paint` takes for it.
    """

    def __init__(
        self,
        engine: Engine,
        color: ColorMode,
        content: Picture,
        photo: Tensor,
        target: StyleTarget,
        targets: Sequence[StyleTarget | None],
        size: tuple[int, int],
        layout: Layout | None,
        *,
        recolor: bool,
    ) -> None:
        self._engine, self._color, self._content, self._photo = engine, color, content, photo
        self._target, self._targets, self._size, self._layout = target, targets, size, layout
        self.alpha = None if content.alpha is None else resize(content.alpha, *size)
        self._holding = Holding.of(engine.settings, content.name)
        weights: Sequence[Tensor | None] = (self.alpha,) if layout is None else layout.weights
        self._palettes, grains = self._palettes_of(weights), self._grains_of(weights)
        self.grain = None if grains is None else grains.added
        self.recolored = photo
        if self._palettes is not None and recolor:
            self.recolored = self._palettes.recolor(resize(photo, *size))

    @property
    def extra_bytes(self) -> int:
        """What the photo holds of memory besides :attr:`recolored`."""
        return 0 if self.recolored is self._photo else self._photo.untyped_storage().nbytes()

    def start(self, init: Source | None, file: Picture | None, first: tuple[int, int]) -> Tensor:
        """Where the optimisation starts, (1, 3 or 1, H, W) of any size.

        Args:
            init: a picture to start from instead of what the settings say.
            file: the picture that the settings name, if they name one.
            first: (height, width) of the first scale.
        """
        start = self._start(init, file, first)
        if self._layout is None or start is self._photo:
            return start
        return self._layout.begun(start, self._photo)

    def _start(self, init: Source | None, file: Picture | None, first: tuple[int, int]) -> Tensor:
        settings, profile, channels = self._engine.settings, self._content.profile, self._photo.shape[1]
        if init is not None:
            begun = as_picture(init, profile="keep").in_profile(profile).opaque().rgb
        elif settings.init == "noise":  # at the size it is used, as a smaller one of a larger is grey
            return noise(first, settings, channels=channels)
        elif settings.init == "content":
            return self.recolored
        else:
            begin = self._target.styles[0] if file is None else file
            begun = _cover(begin.in_profile(profile).opaque().rgb, *self._size)
        return colors.luminance(begun) if channels == 1 else begun

    def terms(self, scale: Scale, before: Tensor | None) -> list[Term]:
        """The terms of the loss at a scale, ``before`` being the picture painted at the one before."""
        hold = LOOSE if self._holding is None else self._holding.hold
        return loss_terms(
            self._engine, self._photo, scale, self._targets, self._content.alpha, self._layout, before, hold
        )

    def is_lost(self, scale: Scale, painted: Tensor) -> bool:
        """Whether too little of the photo is left in what is painted at a scale; if so it is now held more firmly."""
        return self._holding is not None and self._holding.is_lost(painted, *self._compared(scale))

    def resume(self, scale: Scale, start: Tensor) -> None:
        """Hold the photo as in a picture (1, 3 or 1, H, W) that is nearly done."""
        if self._holding is not None and not scale.fine:
            self._holding.resume(resize(start, scale.height, scale.width), *self._compared(scale))

    def tell_hold(self) -> None:
        """Say it if the photo had to be held more firmly."""
        if self._holding is not None:
            self._holding.tell()

    def _compared(self, scale: Scale) -> tuple[Tensor, Tensor | None]:
        """The photo at a scale, (1, 3 or 1, H, W), and how much of it counts where, (H * W,); None: all alike."""
        alpha = self._content.alpha if self._layout is None else self._layout.content_weights
        size = scale.height, scale.width
        return resize(self._photo, *size), Positions(alpha, self._engine.device).of_map(*size)

    def untouched(self) -> Tensor:
        """The photo at the size of the result, (1, 3 or 1, *size), on the CPU."""
        return resize(self._photo, *self._size).cpu()

    def finished(self, painted: Tensor) -> Tensor:
        """What is painted, (1, 3 or 1, H, W), with the style's palette."""
        return painted if self._palettes is None else self._palettes.finish(painted)

    def colored(self, painted: Tensor) -> Tensor:
        """What is painted, in the colours of the colour mode, laid over what is not to be painted: (1, 3, H, W)."""
        if self._color.finish is not None:
            painted = self._color.finish(painted, resize(self._content.rgb, *painted.shape[2:]))
        return painted if self._layout is None else self._layout.over(painted.expand(-1, 3, -1, -1))

    def displayed(self, painted: Tensor) -> Tensor:
        """What is painted so far as it is shown, (1, 3, H, W) in sRGB."""
        return Picture(self.colored(self.finished(painted)), profile=self._content.profile).in_profile().rgb

    def _palettes_of(self, weights: Sequence[Tensor | None]) -> Palettes | None:
        """The palettes that start and result are given, part by part."""
        settings = self._engine.settings
        free = settings.palette == "free" or self._color.prepare is not None or self._color.finish is not None
        if free or not settings.style_weight:
            return None
        palettes = [None if target is None else target.palette for target in self._targets]
        return Palettes(list(zip(palettes, weights, strict=True)))

    def _grains_of(self, weights: Sequence[Tensor | None]) -> Grains | None:
        """The grain that fine scales begin with, part by part."""
        settings = self._engine.settings
        if not settings.style_weight:
            return None
        grains = [None if target is None else target.grain for target in self._targets]
        return Grains(list(zip(grains, weights, strict=True)), settings.seed)


def loss_terms(
    engine: Engine,
    photo: Tensor,
    scale: Scale,
    targets: Sequence[StyleTarget | None],
    alpha: Tensor | None,
    layout: Layout | None,
    before: Tensor | None,
    hold: Hold = LOOSE,
) -> list[Term]:
    """The terms of the settings at one scale.

    Args:
        engine: the encoder on its device, with the settings.
        photo: what is painted, (1, 3 or 1, H, W).
        scale: the scale.
        targets: the style, or those of the layout's parts.
        alpha: where the photo counts, (1, 1, H, W); None: everywhere.
        layout: the parts; None: it is one.
        before: the picture painted at the scale before.
        hold: how firmly the photo is held, where its parts may become other things.
    """
    settings, size = engine.settings, (scale.height, scale.width)
    places = Positions(alpha if layout is None else layout.content_weights, engine.device)
    seen = resize(photo, *size)
    if settings.content_loss == "self-similarity" and settings.content_weight and not scale.fine:
        content = self_similarity_term(seen, settings, engine, places, hold)
    else:
        content = content_term(seen, settings, engine, places, detail=scale.detail, shallow_only=scale.shallow)
    styles = [None if each is None else partial(each.terms, scale, hold=hold) for each in targets]
    if layout is None:
        terms = [content, *(term for style in styles if style is not None for term in style(places))]
    else:
        terms = layout.terms(content, styles, engine.device)
    terms.append(variation_term(settings.tv_weight, *size))
    if scale.fine and before is not None and min(size) >= 3:
        terms.append(coarser_term(before, *size))
    return terms


def noise(size: tuple[int, int], settings: Settings, channels: int = 3) -> Tensor:
    """White noise (1, channels, *size), the same on every device for the same seed."""
    generator = torch.Generator().manual_seed(settings.seed)
    return torch.rand(1, channels, *size, generator=generator, dtype=torch.float32)


def _cover(image: Tensor, height: int, width: int) -> Tensor:
    """The middle of the image, scaled to cover (height, width)."""
    factor = max(height / image.shape[2], width / image.shape[3])
    image = resize(image, max(height, round(image.shape[2] * factor)), max(width, round(image.shape[3] * factor)))
    top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[..., top : top + height, left : left + width]
