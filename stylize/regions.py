"""Regions: parts of a picture with styles of their own, and what is not painted at all.

Each region is compared with its style through statistics of its own positions alone: Gatys, Ecker, Bethge, Hertzmann,
Shechtman (2017), "Controlling Perceptual Factors in Neural Style Transfer", sect. 4, with Gaussians or Gram matrices.
A region's term counts by the region's area, so that the balance of content and style is everywhere the same.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylize.errors import SettingsError
from stylize.images import Origin, Picture, Source, as_pictures, resize
from stylize.masks import Mask, MaskSource, as_mask, laid_over, mask_file, softened
from stylize.objective import Sums, Term
from stylize.terms import Positions

if TYPE_CHECKING:
    from stylize.settings import Settings
    from stylize.tiles import Features, TileWindow

LEAST = 1e-4  # of what is painted: smaller regions have no statistics to speak of


class Region:
    """A part of a picture that is painted in a style of its own, or in a blend.

        Stylizer("starry.jpg")("photo.jpg", regions=[Region("sky.png", "wave.jpg")])

    Args:
        mask: where it is, as :func:`~stylize.as_mask` takes it.
        style: a picture as :func:`~stylize.as_picture` takes it, or several; what is transparent does not count.
        style_weights: of several styles, one each; default: equal.
        content_weight: of the region; default: that of the settings.

    Raises:
        SettingsError, ImageError: they are none.
    """

    def __init__(
        self,
        mask: MaskSource,
        style: Source | Iterable[Source],
        *,
        style_weights: Sequence[float] = (),
        content_weight: float | None = None,
    ) -> None:
        self.mask, self.styles = as_mask(mask), as_pictures(style)
        self.style_weights, self.content_weight = tuple(style_weights), content_weight
        if not self.styles:
            raise SettingsError("a region has no style picture")
        if self.style_weights and (len(self.style_weights) != len(self.styles) or not any(self.style_weights)):
            raise SettingsError(f"a region has {len(self.styles)} styles and the style_weights {self.style_weights}")
        if content_weight is not None and not 0 <= content_weight <= 1e6:
            raise SettingsError(f"content_weight of a region is {content_weight}; it must be 0 to 1e+06")

    def described(self) -> dict[str, Any]:
        """What a record says of it."""
        found: dict[str, Any] = {
            "mask": self.mask.described(),
            "styles": [_plain(style.origin) for style in self.styles],
        }
        found |= {"style_weights": list(self.style_weights)} if self.style_weights else {}
        return found | ({} if self.content_weight is None else {"content_weight": self.content_weight})


RegionSource = Region | tuple[MaskSource, Source | Iterable[Source]]  # a pair is a mask and a style


class Layout:
    """What of a picture is painted, and in which style, as weights of its pixels.

    Args:
        picture: the content.
        size: (height, width) of the result.
        mask: what is painted; None: all.
        regions: later ones lie over earlier ones.
        content_weight: of what is in no region.

    Attributes:
        content_weights: how much each pixel counts in the content term, (1, 1, height, width); None: all alike.
        content_share: how much that term counts, relative to its weight.

    Raises:
        SettingsError: the proportions of a mask are others than the picture's, or a content weight is given where there
            is no content term.
    """

    def __init__(
        self,
        picture: Picture,
        size: tuple[int, int],
        mask: Mask | None,
        regions: Sequence[Region],
        content_weight: float,
    ) -> None:
        self.mask, self.regions = mask, tuple(regions)
        for each in (*([] if mask is None else [mask]), *(region.mask for region in regions)):
            each.check_proportions(*picture.size)
        self._picture = picture
        self._mask = None if mask is None else mask.at(*size)
        self._weights = self._divided(size)  # the first are those of what is in no region
        total = max(float(sum(weights.sum() for weights in self._weights)), 1e-12)
        self._shares = [float(weights.sum()) / total for weights in self._weights]
        given = [content_weight if each.content_weight is None else each.content_weight for each in self.regions]
        if not content_weight and any(given):
            raise SettingsError("a region has a content weight, but that of the whole is 0; give it one, too")
        factors = [1.0, *(weight / (content_weight or 1.0) for weight in given)]
        self.content_share = sum(share * factor for share, factor in zip(self._shares, factors, strict=True))
        weights = self._painted(size)
        if len({*factors}) > 1:
            pairs = zip(self._weights, factors, strict=True)
            weights = torch.stack([weights * factor for weights, factor in pairs]).sum(0)
        self.content_weights = None if _is_even(weights) else weights

    @classmethod
    def of(
        cls,
        picture: Picture,
        size: tuple[int, int],
        mask: MaskSource | None,
        regions: Sequence[RegionSource],
        content_weight: float,
    ) -> Layout | None:
        """The layout for what may be given, None where that is nothing."""
        if mask is None and not regions:
            return None
        made = [each if isinstance(each, Region) else _paired(each) for each in regions]
        return cls(picture, size, None if mask is None else as_mask(mask), made, content_weight)

    def _painted(self, size: tuple[int, int]) -> Tensor:
        """How much of each pixel is painted."""
        alpha = self._picture.alpha
        whole = torch.ones(1, 1, *size, dtype=torch.float32) if alpha is None else resize(alpha, *size)
        return whole if self._mask is None else whole * self._mask

    def _divided(self, size: tuple[int, int]) -> list[Tensor]:
        """The weights of the rest and of each region, which add up to those of all that is painted."""
        left = self._painted(size)
        found: list[Tensor] = []
        for region in reversed(self.regions):
            own = softened(resize(region.mask.weights, *size))
            found.insert(0, left * own)
            left = left * (1 - own)
        return [left, *found]

    @property
    def weights(self) -> Sequence[Tensor | None]:
        """Those of what is in no region and of each region, (1, 1, height, width), None where all are alike; together,
        what is painted."""
        return [None if _is_even(weights) else weights for weights in self._weights]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is painted."""
        return self._mask is not None and not bool((self._mask > 0).any())

    def parts(self, content: Picture) -> Iterator[Picture | None]:
        """The content, of any size, once for the rest and for each region, with their weights as alpha; None for what
        is too small to count."""
        for weights, share in zip(self._weights, self._shares, strict=True):
            alpha = None if share < LEAST else resize(weights, *content.size)
            yield None if alpha is None else dataclasses.replace(content, alpha=alpha)

    def terms(
        self, content: Term, style: Sequence[Callable[[Positions], Sequence[Term]] | None], device: torch.device
    ) -> list[Term]:
        """The content term, and the style terms of all parts, those of one name as one, as they count in the whole."""
        found: dict[str, list[tuple[float, Term]]] = {}
        for weights, share, make in zip(self._weights, self._shares, style, strict=True):
            if make is not None:
                for term in make(Positions(None if _is_even(weights) else weights, device, cut=True)):
                    found.setdefault(term.name, []).append((share, term))
        content = dataclasses.replace(content, weight=content.weight * self.content_share)
        return [content, *(combined(parts) for parts in found.values())]

    def begun(self, start: Tensor, content: Tensor) -> Tensor:
        """A start for what is painted, within the content, both (1, C, H, W) of any size."""
        if self._mask is None:
            return start
        size = start.shape[2:]
        inside = resize(self._mask, *size).to(start.device) > 0
        return torch.where(inside, start, resize(content.to(start.device), *size))

    def over(self, painted: Tensor) -> Tensor:
        """What is painted over the content, (1, 3, H, W) of any size, laid over it: where the mask is black, these are
        the content's own pixels."""
        if self._mask is None:
            return painted
        height, width = painted.shape[2:]
        same = (height, width) == self._picture.size
        below = self._picture.rgb if same else resize(self._picture.opaque().rgb, height, width)
        return laid_over(below, painted, resize(self._mask, height, width))


@dataclass(frozen=True)
class Areas:
    """What command-line options say of the parts of a picture: the mask, the regions, and the files of them all."""

    mask: Mask | None = None
    regions: tuple[Region, ...] = ()
    files: tuple[Path, ...] = ()

    def check_proportions(self, height: int, width: int) -> None:
        """Refuse a picture of that size that is shaped unlike a mask.

        Raises:
            SettingsError: names the mask.
        """
        for each in (*([] if self.mask is None else [self.mask]), *(region.mask for region in self.regions)):
            each.check_proportions(height, width)


def chosen_areas(options: Mapping[str, Any], settings: Settings, read: Callable[[str], Mask] = as_mask) -> Areas:
    """What ``--mask``, ``--keep`` and ``--region`` say, whose masks ``read`` makes of their texts.

    Raises:
        SettingsError: they do not fit together.
        ImageError: a file that cannot be read.
    """
    mask, keep = options.get("mask"), options.get("keep")
    if mask is not None and keep is not None:
        raise SettingsError("--mask and --keep cannot be combined: one is the opposite of the other")
    chosen = read(mask) if mask is not None else read(keep).inverse() if keep is not None else None
    files = [mask_file(each)[0] for each in (mask, keep) if each is not None]
    needed, regions = math.ceil(settings.size * settings.style_scale), []
    for region in options.get("region") or ():
        if len(region) == 2 and region[1].startswith("-") and not os.path.lexists(region[1]):
            raise SettingsError(f"--region takes a mask and a style; after {region[0]} comes the option {region[1]}")
        styles, style_weights, content_weight = region[1:] if len(region) == 4 else _styles_of(region[1])
        files += [mask_file(region[0])[0], *map(Path, styles)]
        made = as_pictures(styles, needed)
        regions.append(Region(read(region[0]), made, style_weights=style_weights, content_weight=content_weight))
    return Areas(chosen, tuple(regions), tuple(files))


def _styles_of(text: str) -> tuple[tuple[str, ...], tuple[float, ...], float | None]:
    """The pictures that ``A,B@0.2`` names, their weights and the content weight."""
    names, sign, number = ("", "", "") if os.path.lexists(text) else text.rpartition("@")
    weight: float | None = None
    if sign and re.fullmatch(r"\d*\.?\d+(e[+-]?\d+)?", number, re.ASCII | re.IGNORECASE):
        weight = float(number)
    else:
        names = text
    return (names,) if os.path.lexists(names) else tuple(names.split(",")), (), weight


def combined(parts: Sequence[tuple[float, Term]]) -> Term:
    """Terms of one name and weight as one, each counted by its share."""
    layers = tuple(dict.fromkeys(layer for _, term in parts for layer in term.layers))
    sums = [term.sums for _, term in parts if term.sums is not None]

    def function(image: Tensor, features: Features) -> Tensor:
        return torch.stack([share * term.function(image, features) for share, term in parts]).sum()

    def part(image: Tensor, features: Features, region: TileWindow) -> list[Tensor]:
        return [tensor for each in sums for tensor in each.part(image, features, region)]

    def total(added: Sequence[Tensor]) -> Tensor:
        count = len(added) // len(sums)  # all have the same layers
        values = [
            share * each.total(added[index * count : (index + 1) * count])
            for index, ((share, _), each) in enumerate(zip(parts, sums, strict=True))
        ]
        return torch.stack(values).sum()

    updates = [term.update for _, term in parts if term.update is not None]

    def update(image: Tensor) -> None:
        for each in updates:
            each(image)

    first, added = parts[0][1], Sums(part, total) if len(sums) == len(parts) else None
    return Term(first.name, first.weight, function, layers, added, update if updates else None)


def _is_even(weights: Tensor) -> bool:
    return bool((weights == weights.amax()).all())


def _paired(source: object) -> Region:
    if isinstance(source, tuple) and len(source) == 2:
        return Region(*source)
    raise SettingsError(f"a region is a stylize.Region, or a pair of mask and style, not {type(source).__name__}")


def _plain(origin: Origin | None) -> Mapping[str, str] | None:
    return None if origin is None else origin.described()
