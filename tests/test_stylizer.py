"""Stylizer, texture and reconstruct through the Python API, with the tiny encoder."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor

import stylize
from stylize import Picture, Settings, SettingsError, Step, StylizeError, Stylizer, Term, images, reconstruct, texture
from stylize.colors import luminance
from stylize.encoders import Encoder, EncoderConfig, EncoderSpec, Progress
from stylize.jobs import ImageJob
from stylize.pyramid import Scale
from tests.conftest import waves

QUICK = Settings(encoder="tiny", size=24, steps=(3,), tolerance=0.0, device="cpu")
TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
PHOTO, STARRY = waves(36, 48, 1), waves(40, 40, 2)


def paint(
    tiny: EncoderSpec, settings: Settings = QUICK, content: Any = PHOTO, style: Any = STARRY, **call: Any
) -> Picture:
    return Stylizer(style, settings, encoders=[tiny])(content, **call)


def same(left: Picture, right: Picture) -> bool:
    return torch.equal(left.rgb, right.rgb)


def in_range(picture: Picture) -> bool:
    return bool(torch.isfinite(picture.rgb).all() and picture.rgb.min() >= 0 and picture.rgb.max() <= 1)


def flat(*color: float, height: int = 20, width: int = 30) -> Tensor:
    return torch.tensor(color, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, height, width).contiguous()


def distance(left: Tensor, right: Tensor) -> float:
    return float((left - right).square().mean().sqrt())


# What goes in and comes out


def test_paths_pictures_and_tensors_give_the_same_result(tiny: EncoderSpec, pictures: tuple[Path, Path]) -> None:
    content, style = pictures
    by_path = paint(tiny, content=content, style=str(style))
    by_picture = paint(tiny, content=images.load(content), style=images.load(style))
    by_tensor = paint(tiny, content=images.load(content).rgb, style=[images.load(style).rgb])
    assert same(by_path, by_picture)
    assert same(by_path, by_tensor)
    assert by_path.name == "photo"


@pytest.mark.parametrize(
    ("shape", "size", "upscale", "wanted"),
    [
        ((36, 48), 32, False, (24, 32)),
        ((36, 48), 48, False, (36, 48)),
        ((36, 48), 500, False, (36, 48)),  # never above the content's own
        ((36, 48), 64, True, (48, 64)),
        ((37, 53), 31, False, (22, 31)),  # 37 * 31 / 53 = 21.64
        ((53, 37), 31, False, (31, 22)),
        ((17, 17), 16, False, (16, 16)),
        ((1, 90), 45, False, (1, 45)),
        ((90, 1), 90, False, (90, 1)),
        ((1, 1), 512, False, (1, 1)),
    ],
)
def test_the_size_is_the_one_asked_for_in_the_content_s_proportions(
    tiny: EncoderSpec, shape: tuple[int, int], size: int, upscale: bool, wanted: tuple[int, int]
) -> None:
    for scales in (None, 3):
        settings = QUICK.replace(size=size, upscale=upscale, steps=(1,), scales=scales, min_size=16)
        result = paint(tiny, settings, content=waves(*shape))
        assert result.size == wanted
        assert in_range(result)


def test_the_camera_s_data_name_and_notes_pass_through(
    tiny: EncoderSpec, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Camera & Sons", 6
    with Image.open(pictures[0]) as photo:
        photo.save(tmp_path / "turned.jpg", exif=exif)
    result = paint(tiny, content=tmp_path / "turned.jpg")
    assert result.size == (24, 18)  # upright
    result.save(tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as saved:
        assert saved.getexif()[ExifTags.Base.Make] == "Camera & Sons"
        assert saved.getexif()[ExifTags.Base.Orientation] == 1
        assert saved.size == (18, 24)
    noted = Picture(PHOTO, notes=("a remark",), name="mine")
    result = paint(tiny, content=noted)
    assert (result.notes, result.name) == (("a remark",), "mine")


def test_the_result_is_a_picture_of_its_own_on_the_cpu(tiny: EncoderSpec) -> None:
    content, style = PHOTO.clone(), STARRY.clone()
    result = paint(tiny, QUICK.replace(size=512), content, style)
    assert result.rgb.dtype == torch.float32
    assert result.rgb.device.type == "cpu"
    assert not result.rgb.requires_grad
    assert torch.equal(content, PHOTO)  # the arguments are left as they were
    assert torch.equal(style, STARRY)
    assert not torch.equal(result.rgb, PHOTO)


@pytest.mark.parametrize("source", [torch.rand(8, 8, 3), torch.rand(1, 2, 8, 8), torch.rand(2, 3, 8, 8)])
def test_a_tensor_of_another_shape_is_refused(tiny: EncoderSpec, source: Tensor) -> None:
    for content, style in ((source, STARRY), (PHOTO, source)):
        with pytest.raises(SettingsError, match=r"\(1, 3, H, W\)"):
            paint(tiny, content=content, style=style)


def test_a_tensor_that_is_not_finite_is_refused(tiny: EncoderSpec) -> None:
    broken = PHOTO.clone()
    broken[0, 0, 3, 3] = torch.nan
    for content, style in ((broken, STARRY), (PHOTO, broken)):
        with pytest.raises(StylizeError):
            paint(tiny, content=content, style=style)


@pytest.mark.parametrize(
    ("settings", "styles", "words"),
    [
        (QUICK.replace(style_weights=(1.0, 2.0)), [STARRY], "2 numbers for 1 style"),
        (QUICK.replace(style_weights=(1.0,)), [STARRY, PHOTO], "1 numbers for 2 style"),
        (QUICK, [], "no style"),
        (QUICK.replace(encoder="nonsense"), [STARRY], "unknown encoder 'nonsense'; known: auto, tiny"),
        (QUICK.replace(content_layer="relu9_1"), [STARRY], "unknown layer 'relu9_1'; tiny has relu1_1"),
        (QUICK.replace(style_layers={"relu9_1": 1.0}), [STARRY], "unknown layer 'relu9_1'"),
        (QUICK.replace(device="nonsense"), [STARRY], "device is 'nonsense'"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_picture(
    tiny: EncoderSpec, settings: Settings, styles: list[Tensor], words: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        Stylizer(styles, settings, encoders=[tiny])
    assert words in str(raised.value)


def test_layers_without_weight_need_not_exist(tiny: EncoderSpec) -> None:
    layers = {"relu1_1": 1.0, "relu9_1": 0.0}
    assert in_range(paint(tiny, QUICK.replace(style_layers=layers)))
    assert in_range(paint(tiny, QUICK.replace(content_weight=0.0, content_layer="relu9_1")))


# The optimisation


@pytest.mark.slow
def test_the_same_seed_gives_the_same_picture_bit_by_bit(tiny: EncoderSpec) -> None:
    for init in ("content", "noise", "style"):
        settings = QUICK.replace(init=init, scales=2, min_size=16)
        assert same(paint(tiny, settings), paint(tiny, settings)), init
    stylizer = Stylizer(STARRY, QUICK, encoders=[tiny])
    assert same(stylizer(PHOTO), stylizer(PHOTO))


def test_seeds_matter_where_there_is_noise_and_only_there(tiny: EncoderSpec) -> None:
    noise = QUICK.replace(init="noise")
    assert not same(paint(tiny, noise), paint(tiny, noise.replace(seed=1)))
    assert same(paint(tiny), paint(tiny, QUICK.replace(seed=1)))


def test_the_loss_decreases_over_the_steps_of_every_scale(tiny: EncoderSpec) -> None:
    steps: list[Step] = []
    paint(tiny, QUICK.replace(size=48, scales=2, steps=(8, 12)), on_step=steps.append)
    assert [(step.scale, step.number) for step in steps] == [(1, n) for n in range(1, 9)] + [
        (2, n) for n in range(1, 13)
    ]
    assert [(step.height, step.width) for step in (steps[0], steps[-1])] == [(18, 24), (36, 48)]
    for scale in (1, 2):
        totals = [step.total for step in steps if step.scale == scale]
        assert totals[-1] < 0.9 * totals[0]
        assert all(after <= before * 1.002 for before, after in itertools.pairwise(totals))


@pytest.mark.slow
def test_more_content_weight_stays_closer_to_the_photo(tiny: EncoderSpec) -> None:
    settings = QUICK.replace(steps=(15,), palette="free")
    photo = images.resize(PHOTO, 18, 24)
    apart = [distance(paint(tiny, settings.replace(content_weight=w)).rgb, photo) for w in (0.0, 0.1, 10.0)]
    assert apart[0] > apart[1] > apart[2] > 0


def test_smoothness_lowers_the_total_variation(tiny: EncoderSpec) -> None:
    def variation(picture: Picture) -> float:
        return float(picture.rgb.diff(dim=-1).abs().mean() + picture.rgb.diff(dim=-2).abs().mean())

    settings = QUICK.replace(steps=(10,), init="noise")
    assert variation(paint(tiny, settings.replace(tv_weight=2.0))) < 0.8 * variation(paint(tiny, settings))


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("style_loss", ["wasserstein", "gram"])
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("normalize", ["target", "paper"])
def test_every_combination_of_methods_lowers_the_loss(
    tiny: EncoderSpec, optimizer: str, style_loss: str, pooling: str, normalize: str
) -> None:
    totals: list[float] = []
    settings = QUICK.replace(optimizer=optimizer, style_loss=style_loss, pooling=pooling, normalize=normalize)
    settings = settings.replace(steps=(12,), content_weight=0.07 if normalize == "target" else 1e-5)
    assert in_range(paint(tiny, settings, on_step=lambda step: totals.append(step.total)))
    assert len(totals) == 12
    assert totals[-1] < 0.9 * totals[0]


@pytest.mark.slow
def test_the_methods_differ(tiny: EncoderSpec) -> None:
    changes: list[dict[str, Any]] = [{}, {"style_loss": "gram"}, {"pooling": "average"}, {"normalize": "paper"}]
    changes += [{"optimizer": "adam"}, {"history": 1}, {"style_scale": 0.5}, {"tv_weight": 0.1}]
    results = [paint(tiny, QUICK.replace(steps=(5,), **change)) for change in changes]
    assert not any(same(left, right) for left, right in itertools.combinations(results, 2))


def test_a_tolerance_ends_a_scale_early(tiny: EncoderSpec) -> None:
    steps: list[Step] = []
    paint(tiny, QUICK.replace(steps=(200,), tolerance=0.5), on_step=steps.append)
    assert 10 < len(steps) < 100


def test_every_start_is_where_the_painting_begins(
    tiny: EncoderSpec, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    """One step evaluates the start without moving from it: the result is the start."""
    Image.new("RGB", (24, 18), (255, 0, 0)).save(tmp_path / "red.png")
    settings = QUICK.replace(steps=(1,), palette="free")
    begun = {
        init: paint(tiny, settings.replace(init=init)).rgb
        for init in ("content", "style", "noise", str(tmp_path / "red.png"))
    }
    content, style, noise, file = begun.values()
    assert distance(content, images.resize(PHOTO, 18, 24)) < 1e-6
    assert distance(style, images.resize(STARRY, 24, 24)[..., 3:21, :]) < 1e-6  # the middle, covering
    assert distance(file, flat(1, 0, 0, height=18, width=24)) < 1e-6
    assert abs(float(noise.mean()) - 0.5) < 0.05
    assert abs(float(noise.std()) - 12**-0.5) < 0.02  # uniform
    given = waves(18, 24, 7)
    assert distance(paint(tiny, settings, init=given).rgb, given) < 1e-6
    larger = waves(36, 48, 7)
    assert distance(paint(tiny, settings, init=larger).rgb, images.resize(larger, 18, 24)) < 1e-6


@pytest.mark.parametrize("init", ["content", "noise", "style", "file"])
@pytest.mark.parametrize("mode", ["none", "luminance", "match"])
def test_every_start_runs_in_every_color_mode(
    tiny: EncoderSpec, pictures: tuple[Path, Path], init: str, mode: str
) -> None:
    settings = QUICK.replace(
        init=str(pictures[1]) if init == "file" else init, preserve_color=mode, scales=2, min_size=16, steps=(4,)
    )
    totals: dict[int, list[float]] = {1: [], 2: []}
    result = paint(tiny, settings, on_step=lambda step: totals[step.scale].append(step.total))
    assert in_range(result)
    assert result.size == (18, 24)
    assert all(values[-1] < values[0] for values in totals.values())


def test_extra_terms_join_the_loss(tiny: EncoderSpec) -> None:
    asked: list[tuple[int, int]] = []
    steps: list[Step] = []

    def brighter(scale: stylize.Scale) -> list[Term]:
        asked.append((scale.height, scale.width))

        def pull(image: Tensor, features: Mapping[str, Tensor]) -> Tensor:
            assert image.shape == (1, 3, scale.height, scale.width)
            assert "relu1_1" in features
            return (image - 1).square().mean()

        return [Term("bright", 20.0, pull, ("relu1_1",))]

    settings = QUICK.replace(scales=2, min_size=16, steps=(10,), palette="free")
    plain = paint(tiny, settings)
    bright = paint(tiny, settings, terms=brighter, on_step=steps.append)
    assert asked == [(9, 12), (18, 24)]
    assert all(set(step.terms) == {"content", "style", "bright"} for step in steps)
    assert all(step.total == pytest.approx(sum(step.terms.values()), rel=1e-4) for step in steps)
    assert bright.rgb.mean() > plain.rgb.mean() + 0.1


def test_an_encoder_says_what_the_content_is_unless_a_layer_is_named(tiny: EncoderSpec) -> None:
    both = dataclasses.replace(tiny, content={"relu2_1": 0.5, "relu4_2": 2.0})
    image, scale = images.resize(PHOTO.flip(3), 18, 24), Scale(18, 24, 1)

    def content(spec: EncoderSpec, layer: str) -> float:
        stylizer = Stylizer(STARRY, QUICK.replace(content_layer=layer, precision="float32"), encoders=[spec])
        term = stylizer.terms(PHOTO, scale)[0]
        return float(term.function(image, stylizer.engine.encode(image)))

    apart = {layer: content(both, layer) for layer in both.content}
    assert content(both, "auto") == pytest.approx(0.5 * apart["relu2_1"] + 2.0 * apart["relu4_2"], rel=1e-5)
    sums = {layer: factor * content(tiny, layer) for layer, factor in tiny.content.items()}
    assert set(sums) == {"relu2_1", "relu3_1", "relu4_2"}
    assert content(tiny, "auto") == pytest.approx(sum(sums.values()), rel=1e-5)
    assert apart["relu2_1"] != apart["relu4_2"]


def test_a_content_layer_the_encoder_lacks_is_named(tiny: EncoderSpec) -> None:
    shallow = dataclasses.replace(tiny, layers=("relu1_1", "relu2_1"))
    with pytest.raises(SettingsError, match=r"^unknown layer 'relu4_2'; tiny has relu1_1, relu2_1$"):
        Stylizer(STARRY, QUICK.replace(style_layers={"relu1_1": 1.0}), encoders=[shallow])


@pytest.mark.parametrize(
    "init",
    [torch.zeros(8, 8, 3), torch.full((1, 3, 8, 8), torch.nan)],
    ids=["shape", "nan"],
)
def test_a_start_that_is_no_picture_is_refused(tiny: EncoderSpec, init: Tensor) -> None:
    with pytest.raises(SettingsError, match=r"^a (tensor of a )?picture "):
        paint(tiny, init=init)


def test_a_term_that_is_no_number_is_refused_by_name(tiny: EncoderSpec) -> None:
    def terms(scale: Scale) -> list[Term]:
        return [Term("mine", 1.0, lambda image, _: image.mean((0, 2, 3)))]

    with pytest.raises(SettingsError, match=r"^term mine gives \(3,\), not a scalar$"):
        paint(tiny, terms=terms)


def test_noise_is_white_at_the_first_scale(tiny: EncoderSpec) -> None:
    begun: list[float] = []

    def look(image: Tensor, features: object) -> Tensor:
        begun.append(float(image.detach().std()))
        return image.sum() * 0

    settings = QUICK.replace(init="noise", size=256, upscale=True, min_size=16, steps=(1,))
    paint(tiny, settings, terms=lambda scale: [Term("look", 1.0, look)])
    assert begun[0] == pytest.approx(12**-0.5, rel=0.1)


@pytest.mark.parametrize("pressed_at", [1, 3, 9])
def test_stop_midway_returns_a_full_size_picture(tiny: EncoderSpec, pressed_at: int) -> None:
    steps: list[Step] = []
    settings = QUICK.replace(size=48, scales=3, min_size=16, steps=(4, 4, 4))
    result = paint(tiny, settings, on_step=steps.append, stop=lambda: len(steps) >= pressed_at)
    assert len(steps) == pressed_at
    assert result.size == (36, 48)
    assert in_range(result)


# The style


def counting(spec: EncoderSpec, calls: list[tuple[int, int]]) -> EncoderSpec:
    """The same encoder, which notes the size of every picture it sees outside of the optimisation."""

    def load(file: Path | None, progress: Progress | None) -> Callable[[Iterable[str], EncoderConfig], Encoder]:
        inner = spec.load(file, progress)

        def build(layers: Iterable[str], place: EncoderConfig) -> Encoder:
            encoder = inner(layers, place)

            class Counting:
                layers = encoder.layers

                def __call__(self, image: Tensor) -> Mapping[str, Tensor]:
                    if not torch.is_grad_enabled():
                        calls.append((image.shape[2], image.shape[3]))
                    return encoder(image)

            return Counting()

        return build

    return dataclasses.replace(spec, load=load)


def test_the_style_is_measured_once_for_pictures_of_the_same_size(tiny: EncoderSpec) -> None:
    calls: list[tuple[int, int]] = []
    settings = QUICK.replace(size=48, scales=2, steps=(1,))
    stylizer = Stylizer([STARRY, waves(20, 40, 3)], settings, encoders=[counting(tiny, calls)])
    stylizer(PHOTO)
    small = [(24, 24), (12, 24)] * 4  # as they are, mirrored, upside down, turned
    styles, contents, probe = [*small, (48, 48), (24, 48)], [(18, 24), (36, 48)], [(64, 64)]
    assert sorted(calls) == sorted(styles + contents + probe)
    calls.clear()
    stylizer(waves(36, 48, 5))
    assert sorted(calls) == contents  # another picture, the same style
    calls.clear()
    stylizer(waves(48, 36, 6))
    assert sorted(calls) == [(24, 18), (48, 36)]  # upright, but as long


def test_a_second_picture_is_painted_as_if_it_were_the_first(tiny: EncoderSpec) -> None:
    for mode in ("none", "luminance", "match"):
        settings = QUICK.replace(preserve_color=mode)
        stylizer = Stylizer(STARRY, settings, encoders=[tiny])
        stylizer(waves(36, 48, 5))
        assert same(stylizer(PHOTO), paint(tiny, settings)), mode


@pytest.mark.slow
def test_a_blend_lies_between_its_styles(tiny: EncoderSpec) -> None:
    red, blue = (waves(30, 30, 4) * 0.5 + flat(*color, height=30, width=30) * 0.5 for color in ((1, 0, 0), (0, 0, 1)))
    for loss in ("wasserstein", "gram"):
        settings = QUICK.replace(steps=(12,), content_weight=0.01, style_loss=loss)

        def redness(settings: Settings, *styles: Tensor) -> float:
            result = paint(tiny, settings, style=styles).rgb
            return float((result[:, 0] - result[:, 2]).mean())

        all_red, all_blue = redness(settings, red), redness(settings, blue)
        even = redness(settings, red, blue)
        mostly_red = redness(settings.replace(style_weights=(4.0, 1.0)), red, blue)
        only_red = redness(settings.replace(style_weights=(2.0, 0.0)), red, blue)
        assert all_blue < even < mostly_red < all_red, loss
        assert only_red == pytest.approx(all_red, abs=0.02), loss


def test_a_blend_of_one_style_with_itself_is_that_style(tiny: EncoderSpec) -> None:
    for loss in ("wasserstein", "gram"):
        settings = QUICK.replace(style_loss=loss)
        once, twice = paint(tiny, settings), paint(tiny, settings, style=[STARRY, STARRY])
        assert distance(once.rgb, twice.rgb) < 0.01, loss


def test_a_picture_that_is_its_own_style_stays_as_it_is(tiny: EncoderSpec) -> None:
    result = paint(tiny, QUICK.replace(size=48, steps=(5,), scales=1), PHOTO, PHOTO)
    assert distance(result.rgb, PHOTO) < 0.02


# Alpha


def with_alpha(rgb: Tensor, hidden: float) -> Picture:
    """A picture whose left third is transparent, with this colour hidden under it, and whose middle is half so."""
    alpha = torch.ones_like(rgb[:, :1])
    third = rgb.shape[3] // 3
    alpha[..., :third], alpha[..., third : 2 * third] = 0, 0.5
    return Picture(torch.where(alpha > 0, rgb, hidden), alpha)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "luminance", "match"])
@pytest.mark.parametrize("init", ["content", "style", "noise"])
def test_what_is_transparent_does_not_steer_the_result(tiny: EncoderSpec, mode: str, init: str) -> None:
    settings = QUICK.replace(preserve_color=mode, init=init, scales=2, min_size=16)
    one, other = (paint(tiny, settings, with_alpha(PHOTO, h), with_alpha(STARRY, h)) for h in (0.0, 1.0))
    assert same(one, other)
    assert not same(one, paint(tiny, settings, with_alpha(PHOTO, 0.0), STARRY))  # but transparency does
    assert not same(one, paint(tiny, settings, PHOTO, with_alpha(STARRY, 0.0)))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["wasserstein", "gram"])
def test_what_is_filled_in_for_transparent_places_does_not_count_as_content_or_style(
    tiny: EncoderSpec, loss: str
) -> None:
    content, style = with_alpha(PHOTO, 0.0), with_alpha(STARRY, 0.0)
    for weights in ({"content_weight": 0.0}, {"style_weight": 0.0, "content_weight": 1.0, "init": "noise"}):
        settings = QUICK.replace(style_loss=loss, steps=(6,), **weights)
        filled = paint(tiny, settings, content.opaque(), style)
        visible = (slice(None), slice(None), slice(None), slice(9, None))
        assert distance(paint(tiny, settings, content, style).rgb[visible], filled.rgb[visible]) > 1e-3
    settings = QUICK.replace(style_loss=loss, steps=(6,))
    assert distance(paint(tiny, settings, PHOTO, style).rgb, paint(tiny, settings, PHOTO, style.opaque()).rgb) > 1e-3


@pytest.mark.parametrize("mode", ["none", "match", "luminance"])
def test_the_room_around_a_cut_out_does_not_count(tiny: EncoderSpec, mode: str) -> None:
    """The same cut-out on a larger transparent canvas: the same target colours, the same weight of the content."""
    settings = QUICK.replace(preserve_color=mode, size=400)

    def measured(margin: int) -> tuple[Tensor, float]:
        edges = (margin,) * 4
        rgb, alpha = torch.nn.functional.pad(PHOTO, edges, value=0.9), torch.ones(1, 1, *PHOTO.shape[2:])
        picture = Picture(rgb, torch.nn.functional.pad(alpha, edges))
        stylizer = Stylizer(STARRY, settings, encoders=[tiny])
        photo, target = stylizer._styles.of(picture, (stylizer.styles, ()))
        term, *_ = stylizer.terms(photo, Scale(*picture.size, 1), alpha=picture.alpha)
        changed = (photo * 0.5).expand(-1, 3, -1, -1)
        return target.styles[0].rgb, float(term.function(changed, stylizer.engine.encode(changed)))

    (style, content), (roomy_style, roomy_content) = measured(32), measured(96)
    assert distance(style, roomy_style) < 1e-4
    assert roomy_content == pytest.approx(content, rel=0.02)


def test_transparency_of_the_start_hides_its_colours(tiny: EncoderSpec, tmp_path: Path) -> None:
    results = []
    for hidden in (0.0, 1.0):
        with_alpha(waves(18, 24, 3), hidden).save(tmp_path / "start.png")
        results.append(paint(tiny, QUICK.replace(init=str(tmp_path / "start.png"))))
    assert same(*results)


def test_alpha_is_kept(tiny: EncoderSpec) -> None:
    content = with_alpha(PHOTO, 0.0)
    result = paint(tiny, QUICK.replace(size=48), content)
    assert result.alpha is not None
    assert content.alpha is not None
    assert torch.equal(result.alpha, content.alpha)
    smaller = paint(tiny, content=content)
    assert smaller.alpha is not None
    assert smaller.alpha.shape == (1, 1, 18, 24)
    assert torch.equal(smaller.alpha[..., :6].round(), torch.zeros(1, 1, 18, 6))
    assert smaller.alpha[..., -6:].min() > 0.99
    assert paint(tiny).alpha is None


def test_pictures_of_which_nothing_is_visible_are_painted(tiny: EncoderSpec) -> None:
    nothing = Picture(PHOTO, torch.zeros(1, 1, 36, 48))
    for mode in ("none", "luminance", "match"):
        settings = QUICK.replace(preserve_color=mode)
        assert in_range(paint(tiny, settings, nothing, STARRY))
        assert in_range(paint(tiny, settings, PHOTO, nothing))


# Colour


@pytest.mark.parametrize("mode", ["none", "luminance", "match"])
def test_the_last_picture_an_observer_sees_is_the_result(tiny: EncoderSpec, mode: str) -> None:
    seen: list[Tensor] = []
    photo = Picture(PHOTO, waves(36, 48, 5)[:, :1].round())
    settings = QUICK.replace(preserve_color=mode, scales=2)
    result = paint(tiny, settings, photo, on_step=lambda step: seen.append(step.image()))
    assert [tuple(image.shape[2:]) for image in seen] == [(9, 12)] * 3 + [(18, 24)] * 3
    assert torch.equal(seen[-1], result.rgb)


def test_luminance_keeps_the_photo_s_chroma(tiny: EncoderSpec) -> None:
    photo = PHOTO * 0.5 + 0.25
    settings = QUICK.replace(size=48, steps=(20,), content_weight=0.0, preserve_color="luminance", init="noise")
    result = paint(tiny, settings, photo).rgb
    yiq, wanted = (torch.einsum("ij,bjhw->bihw", TO_YIQ, rgb) for rgb in (result, photo))
    chroma = photo - wanted[:, :1]
    room = yiq[:, :1] + chroma
    fits = ((room > 0.001) & (room < 0.999)).all(1)
    assert fits.float().mean() > 0.5
    assert (yiq[:, 1:] - wanted[:, 1:]).abs().amax(1)[fits].max() < 1e-3
    assert distance(yiq[:, :1], wanted[:, :1]) > 0.02  # the painting is in the luminance


def test_steps_at_full_size_alone_end_with_the_palette_too(tiny: EncoderSpec) -> None:
    means = {}
    for palette in ("style", "free"):
        settings = QUICK.replace(palette=palette, content_weight=1e3)
        means[palette] = paint(tiny, settings, init=PHOTO, steps=2).rgb.mean((0, 2, 3))
    wanted = STARRY.mean((0, 2, 3))
    assert (means["style"] - wanted).abs().max() < 0.03 < (means["free"] - wanted).abs().max()


@pytest.mark.slow
def test_match_brings_the_colours_near_the_photo_s(tiny: EncoderSpec) -> None:
    photo = waves(36, 48, 1) * 0.4 + flat(0.55, 0.2, 0.05, height=36, width=48)
    style = waves(40, 40, 2) * 0.4 + flat(0.0, 0.2, 0.55, height=40, width=40)
    settings = QUICK.replace(steps=(25,), content_weight=0.01)
    apart = {}
    for mode in ("none", "match"):
        result = paint(tiny, settings.replace(preserve_color=mode), photo, style).rgb
        apart[mode] = float((result.mean((0, 2, 3)) - photo.mean((0, 2, 3))).abs().max())
    assert apart["match"] < 0.1 < apart["none"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "luminance", "match"])
@pytest.mark.parametrize("loss", ["wasserstein", "gram"])
@pytest.mark.parametrize("normalize", ["target", "paper"])
def test_grey_and_constant_pictures_give_finite_ones(tiny: EncoderSpec, mode: str, loss: str, normalize: str) -> None:
    grey = luminance(waves(20, 30, 4)).expand(-1, 3, -1, -1)
    black, white, blue = flat(0, 0, 0), flat(1, 1, 1), flat(0.2, 0.4, 0.9)
    settings = QUICK.replace(
        preserve_color=mode, style_loss=loss, normalize=normalize, size=16, steps=(4,), tv_weight=0.01
    )
    pairs = [(PHOTO, black), (black, PHOTO), (grey, white), (white, grey), (blue, blue), (blue, PHOTO), (black, black)]
    for content, style in pairs:
        assert in_range(paint(tiny, settings, content, style))


def test_styles_of_one_colour_can_be_blended(tiny: EncoderSpec) -> None:
    for styles in ([flat(0, 0, 0), flat(1, 1, 1)], [flat(0.5, 0.5, 0.5), STARRY], [flat(0, 0, 0), flat(0, 0, 0)]):
        assert in_range(paint(tiny, style=styles))


# Extreme settings


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"style_scale": 0.001},
        {"style_scale": 10.0},
        {"scales": 16},
        {"history": 200},
        {"content_weight": 0.0},
        {"style_weight": 0.0},
        {"style_weight": 0.0, "content_weight": 1e6, "init": "noise"},
        {"content_weight": 1e6},
        {"style_weight": 1e6},
        {"tv_weight": 1e6},
        {"learning_rate": 1.0, "optimizer": "adam"},
        {"precision": "bfloat16"},
        {"seed": 2**63 - 1, "init": "noise"},
    ],
    ids=str,
)
def test_settings_at_the_end_of_their_range_give_a_picture(tiny: EncoderSpec, change: dict[str, Any]) -> None:
    result = paint(tiny, QUICK.replace(steps=(4,), **change))
    assert in_range(result)
    assert result.size == (18, 24)


def test_a_loss_beyond_recovery_is_said_so(tiny: EncoderSpec) -> None:
    def never(scale: stylize.Scale) -> list[Term]:
        return [Term("never", 1.0, lambda image, features: image.sum() * torch.nan)]

    for optimizer in ("lbfgs", "adam"):
        with pytest.raises(stylize.OptimizationError, match="diverged"):
            paint(tiny, QUICK.replace(optimizer=optimizer, steps=(30,)), terms=never)


# Texture and reconstruction


@pytest.mark.slow
def test_texture_lowers_its_loss_and_needs_no_content(tiny: EncoderSpec) -> None:
    steps: list[Step] = []
    settings = QUICK.replace(size=32, scales=1, steps=(20,))
    result = texture(waves(20, 40, 2), settings, encoders=[tiny], on_step=steps.append)
    assert result.size == (16, 32)
    assert in_range(result)
    assert all(set(step.terms) == {"style"} for step in steps)
    assert steps[-1].total < 0.3 * steps[0].total
    assert same(result, texture(waves(20, 40, 2), settings, encoders=[tiny]))
    assert not same(result, texture(waves(20, 40, 2), settings.replace(seed=1), encoders=[tiny]))


def test_texture_may_be_larger_than_its_style(tiny: EncoderSpec) -> None:
    assert texture(waves(10, 20), QUICK.replace(size=48, steps=(1,)), encoders=[tiny]).size == (24, 48)


def test_texture_takes_a_blend_and_can_be_stopped(tiny: EncoderSpec) -> None:
    steps: list[Step] = []
    settings = QUICK.replace(size=32, scales=2, min_size=16, steps=(9,), style_weights=(1.0, 3.0))
    result = texture([STARRY, PHOTO], settings, encoders=[tiny], on_step=steps.append, stop=lambda: len(steps) > 3)
    assert len(steps) == 4
    assert result.size == (32, 32)


def psnr(picture: Tensor, wanted: Tensor) -> float:
    return float(-20 * np.log10(distance(picture, wanted)))


@pytest.mark.slow
def test_reconstruct_from_the_first_layer_approaches_the_picture(tiny: EncoderSpec) -> None:
    steps: list[Step] = []
    photo = images.resize(PHOTO, 18, 24)
    settings = QUICK.replace(steps=(200,))
    begun = reconstruct(PHOTO, "relu1_1", settings.replace(steps=(1,)), encoders=[tiny]).rgb
    result = reconstruct(PHOTO, "relu1_1", settings, encoders=[tiny], on_step=steps.append).rgb
    assert result.shape == photo.shape
    assert all(set(step.terms) == {"content"} for step in steps)
    assert steps[-1].total < 0.001 * steps[0].total
    assert psnr(begun, photo) < 12  # noise
    assert psnr(result, photo) > 30


@pytest.mark.slow
def test_reconstruct_knows_less_the_deeper_the_layer(tiny: EncoderSpec) -> None:
    photo = images.resize(PHOTO, 18, 24)
    near = {
        layer: psnr(reconstruct(PHOTO, layer, QUICK.replace(steps=(100,)), encoders=[tiny]).rgb, photo)
        for layer in ("relu1_1", "relu2_1", "relu5_1")
    }
    assert near["relu1_1"] > near["relu2_1"] > near["relu5_1"]


def test_reconstruct_ignores_what_belongs_to_a_style(tiny: EncoderSpec) -> None:
    changes = {"style_weight": 3.0, "preserve_color": "luminance", "scales": 3, "init": "content"}
    plain, changed = (
        reconstruct(PHOTO, "relu2_1", settings, encoders=[tiny]) for settings in (QUICK, QUICK.replace(**changes))
    )
    assert same(plain, changed)


def test_reconstruct_of_an_unknown_layer_is_refused(tiny: EncoderSpec) -> None:
    with pytest.raises(SettingsError, match="unknown layer 'relu9_9'; tiny has relu1_1"):
        reconstruct(PHOTO, "relu9_9", QUICK, encoders=[tiny])


def test_a_job_and_a_call_give_the_same_picture(tiny: EncoderSpec, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    stylizer = Stylizer(pictures[1], QUICK, encoders=[tiny])
    path = stylize.run(ImageJob(pictures[0], tmp_path / "out.png"), stylizer)
    assert path == tmp_path / "out.png"
    assert distance(images.load(path).rgb, stylizer(pictures[0]).rgb) < 0.5 / 255


@pytest.mark.parametrize("normalize", ["target", "paper"])
@pytest.mark.parametrize("style_loss", ["wasserstein", "gram"])
def test_the_style_is_no_distance_from_itself(tiny: EncoderSpec, style_loss: str, normalize: str) -> None:
    settings = QUICK.replace(style_loss=style_loss, normalize=normalize, style_layers={"relu1_1": 1, "relu2_1": 1})
    stylizer = Stylizer(STARRY, settings, encoders=[tiny])
    scale = Scale(STARRY.shape[2], STARRY.shape[3], 1)
    (term,) = (term for term in stylizer.terms(STARRY, scale) if term.name == "style")
    at_home, elsewhere = (
        float(term.function(image, stylizer.engine.encode(image))) for image in (STARRY, STARRY.flip(1) * 0.5)
    )
    assert abs(at_home) < 1e-3 * elsewhere


# From any program


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")])
def test_what_is_around_a_call_does_not_matter(
    tiny: EncoderSpec, guard: Callable[[], Any], pictures: tuple[Path, Path]
) -> None:
    start = images.load(pictures[0]).rgb
    wanted, begun = (paint(tiny, content=pictures[0], style=pictures[1], init=init) for init in (None, start))
    with guard():
        stylizer = Stylizer(images.load(pictures[1]), QUICK, encoders=[tiny])
        inside = stylizer(images.load(pictures[0]))
        again = stylizer(pictures[0], init=images.load(pictures[0]).rgb)
    assert same(inside, wanted)
    assert same(again, begun)
    assert same(stylizer(pictures[0]), wanted)  # what was made inside serves outside
    assert not inside.rgb.is_inference()


@pytest.mark.slow
def test_threads_share_a_stylizer(tiny: EncoderSpec) -> None:
    photos = [waves(36, 48, seed) for seed in range(6)]

    def terms(scale: Scale, layer: str) -> list[Term]:  # each asks the one encoder for a layer of its own
        return [Term(layer, 1e-3, lambda image, features: features[layer].float().mean(), (layer,))]

    layers = ["relu1_2", "relu2_2", "relu3_2", "relu3_3", "relu4_3", "relu5_2"]
    wanted = [paint(tiny, content=p, terms=lambda s, n=n: terms(s, n)) for p, n in zip(photos, layers, strict=True)]
    stylizer = Stylizer(STARRY, QUICK, encoders=[tiny])
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda photo, layer: stylizer(photo, terms=lambda s: terms(s, layer)), photos, layers)
    assert all(same(one, other) for one, other in zip(made, wanted, strict=True))


def test_settings_can_be_a_preset_s_name_and_changed_by_name(tiny: EncoderSpec) -> None:
    stylizer = Stylizer(STARRY, "strong", size=24, encoder="tiny", encoders=[tiny])
    assert stylizer.settings == stylize.preset("strong", Settings(size=24, encoder="tiny"))
    assert Stylizer(STARRY, {"size": 32}, encoder="tiny", encoders=[tiny]).settings.size == 32
    with pytest.raises(SettingsError, match=r"unknown preset 'stronger'; known: default, strong"):
        Stylizer(STARRY, "stronger", encoders=[tiny])
    with pytest.raises(SettingsError, match=r"unknown setting 'sise'"):
        Stylizer(STARRY, QUICK, sise=24, encoders=[tiny])
    with pytest.raises(SettingsError, match=r"not int$"):
        Stylizer(STARRY, 512, encoders=[tiny])  # type: ignore[arg-type]
    assert texture(STARRY, QUICK, steps=(1,), encoders=[tiny]).size == (24, 24)


def test_a_picture_that_was_stopped_says_so(tiny: EncoderSpec) -> None:
    assert (paint(tiny, stop=lambda: True).record or {})["stopped"] is True
    assert "stopped" not in (paint(tiny).record or {})


def test_weights_of_styles_can_be_given_for_each_picture(tiny: EncoderSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    from stylize import terms

    other, measured = waves(30, 30, 7), 0
    add_up = terms._add_up

    def counted(*arguments: Any) -> Any:
        nonlocal measured
        measured += 1
        return add_up(*arguments)

    monkeypatch.setattr(terms, "_add_up", counted)
    stylizer = Stylizer([STARRY, other], QUICK, encoders=[tiny])
    half = stylizer(PHOTO, style_weights=(0.4, 0.6))
    once = measured
    assert torch.equal(stylizer(PHOTO, style_weights=(0.0, 2.0)).rgb, paint(tiny, QUICK, PHOTO, other).rgb)
    stylizer(PHOTO, style_weights=(0.7, 0.3))
    assert measured == once + once // 2  # of the one above; the blends share what is known
    fixed = Stylizer([STARRY, other], QUICK.replace(style_weights=(0.4, 0.6)), encoders=[tiny])(PHOTO)
    assert torch.equal(half.rgb, fixed.rgb)
    assert half.record is not None
    assert half.record["settings"]["style_weights"] == [0.4, 0.6]
    for wrong in ((1.0,), (0.0, 0.0), (-1.0, 2.0)):
        with pytest.raises(SettingsError, match="style_weights"):
            stylizer(PHOTO, style_weights=wrong)


@pytest.mark.parametrize("changes", [{}, {"style_loss": "match"}, {"preserve_color": "luminance", "optimizer": "adam"}])
def test_the_default_dtype_of_the_host_makes_no_difference(tiny: EncoderSpec, changes: dict[str, Any]) -> None:
    settings, content = QUICK.replace(steps=(3, 3), **changes), with_alpha(PHOTO, 0.2)
    usual = paint(tiny, settings, content)
    torch.set_default_dtype(torch.float64)
    try:
        assert same(paint(tiny, settings, content), usual)
    finally:
        torch.set_default_dtype(torch.float32)
