"""The objective: the weighted terms of the loss, and their values and gradient at a picture, seen as a whole or tile by
tile.

The terms depend on features through sums over positions. In tiles, a first pass without gradients adds these sums up;
the terms and their gradients with respect to the sums are computed from small matrices; a second pass brings these
gradients back to the pixels, each tile for the positions it owns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stylize import allocator
from stylize.errors import OptimizationError, SettingsError
from stylize.optimizer import FIRST_MOVE, LBFGS, NEAR_MOVE, Adam, Curvature, Evaluate, Optimizer
from stylize.tiles import SMALLEST, Features, Tile, Tileable, TileWindow, tileable, tiles

if TYPE_CHECKING:
    from stylize.features import Engine
    from stylize.memory import Plan

log = logging.getLogger(__name__)

TRIMMED = 8  # tiles after which memory is given back
UPDATED = 10  # steps after which terms that ask for it are updated


@dataclass(frozen=True)
class Term:
    """One weighted addend of the loss.

    ``function(image, features)`` gets the picture (1, 3, H, W) at the scale in work and the encoder's features
    of (at least) ``layers``, in the encoder's precision, which may be bfloat16 (sum ``.float()`` of them); it returns a
    differentiable scalar. It must depend on nothing but its arguments and on tensors that stay where they are: on CUDA
    its operations are recorded in one step and launched again in those that follow. ``sums`` is the same for pictures
    too large to be seen whole; terms without layers can do without. ``update`` is called with the picture (1, C, H, W)
    before the first step of a scale and after every :data:`UPDATED` steps, and may change these tensors in place.
    """

    name: str
    weight: float
    function: Callable[[Tensor, Features], Tensor]
    layers: tuple[str, ...] = ()
    sums: Sums | None = None
    update: Callable[[Tensor], None] | None = None

    def weighed(self, value: Tensor) -> Tensor:
        """A value of the term times its weight.

        Raises:
            SettingsError: it is no scalar.
        """
        if value.shape:
            raise SettingsError(f"term {self.name} gives {tuple(value.shape)}, not a scalar")
        return self.weight * value.float()  # one made of an encoder's bfloat16 may be that


@dataclass(frozen=True)
class Sums:
    """A term as a function of sums over positions, which can be added up tile by tile.

    ``part(image, features, tile)`` gets a tile's own pixels, one more to the right and below where there are (1, 3,
    h, w), its own features, and where they lie in the whole; it returns differentiable tensors. ``total`` makes the
    term's value of their sums over all tiles.
    """

    part: Callable[[Tensor, Features, TileWindow], Sequence[Tensor]]
    total: Callable[[Sequence[Tensor]], Tensor]


def objective(engine: Engine, terms: Sequence[Term], side: int = 0) -> Evaluate:
    """What the optimizer evaluates: the values of the terms, the total first, and the gradient of a picture, seen
    as a whole or in tiles of ``side`` px; in smaller ones from the first that did not fit the memory."""
    network = engine.encoder_for({term.name: term.layers for term in terms})

    def whole(image: Tensor) -> tuple[Tensor, Tensor]:
        image = image.detach().requires_grad_()
        rgb = image.expand(-1, 3, -1, -1)
        features = network(rgb)
        values = [term.weighed(term.function(rgb, features)) for term in terms]
        total = torch.stack(values).sum()
        (gradient,) = torch.autograd.grad(total, image)
        return torch.stack([total, *values]).detach(), gradient

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal side
        longest, encoder = max(image.shape[2:]), tileable(network, *image.shape[2:])
        if encoder is not None and longest > engine.largest_tile:  # that was too much before
            side = min(side or longest, engine.largest_tile)
        while True:
            try:
                if not side:
                    return whole(image)
                assert encoder is not None
                return evaluate_in_tiles(image, terms, encoder, side)
            except (RuntimeError, MemoryError) as error:
                smaller = (side or longest) // 2
                recording = image.is_cuda and torch.cuda.is_current_stream_capturing()
                if not _too_little(error) or encoder is None or smaller < SMALLEST or recording:
                    raise  # what cannot be recorded for want of memory may well be computed
                engine.largest_tile = side = smaller
            log.warning("too little memory: going on in tiles of %d px", side)
            if engine.device.type == "cuda":
                torch.cuda.empty_cache()

    return evaluate


def optimizer_for(
    engine: Engine,
    terms: Sequence[Term],
    image: Tensor,
    plan: Plan | None = None,
    *,
    warm_start: bool = False,
    curvature: Curvature | None = None,
) -> Optimizer:
    """The optimizer of the settings over these terms, from an image (1, C, H, W), which stays in [0, 1]."""
    evaluate, image = objective(engine, terms, plan.side if plan else 0), image.clamp(0, 1)
    if engine.settings.optimizer == "adam":
        return Adam(evaluate, image, engine.settings.learning_rate)
    return LBFGS(
        evaluate,
        image,
        plan.history if plan else engine.settings.history,
        bounds=(0.0, 1.0),
        first_move=NEAR_MOVE if warm_start else FIRST_MOVE,
        compact=plan is not None and plan.compact,
        curvature=curvature,
    )


def evaluate_in_tiles(image: Tensor, terms: Sequence[Term], encoder: Tileable, side: int) -> tuple[Tensor, Tensor]:
    """The values of the terms, with their total first (1 + terms,), and the gradient (1, C, H, W), tile by tile.

    Args:
        image: (1, C, H, W), C = 1 seen as grey.
        terms: those without ``sums`` must do without layers, too: they are given the whole picture.
        encoder: of at least the terms' layers.
        side: about how many px a tile has on each side.

    Raises:
        SettingsError: a term with layers knows no sums.
    """
    for term in terms:
        if term.sums is None and term.layers:
            layers = ", ".join(term.layers)
            raise SettingsError(
                f"the term {term.name} sees {layers} of the whole picture, which does not fit the memory; "
                "use a smaller --size, or more --memory"
            )
    parted = [(index, term.sums) for index, term in enumerate(terms) if term.sums is not None]
    image = image.detach()
    plan = tiles(image.shape[2], image.shape[3], side, encoder)
    added = _added(image, parted, encoder, plan)
    values = image.new_zeros(len(terms))
    pulls: list[list[Tensor]] = []
    for (index, sums), parts in zip(parted, added, strict=True):
        leaves = [part.requires_grad_() for part in parts]
        value = terms[index].weighed(sums.total(leaves))
        values[index] = value.detach()
        constant = [torch.zeros_like(leaf) for leaf in leaves]
        pulls.append(
            list(torch.autograd.grad(value, leaves, materialize_grads=True)) if value.requires_grad else constant
        )
    gradient = torch.zeros_like(image)
    for number, tile in enumerate(plan if parted else ()):
        seen = image[(..., *tile.seen)].clone().requires_grad_()
        rgb = seen.expand(-1, 3, -1, -1)
        found, pixels = tile.own(encoder(rgb)), tile.cut(rgb)
        outer = [
            (part * pull).sum()
            for (_, sums), pulled in zip(parted, pulls, strict=True)
            for part, pull in zip(sums.part(pixels, found, tile), pulled, strict=True)
        ]
        del found, pixels
        gradient[(..., *tile.seen)] += torch.autograd.grad(torch.stack(outer).sum(), seen)[0]
        del outer, seen, rgb
        _trim(image, number)
    _trim(image, 0)
    for index, term in enumerate(terms):
        if term.sums is None:
            whole = image.clone().requires_grad_()
            value = term.weighed(term.function(whole.expand(-1, 3, -1, -1), {}))
            if value.requires_grad:
                gradient += torch.autograd.grad(value, whole)[0]
            values[index] = value.detach()
    return torch.cat([values.sum()[None], values]), gradient


def _added(
    image: Tensor, parted: Sequence[tuple[int, Sums]], encoder: Tileable, plan: Sequence[Tile]
) -> list[list[Tensor]]:
    """The sums of each term over all tiles."""
    added: list[list[Tensor]] = [[] for _ in parted]
    with torch.no_grad():
        for turn, tile in enumerate(plan if parted else ()):
            rgb = image[(..., *tile.seen)].expand(-1, 3, -1, -1)
            found, pixels = tile.own(encoder(rgb)), tile.cut(rgb)
            for number, (_, sums) in enumerate(parted):
                parts = sums.part(pixels, found, tile)
                before = added[number] or [torch.zeros_like(part) for part in parts]
                added[number] = [one + other for one, other in zip(before, parts, strict=True)]
            del rgb, found, pixels
            _trim(image, turn)
    return added


def _trim(image: Tensor, number: int) -> None:
    """Give back what tiles have taken, where the picture is on the CPU: they are there for want of memory. Not after
    each, as a third of the time would then go into clearing pages."""
    if image.device.type == "cpu" and number % TRIMMED == 0:
        allocator.trim()


@contextmanager
def enough_memory(height: int, width: int) -> Iterator[None]:
    """Turn what torch raises for too little memory into one line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if _too_little(error):
            message = f"not enough memory for {width}x{height}; use a smaller --size"
            raise OptimizationError(message) from error
        raise


def _too_little(error: Exception) -> bool:
    """Whether it was raised for too little memory, for which torch does not always have a class of its own."""
    known = ("DefaultCPUAllocator", "MPS backend out of memory", "CUDA error: out of memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in known)
