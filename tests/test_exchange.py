"""What programs hand over as a picture, and what a picture becomes for them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms

from stylize import ImageError, Picture, SettingsError, StylizeError, as_picture, load, read_record, save
from stylize.images import srgb_profile

RANDOM = np.random.default_rng(0)
COLORS = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
UNIT = torch.from_numpy(COLORS).permute(2, 0, 1)[None].float() / 255


def same(picture: Picture, rgb: torch.Tensor, tolerance: float = 1e-6) -> bool:
    return picture.rgb.shape == rgb.shape and bool((picture.rgb - rgb).abs().max() <= tolerance)


def png(array: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


# In


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path,
        str,
        lambda path: path.read_bytes(),
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: path.open("rb"),
        Image.open,
        lambda path: Image.open(path).copy(),
    ],
    ids=["path", "str", "bytes", "bytearray", "memoryview", "BytesIO", "file", "opened", "copied"],
)
def test_a_file_is_the_same_picture_however_it_is_given(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Camera & Sons", 6
    path = tmp_path / "turned.jpg"
    gray = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))  # unusable, which is noted
    Image.fromarray(COLORS).save(path, exif=exif, icc_profile=gray.tobytes())
    wanted, given = load(path), make(path)
    made = as_picture(given)
    assert made.size == (9, 6)  # upright
    assert torch.equal(made.rgb, wanted.rgb)
    assert (made.exif, made.notes) == (wanted.exif, wanted.notes)
    assert made.exif is not None
    assert wanted.notes
    assert (made.origin is not None) == isinstance(given, (str, Path))
    getattr(given, "close", lambda: None)()


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I;16", "F"]
)
def test_a_pillow_image_of_any_mode_is_taken_and_left_as_it_was(mode: str) -> None:
    if mode in ("I;16", "F"):
        numbers = np.arange(54).reshape(6, 9)
        image = Image.fromarray(
            (numbers * 1000).astype(np.uint16) if mode == "I;16" else numbers.astype(np.float32) / 54
        )
    elif mode == "PA":
        image = Image.fromarray(COLORS).convert("P").convert("PA")
    elif mode == "RGBa":
        image = Image.fromarray(COLORS).convert("RGBA").convert("RGBa")
    else:
        image = Image.fromarray(COLORS).convert(mode)
    before = image.mode, image.tobytes()
    made = as_picture(image)
    assert made.size == (6, 9)
    assert (image.mode, image.tobytes()) == before
    if mode in ("RGB", "RGBA", "RGBa"):
        assert same(made, UNIT)


def test_a_large_pillow_image_is_shrunk_to_what_is_needed() -> None:
    image = Image.new("RGB", (4000, 100), "red")
    assert as_picture(image, 100).size == (10, 400)
    assert image.size == (4000, 100)


def test_a_pillow_jpeg_that_is_not_decoded_yet_keeps_its_size(tmp_path: Path) -> None:
    Image.new("RGB", (640, 320), "red").save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert as_picture(image, 16).size == (32, 64)
        assert image.size == (640, 320)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, ">f4", ">u2"])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_a_numpy_array_of_any_type_is_taken(dtype: Any, channels: int | None) -> None:
    kind = np.dtype(dtype)
    unit = COLORS[..., 0] / 255 if channels is None else np.dstack([COLORS, COLORS[..., ::-1]])[..., :channels] / 255
    top = np.iinfo(kind).max if kind.kind == "u" else 1.0
    array = (unit * top).round().astype(kind) if kind.kind == "u" else unit.astype(kind)
    before = array.copy()
    made = as_picture(array)
    color = torch.from_numpy(unit.reshape(6, 9, -1)[..., :3]).permute(2, 0, 1)[None].float().expand(-1, 3, -1, -1)
    assert same(made, color, 1e-3 if kind.itemsize == 2 else 1e-6)
    assert (made.alpha is not None) == (channels == 4)
    made.rgb.zero_()  # a copy of its own
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("view", [COLORS[::-1], COLORS[:, ::-2], COLORS[..., ::-1], np.asfortranarray(COLORS)])
def test_a_view_of_an_array_is_taken(view: Any) -> None:
    assert same(as_picture(view), torch.from_numpy(view.copy()).permute(2, 0, 1)[None].float() / 255)


def test_an_array_that_cannot_be_written_to_is_taken() -> None:
    fixed = COLORS.copy()
    fixed.setflags(write=False)
    assert same(as_picture(fixed), UNIT)
    assert same(as_picture(np.asarray(Image.fromarray(COLORS))), UNIT)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_tensor_of_any_type_is_taken(dtype: torch.dtype, batched: bool, channels: int) -> None:
    unit = torch.cat([UNIT, UNIT.flip(1)], 1)[:, :channels]
    top = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    tensor = (unit * top).round().to(dtype) if top > 1 else unit.to(dtype)
    made = as_picture(tensor if batched else tensor[0])
    assert same(made, unit[:, :3].expand(-1, 3, -1, -1), 0.01 if dtype.itemsize == 2 else 1e-6)
    assert (made.alpha is not None) == (channels == 4)
    assert made.rgb.dtype == torch.float32


def test_a_tensor_that_needs_a_gradient_or_was_made_for_inference_is_taken() -> None:
    assert not as_picture(UNIT.clone().requires_grad_()).rgb.requires_grad
    with torch.inference_mode():
        inside = UNIT.clone()
    assert not as_picture(inside).rgb.is_inference()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (5, "a picture can be given as a path, bytes, .* not as int"),
        (None, "not as NoneType"),
        ({"rgb": UNIT}, "not as dict"),
        (COLORS.astype(float), r"\[0, 1\]; this one goes from .* divide by 255"),
        (UNIT * 255, "divide by 255"),
        (UNIT / UNIT.max() * 1.01, r"\[0, 1\]; this one goes from 0 to 1.01"),
        (UNIT * 2 - 1, "scale it to that range"),
        (UNIT.log() * 0 + torch.nan, "NaN"),
        (np.full((4, 4), np.inf), "infinity"),
        (COLORS.astype(np.int64), "not int64"),
        (COLORS > 3, "not bool"),
        (UNIT.int(), "not int32"),
        (UNIT.to("meta"), "meta holds no picture"),
        (UNIT.permute(0, 2, 3, 1), "permute|one picture"),
        (UNIT[0].permute(1, 2, 0), r"tensor.permute\(2, 0, 1\)"),
        (UNIT[0, 0], r"\(6, 9\)"),
        (UNIT.expand(2, -1, -1, -1), "one picture at a time"),
        (COLORS.transpose(2, 0, 1), r"array.transpose\(1, 2, 0\)"),
        (COLORS[None], r"\(1, 6, 9, 3\)"),
        (COLORS[..., :2], r"\(6, 9, 2\)"),
        (COLORS[:0], r"\(0, 9, 3\)"),
        (np.array("text"), r"not \(\)"),
        (b"", "it is empty"),
        (b"no picture", "not a picture"),
        (io.BytesIO(), r"seek\(0\)"),
        (io.StringIO("text"), "mode 'rb'"),
    ],
)
def test_anything_else_is_refused_in_a_line_that_says_what_is_taken(source: Any, words: str) -> None:
    with pytest.raises(StylizeError, match=words) as raised:
        as_picture(source)
    assert "\n" not in str(raised.value)


def test_load_says_what_it_takes() -> None:
    with pytest.raises(ImageError, match=r"type ndarray: load\(\) takes a path, .*; as_picture\(\) takes arrays"):
        load(np.zeros((4, 4, 3), np.uint8))  # type: ignore[arg-type]


def test_a_damaged_picture_in_memory_is_refused() -> None:
    data = png(COLORS)
    with pytest.raises(ImageError, match=r"^cannot read the picture in memory: "):
        as_picture(data[:60])
    closed = Image.open(io.BytesIO(data))
    closed.close()
    with pytest.raises(ImageError, match=r"^cannot read the PIL image: "):
        as_picture(closed)


def test_a_file_object_is_read_from_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "two.bin").write_bytes(b"head" + png(COLORS))
    with (tmp_path / "two.bin").open("rb") as file:
        assert file.read(4) == b"head"
        made = as_picture(file)
    assert same(made, UNIT)
    assert made.name == "two"


# Out


def test_a_picture_becomes_an_array_of_any_type() -> None:
    picture = Picture(UNIT)
    np.testing.assert_array_equal(picture.numpy(), COLORS)
    np.testing.assert_array_equal(np.asarray(picture), COLORS)
    np.testing.assert_array_equal(picture.numpy(np.uint16), COLORS.astype(np.uint16) * 257)
    np.testing.assert_allclose(picture.numpy(float), COLORS / 255, atol=1e-6)
    assert np.asarray(picture, np.float32).dtype == np.float32
    assert np.asarray(picture, np.float32).max() == COLORS.max()  # as NumPy converts any array
    assert picture.numpy().flags["C_CONTIGUOUS"]
    assert picture.numpy().flags["WRITEABLE"]
    assert Picture(UNIT, UNIT[:, :1]).numpy().shape == (6, 9, 4)
    with pytest.raises(SettingsError, match="not of int32"):
        picture.numpy(np.int32)
    with pytest.raises(ImageError, match="NaN"):
        Picture(UNIT * torch.nan).numpy()


def test_a_picture_comes_back_from_all_it_becomes() -> None:
    alpha = (UNIT[:, :1] * 255).round() / 255
    for picture in (Picture(UNIT), Picture(UNIT, alpha)):
        for held in (
            picture.pil(),
            picture.numpy(),
            picture.numpy(np.uint16),
            picture.numpy(float),
            np.asarray(picture),
        ):
            again = as_picture(held)
            assert same(again, UNIT, 2e-5)
            assert (again.alpha is None) == (picture.alpha is None)


def test_a_pillow_image_has_the_profile_and_the_exif() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    image = Picture(UNIT, exif=exif.tobytes()).pil()
    assert (image.mode, image.size) == ("RGB", (9, 6))
    assert image.info["icc_profile"] == srgb_profile()
    assert image.getexif()[ExifTags.Base.Make] == "Camera"
    assert np.array_equal(np.asarray(Image.fromarray(np.asarray(Picture(UNIT)))), COLORS)


def test_a_notebook_shows_a_picture_of_moderate_size() -> None:
    with Image.open(io.BytesIO(Picture(UNIT)._repr_png_())) as shown:
        np.testing.assert_array_equal(np.asarray(shown), COLORS)
    with Image.open(io.BytesIO(Picture(torch.zeros(1, 3, 50, 3000))._repr_png_())) as shown:
        assert shown.size == (1024, 17)
    assert repr(Picture(UNIT, UNIT[:, :1], name="cat")) == "<Picture 9x6 with alpha 'cat'>"


@pytest.mark.parametrize(
    ("options", "format"),
    [
        ({}, "PNG"),
        ({"format": "jpeg"}, "JPEG"),
        ({"format": "JPG", "quality": 90}, "JPEG"),
        ({"format": ".webp"}, "WEBP"),
        ({"format": "tiff", "bits": 16}, "TIFF"),
    ],
)
def test_a_picture_is_written_into_a_file_object(options: dict[str, Any], format: str) -> None:
    buffer = io.BytesIO()
    Picture(UNIT, record={"made": "so", "content": {"path": "/a/b.png"}}).save(buffer, **options)
    with Image.open(io.BytesIO(buffer.getvalue())) as image:
        assert image.format == format
        assert image.size == (9, 6)
    if format in ("PNG", "TIFF"):
        assert same(as_picture(buffer.getvalue()), UNIT, 1e-4)


def test_the_format_of_a_file_object_is_that_of_its_name(tmp_path: Path) -> None:
    with (tmp_path / "out.jpg").open("wb") as file:
        save(UNIT, file)
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.format == "JPEG"
    record = {"content": {"path": "/a/b.png"}}
    with (tmp_path / "out.png").open("wb") as file:
        save(Picture(UNIT, record=record), file)
    assert read_record(tmp_path / "out.png") == record
    save(UNIT, tmp_path / "odd.name", format="png")
    with Image.open(tmp_path / "odd.name") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (io.BytesIO(), {"format": "bmp"}, "unknown extension '.bmp'"),
        (io.BytesIO(), {"format": "jpg", "bits": 16}, "8 bits per channel"),
        (5, {}, "a path or a file object, not to int"),
        (io.StringIO(), {}, "the file object"),
    ],
)
def test_what_cannot_be_written_to_is_refused(target: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        Picture(UNIT).save(target, **options)


def test_a_picture_can_be_pickled() -> None:
    assert torch.equal(pickle.loads(pickle.dumps(Picture(UNIT))).rgb, UNIT)
