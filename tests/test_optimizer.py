"""L-BFGS and Adam against numpy, scipy, torch.optim and a textbook two-loop recursion."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, pairwise

import numpy as np
import pytest
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylize.optimizer import (
    FIRST_MOVE,
    LBFGS,
    MOVING,
    NEAR_MOVE,
    RESET_AFTER,
    WORSE,
    Adam,
    Curvature,
    Evaluate,
    Optimizer,
)

Array = NDArray[np.float64]
OPTIMIZERS: dict[str, Callable[[Evaluate, Tensor], Optimizer]] = {"lbfgs": LBFGS, "adam": Adam}
both = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def objective(function: Callable[[Tensor], Tensor], seen: list[Tensor] | None = None) -> Evaluate:
    """Evaluate by automatic differentiation; ``seen`` collects the pictures that were asked for."""

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        if seen is not None:
            seen.append(image.clone())
        leaf = image.detach().requires_grad_()
        value = function(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
        return torch.stack([value, value]).detach(), gradient

    return evaluate


def quadratic(size: int, condition: float, seed: int = 0) -> tuple[Array, Array, Array]:
    """A, b and the minimum of x'Ax/2 - b'x."""
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(generator.normal(size=(size, size)))[0]
    matrix = basis * np.geomspace(1 / condition, 1, size) @ basis.T
    vector = matrix @ generator.uniform(0.2, 0.8, size)
    return matrix, vector, np.linalg.solve(matrix, vector)


def bowl(matrix: Array, vector: Array, like: Tensor) -> Callable[[Tensor], Tensor]:
    a, b = torch.tensor(matrix).to(like), torch.tensor(vector).to(like)

    def function(image: Tensor) -> Tensor:
        x = image.flatten()
        return x @ a @ x / 2 - b @ x

    return function


def run(optimizer: Optimizer, steps: int) -> list[float]:
    """The loss of the picture held after each step."""
    values = []
    for _ in range(steps):
        optimizer.step()
        values.append(optimizer.values[0].item())
    return values


def assert_close(found: Tensor, expected: Tensor, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found.cpu(), expected.cpu(), rtol, atol)


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item()


# --- L-BFGS: where it arrives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("history", [5, 20])
def test_lbfgs_solves_an_ill_conditioned_quadratic(dtype: torch.dtype, history: int, device: str) -> None:
    matrix, vector, solution = quadratic(60, condition=1e3)
    start = torch.full((1, 3, 4, 5), 0.5, dtype=dtype, device=device)
    optimizer = LBFGS(objective(bowl(matrix, vector, start)), start, history)
    run(optimizer, 250)
    np.testing.assert_allclose(optimizer.image.flatten().cpu(), solution, atol=2e-3)


def test_lbfgs_needs_about_as_many_evaluations_as_scipy_on_rosenbrock(device: str) -> None:
    begin = np.tile([1.3, 0.7, 0.8, 1.9, 1.2], 4)
    theirs = scipy.optimize.minimize(
        scipy.optimize.rosen, begin, jac=scipy.optimize.rosen_der, method="L-BFGS-B", options={"maxcor": 20}
    )

    def rosenbrock(image: Tensor) -> Tensor:
        x = image.flatten()
        return (100 * (x[1:] - x[:-1].square()).square() + (1 - x[:-1]).square()).sum()

    start = torch.tensor(begin, device=device).view(1, 1, 4, 5)
    optimizer = LBFGS(objective(rosenbrock), start)
    run(optimizer, 3 * theirs.nfev)
    np.testing.assert_allclose(theirs.x, np.ones(20), atol=1e-3)
    np.testing.assert_allclose(optimizer.image.flatten().cpu(), theirs.x, atol=1e-3)


def test_lbfgs_leaves_a_region_of_negative_curvature_downhill(device: str) -> None:
    def double_well(image: Tensor) -> Tensor:
        return (image.square() - 1).square().mean()

    start = torch.linspace(0.02, 0.3, 20, device=device).view(1, 1, 4, 5)
    assert start.max() < 3**-0.5  # all of it concave
    optimizer = LBFGS(objective(double_well), start)
    values = run(optimizer, 120)
    assert all(now <= before * (1 + WORSE) for before, now in pairwise(values))
    np.testing.assert_allclose(optimizer.image.cpu(), np.ones((1, 1, 4, 5)), atol=1e-3)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_a_warm_start_a_level_or_two_from_the_optimum_does_not_overshoot(levels: float, device: str) -> None:
    """On a quadratic a step of length r along the gradient makes it worse where r exceeds twice the distance."""
    sign = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2)).sign().to(device)
    start, bowl = 0.5 + sign * levels / 255, objective(lambda image: (image - 0.5).square().sum())
    optimizer = LBFGS(bowl, start, first_move=NEAR_MOVE)
    before, after = run(optimizer, 2)
    assert optimizer.failures.item() == 0
    assert after < before


def test_the_first_move_is_downhill_by_a_fixed_amount(device: str) -> None:
    seen: list[Tensor] = []
    start = torch.rand(1, 3, 5, 4, generator=torch.Generator().manual_seed(1)).to(device)
    optimizer = LBFGS(objective(lambda image: 1e5 * image.pow(3).sum(), seen), start)
    run(optimizer, 2)
    move = seen[1] - seen[0]
    assert torch.equal(seen[0], start)
    assert move.square().mean().sqrt().item() == pytest.approx(FIRST_MOVE, rel=1e-4)
    assert cosine(move, -start.square()) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 1, 7), (1, 3, 5, 2)])
def test_lbfgs_takes_channels_last_pictures(shape: tuple[int, ...]) -> None:
    matrix, vector, _ = quadratic(int(np.prod(shape)), condition=20)
    found = []
    for memory in (torch.contiguous_format, torch.channels_last):
        start = torch.full(shape, 0.5, dtype=torch.float64).contiguous(memory_format=memory)
        evaluate = objective(bowl(matrix, vector, start))

        def laid_out(image: Tensor, evaluate: Evaluate = evaluate, memory: torch.memory_format = memory) -> object:
            values, gradient = evaluate(image)
            return values, gradient.contiguous(memory_format=memory)

        optimizer = LBFGS(laid_out, start)  # type: ignore[arg-type]
        run(optimizer, 12)
        found.append(optimizer.image)
    assert_close(found[0], found[1])


# --- L-BFGS: the direction -----------------------------------------------------------------------------------------


def two_loops(gradient: Array, pairs: list[tuple[Array, Array]]) -> Array:
    """-H g (Nocedal, Wright 2006, algorithm 7.4), pairs oldest first."""
    q, alphas = gradient.copy(), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q -= alphas[-1] * y
    s, y = pairs[-1]
    r = (s @ y) / (y @ y) * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r += s * (alpha - y @ r / (s @ y))
    return -r


def expected_moves(points: list[Array], gradients: list[Array], history: int) -> list[Array]:
    """Where a textbook L-BFGS goes from each point, if every step is accepted; longer by 30 % of the share of the slope
    that steps leave over, on average."""
    moves, pairs = list[Array](), list[tuple[Array, Array]]()
    left, length = 0.0, 1.0
    for k, gradient in enumerate(gradients):
        if k:
            s, y = points[k] - points[k - 1], gradients[k] - gradients[k - 1]
            left = 0.6 * left + 0.4 * float(np.clip((gradient @ s) / (gradients[k - 1] @ s), -1, 1))
            length = float(np.clip(length * (1 + 0.3 * left), 0.5, 2.5))
            if s @ y > 1e-6 * np.linalg.norm(s) * np.linalg.norm(y):
                pairs.append((s, y))
        if pairs:
            moves.append(length * two_loops(gradient, pairs[-history:]))
        else:
            moves.append(-FIRST_MOVE * gradient / np.sqrt((gradient**2).mean()))
    return moves


@pytest.mark.parametrize("history", [1, 3, 50])
def test_direction_equals_the_two_loop_recursion_on_a_quadratic(history: int) -> None:
    matrix, vector, _ = quadratic(60, condition=30, seed=2)
    start, seen = torch.full((1, 3, 4, 5), 0.5, dtype=torch.float64), list[Tensor]()
    optimizer = LBFGS(objective(bowl(matrix, vector, start), seen), start, history)
    for _ in range(16):
        optimizer.step()
        assert optimizer.failures == 0  # else the points would not be one chain
    points = [image.flatten().numpy() for image in seen]
    moves = expected_moves(points, [matrix @ x - vector for x in points], history)
    for before, after, move in zip(points, points[1:], moves, strict=False):
        np.testing.assert_allclose(after - before, move, rtol=1e-6, atol=1e-9 * np.abs(move).max())


@pytest.mark.parametrize("history", [1, 4, 7, 30])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_direction_equals_the_two_loop_recursion_for_random_pairs(history: int, seed: int, dtype: torch.dtype) -> None:
    """Gradients without any function behind them: about half of the pairs have negative curvature."""
    generator, calls = np.random.default_rng(seed), count()
    points, gradients = list[Array](), list[Array]()

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.tensor(generator.normal(size=24), dtype=dtype)
        points.append(image.flatten().double().numpy().copy())
        gradients.append(gradient.double().numpy().copy())
        return torch.tensor([-float(next(calls))], dtype=dtype), gradient.view_as(image)

    optimizer = LBFGS(evaluate, torch.zeros(1, 2, 3, 4, dtype=dtype), history)
    for _ in range(20):
        optimizer.step()
    moves = expected_moves(points, gradients, history)
    tolerance, rounding = (1e-6, 1e-14) if dtype == torch.float64 else (2e-2, 1e-6)
    for before, after, move in zip(points, points[1:], moves, strict=False):
        length = np.linalg.norm(after - before)  # may be limited
        apart = (after - before) / length - move / np.linalg.norm(move)
        assert np.linalg.norm(apart) <= tolerance + rounding * np.linalg.norm(before) / length


# --- L-BFGS: trials that fail --------------------------------------------------------------------------------------


def scripted(losses: list[float], seen: list[Tensor]) -> Evaluate:
    """These losses in turn, with the gradient of a tilted plane."""
    script = iter(losses)

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(image.clone())
        value = next(script)
        gradient = torch.arange(1.0, 13, device=image.device).view_as(image)
        return torch.tensor([value, value], device=image.device), gradient * (value / value)

    return evaluate


@pytest.mark.parametrize("bad", [2.0, float("nan"), float("inf")])
def test_a_failed_trial_is_taken_back_and_repeated_with_a_quarter_of_the_step(bad: float, device: str) -> None:
    seen: list[Tensor] = []
    start = torch.full((1, 3, 2, 2), 0.5, device=device)
    optimizer = LBFGS(scripted([1.0, bad, bad, 0.5], seen), start)
    for failures in (0, 1, 2):
        optimizer.step()
        assert torch.equal(optimizer.image, start)
        assert optimizer.values.tolist() == [1, 1]
        assert optimizer.failures == failures
    first, second = seen[1] - start, seen[2] - start
    assert_close(second, first / 4, rtol=1e-4, atol=1e-7)
    optimizer.step()
    assert torch.equal(optimizer.image, seen[3])
    assert optimizer.values.tolist() == [0.5, 0.5]
    assert optimizer.failures == 0


def test_repeated_failures_end_in_a_small_step_of_steepest_descent(device: str) -> None:
    matrix, vector, _ = quadratic(12, condition=100)
    start, seen = torch.full((1, 3, 2, 2), 0.5, device=device), list[Tensor]()
    good, calls = objective(bowl(matrix, vector, start), seen), count()

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        values, gradient = good(image)
        return values + (9.0 if next(calls) >= 5 else 0.0), gradient

    optimizer = LBFGS(evaluate, start)
    run(optimizer, 5 + RESET_AFTER)
    held = optimizer.image
    optimizer.step()
    gradient = good(held)[1]
    assert cosine(seen[-2] - held, -gradient) == pytest.approx(1, abs=1e-3)
    assert (seen[-2] - held).square().mean().sqrt() < FIRST_MOVE / 10


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_held_never_gets_worse_than_the_allowance(seed: int, device: str) -> None:
    """On a rugged function, where step 1 often fails."""
    tilt = torch.randn(48, generator=torch.Generator().manual_seed(seed)).to(device)

    def rugged(image: Tensor) -> Tensor:
        x = image.flatten()
        return (20 * (x - tilt).square() + 3 * torch.sin(25 * x + tilt)).sum() + 200

    optimizer = LBFGS(objective(rugged), torch.full((1, 3, 4, 4), 0.5, device=device))
    values, retries = [], 0
    for _ in range(80):
        optimizer.step()
        retries += int(optimizer.failures > 0)
        values.append(optimizer.values[0].item())
        assert values[-1] == pytest.approx(rugged(optimizer.image).item(), rel=1e-5)
    assert retries
    assert all(now <= before * (1 + WORSE) + 1e-4 for before, now in pairwise(values))
    assert values[-1] < values[0]


def barrier(image: Tensor) -> Tensor:
    """Minimum at 1/5, 1/10, ...; NaN at any negative pixel."""
    steepness = 5 * torch.arange(1, image.numel() + 1).to(image)
    return (steepness * image.flatten() - image.flatten().log()).sum()


def test_lbfgs_finds_a_minimum_beside_a_region_of_nan(device: str) -> None:
    start, nans = torch.full((1, 1, 2, 3), 1.0, dtype=torch.float64, device=device), 0
    optimizer = LBFGS(objective(barrier), start)
    for _ in range(80):
        optimizer.step()
        nans += not optimizer.finite
        assert torch.isfinite(optimizer.image).all()
        assert torch.isfinite(optimizer.values).all()
        assert bool(optimizer.report[1]) == bool(optimizer.finite)
        assert optimizer.report[0] == optimizer.failures
    assert nans
    np.testing.assert_allclose(optimizer.image.flatten().cpu(), 0.2 / np.arange(1, 7), rtol=1e-3)


Spoil = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
SPOILT: dict[str, Spoil] = {
    "NaN loss": lambda values, gradient: (values * torch.nan, gradient),
    "NaN term": lambda values, gradient: (torch.stack([values[0], values[1] * torch.nan]), gradient),
    "inf loss": lambda values, gradient: (values + torch.inf, gradient),
    "NaN gradient": lambda values, gradient: (values, torch.where(gradient == gradient.max(), torch.nan, gradient)),
    "inf gradient": lambda values, gradient: (values, torch.where(gradient == gradient.max(), torch.inf, gradient)),
    "both infinities": lambda values, gradient: (values, torch.sign(gradient) * torch.inf),
}


@both
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("call", [1, 2, 9])
def test_numbers_that_are_not_finite_once_are_survived(
    make: Callable[[Evaluate, Tensor], Optimizer], spoil: Spoil, call: int, device: str
) -> None:
    matrix, vector, solution = quadratic(12, condition=10)
    start, calls = torch.full((1, 3, 2, 2), 0.5, device=device), count()
    good = objective(bowl(matrix, vector, start))

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        result = good(image)
        return spoil(*result) if next(calls) == call else result

    optimizer = make(evaluate, start)
    for number in range(100):
        optimizer.step()
        assert bool(optimizer.finite) == (number != call)
        if number == call:
            assert optimizer.failures == 1
        assert optimizer.report.tolist() == [optimizer.failures, optimizer.finite, *optimizer.values.tolist()]
        assert torch.isfinite(optimizer.image).all()
        assert torch.isfinite(optimizer.values).all()
    np.testing.assert_allclose(optimizer.image.flatten().cpu(), solution, atol=0.02)


@both
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_numbers_that_are_never_finite_are_reported_and_the_picture_kept(
    make: Callable[[Evaluate, Tensor], Optimizer], spoil: Spoil, device: str
) -> None:
    start = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1)).to(device)
    good = objective(lambda image: image.square().sum())
    optimizer = make(lambda image: spoil(*good(image)), start)
    for number in range(1, 15):
        optimizer.step()
        assert not optimizer.finite
        assert optimizer.failures == number
        assert optimizer.report[0] == number
        assert torch.equal(optimizer.image, start)


@both
def test_nan_in_the_first_evaluation_shows_in_the_report(
    make: Callable[[Evaluate, Tensor], Optimizer], device: str
) -> None:
    optimizer = make(scripted([float("nan")], []), torch.zeros(1, 3, 2, 2, device=device))
    optimizer.step()
    assert not optimizer.finite
    assert optimizer.report[0] == 1
    assert optimizer.report[1] == 0
    assert torch.isnan(optimizer.report[2:]).all()


@both
def test_a_picture_without_gradient_stays_as_it_is(make: Callable[[Evaluate, Tensor], Optimizer], device: str) -> None:
    start = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1)).to(device)
    optimizer = make(objective(lambda image: image.sum() * 0), start)
    run(optimizer, 12)
    assert_close(optimizer.image, start)


# --- Adam ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_adam_takes_the_steps_of_torch(device: str) -> None:
    matrix, vector, _ = quadratic(12, condition=5)
    start = torch.full((1, 3, 2, 2), 0.5, device=device)
    function = bowl(matrix, vector, start)
    leaf = start.clone().requires_grad_()
    theirs = torch.optim.Adam([leaf], lr=0.005, betas=(0.9, 0.99))
    seen: list[Tensor] = []
    optimizer = Adam(objective(function, seen), start, learning_rate=0.005)
    for number in range(40):
        optimizer.step()
        assert_close(seen[number], leaf.detach(), rtol=1e-5, atol=1e-6)
        theirs.zero_grad()
        function(leaf).backward()
        theirs.step()
    assert 0.01 < leaf.min() < leaf.max() < 0.99  # the projection never played a part
    assert (leaf - start).abs().max() > 0.05


def test_lbfgs_finds_the_minimum_within_its_bounds(device: str) -> None:
    target = torch.linspace(-1, 2, 60, device=device).view(1, 3, 4, 5)
    seen: list[Tensor] = []
    evaluate = objective(lambda image: ((image - target).square() * (1 + target.abs())).sum(), seen)
    optimizer = LBFGS(evaluate, torch.full_like(target, 0.5), bounds=(0.0, 1.0))
    run(optimizer, 60)
    assert all(0 <= image.min() <= image.max() <= 1 for image in seen)
    assert_close(optimizer.image, target.clamp(0, 1), atol=1e-3)


def test_adam_stays_between_black_and_white(device: str) -> None:
    seen: list[Tensor] = []
    target = torch.linspace(-2, 3, 48, device=device).view(1, 3, 4, 4)
    start = torch.full((1, 3, 4, 4), 0.5, device=device)
    optimizer = Adam(objective(lambda image: (image - target).square().sum(), seen), start, learning_rate=0.2)
    run(optimizer, 60)
    assert all(image.min() >= 0 and image.max() <= 1 for image in seen)
    assert_close(optimizer.image, target.clamp(0, 1), rtol=0, atol=0.01)


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0])
def test_adam_keeps_the_best_picture_and_goes_on_from_the_last(device: str, rate: float) -> None:
    seen: list[Tensor] = []
    target = torch.linspace(0.3, 0.7, 48, device=device).view(1, 3, 4, 4)

    def function(image: Tensor) -> Tensor:
        return (image - target).square().sum() + (image.mean() - 0.2).abs()

    optimizer = Adam(objective(function, seen), torch.full_like(target, 0.5), learning_rate=rate)
    totals = []
    for _ in range(30):
        optimizer.step()
        totals.append(float(optimizer.values[0]))
    values = [float(function(image)) for image in seen]
    assert max(values[1:]) > min(values)  # steps did make it worse
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == pytest.approx(min(values))
    assert torch.equal(optimizer.image, seen[values.index(min(values))])


def test_adam_repeats_a_failed_trial_with_half_the_step(device: str) -> None:
    seen: list[Tensor] = []
    start = torch.full((1, 3, 2, 2), 0.5, device=device)
    optimizer = Adam(scripted([1.0, float("nan"), float("nan"), 0.5], seen), start, learning_rate=0.08)
    run(optimizer, 3)
    assert torch.equal(optimizer.image, start)
    assert optimizer.failures == 2
    for trial, move in zip(seen[1:], (0.08, 0.04), strict=False):
        assert_close(trial, start - move, rtol=1e-5, atol=1e-6)


# --- both ------------------------------------------------------------------------------------------------------------


@both
def test_two_runs_are_bit_identical(make: Callable[[Evaluate, Tensor], Optimizer]) -> None:
    matrix, vector, _ = quadratic(60, condition=100)
    start = torch.full((1, 3, 4, 5), 0.5)
    found = []
    for _ in range(2):
        optimizer = make(objective(bowl(matrix, vector, start)), start)
        run(optimizer, 40)
        found.append(optimizer)
    assert torch.equal(found[0].image, found[1].image)
    assert torch.equal(found[0].report, found[1].report)


@both
def test_the_start_is_not_written_to(make: Callable[[Evaluate, Tensor], Optimizer]) -> None:
    start = torch.full((1, 3, 4, 5), 0.5)
    optimizer = make(objective(lambda image: image.square().sum()), start)
    run(optimizer, 5)
    assert torch.equal(start, torch.full((1, 3, 4, 5), 0.5))
    assert not torch.equal(optimizer.image, start)


@pytest.mark.parametrize("make", [LBFGS, partial(LBFGS, compact=True), Adam], ids=["L-BFGS", "compact", "Adam"])
def test_in_parts_it_goes_as_in_one(make: Callable[..., Optimizer], monkeypatch: pytest.MonkeyPatch) -> None:
    def path(part: int) -> list[Tensor]:
        monkeypatch.setattr("stylize.optimizer.PART", part)
        matrix, vector, _ = quadratic(60, condition=30, seed=2)
        start = torch.full((1, 3, 4, 5), 0.5)
        optimizer = make(objective(bowl(matrix, vector, start), []), start)
        found = []
        for _ in range(12):
            optimizer.step()
            found.append(optimizer.image)
        return found

    for whole, parted in zip(path(2**20), path(7), strict=True):
        torch.testing.assert_close(parted, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@both
def test_it_holds_no_more_pictures_than_it_says(
    make: Callable[[Evaluate, Tensor], Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside its history, or the two that Adam keeps, the start, which is not its own, and what is worked on."""
    import stylize.optimizer as module

    gc.collect()
    gc.freeze()  # what there is already is not counted, and need not be looked through
    found: list[int] = []
    parts = module._parts
    start = torch.full((1, 3, 5, 331), 0.5)

    def counted(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        for part in parts(*tensors):
            alive = [thing for thing in gc.get_objects() if type(thing) is Tensor]
            storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in alive}
            found.append(list(storages.values()).count(start.nbytes))
            yield part

    monkeypatch.setattr(module, "PART", 2000)
    monkeypatch.setattr(module, "_parts", counted)
    optimizer = make(objective(lambda image: (image - 0.3).square().sum() + image.prod()), start)
    run(optimizer, 5)
    gc.unfreeze()
    assert len(found) >= 5 * 3
    assert max(found) <= 1 + 2 * isinstance(optimizer, Adam) + MOVING


@pytest.mark.parametrize("history", [4, 30])
def test_lbfgs_begins_with_the_curvature_that_another_has_left(history: int) -> None:
    """On a quadratic, whose curvature is the same everywhere: from another start it goes on as if it had gone on."""
    matrix, vector, minimum = quadratic(48, 100)
    start = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    evaluate = objective(bowl(matrix, vector, start))
    first = LBFGS(evaluate, start, history)
    run(first, 20)
    known = first.curvature()
    assert known.moves is not None
    assert known.moves.shape == (min(history, 19), 3, 4, 4)
    other = torch.rand(start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    best = float(vector @ minimum / -2)
    left = {}
    for name, curvature in (("none", None), ("known", known)):
        optimizer = LBFGS(evaluate, other, history, curvature=curvature)
        left[name] = run(optimizer, 8)[-1] - best
        moved = optimizer.moved()
        if curvature is not None:
            assert evaluate(moved)[0][0] < optimizer.values[0]  # the move that is taken last is one for the better
        assert torch.equal(optimizer.image + optimizer._move, moved)
    assert left["known"] < left["none"] / (1.2 if history < 10 else 3)


def test_pairs_without_positive_curvature_are_not_begun_with() -> None:
    moves = torch.rand(3, 3, 4, 4, dtype=torch.float64)
    changes = torch.stack([moves[0], -moves[1], 2 * moves[2]])
    start = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    optimizer = LBFGS(objective(lambda x: x.square().sum() / 2), start, 5, curvature=Curvature(moves, changes))
    left = optimizer.curvature()
    assert left.moves is not None
    assert torch.equal(left.moves, moves[[0, 2]])


def test_a_move_after_a_failure_is_not_taken_unseen() -> None:
    start = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    matrix, vector, _ = quadratic(48, 10)
    good = objective(bowl(matrix, vector, start))
    calls = count()

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        values, gradient = good(image)
        return (values * math.nan if next(calls) == 4 else values), gradient

    optimizer = LBFGS(evaluate, start)
    run(optimizer, 5)
    assert torch.equal(optimizer.moved(), optimizer.image)
    optimizer.step()
    assert not torch.equal(optimizer.moved(), optimizer.image)
