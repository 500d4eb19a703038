"""Stylizer: from a photo, a style and settings to a repainted picture.

It chooses the scales, the start, the terms and the colours; the loop is :func:`stylize.painting.paint`. Where the terms
differ from Gatys, Ecker and Bethge (2016): styles are compared by the Wasserstein distance of their feature Gaussians
instead of Gram matrices, and every term is relative to its target. The preset ``gatys2015`` turns both back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
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
from stylize.images import Origin, Picture, Source, as_picture, as_pictures, fit
from stylize.iteration import Painting
from stylize.masks import Mask, MaskSource
from stylize.objective import Term, enough_memory
from stylize.observing import Observer
from stylize.optimizer import Curvature
from stylize.painting import paint
from stylize.prepared import Blend, Styles, loss_terms
from stylize.progress import Progressing
from stylize.pyramid import Scale, pyramid
from stylize.records import Record
from stylize.regions import Layout, Region, RegionSource
from stylize.settings import Settings
from stylize.terms import (
    StyleTarget,
)


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
        color = colors.choose(settings.preserve_color, self._color_modes)
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
        self._styles = Styles(self.engine, color, (self.styles, settings.style_weights))

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
        warm, scales = steps is not None, self.scales(*picture.size)
        size = scales[-1].height, scales[-1].width
        if steps is not None:
            scales = (scales[-1].alone(steps),)
        shown = Progressing(self._shows if progress is None else progress, picture.name)
        with shown, enough_memory(*size):
            layout = Layout.of(picture, size, mask, regions, self.settings.content_weight)
            styles = self._weighted(style_weights)
            prepared = self._styles.prepare(picture, size, styles, layout, recolor=not warm)

            more: Sequence[Term] = ()

            def all_terms(scale: Scale, before: Tensor | None) -> list[Term]:
                nonlocal more
                if terms and not scale.goes_on:  # they are made once for both phases
                    more = terms(scale)
                return [*prepared.terms(scale, before), *more]

            if layout is not None and layout.is_empty:
                painted = prepared.untouched()
            else:
                start = prepared.start(init, self._begin, (scales[0].height, scales[0].width))
                if warm:
                    prepared.resume(scales[0], start)
                painted = paint(
                    self.engine,
                    scales,
                    start,
                    all_terms,
                    is_lost=None if warm else prepared.is_lost,
                    warm_start=warm,
                    curvature=curvature,
                    detail=prepared.recolored if self.settings.content_weight else None,
                    grain=prepared.grain,
                    on_step=shown.also(on_step),
                    stop=stop,
                    to_display=prepared.displayed,
                    finish=prepared.finished,
                    source_bytes=prepared.extra_bytes,
                )
                prepared.tell_hold()
            own = (None, ()) if layout is None else (layout.mask, layout.regions)
            record = self.record(picture.origin, mask=own[0], regions=own[1])
            if style_weights is not None:
                record = replace(record, settings={**record.settings, "style_weights": list(style_weights)})
            record = replace(record, stopped=stop is not None and stop())
            rgb = prepared.colored(painted)
            made = replace(picture, rgb=rgb, alpha=prepared.alpha, record=record.to_dict(), origin=None)
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

    def _weighted(self, weights: Sequence[float] | None) -> Blend:
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
        return loss_terms(self.engine, photo, scale, (target or self._styles.main,), alpha, None, before)


def _plain(origin: Origin | None) -> dict[str, str] | None:
    return None if origin is None else origin.described()
