"""Regions: each in its style, with statistics of its own, whole or in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stylize import (
    Chain,
    Frame,
    Job,
    Painted,
    Picture,
    PluginError,
    Region,
    Settings,
    SettingsError,
    Stylizer,
    hookimpl,
    plugin_manager,
    read_record,
    run,
)
from stylize.colors import luminance
from stylize.encoders import EncoderSpec
from stylize.objective import evaluate_in_tiles, objective
from stylize.prepared import loss_terms
from stylize.pyramid import Scale
from stylize.regions import Layout
from stylize.tiles import tileable
from tests.conftest import Call, waves

SETTINGS = Settings(encoder="tiny", size=48, min_size=16, steps=(3,), tolerance=0.0, device="cpu")
PHOTO, STARRY = waves(36, 48, 1), waves(40, 40, 2)
LEFT = np.zeros((36, 48), np.uint8)
LEFT[:, :24] = 255


def tinted(*color: float) -> Tensor:
    return waves(30, 30, 4) * 0.5 + torch.tensor(color).view(1, 3, 1, 1) * 0.5


RED, BLUE, GREEN = tinted(1.0, 0.0, 0.0), tinted(0.0, 0.0, 1.0), tinted(0.0, 1.0, 0.0)


@pytest.fixture
def stylizer(tiny: EncoderSpec) -> Stylizer:
    return Stylizer(BLUE, SETTINGS.replace(steps=(10,), content_weight=0.01), encoders=[tiny])


def redness(rgb: Tensor) -> float:
    return float((rgb[:, 0] - rgb[:, 2]).mean())


@pytest.mark.slow
def test_each_region_has_its_style_and_the_rest_the_main_one(stylizer: Stylizer) -> None:
    right = np.zeros((36, 48), np.uint8)
    right[:, 36:] = 255
    made = stylizer(PHOTO, regions=[(LEFT, RED), Region(right, GREEN)]).rgb
    plain = stylizer(PHOTO).rgb
    assert redness(made[..., :20]) > redness(plain[..., :20]) + 0.1
    assert redness(made[..., 28:33]) < redness(plain[..., 28:33]) + 0.05
    green = (made[:, 1] - made[:, 2]).mean((0, 1))
    assert green[40:].mean() > green[26:34].mean() + 0.1


@pytest.mark.slow
def test_later_regions_lie_over_earlier_ones(stylizer: Stylizer) -> None:
    everywhere = np.full((36, 48), 255, np.uint8)
    over = stylizer(PHOTO, regions=[(LEFT, RED), (everywhere, GREEN)]).rgb
    alone = stylizer(PHOTO, regions=[(everywhere, GREEN)]).rgb
    torch.testing.assert_close(over, alone, atol=0.02, rtol=0)


@pytest.mark.slow
def test_one_region_for_all_is_that_style(tiny: EncoderSpec) -> None:
    everywhere = np.full((36, 48), 255, np.uint8)
    for loss in ("wasserstein", "gram"):
        for mode in ("none", "luminance", "match"):
            settings = SETTINGS.replace(style_loss=loss, preserve_color=mode)
            whole = Stylizer(RED, settings, encoders=[tiny])(PHOTO).rgb
            made = Stylizer(BLUE, settings, encoders=[tiny])(PHOTO, regions=[(everywhere, RED)]).rgb
            torch.testing.assert_close(made, whole, atol=2e-3, rtol=0)


@pytest.mark.slow
def test_a_region_has_a_blend_and_a_content_weight_of_its_own(stylizer: Stylizer, tiny: EncoderSpec) -> None:
    half = slice(0, 20)
    red, both, mostly = (
        redness(stylizer(PHOTO, regions=[Region(LEFT, styles, style_weights=weights)]).rgb[..., half])
        for styles, weights in ((RED, ()), ([RED, BLUE], ()), ([RED, BLUE], (4.0, 1.0)))
    )
    assert both < mostly < red
    stylizer = Stylizer(BLUE, SETTINGS.replace(steps=(10,), content_weight=0.01, palette="free"), encoders=[tiny])
    held = stylizer(PHOTO, regions=[Region(LEFT, RED, content_weight=10.0)]).rgb
    free = stylizer(PHOTO, regions=[Region(LEFT, RED)]).rgb

    def change(made: Tensor, columns: slice) -> float:
        moved, photo = luminance(made)[..., columns], luminance(PHOTO)[..., columns]
        return float((moved - moved.mean() - photo + photo.mean()).square().mean())

    assert change(held, half) < change(free, half)


@pytest.mark.slow
def test_transparent_style_pixels_do_not_count_in_a_region(stylizer: Stylizer) -> None:
    alpha = torch.ones(1, 1, 30, 30)
    alpha[..., 15:] = 0
    shown = torch.where(alpha > 0, RED, 0.0)
    hidden = torch.where(alpha > 0, RED, 1.0)
    one, other = (stylizer(PHOTO, regions=[(LEFT, Picture(rgb, alpha))]).rgb for rgb in (shown, hidden))
    assert torch.equal(one, other)


@pytest.mark.slow
def test_a_region_that_nothing_is_left_of_is_painted_over(stylizer: Stylizer) -> None:
    nothing = np.zeros((36, 48), np.uint8)
    made = stylizer(PHOTO, regions=[(nothing, RED)]).rgb
    torch.testing.assert_close(made, stylizer(PHOTO).rgb, atol=1e-3, rtol=0)
    masked = stylizer(PHOTO, mask=255 - LEFT, regions=[(LEFT, RED)]).rgb  # outside of the mask
    assert torch.equal(masked[..., :24], PHOTO[..., :24])


@pytest.mark.parametrize("loss", ["wasserstein", "gram"])
def test_tiles_give_the_same_values_and_gradient(tiny: EncoderSpec, loss: str) -> None:
    settings = SETTINGS.replace(style_loss=loss, precision="float32", size=160)
    stylizer = Stylizer(BLUE, settings, encoders=[tiny])
    photo = Picture(waves(150, 160, 1))
    mask = np.zeros((150, 160), np.uint8)
    mask[20:110, 30:100] = 255
    layout = Layout.of(photo, (150, 160), None, [Region(mask, RED, content_weight=0.5)], settings.content_weight)
    assert layout is not None
    targets = stylizer._styles.of_parts(layout, photo, (stylizer.styles, ()))
    found = loss_terms(stylizer.engine, photo.rgb, Scale(150, 160, 1), targets, None, layout, None)
    terms = [term for term in found if term.weight]
    image = waves(150, 160, 9)
    values, gradient = objective(stylizer.engine, terms)(image)
    encoder = tileable(stylizer.engine.encoder, 150, 160)
    assert encoder is not None
    tiled, tiled_gradient = evaluate_in_tiles(image, terms, encoder, 64)
    torch.testing.assert_close(tiled, values, rtol=1e-3, atol=1e-6)
    assert float((tiled_gradient - gradient).norm() / gradient.norm()) < 5e-3


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ((LEFT, []), "a region has no style picture"),
        ("sky.png", "a region is a stylize.Region, or a pair of mask and style, not str"),
        ((LEFT.T, RED), "proportions"),
    ],
)
def test_what_is_no_region_is_refused(stylizer: Stylizer, region: object, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        stylizer(PHOTO, regions=[region])  # type: ignore[list-item]


def test_wrong_numbers_are_refused(tiny: EncoderSpec) -> None:
    with pytest.raises(SettingsError, match="content_weight of a region is -1"):
        Region(LEFT, RED, content_weight=-1)
    with pytest.raises(SettingsError, match="2 styles and the style_weights"):
        Region(LEFT, [RED, BLUE], style_weights=(1.0,))
    free = Stylizer(BLUE, SETTINGS.replace(content_weight=0.0), encoders=[tiny])
    with pytest.raises(SettingsError, match="a region has a content weight, but that of the whole is 0"):
        free(PHOTO, regions=[Region(LEFT, RED, content_weight=0.1)])


# On the command line, and from plugins

QUICK = ("--encoder", "tiny", "--size", "48", "--steps", "2")


@pytest.fixture
def scene(pictures: tuple[Path, Path], folder: Path) -> Path:
    for name, rgb in (("red.png", RED), ("blue.png", BLUE)):
        Picture(rgb).save(folder / name)
    colors = np.zeros((36, 48, 3), np.uint8)
    colors[:, :20] = (0, 255, 0)
    colors[20:, 30:] = (255, 0, 255)
    Image.fromarray(colors).save(folder / "map.png")
    return folder


@pytest.mark.slow
def test_regions_are_recorded_and_replayed(scene: Path, call: Call) -> None:
    regions = ("--region", "#00ff00 of map.png", "red.png,blue.png@0.2", "--region", "map.png=#ff00ff", "red.png")
    done = call("photo.png", "starry.png", "-o", "out.png", *regions, *QUICK)
    assert done.code == 0, done.err
    record = read_record(scene / "out.png") or {}
    first, second = record["regions"]
    assert first["mask"]["color"] == "#00ff00"
    assert first["content_weight"] == 0.2
    assert [style["path"] for style in first["styles"]] == ["red.png", "blue.png"]
    assert len(second["mask"]["sha256"]) == 64
    done = call("replay", "out.png")
    assert done.code == 0, done.err
    assert "the same picture, pixel by pixel" in done.err
    for arguments, words in (
        (("--region", "map.png", "none.png"), "cannot read none.png"),
        (("--region", "none.png=#123456", "red.png"), "cannot read none.png"),
        (("--region", "starry.png", "red.png"), "proportions"),
        (("--region", "map.png", "red.png@-1"), "cannot read"),
        (("--region", "map.png"), "--region takes a mask and a style; after map.png comes the option"),
    ):
        done = call("photo.png", "starry.png", "-o", "more.png", *arguments, *QUICK)
        assert done.code in (1, 2)
        assert words in done.err


@pytest.mark.slow
def test_a_folder_is_painted_again_when_a_region_has_changed(scene: Path, call: Call) -> None:
    (scene / "photos").mkdir()
    (scene / "photos" / "a.png").write_bytes((scene / "photo.png").read_bytes())
    command = ("photos", "starry.png", "-o", "out", "--region", "map.png=#00ff00", "red.png", *QUICK)
    assert call(*command).code == 0
    assert "1 of 1 are up to date" in call(*command).err
    done = call(*command[: -len(QUICK) - 1], "blue.png", *QUICK)
    assert "changed: regions" in done.err


class OnePicture(Job):
    """Paints a picture and keeps the result."""

    def frames(self, chain: Chain) -> Iterator[Frame]:
        yield Frame("photo", Picture(PHOTO))

    def write(self, frame: Frame, painted: Painted) -> None:
        self.result = painted.picture


class Finder:
    """Finds a region in every picture."""

    @hookimpl
    def stylize_regions(self, frame: Frame) -> list[Region]:
        return [Region(LEFT, RED)]


class Broken:
    @hookimpl
    def stylize_regions(self, frame: Frame) -> list[str]:
        return ["sky"]


@pytest.mark.slow
def test_a_plugin_finds_regions(stylizer: Stylizer) -> None:
    host, job = plugin_manager(only=()), OnePicture()
    host.register(Finder(), "finder")
    run(job, stylizer, host=host, options={})
    assert redness(job.result.rgb[..., :20]) > redness(stylizer(PHOTO).rgb[..., :20]) + 0.1
    (region,) = (job.result.record or {})["regions"]
    assert len(region["mask"]["sha256"]) == 64
    host.register(Broken(), "broken")
    with pytest.raises(PluginError, match=r"broken.*stylize_regions"):
        run(job, stylizer, host=host, options={})
