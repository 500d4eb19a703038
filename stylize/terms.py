"""The terms of the method: what they aim at, measured once, and how far a picture is from it.

Each knows its value of a picture seen whole, and of sums over parts of it (:class:`~stylize.losses.Sums`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from stylize import losses
from stylize.encoders import shallow
from stylize.features import PROBE
from stylize.gradients import WHOLE, crop
from stylize.grain import Grain
from stylize.holding import LOOSE, Hold
from stylize.images import fit, resize
from stylize.matching import MOST, StyleCells, View
from stylize.objective import Sums, Term
from stylize.palette import Palette
from stylize.tiles import Features, TileWindow, Whole

if TYPE_CHECKING:
    from stylize.features import Engine
    from stylize.images import Picture
    from stylize.pyramid import Scale
    from stylize.settings import Settings

MATCHED = ("relu3_1", "relu4_1")  # layers in which cells are matched, and a picture compared with itself
POSITIONS = 1000  # about so many of a picture are compared with each other
TURNS = ((), (3,), (2,), (2, 3))  # axes: as it is, mirrored, upside down, turned
NARROW = 256  # channels: layers that accelerators pad to that size to compute their distances together
APART = 2**19  # pixels from which on they compute those of wide layers one by one, while the network goes on
COARSER = 0.3  # weight of the distance to the picture of the scale before, at fine scales
PAPER_ACTIVATION = 32.0  # mean of relu1_1 of the original VGG-19 over photographs and paintings
MOMENTS_KEPT = 32  # of styles at a scale
LEAST_ACTIVATION = 1e-3  # of any encoder and picture: where all is dark, nothing is divided by zero


class StyleMoments:
    """The moments of style pictures, measured once for all blends that they are in."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[tuple[Picture, int, int, tuple[str, ...], bool], Mapping[str, tuple[Tensor, Tensor]]] = {}

    def of(
        self, style: Picture, size: tuple[int, int], layers: tuple[str, ...], *, symmetric: bool
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Mean (C,) and Gram matrix (C, C) of each layer of a style, seen at a size (height, width): as it is, or if
        ``symmetric`` their means over it as it is, mirrored, upside down and turned."""
        key = (style, *size, layers, symmetric)
        found = self._known.pop(key, None)
        if found is None:
            image, seen = _seen_at(style, size, self._engine), []
            for axes in TURNS if symmetric else TURNS[:1]:
                alpha = None if style.alpha is None else style.alpha.flip(axes)
                seen.append(_add_up(image.flip(axes), layers, self._engine, Positions(alpha, self._engine.device)))
            found = {layer: _mean([each[layer] for each in seen]) for layer in layers}
        self._known[key] = found  # the last that was asked for; other threads may do the same meanwhile
        for oldest in list(self._known)[:-MOMENTS_KEPT]:
            self._known.pop(oldest, None)
        return found


def _seen_at(style: Picture, size: tuple[int, int], engine: Engine) -> Tensor:
    """A style (1, 3, *size), on the device where it is resized the fastest."""
    return resize(engine.placed(style.opaque().rgb), *size)


class StyleTarget:
    """The statistics of one style, or of a blend, at every scale; computed once and reused for every frame of a job.

    A blend aims at the Wasserstein barycentre of the styles' Gaussians, or at the weighted mean of their Gram
    matrices. Styles are resized so that their longest side is the picture's times ``settings.style_scale``.
    """

    def __init__(
        self,
        styles: Sequence[Picture],
        engine: Engine,
        weights: Sequence[float] | None = None,
        moments: StyleMoments | None = None,
    ) -> None:
        self._moments = StyleMoments(engine) if moments is None else moments
        self.styles = tuple(styles)
        self.weights = tuple(engine.settings.style_weights if weights is None else weights)  # none: equal
        self._engine = engine
        self._palettes: dict[int, Palette] = {}
        self._grains: dict[int, Grain | None] = {}
        self._known: dict[tuple[int, tuple[str, ...], bool], Mapping[str, _Layer]] = {}
        self._matched: dict[int, StyleCells | None] = {}

    def palette(self, longest: int) -> Palette:
        """The colours of the styles, mixed by their weights, for a picture whose longest side is ``longest`` px: at the
        size they are seen at, as smaller pictures have less contrast."""
        if longest not in self._palettes:
            self._palettes[longest] = Palette.of(
                [(rgb.cpu(), alpha) for rgb, alpha in self._pictures(longest)], self.weights or None
            )
        return self._palettes[longest]

    def grain(self, longest: int) -> Grain | None:
        """The grain of the styles, mixed by their weights, at the size they are seen at; None if they have none."""
        if longest not in self._grains:
            self._grains[longest] = Grain.of(self._pictures(longest), self.weights or None)
        return self._grains[longest]

    def _pictures(self, longest: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The styles and their alphas, at the size they are seen at."""
        for style in self.styles:
            size = self._size(style, longest)
            yield _seen_at(style, size, self._engine), None if style.alpha is None else resize(style.alpha, *size)

    def _size(self, style: Picture, longest: int) -> tuple[int, int]:
        """The size at which a style is seen."""
        return fit(*style.size, max(1, round(longest * self._engine.settings.style_scale)), upscale=True)

    def terms(self, scale: Scale, places: Positions, hold: Hold = LOOSE) -> list[Term]:
        """The style terms for a picture at a scale, whose photo is held in some way."""
        terms, settings = [self._statistics(scale, places)], self._engine.settings
        matching = settings.style_loss == "match" and settings.match_weight and settings.style_weight
        if matching and not scale.symmetric and not scale.shallow:
            cells = self._cells(scale.longest)
            if cells is not None and min(scale.height, scale.width) >= self._cell[0]:  # thinner ones have no cell
                terms.append(self._match(cells, places, hold))
        return terms

    def _match(self, style: StyleCells, places: Positions, hold: Hold) -> Term:
        """The term of matched cells (:mod:`stylize.matching`): one less the mean cosine of cells and their matches. It
        can be evaluated once it was updated. Where the photo's parts may become other things, things are copied."""
        engine, layers = self._engine, style.layers
        copying = engine.settings.content_loss == "self-similarity" and hold.copying
        wanted: dict[str, Tensor] = {}  # stay where they are in memory

        def update(image: Tensor) -> None:
            with torch.no_grad():
                found = engine.maps(image.detach().expand(-1, 3, -1, -1), layers.sides)
                vectors, size = layers.vectors(found), layers.cells(found)
                weights = places.of_map(*size)
                if weights is None:
                    weights = torch.full((len(vectors),), 1 / len(vectors), device=engine.device, dtype=torch.float32)
                matched = style.matched(vectors, size, weights, copying=copying)
                for layer, made in layers.maps(matched, size).items():
                    wanted[layer] = wanted[layer].copy_(made) if layer in wanted else made

        def part(image: Tensor, features: Features, region: TileWindow) -> list[Tensor]:
            return [layers.alike(features, {layer: own[(..., *region.at(layer))] for layer, own in wanted.items()})]

        def of_sums(sums: Sequence[Tensor]) -> Tensor:
            return 1 - sums[0]

        def distance(image: Tensor, features: Features) -> Tensor:
            return of_sums(part(image, features, Whole()))

        weight = hold.matched * engine.settings.match_weight * engine.settings.style_weight
        return Term("match", weight, distance, tuple(layers.sides), Sums(part, of_sums), update)

    @cached_property
    def _cell(self) -> tuple[int, dict[str, int]]:
        """The side of a cell in px, which is a position of the deepest layer, and how many positions of each layer it
        has on each side."""
        found = self._engine.maps(torch.zeros(1, 3, PROBE, PROBE, dtype=torch.float32), MATCHED)
        counts = {layer: own.shape[2] for layer, own in found.items()}
        least = min(counts.values())
        return PROBE // least, {layer: count // least for layer, count in counts.items()}

    def _cells(self, longest: int) -> StyleCells | None:
        """The cells of the styles for a picture whose longest side is ``longest`` px; of those thick enough for one."""
        if longest not in self._matched:
            engine, (side, sides) = self._engine, self._cell
            styles = [
                (share, _views(style, size, side, engine))
                for style, share in zip(self.styles, self.weights or (1.0,) * len(self.styles), strict=True)
                if share and min(size := self._size(style, longest)) >= side
            ]
            self._matched[longest] = StyleCells.of(styles, sides) if styles else None
        return self._matched[longest]

    def _statistics(self, scale: Scale, places: Positions) -> Term:
        """The term of the features' statistics: the weighted sum over the layers, of which a fine scale knows the
        shallow ones."""
        settings = self._engine.settings
        layers = {layer: weight for layer, weight in settings.style_layers.items() if weight}
        total = sum(layers.values())
        if not settings.style_weight:
            return Term("style", 0.0, lambda image, _: image.sum() * 0)
        measured = tuple(layers)
        if scale.shallow:
            layers = shallow(layers) or layers
            measured = measured if scale.early else tuple(layers)  # once for both phases
        key = scale.longest, measured, scale.symmetric
        if key not in self._known:
            self._known[key] = self._measure(scale.longest, measured, symmetric=scale.symmetric)
        known = self._known[key]
        shares = {layer: (known[layer], weight / total) for layer, weight in layers.items()}
        batches = _batches(shares, apart=scale.height * scale.width >= APART)

        def distance(image: Tensor, features: Features) -> Tensor:
            if batches:
                seen = [[places.seen(features[layer]) for layer in own] for own, _ in batches]
                maps = [[own for own, _ in pairs] for pairs in seen]
                weights = [[weight for _, weight in pairs] for pairs in seen]
                made = [batch for _, batch in batches]
                return losses.wasserstein_of_batches(list(zip(made, maps, weights, strict=True)))
            parts = [share * own.whole(*places.seen(features[layer])) for layer, (own, share) in shares.items()]
            return torch.stack(parts).sum()

        def part(image: Tensor, features: Features, region: TileWindow) -> list[Tensor]:
            return [sums for layer in layers for sums in _moments(features, layer, region, places)]

        def of_sums(sums: Sequence[Tensor]) -> Tensor:
            pairs = zip(sums[::2], sums[1::2], strict=True)
            parts = [share * own.of_moments(*pair) for (own, share), pair in zip(shares.values(), pairs, strict=True)]
            return torch.stack(parts).sum()

        return Term("style", settings.style_weight, distance, tuple(layers), Sums(part, of_sums))

    def _measure(self, longest: int, layers: tuple[str, ...], *, symmetric: bool) -> Mapping[str, _Layer]:
        settings = self._engine.settings
        weights = self.weights or (1.0,) * len(self.styles)
        shares = [weight / sum(weights) for weight in weights]
        paper = settings.normalize == "paper"
        found = [
            self._moments.of(style, self._size(style, longest), layers, symmetric=symmetric) for style in self.styles
        ]
        if paper:
            style = self.styles[0]
            image = _seen_at(style, self._size(style, longest), self._engine)
            scale = _paper_scale(image, self._engine, Positions(style.alpha, self._engine.device))
        made: dict[str, _Layer] = {}
        for layer in layers:
            pairs = [moments[layer] for moments in found]
            if settings.style_loss != "gram":
                gaussians = [(mean, second - mean.outer(mean)) for mean, second in pairs]
                made[layer] = _Wasserstein(losses.Gaussian.of(*losses.barycenter(gaussians, shares)))
                continue
            target = torch.stack([share * second for share, (_, second) in zip(shares, pairs, strict=True)]).sum(0)
            energy = target.square().sum().clamp_min(1e-12)
            if paper:
                energy = 4 * len(target) ** 2 / scale**4
            made[layer] = _Gram(target, energy)
        return made


def _views(style: Picture, size: tuple[int, int], side: int, engine: Engine) -> list[View]:
    """A style, seen at a size (height, width), cut into cells of ``side`` px as it is, and half a cell further while
    these are no more than are looked through."""
    image, views = _seen_at(style, size, engine), list[View]()
    alpha = None if style.alpha is None else resize(style.alpha, *size)
    for down, right in itertools.product((0, side // 2), repeat=2):
        own = None if alpha is None else alpha[..., down:, right:]
        if min(size[0] - down, size[1] - right) < side or (views and own is not None and not own.any()):
            continue
        if views and (len(views) + 1) * (size[0] // side) * (size[1] // side) > MOST:
            break
        features = engine.maps(image[..., down:, right:], MATCHED)
        views.append(View(features, Positions(own, engine.device).of_map, (down / side, right / side)))
    return views


class _Layer(Protocol):
    """The distance of one layer from the style: of its features, or of their mean and Gram matrix."""

    def whole(self, features: Tensor, weight: Tensor | None) -> Tensor: ...

    def of_moments(self, mean: Tensor, second: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class _Wasserstein:
    target: losses.Gaussian

    def whole(self, features: Tensor, weight: Tensor | None) -> Tensor:
        return losses.wasserstein(features, self.target, weight)

    def of_moments(self, mean: Tensor, second: Tensor) -> Tensor:
        return losses.wasserstein_of_moments(mean, second, self.target)


@dataclass(frozen=True)
class _Gram:
    target: Tensor
    energy: Tensor

    def whole(self, features: Tensor, weight: Tensor | None) -> Tensor:
        return losses.gram(features, self.target, self.energy, weight)

    def of_moments(self, mean: Tensor, second: Tensor) -> Tensor:
        return losses.gram_of_moments(second, self.target, self.energy)


def _batches(
    layers: Mapping[str, tuple[_Layer, float]], *, apart: bool
) -> list[tuple[list[str], losses.WassersteinBatch]]:
    """On accelerators, the layers whose distances are computed together: narrow ones, and wide ones, unless those are
    to be computed ``apart``."""
    groups: dict[str, dict[str, tuple[losses.Gaussian, float]]] = {}
    for layer, (known, share) in layers.items():
        if isinstance(known, _Wasserstein) and known.target.mean.device.type != "cpu":
            wide = len(known.target.mean) > NARROW
            group = groups.setdefault(layer if wide and apart else str(wide), {})
            group[layer] = known.target, share
    return [(list(own), losses.WassersteinBatch(*zip(*own.values(), strict=True))) for own in groups.values()]


def content_term(
    photo: Tensor,
    settings: Settings,
    engine: Engine,
    places: Positions,
    *,
    detail: float = 1.0,
    shallow_only: bool = False,
) -> Term:
    """The content term of a photo (1, 3 or 1, H, W) at its own size, of which ``detail`` counts, perhaps of the
    shallow layers alone. Where there are none of these, a photo of which all counts is seen as deep as asked for."""
    layers = shallow(engine.content) if shallow_only else dict(engine.content)
    layers = layers if layers or detail < 1 else dict(engine.content)
    factors = {layer: detail * factor for layer, factor in layers.items()}
    if not settings.content_weight or not factors:
        return Term("content", 0.0, lambda image, _: image.sum() * 0)
    rgb = photo.expand(-1, 3, -1, -1)
    targets = engine.maps(rgb, factors)
    energies = {
        layer: losses.partial_content(own, 0.0, _factor(targets, layer, Whole(), places)).clamp_min(1e-12)
        for layer, own in targets.items()
    }
    if settings.normalize == "paper":
        scale = _paper_scale(rgb, engine, Positions(None, engine.device))
        energies = dict.fromkeys(factors, 2 / scale**2)

    def distance(image: Tensor, features: Features) -> Tensor:
        parts = [
            factor * losses.content(features[layer], targets[layer], energies[layer], places.at(features[layer]))
            for layer, factor in factors.items()
        ]
        return torch.stack(parts).sum()

    def part(image: Tensor, features: Features, region: TileWindow) -> list[Tensor]:
        return [
            losses.partial_content(
                features[layer], target[(..., *region.at(layer))], _factor(features, layer, region, places)
            )
            for layer, target in targets.items()
        ]

    def of_sums(sums: Sequence[Tensor]) -> Tensor:
        parts = zip(factors.items(), sums, strict=True)
        return torch.stack([factor * squares / energies[layer] for (layer, factor), squares in parts]).sum()

    return Term("content", settings.content_weight, distance, tuple(targets), Sums(part, of_sums))


def self_similarity_term(
    photo: Tensor, settings: Settings, engine: Engine, places: Positions, hold: Hold = LOOSE
) -> Term:
    """The content term of a photo (1, 3 or 1, H, W) that compares how alike its parts are, not what they are: they may
    become something else, and what belonged together still does (Kolkin, Salavon, Shakhnarovich 2019, sect. 2.3). What
    they are is held as well, more or less."""
    if not hold.self_similarity:
        held = content_term(photo, settings, engine, places)
        return replace(held, weight=hold.features * held.weight)
    height, width = photo.shape[2:]
    step = max(4.0, math.sqrt(height * width / POSITIONS))
    size = max(2, round(height / step)), max(2, round(width / step))
    weights = places.of_map(*size)
    found = engine.maps(photo.expand(-1, 3, -1, -1), MATCHED)
    targets = {layer: losses.self_similarity(own, size, weights) for layer, own in found.items()}
    held = content_term(photo, settings, engine, places)

    def distance(image: Tensor, features: Features) -> Tensor:
        parts = []
        for layer, target in targets.items():
            apart = (losses.self_similarity(features[layer], size, weights) - target).abs()
            parts.append(apart.mean() if weights is None else weights @ apart @ weights)
        return hold.self_similarity * torch.stack(parts).mean() + hold.features * held.function(image, features)

    return Term("content", settings.content_weight, distance, tuple(dict.fromkeys((*targets, *held.layers))))


def coarser_term(before: Tensor, height: int, width: int) -> Term:
    """How far a picture (1, 3, height, width) is from that of the scale before, (1, 3 or 1, h, w), both smoothed and at
    half the size, so that what is finer is free: the mean square of the differences over the variance of the latter."""
    target = _halved(resize(before, height, width).expand(-1, 3, -1, -1))
    energy = target.var(correction=0).clamp_min(1e-4) * target.numel()

    def part(image: Tensor, features: Features, region: TileWindow) -> list[Tensor]:
        found = _halved(image)
        rows, columns = (
            slice((own.start or 0) // 2, (own.start or 0) // 2 + length)
            for own, length in zip(region.pixels, found.shape[2:], strict=True)
        )
        return [(found - target[..., rows, columns]).square().sum()]

    def of_sums(sums: Sequence[Tensor]) -> Tensor:
        return sums[0] / energy

    return Term("coarser", COARSER, lambda image, _: of_sums(part(image, {}, Whole())), sums=Sums(part, of_sums))


def _halved(image: Tensor) -> Tensor:
    """A picture (1, C, H, W) smoothed by 1 2 1 along both axes, of which nothing passes that has a frequency of one per
    2 px, at every second position. By sums of views: as a convolution it takes five times as long, and on a CPU a copy
    of the picture with sixteen channels."""
    for axis in (2, 3):
        count = (image.shape[axis] - 1) // 2
        one, two, three = (
            image[(slice(None),) * axis + (slice(begin, begin + 2 * count - 1, 2),)] for begin in range(3)
        )
        image = (one + three).add(two, alpha=2) / 4
    return image


def variation_term(weight: float, height: int, width: int) -> Term:
    """The total variation of a picture (1, 3, height, width)."""

    def part(image: Tensor, features: Features, region: TileWindow) -> list[Tensor]:
        rows, columns = (range(side)[own] for side, own in zip((height, width), region.pixels, strict=True))
        return [losses.partial_variation(image, len(rows), len(columns))]

    def of_sums(sums: Sequence[Tensor]) -> Tensor:
        return sums[0] / (3 * height * width)

    return Term("tv", weight, lambda image, _: losses.total_variation(image), sums=Sums(part, of_sums))


def _add_up(
    image: Tensor, layers: Sequence[str], engine: Engine, places: Positions
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean (C,) and Gram matrix (C, C) of each layer of a picture (1, 3, H, W)."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for region, features in engine.parts(image, layers):
        for layer in layers:
            mean, second = _moments(features, layer, region, places)
            before = found.get(layer)
            found[layer] = (mean, second) if before is None else (before[0] + mean, before[1] + second)
    return found


def _mean(moments: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The mean of several means and Gram matrices."""
    first, second = (torch.stack(each).mean(0) if len(each) > 1 else each[0] for each in zip(*moments, strict=True))
    return first, second


def _moments(features: Features, layer: str, region: TileWindow, places: Positions) -> tuple[Tensor, Tensor]:
    """What a region adds to the mean and the Gram matrix of a layer."""
    size = region.map_size(layer, features)
    return losses.partial_moments(features[layer], places.of(region.at(layer), *size), 1 / math.prod(size))


def _factor(features: Features, layer: str, region: TileWindow, places: Positions) -> Tensor | None:
    """How much each position of a region counts in a layer, 1 on average over the whole."""
    size = region.map_size(layer, features)
    weight = places.of(region.at(layer), *size)
    return None if weight is None else weight * math.prod(size)


def _paper_scale(image: Tensor, engine: Engine, places: Positions) -> Tensor:
    """What brings an encoder's activations to the size they have in the paper's network, which counts pixels from 0 to
    255, by the mean of relu1_1 of a picture (1, 3, H, W).

    Squares stand against fourth powers in eq. 7, so that its ratio means something at that size only. Encoders that
    approximate the layer (mini) have negative values there, and on bright pictures a negative mean: they are rectified.
    """
    total = torch.zeros((), device=engine.device, dtype=torch.float32)
    for region, features in engine.parts(image, ["relu1_1"]):
        rectified = {**features, "relu1_1": features["relu1_1"].clamp_min(0)}
        total = total + _moments(rectified, "relu1_1", region, places)[0].mean()
    return PAPER_ACTIVATION / total.clamp_min(LEAST_ACTIVATION)


class Positions:
    """How much each position of a feature map counts: what is transparent does not.

    ``cut`` lets terms see no more of a map than the rectangle around what counts.
    """

    def __init__(self, alpha: Tensor | None, device: torch.device, *, cut: bool = False) -> None:
        self._alpha, self._device, self._cut = alpha, device, cut
        self._known: dict[tuple[int, int], Tensor] = {}
        self._windows: dict[tuple[int, int], tuple[slice, slice]] = {}

    def at(self, features: Tensor) -> Tensor | None:
        """Those of a whole map (1, C, H, W), (H*W,) with sum 1."""
        return self.of_map(*features.shape[2:])

    def of_map(self, height: int, width: int) -> Tensor | None:
        """Those of a whole map (height, width)."""
        return self.of(WHOLE, height, width)

    def seen(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """A whole map (1, C, H, W), or the part of it that counts, with its weights (h*w,)."""
        if self._alpha is None or not self._cut:
            return features, self.at(features)
        height, width = features.shape[2:]
        weights = self.at(features)
        assert weights is not None
        if (height, width) not in self._windows:
            self._windows[height, width] = _around(weights.view(height, width))
        window = self._windows[height, width]
        if window == (slice(0, height), slice(0, width)):
            return features, weights
        return crop(features, *window), weights.view(height, width)[window].flatten()

    def of(self, own: tuple[slice, slice], height: int, width: int) -> Tensor | None:
        """Of a map (height, width), those of some rows and columns."""
        if self._alpha is None:
            return None
        if (height, width) not in self._known:
            # on the CPU, where alpha is: MPS pools to divisors of the size only
            self._known[height, width] = losses.position_weights(self._alpha, height, width).to(self._device)
        return self._known[height, width].view(height, width)[own].flatten()


def _around(weights: Tensor) -> tuple[slice, slice]:
    """The rows and columns of (H, W) outside of which hardly anything counts."""
    counts = (weights > 1e-5 * weights.max()).cpu()
    found = []
    for axis in (1, 0):
        inside = counts.any(axis).nonzero().flatten().tolist()
        found.append(slice(inside[0], inside[-1] + 1))
    return found[0], found[1]
