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

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from stylize.errors import SettingsError

Features = Mapping[str, Tensor]

# Directions in which the style's standard deviation is below this fraction of its largest are float32 noise.
DAMPING = 1e-4
BLOCK = 2**20  # numbers: 4 MB in float32
EXACT = 2  # positions for each channel from which on roots in float64 cost next to nothing beside the network


@dataclass(frozen=True)
class Term:
    """One weighted addend of the loss.

    ``function(image, features)`` gets the picture (1, 3, H, W) at the scale in work and the encoder's features
    of (at least) ``layers``, in the encoder's precision, which may be bfloat16 (sum ``.float()`` of them); it returns a
    differentiable scalar. ``sums`` is the same for pictures too large to be seen whole; terms without layers can do
    without.
    """

    name: str
    weight: float
    function: Callable[[Tensor, Features], Tensor]
    layers: tuple[str, ...] = ()
    sums: Sums | None = None

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


class TileWindow(Protocol):
    """Where a tile lies: its slices of rows and columns in the whole picture, and in the map of a layer."""

    @property
    def pixels(self) -> tuple[slice, slice]: ...

    def at(self, layer: str) -> tuple[slice, slice]: ...

    def map_size(self, layer: str, features: Features) -> tuple[int, int]: ...


# --- products --------------------------------------------------------------------------------------------------------
#
# On x86 torch leaves products of float32 matrices to MKL, which keeps to AVX2 on processors that are not Intel's, and
# convolutions to oneDNN, which does not: where AVX-512 is twice as fast, so is the product as a convolution. It sums
# more exactly, too.

SMALL = 2**15  # numbers: what is smaller torch does not leave to oneDNN


def _convolves(x: Tensor, other: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > SMALL
        and other.numel() > 0
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


def _as_map(x: Tensor) -> Tensor:
    """Rows (n, C) as the positions of a channels-last map (1, C, 1, n)."""
    return x[None, None].permute(0, 3, 1, 2)


def _product(x: Tensor, matrix: Tensor, shift: Tensor | None = None) -> Tensor:
    """X matrix + 1 shift', (n, C')."""
    if _convolves(x, matrix):
        return torch.conv2d(_as_map(x), matrix.T[:, :, None, None], shift)[0, :, 0].T
    return x @ matrix if shift is None else torch.addmm(shift, x, matrix)


def _inner(x: Tensor, other: Tensor) -> Tensor:
    """X' other, (C, C')."""
    if not _convolves(x, other):
        return x.T @ other
    kernel = x.new_empty(x.shape[1], other.shape[1], 1, 1)
    found: Tensor = torch.ops.aten.convolution_backward(
        _as_map(x), _as_map(other), kernel, None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1, (False, True, False)
    )[1]
    return found[:, :, 0, 0]


# --- moments -----------------------------------------------------------------------------------------------


def moments(features: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) of features (1, C, H, W); ``weight`` (H*W,) sums to one."""
    if weight is None and features.device.type == "cpu":  # a pass less; the root there stands what rounding leaves
        mean, second = _both_moments(features, weight)
        return mean, second.addr_(mean, mean, alpha=-1)
    mean = _mean(features, weight)
    return mean, gram_matrix(features, weight, less=mean)


def gram_matrix(features: Tensor, weight: Tensor | None = None, less: Tensor | None = None) -> Tensor:
    """Gram matrix (C, C) of features (1, C, H, W), per position (Gatys et al. 2016, eq. 3, divided by H*W), or of
    features ``less`` a vector (C,)."""
    channels = features.shape[1]
    total = torch.zeros(channels, channels, device=features.device)
    for _, x, own in _blocks(features, weight):
        if less is not None:
            x = x - less
        total += _inner(x, x if own is None else x * own[:, None])
    return total if weight is not None else total.div_(features.shape[2] * features.shape[3])


def _both_moments(features: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean (C,) and Gram matrix (C, C), in one pass."""
    channels, count = features.shape[1], features.shape[2] * features.shape[3]
    first, second = (torch.zeros(shape, device=features.device) for shape in ((channels,), (channels, channels)))
    for _, x, own in _blocks(features, weight):
        weighted = x if own is None else x * own[:, None]
        first += weighted.sum(0)
        second += _inner(x, weighted)
    return (first, second) if weight is not None else (first / count, second.div_(count))


def position_weights(mask: Tensor, height: int, width: int) -> Tensor:
    """Weights (height*width,) summing to one from a mask (1, 1, H, W) in [0, 1]; an empty mask weighs all alike."""
    weight = torch.nn.functional.adaptive_avg_pool2d(mask.float(), (height, width)).flatten() + 1e-8
    return weight / weight.sum()


def _blocks(
    features: Tensor, weight: Tensor | None = None, kind: torch.dtype = torch.float32
) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Features (1, C, H, W) as X (n, C) in a precision: which rows of H, theirs of X, and of the weight.

    On the CPU they come in blocks that stay in the cache; what must be copied, being in another precision or a part of
    a larger map, each in the memory of the one before.
    """
    maps = features.detach()[0].permute(1, 2, 0)  # (H, W, C)
    height, width, channels = maps.shape
    count = height if maps.device.type != "cpu" else max(1, BLOCK // (width * channels))
    viewed = maps.device.type != "cpu" or (maps.dtype == kind and maps.is_contiguous())
    room = None if viewed else torch.empty(min(count, height), width, channels, dtype=kind)
    for begin in range(0, height, count):
        rows = slice(begin, begin + count)
        own = None if weight is None else weight[begin * width : (begin + count) * width]
        x = maps[rows]
        x = x.to(kind) if room is None else room[: len(x)].copy_(x)
        yield rows, x.flatten(0, 1), own


def _mean(features: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return features.detach()[0].mean((1, 2), dtype=torch.float32)
    mean = torch.zeros(features.shape[1], device=features.device)
    for _, x, own in _blocks(features, weight):
        assert own is not None
        mean += own @ x
    return mean


@dataclass(frozen=True)
class Slope:
    """A gradient with respect to features, known in closed form: diag(weight) (X matrix + 1 shift').

    X (n, C) are the rows of ``features``; ``matrix`` is (C, C'), or a scalar. ``place`` is where they lie in the rows
    and columns of a larger map.
    """

    features: Tensor
    matrix: Tensor
    shift: Tensor | None = None
    weight: Tensor | None = None
    place: tuple[slice, slice] = (slice(None), slice(None))

    def times(self, outer: Tensor) -> Slope:
        """What it is multiplied with, in the small matrices."""
        shift = None if self.shift is None else self.shift * outer
        return replace(self, matrix=self.matrix * outer, shift=shift)

    def through(self, weight: Tensor) -> Slope:
        """With respect to what the features are a linear map of: ``weight`` (C, C')."""
        matrix = self.matrix @ weight if self.matrix.dim() else self.matrix * weight
        return replace(self, matrix=matrix, shift=None if self.shift is None else self.shift @ weight)

    def add_to(self, gradient: Tensor) -> Tensor:
        """Add it to a gradient (1, C', H, W), in place."""
        maps = gradient[(..., *self.place)][0].permute(1, 2, 0)
        half = self.weight is None and self.features.dtype == maps.dtype == torch.bfloat16
        kind = torch.bfloat16 if half else torch.float32  # a product in bfloat16 sums in float32
        matrix, shift = self.matrix.to(kind), None if self.shift is None else self.shift.to(kind)
        for rows, x, own in _blocks(self.features, self.weight, kind):
            into = maps[rows]
            if matrix.dim():
                product = _product(x, matrix, shift)
            else:
                product = x * matrix if shift is None else x * matrix + shift
            if own is not None:
                product *= own[:, None]
            into += product.view(into.shape)
        return gradient

    def alone(self) -> Tensor:
        """By itself, like the features."""
        features = self.features
        last = features.is_contiguous(memory_format=torch.channels_last)
        # a tensor of its own, not a view, as autograd adds into it in place
        made = torch.empty_like(features, memory_format=torch.channels_last if last else torch.contiguous_format)
        return self.add_to(made.zero_())


class _Owed(Protocol):
    """Where gradients in closed form are left for an encoder to add up itself."""

    def append(self, slope: Slope, /) -> None: ...


def _owed(features: Tensor) -> _Owed | None:
    """That of features as an encoder gave them, if it does so: an attribute of what made them, by output."""
    owed = getattr(features.grad_fn, "owed", None)
    found: _Owed | None = None if owed is None else owed[features.output_nr]
    return found


def _given(slope: Slope, owed: _Owed | None) -> Tensor | None:
    """A gradient for autograd, or nothing, if it could be left elsewhere."""
    if owed is None:
        return slope.alone()
    owed.append(slope)
    return None


class _Known(torch.autograd.Function):
    """A scalar that brings its own gradient."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, value: Tensor, slope: Slope, owed: _Owed | None) -> Tensor:
        ctx.slope, ctx.owed = slope, owed
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, None, None, None]:
        return _given(ctx.slope.times(outer), ctx.owed), None, None, None


def _known(features: Tensor, value: Tensor, slope: Slope) -> Tensor:
    result: Tensor = _Known.apply(features, value, slope, _owed(features))
    return result


class _Cropped:
    """What is owed to a part of a map, left with the whole."""

    def __init__(self, whole: _Owed, place: tuple[slice, slice]) -> None:
        self._whole, self._place = whole, place

    def append(self, slope: Slope, /) -> None:
        self._whole.append(replace(slope, place=self._place))


class _Crop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, place: tuple[slice, slice], owed: _Owed | None) -> Tensor:
        ctx.shape, ctx.place = features.shape, place
        if owed is not None:
            ctx.owed = [_Cropped(owed, place)]
        ctx.set_materialize_grads(False)
        return features.detach()[(..., *place)]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None, None]:
        if gradient is None:
            return None, None, None
        whole = gradient.new_zeros(ctx.shape)
        whole[(..., *ctx.place)] = gradient
        return whole, None, None


def crop(features: Tensor, rows: slice, columns: slice) -> Tensor:
    """features[..., rows, columns], from 0 or more, with which gradients in closed form can be left all the same."""
    cropped: Tensor = _Crop.apply(features, (rows, columns), _owed(features))
    return cropped


def _slope(features: Tensor, matrix: Tensor, shift: Tensor | None, weight: Tensor | None) -> Slope:
    """diag(weight) (X matrix + 1 shift'); without weights 1/n. All scaling is done on the small matrices."""
    if weight is None:
        count = features.shape[2] * features.shape[3]
        matrix, shift = matrix / count, None if shift is None else shift / count
    return Slope(features.detach(), matrix, shift, weight)


class _PartialMoments(torch.autograd.Function):
    """X' diag(w) 1 and X' diag(w) X over some of the positions."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor | None, share: float, owed: _Owed | None
    ) -> tuple[Tensor, Tensor]:
        ctx.weight, ctx.share, ctx.features, ctx.owed = weight, share, features.detach(), owed
        factor = 1.0 if weight is not None else share * features.shape[2] * features.shape[3]
        first, second = _both_moments(features, weight)
        return first * factor, second * factor

    @staticmethod
    def backward(ctx: Any, mean: Tensor, second: Tensor) -> tuple[Tensor | None, None, None, None]:
        factor = ctx.share if ctx.weight is None else 1.0
        slope = Slope(ctx.features, (second + second.T) * factor, mean * factor, ctx.weight)
        return _given(slope, ctx.owed), None, None, None


def partial_moments(features: Tensor, weight: Tensor | None, share: float) -> tuple[Tensor, Tensor]:
    """What some positions add to the mean (C,) and the Gram matrix (C, C): ``weight`` (h*w,) is theirs, or each has
    ``share``. Differentiable with respect to the features (1, C, h, w)."""
    made: tuple[Tensor, Tensor] = _PartialMoments.apply(features, weight, share, _owed(features))
    return made


class _Given(torch.autograd.Function):
    """A scalar function of two tensors that brings its own gradients."""

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor, value: Tensor, of_one: Tensor, of_other: Tensor) -> Tensor:
        ctx.gradients = of_one, of_other
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        one, other = ctx.gradients
        return outer * one, outer * other, None, None, None


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
        """From a mean (C,) and covariance (C, C); computed in float64 on the CPU, kept in float32 on their device."""
        values, vectors = torch.linalg.eigh(covariance.double().cpu())
        largest = values[-1].clamp_min(1e-12)
        kept = values > 1e-7 * largest  # less is float32 noise
        factor = vectors[:, kept] * values[kept].sqrt()
        trace = values.clamp_min(0).sum()
        energy = (trace + mean.double().cpu().square().sum()).clamp_min(1e-12)
        made = (mean, factor, trace, energy, (DAMPING * largest).square())
        return cls(*(value.float().to(mean.device) for value in made))


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
        return _known(features, value, _slope(features, matrix * 2, vector, weight))
    x, mean = features.detach()[0].flatten(1).T.float(), _mean(features, weight)
    root = len(x) ** -0.5 if weight is None else weight.sqrt()[:, None]
    x, shift = (x - mean) * root, mean - target.mean
    cross = _product(x, factor)  # (n, r)
    trace, inverse = _root(_product(cross, cross.T), target.floor)
    moved = _product(_product(inverse, cross), factor.T)
    value = (shift.square().sum() + x.square().sum() + target.trace - 2 * trace) / target.energy
    gradient = (x - moved + shift * root) * (root * (2 / target.energy))
    rows = gradient.T.reshape(features.shape).to(features.dtype)
    return _known(features, value, Slope(rows, torch.ones_like(value)))


def wasserstein_of_moments(mean: Tensor, second: Tensor, target: Gaussian) -> Tensor:
    """:func:`wasserstein` of the mean (C,) and Gram matrix (C, C) of all positions, differentiable in both."""
    value, of_second, of_mean = _transport(mean.detach(), (second - mean.outer(mean)).detach(), target, exact=True)
    made: Tensor = _Given.apply(mean, second, value, of_mean, of_second)
    return made


def _transport(mean: Tensor, covariance: Tensor, target: Gaussian, *, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The distance, and its gradients with respect to the Gram matrix (C, C) and the mean (C,).

    If ``exact``, on the CPU in float64: the inverse root multiplies rounding errors, a thousandfold in the gradient
    (measured), and what comes out should not depend on the order of summation.
    """
    factor, floor, kind = target.factor, target.floor, mean.dtype
    if exact and mean.device.type == "cpu":
        mean, covariance, factor, floor = (each.double() for each in (mean, covariance, factor, floor))
    shift = mean - target.mean
    trace, inverse = _root(_product(_product(factor.T, covariance), factor), floor, factor)
    matrix = torch.eye(len(mean), device=mean.device) - inverse
    value = (shift.square().sum() + covariance.trace() + target.trace - 2 * trace) / target.energy
    vector = (shift - matrix.to(mean) @ mean) * (2 / target.energy)
    return value.to(kind), (matrix / target.energy).to(kind), vector.to(kind)


def _root(matrix: Tensor, floor: Tensor, factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """tr (M + floor)^1/2 - tr floor^1/2, and F (M + floor)^-1/2 F' in float32, of a symmetric positive semidefinite
    M (k, k) and F (m, k), the identity unless given."""
    if matrix.device.type != "cpu":
        return _root_newton_schulz(matrix, floor, factor)
    if not torch.isfinite(matrix).all():  # LAPACK would raise; let the optimizer see the NaN
        size = len(matrix if factor is None else factor)
        return torch.full((), torch.nan), torch.full((size, size), torch.nan)
    values, vectors = torch.linalg.eigh(matrix)
    roots = (values.clamp_min(0) + floor).sqrt()
    half = (vectors / roots.sqrt()).float()
    if factor is not None:
        half = _product(factor.float(), half)
    return (roots - floor.sqrt()).sum(), _product(half, half.T)


def _root_newton_schulz(
    matrix: Tensor, floor: Tensor, factor: Tensor | None = None, iterations: int = 24
) -> tuple[Tensor, Tensor]:
    """The same by products alone (Higham 2008, eq. 6.35), for devices on which eigenvalues are slow.

    Zeros of M are eigenvalues of either sign after rounding, and negative ones would diverge: they are lifted by a
    millionth of its norm.
    """
    eye = torch.eye(len(matrix), device=matrix.device, dtype=matrix.dtype)
    lift = floor + 1e-6 * torch.linalg.matrix_norm(matrix)
    matrix = matrix + lift * eye
    norm = torch.linalg.matrix_norm(matrix).clamp_min(1e-30)
    y, z = matrix / norm, eye
    for _ in range(iterations):
        t = 1.5 * eye - 0.5 * (z @ y)
        y, z = y @ t, t @ z
    # tr M (M + lift)^-1/2: the lift of all the zeros must not count as style
    trace = y.trace() * norm.sqrt() - lift * z.trace() / norm.sqrt()
    inverse = z / norm.sqrt()
    return trace, inverse if factor is None else factor @ inverse @ factor.T


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
    covariances = [c.double().cpu() for _, c in gaussians]
    result = torch.stack([share * c for share, c in zip(shares, covariances, strict=True)]).sum(0)
    for _ in range(iterations):
        root, inverse = _root_pair(result)
        middle = torch.stack(
            [share * _root_pair(root @ c @ root)[0] for share, c in zip(shares, covariances, strict=True)]
        ).sum(0)
        result, before = inverse @ middle @ middle @ inverse, result
        if torch.linalg.matrix_norm(result - before) <= tolerance * torch.linalg.matrix_norm(before):
            break
    return mean, result.to(mean)


def _root_pair(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """M^1/2 and its pseudo-inverse."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    roots = values.clamp_min(0).sqrt()
    kept = roots > 1e-6 * roots[-1].clamp_min(1e-30)
    inverse = torch.where(kept, 1 / roots.where(kept, torch.ones_like(roots)), torch.zeros_like(roots))
    return (vectors * roots) @ vectors.T, (vectors * inverse) @ vectors.T


# --- style: Gram -------------------------------------------------------------------------------------------


def gram(features: Tensor, target: Tensor, energy: Tensor | float, weight: Tensor | None = None) -> Tensor:
    """|G - A|^2 / energy with the Frobenius norm; A the style's Gram matrix (C, C).

    ``energy`` = |A|^2 makes it relative; 4 C^2 makes it the paper's (Gatys et al. 2016, eq. 4), exactly so where
    picture and style have as many positions.
    """
    apart = gram_matrix(features, weight) - target
    return _known(features, apart.square().sum() / energy, _slope(features, apart * (4 / energy), None, weight))


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
    if factor is None:
        value = torch.cat([torch.linalg.vector_norm(x, dim=1) for _, x, _ in _blocks(apart)]).square().sum()
    else:
        value = (apart.float().square() * factor.view(1, 1, *features.shape[2:])).sum()
    return _known(features, value, Slope(apart.to(features.dtype), torch.full_like(value, 2.0), None, factor))


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
