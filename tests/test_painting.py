"""The loop over scales and steps, with terms made by hand on the tiny encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import count, pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from stylize import losses
from stylize.encoders import EncoderSpec
from stylize.errors import DeviceError, OptimizationError, SettingsError
from stylize.features import Engine
from stylize.images import resize
from stylize.objective import Term
from stylize.observing import Step
from stylize.painting import GIVE_UP, paint
from stylize.pyramid import Scale
from stylize.reports import WINDOW
from stylize.settings import Settings
from stylize.tiles import Features

from .conftest import waves

LAYER = "relu2_1"
SCALES = (Scale(8, 10, 6), Scale(16, 20, 5), Scale(33, 39, 4))
optimizers = pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])


@pytest.fixture
def make(tiny: EncoderSpec) -> Callable[..., Engine]:
    def made(layers: Sequence[str] = (LAYER,), **settings: object) -> Engine:
        chosen = {"encoder": "tiny", "device": "cpu", "tolerance": 0.0, **settings}
        return Engine(Settings(**chosen), layers, encoders=[tiny])  # type: ignore[arg-type]

    return made


def towards(target: Tensor, weight: float = 1.0, name: str = "pixels") -> Term:
    """Squared distance of the pixels, the target at the picture's size."""

    def function(image: Tensor, features: Features) -> Tensor:
        return (image - resize(target, *image.shape[2:])).square().sum()

    return Term(name, weight, function)


def resembling(engine: Engine, target: Tensor, scale: Scale, weight: float = 1.0) -> Term:
    """Squared distance of the features."""
    wanted = engine.encode(resize(target, scale.height, scale.width))[LAYER]
    energy = wanted.square().sum()
    return Term("features", weight, lambda image, found: losses.content(found[LAYER], wanted, energy), (LAYER,))


def spoilt_at(wrong: Callable[[int], bool], by: float = float("nan")) -> Term:
    """Adds ``by`` at the calls for which ``wrong`` holds, counted from 0."""
    calls = count()
    return Term("spoilt", 1.0, lambda image, _: image.sum() * 0 + (by if wrong(next(calls)) else 0.0))


def nothing(scale: Scale, before: Tensor | None) -> list[Term]:
    return [Term("nothing", 1.0, lambda image, _: image.sum() * 0)]


# --- the picture -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [False, True])
def test_what_the_photo_has_at_a_scale_alone_is_added_there(make: Callable[..., Engine], stop: bool) -> None:
    photo = 0.3 + 0.4 * torch.rand(1, 3, 33, 39, generator=torch.Generator().manual_seed(5))
    kept = paint(make(), SCALES, photo, nothing, detail=photo, stop=lambda: stop)
    np.testing.assert_allclose(kept, photo, atol=1e-6)
    lost = paint(make(), SCALES, photo, nothing)
    assert (lost - photo).abs().mean() > 0.05

    other = waves(33, 39)
    found = paint(make(), SCALES[1:], other, nothing, detail=photo)
    unseen = photo - resize(resize(photo, 16, 20), 33, 39)
    np.testing.assert_allclose(found, (resize(resize(other, 16, 20), 33, 39) + unseen).clamp(0, 1), atol=1e-6)


def test_fine_scales_begin_with_as_much_grain_as_is_left_out_of_the_detail(make: Callable[..., Engine]) -> None:
    asked: list[tuple[tuple[int, ...], float]] = []

    def grain(image: Tensor, share: float) -> Tensor:
        asked.append((tuple(image.shape), share))
        return image + share

    scales = (SCALES[0], SCALES[1], Scale(33, 39, 4, detail=0.75))
    result = paint(make(), scales, torch.full((1, 3, 8, 10), 0.25), nothing, grain=grain)
    assert asked == [((1, 3, 33, 39), 0.25)]
    np.testing.assert_allclose(result, 0.5, atol=1e-6)
    paint(make(), scales[-1:], waves(33, 39), nothing, grain=grain)  # a start that is nearly there has it already
    assert len(asked) == 1


@optimizers
@pytest.mark.parametrize("size", [(1, 1), (1, 23), (17, 16), (33, 39)])
def test_the_result_is_a_picture_of_the_finest_size(
    make: Callable[..., Engine], optimizer: str, size: tuple[int, int]
) -> None:
    engine = make(optimizer=optimizer)
    half = Scale(max(1, size[0] // 2), max(1, size[1] // 2), 3)
    beyond = waves(12, 14, seed=2) * 3 - 1  # pulls out of [0, 1]
    result = paint(engine, (half, Scale(*size, 6)), waves(9, 11), lambda scale, _: [towards(beyond)])
    assert result.shape == (1, 3, *size)
    assert result.device.type == "cpu"
    assert result.min() >= 0
    assert result.max() <= 1


@optimizers
def test_the_loss_is_minimised(make: Callable[..., Engine], optimizer: str) -> None:
    target = waves(16, 20, seed=2)
    scales = (Scale(8, 10, 40), Scale(16, 20, 80))
    result = paint(make(optimizer=optimizer), scales, waves(16, 20), lambda scale, _: [towards(target)])
    np.testing.assert_allclose(result, target, atol=0.01)


def test_features_lead_the_picture(make: Callable[..., Engine]) -> None:
    engine, target, scale = make(), waves(16, 20, seed=2), Scale(16, 20, 60)
    wanted = engine.encode(target)[LAYER]
    start = waves(16, 20)
    result = paint(engine, (scale,), start, lambda scale, _: [resembling(engine, target, scale)])
    before, after = ((engine.encode(image)[LAYER] - wanted).norm() for image in (start, result))
    assert after < 0.1 * before


def test_a_grey_start_is_painted_grey(make: Callable[..., Engine]) -> None:
    engine, target = make(), waves(16, 20, seed=2)
    seen: list[tuple[int, ...]] = []

    def terms(scale: Scale, before: Tensor | None) -> list[Term]:
        def watch(image: Tensor, features: object) -> Tensor:
            seen.append(tuple(image.shape))
            return image.sum() * 0

        watching = Term("watching", 1.0, watch)
        return [resembling(engine, target, scale), watching]

    result = paint(engine, (Scale(8, 10, 3), Scale(16, 20, 3)), waves(16, 20)[:, :1], terms)
    assert result.shape == (1, 1, 16, 20)
    assert set(seen) == {(1, 3, 8, 10), (1, 3, 16, 20)}


def test_the_start_is_not_written_to(make: Callable[..., Engine]) -> None:
    start = waves(16, 20)
    paint(make(), (Scale(16, 20, 4),), start, lambda scale, _: [towards(waves(16, 20, seed=2))])
    assert torch.equal(start, waves(16, 20))


@optimizers
def test_the_same_run_is_bit_identical(make: Callable[..., Engine], optimizer: str) -> None:
    found = []
    for _ in range(2):
        engine, target, steps = make(optimizer=optimizer), waves(40, 40, seed=2), list[Step]()
        result = paint(
            engine,
            SCALES,
            waves(33, 39),
            lambda scale, _, engine=engine, target=target: [  # type: ignore[misc]
                resembling(engine, target, scale),
                Term("tv", 0.1, lambda image, _: losses.total_variation(image)),
            ],
            on_step=steps.append,
        )
        found.append((result, [step.total for step in steps]))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


# --- what an observer sees -----------------------------------------------------------------------------------------


@optimizers
def test_observers_see_every_step_in_order(make: Callable[..., Engine], optimizer: str) -> None:
    steps: list[Step] = []
    target = waves(33, 39, seed=2)
    paint(make(optimizer=optimizer), SCALES, waves(33, 39), lambda scale, _: [towards(target)], on_step=steps.append)
    expected = [(i, n) for i, scale in enumerate(SCALES, 1) for n in range(1, scale.steps + 1)]
    assert [(step.scale, step.number) for step in steps] == expected
    for step in steps:
        scale = SCALES[step.scale - 1]
        assert step.scales == 3
        assert (step.height, step.width, step.steps) == (scale.height, scale.width, scale.steps)
        assert step.finite
    assert steps[0].seconds >= 0
    assert all(before.seconds <= after.seconds for before, after in pairwise(steps))


@optimizers
def test_an_observer_sees_the_picture_as_it_grows(make: Callable[..., Engine], optimizer: str) -> None:
    seen: list[Tensor] = []
    target = waves(33, 39, seed=2)
    engine = make(optimizer=optimizer)
    result = paint(
        engine,
        SCALES,
        waves(33, 39),
        lambda scale, _: [towards(target)],
        on_step=lambda step: seen.append(step.image()),
    )
    sizes = [(1, 3, scale.height, scale.width) for scale in SCALES for _ in range(scale.steps)]
    assert [image.shape for image in seen] == sizes
    assert torch.equal(seen[-1], result)
    last = seen[-SCALES[-1].steps :]
    assert (last[-1] - target).norm() < (last[0] - target).norm()


def test_looking_on_changes_nothing_and_looking_away_costs_nothing(make: Callable[..., Engine]) -> None:
    target, shown = waves(33, 39, seed=2), list[Tensor]()

    def look(image: Tensor) -> Tensor:
        shown.append(image)
        return image

    def painted(on_step: Callable[[Step], object]) -> Tensor:
        return paint(
            make(),
            SCALES,
            waves(33, 39),
            lambda scale, _: [towards(target)],
            on_step=on_step,
            to_display=look,
        )

    unseen = painted(lambda step: None)
    assert not shown
    assert torch.equal(painted(lambda step: step.image().fill_(0)), unseen)
    assert len(shown) == sum(scale.steps for scale in SCALES)


def test_a_grey_picture_is_seen_in_three_channels(make: Callable[..., Engine]) -> None:
    seen: list[Tensor] = []
    target = waves(8, 10, seed=2)
    paint(
        make(),
        (Scale(8, 10, 1),),
        waves(8, 10)[:, :1],
        lambda scale, _: [towards(target)],
        on_step=lambda step: seen.append(step.image()),
    )
    assert seen[0].shape == (1, 3, 8, 10)


def test_a_step_that_is_kept_keeps_no_picture(make: Callable[..., Engine]) -> None:
    steps: list[Step] = []
    paint(make(), (Scale(8, 8, 2),), waves(8, 8), lambda scale, _: [towards(waves(8, 8))], on_step=steps.append)
    with pytest.raises(LookupError, match="while its scale is painted"):
        steps[-1].image()
    assert "look" not in dataclasses.asdict(steps[-1])


def test_terms_are_weighted_and_add_up_to_the_total(make: Callable[..., Engine]) -> None:
    engine, target, start = make(precision="float32"), waves(16, 20, seed=2), waves(16, 20)
    steps: list[Step] = []

    def terms(scale: Scale, before: Tensor | None) -> list[Term]:
        return [towards(target, 2.5), resembling(engine, target, scale, 0.5)]

    paint(engine, (Scale(16, 20, 5),), start, terms, on_step=steps.append)
    for step in steps:
        assert set(step.terms) == {"pixels", "features"}
        assert sum(step.terms.values()) == pytest.approx(step.total, rel=1e-5)
    assert steps[0].terms["pixels"] == pytest.approx(2.5 * (start - target).square().sum().item(), rel=1e-5)
    wanted = engine.encode(target)[LAYER]
    apart = (engine.encode(start)[LAYER] - wanted).square().sum() / wanted.square().sum()
    assert steps[0].terms["features"] == pytest.approx(0.5 * apart.item(), rel=1e-4)


def test_a_term_without_weight_is_not_computed(make: Callable[..., Engine]) -> None:
    def fail(image: Tensor, features: Features) -> Tensor:
        raise AssertionError("computed")

    steps: list[Step] = []
    terms = [towards(waves(8, 8)), Term("nothing", 0.0, fail)]
    paint(make(), (Scale(8, 8, 3),), waves(8, 8, seed=2), lambda scale, _: terms, on_step=steps.append)
    assert set(steps[-1].terms) == {"pixels"}


def test_terms_are_asked_for_once_a_scale(make: Callable[..., Engine]) -> None:
    asked: list[Scale] = []

    def terms(scale: Scale, before: Tensor | None) -> list[Term]:
        asked.append(scale)
        return [towards(waves(33, 39))]

    paint(make(), SCALES, waves(33, 39, seed=2), terms)
    assert asked == list(SCALES)


# --- ending early --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 4, 9])
def test_stop_ends_with_the_picture_so_far_at_the_final_size(make: Callable[..., Engine], after: int) -> None:
    steps: list[Step] = []
    target, start = waves(33, 39, seed=2), waves(33, 39)
    result = paint(
        make(),
        SCALES,
        start,
        lambda scale, _: [towards(target)],
        on_step=steps.append,
        stop=lambda: len(steps) >= after,
    )
    assert len(steps) == after
    assert result.shape == (1, 3, 33, 39)
    if after == 4:
        assert (result - target).norm() < (start - target).norm()


def test_a_stop_that_never_comes_changes_nothing(make: Callable[..., Engine]) -> None:
    target = waves(33, 39, seed=2)
    results = [
        paint(make(), SCALES, waves(33, 39), lambda scale, _: [towards(target)], stop=stop)
        for stop in (None, lambda: False)
    ]
    assert torch.equal(*results)


def test_a_settled_scale_ends_early_and_the_next_begins(make: Callable[..., Engine]) -> None:
    steps: list[Step] = []
    flat = Term("flat", 1.0, lambda image, _: 1 + 1e-6 * image.square().sum())
    scales = (Scale(8, 8, 50), Scale(16, 16, 50))
    paint(make(tolerance=0.01), scales, waves(16, 16), lambda scale, _: [flat], on_step=steps.append)
    assert [step.number for step in steps if step.scale == 1] == list(range(1, WINDOW + 2))
    assert [step.number for step in steps if step.scale == 2] == list(range(1, WINDOW + 2))


def test_a_scale_that_still_improves_takes_all_its_steps(make: Callable[..., Engine]) -> None:
    steps: list[Step] = []
    falling = count()
    better = Term("better", 1.0, lambda image, _: image.mean() * 0 + 0.9 ** next(falling))
    paint(make(tolerance=0.1), (Scale(8, 8, 40),), waves(8, 8), lambda scale, _: [better], on_step=steps.append)
    assert len(steps) == 40


def test_steps_that_were_taken_back_do_not_count_as_settled(make: Callable[..., Engine]) -> None:
    engine, seen = make(tolerance=1e-3), list[Step]()
    scale, start = Scale(16, 20, 40), waves(16, 20, seed=4)
    terms = [resembling(engine, waves(16, 20), scale), spoilt_at(lambda call: 4 <= call < 12)]
    paint(engine, [scale], start, lambda *_: terms, on_step=seen.append)
    assert len(seen) > 25


def test_a_large_start_is_taken_down_before_it_goes_to_the_device(
    make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA refuses an antialiased resize by more than a factor of 47."""
    asked: list[tuple[int, int]] = []

    def spy(image: Tensor, height: int, width: int) -> Tensor:
        asked.append((image.shape[2], height))
        return resize(image, height, width)

    monkeypatch.setattr("stylize.painting.resize", spy)
    paint(make(), SCALES, waves(800, 80), lambda scale, _: [towards(waves(8, 8))])
    (first, *rest) = asked
    assert first == (800, 8)
    assert all(before <= after for before, after in rest)


@optimizers
def test_without_tolerance_every_step_is_taken(make: Callable[..., Engine], optimizer: str) -> None:
    steps: list[Step] = []
    near = waves(8, 8) + 1e-3  # Adam's first steps overshoot: the loss rises
    paint(
        make(optimizer=optimizer),
        (Scale(8, 8, 25),),
        waves(8, 8),
        lambda scale, _: [towards(near)],
        on_step=steps.append,
    )
    assert len(steps) == 25 or steps[-1].retries > GIVE_UP


# --- NaN and other failures ----------------------------------------------------------------------------------------


@optimizers
@pytest.mark.parametrize("by", [float("nan"), float("inf")])
@pytest.mark.parametrize("call", [1, 7])
def test_a_term_that_is_not_finite_once_is_survived(
    make: Callable[..., Engine], optimizer: str, by: float, call: int
) -> None:
    steps: list[Step] = []
    target, spoilt = waves(8, 10, seed=2), spoilt_at(lambda number: number == call, by)
    result = paint(
        make(optimizer=optimizer),
        (Scale(8, 10, 200),),
        waves(8, 10),
        lambda scale, _: [towards(target), spoilt],
        on_step=steps.append,
    )
    assert [step.number for step in steps if not step.finite] == [call + 1]
    assert steps[call].retries == 1
    assert all(np.isfinite(step.total) for step in steps)
    np.testing.assert_allclose(result, target, atol=0.05)


@optimizers
def test_a_term_that_stays_nan_is_an_error_after_some_tries(make: Callable[..., Engine], optimizer: str) -> None:
    steps: list[Step] = []
    target, spoilt = waves(8, 10, seed=2), spoilt_at(lambda number: number >= 3)
    with pytest.raises(OptimizationError, match=r"at 10x8, step \d+; try") as caught:
        paint(
            make(optimizer=optimizer),
            (Scale(8, 10, 80),),
            waves(8, 10),
            lambda scale, _: [towards(target), spoilt],
            on_step=steps.append,
        )
    assert [step.retries for step in steps if not step.finite] == list(range(1, GIVE_UP + 1))
    assert "\n" not in str(caught.value)


@optimizers
def test_nan_at_the_very_start_is_an_error_at_once(make: Callable[..., Engine], optimizer: str) -> None:
    with pytest.raises(OptimizationError, match=r"at 10x8, step 1; try"):
        paint(
            make(optimizer=optimizer),
            (Scale(8, 10, 5),),
            waves(8, 10),
            lambda scale, _: [spoilt_at(lambda number: True)],
        )


def test_unknown_names_are_refused(make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"unknown layer 'relu9_1'; tiny has relu1_1, "):
        make(["relu1_1", "relu9_1"])
    with pytest.raises(SettingsError, match="unknown encoder 'vgg99'; known: auto, tiny"):
        make(encoder="vgg99")
    with pytest.raises(SettingsError, match="device is 'tpu'"):
        make(device="tpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError, match="device cuda is not there"):
        make(device="cuda")


def test_a_term_may_ask_for_a_layer_that_nobody_else_needs(make: Callable[..., Engine]) -> None:
    engine, seen = make(), list[float]()
    assert "relu5_1" not in engine.encoder.layers
    term = Term("mine", 1.0, lambda image, found: found["relu5_1"].square().mean(), ("relu5_1",))
    before = engine.encode(waves(8, 8))
    paint(engine, (Scale(8, 8, 9),), waves(8, 8), lambda scale, _: [term], on_step=lambda step: seen.append(step.total))
    assert seen[-1] < seen[0]
    assert all(
        torch.equal(found, before[layer]) for layer, found in engine.encode(waves(8, 8)).items() if layer in before
    )


def test_a_term_that_needs_a_layer_nobody_has_is_refused(make: Callable[..., Engine]) -> None:
    term = Term("mine", 1.0, lambda image, found: found["relu9_1"].sum(), ("relu9_1",))
    with pytest.raises(SettingsError, match="term mine needs relu9_1; tiny has relu1_1, "):
        paint(make(), (Scale(8, 8, 3),), waves(8, 8), lambda scale, _: [term])


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")], ids=["host", "GPU"])
def test_too_little_memory_is_one_line(make: Callable[..., Engine], error: Exception) -> None:
    def exhaust(image: Tensor, features: Features) -> Tensor:
        raise error

    with pytest.raises(OptimizationError, match="not enough memory for 10x8; use a smaller --size"):
        paint(make(), (Scale(8, 10, 3),), waves(8, 10), lambda scale, _: [Term("large", 1.0, exhaust)])


def test_any_other_failure_of_a_term_is_not_hidden(make: Callable[..., Engine]) -> None:
    def fail(image: Tensor, features: Features) -> Tensor:
        raise RuntimeError("the plugin's own fault")

    with pytest.raises(RuntimeError, match="the plugin's own fault"):
        paint(make(), (Scale(8, 10, 3),), waves(8, 10), lambda scale, _: [Term("broken", 1.0, fail)])


def test_encode_has_no_gradient(make: Callable[..., Engine]) -> None:
    features = make().encode(waves(8, 8).requires_grad_())
    assert set(features) == {LAYER, "relu2_1", "relu3_1", "relu4_2"}  # what is asked for, and the content layers
    assert not any(each.requires_grad for each in features.values())


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_scale_of_two_phases_goes_on_with_the_terms_of_the_second(
    make: Callable[..., Engine], optimizer: str
) -> None:
    steps: list[Step] = []
    aims = {True: waves(16, 20, seed=2), False: waves(16, 20, seed=3)}
    result = paint(
        make(optimizer=optimizer),
        (Scale(16, 20, 50, early=10),),
        waves(16, 20),
        lambda scale, _: [towards(aims[scale.shallow])],
        on_step=steps.append,
    )
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert steps[10].total > steps[9].total  # of another loss
    assert (result - aims[False]).square().mean() < 0.2 * (result - aims[True]).square().mean()
