"""L-BFGS and Adam over one image at one scale: one gradient a step, no host synchronisation inside a step.

Both keep the last good picture and never let go of it: an evaluation that is NaN, infinite, or (L-BFGS) worse than
the last good one is a failed trial, answered by a shorter step from there. All decisions are made on the device with
``torch.where``; what the host may know of them is the report, a small tensor it can read when it likes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# values: (1 + terms,) with the total first; gradient: like the image
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


class Optimizer:
    """State shared by both: ``image`` is the last good picture, ``values`` its losses, ``failures`` in a row.

    ``report`` holds (failures in a row, whether the last evaluation was finite, *values) as one tensor.
    """

    def __init__(self, evaluate: Evaluate, image: Tensor) -> None:
        self.evaluate = evaluate
        self.image = image.detach().clone()
        self.values = torch.empty(0)
        self.failures = torch.zeros((), dtype=torch.long, device=image.device)
        self.finite = torch.ones((), dtype=torch.bool, device=image.device)

    @property
    def report(self) -> Tensor:
        return torch.cat([self.failures.float().view(1), self.finite.float().view(1), self.values])

    def step(self) -> None:
        """Evaluate once and move."""
        raise TypeError("use LBFGS or Adam")

    def _judge(self, values: Tensor, gradient: Tensor) -> None:
        # a sum over the gradient is NaN or infinite as soon as one element is
        self.finite = torch.isfinite(values).all() & torch.isfinite(gradient.sum())


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
    """

    def __init__(
        self,
        evaluate: Evaluate,
        image: Tensor,
        history: int = 20,
        bounds: tuple[float, float] = (-math.inf, math.inf),
        first_move: float = FIRST_MOVE,
        compact: bool = False,
    ) -> None:
        super().__init__(evaluate, image)
        self._bounds, self._first_move = bounds, first_move
        device, count = image.device, image.numel()
        small = torch.float32 if device.type == "mps" else torch.float64
        self._kept = torch.bfloat16 if compact else image.dtype
        self._s = image.new_zeros(history, count, dtype=self._kept)
        self._y = image.new_zeros(history, count, dtype=self._kept)
        self._sy = torch.zeros(history, history, dtype=small, device=device)
        self._yy = torch.zeros(history, history, dtype=small, device=device)
        self._stored = torch.zeros((), dtype=torch.long, device=device)  # pairs ever stored
        self._oldest = torch.zeros((), dtype=torch.long, device=device)  # pairs before this one are forgotten
        self._slots = torch.arange(history, device=device)
        self._gamma = torch.ones((), dtype=small, device=device)
        self._left = torch.zeros((), device=device)  # of the slope, mean over the last steps
        self._length = torch.ones((), device=device)
        self._gradient = torch.empty(0)
        self._move = torch.zeros_like(self.image)

    def step(self) -> None:
        # large pictures are most of the memory: what is no longer needed is let go of, or written over
        trial, self._move = self._move.add_(self.image).clamp_(*self._bounds), torch.empty(0)
        values, gradient = self.evaluate(trial)
        self._judge(values, gradient)
        if not self.values.numel():  # the first evaluation, where we stand
            self.values, self._gradient = values, gradient
            self.failures = (~self.finite).long()
            self._move = self._steepest(1.0)
            return
        good = self.finite & (values[0] <= self.values[0] + WORSE * self.values[0].abs())
        move = trial - self.image
        self._remember(good, move.flatten(), (gradient - self._gradient).flatten())
        self.image = torch.where(good, trial, self.image)
        del trial
        self.values = torch.where(good, values, self.values)
        self._gradient = torch.where(good, gradient, self._gradient)
        del gradient
        self.failures = torch.where(good, 0, self.failures + 1)
        reset = (self.failures > 0) & (self.failures % RESET_AFTER == 0)
        self._oldest = torch.where(reset, self._stored, self._oldest)
        onward = torch.where(self._stored > self._oldest, self._newton(), self._steepest(0.1**self.failures))
        self._move = torch.where(good | reset, onward, move * 0.25)

    def _steepest(self, factor: Tensor | float) -> Tensor:
        return self._gradient * (-self._first_move * factor / _rms(self._gradient).clamp_min(1e-30))

    def _remember(self, good: Tensor, s: Tensor, y: Tensor) -> None:
        s, y = s.to(self._kept), y.to(self._kept)
        curvature, length = _dot(s, y), _dot(y, y)
        left = (1 + curvature / _dot(self._gradient.flatten(), s)).clamp(-1, 1).nan_to_num(0)
        self._left = self._left.lerp(left.to(self._left.dtype), SMOOTH)
        self._length = (self._length * (1 + STRETCH * self._left)).clamp(SHORTEST, FARTHEST)
        keep = good & (curvature > MIN_COSINE * (_dot(s, s) * length).sqrt()) & (length > 0)
        slot = (self._stored % len(self._slots)).view(1)
        # when nothing is kept the slot is written with what it holds
        s = torch.where(keep, s, self._s.index_select(0, slot)[0])
        y = torch.where(keep, y, self._y.index_select(0, slot)[0])
        self._s.index_copy_(0, slot, s[None])
        self._y.index_copy_(0, slot, y[None])
        small = self._sy.dtype
        self._sy.index_copy_(1, slot, _products(self._s, y).to(small)[:, None])
        self._sy.index_copy_(0, slot, _products(self._y, s).to(small)[None])
        inner = _products(self._y, y).to(small)
        self._yy.index_copy_(1, slot, inner[:, None])
        self._yy.index_copy_(0, slot, inner[None])
        self._gamma = torch.where(keep, curvature / length.clamp_min(1e-30), self._gamma.to(length.dtype)).to(small)
        self._stored = self._stored + keep.long()

    def _newton(self) -> Tensor:
        """-H g times the step length, no longer than the longest move."""
        size, small = len(self._slots), self._sy.dtype
        order = (self._slots + self._stored) % size  # slots, oldest first
        age = size - self._slots  # of the pair in order[i], newest 1
        known = age <= self._stored - self._oldest
        sy = self._sy[order][:, order] * (known[:, None] & known)
        yy = self._yy[order][:, order] * (known[:, None] & known)
        diagonal = sy.diagonal()
        upper = sy.triu(1) + torch.diag(torch.where(known, diagonal, 1.0))
        gradient = self._gradient.flatten()
        p = torch.where(known, _products(self._s, gradient).to(small)[order], 0.0)
        q = torch.where(known, _products(self._y, gradient).to(small)[order], 0.0)
        u = torch.linalg.solve_triangular(upper, p[:, None], upper=True)
        inner = diagonal[:, None] * u + self._gamma * (yy @ u) - self._gamma * q[:, None]
        a = torch.linalg.solve_triangular(upper.T, inner, upper=False)[:, 0]
        back = torch.argsort(order)
        a = torch.where(known, a, 0.0)[back].to(gradient.dtype)
        b = torch.where(known, -self._gamma * u[:, 0], 0.0)[back].to(gradient.dtype)
        direction = self._gamma.to(gradient.dtype) * gradient
        _add_mix(direction, a, self._s)
        _add_mix(direction, b, self._y)
        length = self._length.to(direction.dtype)
        length = length * LONGEST_MOVE / (length * _rms(direction)).clamp_min(LONGEST_MOVE)
        return direction.mul_(-length).view_as(self.image)


def _rms(image: Tensor) -> Tensor:
    return (_dot(image.flatten(), image.flatten()) / image.numel()).sqrt()


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return torch.dot(_wide(one), _wide(other))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _products(rows: Tensor, vector: Tensor) -> Tensor:
    """Of each row with the vector; compact rows are unpacked one by one."""
    if rows.dtype != torch.bfloat16:
        return rows @ vector
    vector = _wide(vector)
    return torch.stack([torch.dot(_wide(row), vector) for row in rows])


def _add_mix(to: Tensor, factors: Tensor, rows: Tensor) -> None:
    """Add rows times factors."""
    if rows.dtype == to.dtype:
        to.addmv_(rows.T, factors)
        return
    for factor, row in zip(factors, rows, strict=True):
        to.add_(_wide(row) * factor)


class Adam(Optimizer):
    """Adam (Kingma, Ba 2015, algorithm 1), projected to [0, 1]. A step that is not finite is undone and the learning
    rate halved; the picture kept is the last one that was evaluated and finite."""

    def __init__(
        self, evaluate: Evaluate, image: Tensor, learning_rate: float = 0.02, betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        super().__init__(evaluate, image)
        self._betas = betas
        self._rate = torch.full((), learning_rate, device=image.device)
        self._count = torch.zeros((), device=image.device)
        self._first = torch.zeros_like(self.image)
        self._second = torch.zeros_like(self.image)
        self._trial = self.image

    def step(self) -> None:
        values, gradient = self.evaluate(self._trial)
        self._judge(values, gradient)
        good = self.finite
        self.image = torch.where(good, self._trial, self.image)
        self.values = torch.where(good, values, self.values) if self.values.numel() else values
        self.failures = torch.where(good, 0, self.failures + 1)
        self._rate = torch.where(good, self._rate, self._rate / 2)
        self._count = self._count + good
        one, two = self._betas
        self._first = torch.where(good, self._first.lerp(gradient, 1 - one), self._first)
        self._second = torch.where(good, self._second.lerp(gradient.square(), 1 - two), self._second)
        first = self._first / (1 - one**self._count)
        second = self._second / (1 - two**self._count)
        move = self._rate * first / (second.sqrt() + 1e-8)
        self._trial = (self.image - torch.where(self._count > 0, move, 0.0)).clamp(0, 1)
