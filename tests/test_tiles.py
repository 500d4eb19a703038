"""Tiles: the same loss and gradient as the whole picture, and plans that keep within the memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from torch import Tensor

from stylize import OptimizationError, Settings, SettingsError, Stylizer, Term, devices, memory, tiles
from stylize.encoders import EncoderConfig, EncoderSpec
from stylize.encoders.vgg import VGG
from stylize.features import Engine
from stylize.images import load, resize
from stylize.objective import Sums, evaluate_in_tiles, objective
from stylize.pyramid import Scale
from stylize.terms import coarser_term
from stylize.testing import random_weights
from tests.conftest import SHARED, Call, waves

WEIGHTS = SHARED / "weights" / "vgg19-features.safetensors"
WIDTHS = (4, 4, None, 6, 6, None, 8, 8, None, 8, 8, None, 8)
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")
PLACE = EncoderConfig(torch.device("cpu"), torch.float32)


def narrow(layers: tuple[str, ...] = LAYERS) -> VGG:
    return VGG(random_weights(WIDTHS, 3), WIDTHS, layers, PLACE)


@pytest.fixture(scope="module")
def deep() -> EncoderSpec:
    """As deep as VGG-19 to relu5_1, and narrow."""
    return EncoderSpec("deep", LAYERS, lambda file, progress: lambda layers, place: narrow(tuple(layers)))


@pytest.fixture(scope="module")
def mixed(deep: EncoderSpec) -> EncoderSpec:
    """The same with a content term of two layers."""
    return replace(deep, name="mixed", content={"relu2_1": 0.5, "relu4_2": 2.0})


Make = Callable[..., Stylizer]


@pytest.fixture
def make(deep: EncoderSpec, mixed: EncoderSpec) -> Make:
    def stylizer(**settings: Any) -> Stylizer:
        made = Settings(**{"encoder": "deep", **settings})
        return Stylizer(waves(150, 190, 4), made, encoders=[deep, mixed])

    return stylizer


def both(
    stylizer: Stylizer, image: Tensor, side: int, alpha: Tensor | None = None
) -> tuple[tuple[Tensor, Tensor], ...]:
    """Values and gradient of the whole, and by tiles."""
    height, width = image.shape[2:]
    photo = waves(height, width, 1)[:, : image.shape[1]]
    terms = stylizer.terms(photo, Scale(height, width, 1), alpha=alpha)
    for term in terms:
        if term.update is not None:
            term.update(image)
    engine = stylizer.engine
    encoder = tiles.tileable(engine.encoder, height, width)
    assert encoder is not None
    return objective(engine, terms, 0)(image), evaluate_in_tiles(image, terms, encoder, side)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


# The gradient


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "side"), [((200, 150), 100), ((257, 131), 48), ((96, 300), 256), ((209, 95), 48), ((128, 128), 100)]
)
def test_value_and_gradient_are_those_of_the_whole_picture(make: Make, size: tuple[int, int], side: int) -> None:
    image = waves(*size, seed=7)
    (values, gradient), (tiled, by_tiles) = both(make(tv_weight=0.3), image, side)
    assert torch.allclose(tiled, values, rtol=1e-5)
    assert apart(by_tiles, gradient) < 1e-4  # random features are nearly of one kind: rounding weighs more than usual


@pytest.mark.parametrize(
    "settings",
    [
        {"style_loss": "gram"},
        {"pooling": "average"},
        {"normalize": "paper", "style_loss": "gram"},
        {"style_loss": "match"},
        {"encoder": "mixed", "content_weight": 1.0},
        {"encoder": "mixed", "normalize": "paper", "style_loss": "gram"},
    ],
)
def test_other_losses_are_tiled_as_well(make: Make, settings: Mapping[str, Any]) -> None:
    (values, gradient), (tiled, by_tiles) = both(make(**settings), waves(180, 220, 7), 80)
    assert torch.allclose(tiled, values, rtol=1e-4)
    assert apart(by_tiles, gradient) < 1e-4


def test_a_picture_painted_in_grey(make: Make) -> None:
    (values, gradient), (tiled, by_tiles) = both(make(tv_weight=0.3), waves(180, 220, 7)[:, :1], 80)
    assert gradient.shape == by_tiles.shape == (1, 1, 180, 220)
    assert torch.allclose(tiled, values, rtol=1e-5)
    assert apart(by_tiles, gradient) < 1e-4


def test_what_is_transparent_does_not_count_in_tiles_either(make: Make) -> None:
    alpha = torch.zeros(1, 1, 180, 220)
    alpha[..., 20:100, 50:170] = 1
    (values, gradient), (tiled, by_tiles) = both(make(), waves(180, 220, 7), 80, alpha)
    assert torch.allclose(tiled, values, rtol=1e-4)
    assert apart(by_tiles, gradient) < 1e-4


def test_the_gradient_at_tile_borders_is_as_elsewhere(make: Make) -> None:
    (_, gradient), (_, by_tiles) = both(make(), waves(192, 192, 7), 64)
    error = (by_tiles - gradient).abs().sum(1)[0]
    border = torch.zeros(192, dtype=torch.bool)
    for edge in (64, 128):
        border[edge - 2 : edge + 2] = True
    assert error[border].mean() < 3 * error[~border].mean() + 1e-12


def test_a_term_of_pixels_needs_no_sums(make: Make) -> None:
    image = waves(100, 120, 7)
    terms = [Term("dark", 2.0, lambda image, _: image.square().mean())]
    values, gradient = evaluate_in_tiles(image, terms, narrow(), 48)
    assert float(values[1]) == pytest.approx(2 * float(image.square().mean()), rel=1e-6)
    assert torch.allclose(gradient, 4 * image / image.numel())


def test_a_term_may_be_constant_in_tiles_too() -> None:
    image = waves(100, 120, 7)
    terms = [
        Term("here", 1.0, lambda image, _: image.mean()),
        Term("nothing", 1.0, lambda *_: torch.zeros(())),
        Term("zero", 1.0, lambda *_: torch.zeros(()), sums=Sums(lambda i, *_: [i.sum()], lambda _: torch.zeros(()))),
    ]
    values, gradient = evaluate_in_tiles(image, terms, narrow(), 48)
    assert values[2:].tolist() == [0, 0]
    assert torch.allclose(gradient, torch.full_like(image, 1 / image.numel()))


@pytest.mark.parametrize("sums", [None, Sums(lambda image, *_: [image.sum((2, 3))], lambda added: added[0])])
def test_a_term_that_gives_no_scalar_is_refused_by_name_in_tiles_too(sums: Sums | None) -> None:
    term = Term("mine", 1.0, lambda image, _: image.sum((2, 3)), sums=sums)
    with pytest.raises(SettingsError, match=r"^term mine gives \(1, 3\), not a scalar"):
        evaluate_in_tiles(waves(100, 120), [term], narrow(), 48)


def test_a_term_of_the_whole_features_is_refused_by_name() -> None:
    term = Term("mine", 1.0, lambda _, features: features["relu1_1"].mean(), ("relu1_1",))
    with pytest.raises(SettingsError, match=r"^the term mine sees relu1_1 of the whole picture"):
        evaluate_in_tiles(waves(100, 120), [term], narrow(), 48)


@pytest.mark.parametrize("size", [(150, 190), (301, 64)])
def test_the_statistics_of_a_style_do_not_depend_on_tiles(
    deep: EncoderSpec, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    def style_value(memory: str) -> float:
        stylizer = Stylizer(waves(*size, 4), Settings(encoder="deep", memory=memory), encoders=[deep])
        parts = len(list(stylizer.engine.parts(waves(*size))))
        assert (parts > 1) == (memory != "auto")
        image = waves(90, 70, 1)
        (term,) = (term for term in stylizer.terms(image, Scale(90, 70, 1)) if term.name == "style")
        return float(term.function(image, stylizer.engine.encode(image)))

    assert style_value("1MB") == pytest.approx(style_value("auto"), rel=1e-5)


# Tiles


@hypothesis(max_examples=40)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(16, 400))
def test_every_pixel_and_position_is_owned_by_one_tile(height: int, width: int, side: int) -> None:
    encoder = narrow()
    count = torch.zeros(height, width, dtype=torch.int)
    maps = {layer: torch.zeros(height // s, width // s, dtype=torch.int) for layer, s in encoder.strides.items()}
    for tile in tiles.tiles(height, width, side, encoder):
        count[tile.pixels] += 1
        for layer, counted in maps.items():
            counted[tile.at(layer)] += 1
            assert tile.map_size(layer, {}) == counted.shape
        for (first, stop), (seen, end), length in (
            (tile.rows, tile.seen_rows, height),
            (tile.columns, tile.seen_columns, width),
        ):
            assert seen % 16 == 0
            assert seen == 0 or first - seen >= encoder.receptive_field_radius
            assert end == length or end - stop >= encoder.receptive_field_radius
    assert (count == 1).all()
    assert all((counted == 1).all() for counted in maps.values())


@pytest.mark.parametrize("layer", LAYERS)
def test_a_feature_sees_no_further_than_the_reach(layer: str) -> None:
    encoder = narrow((layer,))
    image = waves(400, 40).requires_grad_()
    features = encoder(image)[layer]
    middle = features.shape[2] // 2
    (gradient,) = torch.autograd.grad(features[:, :, middle].sum(), image)
    seen = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    first = middle * encoder.strides[layer]
    assert first - encoder.receptive_field_radius <= int(seen.min())
    assert int(seen.max()) < first + encoder.strides[layer] + encoder.receptive_field_radius


# Plans


def plan(height: int, width: int, gib: float, **options: Any) -> memory.Plan:
    options = {"history": 20, "resident_bytes": 68.0 * height * width, **options}
    return memory.plan(height, width, narrow(), gib * 2**30, **options)


def test_what_fits_is_painted_as_a_whole_with_its_full_history() -> None:
    made = plan(1000, 1000, 8)
    assert (made.side, made.count, made.history, made.compact) == (0, 1, 20, False)
    assert made.peak < 8 * 2**30


@hypothesis(deadline=None)
@given(st.integers(64, 9000), st.integers(64, 9000), st.floats(0.4, 64))
def test_a_plan_keeps_within_the_budget_or_there_is_none(height: int, width: int, gib: float) -> None:
    try:
        made = plan(height, width, gib)
    except OptimizationError:
        made = plan(height, width, gib := 1000)
        assert made.side == 0
    assert made.peak <= gib * 2**30
    assert 3 <= made.history <= 20
    assert made.side == 0 or made.side >= tiles.SMALLEST


def test_a_small_picture_needs_little_and_a_refusal_says_how_much() -> None:
    made = plan(20, 20, 0.2)
    assert made.side == 0
    assert made.peak < 0.2 * 2**30
    with pytest.raises(OptimizationError, match=r"20x20 takes at least (0\.\d+) GiB") as raised:
        plan(20, 20, 0.05)
    least = float(str(raised.value).split(" GiB")[0].split()[-1])
    assert plan(20, 20, least + 0.001).side == 0
    with pytest.raises(OptimizationError):
        plan(1000, 1000, 0.2)


def test_more_memory_is_never_less_history_or_smaller_tiles() -> None:
    before = (False, 0, 0)
    for gib in (3.8, 4, 4.5, 5, 6, 8, 16, 64):
        made = plan(4096, 4096, gib)
        now = (made.side >= memory.GOOD or not made.side, made.history, made.side or 10**6)
        assert now >= before or now[1] > before[1]
        before = now
    assert before == (True, 20, 10**6)


def test_a_plan_counts_the_pictures_there_are(make: Make) -> None:
    engine, picture = make(memory="16GiB").engine, 4096 * 4096 * 12
    usual = engine.plan(4096, 4096)
    assert engine.plan(4096, 4096, source_bytes=2 * picture).peak == usual.peak + picture
    assert engine.plan(4096, 4096, steps=2).peak == usual.peak
    assert engine.plan(4096, 4096, steps=1).peak == usual.peak - picture
    assert usual.side == 0


def test_named_memory_is_that_of_the_whole_process(make: Make) -> None:
    named, free = (make(memory=text).engine.plan(512, 512) for text in ("900GiB", "auto"))
    assert (named.side, free.side) == (0, 0)
    assert named.peak == free.peak + memory.LOADED


@pytest.mark.slow
def test_what_does_not_fit_is_told_before_coarser_scales_are_painted(make: Make) -> None:
    seen: list[object] = []
    with pytest.raises(OptimizationError, match=r"^3000x3000 takes at least .* and 1 GiB are to be used"):
        make(memory="1GiB", size=3000, upscale=True)(waves(64, 64, 1), on_step=seen.append)
    assert not seen


def test_an_encoder_that_tells_nothing_of_itself_sees_the_whole() -> None:
    class Plain:
        layers = frozenset({"relu1_1"})

        def __call__(self, image: Tensor) -> Mapping[str, Tensor]:
            return {"relu1_1": image}

    made = memory.plan(4096, 4096, Plain(), 2**20, 20, resident_bytes=1e9)
    assert made.side == 0


@pytest.mark.parametrize("size", [(8, 9000), (9000, 15)])
def test_a_strip_that_deep_layers_have_no_room_in_is_seen_whole(size: tuple[int, int]) -> None:
    assert tiles.tileable(narrow(), *size) is None
    assert tiles.tileable(narrow(), 16, 16) is not None
    assert memory.plan(*size, narrow(), 2**20, 20, resident_bytes=1e9).side == 0


# The whole way


@pytest.mark.slow
def test_a_picture_painted_in_tiles_is_the_picture(deep: EncoderSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    # three scales, of which the last, a fine one, is 150 px
    settings = Settings(encoder="deep", size=150, min_size=32, brush=4, steps=(4,), tolerance=0)

    def painted() -> Tensor:
        return Stylizer(waves(60, 80, 4), settings, encoders=[deep])(waves(150, 120, 1)).rgb

    def small_tiles(height: int, width: int, *_: Any, **__: Any) -> memory.Plan:
        return memory.Plan(height, width, 64 if width > 100 else 0, 0, 96, 20, False, 0)

    whole = painted()
    monkeypatch.setattr(memory, "plan", small_tiles)
    tiled = painted()
    assert not torch.equal(whole, tiled)  # in tiles indeed
    assert torch.allclose(whole, tiled, atol=2e-3)


def test_a_plan_tells_of_history_where_there_is_any() -> None:
    assert plan(4096, 4096, 4).description.startswith("4096x4096 in ")
    assert " pairs of history in bfloat16; at most about " in plan(4096, 4096, 4).description
    assert " px around them, in two passes; at most about " in plan(4096, 4096, 4, history=0).description


def test_a_plan_knows_what_goes_through_the_network() -> None:
    whole, tiled = plan(4096, 4096, 64), plan(4096, 4096, 4)
    assert whole.network_pixels == 4096**2
    assert 1.5 * 4096**2 < tiled.network_pixels < 2 * 4096**2


@pytest.mark.slow
def test_the_plan_is_told(call: Call, pictures: object) -> None:
    done = call("photo.png", "starry.png", "-o", "out.png", "--encoder", "mini", "--size", "512", "--upscale",
                "--steps", "1", "--scales", "2", "--memory", "1054MiB", "--precision", "float32")  # fmt: skip
    assert re.search(r"512x384 in \d+ tiles of .* in two passes, .* at most about 0\.98 GiB, about \d+ s", done.err)


def test_too_little_memory_is_told_before_anything_is_painted(call: Call, pictures: object) -> None:
    done = call("photo.png", "starry.png", "-o", "out.png", "--encoder", "mini", "--size", "512", "--upscale",
                "--memory", "100MB")  # fmt: skip
    assert done.code == 1
    assert "use a smaller --size, or more --memory" in done.err


@pytest.mark.slow
def test_running_out_of_memory_halves_the_tiles_and_goes_on(
    deep: EncoderSpec, caplog: pytest.LogCaptureFixture
) -> None:
    largest = 0

    def build(layers: Any, place: EncoderConfig) -> Any:
        class Poor(VGG):
            def __call__(self, image: Tensor) -> dict[str, Tensor]:
                nonlocal largest
                if image.requires_grad and image.shape[2] * image.shape[3] > 330**2:
                    raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
                largest = max(largest, image.shape[2] * image.shape[3])
                return super().__call__(image)

        return Poor(random_weights(WIDTHS, 3), WIDTHS, tuple(layers), place)

    spec = EncoderSpec("deep", LAYERS, lambda file, progress: build)
    settings = Settings(encoder="deep", size=600, steps=(2,), scales=1, tolerance=0)
    rich = Stylizer(waves(60, 80, 4), settings, encoders=[deep])(waves(600, 500, 1)).rgb
    stylizer = Stylizer(waves(60, 80, 4), settings, encoders=[spec])
    poor = stylizer(waves(600, 500, 1)).rgb
    assert "too little memory: going on in tiles of 300 px" in caplog.text
    assert "going on in tiles of 150 px" in caplog.text
    assert torch.allclose(rich, poor, atol=1e-3)
    caplog.clear()
    assert torch.equal(stylizer(waves(600, 500, 1)).rgb, poor)
    assert "too little memory" not in caplog.text  # it is known by now


def test_free_memory_is_found_here() -> None:
    free = devices.free_memory(torch.device("cpu"))
    assert free is not None
    assert 2**28 < free < 2**50


def test_a_container_s_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_available", lambda: 10_000)
    monkeypatch.setattr(devices, "_allowed", lambda: 1_000)
    assert devices.free_memory(torch.device("cpu")) == 850


@pytest.mark.parametrize("history", [4, 20])
def test_compact_history_finds_the_minimum_too(deep: EncoderSpec, history: int) -> None:
    from stylize.optimizer import LBFGS

    goal = waves(20, 24, 3) * 0.8 + 0.1
    scale = torch.linspace(1, 30, goal.numel()).view_as(goal)

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        return (scale * (image - goal).square()).sum()[None], 2 * scale * (image - goal)

    optimizer = LBFGS(evaluate, torch.full_like(goal, 0.5), history, (0.0, 1.0), compact=True)
    for _ in range(60):
        optimizer.step()
    assert torch.allclose(optimizer.image, goal, atol=1e-3)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not WEIGHTS.exists(), reason="no real weights at hand")
def test_on_real_weights_the_gradient_is_that_of_the_whole() -> None:
    style, photo = (load(SHARED / "images" / name).rgb for name in ("style/starry_night.jpg", "content/tubingen.jpg"))
    # Gram matrices have no roots, which so few positions would leave to rounding.
    stylizer = Stylizer(style, Settings(encoder="vgg19", style_loss="gram", precision="float32"), weights=WEIGHTS)
    size, side = (330, 96), 250  # of each of the two tiles, the margin ends within the other
    image = resize(photo, *size)
    terms = stylizer.terms(image.roll(30, 3), Scale(*size, 1))
    values, gradient = objective(stylizer.engine, terms, 0)(image)
    tiled, by_tiles = objective(stylizer.engine, terms, side)(image)
    assert torch.allclose(tiled, values, rtol=1e-5)
    assert apart(by_tiles, gradient) < 1e-5


@pytest.mark.parametrize("size", [(180, 221), (131, 96), (64, 350)])
@pytest.mark.parametrize("side", [40, 64])
def test_the_distance_to_the_coarser_picture_is_a_sum_over_tiles(
    deep: EncoderSpec, size: tuple[int, int], side: int
) -> None:
    term = coarser_term(waves(70, 90, 4), *size)
    engine = Engine(Settings(encoder="deep"), {"relu1_1"}, encoders=[deep])
    for encoder in (narrow(("relu1_1",)), narrow()):
        values, gradient = objective(engine, [term])(waves(*size, 7))
        tiled, by_tiles = evaluate_in_tiles(waves(*size, 7), [term], encoder, side)
        assert torch.allclose(tiled, values, rtol=1e-5)
        assert apart(by_tiles, gradient) < 1e-5


def test_the_distance_to_the_coarser_picture_leaves_detail_free() -> None:
    coarse = waves(32, 40, 4)
    term = coarser_term(coarse, 64, 80)
    enlarged = resize(coarse, 64, 80)
    checker = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(32, 40)
    assert term.function(enlarged, {}) < 1e-12
    assert term.function(enlarged + 0.1 * checker, {}) < 1e-9
    assert term.function(enlarged + 0.1, {}) == pytest.approx(0.01 / float(resize(enlarged, 32, 40).var()), rel=0.05)
