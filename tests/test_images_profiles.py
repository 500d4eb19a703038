"""Colour profiles: pictures that stay in their own, and tables read in more than 8 bits."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

import stylize
from stylize.images import Picture, as_picture, load, read_record, save, srgb_profile
from stylize.images.encodings import Encoding, adobe_rgb, of_cicp, power
from stylize.images.profiles import made_of
from stylize.images.tables import of_tables
from stylize.testing import tiny_encoder
from tests.conftest import Call, waves

tifffile: Any = pytest.importorskip("tifffile")

Array = NDArray[Any]

P3, ADOBE = cast(Encoding, of_cicp(12, 13)), adobe_rgb()
_PROPHOTO = np.array([[2.0344, -0.7275, -0.3069], [-0.2288, 1.2317, -0.0029], [-0.0086, -0.1533, 1.1619]])
PROFILES = {
    "p3": made_of(P3),
    "adobe": made_of(ADOBE),
    "prophoto": made_of(Encoding(_PROPHOTO, power(1.8))),
}
OUTSIDE = (0, 255, 0)  # a green that sRGB has not, in each of them
STYLES = ((0.4, 0.4, 0.4), (0.7, 0.1, 0.1), (0.1, 0.2, 0.7))
FORMATS = ("png", "jpg", "webp", "tif", "avif")


def patches(white: int = 255) -> Array:
    """Bars of colours at the edges of their space, (24, 32, 3)."""
    colors = np.array([OUTSIDE, (255, 0, 0), (40, 90, 160), (255, 255, 255)]) / 255
    bars = np.rint(np.repeat(np.repeat(colors[None], 24, 0), 8, 1) * white)
    bars[12:] = np.rint(bars[12:] * 0.7)
    return bars.astype(np.uint16 if white > 255 else np.uint8)


def lcms(pixels: Array, source: bytes, target: bytes, mode: str = "RGB") -> Array:
    first, second = (ImageCms.ImageCmsProfile(io.BytesIO(each)) for each in (source, target))
    made = ImageCms.profileToProfile(Image.fromarray(pixels, mode), first, second, outputMode="RGB")
    return np.asarray(made).astype(np.float64)


def profile_in(path: Path) -> bytes:
    with Image.open(path) as image:
        return bytes(image.info["icc_profile"])


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_that_are_made_convert_as_their_encodings(name: str) -> None:
    levels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    path = io.BytesIO()
    Image.fromarray(levels).save(path, "PNG", icc_profile=PROFILES[name])
    ours = load(path.getvalue()).numpy(np.float32) * 255
    assert np.abs(ours - lcms(levels, PROFILES[name], srgb_profile())).max() <= 1
    if name == "p3":  # its numbers, by Apple's profile
        profile = ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[name])).profile
        red, green = profile.red_colorant, profile.green_colorant
        assert red is not None
        assert green is not None
        assert np.allclose([red[0][0], green[0][1]], [0.5151, 0.6922], atol=2e-3)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", PROFILES)
def test_a_picture_stays_in_its_own_profile(tmp_path: Path, name: str, format: str) -> None:
    source, target = tmp_path / "photo.png", tmp_path / f"again.{format}"
    Image.fromarray(patches()).save(source, icc_profile=PROFILES[name])
    picture = load(source, profile="keep")
    assert picture.notes == ()
    assert np.array_equal(picture.numpy(), patches())
    save(picture, target)
    assert profile_in(target) == PROFILES[name]
    tolerance = 0 if format in ("png", "tif") else 12
    with Image.open(target) as image:
        assert np.abs(np.asarray(image).astype(int) - patches())[4:8, 2:6].max() <= tolerance
    assert (load(target).rgb - load(source).rgb)[..., 4:8, 2:6].abs().max() <= 0.06  # in sRGB


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    import cv2

    ramp = (np.arange(24 * 32 * 3, dtype=np.uint32) * 28 % 65536).astype(np.uint16).reshape(24, 32, 3)
    plain, source, target = tmp_path / "plain.png", tmp_path / "photo.tif", tmp_path / "again.png"
    save(Picture(torch.from_numpy(ramp.astype(np.float32) / 65535).permute(2, 0, 1)[None]), plain, bits=16)
    picture = load(plain)
    save(stylize.Picture(picture.rgb, about=picture.about, profile=PROFILES["prophoto"]), source)
    kept = load(source, profile="keep")
    assert kept.about.bits == 16
    assert kept.profile == PROFILES["prophoto"]
    save(kept, target)
    found = cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
    assert found is not None
    assert np.array_equal(found[..., ::-1], ramp)


def test_colours_told_without_a_profile_get_one(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(patches()).save(path)
    data = path.read_bytes()
    import zlib

    body = b"cICP" + bytes([12, 13, 0, 1])
    chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(data[:33] + chunk + data[33:])
    kept = load(path, profile="keep")
    assert np.array_equal(kept.numpy(), patches())
    back = torch.from_numpy(lcms(patches(), kept.profile, srgb_profile()) / 255).permute(2, 0, 1)[None]
    assert (load(path).rgb - back).abs().max() <= 1.5 / 255


def grey_profile() -> bytes:
    """A grey profile of gamma 1.8."""
    tags = {b"wtpt": struct.pack(">4s4x3i", b"XYZ ", 63190, 65536, 54061)}
    tags[b"kTRC"] = struct.pack(">4s4xIH2x", b"curv", 1, round(1.8 * 256))
    return icc(tags, b"GRAY", b"XYZ ")


@pytest.mark.parametrize("kind", ["grey", "CMYK", "linear", "reading alone", "broken"])
def test_what_cannot_be_kept_is_converted_and_noted(kind: str) -> None:
    if kind == "grey":
        image, profile = Image.new("L", (8, 8), 100), grey_profile()
    elif kind == "CMYK":
        image, profile = Image.new("CMYK", (8, 8), (100, 30, 0, 20)), cmyk_tables("mft2")
    elif kind == "linear":
        image, profile = Image.new("RGB", (8, 8), (100, 30, 0)), made_of(Encoding(P3.matrix, lambda v: v))
    elif kind == "reading alone":
        image, profile = Image.new("RGB", (8, 8), (100, 30, 0)), rgb_tables("mft2")
    else:
        image, profile = Image.new("RGB", (8, 8), (100, 30, 0)), b"nonsense"
    image.info["icc_profile"] = profile
    kept, plain = load(image, profile="keep"), load(image)
    assert kept.profile == b""
    assert torch.equal(kept.rgb, plain.rgb)
    assert any("profile" in note for note in kept.notes)
    if kind == "CMYK":
        assert "it is for CMYK pixels; the result is in sRGB" in kept.notes[0]


def test_what_exif_says_of_the_colours_stays_with_them() -> None:
    exif = Image.Exif()
    exif[271] = "Maker"
    exif.get_ifd(34665)[40961] = 65535
    file = io.BytesIO()
    Image.fromarray(patches()).save(file, "JPEG", icc_profile=PROFILES["p3"], exif=exif)
    for profile, expected in (("keep", 65535), ("srgb", 1)):
        picture = load(file.getvalue(), profile=profile)
        for format in ("jpg", "avif", "tif"):
            made = io.BytesIO()
            save(picture, made, format=format, location=False)
            with Image.open(made) as image:
                assert image.getexif().get_ifd(34665)[40961] == expected


# --- painting


QUIET: dict[str, Any] = {"size": 32, "encoder": "tiny", "steps": (2,), "scales": 1}


def stylizer(style: Picture, **changes: Any) -> stylize.Stylizer:
    return stylize.Stylizer(style, stylize.Settings(**{**QUIET, **changes}), encoders=[tiny_encoder()])


def test_a_style_is_converted_into_the_colours_of_the_photo() -> None:
    red = Picture(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 32, 32).contiguous())
    photo = Picture(torch.rand(1, 3, 32, 32), profile=PROFILES["p3"])
    painted = stylizer(red, init="style", style_weight=0, content_weight=1e-6)(photo)
    assert painted.profile == PROFILES["p3"]
    assert np.allclose(painted.rgb.mean((0, 2, 3)), [0.9175, 0.2003, 0.1387], atol=0.01)  # of sRGB's red in Display P3


def test_several_profiles_with_one_stylizer_are_each_painted_in_their_own() -> None:
    made, style = torch.rand(1, 3, 32, 32), Picture(torch.rand(1, 3, 32, 32))
    one = stylizer(style)
    order = [b"", PROFILES["p3"], b"", PROFILES["prophoto"], PROFILES["p3"]]
    painted = [one(Picture(made, profile=profile)) for profile in order]
    assert [each.profile for each in painted] == order
    assert torch.equal(painted[1].rgb, painted[4].rgb)
    assert torch.equal(painted[0].rgb, painted[2].rgb)
    assert not torch.equal(painted[0].rgb, painted[1].rgb)
    assert torch.equal(painted[1].rgb, stylizer(style)(Picture(made, profile=PROFILES["p3"])).rgb)


def test_a_step_shows_srgb() -> None:
    green = torch.tensor([0.0, 1, 0]).view(1, 3, 1, 1).expand(1, 3, 32, 32).contiguous()
    quiet = stylizer(Picture(green), style_weight=0)
    seen = []
    quiet(Picture(green * 0.5, profile=PROFILES["adobe"]), on_step=lambda step: seen.append(step.image()))
    assert float(seen[0][0, 1].mean()) == pytest.approx(0.5, abs=0.02)
    assert float(seen[0][0, 0].max()) == 0  # sRGB's limit


@pytest.mark.slow
def test_python_asks_for_a_profile_by_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(patches()).save(path, icc_profile=PROFILES["p3"])
    style = Picture(torch.rand(1, 3, 32, 32))
    assert stylizer(style)(path, profile="keep").profile == PROFILES["p3"]
    assert stylizer(style)(path).profile == b""
    kept = load(path, profile="keep")
    assert stylizer(style)(kept).profile == PROFILES["p3"]
    assert as_picture(kept).profile == b""
    assert (kept.in_profile().rgb - load(path).rgb).abs().max() <= 1.5 / 255
    assert kept.pil().info["icc_profile"] == PROFILES["p3"]
    painted = stylize.paint(path, style, size=16, encoder="mini", steps=(1,), profile="keep")
    assert painted.profile == PROFILES["p3"]
    with pytest.raises(stylize.SettingsError, match="profile is 'p3'; it must be one of srgb, keep"):
        load(path, profile="p3")


@pytest.mark.slow
def test_the_command_line_keeps_a_profile(call: Call, folder: Path) -> None:
    Image.fromarray(patches()).save(folder / "photo.png", icc_profile=PROFILES["p3"])
    Image.new("L", (32, 24)).save(folder / "black.png")
    save(Picture(torch.rand(1, 3, 32, 32)), folder / "style.png")
    quiet = ("--encoder", "tiny", "--size", "32", "--steps", "1")
    assert call("photo.png", "style.png", "-o", "a.png", "--mask", "black.png", "--profile", "keep", *quiet).code == 0
    assert profile_in(folder / "a.png") == PROFILES["p3"]
    with Image.open(folder / "a.png") as image:
        assert np.array_equal(np.asarray(image), patches())  # where nothing is painted, to the bit
    record = read_record(folder / "a.png")
    assert record is not None
    assert record["saving"]["profile"] == "keep"
    replayed = call("replay", "a.png", "-o", "b.png", *quiet[:0])
    assert replayed.code == 0
    assert profile_in(folder / "b.png") == PROFILES["p3"]
    assert (folder / "a.png").read_bytes() == (folder / "b.png").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "luminance", "match"])
@pytest.mark.parametrize(("name", "bits"), [("p3", 8), ("prophoto", 16)])
def test_masks_and_regions_in_a_profile_that_is_kept(tmp_path: Path, name: str, bits: int, mode: str) -> None:
    """The photo's own samples where the mask is black; elsewhere what is painted looks as it does in sRGB."""
    kind, path = (np.uint8, tmp_path / "a.png") if bits == 8 else (np.uint16, tmp_path / "a.tif")
    pixels = (waves(24, 32, 3)[0].permute(1, 2, 0).numpy() * np.iinfo(kind).max).astype(kind)
    if bits == 8:
        Image.fromarray(pixels).save(path, icc_profile=PROFILES[name])
    else:
        tifffile.imwrite(path, pixels, photometric="rgb", iccprofile=PROFILES[name], metadata=None)
    grey, red, blue = (waves(32, 32, 5) * 0.2 + torch.tensor(color).view(1, 3, 1, 1) for color in STYLES)
    mask, above, below = torch.ones(24, 32), torch.zeros(24, 32), torch.zeros(24, 32)
    mask[:, :10], above[:12], below[12:] = 0, 1, 1
    settings = stylize.Settings(encoder="tiny", size=32, steps=(12,), preserve_color=mode)
    stylizer = stylize.Stylizer(Picture(grey), settings, encoders=[tiny_encoder()])
    regions = [(above, Picture(red)), (below, Picture(blue))]
    kept, plain = (stylizer(path, mask=mask, regions=regions, profile=profile) for profile in ("keep", "srgb"))
    kept.save(tmp_path / "b.png")
    found = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)
    assert found is not None
    assert found.dtype == kind
    assert np.array_equal(found[:, :10, ::-1], pixels[:, :10])
    assert profile_in(tmp_path / "b.png") == PROFILES[name]
    for rows in (slice(2, 10), slice(14, 22)):
        ours, theirs = (each[:, :, rows, 13:].mean((0, 2, 3)) for each in (kept.in_profile().rgb, plain.rgb))
        assert (ours - theirs).abs().max() < 0.06


@pytest.mark.slow
def test_a_folder_is_painted_again_in_other_colours_only(call: Call, folder: Path) -> None:
    (folder / "photos").mkdir()
    Image.fromarray(patches()).save(folder / "photos" / "photo.png", icc_profile=PROFILES["p3"])
    save(Picture(torch.rand(1, 3, 32, 32)), folder / "style.png")
    run = ("photos", "style.png", "-o", "out", "--encoder", "tiny", "--size", "32", "--steps", "1")
    assert "1 of 1 are up to date" not in call(*run).err
    assert "again: changed: saving" in call(*run, "--profile", "keep", "--report", "page.html").err
    assert profile_in(folder / "out" / "photo.png") == PROFILES["p3"]
    assert "1 of 1 are up to date" in call(*run, "--profile", "keep").err


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("convert"), reason="no ImageMagick")
def test_imagemagick_sees_colours_outside_srgb(call: Call, folder: Path) -> None:
    Image.fromarray(patches()).resize((256, 192), 0).save(folder / "photo.png", icc_profile=PROFILES["p3"])
    (folder / "srgb.icc").write_bytes(srgb_profile())
    (folder / "wide.icc").write_bytes(PROFILES["prophoto"])
    save(Picture(torch.rand(1, 3, 32, 32)), folder / "style.png")
    run = ("photo.png", "style.png", "--encoder", "tiny", "--size", "64", "--steps", "1")
    still = ("--palette", "free", "--style-weight", "0", "--tv-weight", "0")
    assert call(*run, *still, "-o", "kept.png", "--profile", "keep").code == 0
    assert call(*run, *still, "-o", "plain.png").code == 0

    def green(name: str) -> list[int]:
        command = ["convert", name, "-profile", "wide.icc", "-crop", "1x1+8+8", "-depth", "8", "rgb:-"]
        return [*subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout]

    kept, plain, whole = green("kept.png"), green("plain.png"), green("photo.png")
    assert np.abs(np.subtract(kept, whole)).max() <= 2
    assert plain[0] - kept[0] > 20  # sRGB's green is duller: it has more red


# --- tables


def icc(tags: dict[bytes, bytes], space: bytes, connection: bytes, version: int = 2) -> bytes:
    """An ICC profile of a scanner or printer."""
    start, listed, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, tag in tags.items():
        listed += struct.pack(">4sII", name, start + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    kind = b"prtr" if space == b"CMYK" else b"scnr"
    head = struct.pack(">I4xI4s4s4s", start + len(body), version << 24, kind, space, connection)
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + listed + body


def lab_of(rgb: Array) -> Array:
    """sRGB in [0, 1] -> L*, a*, b* by the colour engine's own LAB profile."""
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    image = Image.fromarray(np.rint(rgb * 255).astype(np.uint8))
    source = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
    made = np.asarray(ImageCms.profileToProfile(image, source, target, outputMode="LAB"))
    return np.stack([made[..., 0] / 2.55, *(made[..., index].view(np.int8).astype(float) for index in (1, 2))], -1)


def lut(kind: str, nodes: Array, curve: Array) -> bytes:
    """A tag of a table of L*, a*, b* at the nodes of a grid, with the same curve before it for each channel."""
    channels, side = nodes.ndim - 1, nodes.shape[0]
    if kind == "mft1":
        grid = np.stack([nodes[..., 0] * 2.55, nodes[..., 1] + 128, nodes[..., 2] + 128], -1).clip(0, 255)
        before = np.rint(np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(curve)), curve) * 255)
        after = np.arange(256)
        head = struct.pack(">4s4x4B", b"mft1", channels, 3, side, 0) + IDENTITY
        parts = [np.tile(before, channels), np.rint(grid).ravel(), np.tile(after, 3)]
        return head + b"".join(part.astype(np.uint8).tobytes() for part in parts)
    if kind == "mft2":
        grid = np.stack([nodes[..., 0] * 652.8, (nodes[..., 1] + 128) * 256, (nodes[..., 2] + 128) * 256], -1)
        head = struct.pack(">4s4x4B", b"mft2", channels, 3, side, 0) + IDENTITY
        head += struct.pack(">2H", len(curve), 2)
        parts = [np.tile(np.rint(curve * 65535), channels), np.rint(grid).ravel(), np.tile([0, 65535], 3)]
        return head + b"".join(part.astype(">u2").tobytes() for part in parts)
    unit = np.stack([nodes[..., 0] / 100, (nodes[..., 1] + 128) / 255, (nodes[..., 2] + 128) / 255], -1)
    grid_bytes = bytes([side] * channels).ljust(16, b"\0") + b"\2\0\0\0"
    grid_bytes += np.rint(unit * 65535).astype(">u2").tobytes()
    grid_bytes += bytes(-len(grid_bytes) % 4)
    own = struct.pack(">4s4xI", b"curv", len(curve)) + np.rint(curve * 65535).astype(">u2").tobytes()
    own += bytes(-len(own) % 4)
    straight = struct.pack(">4s4xHHi", b"para", 0, 0, 65536) + struct.pack(">4s4xI", b"curv", 0) * 2
    matrix = struct.pack(">12i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536, 0, 0, 0)
    places, body = [], b""
    for part in (straight, matrix, straight, grid_bytes, own * channels):
        places.append(32 + len(body))
        body += part
    return struct.pack(">4s4x2B2x5I", b"mAB ", channels, 3, *places) + body


CURVE = np.linspace(0, 1, 33) ** 1.3
IDENTITY = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)


def rgb_tables(kind: str) -> bytes:
    """A scanner's profile: a matrix, as it were, in a table, and darkest at a grey that is not black."""
    axes = np.meshgrid(*[np.linspace(0, 1, 11)] * 3, indexing="ij")
    colours = np.stack(axes, -1) @ np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.1], [0.05, 0.1, 0.75]]) + 0.05
    colours /= colours.max()
    nodes = lab_of(colours.reshape(11, 121, 3)).reshape(11, 11, 11, 3)
    return icc({b"A2B0": lut(kind, nodes, CURVE)}, b"RGB ", b"Lab ", 4 if kind == "mAB" else 2)


def cmyk_tables(kind: str) -> bytes:
    axes = np.stack(np.meshgrid(*[np.linspace(0, 1, 6)] * 4, indexing="ij"), -1)
    inks = np.array([[0.0, 0.6, 0.9], [0.85, 0.1, 0.5], [1.0, 0.9, 0.1]])
    paper = np.prod(1 - axes[..., :3, None] * (1 - inks), axis=-2) * (1 - 0.85 * axes[..., 3:])
    nodes = lab_of(paper.reshape(36, 36, 3)).reshape(6, 6, 6, 6, 3)
    return icc({b"A2B0": lut(kind, nodes, CURVE)}, b"CMYK", b"Lab ", 4 if kind == "mAB" else 2)


@pytest.mark.parametrize("kind", ["mft1", "mft2", "mAB"])
@pytest.mark.parametrize("space", ["RGB", "CMYK"])
def test_tables_convert_as_the_colour_engine_does(space: str, kind: str) -> None:
    profile = rgb_tables(kind) if space == "RGB" else cmyk_tables(kind)
    tables = of_tables(profile)
    assert tables is not None
    levels = np.random.default_rng(2).integers(0, 256, (40, 40, len(space)), dtype=np.uint8)
    ours = tables.to_srgb(levels.astype(np.float32) / 255) * 255
    theirs = lcms(levels, profile, srgb_profile(), space)
    light = theirs.min(axis=2) > 40  # in the dark the engine's own shortcuts for 8 bits are coarse
    assert np.abs(ours - theirs)[light].max() <= 3
    assert np.abs(ours - theirs).mean() <= 0.7


@pytest.mark.parametrize("space", ["RGB", "CMYK"])
def test_sixteen_bits_with_tables_stay_fine(tmp_path: Path, space: str) -> None:
    tifffile: Any = pytest.importorskip("tifffile")
    profile = rgb_tables("mft2") if space == "RGB" else cmyk_tables("mft2")
    ramp = np.linspace(12000, 40000, 64 * 64).reshape(64, 64, 1).repeat(len(space), 2)
    ramp[..., 3:] = 9000
    path = tmp_path / "photo.tif"
    photometric = "rgb" if space == "RGB" else "separated"
    tifffile.imwrite(path, ramp.astype(np.uint16), photometric=photometric, iccprofile=profile)
    picture = load(path)
    assert picture.notes == ()
    assert picture.about.bits == 16
    assert len(np.unique(picture.rgb[0, 0].numpy())) > 2000
    theirs = lcms(np.rint(ramp / 257).astype(np.uint8), profile, srgb_profile(), space)
    assert np.abs(picture.numpy(np.float32) * 255 - theirs).max() <= 3


def test_sixteen_bits_of_cmyk_without_a_profile_stay_fine(tmp_path: Path) -> None:
    tifffile: Any = pytest.importorskip("tifffile")
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64, 1).repeat(4, 2).astype(np.uint16)
    ramp[..., 3] //= 4
    tifffile.imwrite(tmp_path / "photo.tif", ramp, photometric="separated")
    picture, unit = load(tmp_path / "photo.tif"), ramp / 65535
    assert np.abs(picture.numpy(np.float32) - (1 - unit[..., :3]) * (1 - unit[..., 3:])).max() < 1e-5


@pytest.mark.slow
def test_damaged_tables_are_no_reason_to_refuse_a_picture() -> None:
    profile = rgb_tables("mft2")
    for cut in (132, 150, 200, len(profile) // 2, len(profile) - 9):
        assert of_tables(profile[:cut]) is None
    generator = np.random.default_rng(3)
    for number in range(60):
        damaged = bytearray(profile)
        for place in generator.integers(0, 260, 3):
            damaged[place] = generator.integers(0, 256)
        of_tables(bytes(damaged))
        if number < 10:
            image = Image.fromarray(patches())
            image.info["icc_profile"] = bytes(damaged)
            assert load(image).size == (24, 32)
