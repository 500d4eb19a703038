"""Reading pictures of all layouts, depths and colours, against what other libraries wrote into the files."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from stylize.errors import ImageError
from stylize.images import load, save
from tests import preloaded

Array = NDArray[Any]


def photo(height: int = 24, width: int = 35) -> Array:
    """A smooth picture of many colours, (H, W, 3) in [0, 1]."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    return np.stack([x, y * 1.4, 0.5 + 0.5 * np.sin(4 * x + y)], axis=-1)


def loaded(path: Path) -> Array:
    """(H, W, 3), or (H, W, 4) with alpha."""
    picture = load(path)
    channels = picture.rgb if picture.alpha is None else torch.cat([picture.rgb, picture.alpha], 1)
    return channels[0].permute(1, 2, 0).numpy()


def close(path: Path, expected: Array, tolerance: float = 1e-4) -> None:
    found = loaded(path)
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance


def refused(path: Path) -> str:
    with pytest.raises(ImageError) as error:
        load(path)
    text = str(error.value)
    assert text.splitlines() == [text]
    assert str(path) in text
    return text


# --- FITS


def fits(path: Path, values: Array, bits: int, **cards: object) -> Path:
    """A FITS file by hand, from its standard: rows from the bottom, in big-endian numbers, in blocks of 2880 bytes."""
    planes = values if values.ndim == 2 else np.moveaxis(values, 2, 0)
    sizes = {f"NAXIS{number}": size for number, size in enumerate(planes.shape[::-1], 1)}
    header = {"BITPIX": bits, "NAXIS": planes.ndim, **sizes, **cards}
    text = ["SIMPLE  =                    T / standard", *(f"{key:8}= {value:>20}" for key, value in header.items())]
    head = "".join(card.ljust(80) for card in [*text, "END"]).encode()
    dtype = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}[bits]
    data = planes[..., ::-1, :].astype(dtype).tobytes()
    path.write_bytes(head.ljust(-(-len(head) // 2880) * 2880) + data.ljust(-(-len(data) // 2880) * 2880, b"\0"))
    return path


@pytest.mark.parametrize("bits", [8, 16, 32, 64, -32, -64])
@pytest.mark.parametrize("channels", [1, 3])
def test_fits_of_every_depth(tmp_path: Path, bits: int, channels: int) -> None:
    unit = photo() if channels == 3 else photo()[..., 0]
    unit[0, 0], unit[-1, -1] = 0, 1
    path, tolerance = tmp_path / "a.fits", 1 / 250 if bits == 8 else 1e-4
    if bits < 0:
        close(fits(path, unit, bits), unit)
        close(fits(path, (unit - 3) / 0.25, bits, BSCALE="2.5D-1", BZERO=3.0), unit, tolerance)
        return
    largest = 255 if bits == 8 else 2 ** (bits - 1) - 1
    close(fits(path, np.floor(unit * np.longdouble(largest)), bits), unit, tolerance)
    zero = -128 if bits == 8 else 2 ** (bits - 1)
    unsigned = np.floor(unit * np.longdouble(2**bits - 1)) - 2 ** (bits - 1)
    close(fits(path, unsigned if bits > 8 else unsigned + 128, bits, BSCALE=1.0, BZERO=float(zero)), unit, tolerance)
    assert load(path).about.bits == bits
    close(fits(path, np.rint(unit * 100), bits, BSCALE=0.01), unit, 0.006)


def test_fits_that_is_damaged_or_has_many_planes(tmp_path: Path) -> None:
    path = fits(tmp_path / "a.fits", np.repeat(photo()[..., :1], 5, axis=2), -32)
    assert "first of 5 planes used" in load(path).notes
    path.write_bytes(path.read_bytes()[:4000])
    assert "truncated" in refused(path)
    assert "megapixels" in refused(fits(path, np.zeros((1, 1)), 8, NAXIS1=90000, NAXIS2=90000))
    assert "NaN" in refused(fits(path, np.full((9, 9), np.nan), -32))


# --- TIFF


tifffile: Any = pytest.importorskip("tifffile")
imagecodecs: Any = pytest.importorskip("imagecodecs")

TYPES = ("u1", "u2", "u4", "i1", "i2", "f2", "f4", "f8")
KINDS = ("grey", "white is 0", "grey alpha", "rgb", "rgb planes", "rgba", "rgba planes", "premultiplied")


def tiff(path: Path, unit: Array, kind: str, type_: str, **options: Any) -> None:
    """A TIFF by tifffile of values in [0, 1], (H, W, 4)."""
    dtype = np.dtype(type_)
    white = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
    alpha = unit[..., 3:]
    shown = unit * np.concatenate([alpha] * 3 + [np.ones_like(alpha)], 2) if kind == "premultiplied" else unit
    values = (shown * white if dtype.kind == "f" else np.rint(shown * white)).astype(dtype)
    photometric, extra = "rgb", None
    if "grey" in kind or kind == "white is 0":
        photometric = "miniswhite" if kind == "white is 0" else "minisblack"
        if kind == "white is 0":
            values = (white - values).astype(dtype)
        values = values[..., [0, 3]] if kind == "grey alpha" else values[..., 0]
    elif kind.startswith("rgb") and not kind.startswith("rgba"):
        values = values[..., :3]
    if kind in ("grey alpha", "rgba", "rgba planes"):
        extra = ["unassalpha"]
    elif kind == "premultiplied":
        extra = ["assocalpha"]
    planar = "separate" if "planes" in kind else "contig"
    if "planes" in kind:
        values = np.moveaxis(values, 2, 0)
    tifffile.imwrite(
        path, values, photometric=photometric, extrasamples=extra, planarconfig=planar, metadata=None, **options
    )


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_tiff_of_every_type_and_arrangement(
    tmp_path: Path, type_: str, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    unit = np.concatenate([photo(), np.linspace(0.2, 0.9, 35)[None, :, None].repeat(24, 0)], axis=2)
    unit[0, 0], unit[-1, -1] = [0, 0, 0, 0.5], [1, 1, 1, 1]
    expected = {"grey": unit[..., 0], "white is 0": unit[..., 0], "grey alpha": unit[..., [0, 0, 0, 3]]}.get(
        kind, unit if "a" in kind.removesuffix("planes") or kind == "premultiplied" else unit[..., :3]
    )
    tolerance = {"u1": 1 / 250, "i1": 1 / 120, "f2": 1e-3}.get(type_, 1e-4)
    if kind == "premultiplied":
        tolerance *= 5
    variants: tuple[dict[str, Any], ...] = (
        {},
        {"byteorder": ">", "rowsperstrip": 5},
        {"tile": (16, 16), "compression": "lzw"},
        {"compression": "zlib", "predictor": type_[0] != "i"},
        {"bigtiff": True, "compression": "packbits"},
    )
    for number, options in enumerate(variants):
        path = tmp_path / f"{number}.tif"
        tiff(path, unit, kind, type_, **options)
        close(path, expected, tolerance)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("type_", ["u4", "i4", "u8", "i8"])
@pytest.mark.parametrize("bits", [16, 17, 20, 24, 28, 30, 31])
def test_whole_numbers_that_use_a_part_of_their_bits_are_not_dark(tmp_path: Path, type_: str, bits: int) -> None:
    unit = np.concatenate([photo(), np.full((24, 35, 1), 0.5)], axis=2)
    unit[0, 0], unit[-1, -1] = 0, 1
    for number, white in enumerate((2**bits - 1, 2**bits) if 16 < bits < 31 else (2**bits - 1,)):
        values = np.rint(unit * white).astype(type_)
        deep = values.copy()
        deep[..., 3] = np.rint(unit[..., 3].astype(np.longdouble) * np.iinfo(type_).max)  # opacity of the whole range
        for name, shown, expected in (
            ("grey", values[..., 0], unit[..., 0]),
            ("rgb", values[..., :3], unit[..., :3]),
            ("rgba", values, unit),
            ("deep alpha", deep, unit),
        ):
            path, rgb = tmp_path / f"{number} {name}.tif", name != "grey"
            extra = ["unassalpha"] if shown.shape[-1] == 4 else None
            tifffile.imwrite(path, shown, photometric="rgb" if rgb else "minisblack", extrasamples=extra, metadata=None)
            close(path, expected, 1e-4)
            told = [note for note in load(path).notes if "whole numbers" in note]
            assert len(told) == (bits > 16 and (type_, bits) != ("i4", 31))
    assert not any(load(path).notes for path in [tmp_path / "0 grey.tif"] if bits == 16)


def test_less_bright_pictures_of_part_of_the_bits_are_seen(tmp_path: Path) -> None:
    for highest in (70_000, 100_000, 1_000_000, 5 * 10**8):
        tifffile.imwrite(tmp_path / "a.tif", np.rint(photo()[..., 0] / 0.98 * highest).astype("u4"), metadata=None)
        assert 0.5 < load(tmp_path / "a.tif").rgb.max() <= 1


@pytest.mark.parametrize("kind", [("I", int), ("f", float), ("d", float)])
def test_a_file_that_tells_its_range_is_believed_unless_it_is_wrong(tmp_path: Path, kind: tuple[str, type]) -> None:
    """SMinSampleValue and SMaxSampleValue, or MinSampleValue and MaxSampleValue, as whole or floating-point numbers."""
    letter, number = kind
    code = {"I": 4, "f": 11, "d": 12}[letter]
    values = np.rint(photo() * 700_000).astype("u4")
    for highest, expected in ((1_000_000, 1_000_000), (4_000_000, 4_000_000), (3, 2**20 - 1)):
        for tags in ((340, 341), (280, 281)):
            told = [(tags[0], code, 1, number(0), True), (tags[1], code, 1, number(highest), True)]
            tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", metadata=None, extratags=told)
            close(tmp_path / "a.tif", values / expected, 1e-4)
    sixteen = (values // 11).astype("u2")  # whose type tells it
    told = [(341, 3, 1, 63636, True)]
    tifffile.imwrite(tmp_path / "b.tif", sixteen, photometric="rgb", metadata=None, extratags=told)
    close(tmp_path / "b.tif", sixteen / 65535, 1e-4)


@pytest.mark.parametrize("type_", ["i2", "i4"])
def test_signed_numbers_below_zero(tmp_path: Path, type_: str) -> None:
    """As ImageMagick does where the whole range is used; else from the lowest to the highest; noise about 0 is cut."""
    ends, unit = np.iinfo(type_), photo()[..., 0]
    unit = (unit - unit.min()) / (unit.max() - unit.min())
    path = tmp_path / "a.tif"
    for low, high in ((int(ends.min), int(ends.max)), (-1024, 3071 if type_ == "i4" else 2900)):
        tifffile.imwrite(path, np.rint(unit * (high - low) + low).astype(type_), metadata=None)
        close(path, unit, 3e-4)
    tifffile.imwrite(path, np.rint(unit * ends.max * 1.02 - ends.max * 0.02).astype(type_), metadata=None)
    close(path, np.clip(unit * 1.02 - 0.02, 0, 1), 1e-4)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("colours", [1, 3, 4])
def test_eight_bits_with_more_samples_than_colours(
    tmp_path: Path, colours: int, compression: str | None, planar: str
) -> None:
    """Alpha that is multiplied in or not, and samples of which nothing is said, behind the colours or in planes."""
    unit = np.concatenate([photo(), photo()[..., :1] * 0.5], axis=2)[..., :colours]
    alpha = np.linspace(0.2, 0.9, 35)[None, :, None].repeat(24, 0)
    photometric = {1: "minisblack", 3: "rgb", 4: "separated"}[colours]
    shown = unit if colours < 4 else (1 - unit[..., :3]) * (1 - unit[..., 3:])
    shown = np.repeat(shown, 3, axis=2) if colours == 1 else shown
    for extra in (["unassalpha"], ["assocalpha"], ["unassalpha", "unspecified"], ["unspecified"]):
        with_alpha = extra[0] != "unspecified"
        values = unit * alpha if extra[0] == "assocalpha" else unit
        values = np.concatenate([values, *[alpha if with_alpha else 1 - alpha] * len(extra)], axis=2)
        levels = np.rint(values * 255).astype(np.uint8)
        if planar == "separate":
            levels = np.moveaxis(levels, 2, 0)
        options: dict[str, Any] = {"planarconfig": planar, "compression": compression, "metadata": None}
        tifffile.imwrite(tmp_path / "a.tif", levels, photometric=photometric, extrasamples=extra, **options)
        expected = np.concatenate([shown, alpha], axis=2) if with_alpha else shown
        if not (colours == 4 and extra[0] == "assocalpha"):  # of ink, which nobody writes
            close(tmp_path / "a.tif", expected, 0.02)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 24, 31])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_of_any_number_of_bits(tmp_path: Path, bits: int, channels: int) -> None:
    """Packed by hand, straight from the specification: rows begin at whole bytes."""
    levels = np.rint(photo()[..., :channels] * (2**bits - 1)).astype(np.uint64)
    levels[-1, -1] = 2**bits - 1
    rows = []
    for row in levels.reshape(len(levels), -1):
        stream = "".join(f"{value:0{bits}b}" for value in row.tolist())
        stream += "0" * (-len(stream) % 8)
        rows.append(int(stream, 2).to_bytes(len(stream) // 8))
    data = b"".join(rows)
    entries = [(256, 35), (257, 24), (258, bits), (259, 1), (262, 2 if channels == 3 else 1), (273, 0)]
    entries += [(277, channels), (278, 24), (279, len(data))]
    start = 8 + 2 + 12 * len(entries) + 4 + 6
    table = b""
    for tag, value in entries:
        if tag == 258 and channels == 3:
            table += struct.pack(">HHII", tag, 3, 3, start - 6)
        else:
            table += struct.pack(">HHII", tag, 4, 1, start if tag == 273 else value)
    head = struct.pack(">2sHIH", b"MM", 42, 8, len(entries)) + table + bytes(4) + struct.pack(">3H", *[bits] * 3)
    (tmp_path / "a.tif").write_bytes(head + data)
    expected = levels / (2**bits - 1)
    close(tmp_path / "a.tif", expected if channels == 3 else expected[..., 0])


def test_tiff_palettes_and_lab(tmp_path: Path) -> None:
    from PIL import ImageCms

    rng = np.random.default_rng(0)
    palette = rng.integers(0, 65536, (3, 65536), dtype=np.uint16)
    indices = rng.integers(0, 65536, (9, 7), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", indices, photometric="palette", colormap=palette, metadata=None)
    close(tmp_path / "p.tif", np.moveaxis(palette[:, indices], 0, 2) / 65535)

    pixels = np.rint(photo() * 255).astype(np.uint8)
    lab = ImageCms.profileToProfile(
        Image.fromarray(pixels), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    levels = np.asarray(lab).astype(np.int32)  # L in 0 to 255, a and b in two's complement
    signed = (levels[..., 1:] + 128) % 256 - 128
    icc = np.concatenate([levels[..., :1], signed + 128], axis=2)
    values: Any
    for name, values, photometric in [
        ("8", levels.astype(np.uint8), 8),
        ("16", np.concatenate([levels[..., :1] * 257, signed * 256 % 65536], 2).astype(np.uint16), 8),
        ("icc8", icc.astype(np.uint8), 9),
        ("icc16", np.concatenate([levels[..., :1] * 257, (signed + 128) * 256], 2).astype(np.uint16), 9),
    ]:
        for planar in ("contig", "separate"):
            data = np.moveaxis(values, 2, 0) if planar == "separate" else values
            tifffile.imwrite(
                tmp_path / f"{name}.tif", data, photometric=photometric, planarconfig=planar, metadata=None
            )
            assert np.abs(loaded(tmp_path / f"{name}.tif") - pixels / 255).max() < 0.07
            assert np.abs(loaded(tmp_path / f"{name}.tif") - pixels / 255).mean() < 0.006


def test_highlights_in_floating_point_do_not_darken_the_rest(tmp_path: Path) -> None:
    unit = photo().astype(np.float32)
    unit[3, 4] = 40.0
    for kind, values in (("minisblack", unit[..., 0]), ("rgb", unit)):
        tifffile.imwrite(tmp_path / "h.tif", values, photometric=kind, metadata=None)
        close(tmp_path / "h.tif", values.clip(0, 1))
        tifffile.imwrite(tmp_path / "l.tif", values.clip(0, 1) * 255, photometric=kind, metadata=None)
        close(tmp_path / "l.tif", values.clip(0, 1))


def test_a_tiff_of_one_long_strip_by_its_own_account(tmp_path: Path) -> None:
    values = np.rint(photo() * 65535).astype(np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", values, photometric="rgb", metadata=None, rowsperstrip=5)
    data = bytearray((tmp_path / "s.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "s.tif") as file:
        tag = file.pages[0].tags[278]
        data[tag.valueoffset : tag.valueoffset + 2] = b"\xff\xff"
    (tmp_path / "s.tif").write_bytes(data)
    close(tmp_path / "s.tif", values / 65535)
    signed = np.rint(photo() * 255).astype(np.uint8).view(np.int8)
    tifffile.imwrite(tmp_path / "i.tif", signed, photometric="rgb", metadata=None)
    close(tmp_path / "i.tif", signed.view(np.uint8) / 255)


def test_layouts_of_tiff_that_are_not_read_are_refused_by_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "c.tif", np.ones((4, 4), np.complex64), metadata=None)
    assert "a TIFF with" in refused(tmp_path / "c.tif")
    for compression, name, bits in (("lerc", "LERC", None), ("jpeg", "JPEG", 12)):
        levels = np.full((16, 16), 4000, "u2")
        tifffile.imwrite(tmp_path / "l.tif", levels, bitspersample=bits, compression=compression, metadata=None)
        assert f"compressed as {name}, which is not supported; save it with another" in refused(tmp_path / "l.tif")
    tifffile.imwrite(tmp_path / "n.tif", np.full((4, 4, 3), np.nan, np.float32), photometric="rgb", metadata=None)
    assert "NaN" in refused(tmp_path / "n.tif")


NOT_BY_OPENCV = ("jpeg2000", "u2", "grey alpha")


@pytest.mark.parametrize(
    ("compression", "type_"),
    [("jpeg2000", "u1"), ("jpeg2000", "u2"), ("png", "u1"), ("png", "u2"), ("jpegxl", "u1"), ("webp", "u1")],
)
def test_strips_of_a_tiff_that_are_pictures_of_another_format(tmp_path: Path, compression: str, type_: str) -> None:
    if compression == "jpegxl":
        pytest.importorskip("pillow_jxl")
    unit = np.concatenate([photo(), np.linspace(0.2, 0.9, 35)[None, :, None].repeat(24, 0)], axis=2)
    tolerance = 0.03 if compression in ("jpegxl", "webp") else 1 / 250
    for kind in ("rgb", "rgba", "grey", "grey alpha", "rgb planes"):
        if (compression == "webp" and kind not in ("rgb", "rgba")) or (compression, type_, kind) == NOT_BY_OPENCV:
            continue
        expected = {"grey": unit[..., 0], "grey alpha": unit[..., [0, 0, 0, 3]], "rgba": unit}.get(kind, unit[..., :3])
        tiff(tmp_path / "a.tif", unit, kind, type_, compression=compression, tile=(16, 16))
        close(tmp_path / "a.tif", expected, tolerance)


def test_jpeg_in_a_tiff_of_other_colours_than_usual(tmp_path: Path) -> None:
    ink = np.concatenate([1 - photo(), np.zeros((24, 35, 1))], axis=2)
    levels = np.rint(ink * 255).astype("u1")
    tifffile.imwrite(tmp_path / "k.tif", levels, photometric="separated", compression="jpeg", metadata=None)
    close(tmp_path / "k.tif", photo(), 0.1)
    lab = np.full((3, 24, 35), 200, "u1")
    lab[1:] = 0
    tifffile.imwrite(tmp_path / "l.tif", lab, photometric="cielab", compression="jpeg", planarconfig="separate")
    close(tmp_path / "l.tif", np.full((24, 35, 3), 0.758), 0.02)  # L* of 78.4


def test_differences_in_a_tiff_by_packbits(tmp_path: Path) -> None:
    tiff(tmp_path / "p.tif", np.concatenate([photo()] * 2, axis=2), "rgb", "u1", compression="packbits", predictor=True)
    close(tmp_path / "p.tif", photo(), 1 / 250)


def test_sixteen_bits_and_orientation_of_a_tiff(tmp_path: Path) -> None:
    values = np.rint(photo() * 65535).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "o.tif", values, photometric="rgb", metadata=None, extratags=[(274, 3, 1, 6, True)], planarconfig=1
    )
    close(tmp_path / "o.tif", np.rot90(values, -1) / 65535)


# --- JPEG 2000, HEIC, JPEG XL, light


@pytest.mark.parametrize("bits", [9, 10, 12, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_jpeg_2000_keeps_its_bits(tmp_path: Path, bits: int, channels: int) -> None:
    unit = np.concatenate([photo(), np.linspace(0.2, 1, 35)[None, :, None].repeat(24, 0)], axis=2)[..., :channels]
    unit[0, 0] = 1
    levels = np.rint(unit * (2**bits - 1)).astype(np.uint16)
    for codec in ("jp2", "j2k"):
        data = imagecodecs.jpeg2k_encode(levels, level=0, bitspersample=bits, reversible=True, codecformat=codec)
        path = tmp_path / f"a.{codec}"
        path.write_bytes(data)
        found = loaded(path)
        assert np.abs(found[..., :3] - (levels / (2**bits - 1))[..., :3]).max() < 1e-4


def test_heic_and_jpeg_xl_need_an_extra_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif, jxl = pytest.importorskip("pillow_heif"), pytest.importorskip("pillow_jxl")
    assert jxl
    heif.register_heif_opener()
    pixels = Image.fromarray(np.rint(photo(48, 64) * 255).astype(np.uint8))
    for name in ("a.heic", "a.jxl"):
        pixels.save(tmp_path / name, quality=95)
        assert np.abs(loaded(tmp_path / name) - np.asarray(pixels) / 255).mean() < 0.02
    for name, module, kind in (("a.heic", "pillow_heif", "HEIC"), ("a.jxl", "pillow_jxl", "JPEG XL")):
        monkeypatch.setitem(sys.modules, module, None)
        text = refused(tmp_path / name)
        assert f"{kind}, which needs an extra: pip install 'stylize-host[photo]'" in text


def test_light_of_openexr_and_radiance(tmp_path: Path) -> None:
    import av
    import cv2

    light = (photo(32, 48) ** 2).astype(np.float32)
    light[0, 0] = 9
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
    (tmp_path / "a.hdr").write_bytes(cv2.imencode(".hdr", np.ascontiguousarray(light[..., ::-1]))[1].tobytes())
    assert np.abs(loaded(tmp_path / "a.hdr") - expected.clip(0, 1)).mean() < 0.006  # of 8 bits and an exponent
    with av.open(str(tmp_path / "a.exr"), "w", format="image2") as container:
        stream = container.add_stream("exr", rate=1)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "gbrpf32le"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(light, format="gbrpf32le")))
    close(tmp_path / "a.exr", expected.clip(0, 1), 1e-3)
    assert load(tmp_path / "a.exr").notes == ("light beyond white is cut off",)


# --- colours


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(path: Path, values: Array, extra: bytes) -> Path:
    """A 16-bit PNG of values in [0, 1] with chunks after its header."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.rint(values * 65535).astype(np.uint16))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + extra + body)
    return path


def linear(srgb: Array) -> Array:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


# From sRGB's primaries to those of Display P3 and BT.2020, as CSS Color 4 prints them.
TO_P3 = [[0.8224620, 0.1775380, 0], [0.0331942, 0.9668058, 0], [0.0170826, 0.0723974, 0.9105199]]
TO_2020 = [[0.6274039, 0.3292830, 0.0433131], [0.0690973, 0.9195404, 0.0113623], [0.0163914, 0.0880133, 0.8955953]]


def pq(light: Array) -> Array:
    power = (np.maximum(light, 0) * 203 / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def test_colours_told_by_numbers(tmp_path: Path) -> None:
    expected = photo()
    light = linear(expected)
    p3, wide = light @ np.array(TO_P3).T, light @ np.array(TO_2020).T

    def srgb(values: Array) -> Array:
        return np.where(values <= 0.0031308, 12.92 * values, 1.055 * np.maximum(values, 1e-9) ** (1 / 2.4) - 0.055)

    chromaticities = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    for name, values, extra in [
        ("p3", srgb(p3), chunk(b"cICP", bytes([12, 13, 0, 1]))),
        ("2020", srgb(wide), chunk(b"cICP", bytes([9, 13, 0, 1]))),
        ("pq", pq(wide), chunk(b"cICP", bytes([9, 16, 0, 1]))),
        ("linear", light, chunk(b"gAMA", struct.pack(">I", 100_000))),
        ("gamma", light ** (1 / 1.8), chunk(b"gAMA", struct.pack(">I", 55_556))),
        ("cHRM", p3 ** (1 / 2.2), chunk(b"gAMA", struct.pack(">I", 45_455)) + chunk(b"cHRM", chromaticities)),
        ("told sRGB", expected, chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"sRGB", b"\0")),
        ("cICP first", srgb(p3), chunk(b"cICP", bytes([12, 13, 0, 1])) + chunk(b"sRGB", b"\0")),
    ]:
        path = png_with(tmp_path / f"{name}.png", values.clip(0, 1), extra)
        assert np.abs(loaded(path) - expected).max() < 0.012, name


def test_hdr_keeps_its_midtones_and_its_highlights_apart(tmp_path: Path) -> None:
    ramp = np.linspace(0.01, 4, 64)[None, :, None].repeat(16, 0).repeat(3, 2)  # light, 1 is diffuse white
    path = png_with(tmp_path / "a.png", pq(ramp), chunk(b"cICP", bytes([1, 16, 0, 1])))
    shown = linear(loaded(path)[0, :, 0].astype(np.float64))
    dark = ramp[0, :, 0] < 0.7
    assert np.abs(shown[dark] / ramp[0, dark, 0] - 1).max() < 0.02
    assert (np.diff(shown) > 0).all()
    assert shown[-1] == pytest.approx(1, abs=0.02)
    assert load(path).notes == ("HDR picture: brightness mapped to that of a common display",)
    # Hybrid log-gamma: 75 % of the signal is diffuse white.
    values = np.full((8, 8, 3), 0.75)
    close(png_with(tmp_path / "h.png", values, chunk(b"cICP", bytes([9, 18, 0, 1]))), np.ones((8, 8)), 0.02)


@pytest.mark.parametrize("name", ["a.avif", "a.heic"])
def test_colours_told_by_numbers_in_avif_and_heic(tmp_path: Path, name: str) -> None:
    if name == "a.heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path = tmp_path / name
    Image.fromarray(np.full((64, 64, 3), (200, 60, 60), np.uint8)).save(path, quality=100)
    data = path.read_bytes()
    at = data.find(b"nclx")
    if at < 0:
        pytest.skip("this encoder writes no numbers")
    path.write_bytes(data[: at + 4] + struct.pack(">HH", 12, 13) + data[at + 8 :])
    red = loaded(path)[32, 32]
    light = linear(np.array([200, 60, 60]) / 255)
    srgb = np.linalg.inv(np.array(TO_P3)) @ light
    assert np.abs(linear(red.astype(np.float64)) - srgb.clip(0, 1)).max() < 0.02


def test_adobe_rgb_as_cameras_mark_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ColorSpace: 65535, ExifTags.IFD.Interop: {1: "R03\0"}}
    grey = np.full((16, 16, 3), (100, 150, 100), np.uint8)
    for name in ("a.jpg", "a.png"):
        Image.fromarray(grey).save(tmp_path / name, exif=exif.tobytes(), quality=100, subsampling=0)
        found = loaded(tmp_path / name)[8, 8]
        # By the textbook: gamma 563/256, Adobe's primaries to those of sRGB.
        matrix = [[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]]
        light = np.array(matrix) @ (grey[0, 0] / 255) ** (563 / 256)
        assert np.abs(linear(found.astype(np.float64)) - light.clip(0, 1)).max() < 0.02, name


# --- what is refused, and what is mended


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"FUJIFILMCCD-RAW 0201FF", "Fujifilm RAF"),
        (b"II*\0\x10\0\0\0CR\x02\0", "Canon CR2"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "Canon CR3"),
        (b"IIRO\x08\0\0\0", "Olympus ORF"),
        (b"IIU\0\x08\0\0\0", "Panasonic RW2"),
        (b"%PDF-1.7\n", "PDF"),
        (b'<?xml version="1.0"?><svg xmlns="x">', "SVG"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"gimp xcf v011", "GIMP XCF"),
        (b"P7\nWIDTH 3\nHEIGHT 2\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n", "PAM"),
        (b"PF\n3 2\n-1.0\n", "PFM in colour"),
        (b"id=ImageMagick  version=1.0\n", "MIFF"),
        (b"PK\x03\x04", "ZIP archive"),
        (b"\xff\xd8\xff\xf7\0\x0b\x08", "JPEG-LS"),
        (b"SDPX\0\0\x08\0", "DPX"),
        (b"\x1aE\xdf\xa3\x01\0\0\0", "Matroska or WebM clip"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, head: bytes, name: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(head + bytes(300))
    assert name in refused(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_raw_files_are_not_painted_from_their_thumbnail(tmp_path: Path, order: str) -> None:
    mosaic = np.zeros((48, 64), np.uint16)
    thumbnail = np.zeros((6, 8, 3), np.uint8)
    for name, tags, kind in (
        ("a.dng", [(50706, 1, 4, bytes([1, 4, 0, 0]), True)], "DNG"),
        ("a.nef", [(271, 2, 18, "NIKON CORPORATION", True)], "Nikon NEF"),
        ("a.arw", [(271, 2, 5, "SONY", True)], "Sony ARW"),
    ):
        with tifffile.TiffWriter(tmp_path / name, byteorder=order) as writer:
            writer.write(thumbnail, photometric="rgb", subfiletype=1, subifds=1, extratags=tags, metadata=None)
            writer.write(mosaic, photometric=32803, subfiletype=0, metadata=None)
        text = refused(tmp_path / name)
        assert f"a raw file of a camera ({kind}): develop it to a TIFF or JPEG first" in text


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_is_read_but_not_half_of_one(tmp_path: Path, progressive: bool) -> None:
    path = tmp_path / "a.jpg"
    save(torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(1)), path)
    with Image.open(path) as image:
        image.save(path, progressive=progressive, quality=90)
    whole, data = loaded(path), path.read_bytes()
    for missing in (1, 2):
        path.write_bytes(data[:-missing])
        assert load(path).notes == ("the mark of its end is missing",)
        assert np.array_equal(loaded(path), whole)
    for missing in (200, len(data) // 2):
        path.write_bytes(data[:-missing])
        assert "truncated" in refused(path)


def test_texts_and_damaged_side_information_of_a_png_do_not_matter(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    unit = photo()
    for number, extra in enumerate(
        (
            chunk(b"tEXt", b"workflow\0" + b"{}" * 2_000_000),
            chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(5_000_000))),
            chunk(b"iTXt", b"big\0\1\0\0\0" + zlib.compress(bytes(5_000_000))),
            chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(900_000))) * 100,
            chunk(b"tEXt", b"broken"),
        )
    ):
        path = png_with(tmp_path / f"{number}.png", unit, extra)
        close(path, unit)
        assert load(path).notes == ()
        eight = io.BytesIO()
        Image.fromarray(np.rint(unit * 255).astype(np.uint8)).save(eight, "PNG")
        path.write_bytes(eight.getvalue()[:33] + extra + eight.getvalue()[33:])
        close(path, np.rint(unit * 255) / 255)
    damaged = chunk(b"pHYs", bytes(9))[:-1] + b"?"
    path = png_with(tmp_path / "crc.png", unit, damaged)
    close(path, unit)
    assert load(path).notes == ("damaged side information ignored",)
    data = bytearray(png_with(tmp_path / "end.png", unit, b"").read_bytes())
    for missing in (1, 4, 8, 12):  # of the 12 bytes of the mark of its end
        (tmp_path / "end.png").write_bytes(data[:-missing])
        close(tmp_path / "end.png", unit)
        assert load(tmp_path / "end.png").notes == ("damaged side information ignored",)
    (tmp_path / "end.png").write_bytes(data[: len(data) * 2 // 3])
    refused(tmp_path / "end.png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(path)
    assert capfd.readouterr() == ("", "")


def test_a_profile_of_more_than_a_megabyte(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(2_000_000))
    profile[:4] = struct.pack(">I", len(profile))
    path = png_with(tmp_path / "p.png", photo(), chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(profile))))
    close(path, photo())
    assert load(path).notes == ()


@pytest.mark.slow
def test_two_hundred_megapixels(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("L", (16320, 12240), 90).save(path, quality=50)
    picture = load(path, longest=256)
    assert picture.size == (192, 256)
    assert float((picture.rgb - 90 / 255).abs().max()) < 0.01


@pytest.mark.slow
def test_libraries_stay_off_the_terminal(tmp_path: Path) -> None:
    """libtiff and Pillow's log write to the standard error by themselves, also where files are read in threads."""
    tifffile.imwrite(tmp_path / "w.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression="webp")
    tifffile.imwrite(tmp_path / "l.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression="lerc")
    tifffile.imwrite(tmp_path / "j.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression="jpeg")
    data = bytearray((tmp_path / "j.tif").read_bytes())
    data[-40:-20] = b"\xff" * 20
    (tmp_path / "j.tif").write_bytes(data)
    program = """
import sys
from concurrent.futures import ThreadPoolExecutor
from stylize.errors import ImageError
from stylize.images import load
def read(path):
    try:
        load(path)
    except ImageError:
        pass
with ThreadPoolExecutor(4) as pool:
    list(pool.map(read, sys.argv[1:] * 8))
"""
    paths, file = sorted(map(str, tmp_path.iterdir())), tmp_path / "program.py"
    file.write_text(program)
    done = preloaded.run([sys.executable, file, *paths], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# --- what Pillow or OpenCV reads otherwise


def test_a_moving_png_of_sixteen_bits_is_its_still_picture(tmp_path: Path) -> None:
    still, frame = (Image.new("RGB", (8, 6), color) for color in ((250, 120, 0), (0, 120, 250)))
    file = io.BytesIO()
    still.save(file, "PNG", save_all=True, append_images=[frame, frame], default_image=True, duration=100)

    def deep(row: bytes) -> bytes:
        return bytes(each for value in row for each in (value, value))

    data = file.getvalue()
    made, place = data[:8], 8
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            body = body[:8] + b"\x10" + body[9:]
        elif kind in (b"IDAT", b"fdAT"):
            head = body[:4] if kind == b"fdAT" else b""
            color = (250, 120, 0) if kind == b"IDAT" else (0, 120, 250)
            width, height = (8, 6)
            body = head + zlib.compress((b"\0" + deep(bytes(color * width))) * height)
        made += chunk(kind, body)
        place += length + 12
    path = tmp_path / "a.png"
    path.write_bytes(made)
    expected = np.broadcast_to(np.array([250, 120, 0]) / 255, (6, 8, 3))
    close(path, expected)
    assert load(path).about.bits == 16


def test_the_bits_of_an_xbm_are_ink(tmp_path: Path) -> None:
    path = tmp_path / "a.xbm"
    path.write_text("#define a_width 8\n#define a_height 2\nstatic char a_bits[] = {\n0x01, 0xff };\n")
    expected = np.ones((2, 8))
    expected[0, 0] = expected[1] = 0
    close(path, expected)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


@pytest.mark.parametrize("order", [(1, 2, 3), (2, 3, 1), (3, 2, 1)])
@pytest.mark.parametrize("columns", [(0, 1, 2), (2, 0, 1)])
def test_the_palette_of_a_jpeg_2000(tmp_path: Path, order: tuple[int, ...], columns: tuple[int, ...]) -> None:
    """Against its definition: entries that are alike, columns and channels in any order."""
    palette = np.random.default_rng(4).integers(0, 4, (64, 3)) * 80
    indices = np.random.default_rng(5).integers(0, 64, (20, 24), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(indices).save(file, "JPEG2000", irreversible=False, no_jp2=True)
    pclr = struct.pack(">HB3B", 64, 3, 7, 7, 7) + palette.astype(np.uint8).tobytes()
    header = box(b"ihdr", struct.pack(">IIH4B", 20, 24, 1, 7, 7, 0, 0)) + box(b"colr", bytes([1, 0, 0, 0, 0, 0, 16]))
    header += box(b"pclr", pclr) + box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, each) for each in columns))
    header += box(b"cdef", struct.pack(">H", 3) + b"".join(struct.pack(">3H", i, 0, c) for i, c in enumerate(order)))
    data = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    path = tmp_path / "a.jp2"
    path.write_bytes(data + box(b"jp2h", header) + box(b"jp2c", file.getvalue()))
    expected = np.empty((64, 3))
    for channel, color in enumerate(order):
        expected[:, color - 1] = palette[:, columns[channel]]
    close(path, expected[indices] / 255)


def bmp(levels: Array, masks: tuple[int, ...], bits: int, length: int) -> tuple[bytes, Array]:
    """A BMP of (H, W, 4) values in [0, 1] in fields of bits, and the values that the fields can tell."""
    height, width = levels.shape[:2]
    words, told = np.zeros((height, width), np.uint32), np.ones_like(levels)
    for index, mask in enumerate(masks):
        if mask:
            low = (mask & -mask).bit_length() - 1
            highest = mask >> low
            whole = np.rint(levels[..., index] * highest).astype(np.uint32)
            words |= whole << np.uint32(low)
            told[..., index] = whole / highest
    lines = b"".join(
        line.astype(f"<u{bits // 8}").tobytes().ljust(-(-width * bits // 32) * 4, b"\0") for line in words[::-1]
    )
    fields = struct.pack("<4I", *masks)[: 12 if length == 40 else 16] + bytes(max(0, length - 56))
    head = struct.pack("<IiiHHIIiiII", length, width, height, 1, bits, 3, len(lines), 2835, 2835, 0, 0)
    start = 14 + len(head) + len(fields)
    return struct.pack("<2sIHHI", b"BM", start + len(lines), 0, 0, start) + head + fields + lines, told


@pytest.mark.parametrize("length", [40, 56, 124])
@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF800, 0x7E0, 0x1F, 0)),
        (16, (0x1F, 0x7E0, 0xF800, 0)),
        (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
        (16, (0xF00, 0xF0, 0xF, 0xF000)),
        (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
        (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
    ],
)
def test_bmp_with_fields_of_any_bits(tmp_path: Path, bits: int, masks: tuple[int, ...], length: int) -> None:
    unit = np.concatenate([photo(), np.linspace(0.2, 1, 35)[None, :, None].repeat(24, 0)], axis=2)
    masks = (*masks[:3], 0) if length == 40 else masks
    data, told = bmp(unit, masks, bits, length)
    (tmp_path / "a.bmp").write_bytes(data)
    close(tmp_path / "a.bmp", told if masks[3] else told[..., :3], 1 / 250)


def loaded_bits(path: Path) -> int:
    return load(path).about.bits


@pytest.mark.parametrize(("version", "bits"), [(1, 16), (2, 16), (2, 8)])
@pytest.mark.parametrize("packed", [False, True])
def test_photoshop_documents_of_16_bits_and_large_ones(tmp_path: Path, version: int, bits: int, packed: bool) -> None:
    unit = np.concatenate([photo(), np.linspace(0.2, 0.9, 35)[None, :, None].repeat(24, 0)], axis=2)
    ink = np.concatenate([unit[..., :3], np.ones_like(unit[..., :1])], axis=2)  # paper, as Photoshop stores it
    for mode, values, expected in ((3, unit[..., :3], unit[..., :3]), (3, unit, unit), (1, unit[..., :1], unit[..., 0]),
                                   (4, ink, unit[..., :3])):  # fmt: skip
        planes = np.rint(values * (2**bits - 1)).astype(f">u{bits // 8}").transpose(2, 0, 1)
        rows = [line.tobytes() for plane in planes for line in plane]
        if packed:
            rows = [bytes([len(line) - 1]) + line for line in rows]  # one run of bytes as they are
            rows = [struct.pack(f">{len(rows)}{'H' if version == 1 else 'I'}", *map(len, rows)), *rows]
        head = b"8BPS" + struct.pack(">H6xHIIHH", version, len(planes), 24, 35, bits, mode)
        body = struct.pack(">H", packed) + b"".join(rows)
        (tmp_path / "a.psd").write_bytes(head + bytes(8 + 4 * version) + body)
        close(tmp_path / "a.psd", expected, 1 / 250)
        assert loaded_bits(tmp_path / "a.psd") == bits
    (tmp_path / "a.psd").write_bytes((head + bytes(8 + 4 * version) + body)[:-5])
    assert "truncated" in refused(tmp_path / "a.psd")
