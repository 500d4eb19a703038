"""Stylizer: the whole method, top to bottom.

Where it differs from Gatys, Ecker and Bethge (2016): styles are compared by the Wasserstein distance of their feature
Gaussians instead of Gram matrices, every term is relative to its target, the picture starts from the content and is
painted coarse to fine. The preset ``gatys2015`` turns all of this back.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylize import colors, images, losses
from stylize.colors import ColorMode
from stylize.encoders import EncoderSpec, Progress
from stylize.engine import Engine, Observer, enough_memory
from stylize.errors import SettingsError
from stylize.images import Origin, Picture, fit, resize
from stylize.losses import Features, Term
from stylize.pyramid import Scale, pyramid
from stylize.settings import Settings

Source = Picture | Tensor | str | Path  # a tensor is (1, 3, H, W) sRGB in [0, 1]
PAPER_ACTIVATION = 32.0  # mean of relu1_1 of the original VGG-19 over photographs and paintings
LayerLoss = Callable[[Tensor, Tensor | None], Tensor]  # (features, position weights) -> scalar

RECONSTRUCTION = Settings(size=256, steps=(300,))  # where reconstruct() starts from
# and texture(): started below 128 px, the layout of the style would come along
TEXTURE = Settings(min_size=128, steps=(100, 60))


class Stylizer:
    """Repaints pictures in the style of one picture, or of a blend of several.

        Stylizer("starry.jpg", Settings(size=1024))("photo.jpg").save("out.png")

    The style's statistics are computed at the first picture and reused for all that follow.

    Args:
        style: a picture, a path or a tensor (1, 3, H, W) in [0, 1]; or several, blended by ``settings.style_weights``.
        settings: what the picture becomes; default: ``Settings()``.
        encoders: specs to choose ``settings.encoder`` from; default: the built-in ones.
        color_modes: modes to choose ``settings.preserve_color`` from; default: the built-in ones.
        weights: a weights file for the encoder, instead of the usual search.
        progress: called with (bytes done, bytes in all or None) while weights are downloaded.
        engine: share that of another stylizer of the same settings.

    Raises:
        SettingsError, ImageError, WeightsError, DeviceError: see there; raised here rather than at the first picture.
    """

    def __init__(
        self,
        style: Source | Sequence[Source],
        settings: Settings | None = None,
        *,
        encoders: Iterable[EncoderSpec] | None = None,
        color_modes: Iterable[ColorMode] | None = None,
        weights: str | Path | None = None,
        progress: Progress | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.settings = settings = settings or Settings()
        self._color_modes = colors.builtin() if color_modes is None else tuple(color_modes)
        self._color = colors.choose(settings.preserve_color, self._color_modes)
        sources = [style] if isinstance(style, (Picture, Tensor, str, Path)) else list(style)
        if not sources:
            raise SettingsError("no style picture given")
        if settings.style_weights and len(settings.style_weights) != len(sources):
            raise SettingsError(
                f"style_weights has {len(settings.style_weights)} numbers for {len(sources)} style pictures; "
                "give one number per style"
            )
        needed = math.ceil(settings.size * max(settings.style_scale, settings.init == "style"))
        self.styles = tuple(as_picture(source, needed) for source in sources)
        start = settings.start_file
        self._begin = None if start is None else as_picture(start, settings.size)
        layers = (
            {layer for layer, weight in settings.style_layers.items() if weight} if settings.style_weight else set()
        )
        if settings.content_weight:
            layers.add(settings.content_layer)
        if settings.normalize == "paper":
            layers.add("relu1_1")
        self.engine = engine or Engine(settings, layers, encoders=encoders, weights=weights, progress=progress)
        self._target = StyleTarget(self.styles, self.engine)

    def restyled(self, style: Source | Sequence[Source]) -> Stylizer:
        """A stylizer of the same settings and encoder for another style, or blend of styles."""
        return Stylizer(style, self.settings, color_modes=self._color_modes, engine=self.engine)

    def __call__(
        self,
        content: Source,
        *,
        init: Tensor | None = None,
        terms: Callable[[Scale], Sequence[Term]] | None = None,
        steps: int | None = None,
        on_step: Observer | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Picture:
        """The content repainted, at ``settings.size``, with the content's alpha and EXIF.

        Args:
            content: a picture, a path or a tensor (1, 3, H, W) in [0, 1].
            init: where to begin, (1, 3, H, W) in [0, 1] of any size; default: ``settings.init``.
            terms: more terms of the loss at a scale, on any layers of the encoder.
            steps: so many at full size alone, for an ``init`` that is nearly there; default: all scales.
            on_step: sees every :class:`~stylize.engine.Step`.
            stop: asked after every step; True returns the best picture so far.

        Raises:
            OptimizationError: NaN or inf that smaller steps could not avoid.
        """
        picture = as_picture(content, self.settings.size)
        height, width = fit(*picture.size, self.settings.size, upscale=self.settings.upscale)
        with enough_memory(height, width):
            scales = pyramid(height, width, self.settings)
            if steps is not None:
                scales = (Scale(height, width, steps),)
            return self._paint(picture, scales, init, terms, on_step, stop)

    def record(self, content: Origin | None, styles: Sequence[Origin | None] | None = None) -> dict[str, Any]:
        """How a picture of this content comes about, in plain values; ``styles`` stand in for the stylizer's own."""
        from stylize import __version__

        if styles is None:
            styles = [style.origin for style in self.styles]
        return {
            "stylize": __version__,
            "torch": str(torch.__version__),
            "settings": self.settings.to_dict(),
            "encoder": {"name": self.engine.spec.name, "sha256": getattr(self.engine.encoder, "fingerprint", "")},
            "content": _plain(content),
            "styles": [_plain(style) for style in styles],
            "init": _plain(None if self._begin is None else self._begin.origin),
        }

    def _paint(
        self,
        picture: Picture,
        scales: Sequence[Scale],
        init: Tensor | None,
        terms: Callable[[Scale], Sequence[Term]] | None,
        on_step: Observer | None,
        stop: Callable[[], bool] | None,
    ) -> Picture:
        height, width = scales[-1].height, scales[-1].width
        opaque = Picture(_opaque(picture), picture.alpha)
        photo, target = self._in_color_mode(opaque)
        start = self._start(init, photo, target, scales)

        def all_terms(scale: Scale) -> list[Term]:
            made = self.terms(photo, scale, target=target, alpha=picture.alpha)
            return made + list(terms(scale) if terms else ())

        def in_color(painted: Tensor) -> Tensor:
            if self._color.finish is None:
                return painted
            return self._color.finish(painted, resize(opaque.rgb, *painted.shape[2:]))

        painted = in_color(self.engine.optimize(scales, start, all_terms, on_step=on_step, stop=stop, shown=in_color))
        alpha = None if picture.alpha is None else resize(picture.alpha, height, width)
        record = self.record(picture.origin)
        return Picture(painted, alpha, picture.exif, picture.notes, picture.name, record)

    def terms(
        self, photo: Tensor, scale: Scale, *, target: StyleTarget | None = None, alpha: Tensor | None = None
    ) -> list[Term]:
        """The terms of the settings for a photo (1, 3 or 1, H, W) at one scale; where ``alpha`` is 0 nothing counts."""
        places = _Positions(alpha, self.engine.device)
        return [
            content_term(resize(photo, scale.height, scale.width), self.settings, self.engine, places),
            (target or self._target).term(scale.longest, places),
            Term("tv", self.settings.tv_weight, lambda image, _: losses.total_variation(image)),
        ]

    def _in_color_mode(self, content: Picture) -> tuple[Tensor, StyleTarget]:
        """What is painted, (1, 3 or 1, H, W), and the style for it."""
        if self._color.prepare is None:
            return content.rgb, self._target
        styles = [Picture(_opaque(style), style.alpha) for style in self.styles]
        photo, styles_for_it = self._color.prepare(content, styles)
        return photo, StyleTarget(styles_for_it, self.engine)

    def _start(self, init: Tensor | None, photo: Tensor, target: StyleTarget, scales: Sequence[Scale]) -> Tensor:
        if init is not None:
            init = as_picture(init).rgb
        elif self.settings.init == "noise":  # at the size it is used, as a smaller one of a larger is grey
            return noise((scales[0].height, scales[0].width), self.settings, channels=photo.shape[1])
        elif self.settings.init == "content":
            return photo
        else:
            begin = target.styles[0] if self._begin is None else self._begin
            init = _cover(_opaque(begin), scales[-1].height, scales[-1].width)
        return images.luminance(init) if photo.shape[1] == 1 else init


def texture(
    style: Source | Sequence[Source],
    settings: Settings | None = None,
    *,
    encoders: Iterable[EncoderSpec] | None = None,
    weights: str | Path | None = None,
    progress: Progress | None = None,
    on_step: Observer | None = None,
    stop: Callable[[], bool] | None = None,
) -> Picture:
    """The paper's style reconstruction (Gatys et al. 2016, fig. 1): noise, painted with the style term alone.

    The result has the first style's proportions and ``settings.size``; for the arguments see :class:`Stylizer`.
    """
    settings = (settings or TEXTURE).replace(content_weight=0.0, init="noise", preserve_color="none")
    stylizer = Stylizer(style, settings, encoders=encoders, weights=weights, progress=progress)
    height, width = fit(*stylizer.styles[0].size, settings.size, upscale=True)
    with enough_memory(height, width):
        blank = torch.zeros(1, 3, height, width)
    return stylizer(blank, on_step=on_step, stop=stop)


def reconstruct(
    content: Source,
    layer: str = "relu4_2",
    settings: Settings | None = None,
    *,
    encoders: Iterable[EncoderSpec] | None = None,
    weights: str | Path | None = None,
    progress: Progress | None = None,
    on_step: Observer | None = None,
    stop: Callable[[], bool] | None = None,
) -> Picture:
    """The paper's content reconstruction (Gatys et al. 2016, fig. 1): noise, optimised until one layer's features are
    the content's. What comes back is what that layer knows of the picture. One scale, as coarser ones would leak
    what the layer has lost; for the arguments see :class:`Stylizer`."""
    settings = settings or RECONSTRUCTION
    settings = settings.replace(style_weight=0.0, content_weight=1.0, content_layer=layer, init="noise")
    settings = settings.replace(scales=1, preserve_color="none")
    return Stylizer(content, settings, encoders=encoders, weights=weights, progress=progress)(
        content, on_step=on_step, stop=stop
    )


class StyleTarget:
    """The statistics of one style, or of a blend, at every scale; computed once and reused for every frame of a job.

    A blend aims at the Wasserstein barycentre of the styles' Gaussians, or at the weighted mean of their Gram
    matrices. Styles are resized so that their longest side is the picture's times ``settings.style_scale``.
    """

    def __init__(self, styles: Sequence[Picture], engine: Engine) -> None:
        self.styles = tuple(styles)
        self._engine = engine
        self._known: dict[int, Mapping[str, LayerLoss]] = {}

    def term(self, longest: int, places: _Positions) -> Term:
        """The style term for a picture whose longest side is ``longest`` px: the weighted mean over the layers."""
        settings = self._engine.settings
        layers = {layer: weight for layer, weight in settings.style_layers.items() if weight}
        if not settings.style_weight:
            return Term("style", 0.0, lambda image, _: image.sum() * 0)
        if longest not in self._known:
            self._known[longest] = self._measure(longest, layers)
        known, total = self._known[longest], sum(layers.values())

        def distance(image: Tensor, features: Features) -> Tensor:
            parts = [
                weight / total * known[layer](features[layer], places.at(features[layer]))
                for layer, weight in layers.items()
            ]
            return torch.stack(parts).sum()

        return Term("style", settings.style_weight, distance, tuple(layers))

    def _measure(self, longest: int, layers: Iterable[str]) -> Mapping[str, LayerLoss]:
        settings = self._engine.settings
        shares = settings.style_weights or (1.0,) * len(self.styles)
        found = []
        for style in self.styles:
            size = fit(*style.size, max(1, round(longest * settings.style_scale)), upscale=True)
            features = self._engine.encode(resize(_opaque(style), *size))
            found.append((features, _Positions(style.alpha, self._engine.device)))
        made: dict[str, LayerLoss] = {}
        for layer in layers:
            pairs = [(features[layer], places.at(features[layer])) for features, places in found]
            if settings.style_loss == "wasserstein":
                mean, covariance = losses.barycenter([losses.moments(*pair) for pair in pairs], shares)
                made[layer] = partial(_wasserstein, target=losses.Gaussian.of(mean, covariance))
                continue
            grams = torch.stack(
                [share / sum(shares) * losses.gram_matrix(*p) for share, p in zip(shares, pairs, strict=True)]
            )
            target = grams.sum(0)
            energy = target.square().sum().clamp_min(1e-12)
            if settings.normalize == "paper":
                energy = 4 * len(target) ** 2 / _paper_scale(found[0][0]) ** 4
            made[layer] = partial(_gram, target=target, energy=energy)
        return made


def _wasserstein(features: Tensor, weight: Tensor | None, target: losses.Gaussian) -> Tensor:
    return losses.wasserstein(features, target, weight)


def _gram(features: Tensor, weight: Tensor | None, target: Tensor, energy: Tensor) -> Tensor:
    return losses.gram(features, target, energy, weight)


def content_term(photo: Tensor, settings: Settings, engine: Engine, places: _Positions) -> Term:
    """The content term of a photo (1, 3 or 1, H, W) at its own size."""
    if not settings.content_weight:
        return Term("content", 0.0, lambda image, _: image.sum() * 0)
    layer = settings.content_layer
    features = engine.encode(photo.expand(-1, 3, -1, -1))
    target = features[layer]
    energy = losses.content(target, torch.zeros_like(target), 1.0, places.at(target)).clamp_min(1e-12)
    if settings.normalize == "paper":
        energy = 2 / _paper_scale(features) ** 2

    def distance(image: Tensor, features: Features) -> Tensor:
        return losses.content(features[layer], target, energy, places.at(features[layer]))

    return Term("content", settings.content_weight * engine.spec.content_scale, distance, (layer,))


def _paper_scale(features: Features) -> Tensor:
    """What brings activations to the size they have in the paper's network, which counts pixels from 0 to 255.

    Squares stand against fourth powers in eq. 7, so that its ratio means something at that size only.
    """
    return PAPER_ACTIVATION / features["relu1_1"].float().mean().clamp_min(1e-12)


class _Positions:
    """How much each position of a feature map counts: what is transparent does not."""

    def __init__(self, alpha: Tensor | None, device: torch.device) -> None:
        self._alpha = None if alpha is None else alpha.to(device)
        self._known: dict[tuple[int, int], Tensor] = {}

    def at(self, features: Tensor) -> Tensor | None:
        if self._alpha is None:
            return None
        height, width = features.shape[2:]
        if (height, width) not in self._known:
            self._known[height, width] = losses.position_weights(self._alpha, height, width)
        return self._known[height, width]


def as_picture(source: Source, size: int | None = None) -> Picture:
    """A picture as it is, a path loaded (as far as ``size`` needs it), a tensor (1, 3, H, W) in [0, 1] wrapped."""
    if isinstance(source, Picture):
        return source
    if isinstance(source, Tensor):
        if source.dim() != 4 or source.shape[:2] != (1, 3) or not source.numel():
            raise SettingsError(f"a picture must be a tensor (1, 3, H, W), not {tuple(source.shape)}")
        if not torch.isfinite(source).all():
            raise SettingsError("a picture holds NaN or infinity")
        return Picture(source.detach().float().cpu().clamp(0, 1))
    return images.load(source, longest=size and size * images.SPARE)


def noise(size: tuple[int, int], settings: Settings, channels: int = 3) -> Tensor:
    """White noise (1, channels, *size), the same on every device for the same seed."""
    generator = torch.Generator().manual_seed(settings.seed)
    return torch.rand(1, channels, *size, generator=generator)


def _plain(origin: Origin | None) -> dict[str, str] | None:
    return None if origin is None else {"path": os.path.abspath(origin.path), "sha256": origin.sha256}  # noqa: PTH100


def _opaque(picture: Picture) -> Tensor:
    return picture.rgb if picture.alpha is None else images.fill_transparent(picture.rgb, picture.alpha)


def _cover(image: Tensor, height: int, width: int) -> Tensor:
    """The middle of the image, scaled to cover (height, width)."""
    factor = max(height / image.shape[2], width / image.shape[3])
    image = resize(image, max(height, round(image.shape[2] * factor)), max(width, round(image.shape[3] * factor)))
    top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[..., top : top + height, left : left + width]
