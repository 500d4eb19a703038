"""Stylizer: from a photo, a style and settings to a repainted picture.

It chooses the scales, the start, the terms and the colours; the loop is :func:`stylize.painting.paint`. Where the terms
differ from Gatys, Ecker and Bethge (2016): styles are compared by the Wasserstein distance of their feature Gaussians
instead of Gram matrices, and every term is relative to its target. The preset ``gatys2015`` turns both back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylize import colors
from stylize.colors import ColorMode
from stylize.encoders import EncoderSpec, Progress
from stylize.errors import SettingsError
from stylize.features import Engine
from stylize.gradients import gradients_enabled
from stylize.grain import Grains
from stylize.images import Origin, Picture, Source, as_picture, as_pictures, fit, resize
from stylize.iteration import Painting
from stylize.masks import Mask, MaskSource
from stylize.objective import Term, enough_memory
from stylize.observing import Observer
from stylize.optimizer import Curvature
from stylize.painting import paint
from stylize.palette import Palettes
from stylize.progress import Progressing
from stylize.pyramid import Scale, pyramid
from stylize.records import Record
from stylize.regions import Layout, Region, RegionSource
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

__all__ = ["Source", "Stylizer", "as_picture", "noise"]

REGIONS_KEPT = 16  # styles of regions whose statistics are kept


class Stylizer:
    """Repaints pictures in the style of one picture, or of a blend of several.

        Stylizer("starry.jpg", "strong", size=1024)("photo.jpg").save("out.png")

    The style's statistics are computed at the first picture and reused for all that follow. A stylizer can be used in
    several threads at once, and within ``torch.no_grad()`` and ``torch.inference_mode()``.

    Args:
        style: a picture as :func:`~stylize.as_picture` takes it: a path, bytes, a file object, a Pillow image, a NumPy
            array or a tensor; or several, blended by ``settings.style_weights``.
        settings: what the picture becomes: settings, or the name of a preset; default: ``Settings()``.
        encoders: specs to choose ``settings.encoder`` from; default: the built-in ones.
        color_modes: modes to choose ``settings.preserve_color`` from; default: the built-in ones.
        weights: a weights file for the encoder, instead of the usual search.
        progress: True shows the progress of all that follows: a bar of tqdm, or in a notebook the picture as it is
            painted. A function is called with (bytes done, bytes in all or None) while weights are downloaded.
        engine: share that of another stylizer of the same settings.
        changes: of single settings, by name.

    Raises:
        SettingsError, ImageError, WeightsError, DeviceError: see there; raised here rather than at the first picture.
    """

    @gradients_enabled()
    def __init__(
        self,
        style: Source | Iterable[Source],
        settings: Settings | str | Mapping[str, Any] | None = None,
        *,
        encoders: Iterable[EncoderSpec] | None = None,
        color_modes: Iterable[ColorMode] | None = None,
        weights: str | Path | None = None,
        progress: Progress | bool | None = None,
        engine: Engine | None = None,
        **changes: Any,
    ) -> None:
        self.settings = settings = Settings.of(settings, **changes)
        self._shows = progress is True
        self._color_modes = colors.builtin() if color_modes is None else tuple(color_modes)
        self._color = colors.choose(settings.preserve_color, self._color_modes)
        needed = math.ceil(settings.size * max(settings.style_scale, settings.init == "style"))
        self.styles = as_pictures(style, needed)
        if not self.styles:
            raise SettingsError("no style picture given")
        if settings.style_weights and len(settings.style_weights) != len(self.styles):
            raise SettingsError(
                f"style_weights has {len(settings.style_weights)} numbers for {len(self.styles)} style pictures; "
                "give one number per style"
            )
        start = settings.start_file
        self._begin = None if start is None else as_picture(start, settings.size)
        layers = (
            {layer for layer, weight in settings.style_layers.items() if weight} if settings.style_weight else set()
        )
        if settings.normalize == "paper":
            layers.add("relu1_1")
        with Progressing(progress) as shown:
            self.engine = engine or Engine(
                settings, layers, encoders=encoders, weights=weights, progress=shown.download
            )
        self._targets = _Targets(self._color, self.engine, self.styles, settings.style_weights)

    def restyled(self, style: Source | Iterable[Source], style_weights: Sequence[float] | None = None) -> Stylizer:
        """A stylizer of the same settings and encoder for another style, or blend of styles; ``style_weights`` are
        theirs, by default those of the settings."""
        settings = self.settings
        if style_weights is not None:
            settings = settings.replace(style_weights=tuple(style_weights))
        return Stylizer(style, settings, color_modes=self._color_modes, engine=self.engine)

    @gradients_enabled()
    def __call__(
        self,
        content: Source,
        *,
        init: Source | None = None,
        terms: Callable[[Scale], Sequence[Term]] | None = None,
        steps: int | None = None,
        curvature: Curvature | None = None,
        on_step: Observer | None = None,
        stop: Callable[[], bool] | None = None,
        progress: bool | None = None,
        mask: MaskSource | None = None,
        regions: Sequence[RegionSource] = (),
        profile: str | None = None,
        style_weights: Sequence[float] | None = None,
    ) -> Picture:
        """The content repainted, at ``settings.size``, with the content's alpha and EXIF.

        Args:
            content: a picture, as :func:`~stylize.as_picture` takes it.
            init: where to begin, a picture of any size; default: ``settings.init``.
            terms: more terms of the loss at a scale, on any layers of the encoder.
            steps: so many at full size alone, for an ``init`` that is nearly there, such as the frame before of a clip;
                default: all scales.
            curvature: what L-BFGS knows of the loss from a picture before, and what it knows at the end, put there.
            on_step: sees every :class:`~stylize.observing.Step`.
            stop: asked after every step; True returns the best picture so far.
            progress: whether to show the progress; default: as the stylizer was told.
            mask: what is painted, as :func:`~stylize.as_mask` takes it: white is, grey in part; where it is black, the
                result has the content's own pixels.
            regions: parts with styles of their own, as :class:`~stylize.Region` or pairs of mask and style.
            profile: "keep" paints in the colours of the content's own ICC profile, which the result then has; "srgb"
                in sRGB; default: as a Picture is, files in sRGB.
            style_weights: of the stylizer's styles, one each, at least 0; default: those of the settings.

        Raises:
            SettingsError, ImageError: the content or ``init`` is no picture, or cannot be read.
            OptimizationError: NaN or inf that smaller steps could not avoid.
        """
        profile = profile or ("keep" if isinstance(content, Picture) else "srgb")
        picture = as_picture(content, self.settings.size, profile=profile)
        scales = self.scales(*picture.size)
        height, width = scales[-1].height, scales[-1].width
        if steps is not None:
            scales = (replace(scales[-1], steps=steps),)
        with (
            Progressing(self._shows if progress is None else progress, picture.name) as shown,
            enough_memory(height, width),
        ):
            layout = Layout.of(picture, (height, width), mask, regions, self.settings.content_weight)
            warm, shows = steps is not None, shown.also(on_step)
            made = self._paint(picture, scales, init, terms, warm, curvature, shows, stop, layout, style_weights)
            shown.done(made)
        return made

    def steps(self, content: Source, **options: Any) -> Painting:
        """The content repainted step by step: a generator of :class:`~stylize.observing.Step` whose value is the
        picture.

            painting = stylizer.steps("photo.jpg")
            for step in painting:
                if step.seconds > 10:
                    break
            painting.picture.save("out.png")

        Leaving the loop ends the optimisation; ``picture`` is then what there is so far. The painting goes on in a
        thread of its own, while the next step is asked for and not between.

        Args:
            content: a picture, as :func:`~stylize.as_picture` takes it.
            options: those of a call of the stylizer, but ``on_step``.
        """
        return Painting(
            lambda on_step, stop: self(content, on_step=on_step, stop=stop, **options), options.pop("stop", None)
        )

    def scales(self, height: int, width: int) -> tuple[Scale, ...]:
        """The scales at which a picture of that size is painted, coarse to fine, the last being that of the result."""
        return pyramid(*fit(height, width, self.settings.size, upscale=self.settings.upscale), self.settings)

    def record(
        self,
        content: Origin | None,
        styles: Sequence[Origin | None] | None = None,
        *,
        mask: Mask | None = None,
        regions: Sequence[Region] = (),
    ) -> Record:
        """How a picture of this content comes about; ``styles`` stand in for the stylizer's own."""
        from stylize import __version__

        if styles is None:
            styles = [style.origin for style in self.styles]
        return Record(
            stylize=__version__,
            torch=str(torch.__version__),
            settings=self.settings.to_dict(),
            encoder={"name": self.engine.spec.name, "sha256": getattr(self.engine.encoder, "fingerprint", "")},
            content=_plain(content),
            styles=tuple(_plain(style) for style in styles),
            init=_plain(None if self._begin is None else self._begin.origin),
            mask=None if mask is None else mask.described(),
            regions=tuple(region.described() for region in regions),
        )

    def _paint(
        self,
        picture: Picture,
        scales: Sequence[Scale],
        init: Source | None,
        terms: Callable[[Scale], Sequence[Term]] | None,
        warm_start: bool,
        curvature: Curvature | None,
        on_step: Observer | None,
        stop: Callable[[], bool] | None,
        layout: Layout | None,
        style_weights: Sequence[float] | None,
    ) -> Picture:
        height, width = scales[-1].height, scales[-1].width
        opaque = Picture(picture.opaque().rgb, picture.alpha, profile=picture.profile)
        own = self._weighted(style_weights)
        photo, target = self._targets.of(opaque, *own)
        regions = () if layout is None else layout.regions
        photo = self.engine.placed(photo)
        targets: Sequence[StyleTarget | None] = (target,)
        alpha = None if picture.alpha is None else resize(picture.alpha, height, width)
        weights: Sequence[Tensor | None] = (alpha,)
        if layout is not None:
            targets, weights = self._targets.of_parts(layout, opaque, own), layout.weights
        palettes, grains = self._palettes(targets, weights), self._grains(targets, weights)
        recolored = photo if palettes is None or warm_start else palettes.recolor(resize(photo, height, width))
        start = self._start(init, recolored, target, scales, picture.profile)
        if layout is not None:
            start = start if start is photo else layout.begun(start, photo)

        def all_terms(scale: Scale, before: Tensor | None) -> list[Term]:
            made = self._terms(photo, scale, targets, picture.alpha, layout, before)
            return made + list(terms(scale) if terms else ())

        def finish(painted: Tensor) -> Tensor:
            return painted if palettes is None else palettes.finish(painted)

        def in_color(painted: Tensor) -> Tensor:
            if self._color.finish is not None:
                painted = self._color.finish(painted, resize(opaque.rgb, *painted.shape[2:]))
            return painted if layout is None else layout.over(painted.expand(-1, 3, -1, -1))

        def as_seen(painted: Tensor) -> Tensor:
            return Picture(in_color(finish(painted)), profile=picture.profile).in_profile().rgb

        detail = recolored if self.settings.content_weight else None
        if layout is not None and layout.is_empty:
            painted = resize(photo, height, width).cpu()
        else:
            painted = paint(
                self.engine,
                scales,
                start,
                all_terms,
                warm_start=warm_start,
                curvature=curvature,
                detail=detail,
                grain=None if grains is None else grains.added,
                on_step=on_step,
                stop=stop,
                to_display=as_seen,
                finish=finish,
                source_bytes=0 if recolored is photo else photo.untyped_storage().nbytes(),
            )
        made = self.record(picture.origin, mask=None if layout is None else layout.mask, regions=regions)
        if style_weights is not None:
            made = replace(made, settings={**made.settings, "style_weights": list(style_weights)})
        record = replace(made, stopped=stop is not None and stop())
        return replace(picture, rgb=in_color(painted), alpha=alpha, record=record.to_dict(), origin=None)

    def _weighted(self, weights: Sequence[float] | None) -> tuple[tuple[Picture, ...], tuple[float, ...]]:
        """The styles that count, and their weights.

        Raises:
            SettingsError: these are no weights of the styles.
        """
        if weights is None:
            return self.styles, self.settings.style_weights
        if len(weights) != len(self.styles):
            raise SettingsError(f"style_weights has {len(weights)} numbers for {len(self.styles)} style pictures")
        self.settings.replace(style_weights=tuple(weights))  # refuses others
        counting = [(style, weight) for style, weight in zip(self.styles, weights, strict=True) if weight]
        return tuple(style for style, _ in counting), tuple(weight for _, weight in counting)

    @gradients_enabled()
    def terms(
        self,
        photo: Tensor,
        scale: Scale,
        *,
        before: Tensor | None = None,
        target: StyleTarget | None = None,
        alpha: Tensor | None = None,
    ) -> list[Term]:
        """The terms of the settings for a photo (1, 3 or 1, H, W) at one scale, ``before`` being the picture painted at
        the one before; where ``alpha`` is 0 nothing counts."""
        return self._terms(photo, scale, (target or self._targets.main,), alpha, None, before)

    def _palettes(self, targets: Sequence[StyleTarget | None], weights: Sequence[Tensor | None]) -> Palettes | None:
        """The palettes that start and result are given, part by part."""
        free = self.settings.palette == "free" or self._color.prepare is not None or self._color.finish is not None
        if free or not self.settings.style_weight:
            return None
        palettes = [None if target is None else target.palette for target in targets]
        return Palettes(list(zip(palettes, weights, strict=True)))

    def _grains(self, targets: Sequence[StyleTarget | None], weights: Sequence[Tensor | None]) -> Grains | None:
        """The grain that fine scales begin with, part by part."""
        if not self.settings.style_weight:
            return None
        grains = [None if target is None else target.grain for target in targets]
        return Grains(list(zip(grains, weights, strict=True)), self.settings.seed)

    def _terms(
        self,
        photo: Tensor,
        scale: Scale,
        targets: Sequence[StyleTarget | None],
        alpha: Tensor | None,
        layout: Layout | None,
        before: Tensor | None,
    ) -> list[Term]:
        """The terms at one scale, with a style for each part of a layout, or one for the whole."""
        device, size = self.engine.device, (scale.height, scale.width)
        places = Positions(alpha if layout is None else layout.content_weights, device)
        seen = resize(photo, *size)
        if self.settings.content_loss == "self-similarity" and self.settings.content_weight and not scale.fine:
            content = self_similarity_term(seen, self.settings, self.engine, places)
        else:
            content = content_term(seen, self.settings, self.engine, places, detail=scale.detail)
        styles = [None if each is None else partial(each.terms, scale) for each in targets]
        if layout is None:
            terms = [content, *(term for style in styles if style is not None for term in style(places))]
        else:
            terms = layout.terms(content, styles, device)
        terms.append(variation_term(self.settings.tv_weight, *size))
        if scale.fine and before is not None and min(size) >= 3:
            terms.append(coarser_term(before, *size))
        return terms

    def _start(
        self, init: Source | None, photo: Tensor, target: StyleTarget, scales: Sequence[Scale], profile: bytes
    ) -> Tensor:
        if init is not None:
            begun = as_picture(init, profile="keep").in_profile(profile).opaque().rgb
        elif self.settings.init == "noise":  # at the size it is used, as a smaller one of a larger is grey
            return noise((scales[0].height, scales[0].width), self.settings, channels=photo.shape[1])
        elif self.settings.init == "content":
            return photo
        else:
            begin = target.styles[0] if self._begin is None else self._begin
            begun = _cover(begin.in_profile(profile).opaque().rgb, scales[-1].height, scales[-1].width)
        return colors.luminance(begun) if photo.shape[1] == 1 else begun


class _Targets:
    """The styles of a stylizer and of regions, in its colour mode."""

    def __init__(
        self, color: ColorMode, engine: Engine, styles: tuple[Picture, ...], weights: tuple[float, ...]
    ) -> None:
        self._color, self._engine, self._moments = color, engine, StyleMoments(engine)
        self.main = StyleTarget(styles, engine, weights, self._moments)
        self._kept: list[StyleTarget] = []  # of regions and of other profiles, with their statistics
        self._converted: list[tuple[tuple[Picture, ...], bytes, tuple[Picture, ...]]] = []

    def of(
        self, content: Picture, styles: tuple[Picture, ...], weights: tuple[float, ...]
    ) -> tuple[Tensor, StyleTarget]:
        """What is painted of a content, (1, 3 or 1, H, W), and the style for it."""
        styles = self._in_profile(styles, content.profile)
        if self._color.prepare is None:
            return content.rgb, self._known(styles, weights)
        shown = [Picture(style.opaque().rgb, style.alpha) for style in styles]
        photo, styles_for_it = self._color.prepare(content, shown)
        return photo, StyleTarget(styles_for_it, self._engine, weights)

    def _in_profile(self, styles: tuple[Picture, ...], profile: bytes) -> tuple[Picture, ...]:
        """Styles in the colours of a photo; the same objects for the same, so that their statistics are known."""
        if not profile:
            return styles
        for known, of, made in self._converted:
            if known == styles and of == profile:
                return made
        made = tuple(style.in_profile(profile) for style in styles)
        self._converted = [(styles, profile, made), *self._converted][:REGIONS_KEPT]
        return made

    def of_parts(
        self, layout: Layout, content: Picture, rest: tuple[tuple[Picture, ...], tuple[float, ...]]
    ) -> list[StyleTarget | None]:
        """The styles of the parts of a layout, of which ``rest`` is that of what is in no region; none for what is too
        small to count."""
        own = [rest]
        own += [(region.styles, region.style_weights) for region in layout.regions]
        pairs = zip(layout.parts(content), own, strict=True)
        return [None if part is None else self.of(part, *styles)[1] for part, styles in pairs]

    def _known(self, styles: tuple[Picture, ...], weights: tuple[float, ...]) -> StyleTarget:
        known = [each for each in (self.main, *self._kept) if each.styles == styles and each.weights == weights]
        found = known[0] if known else StyleTarget(styles, self._engine, weights, self._moments)
        if found is not self.main:
            self._kept = [found, *(each for each in self._kept if each is not found)][:REGIONS_KEPT]
        return found


def noise(size: tuple[int, int], settings: Settings, channels: int = 3) -> Tensor:
    """White noise (1, channels, *size), the same on every device for the same seed."""
    generator = torch.Generator().manual_seed(settings.seed)
    return torch.rand(1, channels, *size, generator=generator)


def _plain(origin: Origin | None) -> dict[str, str] | None:
    return None if origin is None else origin.described()


def _cover(image: Tensor, height: int, width: int) -> Tensor:
    """The middle of the image, scaled to cover (height, width)."""
    factor = max(height / image.shape[2], width / image.shape[3])
    image = resize(image, max(height, round(image.shape[2] * factor)), max(width, round(image.shape[3] * factor)))
    top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[..., top : top + height, left : left + width]
