"""Reading, writing and resizing pictures, on generated files only."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import stat
import struct
import sys
import tempfile
import threading
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin, TiffImagePlugin, features
from torch import Tensor

from stylize.errors import ImageError
from stylize.images import (
    FORMATS,
    RECORD_LIMIT,
    Origin,
    Picture,
    Saved,
    atomic_write,
    check_target,
    digest,
    fill_transparent,
    fit,
    load,
    read_record,
    resize,
    save,
    saved_state,
    srgb_profile,
)
from stylize.images.record import embed
from tests import preloaded
from tests.conftest import PATIENCE

Array = NDArray[Any]
RNG = np.random.default_rng(0)
SIXTEEN = RNG.integers(0, 65536, (5, 7, 4), dtype=np.uint16)
HASTY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(autouse=True)
def kept(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for what could not be written where it should."""
    folder = tmp_path_factory.mktemp("kept")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder in which this process may not search; root may anywhere, so it is somebody else meanwhile."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0)
    if ROOT:
        os.seteuid(65534)
    yield folder
    if ROOT:
        os.seteuid(0)
    folder.chmod(0o700)


def photo(height: int = 12, width: int = 18) -> Array:
    """A smooth picture of many colours, (H, W, 3) uint8: what lossy formats keep well."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    return (np.stack([x, y, 0.5 + 0.4 * np.sin(4 * x + y)], axis=-1) * 255).round().astype(np.uint8)


def tensor(pixels: Array) -> Tensor:
    """(H, W, C) integers -> (1, C, H, W) in [0, 1], divided in float32 as load() does."""
    white = {1: 255, 2: 65535}[pixels.dtype.itemsize]
    return torch.from_numpy((pixels.astype(np.float32) / np.float32(white)).transpose(2, 0, 1).copy())[None]


def write(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(pixels: Array, extra: bytes = b"") -> bytes:
    """A 16-bit PNG of (H, W, C), straight from the specification."""
    height, width, channels = pixels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_tiff(pixels: Array, order: bytes = b"II", orientation: int = 1, extra: int | None = None) -> bytes:
    """A 16-bit uncompressed TIFF of (H, W, 3 or 4) in either byte order."""
    height, width, channels = pixels.shape
    data = pixels.astype("<u2" if order == b"II" else ">u2").tobytes()
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=order)
    directory[256], directory[257], directory[258] = width, height, (16,) * channels
    directory[259], directory[262], directory[274], directory[277] = 1, 2, orientation, channels
    directory[273], directory[278], directory[279], directory[284] = 0, height, len(data), 1
    if extra is not None:
        directory[338] = extra
    buffer = io.BytesIO(struct.pack("<2sHL" if order == b"II" else ">2sHL", order, 42, 8))
    buffer.seek(8)
    directory.save(buffer)
    return buffer.getvalue() + data


def icc(red: tuple[float, float], gamma: float = 2.2) -> bytes:
    """A minimal matrix profile: sRGB's primaries but for the red one, given as (x, y), and a plain gamma."""
    xy = np.array([red, (0.3, 0.6), (0.15, 0.06)])
    primaries = np.stack([xy[:, 0] / xy[:, 1], np.ones(3), (1 - xy.sum(1)) / xy[:, 1]])
    white = np.array([0.9642, 1.0, 0.8249])
    columns = primaries * np.linalg.solve(primaries, white)

    def fixed(values: Any) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": b"XYZ \0\0\0\0" + fixed(white)}
    for name, column in zip((b"r", b"g", b"b"), columns.T, strict=True):
        tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(column)
        tags[name + b"TRC"] = curve
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4s4s4s4s4s12x4s", size, b"lcms", b"\x02\x10\0\0", b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return header.ljust(68, b"\0") + fixed(white) + bytes(48) + table + body


WIDE = icc((0.72, 0.28), gamma=1.8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def message(error: pytest.ExceptionInfo[ImageError], path: Path) -> str:
    """The text of an error, after checking that it is one line that names the file."""
    text = str(error.value)
    assert text.splitlines() == [text]
    assert str(path) in text
    return text


# --- reading: modes ---


def of_mode(mode: str) -> Image.Image:
    base = Image.fromarray(photo())
    if mode in ("LA", "PA", "RGBA"):
        base.putalpha(Image.fromarray(np.tile(np.array([0, 90, 255], np.uint8), (12, 6))))
        return base if mode == "RGBA" else base.convert(mode)
    if mode == "I":
        return Image.fromarray(np.asarray(base.convert("L")).astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(base.convert("L")).astype(np.float32) / 255)
    if mode.startswith("I;16"):
        order = ">" if mode.endswith("B") else "<"
        data = (np.asarray(base.convert("L")).astype(np.uint16) * 257).astype(order + "u2").tobytes()
        return Image.frombytes(mode, base.size, data)
    if mode == "LAB":
        lab = ImageCms.profileToProfile(
            base, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode=mode
        )
        assert lab is not None
        return lab
    return base.convert(mode)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "I;16B", "F"]
)
def test_modes_in_files(tmp_path: Path, mode: str) -> None:
    image = of_mode(mode)
    picture = load(write(tmp_path / "picture.tif", image))
    assert picture.size == (12, 18)
    assert picture.rgb.dtype == torch.float32
    assert picture.rgb.is_contiguous()
    assert picture.name == "picture"
    assert picture.notes == ()
    if mode in ("1", "L", "LA", "I", "I;16", "I;16B", "F"):
        source = of_mode("1").convert("L") if mode == "1" else Image.fromarray(photo()).convert("L")
        expected = np.repeat(np.asarray(source)[..., None], 3, axis=2)
        torch.testing.assert_close(picture.rgb, tensor(expected), atol=1e-6, rtol=0)
    elif mode == "LAB":  # 8 bits of Lab are coarse in the dark
        torch.testing.assert_close(picture.rgb, tensor(photo()), atol=8 / 255, rtol=0)
    else:
        expected = np.asarray(image.convert("RGBA").convert("RGB") if mode == "PA" else image.convert("RGB"))
        torch.testing.assert_close(picture.rgb, tensor(expected), atol=1e-6, rtol=0)
    if mode in ("LA", "PA", "RGBA"):
        assert picture.alpha is not None
        assert picture.alpha.shape == (1, 1, 12, 18)
        assert picture.alpha[0, 0, 0, :3].tolist() == pytest.approx([0, 90 / 255, 1])
    else:
        assert picture.alpha is None


@pytest.mark.parametrize("mode", ["La", "RGBa", "RGBX", "HSV", "I;16L", "I;16N"])
def test_modes_that_only_live_in_memory(mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = of_mode({"La": "LA", "RGBa": "RGBA"}.get(mode, "RGB"))
    image = of_mode(mode) if mode.startswith("I;16") else source.convert(mode)
    monkeypatch.setattr(Image, "open", lambda file, **_: image)
    path = tmp_path / "x.png"
    path.write_bytes(b"x")
    picture = load(path)
    expected = source.convert("L") if mode.startswith("I;16") else source
    visible = tensor(np.asarray(expected.convert("RGBA")))
    assert (picture.alpha is not None) == (mode in ("La", "RGBa"))
    close = (picture.rgb - visible[:, :3]).abs() * (visible[:, 3:] if picture.alpha is not None else 1)
    assert float(close.max()) < 8 / 255


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture = load(write(tmp_path / "p.png", image, transparency=bytes([255, 0, 128])))
    assert picture.alpha is not None
    assert picture.alpha[0, 0].mul(255).round().tolist() == [[255, 0], [128, 0]]
    assert picture.rgb[0, :, 1, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 7, 7)), ("I;16", 7)])
def test_a_colour_declared_transparent(tmp_path: Path, mode: str, key: Any) -> None:
    values = np.array([[7, 8]], np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(values) if mode != "RGB" else Image.fromarray(np.repeat(values[..., None], 3, axis=2))
    path = write(tmp_path / "t.png", image)
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk(b"tRNS", np.atleast_1d(key).astype(">u2").tobytes()) + data[33:])
    alpha = load(path).alpha
    assert alpha is not None
    assert alpha.flatten().tolist() == [0, 1]


def test_fully_opaque_alpha_is_dropped(tmp_path: Path) -> None:
    assert load(write(tmp_path / "a.png", Image.fromarray(photo()).convert("RGBA"))).alpha is None


def test_float_pictures_of_other_ranges(tmp_path: Path) -> None:
    levels = np.array([[0, 51, 255]], np.float32)
    picture = load(write(tmp_path / "f.tif", Image.fromarray(levels)))
    assert picture.rgb[0, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    path = write(tmp_path / "nan.tif", Image.fromarray(np.array([[np.nan, 1]], np.float32)))
    with pytest.raises(ImageError) as error:
        load(path)
    assert "NaN" in message(error, path)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    colour = load(write(tmp_path / "c.jpg", image, quality=95)).rgb[0, :, 4, 4]
    assert colour.tolist() == pytest.approx([1, 0, 0], abs=0.02)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(tmp_path: Path, format: str) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    path = write(tmp_path / f"a.{format.lower()}", frames[0], save_all=True, append_images=frames[1:], duration=50)
    picture = load(path)
    assert picture.notes == ("animated: first of 3 frames used",)
    assert picture.rgb[0, :, 2, 2].tolist() == pytest.approx([1, 0, 0], abs=0.03)


def test_the_second_picture_of_a_phone_is_no_animation(tmp_path: Path) -> None:
    path, second = tmp_path / "phone.jpg", Image.new("RGB", (20, 10), "blue")
    Image.fromarray(photo(200, 300)).save(path, "MPO", save_all=True, append_images=[second])
    with Image.open(path) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)  # type: ignore[attr-defined]
    assert load(path).notes == ()
    assert load(path, longest=30).size == (20, 30)


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", Image.new("L", (3, 3)), save_all=True, append_images=[Image.new("L", (3, 3), 9)])
    assert load(path).notes == ("first of 2 pages used",)


# --- reading: 16 bits ---


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png(tmp_path: Path, channels: int) -> None:
    pixels = SIXTEEN[..., :channels]
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(pixels))
    picture = load(path)
    expected = tensor(pixels)
    colour = expected[:, :3] if channels > 2 else expected[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(picture.rgb, colour)
    if channels in (2, 4):
        assert picture.alpha is not None
        assert torch.equal(picture.alpha, expected[:, -1:])


def test_sixteen_bit_png_with_a_transparent_colour(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(SIXTEEN[..., :3], chunk(b"tRNS", SIXTEEN[2, 3, :3].astype(">u2").tobytes())))
    picture = load(path)
    assert torch.equal(picture.rgb, tensor(SIXTEEN[..., :3]))
    assert picture.alpha is not None
    assert torch.nonzero(picture.alpha[0, 0] == 0).tolist() == [[2, 3]]


@pytest.mark.parametrize("order", [b"II", b"MM"])
def test_sixteen_bit_tiff(tmp_path: Path, order: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "deep.tif"
    path.write_bytes(deep_tiff(SIXTEEN[..., :3], order))
    assert torch.equal(load(path).rgb, tensor(SIXTEEN[..., :3]))
    path.write_bytes(deep_tiff(SIXTEEN, order))  # missing tag: alpha
    assert load(path).alpha is not None
    path.write_bytes(deep_tiff(SIXTEEN, order, extra=0))  # the fourth sample means nothing
    assert load(path).alpha is None
    path.write_bytes(deep_tiff(SIXTEEN, order, extra=2))
    picture = load(path)
    assert picture.alpha is not None
    assert torch.equal(torch.cat([picture.rgb, picture.alpha], 1), tensor(SIXTEEN))
    premultiplied = (SIXTEEN * (SIXTEEN[..., 3:] / 65535)).round().astype(np.uint16)
    premultiplied[..., 3] = SIXTEEN[..., 3]
    path.write_bytes(deep_tiff(premultiplied, order, extra=1))
    difference = (load(path).rgb - tensor(SIXTEEN[..., :3])).abs() * picture.alpha
    assert float(difference.max()) <= 1 / 65535
    assert capfd.readouterr() == ("", "")


def test_sixteen_bits_survive_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(SIXTEEN[..., :3], chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB))))
    picture = load(path)
    assert picture.notes == ()
    assert torch.equal(picture.rgb, tensor(SIXTEEN[..., :3]))
    for channels in (1, 2, 3, 4):
        pixels = SIXTEEN[..., :channels]
        path.write_bytes(deep_png(pixels, chunk(b"iCCP", b"x\0\0" + zlib.compress(WIDE))))
        picture = load(path)
        assert picture.notes == ()
        levels = picture.rgb * 255
        assert float((levels - levels.round()).abs().max()) > 0.2
        eight = Image.fromarray(np.rint(pixels[..., [0, 0, 0] if channels < 3 else [0, 1, 2]] / 257).astype(np.uint8))
        expected = ImageCms.profileToProfile(eight, io.BytesIO(WIDE), ImageCms.createProfile("sRGB"))
        assert expected is not None
        assert float((picture.rgb - tensor(np.asarray(expected))).abs().max()) <= 4 / 255
        assert (picture.alpha is not None) == (channels in (2, 4))


# --- reading: orientation, EXIF, ICC ---

UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", [".png", ".webp", ".tif"])
def test_orientation(tmp_path: Path, orientation: int, extension: str) -> None:
    pixels = RNG.integers(0, 256, (4, 6, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {".webp": {"lossless": True, "exact": True}}.get(extension, {})
    picture = load(write(tmp_path / f"o{extension}", Image.fromarray(pixels), exif=exif, **options))
    assert picture.alpha is not None
    expected = tensor(UPRIGHT[orientation](pixels).copy())
    assert torch.equal(torch.cat([picture.rgb, picture.alpha], 1), expected)
    assert picture.exif is None  # nothing but the orientation was there


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_orientation_of_sixteen_bits(tmp_path: Path, orientation: int, extension: str) -> None:
    pixels = SIXTEEN[..., :3]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"o{extension}"
    if extension == ".png":
        path.write_bytes(deep_png(pixels, chunk(b"eXIf", exif.tobytes()[6:])))
    else:
        path.write_bytes(deep_tiff(pixels, orientation=orientation))
    assert torch.equal(load(path).rgb, tensor(UPRIGHT[orientation](pixels).copy()))


def camera_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "2020:02:03 04:05:06",
        ExifTags.Base.ExifImageWidth: 999,
        ExifTags.Base.ColorSpace: 65535,
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (1.0, 2.0, 3.0)}
    return exif


@pytest.mark.parametrize("target", ["o.jpg", "o.png", "o.webp", "o.tif", "o.avif", "deep.png", "deep.tif"])
@pytest.mark.parametrize("source", ["i.jpg", "i.tif"])
def test_exif_is_kept_with_the_orientation_reset(tmp_path: Path, source: str, target: str) -> None:
    if target.endswith(".avif") and not features.check("avif"):
        pytest.skip("no AVIF")
    picture = load(write(tmp_path / source, Image.fromarray(photo()), exif=camera_exif().tobytes()))
    assert picture.size == (18, 12)
    picture.save(tmp_path / target, bits=16 if target.startswith("deep") else 8)
    with Image.open(tmp_path / target) as image:
        assert image.size == (12, 18)
        exif = image.getexif()
        assert exif[ExifTags.Base.Make].strip("\0") == "Maker"
        assert exif.get(ExifTags.Base.Orientation, 1) == 1  # AVIF has it elsewhere
        photographic = exif.get_ifd(ExifTags.IFD.Exif)
        assert photographic[ExifTags.Base.DateTimeOriginal] == "2020:02:03 04:05:06"
        assert photographic[ExifTags.Base.ColorSpace] == 1
        assert ExifTags.Base.ExifImageWidth not in photographic
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == (1.0, 2.0, 3.0)
        image.load()
    assert load(tmp_path / target).size == (18, 12)


@pytest.mark.parametrize(
    "block", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_corrupt_exif_is_ignored(tmp_path: Path, block: bytes) -> None:
    for extension in ("jpg", "png", "webp"):
        picture = load(write(tmp_path / f"e.{extension}", Image.fromarray(photo()), exif=block))
        assert picture.size == (12, 18)
        assert picture.exif is None


def test_camera_exif_too_long_for_jpeg_is_left_out(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70_000
    picture = Picture(tensor(photo()), exif=exif.tobytes())
    picture.save(tmp_path / "o.jpg")
    assert load(tmp_path / "o.jpg").exif is None


def test_icc_profile_is_applied(tmp_path: Path) -> None:
    """Against the textbook: degamma, the matrix of the profile to XYZ, XYZ to sRGB, gamma."""
    pixels = (photo(6, 9) // 2 + 60).astype(np.uint8)  # away from the gamut's border
    picture = load(write(tmp_path / "w.png", Image.fromarray(pixels), icc_profile=WIDE))
    assert picture.notes == ()

    def matrix(red: tuple[float, float]) -> Array:
        xy = np.array([red, (0.3, 0.6), (0.15, 0.06)])
        primaries = np.stack([xy[:, 0] / xy[:, 1], np.ones(3), (1 - xy.sum(1)) / xy[:, 1]])
        return np.asarray(primaries * np.linalg.solve(primaries, [0.9642, 1.0, 0.8249]))

    bradford = [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
    linear = (pixels / 255) ** 1.8 @ (np.linalg.inv(np.array(bradford)) @ matrix((0.72, 0.28))).T
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clip(1e-9) ** (1 / 2.4) - 0.055).clip(0, 1)
    actual = picture.rgb[0].permute(1, 2, 0).numpy()
    assert np.abs(actual - expected).max() < 2 / 255
    assert np.abs(actual - pixels / 255).max() > 20 / 255


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA"])
def test_rgb_profile_on_other_modes(tmp_path: Path, mode: str) -> None:
    image = of_mode(mode)
    picture = load(write(tmp_path / "w.png", image, icc_profile=WIDE))
    flat = image.convert("RGBA").convert("RGB")
    expected = ImageCms.profileToProfile(flat, io.BytesIO(WIDE), ImageCms.createProfile("sRGB"))
    assert expected is not None
    assert float((picture.rgb - tensor(np.asarray(expected))).abs().max()) <= 1.01 / 255
    assert (picture.alpha is not None) == (mode in ("RGBA", "LA"))


def test_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert torch.equal(load(write(tmp_path / "s.png", Image.fromarray(pixels), icc_profile=SRGB)).rgb, tensor(pixels))


@pytest.mark.parametrize(
    "profile", [b"nonsense", SRGB[:200], ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()]
)
def test_unusable_profile_is_ignored_with_a_note(tmp_path: Path, profile: bytes) -> None:
    picture = load(write(tmp_path / "b.png", Image.fromarray(photo()), icc_profile=profile))
    assert torch.equal(picture.rgb, tensor(photo()))
    (note,) = picture.notes
    assert note.startswith("colour profile ignored")


def test_rgb_profile_on_cmyk_is_ignored_with_a_note(tmp_path: Path) -> None:
    assert load(write(tmp_path / "c.tif", of_mode("CMYK"), icc_profile=WIDE)).notes


# --- reading: no larger than asked for ---

LARGE = {
    "a.png": lambda image: image,
    "b.jpg": lambda image: image,
    "cmyk.jpg": lambda image: image.convert("CMYK"),
    "grey.jpg": lambda image: image.convert("L"),
    "c.webp": lambda image: image,
    "d.tif": lambda image: image,
    "grey.png": lambda image: image.convert("L"),
    "palette.png": lambda image: image.quantize(32),
    "bits.png": lambda image: image.convert("1"),
    "deep.png": lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
    "float.tif": lambda image: image.convert("F"),
}


@pytest.mark.parametrize("longest", [8, 37, 150, 333])
@pytest.mark.parametrize("name", LARGE)
def test_a_picture_loaded_small_is_the_large_one_resized(tmp_path: Path, name: str, longest: int) -> None:
    path = write(tmp_path / name, LARGE[name](Image.fromarray(photo(601, 457))))
    full, small = load(path), load(path, longest=longest)
    size = fit(601, 457, longest)
    assert small.size == size
    assert small.rgb.is_contiguous()
    assert small.notes == full.notes
    assert float((small.rgb - resize(full.rgb, *size)).abs().mean()) < 1 / 255
    assert torch.equal(load(path, longest=601).rgb, full.rgb)
    assert torch.equal(load(path, longest=5000).rgb, full.rgb)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("profile", [b"", chunk(b"iCCP", b"x\0\0" + zlib.compress(WIDE))])
def test_sixteen_bits_loaded_small(tmp_path: Path, channels: int, profile: bytes) -> None:
    pixels = np.concatenate([photo(90, 120), photo(90, 120)[:, ::-1, :1]], axis=2).astype(np.uint16)[..., -channels:]
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(pixels * 257 + 1 if channels == 3 else pixels * 257, profile))
    full, small = load(path), load(path, longest=31)
    assert small.size == fit(90, 120, 31)
    assert (small.alpha is None) == (full.alpha is None)
    weight: Tensor | float = 1.0
    if full.alpha is not None and small.alpha is not None:
        expected, weight = resize(full.alpha, *small.size), small.alpha
        assert float((small.alpha - expected).abs().max()) < 1 / 255
    difference = (small.rgb - resize(full.rgb, *small.size)).abs() * weight
    assert float(difference.mean()) < 2 / 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", [".jpg", ".png", ".tif"])
def test_orientation_of_a_picture_loaded_small(tmp_path: Path, orientation: int, extension: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = write(tmp_path / f"o{extension}", Image.fromarray(photo(501, 333)), exif=exif)
    full, small = load(path), load(path, longest=50)
    assert small.size == fit(*full.size, 50)
    assert float((small.rgb - resize(full.rgb, *small.size)).abs().mean()) < 1 / 255


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("longest", [5, 50, 199])
def test_hidden_colours_do_not_bleed_when_a_picture_is_loaded_small(tmp_path: Path, bits: int, longest: int) -> None:
    alpha = torch.zeros(1, 1, 200, 200)
    alpha[..., :77] = 1
    hidden = torch.where(alpha > 0, torch.full((1, 3, 200, 200), 0.2), 1.0)
    save(Picture(hidden, alpha), tmp_path / "h.png", bits=bits)
    small = load(tmp_path / "h.png", longest=longest)
    assert small.alpha is not None
    assert float((small.alpha - resize(alpha, longest, longest)).abs().max()) < 2 / 255
    visible = small.alpha.expand_as(small.rgb) > 0.1
    assert float((small.rgb[visible] - 0.2).abs().max()) < 6 / 255


@pytest.mark.parametrize("longest", [1, 3, 29, 300])
def test_white_stays_white_and_opaque_when_a_picture_is_loaded_small(tmp_path: Path, longest: int) -> None:
    picture = load(write(tmp_path / "w.png", Image.new("RGBA", (1000, 700), "white")), longest=longest)
    assert picture.alpha is None
    assert bool((picture.rgb == 1).all())


def told_by(file: Path, program: str, *arguments: Path) -> str:
    """What a process of its own prints."""
    file.write_text(program)
    done = preloaded.run([sys.executable, file, *arguments], capture_output=True, text=True, check=True)
    return str(done.stdout)


@pytest.mark.slow
def test_loading_small_takes_little_more_memory_than_decoding(tmp_path: Path) -> None:
    path = write(tmp_path / "flat.png", Image.new("RGBA", (4000, 4000), (10, 200, 30, 128)))
    program = """
import resource, sys
from stylize import images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images.load(sys.argv[1], longest=64)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    if sys.platform != "linux":
        pytest.skip("ru_maxrss is in KiB on Linux only")
    assert int(told_by(tmp_path / "program.py", program, path)) < 160  # MiB; 61 are the decoded picture


@pytest.mark.slow
def test_a_large_picture_that_compresses_well_is_no_bomb(tmp_path: Path) -> None:
    path = write(tmp_path / "blank.png", Image.new("1", (9000, 9000), 1), compress_level=9)
    assert path.stat().st_size < 81_000
    picture = load(path, longest=9)
    assert picture.size == (9, 9)
    assert float(picture.rgb.min()) == 1


# --- reading: what is refused ---


def bomb(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def encoded(format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, format, **options)
    return buffer.getvalue()


BAD = {
    "empty.jpg": (b"", "empty"),
    "text.jpg": (b"this is not a picture\n" * 20, "not a picture"),
    "half.jpg": (encoded("JPEG")[:600], "truncated"),
    "half.png": (encoded("PNG")[:1500], "truncated"),
    "half.gif": (encoded("GIF")[:900], "truncated"),
    "half.tif": (encoded("TIFF")[:1500], "truncated"),
    "half.webp": (encoded("WEBP")[:300], "truncated"),
    "huge.png": (bomb(50_000, 50_000), "2500 megapixels, more than the limit of 300"),
    "large.png": (bomb(17_400, 17_400), "303 megapixels, more than"),
    "tiny.png": (bomb(10_000, 10_000), "10000x10000"),
    "thin.png": (bomb(0, 10), ""),
    "eps.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not a picture"),
    "film.mp4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(200), "not a picture"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, words = BAD[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ImageError) as error:
        load(path)
    assert words in message(error, path)
    assert capfd.readouterr() == ("", "")


def test_missing_and_odd_paths(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name, words in [
        ("none.jpg", "No such file"),
        ("", "regular file"),
        ("a\0b", ""),
        ("x" * 300, "too long"),
        ("loop", "symbolic links"),
    ]:
        path = tmp_path / name
        with pytest.raises(ImageError) as error:
            load(path)
        assert words in message(error, path)
    with pytest.raises(ImageError) as error:
        load(tmp_path / "two\nlines.jpg")
    assert "\n" not in str(error.value)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.png", Image.fromarray(photo()))

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(ImageError) as error:
        load(path)
    assert "Permission denied" in message(error, path)


def test_out_of_memory_is_an_error_of_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.png", Image.fromarray(photo()))

    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(ImageError) as error:
        load(path)
    assert "memory" in message(error, path)


SIGNATURES = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"II*\0\x08\0\0\0",
    b"GIF89a",
    b"BM",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"P6 9 9 255 ",
    b"8BPS",
    b"\0\0\1\0",
]


def picture_or_error(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        picture = load(path)
    except ImageError as error:
        text = str(error)
        assert text.splitlines() == [text]
        assert str(path) in text
    else:
        assert picture.rgb.ndim == 4
        assert bool(torch.isfinite(picture.rgb).all())


@pytest.mark.slow
@HASTY
@given(signature=st.sampled_from(SIGNATURES), data=st.binary(max_size=300))
def test_random_bytes(tmp_path: Path, signature: bytes, data: bytes) -> None:
    picture_or_error(tmp_path / "random", signature + data)


VALID = [
    encoded("PNG"),
    encoded("JPEG"),
    encoded("WEBP"),
    encoded("TIFF"),
    encoded("TIFF", compression="tiff_lzw"),
    encoded("GIF"),
    deep_png(SIXTEEN),
    deep_tiff(SIXTEEN, extra=2),
    encoded("JPEG", progressive=True, exif=camera_exif(), icc_profile=WIDE),
]


@HASTY
@given(data=st.sampled_from(VALID), fraction=st.floats(0, 1))
def test_random_truncations(tmp_path: Path, data: bytes, fraction: float) -> None:
    picture_or_error(tmp_path / "cut", data[: int(fraction * len(data))])


@HASTY
@given(data=st.sampled_from(VALID), where=st.floats(0, 0.999), value=st.integers(0, 255))
def test_random_damage(tmp_path: Path, data: bytes, where: float, value: int) -> None:
    damaged = bytearray(data)
    damaged[int(where**3 * len(data))] = value  # mostly in the header
    picture_or_error(tmp_path / "damaged", bytes(damaged))


# --- writing ---

EXTENSIONS = [extension for extension in FORMATS if extension != ".avif" or features.check("avif")]
LOSSLESS = (".png", ".tif", ".tiff")


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("with_alpha", [False, True])
def test_round_trip(tmp_path: Path, extension: str, with_alpha: bool) -> None:
    rgb = tensor(photo(32, 48))
    alpha = torch.linspace(0, 1, 48).mul(255).round().div(255).expand(1, 1, 32, 48) if with_alpha else None
    path = tmp_path / f"r{extension.upper()}"
    Picture(rgb, alpha).save(path)
    with Image.open(path) as image:
        assert image.info["icc_profile"] == srgb_profile()
        assert image.format == FORMATS[extension]
    picture = load(path)
    if extension in (".jpg", ".jpeg") and alpha is not None:
        rgb, alpha = rgb * alpha + (1 - alpha), None
    assert (picture.alpha is None) == (alpha is None)
    if extension in LOSSLESS:
        assert torch.equal(picture.rgb, rgb)
    visible = (picture.rgb - rgb).abs() * (1 if alpha is None else alpha)
    assert float(visible.max()) < 10 / 255
    if alpha is not None and picture.alpha is not None:
        assert float((picture.alpha - alpha).abs().max()) <= (6 / 255 if extension == ".avif" else 0)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    first = path.read_bytes()
    save(
        Picture(
            tensor(photo(32, 48)),
            None if not with_alpha else torch.linspace(0, 1, 48).mul(255).round().div(255).expand(1, 1, 32, 48),
        ),
        path,
    )
    assert path.read_bytes() == first


@pytest.mark.parametrize("extension", LOSSLESS)
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_round_trip(
    tmp_path: Path, extension: str, channels: int, capfd: pytest.CaptureFixture[str]
) -> None:
    samples = tensor(SIXTEEN)
    alpha = samples[:, 3:] if channels == 4 else None
    path = tmp_path / f"d{extension}"
    save(Picture(samples[:, :3], alpha), path, bits=16)
    picture = load(path)
    assert torch.equal(picture.rgb, samples[:, :3])
    assert (picture.alpha is None) == (alpha is None)
    assert alpha is None or (picture.alpha is not None and torch.equal(picture.alpha, alpha))
    with Image.open(path) as image:
        image.load()
        assert image.mode == ("RGBA" if channels == 4 else "RGB")
        assert image.info["icc_profile"] == srgb_profile()
        assert np.abs(np.asarray(image).astype(int) - SIXTEEN[..., :channels] / 257).max() <= 1
    first = path.read_bytes()
    save(Picture(samples[:, :3], alpha), path, bits=16)
    assert path.read_bytes() == first
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@HASTY
@given(pixels=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4]))))
def test_png_gives_back_what_it_was_given(tmp_path: Path, pixels: Array) -> None:
    samples = tensor(pixels)
    alpha = samples[:, 3:] if pixels.shape[2] == 4 else None
    save(Picture(samples[:, :3], alpha), tmp_path / "p.png")
    picture = load(tmp_path / "p.png")
    assert torch.equal(picture.rgb, samples[:, :3])
    opaque = alpha is None or bool((alpha == 1).all())
    assert (picture.alpha is None) == opaque
    assert opaque or torch.equal(picture.alpha, alpha)  # type: ignore[arg-type]


def test_values_are_rounded_and_clamped(tmp_path: Path) -> None:
    values = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.5]).expand(1, 3, 1, 5)
    save(values.clone().requires_grad_(), tmp_path / "v.png")
    assert np.asarray(Image.open(tmp_path / "v.png"))[0, :, 0].tolist() == [0, 0, 1, 255, 255]


def test_jpeg_has_full_chroma_and_obeys_quality(tmp_path: Path) -> None:
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    save(noise, tmp_path / "a.jpg")
    save(noise, tmp_path / "b.jpg", quality=30)
    assert (tmp_path / "a.jpg").stat().st_size > 2 * (tmp_path / "b.jpg").stat().st_size
    with Image.open(tmp_path / "a.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused_and_the_old_file_stays(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "old.png"
    save(torch.zeros(1, 3, 2, 2), path)
    before = path.read_bytes()
    for picture in (
        Picture(torch.full((1, 3, 2, 2), bad)),
        Picture(torch.zeros(1, 3, 2, 2), torch.full((1, 1, 2, 2), bad)),
    ):
        with pytest.raises(ImageError) as error:
            save(picture, path)
        assert "NaN" in message(error, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["old.png"]


def test_shapes_and_sizes_a_format_cannot_hold(tmp_path: Path) -> None:
    for name, picture in [
        ("a.png", torch.zeros(3, 4, 4)),
        ("b.webp", torch.zeros(1, 3, 1, 20_000)),
        ("d.jpg", torch.zeros(1, 3, 65_501, 1)),
        ("c.png", torch.zeros(1, 3, 0, 4)),
    ]:
        with pytest.raises(ImageError) as error:
            save(picture, tmp_path / name)
        message(error, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.xyz", {}, ".png"),
        ("a", {}, "unknown extension"),
        ("none/a.png", {}, "create it"),
        ("folder.png", {}, "folder"),
        ("pipe.png", {}, "regular file"),
        ("a.jpg", {"bits": 16}, ".tiff"),
        ("a.png", {"bits": 12}, "8 or 16"),
        ("a.jpg", {"quality": 0}, "1 to 100"),
        ("a.jpg", {"quality": 101}, "1 to 100"),
        ("nul\0.png", {}, ""),
        ("x" * 300 + ".png", {}, "too long"),
        ("loop.png", {}, "symbolic links"),
    ],
)
def test_targets_are_checked_before_the_work(tmp_path: Path, name: str, options: dict[str, Any], words: str) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    for attempt in (check_target, lambda path, **options: save(torch.zeros(1, 3, 2, 2), path, **options)):
        with pytest.raises(ImageError) as error:
            attempt(tmp_path / name, **options)
        assert words in message(error, tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("extension", "limit"), [(".jpg", 65500), (".webp", 16383), (".avif", 32768)])
def test_sizes_a_format_cannot_hold_are_refused_before_the_work(tmp_path: Path, extension: str, limit: int) -> None:
    if extension not in EXTENSIONS:
        pytest.skip("no AVIF")
    path = tmp_path / f"a{extension}"
    for size in ((limit + 1, 1), (1, limit + 1)):
        with pytest.raises(ImageError) as error:
            check_target(path, size=size)
        assert f"{limit} pixels a side" in message(error, path)
        check_target(tmp_path / "a.png", size=size)
    check_target(path, size=(1, limit))
    assert not list(tmp_path.iterdir())
    save(torch.zeros(1, 3, 1, limit), path)
    assert load(path).size == (1, limit)


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
@pytest.mark.parametrize("folder", ["/proc", "/sys"])
def test_folders_that_take_no_files_are_found_before_the_work(folder: str) -> None:
    path = Path(folder, "x.png")
    with pytest.raises(ImageError) as error:
        check_target(path)
    assert "no file can be made" in message(error, path)


def test_missing_avif_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(ImageError) as error:
        check_target(tmp_path / "a.avif")
    assert "AVIF" in message(error, tmp_path / "a.avif")


def test_unsearchable_folder(locked: Path) -> None:
    for attempt in (check_target, load, lambda path: save(torch.zeros(1, 3, 2, 2), path)):
        with pytest.raises(ImageError) as error:
            attempt(locked / "a.png")
        assert "Permission denied" in message(error, locked / "a.png")


def test_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root may write everywhere
    with pytest.raises(ImageError) as error:
        check_target(tmp_path / "a.png")
    assert "no file can be made in its folder (Permission denied)" in message(error, tmp_path / "a.png")


@pytest.mark.usefixtures("permissions")
def test_a_write_protected_file_is_not_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", Image.fromarray(photo()))
    path.chmod(0o444)
    with pytest.raises(ImageError) as error:
        check_target(path)
    assert "write-protected" in message(error, path)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("x")])
def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with atomic_write(path) as temporary:
            assert temporary.suffix == ".png"
            assert temporary.name.startswith(".")
            temporary.write_bytes(b"half")
            raise failure

    with pytest.raises(ImageError if isinstance(failure, OSError) else type(failure)) as error:
        interrupted()
    if isinstance(failure, OSError):
        assert "No space left" in str(error.value)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_disk_full_while_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ImageError) as error:
        save(torch.zeros(1, 3, 2, 2), tmp_path / "a.png")
    assert "No space left" in message(error, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def kept_as(kept: Path, error: pytest.ExceptionInfo[ImageError], path: Path) -> Path:
    (found,) = kept.iterdir()
    assert message(error, path).endswith(f"; the picture was kept as {found}")
    assert found.name.startswith("stylize-")
    assert found.suffix == ".png"
    return found


def test_what_cannot_be_written_is_kept(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Picture(tensor(photo()), torch.full((1, 1, 12, 18), 0.2))
    path = tmp_path / "gone" / "a.tif"
    with pytest.raises(ImageError) as error:
        picture.save(path, bits=16)
    assert "there is no folder" in str(error.value)
    found = kept_as(kept, error, path)
    again = load(found)
    assert again.alpha is not None
    assert picture.alpha is not None
    torch.testing.assert_close(torch.cat([again.rgb, again.alpha], 1), torch.cat([picture.rgb, picture.alpha], 1))
    found.unlink()

    with pytest.raises(ImageError) as error:
        save(torch.zeros(1, 3, 1, 16384), tmp_path / "wide.webp")
    found = kept_as(kept, error, tmp_path / "wide.webp")
    assert load(found).size == (1, 16384)
    found.unlink()

    for name, options in [("a.xyz", {}), ("a.png", {"quality": 101}), ("a.jpg", {"bits": 16})]:
        with pytest.raises(ImageError) as error:
            picture.save(tmp_path / name, **options)
        assert "kept" not in message(error, tmp_path / name).removeprefix(f"cannot write {tmp_path / name}")
    assert not list(kept.iterdir())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    with pytest.raises(ImageError) as error:
        picture.save(path)
    assert str(error.value) == f"cannot write {path}: there is no folder {path.parent}; create it first"


def test_file_modes(tmp_path: Path) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    path, before = tmp_path / "a.png", os.umask(0o027)
    try:
        save(torch.zeros(1, 3, 2, 2), path)
        assert mode(path) == 0o640
        path.chmod(0o604)
        save(torch.ones(1, 3, 2, 2), path)
        assert mode(path) == 0o604
    finally:
        os.umask(before)


@pytest.mark.parametrize("quality", [None, 80, 100])
def test_noise_is_written_too(tmp_path: Path, quality: int | None) -> None:
    noise = torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(0))
    save(noise, tmp_path / "noise.jpg", quality=quality)
    assert load(tmp_path / "noise.jpg").size == (300, 300)


def test_links_and_long_names(tmp_path: Path) -> None:
    save(torch.zeros(1, 3, 2, 2), tmp_path / "real.png")
    (tmp_path / "link.png").symlink_to("real.png")
    save(torch.ones(1, 3, 2, 2), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert float(load(tmp_path / "real.png").rgb.mean()) == 1
    for name in ("a" * 251 + ".png", "\N{GRINNING FACE}" * 62 + ".png"):
        save(torch.zeros(1, 3, 2, 2), tmp_path / name)
        assert load(tmp_path / name).name == name[:-4]


# --- records ---

RECORD = {"content": 'Zoë\'s <photo> & "co".jpg', "seed": 7, "styles": ["a\nb", "\N{GRINNING FACE}"]}
AWKWARD = "\0\x01\x1f\t\n\r\x7f\x85\u2028\u241b0\ufeff\ufffe\uffff\udc80&<>\"'%]#;"
RECORDED = [(extension, bits) for extension in EXTENSIONS for bits in ((8, 16) if extension in LOSSLESS else (8,))]
NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "stylize": "https://stylize.invalid/ns/1.0/",
}


def read_by_others(path: Path) -> Any:
    """The record as readers of PNG texts and of XMP find it."""
    with Image.open(path) as image:
        if isinstance(image, PngImagePlugin.PngImageFile):
            return json.loads(image.text["stylize"])
        packet = image.tag_v2[700] if isinstance(image, TiffImagePlugin.TiffImageFile) else image.info["xmp"]
    assert packet.startswith(b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>')
    assert packet.endswith(b'<?xpacket end="r"?>')
    root = ElementTree.fromstring(packet)
    assert root.tag == f"{{{NAMESPACES['x']}}}xmpmeta"
    (record,) = root.findall("rdf:RDF/rdf:Description/stylize:record", NAMESPACES)
    return json.loads(record.text or "")


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found, position = [], 8
    while position < len(png):
        (length,) = struct.unpack_from(">I", png, position)
        found.append((png[position + 4 : position + 8], png[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


@pytest.mark.parametrize(("extension", "bits"), RECORDED)
@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("with_exif", [False, True])
def test_a_record_comes_back_and_changes_nothing_else(
    tmp_path: Path, extension: str, bits: int, with_alpha: bool, with_exif: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    source = load(write(tmp_path / "i.jpg", Image.fromarray(photo()), exif=camera_exif()))
    alpha = torch.linspace(0, 1, 12).expand(1, 1, 18, 12) if with_alpha else None
    plain = Picture(source.rgb, alpha, source.exif if with_exif else None)
    told = Picture(source.rgb, alpha, source.exif if with_exif else None, record=RECORD)
    paths = tmp_path / f"plain{extension}", tmp_path / f"told{extension}", tmp_path / f"again{extension}"
    for picture, path in zip((plain, told, told), paths, strict=True):
        picture.save(path, bits=bits)
    assert read_record(str(paths[0])) is None
    assert read_record(paths[1]) == RECORD
    assert read_by_others(paths[1]) == RECORD
    assert paths[1].read_bytes() == paths[2].read_bytes() != paths[0].read_bytes()
    without, loaded = load(paths[0]), load(paths[1])
    assert torch.equal(loaded.rgb, without.rgb)
    assert (loaded.alpha is None) == (without.alpha is None)
    assert loaded.alpha is None or (without.alpha is not None and torch.equal(loaded.alpha, without.alpha))
    assert loaded.exif == without.exif
    assert (loaded.exif is None) == (not with_exif)
    assert loaded.notes == ()
    with Image.open(paths[0]) as image, Image.open(paths[1]) as other:
        assert image.info["icc_profile"] == other.info["icc_profile"]
        assert dict(image.getexif()).keys() == dict(other.getexif()).keys() - {700}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("extension", "bits"), RECORDED)
def test_no_record_is_no_change(tmp_path: Path, extension: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> bytes:
        raise AssertionError

    monkeypatch.setattr("stylize.images.encode.embed", never)
    monkeypatch.setattr("stylize.images.xmp.packet_of", never)
    picture = Picture(tensor(photo()), name="x", origin=Origin(Path("x"), "0"))
    save(picture, tmp_path / f"a{extension}", bits=bits)
    save(picture.rgb, tmp_path / f"b{extension}", bits=bits)
    data = (tmp_path / f"a{extension}").read_bytes()
    assert data == (tmp_path / f"b{extension}").read_bytes()
    assert not any(trace in data for trace in (b"stylize", b"iTXt", b"xpacket", b"XMP", b"adobe"))
    if extension in (".tif", ".tiff"):
        with Image.open(tmp_path / f"a{extension}") as image:
            assert 700 not in image.tag_v2  # type: ignore[attr-defined]


@pytest.mark.parametrize("bits", [8, 16])
def test_the_record_of_a_png_is_a_plain_text_before_the_pixels(tmp_path: Path, bits: int) -> None:
    save(Picture(tensor(photo()), record={"a": "Zoë"}), tmp_path / "a.png", bits=bits)
    found = chunks((tmp_path / "a.png").read_bytes())
    kinds = [kind for kind, _ in found]
    assert kinds.index(b"iTXt") < kinds.index(b"IDAT")
    record, pixels = (data for kind, data in found if kind == b"iTXt")
    assert record == b'stylize\0\0\0\0\0{"a": "Zo\\u00eb"}'
    assert re.fullmatch(rb"stylize-pixels\0\0\0\0\0[0-9a-f]{64}", pixels)


KEYS = st.text().filter(lambda key: key != "path")
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.sampled_from(AWKWARD))
VALUES = st.recursive(
    LEAVES | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(HASTY, max_examples=30)
@given(record=st.dictionaries(KEYS, VALUES))
def test_anything_json_has_is_a_record(tmp_path: Path, record: dict[str, Any]) -> None:
    for extension, bits in RECORDED:
        path = tmp_path / f"r{extension}"
        save(Picture(torch.zeros(1, 3, 1, 1), record=record), path, bits=bits)
        assert read_record(path) == read_by_others(path) == record


def test_awkward_characters_in_a_record(tmp_path: Path) -> None:
    for extension, bits in RECORDED:
        for text in (AWKWARD, " \r\n\t ", "&#13;&amp;amp;", "]]>", "</stylize:record>", "\0" * 999):
            path = tmp_path / f"r{extension}"
            save(Picture(torch.zeros(1, 3, 1, 1), record={text: text}), path, bits=bits)
            assert read_record(path) == read_by_others(path) == {text: text}


def test_paths_in_a_record_are_seen_from_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("out/deep")
    monkeypatch.chdir(tmp_path)
    record = {"content": {"path": str(tmp_path / "a.jpg")}, "styles": [{"path": str(tmp_path / "out/s.jpg"), "n": 1}]}
    for target in ("out/deep/r.png", tmp_path / "out/deep/r.png", "link/r.png"):
        save(Picture(torch.zeros(1, 3, 1, 1), record=record), target)
        assert read_record(target) == {"content": {"path": "../../a.jpg"}, "styles": [{"path": "../s.jpg", "n": 1}]}
    assert str(tmp_path).encode() not in Path("out/deep/r.png").read_bytes()


@pytest.mark.parametrize(("extension", "bits"), RECORDED)
def test_a_record_is_not_taken_for_an_orientation(tmp_path: Path, extension: str, bits: int) -> None:
    for text in ('tiff:Orientation="6"', "tiff:Orientation='6'", "<tiff:Orientation>6</tiff:Orientation>"):
        save(Picture(tensor(photo()), record={"text": text}), tmp_path / f"o{extension}", bits=bits)
        assert load(tmp_path / f"o{extension}").size == (12, 18)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_what_is_made_of_a_picture_does_not_inherit_its_record(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a{extension}"
    save(Picture(tensor(photo()), record=RECORD), path)
    picture = load(path)
    assert picture.record is None
    for target in EXTENSIONS:
        save(picture, tmp_path / f"b{target}")
        assert read_record(tmp_path / f"b{target}") is None
        assert b"stylize" not in (tmp_path / f"b{target}").read_bytes()


def test_the_pixels_are_not_decoded_for_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for extension, bits in RECORDED:
        save(Picture(tensor(photo()), record=RECORD), tmp_path / f"{bits}{extension}", bits=bits)

    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    for extension, bits in RECORDED:
        assert read_record(tmp_path / f"{bits}{extension}") == RECORD


def test_a_record_too_long_for_the_format(tmp_path: Path, kept: Path) -> None:
    overhead = len(embed({"x": ""}, "JPEG", DIGEST))
    path = tmp_path / "a.jpg"
    longest = Picture(tensor(photo()), record={"x": "x" * (65502 - overhead)})
    save(longest, path)
    assert read_record(path) == longest.record
    before = path.read_bytes()
    longer = Picture(tensor(photo()), record={"x": "x" * (65503 - overhead)})
    with pytest.raises(ImageError) as error:
        save(longer, path)
    found = kept_as(kept, error, path)
    assert "its record takes 65503 bytes, and JPEG holds 65502; use .png" in str(error.value)
    assert read_record(found) == longer.record
    found.unlink()
    assert path.read_bytes() == before

    for extension, bits in RECORDED:
        path = tmp_path / f"a{extension}"
        longest = Picture(
            tensor(photo()), record={"x": "x" * (RECORD_LIMIT - (9 if extension == ".png" else overhead))}
        )
        longer = Picture(tensor(photo()), record={"x": "ä" * (RECORD_LIMIT // 6 + 1)})
        if extension not in (".jpg", ".jpeg"):
            save(longest, path, bits=bits)
            assert read_record(path) == longest.record
        with pytest.raises(ImageError) as error:
            save(longer, path, bits=bits)
        found = kept_as(kept, error, path)
        assert "its record takes" in str(error.value)
        assert read_record(found) is None  # better without than not at all
        assert load(found).size == (12, 18)
        found.unlink()


def xmp(record: str, namespace: str = NAMESPACES["stylize"]) -> bytes:
    """A packet like ours, but as another program would write it."""
    return f"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="{NAMESPACES["rdf"]}"><rdf:Description rdf:about="" xmlns:stylize="{namespace}">
<stylize:record>{record}</stylize:record></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()


DIGEST = "0" * 64
OWN = embed({"ours": 1}, "TIFF", DIGEST)
FOREIGN = {
    "plain": xmp("theirs", "http://example.org/"),
    "entities": b'<!DOCTYPE a [<!ENTITY b "ours">]>' + OWN.replace(b"ours", b"&b;"),
    "nested": OWN.replace(b"ours", b"<b/>"),
    "endless": OWN.replace(b"ours", b"&#" + b"9" * 9999 + b";"),
    "empty": OWN.replace(b"{&quot;ours&quot;: 1}", b""),
    "latin": OWN.replace(b"ours", b"\xe4"),
    "garbage": b"\0\xff",
}


REWRITTEN = {
    "indented": xmp("{&quot;ours&quot;: 1}"),
    "prefix": xmp("{&quot;ours&quot;: 1}").replace(b"stylize:", b"ns1:").replace(b"xmlns:stylize", b"xmlns:ns1"),
    "cdata": xmp('<![CDATA[{"ours": 1}]]>'),
    "added": OWN.replace(b"</stylize:record>", b"</stylize:record><stylize:more/>"),
    "reference": OWN.replace(b"ours", b"&#111;urs"),
    "twice": OWN + OWN,
    "padded": OWN + b" " * 4000 + b"\n",
    "attribute": f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{NAMESPACES["rdf"]}">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"
 xmlns:stylize="{NAMESPACES["stylize"]}" stylize:record="{{&quot;ours&quot;: 1}}"/></rdf:RDF></x:xmpmeta>""".encode(),
    "utf-16": OWN.decode().encode("utf-16"),
}


def with_xmp(path: Path, packet: bytes) -> Path:
    options: dict[str, Any] = {"xmp": packet}
    if path.suffix == ".png":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    elif path.suffix in (".tif", ".tiff"):
        options = {"tiffinfo": {700: packet}}
    return write(path, Image.fromarray(photo()), **options)


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_xmp_is_no_record(tmp_path: Path, name: str) -> None:
    for extension in EXTENSIONS:
        path = with_xmp(tmp_path / f"f{extension}", FOREIGN[name])
        assert read_record(path) is None
        assert saved_state(path) is Saved.FOREIGN
        assert load(path).size == (12, 18)


@pytest.mark.parametrize("name", REWRITTEN)
def test_a_record_is_found_in_what_others_made_of_its_packet(tmp_path: Path, name: str) -> None:
    for extension in EXTENSIONS:
        path = with_xmp(tmp_path / f"f{extension}", REWRITTEN[name])
        assert read_record(path) == {"ours": 1}


def test_a_record_in_extended_xmp_and_in_texts_of_other_kinds(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jpg", Image.fromarray(photo()), xmp=FOREIGN["plain"])
    body = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", len(OWN), 0) + OWN
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    assert read_record(path) == {"ours": 1}
    for kind, text in [
        (b"tEXt", b'stylize\0{"ours": 1}'),
        (b"zTXt", b"stylize\0\0" + zlib.compress(b'{"ours": 1}')),
        (b"iTXt", b"stylize\0\1\0en\0stylize\0" + zlib.compress(b'{"ours": 1}')),
    ]:
        whole = deep_png(SIXTEEN)
        for place in (33, len(whole) - 12):  # after the header, or as exiftool does, after the pixels
            (tmp_path / "t.png").write_bytes(whole[:place] + chunk(kind, text) + whole[place:])
            assert read_record(tmp_path / "t.png") == {"ours": 1}


@pytest.mark.parametrize(("extension", "bits"), RECORDED)
def test_retouched_pixels_are_told_from_those_saved(tmp_path: Path, extension: str, bits: int) -> None:
    path = tmp_path / f"a{extension}"
    save(Picture(tensor(photo()), record=RECORD), path, bits=bits)
    assert saved_state(path) is Saved.INTACT
    with Image.open(path) as image:
        image.load()
        packet = image.info.get("xmp", b"")
        texts = PngImagePlugin.PngInfo()
        for key, text in getattr(image, "text", {}).items():
            texts.add_itxt(key, text)
        image.putpixel((3, 3), (255, 0, 255))
        tags = {700: packet} if extension in (".tif", ".tiff") else None
        image.save(path, **({"tiffinfo": tags} if tags else {"pnginfo": texts, "xmp": packet, "quality": 100}))
    assert read_record(path) == RECORD
    assert saved_state(path) is Saved.RETOUCHED
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert saved_state(path) in (Saved.DAMAGED, Saved.FOREIGN)


@pytest.mark.parametrize(("call", "code"), [("chmod", errno.EPERM), ("fsync", errno.EINVAL), ("fsync", errno.ENOSYS)])
def test_file_systems_without_permissions_or_syncing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    path.chmod(0o640)
    monkeypatch.setattr(os, call, fails)
    for _ in range(2):
        save(Picture(tensor(photo()), record=RECORD), path)
        assert read_record(path) == RECORD
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


def test_other_texts_of_a_png_are_no_record(tmp_path: Path) -> None:
    path = tmp_path / "t.png"
    for kind, text in [
        (b"tEXt", b"stylise\0{}"),
        (b"zTXt", b"stylize\0\0no deflated text"),
        (b"iTXt", b"Stylize\0\0\0\0\0{}"),
        (b"iTXt", b"stylize\0\0\0\0\0theirs"),
        (b"iTXt", b"stylize\0\0\0\0\0[]"),
        (b"iTXt", b"stylize\0\0\0\0\0" + b"[" * 100_000),
        (b"iTXt", b"stylize\0\0\0\0\0\xff"),
        (b"iTXt", b"stylize\0\0\0\0\0"),
        (b"iTXt", b"stylize"),
    ]:
        path.write_bytes(deep_png(SIXTEEN, chunk(kind, text)))
        assert read_record(path) is None
        assert load(path).size == (5, 7)


def test_no_record_where_there_is_no_picture(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("none.png", "none/a.png", "", "folder", "loop", "pipe", "a\0b", "x" * 300):
        assert read_record(tmp_path / name) is None
    for data in [*VALID, *(data for data, _ in BAD.values())]:
        (tmp_path / "data").write_bytes(data)
        assert read_record(tmp_path / "data") is None
    assert capfd.readouterr() == ("", "")


def test_no_record_in_a_locked_folder(locked: Path) -> None:
    assert read_record(locked / "a.png") is None


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A file with a record of every format and depth, with alpha and EXIF."""
    folder, files = tmp_path_factory.mktemp("recorded"), []
    for extension, bits in RECORDED:
        picture = Picture(tensor(photo()), torch.full((1, 1, 12, 18), 0.5), camera_exif().tobytes(), record=RECORD)
        save(picture, folder / f"r{extension}", bits=bits)
        files.append((folder / f"r{extension}").read_bytes())
    return files


@HASTY
@given(which=st.integers(0, len(RECORDED) - 1), fraction=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_has_no_record(tmp_path: Path, recorded: list[bytes], which: int, fraction: float) -> None:
    path, data = tmp_path / "cut", recorded[which]
    path.write_bytes(data)
    assert read_record(path) == RECORD
    for length in (int(fraction * len(data)), len(data) - 1):
        path.write_bytes(data[:length])
        assert read_record(path) is None


@HASTY
@given(which=st.integers(0, len(RECORDED) - 1), where=st.floats(0, 0.999), value=st.integers(0, 255))
def test_a_damaged_file_may_have_a_record(
    tmp_path: Path, recorded: list[bytes], which: int, where: float, value: int
) -> None:
    damaged = bytearray(recorded[which])
    damaged[int(where**2 * len(damaged))] = value
    (tmp_path / "damaged").write_bytes(damaged)
    assert isinstance(read_record(tmp_path / "damaged"), dict | None)


@HASTY
@given(signature=st.sampled_from(SIGNATURES), data=st.binary(max_size=300))
def test_random_bytes_have_no_record(tmp_path: Path, signature: bytes, data: bytes) -> None:
    (tmp_path / "random").write_bytes(signature + data)
    assert read_record(tmp_path / "random") is None


@pytest.mark.slow
def test_hostile_files_take_little_memory(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("ru_maxrss is in KiB on Linux only")
    bomb = zlib.compress(bytes(2**27), 9)
    (tmp_path / "bomb.png").write_bytes(deep_png(SIXTEEN, chunk(b"iTXt", b"stylize\0\1\0\0\0" + bomb)))
    many = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**20), 9)) * 300
    (tmp_path / "many.png").write_bytes(deep_png(SIXTEEN, many))
    small = zlib.compress(bytes(2**20 + 1), 9)
    (tmp_path / "small.png").write_bytes(deep_png(SIXTEEN, chunk(b"iTXt", b"stylize\0\1\0\0\0" + small)))
    for name, start in [
        ("text.png", deep_png(SIXTEEN)[:33] + struct.pack(">I", 2**31 - 1) + b"iTXtstylize\0\0\0\0\0"),
        ("data.tif", deep_tiff(SIXTEEN)),
        ("huge.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8X"),
        ("huge.avif", b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1A"),
    ]:
        with (tmp_path / name).open("wb") as file:
            file.write(start)
            file.truncate(2**31)  # a hole: nothing of it is on the disk
    program = """
import resource, sys
from stylize import images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    assert images.read_record(path) is None
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    paths = sorted(tmp_path.iterdir())
    assert int(told_by(tmp_path / "program.py", program, *paths)) < 200  # MiB


# --- origin ---


def test_origin_of_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    save(Picture(tensor(photo()), record=RECORD), path)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load(path).origin == load(path, longest=5).origin == Origin(path, expected)
    assert digest(path) == digest(str(path)) == expected
    monkeypatch.chdir(tmp_path)
    assert load("a.png").origin == Origin(Path("a.png"), expected)
    assert load(path).opaque().origin == Origin(path, expected)
    assert Picture(tensor(photo())).origin is None
    (tmp_path / "deep.png").write_bytes(deep_png(SIXTEEN))  # read anew by another decoder
    assert load("deep.png").origin == Origin(Path("deep.png"), hashlib.sha256(deep_png(SIXTEEN)).hexdigest())


def test_digest_of_anything(tmp_path: Path) -> None:
    for data in (b"", b"abc", bytes(1_000_000)):
        (tmp_path / "x").write_bytes(data)
        assert digest(tmp_path / "x") == hashlib.sha256(data).hexdigest()
    os.mkfifo(tmp_path / "pipe")
    for name, words in [
        ("none", "No such file"),
        ("", "regular file"),
        ("pipe", "regular file"),
        ("two\nlines", "two"),
    ]:
        with pytest.raises(ImageError) as error:
            digest(tmp_path / name)
        assert words in str(error.value)
        assert len(str(error.value).splitlines()) == 1


# --- size ---


@HASTY
@given(st.integers(1, 30_000), st.integers(1, 30_000), st.integers(1, 30_000), st.booleans())
def test_fit(height: int, width: int, longest: int, upscale: bool) -> None:
    fitted = fit(height, width, longest, upscale)
    assert max(fitted) == (
        longest if upscale else min(longest, height, width) if height == width else min(longest, max(height, width))
    )
    scale = max(fitted) / max(height, width)
    for side, own in zip(fitted, (height, width), strict=True):
        assert side >= 1
        assert abs(side - own * scale) <= 0.5 + 1e-9 or side == 1
        assert upscale or side <= own
    assert fit(width, height, longest, upscale) == fitted[::-1]


def test_fit_of_known_sizes() -> None:
    assert fit(3000, 4000, 512) == (384, 512)
    assert fit(300, 400, 512) == (300, 400)
    assert fit(300, 400, 512, upscale=True) == (384, 512)
    assert fit(1, 2000, 64) == (1, 64)


@HASTY
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60))
def test_resize_any_sizes(height: int, width: int, new_height: int, new_width: int) -> None:
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
    resized = resize(image, new_height, new_width)
    assert resized.shape == (1, 3, new_height, new_width)
    assert float(resized.min()) >= 0
    assert float(resized.max()) <= 1
    flat = resize(torch.full_like(image, 0.25), new_height, new_width, clamp=False)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.25))
    assert (resized is image) == ((height, width) == (new_height, new_width))


def test_resize_is_antialiased_and_agrees_with_pillow() -> None:
    stripes = (torch.arange(64) % 2).float().expand(1, 1, 64, 64)
    assert float((resize(stripes, 16, 16)[..., 2:-2] - 0.5).abs().max()) < 0.02
    noise = torch.rand(1, 1, 50, 70, generator=torch.Generator().manual_seed(1))
    pillow = Image.fromarray(noise[0, 0].numpy()).resize((30, 20), Image.Resampling.BICUBIC)
    ours = resize(noise, 20, 30, clamp=False)[0, 0].numpy()
    np.testing.assert_allclose(ours, np.asarray(pillow), atol=1e-4)


# --- transparency ---


@HASTY
@given(st.integers(1, 33), st.integers(1, 33), st.integers(0, 9), st.sampled_from([0.02, 0.5, 0.98]))
def test_fill_transparent(height: int, width: int, seed: int, hidden: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rgb, other = torch.rand(2, 1, 3, height, width, generator=generator)
    alpha = torch.rand(1, 1, height, width, generator=generator)
    alpha = torch.where(torch.rand(alpha.shape, generator=generator) < hidden, 0.0, alpha)
    filled = fill_transparent(rgb, alpha)
    shown = (alpha > 0).expand_as(rgb)
    assert torch.equal(filled[shown], rgb[shown])
    assert torch.equal(filled, fill_transparent(torch.where(shown, rgb, other), alpha))
    assert torch.equal(filled, fill_transparent(torch.where(shown, rgb, float("nan")), alpha))
    if bool(shown.any()):  # between the extremes of what is seen
        low, high = (rgb[shown].view(3, -1).min(1).values, rgb[shown].view(3, -1).max(1).values)
        assert bool((filled.flatten(2)[0] >= low[:, None] - 1e-5).all())
        assert bool((filled.flatten(2)[0] <= high[:, None] + 1e-5).all())
    else:
        assert bool((filled == 0.5).all())


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (31, 64)])
def test_fill_transparent_of_any_size(size: tuple[int, int]) -> None:
    rgb, alpha = torch.rand(1, 3, *size), torch.zeros(1, 1, *size)
    assert bool((fill_transparent(rgb, alpha) == 0.5).all())
    alpha[..., 0, 0] = 1
    torch.testing.assert_close(fill_transparent(rgb, alpha), rgb[..., :1, :1].expand_as(rgb))


def test_fill_transparent_is_smooth_and_local() -> None:
    alpha = torch.zeros(1, 1, 32, 64)
    alpha[..., :8] = alpha[..., -8:] = 1
    rgb = torch.zeros(1, 3, 32, 64)
    rgb[..., -8:] = 1
    filled = fill_transparent(rgb, alpha)
    assert float(filled.diff(dim=3).abs().max()) < 0.3
    assert float(filled[..., 12].mean()) < 0.3
    assert float(filled[..., 51].mean()) > 0.7


def test_opaque(tmp_path: Path) -> None:
    plain = Picture(torch.rand(1, 3, 4, 4))
    assert plain.opaque() is plain
    assert plain.size == (4, 4)
    shown = Picture(torch.ones(1, 3, 4, 4), torch.zeros(1, 1, 4, 4), name="x").opaque()
    assert shown.alpha is None
    assert shown.name == "x"
    assert bool((shown.rgb == 0.5).all())


# --- threads ---


def test_reading_in_threads_leaves_the_warning_filters_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second to begin ends last: what it found must not be what it leaves."""
    path = write(tmp_path / "a.png", Image.fromarray(photo()))
    begun = {name: threading.Event() for name in "ab"}
    ended, opened, seen = threading.Event(), Image.open, []

    def slow(*arguments: Any, **options: Any) -> Image.Image:
        name = threading.current_thread().name
        begun[name].set()
        assert (begun["b"] if name == "a" else ended).wait(PATIENCE)
        warnings.warn("as Pillow does", UserWarning, stacklevel=1)  # an error, were it not ignored
        seen.append(name)
        return opened(*arguments, **options)

    monkeypatch.setattr(Image, "open", slow)
    before = list(warnings.filters)

    def first() -> None:
        load(path)
        ended.set()

    threads = [threading.Thread(target=first, name="a"), threading.Thread(target=load, args=(path,), name="b")]
    threads[0].start()
    assert begun["a"].wait(PATIENCE)
    threads[1].start()
    for thread in threads:
        thread.join(PATIENCE)
    assert seen == ["a", "b"]
    assert list(warnings.filters) == before


def test_noise_is_written_in_threads(tmp_path: Path) -> None:
    limit = ImageFile.MAXBLOCK
    noise = [torch.rand(1, 3, 200 + size, 300, generator=torch.Generator().manual_seed(size)) for size in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: save(each[1], tmp_path / f"{each[0]}.jpg", quality=100), enumerate(noise)))
    assert [load(tmp_path / f"{number}.jpg").size[0] for number in range(8)] == [200 + size for size in range(8)]
    assert limit == ImageFile.MAXBLOCK
