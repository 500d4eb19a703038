"""Every loss against float64 oracles that share no formula with it, and their gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from stylize import linalg, losses
from stylize.losses import DAMPING, Gaussian, barycenter, gram_matrix, moments, position_weights, wasserstein

Array = NDArray[np.float64]
Oracle = Callable[[Array, Array, Array], float]  # (features (n, C), position weights (n,), style (n, C)) -> loss
EPS = float(np.finfo(np.float32).eps)

SHAPES = {  # (C, H, W)
    "many positions": (5, 6, 7),
    "fewer positions than channels": (12, 2, 4),
    "as many positions as channels": (6, 2, 3),
    "one channel": (1, 4, 5),
    "one row": (4, 1, 9),
    "one position": (4, 1, 1),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
masked = pytest.mark.parametrize("masked", [False, True], ids=["everywhere", "masked"])


def scatter(shape: tuple[int, int, int], seed: int) -> Array:
    """Random features (n, C) with unequal, correlated channels and a mean; exact in float32."""
    channels, height, width = shape
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(channels, channels)) + 2 * np.eye(channels)
    made = generator.normal(size=(height * width, channels)) @ mix + generator.normal(size=channels)
    return made.astype(np.float32).astype(np.float64)


def picture(x: Array, shape: tuple[int, int, int], device: str = "cpu") -> Tensor:
    """Features (n, C) as (1, C, H, W) float32."""
    return torch.tensor(x.T.reshape(1, *shape), dtype=torch.float32, device=device)


def rows(tensor: Tensor | None) -> Array:
    """(1, C, H, W) as (n, C) float64."""
    assert tensor is not None
    array = tensor.detach().double().cpu().numpy()
    return np.asarray(np.moveaxis(array[0], 0, -1).reshape(-1, array.shape[1]))


def assert_close(found: Tensor | None, expected: Tensor | None, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert found is not None
    assert expected is not None
    np.testing.assert_allclose(found.detach().cpu(), expected.detach().cpu(), rtol, atol)


def importance(n: int, masked: bool) -> Array:
    """Position weights (n,) that sum to one."""
    weight = np.random.default_rng(9).uniform(0.2, 1, n) if masked else np.ones(n)
    return np.asarray(weight / weight.sum())


def centred(x: Array, weight: Array) -> tuple[Array, Array]:
    """A with A'A the covariance, and the mean."""
    mean = weight @ x
    return np.sqrt(weight)[:, None] * (x - mean), mean


def wasserstein_oracle(x: Array, weight: Array, style: Array) -> float:
    """With S = A'A and S_s = B'B, tr (S_s^1/2 S S_s^1/2)^1/2 is the sum of the singular values of A B'."""
    a, mean = centred(x, weight)
    b, style_mean = centred(style, importance(len(style), False))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    spread = (a**2).sum() + (b**2).sum() - 2 * cross
    return float((spread + ((mean - style_mean) ** 2).sum()) / ((b**2).sum() + (style_mean**2).sum()))


def gram_oracle(x: Array, weight: Array, style: Array) -> float:
    mine = np.einsum("n,nc,nd->cd", weight, x, x)
    theirs = np.einsum("nc,nd->cd", style, style) / len(style)
    return float(((mine - theirs) ** 2).sum() / (theirs**2).sum())


def content_oracle(x: Array, weight: Array, style: Array) -> float:
    return float((((x - style) ** 2).sum(1) * weight * len(x)).sum() / (style**2).sum())


def wasserstein_loss(features: Tensor, style: Tensor, weight: Tensor | None) -> Tensor:
    return wasserstein(features, Gaussian.of(*moments(style)), weight)


def gram_loss(features: Tensor, style: Tensor, weight: Tensor | None) -> Tensor:
    target = gram_matrix(style)
    return losses.gram(features, target, target.square().sum(), weight)


def content_loss(features: Tensor, style: Tensor, weight: Tensor | None) -> Tensor:
    return losses.content(features, style, style.square().sum(), weight)


TERMS = {
    "wasserstein": (wasserstein_loss, wasserstein_oracle),
    "gram": (gram_loss, gram_oracle),
    "content": (content_loss, content_oracle),
}
terms = pytest.mark.parametrize("term", TERMS)


def slope(function: Callable[[Array], float], x: Array, step: float = 1e-5) -> Array:
    """The gradient by central differences."""
    found = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[index] = step
        found[index] = (function(x + moved) - function(x - moved)) / (2 * step)
    return found


@cache
def oracle_slope(term: str, shape: tuple[int, int, int], masked: bool) -> Array:
    x, style, oracle = scatter(shape, 1), scatter(shape, 2), TERMS[term][1]
    return slope(lambda x: oracle(x, importance(len(x), masked), style), x)


def slack(x: Array, style: Array, weight: Array | None = None) -> float:
    """How far the Wasserstein loss may be off.

    Damping lowers each root by at most DAMPING times the style's largest eigenvalue. Beside it, covariances in
    float32 have eigenvalues of EPS times their largest where there should be none, whose roots are sqrt(EPS).
    """
    a, _ = centred(x, importance(len(x), False) if weight is None else weight)
    b, mean = centred(style, importance(len(style), False))
    mine, theirs = np.linalg.norm(a, 2) ** 2, np.linalg.norm(b, 2) ** 2
    energy = (b**2).sum() + (mean**2).sum()
    rank = min(x.shape)
    roots = rank * (DAMPING * theirs + np.sqrt(EPS * mine * theirs))
    return float((2 * roots + 100 * EPS * (x**2).max() * x.shape[1]) / energy + 1e-5)


# --- values and gradients ------------------------------------------------------------------------------------


@terms
@shapes
@masked
def test_value_equals_the_oracle(term: str, shape: tuple[int, int, int], masked: bool, device: str) -> None:
    loss, oracle = TERMS[term]
    x, style = scatter(shape, 1), scatter(shape, 2)
    weight = importance(len(x), masked)
    mask = torch.tensor(weight, dtype=torch.float32, device=device) if masked else None
    value = loss(picture(x, shape, device), picture(style, shape, device), mask).item()
    tolerance = slack(x, style, weight) if term == "wasserstein" else 1e-5 * oracle(x, weight, style)
    assert value == pytest.approx(oracle(x, weight, style), abs=tolerance)


@terms
@shapes
@masked
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels-last"])
def test_gradient_equals_finite_differences(
    term: str, shape: tuple[int, int, int], masked: bool, memory: torch.memory_format, device: str
) -> None:
    x, style = scatter(shape, 1), scatter(shape, 2)
    weight = torch.tensor(importance(len(x), True), dtype=torch.float32, device=device) if masked else None
    features = picture(x, shape, device).contiguous(memory_format=memory).requires_grad_()
    (3 * TERMS[term][0](features, picture(style, shape, device), weight)).backward()  # a gradient from outside counts
    expected = 3 * oracle_slope(term, shape, masked)
    assert features.grad is not None
    assert features.grad.dtype == torch.float32
    # with few positions one root is zero by construction, and what float32 leaves of it is divided by DAMPING
    few = term == "wasserstein" and len(x) <= shape[0]
    tolerance = 1e-2 if few else 1e-4
    np.testing.assert_allclose(rows(features.grad), expected, rtol=0, atol=tolerance * np.abs(expected).max() + 1e-9)


@terms
@masked
@pytest.mark.parametrize("block", [linalg.BLOCK, 70, 1], ids=["whole", "by two rows", "by one"])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels last", "contiguous"])
def test_bfloat16_features_get_a_bfloat16_gradient(
    term: str, masked: bool, block: int, layout: torch.memory_format, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, oracle = TERMS[term]
    shape = SHAPES["many positions"]  # 5 channels, 6 rows of 7
    monkeypatch.setattr(linalg, "BLOCK", block)
    style = scatter(shape, 2)
    features = picture(scatter(shape, 1), shape, device).to(torch.bfloat16, memory_format=layout).requires_grad_()
    x = rows(features)
    weight = importance(len(x), masked)
    value = loss(features, picture(style, shape, device), torch.tensor(weight).float().to(device) if masked else None)
    value.backward()
    expected = slope(lambda x: oracle(x, weight, style), x)
    assert value.dtype == torch.float32
    expected_value, off = oracle(x, weight, style), slack(x, style) if term == "wasserstein" else 0
    assert value.item() == pytest.approx(expected_value, rel=1e-5, abs=off)
    assert features.grad is not None
    assert features.grad.dtype == torch.bfloat16
    np.testing.assert_allclose(rows(features.grad), expected, rtol=0, atol=2e-2 * np.abs(expected).max())


@terms
@pytest.mark.parametrize("layout", ["transposed", "cut out", "rows last"])
def test_gradient_does_not_depend_on_the_memory_layout(term: str, layout: str, device: str) -> None:
    shape = SHAPES["many positions"]
    style = picture(scatter(shape, 2), shape, device)
    plain = picture(scatter(shape, 1), shape, device)
    other = {
        "transposed": lambda: plain.transpose(2, 3).contiguous().transpose(2, 3),
        "cut out": lambda: torch.nn.functional.pad(plain, (1, 2, 1, 1))[..., 1:-1, 1:-2],
        "rows last": lambda: plain.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    }[layout]()
    assert torch.equal(plain, other)
    gradients = []
    for features in (plain, other):
        leaf = features.detach().requires_grad_()
        TERMS[term][0](leaf, style, None).backward()
        gradients.append(leaf.grad)
    assert_close(gradients[0], gradients[1], rtol=1e-4)


@terms
def test_gradients_of_two_losses_on_one_layer_add_up(term: str, device: str) -> None:
    shape = SHAPES["many positions"]
    style, x = picture(scatter(shape, 2), shape, device), picture(scatter(shape, 1), shape, device)
    apart = []
    for loss in (TERMS[term][0], content_loss):
        leaf = x.clone().requires_grad_()
        loss(leaf, style, None).backward()
        apart.append(leaf.grad)
    leaf = x.clone().requires_grad_()
    (TERMS[term][0](leaf, style, None) + content_loss(leaf, style, None)).backward()
    assert apart[0] is not None
    assert apart[1] is not None
    assert_close(leaf.grad, apart[0] + apart[1])


# --- products ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "size", [(1, 1, 1), (40000, 1, 7), (1, 40000, 4), (700, 64, 33), (5, 30, 12), (9, 0, 4), (900, 64, 0)]
)
def test_products_are_those_of_float64(
    size: tuple[int, int, int], turned: bool, kind: torch.dtype, device: str
) -> None:
    """Whatever computes them, of matrices that lie in memory by rows or by columns, empty ones too."""
    count, width, made = size
    generator = np.random.default_rng(3)
    x, matrix, shift = (generator.normal(size=shape) for shape in ((count, width), (width, made), (made,)))
    other = generator.normal(size=(count, made))

    def tensor(array: Array) -> Tensor:
        found = torch.tensor(array, dtype=kind, device=device)
        return found.T.contiguous().T if turned else found

    close = {"rtol": 0, "atol": 1e-5 * max(count, width, 1) ** 0.5}
    found = linalg.product(tensor(x), tensor(matrix)).cpu()
    np.testing.assert_allclose(found, x @ matrix, **close)
    found = linalg.product(tensor(x), tensor(matrix), torch.tensor(shift, dtype=kind, device=device)).cpu()
    np.testing.assert_allclose(found, x @ matrix + shift, **close)
    np.testing.assert_allclose(linalg.inner(tensor(x), tensor(other)).cpu(), x.T @ other, **close)


# --- moments and weights -------------------------------------------------------------------------------------


@masked
def test_moments_equal_numpy(masked: bool, device: str) -> None:
    shape = SHAPES["many positions"]
    x = scatter(shape, 1)
    weight = importance(len(x), masked)
    mask = torch.tensor(weight, dtype=torch.float32, device=device) if masked else None
    mean, covariance = moments(picture(x, shape, device), mask)
    np.testing.assert_allclose(mean.cpu(), np.average(x, axis=0, weights=weight), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(covariance.cpu(), np.cov(x.T, ddof=0, aweights=weight), rtol=1e-4, atol=1e-5)


def test_position_weights_are_the_mask_averaged_over_each_cell() -> None:
    mask = torch.zeros(1, 1, 4, 8)
    mask[..., 4:] = 1
    mask[..., :2, 2:4] = 0.5
    weight = position_weights(mask, 2, 4)
    np.testing.assert_allclose(weight, np.array([0, 0.5, 1, 1, 0, 0, 1, 1]) / 4.5, atol=1e-7)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4), (40, 40)])
def test_an_empty_mask_weighs_all_positions_alike(size: tuple[int, int]) -> None:
    weight = position_weights(torch.zeros(1, 1, 10, 12), *size)
    np.testing.assert_allclose(weight, np.full(size[0] * size[1], 1 / (size[0] * size[1])), rtol=1e-5)


@terms
@pytest.mark.parametrize("shape", [(4, 6, 6), (24, 4, 4)], ids=["many positions", "few positions"])
def test_what_is_masked_out_does_not_count(term: str, shape: tuple[int, int, int], device: str) -> None:
    channels, height, width = shape
    mask = torch.ones(1, 1, height, width, device=device)
    mask[..., width // 2 :] = 0
    weight = position_weights(mask, height, width)
    hidden = (mask == 0).expand(1, channels, -1, -1)
    style = picture(scatter(shape, 2), shape, device)
    values = []
    for seed in (3, 4):
        x = torch.where(hidden, picture(scatter(shape, seed), shape, device), picture(scatter(shape, 1), shape, device))
        features = x.requires_grad_()
        loss = TERMS[term][0](features, style, weight)
        loss.backward()
        assert features.grad is not None
        # a mask weighs nothing less than 1e-8; with few positions its root meets the division by DAMPING
        assert features.grad[hidden].abs().max() <= 2e-5 * features.grad.abs().max()
        values.append(loss.item())
    assert values[0] == pytest.approx(values[1], rel=1e-4)


@terms
def test_a_uniform_mask_is_no_mask(term: str, device: str) -> None:
    shape = SHAPES["many positions"]
    style, weight = picture(scatter(shape, 2), shape, device), torch.full((42,), 1 / 42, device=device)
    found = []
    for mask in (None, weight):
        features = picture(scatter(shape, 1), shape, device).requires_grad_()
        loss = TERMS[term][0](features, style, mask)
        loss.backward()
        found.append((loss, features.grad))
    for plain, uniform in zip(*found, strict=True):
        assert_close(uniform, plain, rtol=1e-4)


# --- Wasserstein ---------------------------------------------------------------------------------------------


def test_wasserstein_equals_matrix_roots_in_float64(device: str) -> None:
    shape = SHAPES["many positions"]
    x = scatter(shape, 1)
    spread = np.random.default_rng(3).normal(size=(5, 8))
    style, style_mean = spread @ spread.T, np.arange(5.0)
    mine, mean = np.cov(x.T, ddof=0), x.mean(0)
    root = scipy.linalg.sqrtm(style)
    cross = scipy.linalg.sqrtm(root @ mine @ root).real
    energy = np.trace(style) + (style_mean**2).sum()
    expected = ((mean - style_mean) ** 2).sum() + np.trace(mine) + np.trace(style) - 2 * np.trace(cross)
    target = Gaussian.of(torch.tensor(style_mean, device=device).float(), torch.tensor(style, device=device).float())
    value = wasserstein(picture(x, shape, device), target).item()
    damping = (2 if device == "cpu" else 8) * 5 * DAMPING * np.linalg.norm(style, 2) / energy
    assert expected / energy - 1e-5 <= value <= expected / energy + damping + 1e-5


@pytest.mark.slow
@settings(max_examples=60)
@given(
    channels=st.integers(1, 12),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    style_size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    ranks=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    seed=st.integers(0, 99),
)
def test_wasserstein_holds_for_covariances_of_any_rank(
    channels: int, size: tuple[int, int], style_size: tuple[int, int], ranks: tuple[int, int], seed: int
) -> None:
    made = []
    for number, (rank, extent) in enumerate(zip(ranks, (size, style_size), strict=True)):
        x = scatter((channels, *extent), seed + 100 * number)
        x[:, rank:] = x[:, :1] if seed % 2 else 1.5  # repeated or constant channels
        made.append(x)
    x, style = made
    features = picture(x, (channels, *size)).requires_grad_()
    loss = wasserstein_loss(features, picture(style, (channels, *style_size)), None)
    loss.backward()
    expected, tolerance = wasserstein_oracle(x, importance(len(x), False), style), slack(x, style)
    assert loss.item() == pytest.approx(expected, abs=tolerance)
    assert loss.item() >= -tolerance
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


DEFICIENT: dict[str, Callable[[Array], Array]] = {
    "repeated channels": lambda style: style[:, [0, 1, 2, 0, 1]],
    "constant channels": lambda style: np.where(np.arange(5) < 3, style, 0.7),
    "dead channels": lambda style: np.where(np.arange(5) < 3, style, 0),
    "one position": lambda style: style[:1],
    "three positions": lambda style: style[:3],
}


@pytest.mark.parametrize("kind", DEFICIENT)
def test_gradient_is_right_for_a_style_of_low_rank(kind: str, device: str) -> None:
    shape = SHAPES["many positions"]
    x, style = scatter(shape, 1), DEFICIENT[kind](scatter(shape, 2))
    features = picture(x, shape, device).requires_grad_()
    wasserstein_loss(features, picture(style, (5, 1, len(style)), device), None).backward()
    expected = slope(lambda x: wasserstein_oracle(x, importance(len(x), False), style), x)
    # rounding leaves eigenvalues of EPS beside the style's own; they pull with their square root
    np.testing.assert_allclose(rows(features.grad), expected, rtol=0, atol=3e-3 * np.abs(expected).max())


@shapes
@masked
def test_identical_statistics_have_no_distance_and_no_pull(
    shape: tuple[int, int, int], masked: bool, device: str
) -> None:
    x = scatter(shape, 1)
    weight = torch.tensor(importance(len(x), masked), dtype=torch.float32, device=device)
    features = picture(x, shape, device).requires_grad_()
    loss = wasserstein(features, Gaussian.of(*moments(features, weight)), weight)
    loss.backward()
    away = picture(scatter(shape, 2), shape, device).requires_grad_()
    wasserstein(away, Gaussian.of(*moments(features, weight)), weight).backward()
    assert features.grad is not None
    assert away.grad is not None
    assert abs(loss.item()) <= slack(x, x)
    # damping leaves at most half a standard deviation's worth of pull where variance is below DAMPING of the largest
    damped = DAMPING**0.5 if device == "cpu" else 2 * DAMPING**0.5  # roots by products are damped a little more
    assert features.grad.norm() <= damped * away.grad.norm()


def test_a_style_without_any_activation_gives_finite_numbers(device: str) -> None:
    features = picture(scatter((5, 6, 7), 1), (5, 6, 7), device).requires_grad_()
    loss = wasserstein_loss(features, torch.zeros(1, 5, 3, 3, device=device), None)
    loss.backward()
    assert torch.isfinite(loss)
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert features.grad.flatten() @ features.detach().flatten() > 0  # downhill is towards zero


@pytest.mark.parametrize("shape", [(5, 6, 7), (12, 2, 2), (3, 1, 1)])
@masked
def test_features_without_any_activation_give_finite_numbers(
    shape: tuple[int, int, int], masked: bool, device: str
) -> None:
    channels, height, width = shape
    weight = torch.tensor(importance(height * width, masked), dtype=torch.float32, device=device)
    features = torch.zeros(1, *shape, device=device, requires_grad=True)
    style = scatter((channels, 6, 7), 2)
    loss = wasserstein_loss(features, picture(style, (channels, 6, 7), device), weight)
    loss.backward()
    assert loss.item() == pytest.approx(1, abs=slack(np.zeros((1, channels)), style))
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert features.grad.abs().max() > 0


def test_nan_features_give_nan_instead_of_an_exception(device: str) -> None:
    for shape in ((5, 6, 7), (12, 2, 2)):
        features = picture(scatter(shape, 1), shape, device)
        features[0, 0, 0, 0] = torch.nan
        loss = wasserstein_loss(features.requires_grad_(), picture(scatter(shape, 2), shape, device), None)
        loss.backward()
        assert torch.isnan(loss)


def root_by_products(
    matrix: Tensor, floor: Tensor, factor: Tensor | None = None, scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As :func:`linalg.root` takes it on accelerators."""
    trace, inverse = linalg.roots(matrix[None], floor.view(1))
    return trace[0], inverse[0] if factor is None else factor @ inverse[0] @ factor.T


def spectrum(values: Array, seed: int = 0) -> Tensor:
    """A symmetric matrix with these eigenvalues."""
    size = len(values)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    return torch.tensor(basis * values @ basis.T, dtype=torch.float32)


@pytest.mark.parametrize("size", [1, 3, 64])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_both_matrix_roots_agree(size: int, scale: float) -> None:
    values = scale * np.geomspace(1e-3, 1, size)
    matrix, floor = spectrum(values), torch.tensor(DAMPING**2 * scale)
    for function in (linalg.root, root_by_products):
        trace, inverse = function(matrix, floor)
        assert trace.item() == pytest.approx(np.sqrt(values).sum(), rel=4e-3)  # the floor takes a little
        product = (inverse @ inverse @ matrix).double()
        np.testing.assert_allclose(product, np.eye(size), atol=2e-2)  # rounding times the condition, 1e3


def test_the_distance_of_a_style_to_itself_is_nearly_zero_by_either_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most of the many eigenvalues are nearly zero, what damps them must not count as style."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -5, 96)[torch.randperm(96, generator=generator)]
    features = torch.randn(1, 96, 20, 20, generator=generator) * spread.view(1, -1, 1, 1)
    target = losses.Gaussian.of(*losses.moments(features))
    assert losses.wasserstein(features, target).item() == pytest.approx(0, abs=0.01)
    monkeypatch.setattr(losses, "root", root_by_products)
    assert losses.wasserstein(features, target).item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("size", [4, 64, 200])
@pytest.mark.parametrize("rank", [0.25, 0.75])
def test_both_matrix_roots_stand_a_singular_matrix(size: int, rank: float) -> None:
    """In float32 the zeros are eigenvalues of EPS of either sign: further below zero than the floor reaches."""
    values = np.where(np.arange(size) < rank * size, np.linspace(0.5, 1, size), 0)
    matrix, floor = spectrum(values), torch.tensor(DAMPING**2)
    for function in (linalg.root, root_by_products):
        trace, inverse = function(matrix, floor)
        assert trace.item() == pytest.approx(np.sqrt(values).sum(), rel=0.02)
        assert torch.isfinite(inverse).all()
        assert torch.linalg.matrix_norm(inverse, 2) <= 2 / DAMPING


@pytest.mark.parametrize("left", [0, 5, 12])
def test_the_root_by_products_stands_a_flat_picture_under_a_mask(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flat features have a covariance of rounding errors, of either sign."""
    monkeypatch.setattr(losses, "root", root_by_products)
    shape = (64, 24, 24)
    mask = (torch.arange(24) >= left).float().expand(1, 1, 24, 24)
    features = torch.full((1, *shape), 0.5).requires_grad_()
    style = scatter(shape, 2)
    loss = wasserstein_loss(features, picture(style, shape), position_weights(mask, 24, 24))
    loss.backward()
    expected = wasserstein_oracle(np.full((1, 64), 0.5), np.ones(1), style)
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


# --- barycentre ----------------------------------------------------------------------------------------------


def covariance(size: int, rank: int, seed: int) -> Tensor:
    spread = np.random.default_rng(seed).normal(size=(size, rank))
    return torch.tensor(spread @ spread.T / rank, dtype=torch.float32)


def test_barycentre_of_diagonal_covariances_has_a_closed_form() -> None:
    first, second, third = (np.random.default_rng(seed).uniform(0, 4, 6) for seed in (1, 2, 3))
    second[2:4] = 0
    pairs = [(torch.full((6,), float(i)), torch.diag(torch.tensor(s))) for i, s in enumerate((first, second, third))]
    mean, found = barycenter(pairs, (1, 2, 5))
    expected = (np.sqrt(first) / 8 + np.sqrt(second) * 2 / 8 + np.sqrt(third) * 5 / 8) ** 2
    np.testing.assert_allclose(found, np.diag(expected), atol=1e-6)
    np.testing.assert_allclose(mean, np.full(6, 12 / 8), rtol=1e-6)


def test_barycentre_of_one_style_is_that_style() -> None:
    mean, spread = torch.arange(6.0), covariance(6, 9, 1)
    found_mean, found = barycenter([(mean, spread)], (0.3,))
    assert_close(found_mean, mean)
    assert_close(found, spread)


@pytest.mark.parametrize("weights", [(1, 0), (0, 2)])
def test_barycentre_with_all_weight_on_one_style_is_that_style(weights: tuple[float, float]) -> None:
    pairs = [(torch.full((6,), float(seed)), covariance(6, 9, seed)) for seed in (1, 2)]
    for found, expected in zip(barycenter(pairs, weights), pairs[weights.index(0) ^ 1], strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_barycentre_is_the_fixed_point_of_its_equation() -> None:
    """S = sum w (S^1/2 S_i S^1/2)^1/2 (Agueh, Carlier 2011)."""
    parts, shares = [covariance(6, 9, seed) for seed in (1, 2, 3)], (0.2, 0.3, 0.5)
    _, found = barycenter([(torch.zeros(6), part) for part in parts], shares)
    root = scipy.linalg.sqrtm(found.double().numpy())
    again = sum(w * scipy.linalg.sqrtm(root @ p.double().numpy() @ root) for w, p in zip(shares, parts, strict=True))
    np.testing.assert_allclose(found, again, atol=1e-3 * found.abs().max().item())


@pytest.mark.parametrize("ranks", [(2, 2), (1, 6), (0, 3), (0, 0)])
def test_barycentre_of_low_rank_covariances_is_finite_and_positive(ranks: tuple[int, int]) -> None:
    parts = [covariance(6, rank, seed) if rank else torch.zeros(6, 6) for seed, rank in enumerate(ranks)]
    _, found = barycenter([(torch.zeros(6), part) for part in parts], (1, 1))
    assert torch.isfinite(found).all()
    assert torch.linalg.eigvalsh(found.double()).min() >= -1e-6
    assert 0 <= found.trace() <= sum(part.trace() for part in parts) / 2 + 1e-5  # never above the mean


# --- the paper's units ---------------------------------------------------------------------------------------


def test_gram_in_the_papers_units_is_equation_4(device: str) -> None:
    shape = (5, 6, 7)
    f, a = scatter(shape, 1).T, scatter(shape, 2).T  # (N, M) as the paper has them
    filters, positions = f.shape
    expected = 0.0
    for i in range(filters):
        for j in range(filters):
            g_ij = sum(f[i, k] * f[j, k] for k in range(positions))
            a_ij = sum(a[i, k] * a[j, k] for k in range(positions))
            expected += (g_ij - a_ij) ** 2 / (4 * filters**2 * positions**2)
    target = gram_matrix(picture(scatter(shape, 2), shape, device))
    value = losses.gram(picture(scatter(shape, 1), shape, device), target, 4 * filters**2)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_content_in_the_papers_units_is_equation_1(device: str) -> None:
    shape = (5, 6, 7)
    expected = 0.5 * ((scatter(shape, 1) - scatter(shape, 2)) ** 2).sum()
    value = losses.content(picture(scatter(shape, 1), shape, device), picture(scatter(shape, 2), shape, device), 2)
    assert value.item() == pytest.approx(expected, rel=1e-5)


# --- total variation -----------------------------------------------------------------------------------------


def variation_oracle(image: Array) -> float:
    """Of (C, H, W), pixel by pixel."""
    total, (channels, height, width) = 0.0, image.shape
    for c, y, x in np.ndindex(channels, height, width):
        across = image[c, y, x + 1] - image[c, y, x] if x + 1 < width else 0.0
        down = image[c, y + 1, x] - image[c, y, x] if y + 1 < height else 0.0
        total += np.sqrt(across**2 + down**2 + (1 / 255) ** 2) - 1 / 255
    return total / image.size


@pytest.mark.parametrize("size", [(5, 6), (1, 7), (7, 1), (1, 1), (2, 2)])
def test_total_variation_equals_the_oracle(size: tuple[int, int], device: str) -> None:
    values = np.random.default_rng(1).uniform(size=(3, *size)).astype(np.float32).astype(np.float64)
    image = torch.tensor(values[None], dtype=torch.float32, device=device, requires_grad=True)
    loss = losses.total_variation(image)
    loss.backward()
    assert loss.item() == pytest.approx(variation_oracle(values), rel=1e-5, abs=1e-8)
    assert image.grad is not None
    np.testing.assert_allclose(image.grad[0].cpu(), slope(variation_oracle, values), atol=1e-6)


def test_a_flat_picture_has_no_variation_and_a_finite_gradient(device: str) -> None:
    image = torch.full((1, 3, 8, 9), 0.3, device=device, requires_grad=True)
    loss = losses.total_variation(image)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-7)
    assert image.grad is not None
    assert image.grad.abs().max() == 0


def test_total_variation_is_in_intensity_per_pixel() -> None:
    ramp = torch.arange(11.0).mul(0.1).expand(1, 3, 4, 11)
    assert losses.total_variation(ramp, smoothing=1e-6).item() == pytest.approx(0.1 * 10 / 11, rel=1e-4)


def layer(channels: int, shape: tuple[int, int], seed: int) -> Tensor:
    """Features as an encoder gives them: no channel below zero, of different energy, some correlated."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator) * torch.logspace(0, -1.5, channels)[:, None]
    noise = torch.randn(channels, shape[0] * shape[1], generator=generator)
    return (mixing @ noise + 0.3).clamp_min(0).view(1, channels, *shape)


@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_of_layers_has_the_distances_of_its_layers(masked: bool) -> None:
    """Padded to one size and with another root: values and gradients are those of each layer by itself."""
    sizes = {24: (9, 14), 40: (5, 7), 7: (18, 28)}  # the second has fewer positions than channels
    styles = [layer(channels, shape, 1) for channels, shape in sizes.items()]
    pictures = [layer(channels, shape, 2) for channels, shape in sizes.items()]
    mask = (torch.arange(28) < 20).float().expand(1, 1, 18, 28)
    weights = [position_weights(mask, *shape) if masked else None for shape in sizes.values()]
    targets, shares = [Gaussian.of(*moments(style)) for style in styles], [1.0, 0.5, 2.0]
    single = [picture.clone().requires_grad_() for picture in pictures]
    values = [wasserstein(*each) for each in zip(single, targets, weights, strict=True)]
    expected = torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum()
    expected.backward()
    together = [picture.clone().requires_grad_() for picture in pictures]
    found = losses.wasserstein_of_batches([(losses.WassersteinBatch(targets, shares), together, weights)])
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=0.02)
    for one, other in zip(single, together, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert (one.grad - other.grad).norm() <= 0.06 * one.grad.norm()


@pytest.mark.slow
def test_a_gaussian_by_cholesky_is_the_one_by_eigenvalues() -> None:
    mean, covariance = moments(layer(30, (20, 20), 3))
    by_values, by_cholesky = Gaussian.of(mean, covariance), Gaussian._by_cholesky(mean, covariance)
    torch.testing.assert_close(by_cholesky.factor @ by_cholesky.factor.T, covariance, rtol=1e-4, atol=1e-6)
    for name in ("mean", "trace", "energy"):
        torch.testing.assert_close(getattr(by_cholesky, name), getattr(by_values, name), rtol=1e-4, atol=0)
    torch.testing.assert_close(by_cholesky.floor, by_values.floor, rtol=2e-2, atol=0)


def test_a_gaussian_by_cholesky_stands_a_flat_style() -> None:
    mean, covariance = moments(torch.full((1, 16, 8, 8), 0.5))
    found = Gaussian._by_cholesky(mean, covariance)
    assert torch.isfinite(found.factor).all()
    assert found.energy.item() == pytest.approx(4.0, rel=1e-4)


def test_products_in_chunks_are_the_products() -> None:
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 7, linalg.CHUNK, 3 * linalg.CHUNK + 5):
        x, other = (torch.randn(rows, width, generator=generator) for width in (6, 4))
        expected = (x.double().T @ other.double()).float()
        torch.testing.assert_close(linalg._inner_in_chunks(x, other), expected, rtol=1e-4, atol=1e-3)
        halves = x.bfloat16(), other.bfloat16()
        expected = (halves[0].double().T @ halves[1].double()).float()
        torch.testing.assert_close(linalg._inner_in_chunks(*halves), expected, rtol=1e-4, atol=1e-3)


def test_the_polynomials_bring_all_of_the_interval_to_one() -> None:
    s = np.geomspace(np.sqrt(linalg.ROUNDING / (linalg.SAFETY + linalg.ROUNDING)), 1, 10000)
    for a, b, c in linalg.POLYNOMIALS:
        s = a * s + b * s**3 + c * s**5
    np.testing.assert_allclose(s, 1, atol=1e-6)


# Self-similarity


def test_self_similarity_is_the_cosine_distance_of_positions_over_the_mean_of_its_column() -> None:
    features = torch.randn(1, 7, 3, 4, generator=torch.Generator().manual_seed(1))
    found = losses.self_similarity(features, (3, 4))
    rows = features[0].flatten(1).T.double()
    expected = torch.zeros(12, 12, dtype=torch.float64)
    for one in range(12):
        for other in range(12):
            cosine = rows[one] @ rows[other] / (rows[one].norm() * rows[other].norm())
            expected[one, other] = 1 - cosine
    expected /= expected.mean(0)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


def test_self_similarity_does_not_ask_what_things_are() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(1, 6, 4, 4, generator=generator)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    other = 3 * torch.einsum("ij,bjhw->bihw", turn, features)
    torch.testing.assert_close(losses.self_similarity(features, (4, 4)), losses.self_similarity(other, (4, 4)))
