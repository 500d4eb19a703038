"""The style compared piece by piece: each small cell of the picture with the cell of the painting that is most like it,
and each of the painting with that of the picture (Kolkin, Salavon, Shakhnarovich 2019, sect. 2.2; Kolkin et al. 2022).

Statistics of a whole layer know of no neighbours. A cell of features holds a piece of a painting, a petal or a stroke,
that stays one piece. Which cells belong together is decided now and then (:attr:`~stylize.objective.Term.update`);
in between, the distance is a smooth function of the features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stylize.gradients import ClosedFormGradient, with_gradients
from stylize.tiles import Features

Weighing = Callable[[int, int], Tensor | None]  # how much each of (rows, columns) counts; None: all alike
MOST = 4096  # cells of the painting that are looked through
AT_ONCE = 1024  # cells of the picture
REACH = 2  # cells to each side of a cell that are its neighbours
COPIED = 4  # neighbours with the same offset to their matches as the cell itself: a thing of the painting is copied
OUTSIDE = 1e6  # a place far from all cells
NEVER = -2.0  # less than any cosine
LEAST = 1e-6  # of a cell's length


@dataclass(frozen=True)
class CellLayers:
    """What makes vectors of cells from features: the mean (C,) of each layer, what it is multiplied by, and how many of
    its positions a cell has on each side."""

    means: Mapping[str, Tensor]
    factors: Mapping[str, Tensor]
    sides: Mapping[str, int]

    @classmethod
    def of(cls, styles: Sequence[tuple[float, Features]], sides: Mapping[str, int]) -> CellLayers:
        """From the features of style pictures, each with its share of 1. Layers count alike."""
        means, factors = {}, {}
        for layer in sides:
            mean = sum(share * features[layer].float().mean((0, 2, 3)) for share, features in styles)
            assert isinstance(mean, Tensor)
            spread = sum(
                share * (features[layer].float() - mean.view(1, -1, 1, 1)).square().sum(1).mean()
                for share, features in styles
            )
            assert isinstance(spread, Tensor)
            means[layer], factors[layer] = mean, (len(sides) * spread.clamp_min(1e-12)).rsqrt()
        return cls(means, factors, sides)

    def cells(self, features: Features) -> tuple[int, int]:
        """How many whole cells there are, by rows and columns."""
        height, width = (
            min(features[layer].shape[axis] // side for layer, side in self.sides.items()) for axis in (2, 3)
        )
        return height, width

    def centred(self, features: Features) -> dict[str, Tensor]:
        """Each layer (1, C, H, W) less its mean and scaled, of the positions that are in whole cells."""
        height, width = self.cells(features)
        found = {}
        for layer, side in self.sides.items():
            own = features[layer][..., : height * side, : width * side].float()
            found[layer] = (own - self.means[layer].view(1, -1, 1, 1)) * self.factors[layer]
        return found

    def vectors(self, features: Features) -> Tensor:
        """Unit vectors of the cells, (cells, D), row by row."""
        centred = self.centred(features)
        parts = [F.pixel_unshuffle(own, self.sides[layer])[0].flatten(1).T for layer, own in centred.items()]
        return F.normalize(torch.cat(parts, 1), dim=1, eps=LEAST)

    def maps(self, vectors: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """The reverse of :meth:`vectors` for vectors (cells, D) of ``size`` cells by rows and columns: a map (1, C, H,
        W) for each layer."""
        found, first = {}, 0
        for layer, side in self.sides.items():
            count = len(self.means[layer]) * side * side
            own = vectors[:, first : first + count].T.reshape(1, count, *size)
            found[layer] = F.pixel_shuffle(own, side).contiguous(memory_format=torch.channels_last)
            first += count
        return found

    def alike(self, features: Features, wanted: Features) -> Tensor:
        """The sum over cells of the product of a cell's unit vector with that wanted of it, as maps of
        :meth:`maps` have it; a scalar, differentiable with respect to the features, which may have some more
        positions to the right and below."""
        centred, size = self.centred({layer: features[layer].detach() for layer in self.sides}), self.cells(features)
        squares, products = torch.zeros(2, 1, 1, *size, device=next(iter(centred.values())).device, dtype=torch.float32)
        for layer, own in centred.items():
            squares += _per_cell(own.square(), self.sides[layer])
            products += _per_cell(own * wanted[layer], self.sides[layer])
        length = squares.sqrt().clamp_min(LEAST)
        value = (products / length).sum()
        gradients = []
        for layer, side in self.sides.items():
            inverse, along = (_per_position(each, side) for each in (1 / length, products / length**3))
            own = (wanted[layer] * inverse - centred[layer] * along) * self.factors[layer]
            shape = features[layer].shape
            padding = (0, shape[3] - own.shape[3], 0, shape[2] - own.shape[2])
            own = F.pad(own, padding) if any(padding) else own
            gradients.append(ClosedFormGradient(own.to(features[layer].dtype), torch.ones_like(value)))
        return with_gradients(value, [features[layer] for layer in self.sides], gradients)


def _per_cell(map_: Tensor, side: int) -> Tensor:
    """The sums over channels and over the positions of each cell, of (1, C, H, W)."""
    return F.avg_pool2d(map_.sum(1, keepdim=True), side, divisor_override=1)


def _per_position(cells: Tensor, side: int) -> Tensor:
    return cells.repeat_interleave(side, 2).repeat_interleave(side, 3) if side > 1 else cells


class View(NamedTuple):
    """A style picture as it is cut into cells: the features from a ``shift``, in cells down and to the right, on, and
    the weights of its cells. Several with other shifts let a stroke lie in a cell as one of the picture does."""

    features: Features
    weighing: Weighing
    shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class StyleCells:
    """The cells of a style or blend: unit vectors (m, D), how much each counts, (m,), with sum 1, and where it stands,
    (m, 3): its row, its column, in cells, and the number of its picture."""

    layers: CellLayers
    vectors: Tensor
    weights: Tensor
    places: Tensor

    @classmethod
    def of(cls, styles: Sequence[tuple[float, Sequence[View]]], sides: Mapping[str, int]) -> StyleCells:
        """From views of style pictures, each picture with its share; ``sides`` are those of :class:`CellLayers`."""
        total = sum(share for share, _ in styles)
        styles = [(share / total, views) for share, views in styles]
        made = CellLayers.of([(share, views[0].features) for share, views in styles], sides)
        most = MOST // sum(len(views) for _, views in styles)
        vectors, weights, places = [], [], []
        for number, (share, views) in enumerate(styles):
            for view in views:
                found, size = made.vectors(view.features), made.cells(view.features)
                counts = view.weighing(*size)
                kept = _some(len(found), most).to(found.device)
                counted = found.new_ones(len(kept)) if counts is None else _counted(counts)[kept]
                vectors.append(found[kept].to(next(iter(view.features.values())).dtype))
                weights.append(share / len(views) * counted / counted.sum().clamp_min(1e-12))
                stands = _grid(*size, found.device) + torch.tensor(view.shift, device=found.device, dtype=torch.float32)
                places.append(F.pad(stands, (0, 1), value=float(number))[kept])
        return cls(made, torch.cat(vectors), torch.cat(weights), torch.cat(places))

    def matched(self, vectors: Tensor, size: tuple[int, int], weights: Tensor, *, copying: bool = False) -> Tensor:
        """What the unit vectors (cells, D) of a picture are to be like, (cells, D).

        Half of it is the vector of the style's cell most like the cell, half those of all cells of the style to which
        it is the most like; lengths are weights that sum to 1, or less where they disagree. Unless ``copying``, a cell
        whose neighbours are matched with the neighbours of its match, which would copy a whole thing out of the
        painting, is matched with what stands elsewhere.

        Args:
            size: of the picture, in cells by rows and columns.
            weights: how much each of its cells counts, (cells,) with sum 1; those of weight 0 are not looked at.
        """
        vectors, weights = vectors.to(self.vectors.dtype), _counted(weights)
        own = F.pad(_grid(*size, vectors.device), (0, 1))

        def like(rows: slice) -> Tensor:
            return (vectors[rows] @ self.vectors.T).float().masked_fill_(self.weights == 0, NEVER)

        parts = [slice(first, first + AT_ONCE) for first in range(0, len(vectors), AT_ONCE)]
        first = torch.cat([like(rows).argmax(1) for rows in parts])
        places = self.places[first]
        copied = torch.zeros_like(first, dtype=torch.bool) if copying else _copied(places - own, size)
        of_cells, best = torch.zeros_like(first), vectors.new_full((len(self.vectors),), NEVER - 1, dtype=torch.float32)
        of_style = torch.zeros(len(self.vectors), dtype=torch.long, device=vectors.device)
        for rows in parts:
            found = like(rows)
            near = copied[rows][:, None]
            for place, matched in zip(self.places.T, places[rows].T, strict=True):  # one by one takes less memory
                near = near & ((place - matched[:, None]).abs() <= REACH)
            found.masked_fill_(near, NEVER)
            of_cells[rows] = found.argmax(1)
            found.masked_fill_((weights[rows] == 0)[:, None], NEVER)
            most, index = found.max(0)
            of_style = torch.where(most > best, index + rows.start, of_style)
            best = torch.maximum(most, best)
        style = self.vectors.float()
        made = style[of_cells] * (weights[:, None] / 2)
        return made.index_add_(0, of_style, style * (self.weights[:, None] / 2))


def _counted(weights: Tensor) -> Tensor:
    """Weights, 0 where hardly anything counts."""
    return weights.where(weights > weights.max() / 1000, 0)


def _copied(offsets: Tensor, size: tuple[int, int]) -> Tensor:
    """Which cells (n,) have the same offset to their match, (n, 3), as several of their neighbours, up to one cell."""
    field = F.pad(offsets.T.reshape(1, 3, *size), (REACH,) * 4, value=OUTSIDE)
    around = F.unfold(field, 2 * REACH + 1).view(3, -1, len(offsets))
    alike = ((around - offsets.T[:, None]).abs().amax(0) <= 1).sum(0) - 1
    return alike >= COPIED


def _grid(height: int, width: int, device: torch.device) -> Tensor:
    """Rows and columns of cells, (height * width, 2)."""
    sides = (torch.arange(side, device=device, dtype=torch.float32) for side in (height, width))
    return torch.stack(torch.meshgrid(*sides, indexing="ij"), 2).flatten(0, 1)


def _some(count: int, most: int) -> Tensor:
    """Numbers of at most so many of the cells, at random, the same each time."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values
