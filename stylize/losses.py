"""The loss terms: pure functions of features or pixels, float32 accumulation whatever the encoder's precision.

A style is compared through the first two moments of its features over positions. For features of shape (1, C, H, W)
seen as X (n, C) with n = H*W rows, and position weights w that sum to one (1/n without a mask)::

    m = X' w                      mean         (C,)
    G = X' diag(w) X              Gram matrix  (C, C)
    S = G - m m'                  covariance   (C, C)

The style terms know their gradients in closed form. The moments are symmetric, so one product with the features
gives the gradient where automatic differentiation of X' X would spend two, and all scaling is done on the small
matrices, so that no other pass over the features is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from stylize import cuda
from stylize.gradients import (
    ClosedFormGradient,
    Deferred,
    deferred,
    hand_over,
    ready,
    with_gradients,
    with_plain_gradients,
)
from stylize.linalg import blocks, inner, product, root, root_pair, roots
from stylize.streams import beside, join

# Eigenvalues of the style's covariance below this fraction of its largest are damped as noise.
DAMPING = 1e-4
SHIFTS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)  # of a covariance's trace, to be tried
SQUARINGS = 8  # of a covariance, for its largest eigenvalue within a fraction of a per cent
EXACT = 2  # positions for each channel from which on roots in float64 cost next to nothing beside the network


# --- moments -----------------------------------------------------------------------------------------------


def moments(features: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) of features (1, C, H, W); ``weight`` (H*W,) sums to one."""
    if weight is None and features.device.type != "cpu":
        return _centred_moments(features)
    if weight is None:  # one pass instead of two; the root tolerates the cancellation
        mean, second = _both_moments(features, weight)
        return mean, second.addr_(mean, mean, alpha=-1)
    mean = _mean(features, weight)
    return mean, gram_matrix(features, weight, less=mean)


def gram_matrix(features: Tensor, weight: Tensor | None = None, less: Tensor | None = None) -> Tensor:
    """Gram matrix (C, C) of features (1, C, H, W), per position (Gatys et al. 2016, eq. 3, divided by H*W), or of
    features ``less`` a vector (C,)."""
    if weight is None and features.device.type != "cpu":
        return _both_moments(features, None)[1]
    channels = features.shape[1]
    total = torch.zeros(channels, channels, device=features.device, dtype=torch.float32)
    for _, x, own in blocks(features, weight):
        if less is not None:
            x = x - less
        total += inner(x, x if own is None else x * own[:, None])
    return total if weight is not None else total.div_(features.shape[2] * features.shape[3])


def _both_moments(features: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean (C,) and Gram matrix (C, C), in one pass."""
    channels, count = features.shape[1], features.shape[2] * features.shape[3]
    if weight is None and features.device.type != "cpu":  # in the encoder's precision, with sums in float32
        if ours := _kernels_for(features):
            return _by_kernel(ours, features, central=False)
        x = features.detach()[0].permute(1, 2, 0).flatten(0, 1)
        return _mean(features, None), inner(x, x).div_(count)
    first, second = (
        torch.zeros(shape, device=features.device, dtype=torch.float32) for shape in ((channels,), (channels, channels))
    )
    for _, x, own in blocks(features, weight):
        weighted = x if own is None else x * own[:, None]
        first += weighted.sum(0)
        second += inner(x, weighted)
    return (first, second) if weight is not None else (first / count, second.div_(count))


def _centred_moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C), for accelerators, whose roots need a covariance without negative eigenvalues:
    what subtracting the square of the mean leaves of a flat picture is rounding of either sign. The features are
    centred first, in their own precision."""
    if ours := _kernels_for(features):
        return _by_kernel(ours, features, central=True)
    x = features.detach()[0].permute(1, 2, 0).flatten(0, 1)
    center = x.mean(0, dtype=torch.float32).to(x.dtype)
    x = x - center
    rest = x.mean(0, dtype=torch.float32)
    covariance = inner(x, x).div_(len(x))
    return center.float() + rest, covariance.addr_(rest, rest, alpha=-1)


def _kernels_for(features: Tensor) -> ModuleType | None:
    """The module of kernels, if they take these features."""
    if features.dtype != torch.bfloat16:
        return None
    ours = cuda.kernels(features.device)
    return None if ours is None or features.shape[1] % ours.CHANNELS else ours


def _write_moments(features: Tensor, weight: Tensor | None, mean: Tensor, covariance: Tensor) -> None:
    """Write :func:`moments` to tensors that are there, where a kernel can without a pass of its own."""
    ours = _kernels_for(features) if weight is None else None
    if ours is not None:
        ours.moments(features.detach(), mean, covariance, central=True)
        return
    for into, found in zip((mean, covariance), moments(features, weight), strict=True):
        into.copy_(found)


def _by_kernel(ours: ModuleType, features: Tensor, *, central: bool) -> tuple[Tensor, Tensor]:
    """Mean (C,), and covariance or Gram matrix (C, C)."""
    channels = features.shape[1]
    mean, second = (
        torch.empty(shape, device=features.device, dtype=torch.float32) for shape in ((channels,), (channels, channels))
    )
    ours.moments(features.detach(), mean, second, central=central)
    return mean, second


def position_weights(mask: Tensor, height: int, width: int) -> Tensor:
    """Weights (height*width,) summing to one from a mask (1, 1, H, W) in [0, 1]; an empty mask weighs all alike."""
    weight = torch.nn.functional.adaptive_avg_pool2d(mask.float(), (height, width)).flatten() + 1e-8
    return weight / weight.sum()


def _mean(features: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return features.detach()[0].mean((1, 2), dtype=torch.float32)
    mean = torch.zeros(features.shape[1], device=features.device, dtype=torch.float32)
    for _, x, own in blocks(features, weight):
        assert own is not None
        mean += own @ x
    return mean


class _PartialMoments(torch.autograd.Function):
    """X' diag(w) 1 and X' diag(w) X over some of the positions."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor | None, share: float, collection: Deferred | None
    ) -> tuple[Tensor, Tensor]:
        ctx.weight, ctx.share, ctx.features, ctx.collection = weight, share, features.detach(), collection
        factor = 1.0 if weight is not None else share * features.shape[2] * features.shape[3]
        first, second = _both_moments(features, weight)
        return first * factor, second * factor

    @staticmethod
    def backward(ctx: Any, mean: Tensor, second: Tensor) -> tuple[Tensor | None, None, None, None]:
        factor = ctx.share if ctx.weight is None else 1.0
        gradient = ClosedFormGradient(ctx.features, (second + second.T) * factor, mean * factor, ctx.weight)
        return hand_over(gradient, ctx.collection), None, None, None


def partial_moments(features: Tensor, weight: Tensor | None, share: float) -> tuple[Tensor, Tensor]:
    """What some positions add to the mean (C,) and the Gram matrix (C, C): ``weight`` (h*w,) is theirs, or each has
    ``share``. Differentiable with respect to the features (1, C, h, w)."""
    made: tuple[Tensor, Tensor] = _PartialMoments.apply(features, weight, share, deferred(features))
    return made


# --- style: Wasserstein ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian of one style layer, prepared for :func:`wasserstein`.

    ``mean`` (C,); ``factor`` (C, r) with factor @ factor.T the covariance, r its numerical rank;
    ``trace`` of the covariance; ``energy`` = trace + |mean|^2; ``floor`` damps the inverse root.
    """

    mean: Tensor
    factor: Tensor
    trace: Tensor
    energy: Tensor
    floor: Tensor

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        """From a mean (C,) and covariance (C, C); computed in float64, kept in float32 on their device."""
        if mean.device.type != "cpu":
            return cls._by_cholesky(mean, covariance)
        values, vectors = torch.linalg.eigh(covariance.double())
        largest = values[-1].clamp_min(1e-12)
        kept = values > 1e-7 * largest  # less is float32 noise
        factor = vectors[:, kept] * values[kept].sqrt()
        trace = values.clamp_min(0).sum()
        energy = (trace + mean.double().square().sum()).clamp_min(1e-12)
        made = (mean, factor, trace, energy, (DAMPING * largest).square())
        return cls(*(value.float().to(mean.device) for value in made))

    @classmethod
    def _by_cholesky(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        """Without eigenvalues, which are slow on accelerators: a tiny multiple of the identity is added to the
        covariance, until rounding errors no longer keep it from having a Cholesky factor."""
        place = mean.device if mean.is_cuda else "cpu"  # other accelerators may have no float64
        center, exact = mean.to(place).double(), covariance.to(place).double()
        eye = torch.eye(len(exact), dtype=exact.dtype, device=place)
        total = exact.trace().clamp_min(1e-12)
        for shift in SHIFTS:
            made = exact + shift * total * eye
            factor, failed = torch.linalg.cholesky_ex(made)
            if not failed:
                break
        else:  # far from positive semidefinite: the variances alone
            made = exact.diagonal().clamp_min(0).diag() + SHIFTS[-1] * total * eye
            factor = made.sqrt()
        power = made / total
        for _ in range(SQUARINGS):  # their trace tends to the largest eigenvalue's
            power = power @ power
            power = power / power.trace()
        largest = (made * power.T).sum().clamp_min(1e-12)
        trace = made.trace()
        energy = (trace + center.square().sum()).clamp_min(1e-12)
        found = (center, factor, trace, energy, (DAMPING * largest).square())
        return cls(*(value.float().to(mean.device) for value in found))


def wasserstein(features: Tensor, target: Gaussian, weight: Tensor | None = None) -> Tensor:
    r"""Squared 2-Wasserstein distance between the Gaussians of the features and of the style, relative to the style.

    With m, S of the features and m_s, S_s = R R' of the style::

        ( |m - m_s|^2 + tr S + tr S_s - 2 tr (R' S R)^1/2 ) / ( tr S_s + |m_s|^2 )

    (Olkin, Pukelsheim 1982; R may be any factor of S_s, as the trace is the nuclear norm of R' S^1/2). Its gradient
    with respect to S is I - R (R' S R)^-1/2 R'. Where positions are fewer than R's columns the root is taken of
    the n x n matrix with the same eigenvalues.

    Args:
        features: (1, C, H, W).
        target: the style's Gaussian.
        weight: position weights (H*W,) summing to one.

    Returns:
        A scalar >= 0 up to rounding, dimensionless, differentiable with respect to the features.
    """
    factor, count = target.factor, features.shape[2] * features.shape[3]
    if count >= factor.shape[1]:
        exact = features.dtype == torch.float32 and count >= EXACT * features.shape[1]
        value, matrix, vector = _transport(*moments(features, weight), target, exact=exact)
        return with_gradients(value, [features], [ClosedFormGradient.of_means(features, matrix * 2, vector, weight)])
    x, mean = features.detach()[0].flatten(1).T.float(), _mean(features, weight)
    share = len(x) ** -0.5 if weight is None else weight.sqrt()[:, None]
    x, shift = (x - mean) * share, mean - target.mean
    cross = product(x, factor)  # (n, r)
    trace, inverse = root(product(cross, cross.T), target.floor)
    moved = product(product(inverse, cross), factor.T)
    value = (shift.square().sum() + x.square().sum() + target.trace - 2 * trace) / target.energy
    gradient = (x - moved + shift * share) * (share * (2 / target.energy))
    rows = gradient.T.reshape(features.shape).to(features.dtype)
    return with_gradients(value, [features], [ClosedFormGradient(rows, torch.ones_like(value))])


class WassersteinBatch:
    """:func:`wasserstein` of several layers at once, for accelerators: their matrices, padded with zeros to a common
    size, go through each operation together.

    Args:
        targets: the styles' Gaussians.
        shares: the factor of each layer in the sum.
    """

    def __init__(self, targets: Sequence[Gaussian], shares: Sequence[float]) -> None:
        count, device = len(targets), targets[0].mean.device
        size, rank = (max(target.factor.shape[side] for target in targets) for side in (0, 1))
        self._mean = torch.zeros(count, size, device=device, dtype=torch.float32)
        self._factor = torch.zeros(count, size, rank, device=device, dtype=torch.float32)
        for index, target in enumerate(targets):
            self._mean[index, : len(target.mean)] = target.mean
            self._factor[index, : target.factor.shape[0], : target.factor.shape[1]] = target.factor
        self._trace, self._floor = (torch.stack([getattr(t, name) for t in targets]) for name in ("trace", "floor"))
        self._largest = self._floor.sqrt() / DAMPING  # eigenvalue of the style's covariance
        self._share = torch.tensor(shares, device=device, dtype=torch.float32) / torch.stack(
            [target.energy for target in targets]
        )
        self._eye = torch.eye(size, device=device, dtype=torch.float32)
        # what a picture's moments are written to, layer by layer: zeros remain where a layer has no channels
        self._seen = (
            torch.zeros(count, size, device=device, dtype=torch.float32),
            torch.zeros(count, size, size, device=device, dtype=torch.float32),
        )
        self._scales: dict[tuple[int, ...], Tensor] = {}

    def measured(
        self, features: Sequence[Tensor], weights: Sequence[Tensor | None]
    ) -> tuple[Tensor, list[ClosedFormGradient]]:
        """The sum over the layers, a scalar, and its gradients with respect to features (1, C, H, W) with position
        weights (H*W,) of each."""
        mean, covariance = self._seen
        for index, (each, weight) in enumerate(zip(features, weights, strict=True)):
            size = each.shape[1]
            _write_moments(each, weight, mean[index, :size], covariance[index, :size, :size])
        norm = self._largest * torch.linalg.matrix_norm(covariance)
        trace, inverse = roots(self._factor.mT @ covariance @ self._factor, self._floor, norm)
        matrix = torch.baddbmm(self._eye, self._factor @ inverse, self._factor.mT, alpha=-1)
        shift = mean - self._mean
        distance = shift.square().sum(1) + covariance.diagonal(dim1=1, dim2=2).sum(1) + self._trace - 2 * trace
        scale = self._per_position(features, weights)
        vector = (shift - (matrix @ mean[:, :, None])[:, :, 0]) * scale[:, None]
        matrix = matrix * scale[:, None, None]
        gradients = [
            ClosedFormGradient(each.detach(), matrix[index, :size, :size], vector[index, :size], weight)
            for index, (each, weight) in enumerate(zip(features, weights, strict=True))
            for size in [each.shape[1]]
        ]
        return (self._share * distance).sum(), gradients

    def _per_position(self, features: Sequence[Tensor], weights: Sequence[Tensor | None]) -> Tensor:
        """What gradients with respect to means over positions are to be multiplied by, (layers,)."""
        pairs = zip(features, weights, strict=True)
        counts = tuple(each.shape[2] * each.shape[3] if weight is None else 1 for each, weight in pairs)
        if counts not in self._scales:
            self._scales[counts] = (
                2 * self._share / torch.tensor(counts, device=self._share.device, dtype=torch.float32)
            )
        return self._scales[counts]


def wasserstein_of_batches(
    batches: Sequence[tuple[WassersteinBatch, Sequence[Tensor], Sequence[Tensor | None]]],
) -> Tensor:
    """The sum of several batches, of their features and position weights; on CUDA each batch has a stream of its own,
    as none fills the chip, and starts as soon as its features are there."""
    total, features, gradients = [], list[Tensor](), list[ClosedFormGradient]()
    with torch.no_grad():
        for number, (batch, maps, weights) in enumerate(batches):
            with beside(maps[0].device, number, [ready(each) for each in maps]):
                value, found = batch.measured(maps, weights)
            total.append(value)
            features += maps
            gradients += found
        for number in range(len(batches)):
            join(features[0].device, number)
    return with_gradients(torch.stack(total).sum(), features, gradients)


def wasserstein_of_moments(mean: Tensor, second: Tensor, target: Gaussian) -> Tensor:
    """:func:`wasserstein` of the mean (C,) and Gram matrix (C, C) of all positions, differentiable in both."""
    value, of_second, of_mean = _transport(mean.detach(), (second - mean.outer(mean)).detach(), target, exact=True)
    return with_plain_gradients(mean, second, value, of_mean, of_second)


def _transport(mean: Tensor, covariance: Tensor, target: Gaussian, *, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The distance, and its gradients with respect to the Gram matrix (C, C) and the mean (C,).

    If ``exact``, on the CPU in float64: the inverse root multiplies rounding errors, a thousandfold in the gradient
    (measured), and what comes out should not depend on the order of summation.
    """
    factor, floor, kind = target.factor, target.floor, mean.dtype
    if exact and mean.device.type == "cpu":
        mean, covariance, factor, floor = (each.double() for each in (mean, covariance, factor, floor))
    shift = mean - target.mean
    scale = None if mean.device.type == "cpu" else floor.sqrt() / DAMPING * torch.linalg.matrix_norm(covariance)
    trace, inverse = root(product(product(factor.T, covariance), factor), floor, factor, scale)
    matrix = torch.eye(len(mean), device=mean.device, dtype=torch.float32) - inverse
    value = (shift.square().sum() + covariance.trace() + target.trace - 2 * trace) / target.energy
    vector = (shift - matrix.to(mean) @ mean) * (2 / target.energy)
    return value.to(kind), (matrix / target.energy).to(kind), vector.to(kind)


def barycenter(
    gaussians: Sequence[tuple[Tensor, Tensor]],
    weights: Sequence[float],
    iterations: int = 30,
    tolerance: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the Wasserstein barycentre of (mean, covariance) pairs: the style between styles.

    Fixed point S <- S^-1/2 (sum_i w_i (S^1/2 S_i S^1/2)^1/2)^2 S^-1/2 (Alvarez-Esteban et al. 2016), float64.
    It minimises the weighted sum of squared distances to the styles, which a mean of covariances does not; at the
    tolerance (relative change in an iteration) that sum is within a thousandth of its minimum.
    """
    if len(gaussians) == 1:
        return gaussians[0]
    total = sum(weights)
    shares = [weight / total for weight in weights]
    mean = torch.stack([share * m for share, (m, _) in zip(shares, gaussians, strict=True)]).sum(0)
    covariances = [c.cpu().double() for _, c in gaussians]
    result = torch.stack([share * c for share, c in zip(shares, covariances, strict=True)]).sum(0)
    for _ in range(iterations):
        half, inverse = root_pair(result)
        middle = torch.stack(
            [share * root_pair(half @ c @ half)[0] for share, c in zip(shares, covariances, strict=True)]
        ).sum(0)
        result, before = inverse @ middle @ middle @ inverse, result
        if torch.linalg.matrix_norm(result - before) <= tolerance * torch.linalg.matrix_norm(before):
            break
    return mean, result.to(mean)


# --- style: Gram -------------------------------------------------------------------------------------------


def gram(features: Tensor, target: Tensor, energy: Tensor | float, weight: Tensor | None = None) -> Tensor:
    """|G - A|^2 / energy with the Frobenius norm; A the style's Gram matrix (C, C).

    ``energy`` = |A|^2 makes it relative; 4 C^2 makes it the paper's (Gatys et al. 2016, eq. 4), exactly so where
    picture and style have as many positions.
    """
    apart = gram_matrix(features, weight) - target
    gradient = ClosedFormGradient.of_means(features, apart * (4 / energy), None, weight)
    return with_gradients(apart.square().sum() / energy, [features], [gradient])


def gram_of_moments(second: Tensor, target: Tensor, energy: Tensor | float) -> Tensor:
    """:func:`gram` of the Gram matrix (C, C) of all positions."""
    return (second - target).square().sum() / energy


# --- content and smoothness --------------------------------------------------------------------------------


def content(features: Tensor, target: Tensor, energy: Tensor | float, weight: Tensor | None = None) -> Tensor:
    """|F - P|^2 / energy over features and target (1, C, H, W).

    ``energy`` = |P|^2 makes it relative; 2 makes it half the sum of squares (Gatys et al. 2016, eq. 1). With position
    weights the squares are weighted by H*W*weight.
    """
    return partial_content(features, target, None if weight is None else weight * weight.numel()) / energy


def partial_content(features: Tensor, target: Tensor | float, factor: Tensor | None = None) -> Tensor:
    """The sum of squares of :func:`content` over some of the positions; ``factor`` (h*w,) is that of theirs."""
    apart = features.detach() - target
    if factor is None and apart.device.type != "cpu":
        value = torch.linalg.vector_norm(apart, dtype=torch.float32).square()
    elif factor is None:
        value = torch.cat([torch.linalg.vector_norm(x, dim=1) for _, x, _ in blocks(apart)]).square().sum()
    else:
        value = (apart.float().square() * factor.view(1, 1, *features.shape[2:])).sum()
    gradient = ClosedFormGradient(apart.to(features.dtype), torch.full_like(value, 2.0), None, factor)
    return with_gradients(value, [features], [gradient])


def self_similarity(features: Tensor, size: tuple[int, int], weight: Tensor | None = None) -> Tensor:
    """How unlike each other the positions of features (1, C, H, W) are, seen as ``size`` of them: cosine distances
    (n, n), divided by the mean of their column (Kolkin, Salavon, Shakhnarovich 2019, eq. 6). Positions of ``weight``
    (n,) 0 have no part in that mean."""
    features = features.float()
    if features.shape[2:] != size:
        features = torch.nn.functional.interpolate(features, size, mode="bilinear", align_corners=False)
    x = torch.nn.functional.normalize(features[0].flatten(1).T, dim=1)
    apart = 1 - x @ x.T
    mean = apart.mean(0) if weight is None else weight @ apart
    return apart / mean.clamp_min(1e-6)


def total_variation(image: Tensor, smoothing: float = 1 / 255) -> Tensor:
    """Mean isotropic total variation of (1, C, H, W), intensity per pixel (Rudin, Osher, Fatemi 1992).

    ``smoothing`` rounds the corner at zero, so that flat areas have a gradient. A side of one pixel counts as flat.
    """
    padded = torch.nn.functional.pad(image, (0, 1, 0, 1), mode="replicate")
    return _variation(padded, smoothing).mean() - smoothing


def partial_variation(image: Tensor, height: int, width: int, smoothing: float = 1 / 255) -> Tensor:
    """The sum over (height, width) pixels of what :func:`total_variation` has the mean of; the image (1, C, H, W) has
    one more of them to the right and below where there are."""
    padding = (0, width + 1 - image.shape[3], 0, height + 1 - image.shape[2])
    padded = torch.nn.functional.pad(image, padding, mode="replicate")
    return (_variation(padded, smoothing) - smoothing).sum()


def _variation(padded: Tensor, smoothing: float) -> Tensor:
    image = padded[..., :-1, :-1]
    across = padded[..., :-1, 1:] - image
    down = padded[..., 1:, :-1] - image
    return (across.square() + down.square() + smoothing**2).sqrt()
