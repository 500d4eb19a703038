"""L-BFGS and Adam over one image at one scale: one gradient a step, no host synchronisation inside a step.

Both keep the last good picture and never let go of it: an evaluation that is NaN, infinite, or (L-BFGS) worse than
the last good one is a failed trial, answered by a shorter step from there. All decisions are made on the device with
``torch.where``; what the host may know of them is the report, a small tensor it can read when it likes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

# values: (1 + terms,) with the total first; gradient: like the image, and from then on the optimizer's to write over
Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]

FIRST_MOVE = 0.02  # root mean square change of a pixel in the first step, before any curvature is known
NEAR_MOVE = 0.005  # the same from a start that is nearly there: four times as much makes it worse, and a step is lost
LONGEST_MOVE = 0.5  # the same for any step: beyond it the curvature found so far says nothing
WORSE = 1e-3  # relative increase of the loss that still counts as a good step
MIN_COSINE = 1e-6  # curvature check: s'y above this fraction of |s||y|
RESET_AFTER = 3  # failed trials before the curvature history is dropped
STRETCH = 0.3  # how fast the step length follows the slope that steps leave over
SMOOTH = 0.4  # weight of the newest in the mean of those slopes
SHORTEST, FARTHEST = 0.5, 2.5  # bounds of the step length
PART = 2**20  # numbers processed at once, so that large pictures need no further copies
LARGE_PART = 2**24  # the same on accelerators, where each operation costs a launch
MOVING = 4  # pictures there are at once besides what is kept: where we stand, the trial, and their gradients


class Curvature:
    """Pairs of moves and changes of the gradient, which L-BFGS begins with, and leaves at its end.

    ``moves`` and ``changes`` (N, C, H, W), the oldest first, on any device; None where nothing is known yet.
    """

    def __init__(self, moves: Tensor | None = None, changes: Tensor | None = None) -> None:
        self.moves, self.changes = moves, changes


class Optimizer:
    """State shared by both: ``image`` is the last good picture, ``values`` its losses, ``failures`` in a row.

    ``report`` holds (failures in a row, whether the last evaluation was finite, *values) as one tensor. ``image`` is
    replaced, never written to, unless steps are recorded (:mod:`stylize.graphs`): copy it to keep it. Besides what an
    optimizer keeps there are at most :data:`MOVING` pictures at once.
    """

    def __init__(self, evaluate: Evaluate, image: Tensor) -> None:
        self.evaluate = evaluate
        self.image = image.detach().clone(memory_format=torch.contiguous_format)
        self.values = torch.empty(0, dtype=torch.float32)
        self.failures = torch.zeros((), dtype=torch.long, device=image.device)
        self.finite = torch.ones((), dtype=torch.bool, device=image.device)

    @property
    def report(self) -> Tensor:
        return torch.cat([self.failures.float().view(1), self.finite.float().view(1), self.values])

    def step(self) -> None:
        """Evaluate once and move."""
        raise TypeError("use LBFGS or Adam")

    def go_on(self, evaluate: Evaluate) -> None:
        """Take the next steps for another loss of the same picture, from the last good one."""
        self.evaluate, self.values = evaluate, torch.empty(0, dtype=torch.float32)
        self.failures = torch.zeros_like(self.failures)

    def moved(self) -> Tensor:
        """The picture after the move that the last step has found, which is not evaluated yet."""
        return self.image

    def curvature(self) -> Curvature:
        """What is known of the curvature."""
        return Curvature()

    def _judge(self, values: Tensor, gradient: Tensor) -> None:
        # a sum is NaN or infinite as soon as one of its numbers is, and 0 times that is NaN
        self.finite = (values.sum() + gradient.sum()) * 0 == 0


class LBFGS(Optimizer):
    """Limited-memory BFGS (Nocedal 1980) with one evaluation a step, in the compact form of Byrd, Nocedal and Schnabel
    (1994, theorem 2.2): products with the whole history instead of a chain of 4m dot products.

    With S, Y the m pairs as rows (oldest first), R the upper triangle and D the diagonal of S Y', and gamma = s'y/y'y
    of the newest pair::

        H g = gamma g + S' a + gamma Y' b,   b = -R^-1 S g,   a = R^-T ((D + gamma Y Y') R^-1 S g - gamma Y g)

    There is no line search. Of the slope along a step, a share is left where it ends: on a quadratic with the curvature
    known none, here about a sixth with step length 1, so that the length is moved until it is none on average.

    Pairs without positive curvature are not stored, and no step is longer than :data:`LONGEST_MOVE`. A trial that made
    things worse is backtracked: a quarter of the step from the last good picture; after three the history is dropped
    and steepest descent begins anew. Steps are projected into the bounds, so that what is judged is a picture that
    can be saved.

    Args:
        evaluate: picture -> (values with the total first, gradient).
        image: where to start, (1, C, H, W); copied.
        history: pairs kept; their memory is 2 * history pictures.
        bounds: lowest and highest value of a pixel.
        first_move: root mean square change of a pixel in the first step.
        compact: keep the pairs in bfloat16, at half the memory.
        curvature: what is known already, of pictures of the same size.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        image: Tensor,
        history: int = 20,
        bounds: tuple[float, float] = (-math.inf, math.inf),
        first_move: float = FIRST_MOVE,
        compact: bool = False,
        curvature: Curvature | None = None,
    ) -> None:
        super().__init__(evaluate, image)
        self._bounds, self._first_move = bounds, first_move
        device, count = image.device, image.numel()
        small = _widest(device)
        self._kept = torch.bfloat16 if compact else image.dtype
        self._s = image.new_zeros(history, count, dtype=self._kept)
        self._y = image.new_zeros(history, count, dtype=self._kept)
        self._sy = torch.zeros(history, history, dtype=small, device=device)
        self._yy = torch.zeros(history, history, dtype=small, device=device)
        self._stored = torch.zeros((), dtype=torch.long, device=device)  # pairs ever stored
        self._oldest = torch.zeros((), dtype=torch.long, device=device)  # pairs before this one are forgotten
        self._slots = torch.arange(history, device=device)
        self._gamma = torch.ones((), dtype=small, device=device)
        self._left = torch.zeros((), device=device, dtype=torch.float32)  # of the slope, mean over the last steps
        self._length = torch.ones((), device=device, dtype=torch.float32)
        self._gradient = torch.empty(0, dtype=torch.float32)
        self._move = torch.zeros_like(self.image)
        self._knows = False  # of curvature, before the first step
        if curvature is not None and curvature.moves is not None and curvature.changes is not None:
            self._begin_with(curvature.moves, curvature.changes)

    def _begin_with(self, moves: Tensor, changes: Tensor) -> None:
        pairs = [pair for pair in zip(moves, changes, strict=True) if _is_curved(*pair)][-len(self._slots) :]
        for slot, (move, change) in enumerate(pairs):
            self._s[slot], self._y[slot] = move.flatten(), change.flatten()
        for s, y in _parts(self._s, self._y):
            s, y = _wide(s), _wide(y)
            self._sy += s @ y.T
            self._yy += y @ y.T
        self._stored += len(pairs)
        if pairs:
            self._knows, newest = True, len(pairs) - 1
            self._gamma = self._sy[newest, newest] / self._yy[newest, newest]

    def curvature(self) -> Curvature:
        count = int(torch.minimum(self._stored - self._oldest, self._stored.new_tensor(len(self._slots))))
        newest = (self._slots[:count] + (self._stored - count)) % len(self._slots)
        shape = (count, *self.image.shape[1:])
        return Curvature(self._s[newest].view(shape), self._y[newest].view(shape))

    def moved(self) -> Tensor:
        good = (self.failures == 0) & (self._stored > self._oldest)
        return torch.where(good, (self.image + self._move).clamp(*self._bounds), self.image)

    def go_on(self, evaluate: Evaluate) -> None:
        super().go_on(evaluate)
        self._move, self._gradient = torch.zeros_like(self.image), torch.empty(0, dtype=torch.float32)
        self._left, self._length = torch.zeros_like(self._left), torch.ones_like(self._length)
        self._knows = bool(self._stored > self._oldest)

    def step(self) -> None:
        # large pictures are most of the memory: what is no longer needed is let go of, or written over
        trial, self._move = self._move.add_(self.image).clamp_(*self._bounds), torch.empty(0, dtype=torch.float32)
        values, gradient = self.evaluate(trial)
        gradient = gradient.contiguous()
        self._judge(values, gradient)
        if not self.values.numel():  # the first evaluation, where we stand
            self.values, self._gradient = values, gradient
            self.failures = (~self.finite).long()
            del trial, gradient
            self._move = self._newton() if self._knows else self._gradient * self._downhill(1.0)
            return
        good = self.finite & (values[0] <= self.values[0] + WORSE * self.values[0].abs())
        self._remember(good, trial, gradient)
        self.values = torch.where(good, values, self.values)
        for last, newest in _parts(self._gradient, gradient):
            last.copy_(_pick(good, newest, last))
        del gradient, newest  # a view of it
        self.image = _pick(good, trial, self.image)
        self.failures = torch.where(good, 0, self.failures + 1)
        reset = (self.failures > 0) & (self.failures % RESET_AFTER == 0)
        self._oldest = torch.where(reset, self._stored, self._oldest)
        known, downhill = self._stored > self._oldest, self._downhill(0.1**self.failures)
        self._move = self._newton()
        onward = good | reset
        if trial.device.type != "cpu" or not (onward & known):
            for move, slope, here, there in _parts(self._move, self._gradient, self.image, trial):
                begun = torch.where(known, move, slope * downhill)
                move.copy_(torch.where(onward, begun, (there - here) * 0.25))

    def _downhill(self, factor: Tensor | float) -> Tensor:
        """What to multiply the gradient with for a first step."""
        return -self._first_move * factor / _rms(self._gradient).clamp_min(1e-30)

    def _remember(self, good: Tensor, trial: Tensor, gradient: Tensor) -> None:
        found = [(_dot(s, y), _dot(y, y), _dot(s, s), _dot(before, s)) for s, y, before in self._pair(trial, gradient)]
        curvature, length, square, slope = (_sum(products) for products in zip(*found, strict=True))
        left = (1 + curvature / slope).clamp(-1, 1).nan_to_num(0)
        self._left = self._left.lerp(left.to(self._left.dtype), SMOOTH)
        self._length = (self._length * (1 + STRETCH * self._left)).clamp(SHORTEST, FARTHEST)
        keep = good & (curvature > MIN_COSINE * (square * length).sqrt()) & (length > 0)
        slot = (self._stored % len(self._slots)).view(1)
        made, wide = [], _Wider()
        pairs = zip(self._pair(trial, gradient), _parts(self._s, self._y), strict=True)
        for (s, y, _), (known_s, known_y) in pairs:
            # when nothing is kept the slot is written with what it holds
            s = torch.where(keep, s, known_s.index_select(0, slot)[0])
            y = torch.where(keep, y, known_y.index_select(0, slot)[0])
            known_s.index_copy_(0, slot, s[None])
            known_y.index_copy_(0, slot, y[None])
            s, y = _wide(s), _wide(y)
            made.append((wide(known_s) @ y, wide(known_y) @ s, wide(known_y) @ y))  # one by one, for their memory
        with_s, with_y, of_changes = (_sum(products, self._sy.dtype) for products in zip(*made, strict=True))
        self._sy.index_copy_(1, slot, with_s[:, None])
        self._sy.index_copy_(0, slot, with_y[None])
        self._yy.index_copy_(1, slot, of_changes[:, None])
        self._yy.index_copy_(0, slot, of_changes[None])
        self._gamma = torch.where(keep, curvature / length.clamp_min(1e-30), self._gamma.to(length.dtype)).to(
            self._gamma.dtype
        )
        self._stored = self._stored + keep.long()

    def _pair(self, trial: Tensor, gradient: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The newest pair s, y as it would be kept, and the last gradient, part by part."""
        for there, here, new, before in _parts(trial, self.image, gradient, self._gradient):
            yield (there - here).to(self._kept), (new - before).to(self._kept), before

    def _newton(self) -> Tensor:
        """-H g times the step length, no longer than the longest move."""
        size, small = len(self._slots), self._sy.dtype
        order = (self._slots + self._stored) % size  # slots, oldest first
        age = size - self._slots  # of the pair in order[i], newest 1
        known = age <= self._stored - self._oldest
        both = known[:, None] & known
        sy, yy = (sums[order][:, order] * both for sums in (self._sy, self._yy))
        diagonal = sy.diagonal()
        upper = sy.triu(1) + torch.diag(torch.where(known, diagonal, 1.0))
        wide = _Wider()
        found = [
            (wide(s) @ gradient, wide(y) @ gradient) for s, y, gradient in _parts(self._s, self._y, self._gradient)
        ]
        p, q = (torch.where(known, _sum(each, small)[order], 0.0) for each in zip(*found, strict=True))
        u = torch.linalg.solve_triangular(upper, p[:, None], upper=True)
        inner = diagonal[:, None] * u + self._gamma * (yy @ u) - self._gamma * q[:, None]
        a = torch.linalg.solve_triangular(upper.T, inner, upper=False)[:, 0]
        back = (self._slots - self._stored) % size  # of each slot, its place in the order
        kind = self._gradient.dtype
        a = torch.where(known, a, 0.0)[back].to(kind)
        b = torch.where(known, -self._gamma * u[:, 0], 0.0)[back].to(kind)
        direction = self._gamma.to(kind) * self._gradient
        for part, s, y in _parts(direction, self._s, self._y):
            part.addmv_(wide(s).T, a).addmv_(wide(y).T, b)
        length = self._length.to(kind)
        length = length * LONGEST_MOVE / (length * _rms(direction)).clamp_min(LONGEST_MOVE)
        return direction.mul_(-length)


def _is_curved(move: Tensor, change: Tensor) -> bool:
    move, change = _wide(move).flatten(), _wide(change).flatten()
    return bool(_dot(move, change) > MIN_COSINE * (_dot(move, move) * _dot(change, change)).sqrt())


def _widest(device: torch.device) -> torch.dtype:
    """float64 where the device has it, as MPS has not."""
    try:
        return torch.zeros((), dtype=torch.float64, device=device).dtype
    except (TypeError, RuntimeError):
        return torch.float32


def _pick(condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """One of two whole tensors; on the CPU, where there is nothing to wait for, without a copy."""
    if condition.device.type == "cpu":
        return one if condition else other
    return torch.where(condition, one, other)


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of the same :data:`PART` numbers of each tensor: of a picture, or of rows that hold a picture each."""
    flat = [tensor if tensor.dim() == 2 else tensor.view(-1) for tensor in tensors]
    count = PART if flat[0].device.type == "cpu" else LARGE_PART
    for begin in range(0, flat[0].shape[-1], count):
        yield tuple(tensor[..., begin : begin + count] for tensor in flat)


def _sum(parts: Sequence[Tensor], kind: torch.dtype | None = None) -> Tensor:
    """The sum of what was computed part by part, in a dtype."""
    first, *rest = parts if kind is None else [part.to(kind) for part in parts]
    for part in rest:
        first = first + part
    return first


def _rms(image: Tensor) -> Tensor:
    return (_dot(image.flatten(), image.flatten()) / image.numel()).sqrt()


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return torch.dot(_wide(one), _wide(other))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


class _Wider:
    """Rows of the history in float32, each until the next is asked for, in the same room: where a block of aligned
    memory was freed, the GNU C library finds no room for the next of its size, and the heap grows with every part."""

    def __init__(self) -> None:
        self._room: Tensor | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        if rows.dtype != torch.bfloat16:
            return rows
        if self._room is None:
            self._room = torch.empty(rows.numel(), device=rows.device, dtype=torch.float32)
        return self._room[: rows.numel()].view(rows.shape).copy_(rows)


class Adam(Optimizer):
    """Adam (Kingma, Ba 2015, algorithm 1), projected to [0, 1]. Steps may make things worse, and are gone on from all
    the same; ``image`` is the best picture so far. A step that is not finite is undone and the learning rate halved."""

    def __init__(
        self, evaluate: Evaluate, image: Tensor, learning_rate: float = 0.02, betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        super().__init__(evaluate, image)
        self._betas = betas
        self._rate = torch.full((), learning_rate, device=image.device, dtype=torch.float32)
        self._count = torch.zeros((), device=image.device, dtype=torch.float32)
        self._first = torch.zeros_like(self.image)
        self._second = torch.zeros_like(self.image)
        self._here = self.image.clone()  # the last picture that was evaluated and finite
        self._trial = self.image.clone()

    def go_on(self, evaluate: Evaluate) -> None:
        super().go_on(evaluate)
        self._here, self._trial = self.image.clone(), self.image.clone()

    def step(self) -> None:
        values, gradient = self.evaluate(self._trial)
        self._judge(values, gradient)
        good = self.finite
        best = self.values if self.values.numel() else values
        better = good & ~(values[0] > best[0])  # also than NaN
        self.values = torch.where(better, values, best)
        self.failures = torch.where(good, 0, self.failures + 1)
        self._rate = torch.where(good, self._rate, self._rate / 2)
        self._count = self._count + good
        one, two = self._betas
        bias = 1 - one**self._count, 1 - two**self._count
        gradient = gradient.contiguous()
        for here, trial, first, second, slope in _parts(self._here, self._trial, self._first, self._second, gradient):
            here.copy_(torch.where(good, trial, here))
            first.copy_(torch.where(good, first.lerp(slope, 1 - one), first))
            second.copy_(torch.where(good, second.lerp(slope.square(), 1 - two), second))
        del gradient, slope  # a view of it
        self.image = torch.where(better, self._trial, self.image)
        for here, trial, first, second in _parts(self._here, self._trial, self._first, self._second):
            move = self._rate * (first / bias[0]) / ((second / bias[1]).sqrt() + 1e-8)
            trial.copy_((here - torch.where(self._count > 0, move, 0.0)).clamp(0, 1))
