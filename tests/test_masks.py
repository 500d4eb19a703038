"""Masks: from files, colours of maps and arrays; what they leave alone, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from stylize import ImageError, Mask, Settings, SettingsError, Stylizer, as_mask, load
from stylize.encoders import EncoderSpec
from stylize.masks import mask_file, softened
from tests.conftest import Call, waves

SETTINGS = Settings(encoder="tiny", size=48, min_size=16, steps=(3,), tolerance=0.0, device="cpu")
PHOTO, STARRY = waves(36, 48, 1), waves(40, 40, 2)
HALF = np.zeros((36, 48), np.uint8)
HALF[:, 24:] = 255
QUICK = ("--encoder", "tiny", "--size", "48", "--steps", "2")


# What can be a mask


@pytest.mark.parametrize(
    "source",
    [
        HALF,
        HALF > 0,
        HALF.astype(np.uint16) * 257,
        HALF / 255,
        np.dstack([HALF] * 3),
        torch.from_numpy(HALF),
        torch.from_numpy(HALF > 0),
        torch.from_numpy(HALF)[None, None],
        Image.fromarray(HALF),
        Image.fromarray(HALF).convert("1"),
        Image.fromarray(np.dstack([np.full((36, 48, 3), 255, np.uint8), HALF])),  # what is transparent does not count
    ],
    ids=lambda source: f"{type(source).__name__}",
)
def test_a_mask_is_taken_from_whatever_holds_one(source: Any) -> None:
    mask = as_mask(source)
    assert torch.equal(mask.weights[0, 0], torch.from_numpy(HALF / 255).float())
    assert as_mask(mask) is mask
    assert torch.equal(mask.inverse().weights[0, 0], torch.from_numpy(1 - HALF / 255).float())


def test_greys_keep_their_values() -> None:
    levels = np.arange(256, dtype=np.uint8)[None]
    weights = as_mask(np.dstack([levels] * 3)).weights.flatten()
    np.testing.assert_allclose(weights, np.arange(256) / 255, atol=1e-5)
    assert (weights[0], weights[255]) == (0, 1)


@pytest.mark.parametrize("spec", ["{}=#ff0000", "{}=#F00", "#ff0000 of {}", "red of {}"])
def test_one_colour_of_a_map_is_a_mask(tmp_path: Path, spec: str) -> None:
    colors = np.zeros((6, 8, 3), np.uint8)
    colors[:, :3], colors[:, 3:5], colors[:, 5:] = (255, 0, 0), (200, 0, 0), (255, 255, 255)
    path = tmp_path / "map.png"
    Image.fromarray(colors).save(path)
    mask = as_mask(spec.format(path))
    assert mask.weights[0, 0, 0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert mask.color == "#ff0000"
    assert mask.origin is not None
    assert mask_file(spec.format(path))[0] == path
    assert mask.described() == {"path": str(path), "sha256": mask.origin.sha256, "color": "#ff0000"}


def test_a_colour_is_found_again_in_a_map_that_lost_some_of_it(tmp_path: Path) -> None:
    colors = np.zeros((32, 32, 3), np.uint8)
    colors[:, :16], colors[:, 16:] = (30, 160, 60), (40, 60, 200)
    Image.fromarray(colors).save(tmp_path / "map.jpg", quality=90)
    weights = as_mask(f"{tmp_path / 'map.jpg'}=#1ea03c").weights[0, 0]
    assert weights[:, :14].min() > 0.9
    assert weights[:, 18:].max() == 0


def test_a_file_whose_name_looks_like_a_colour_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png=#ff0000"
    Image.fromarray(HALF).save(path, "PNG")
    assert as_mask(str(path)).color == ""


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("there/is/none.png", "cannot read"),
        ("mauvish of a.png", "'mauvish' is no colour"),
        (np.full((2, 2), 7), "int64"),
    ],
)
def test_what_is_no_mask_is_refused(source: Any, words: str) -> None:
    with pytest.raises((ImageError, SettingsError), match=words):
        as_mask(source)


def test_edges_become_soft_inward_only() -> None:
    mask = torch.zeros(1, 1, 9, 20)
    mask[..., 10:] = 1
    row = softened(mask, inward=True)[0, 0, 4].tolist()
    assert row[:10] == [0] * 10
    assert 0.4 < row[10] < row[11] < row[12]
    assert row[12:] == pytest.approx([1] * 8)
    slope = torch.linspace(0, 1, 200).expand(1, 1, 9, -1)
    assert float((softened(slope, inward=True) - slope).abs().max()) < 0.02  # a soft mask stays as it is


def test_what_is_painted_small_is_laid_over_a_larger_content() -> None:
    content, mask = torch.rand(1, 3, 24, 32), torch.zeros(1, 1, 24, 32)
    mask[..., 16:] = 1
    laid = Mask(mask).over(content, torch.ones(1, 3, 12, 16))
    assert torch.equal(laid[..., :16], content[..., :16])
    torch.testing.assert_close(laid[..., 20:], torch.ones(1, 3, 24, 12))
    assert (laid >= content - 1e-6).all()


# What is painted


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("mode", ["none", "luminance", "match"])
@pytest.mark.parametrize("init", ["content", "noise"])
def test_the_photo_stays_where_a_mask_is_black(
    tiny: EncoderSpec, tmp_path: Path, bits: int, mode: str, init: str
) -> None:
    dtype, top = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
    pixels: Any = np.random.default_rng(0).integers(0, top + 1, (36, 48, 3)).astype(dtype)
    cv2.imwrite(str(tmp_path / "photo.png"), pixels)
    settings = SETTINGS.replace(preserve_color=mode, init=init)
    made = Stylizer(STARRY, settings, encoders=[tiny])(tmp_path / "photo.png", mask=HALF)
    made.save(tmp_path / "out.png", bits=bits)
    found: Any = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[:, :24], pixels[:, :24])
    assert np.mean(found[:, 28:] != pixels[:, 28:]) > 0.5


def test_grey_is_mixed_and_white_is_as_without_a_mask(tiny: EncoderSpec) -> None:
    stylizer = Stylizer(STARRY, SETTINGS, encoders=[tiny])
    plain = stylizer(PHOTO)
    assert torch.equal(stylizer(PHOTO, mask=np.full((36, 48), 255, np.uint8)).rgb, plain.rgb)
    grey = stylizer(PHOTO, mask=np.full((36, 48), 0.25)).rgb
    torch.testing.assert_close(grey, torch.lerp(PHOTO, plain.rgb, 0.25), atol=1e-4, rtol=0)
    black = stylizer(PHOTO, mask=np.zeros((36, 48)))
    assert torch.equal(black.rgb, PHOTO)


def test_what_is_left_out_does_not_steer_what_is_painted(tiny: EncoderSpec) -> None:
    settings = SETTINGS.replace(style_layers={"relu1_1": 1.0}, content_layer="relu1_1", scales=1, precision="float32")
    stylizer, far = Stylizer(STARRY, settings, encoders=[tiny]), slice(32, None)
    other = PHOTO.clone()
    other[..., :12] = 1 - other[..., :12]
    one, two = (stylizer(photo, mask=HALF).rgb[..., far] for photo in (PHOTO, other))
    torch.testing.assert_close(one, two, atol=1e-3, rtol=0)
    free = stylizer(other).rgb[..., far]
    assert float((free - one).abs().max()) > 0.01


def test_steps_show_the_masked_picture(tiny: EncoderSpec) -> None:
    seen: list[torch.Tensor] = []
    result = Stylizer(STARRY, SETTINGS, encoders=[tiny])(
        PHOTO, mask=HALF, on_step=lambda step: seen.append(step.image())
    )
    assert torch.equal(seen[-1], result.rgb)
    assert torch.equal(seen[-1][..., :24], PHOTO[..., :24])


def test_a_mask_of_another_size_fits_and_of_another_shape_does_not(tiny: EncoderSpec) -> None:
    stylizer = Stylizer(STARRY, SETTINGS, encoders=[tiny])
    large = np.kron(HALF, np.ones((3, 3), np.uint8))
    assert torch.equal(stylizer(PHOTO, mask=large).rgb[..., :22], PHOTO[..., :22])
    with pytest.raises(
        SettingsError, match=r"a mask is 36x48, and the picture 48x36; the proportions must be the same"
    ):
        stylizer(PHOTO, mask=HALF.T)


# On the command line


@pytest.fixture
def masked(pictures: tuple[Path, Path], folder: Path) -> Path:
    Image.fromarray(HALF).save(folder / "half.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("option", "kept"), [("--mask", slice(0, 24)), ("--keep", slice(28, 48))])
def test_mask_and_keep_on_the_command_line(masked: Path, call: Call, option: str, kept: slice) -> None:
    done = call("photo.png", "starry.png", "-o", "out.png", option, "half.png", *QUICK)
    assert done.code == 0, done.err
    result, photo = load(masked / "out.png"), load(masked / "photo.png")
    keeps = slice(0, 24) if option == "--mask" else slice(24, 48)
    assert torch.equal(result.rgb[..., keeps], photo.rgb[..., keeps])
    assert not torch.equal(result.rgb, photo.rgb)
    done = call("replay", "out.png")
    assert done.code == 0, done.err
    assert "the same picture, pixel by pixel" in done.err
    (masked / "half.png").unlink()
    done = call("replay", "out.png")
    assert done.code == 1
    assert "half.png" in done.err
    assert kept is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mask", "half.png", "--keep", "half.png"), "--mask and --keep cannot be combined"),
        (("--mask", "none.png"), "cannot read none.png"),
        (("--mask", "starry.png"), "proportions"),
        (("--mask", "half.png", "-o", "half.png"), "also a source"),
    ],
)
def test_wrong_masks_are_refused(masked: Path, call: Call, arguments: tuple[str, ...], words: str) -> None:
    done = call("photo.png", "starry.png", *QUICK, *arguments)
    assert done.code in (1, 2)
    assert words in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_a_folder_of_masks(masked: Path, call: Call) -> None:
    (masked / "photos" / "sub").mkdir(parents=True)
    (masked / "masks" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", "c.png"):
        (masked / "photos" / name).write_bytes((masked / "photo.png").read_bytes())
    Image.fromarray(HALF).save(masked / "masks" / "a.png")
    Image.fromarray(255 - HALF).save(masked / "masks" / "sub" / "b.bmp")
    command = ("photos", "starry.png", "-o", "out", "--mask-folder", "masks", *QUICK)
    done = call(*command)
    assert done.code == 0, done.err
    photo = load(masked / "photo.png").rgb
    assert torch.equal(load(masked / "out" / "a.png").rgb[..., :24], photo[..., :24])
    assert torch.equal(load(masked / "out" / "sub" / "b.png").rgb[..., 24:], photo[..., 24:])
    assert not (masked / "out" / "c.png").exists()
    assert "2 of 2 are up to date" in call(*command).err
    Image.fromarray(HALF[::-1] // 2).save(masked / "masks" / "a.png")
    assert "changed: mask" in call(*command).err
    done = call(*command, "--mask", "half.png")
    assert done.code in (1, 2)
    assert "--mask-folder cannot be combined" in done.err


def test_one_mask_for_all_pictures_of_a_folder(masked: Path, call: Call) -> None:
    (masked / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (masked / "photos" / name).write_bytes((masked / "photo.png").read_bytes())
    done = call("photos", "starry.png", "-o", "out", "--keep", "half.png", *QUICK)
    assert done.code == 0, done.err
    for name in ("a.png", "b.png"):
        kept = load(masked / "out" / name).rgb[..., 24:]
        assert torch.equal(kept, load(masked / "photo.png").rgb[..., 24:])


def test_a_mask_without_a_file_is_known_by_its_content() -> None:
    one, other = (Mask(torch.full((1, 1, 2, 2), value)) for value in (0.0, 1.0))
    assert one.described() != other.described()
    assert one.described() == Mask(torch.zeros(1, 1, 2, 2)).described()
