"""Gradients with respect to features that are known in closed form, and how they reach the encoder.

The style terms depend on features through moments X' diag(w) X, whose gradient is again X times a small matrix. Writing
it down (:class:`ClosedFormGradient`) takes one product with the features where automatic differentiation of X' X spends
two: 20 to 50 % of a step on a CPU. An encoder may go further and take such a gradient as it is, to add it to its own
in place (:func:`deferred`): that saves no time but memory, the 29 % of a step's peak that would be a gradient of each
layer's features waiting for its turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from stylize.linalg import blocks, product

WHOLE = (slice(None), slice(None))


@contextmanager
def gradients_enabled() -> Iterator[None]:
    """Within, torch computes gradients, in the precision that is asked for, whatever is around it: ``no_grad``,
    ``inference_mode`` or ``autocast``. Also a decorator."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@dataclass(frozen=True)
class ClosedFormGradient:
    """diag(weight) (X matrix + 1 shift'), a gradient with respect to features.

    X (n, C) are the rows of ``features`` (1, C, H, W); ``matrix`` is (C, C'), or a scalar without a shift; ``shift``
    (C',); ``weight`` (n,). ``window`` is where the features lie in the rows and columns of a larger map.
    """

    features: Tensor
    matrix: Tensor
    shift: Tensor | None = None
    weight: Tensor | None = None
    window: tuple[slice, slice] = WHOLE

    @classmethod
    def of_means(
        cls, features: Tensor, matrix: Tensor, shift: Tensor | None, weight: Tensor | None
    ) -> ClosedFormGradient:
        """That of a function of means over positions: each has its ``weight``, or 1/n. All scaling is done on the small
        matrices, so that there is no other pass over the features."""
        if weight is None:
            count = features.shape[2] * features.shape[3]
            matrix, shift = matrix / count, None if shift is None else shift / count
        return cls(features.detach(), matrix, shift, weight)

    def times(self, factor: Tensor) -> ClosedFormGradient:
        """The gradient times a scalar."""
        shift = None if self.shift is None else self.shift * factor
        return replace(self, matrix=self.matrix * factor, shift=shift)

    def through(self, weight: Tensor) -> ClosedFormGradient:
        """The gradient with respect to what the features are a linear map of: ``weight`` (C, C')."""
        matrix = self.matrix @ weight if self.matrix.dim() else self.matrix * weight
        return replace(self, matrix=matrix, shift=None if self.shift is None else self.shift @ weight)

    def add_to(self, gradient: Tensor) -> Tensor:
        """Add it to a gradient (1, C', H, W), in place."""
        maps = gradient[(..., *self.window)][0].permute(1, 2, 0)
        half = self.features.dtype == maps.dtype == torch.bfloat16
        kind = torch.bfloat16 if half else torch.float32  # a product in bfloat16 sums in float32
        matrix, shift = self.matrix.to(kind), None if self.shift is None else self.shift.to(kind)
        plain = self.weight is None and shift is None and matrix.dim() and maps.is_contiguous()
        if half and plain and maps.device.type != "cpu":
            maps.view(-1, maps.shape[2]).addmm_(self.features[0].permute(1, 2, 0).flatten(0, 1), matrix)
            return gradient
        for rows, x, own in blocks(self.features, self.weight, kind):
            into = maps[rows]
            if not matrix.dim() and own is None and maps.device.type != "cpu":  # one pass instead of two
                into.addcmul_(x.view(into.shape).to(into.dtype), matrix.to(into.dtype))
                continue
            added = product(x, matrix, shift) if matrix.dim() else x * matrix
            if own is not None:
                added *= own[:, None]
            into += added.view(into.shape)
        return gradient

    def alone(self) -> Tensor:
        """The gradient as a tensor like the features."""
        features = self.features
        last = features.is_contiguous(memory_format=torch.channels_last)
        # a tensor of its own, not a view, as autograd adds into it in place
        made = torch.empty_like(features, memory_format=torch.channels_last if last else torch.contiguous_format)
        return self.add_to(made.zero_())


class Deferred(Protocol):
    """Where an encoder collects the closed-form gradients of one of its outputs, to add them itself."""

    def append(self, gradient: ClosedFormGradient, /) -> None: ...


def deferred(features: Tensor) -> Deferred | None:
    """The collection for features as an encoder gave them; None where the encoder has none, or they were changed.

    An encoder's autograd function offers one list for each output as the attribute ``deferred`` of its context.
    """
    collections = getattr(features.grad_fn, "deferred", None)
    found: Deferred | None = None if collections is None else collections[features.output_nr]
    return found


def ready(features: Tensor) -> torch.cuda.Event | None:
    """When features as an encoder gave them are there, on CUDA, which may be long before all of them are; None where
    that is not known.

    An encoder's autograd function offers an event for each output as the attribute ``ready`` of its context.
    """
    events = getattr(features.grad_fn, "ready", None)
    found: torch.cuda.Event | None = None if events is None else events[features.output_nr]
    return found


def hand_over(gradient: ClosedFormGradient, collection: Deferred | None) -> Tensor | None:
    """What a backward function returns: None if the gradient could be deferred, else the gradient."""
    if collection is None:
        return gradient.alone()
    collection.append(gradient)
    return None


class _WithGradients(torch.autograd.Function):
    """A scalar function of feature maps with gradients in closed form."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        gradients: Sequence[ClosedFormGradient],
        collections: Sequence[Deferred | None],
        *features: Tensor,
    ) -> Tensor:
        ctx.gradients, ctx.collections = gradients, collections
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.gradients, ctx.collections, strict=True)
        return None, None, None, *(hand_over(gradient.times(outer), collection) for gradient, collection in pairs)


def with_gradients(value: Tensor, features: Sequence[Tensor], gradients: Sequence[ClosedFormGradient]) -> Tensor:
    """A scalar, differentiable with respect to feature maps (1, C, H, W) by these gradients."""
    made: Tensor = _WithGradients.apply(value, gradients, [deferred(each) for each in features], *features)
    return made


class _OfMoments(torch.autograd.Function):
    """A scalar function of two tensors that brings its own gradients."""

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor, value: Tensor, of_one: Tensor, of_other: Tensor) -> Tensor:
        ctx.gradients = of_one, of_other
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        one, other = ctx.gradients
        return outer * one, outer * other, None, None, None


def with_plain_gradients(one: Tensor, other: Tensor, value: Tensor, of_one: Tensor, of_other: Tensor) -> Tensor:
    """A scalar, differentiable with respect to two tensors by these gradients, each like its tensor."""
    made: Tensor = _OfMoments.apply(one, other, value, of_one, of_other)
    return made


class _Window:
    """The collection of a part of a map: what it gets is left with the whole map."""

    def __init__(self, whole: Deferred, window: tuple[slice, slice]) -> None:
        self._whole, self._window = whole, window

    def append(self, gradient: ClosedFormGradient, /) -> None:
        self._whole.append(replace(gradient, window=self._window))


class _Crop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, window: tuple[slice, slice], collection: Deferred | None) -> Tensor:
        ctx.shape, ctx.window = features.shape, window
        if collection is not None:
            ctx.deferred = [_Window(collection, window)]
        ctx.set_materialize_grads(False)
        return features.detach()[(..., *window)]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None, None]:
        if gradient is None:
            return None, None, None
        whole = gradient.new_zeros(ctx.shape)
        whole[(..., *ctx.window)] = gradient
        return whole, None, None


def crop(features: Tensor, rows: slice, columns: slice) -> Tensor:
    """features[..., rows, columns], with bounds of 0 or more, through which closed-form gradients can be deferred."""
    cropped: Tensor = _Crop.apply(features, (rows, columns), deferred(features))
    return cropped
