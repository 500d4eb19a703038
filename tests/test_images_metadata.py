"""What a photographer put into a file comes out of those made from it, as exiftool reads them."""

from __future__ import annotations

import atexit
import functools
import io
import json
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from stylize.images import About, Picture, keeping_edits, load, read_record, save
from stylize.images.exif import cleaned as exif_cleaned
from stylize.images.iptc import as_xmp
from stylize.images.xmp import cleaned, combined

needs_exiftool = pytest.mark.skipif(not shutil.which("exiftool"), reason="no exiftool")
FORMATS = ("jpg", "png", "tif", "webp", "avif")
RECORD = {"content": {"path": "photos/secret/a.jpg", "sha256": "0"}, "seed": 7}

COMMON = (
    "-EXIF:Artist=José Núñez",
    "-EXIF:Copyright=© 2026 José Núñez",
    "-EXIF:UserComment=Ein schöner Tag",
    "-EXIF:DateTimeOriginal=2026:02:03 04:05:06",
    "-EXIF:SceneType=1",
    "-EXIF:FileSource=3",
    "-EXIF:ComponentsConfiguration=1 2 3 0",
    "-EXIF:ExposureTime=1/125",
    "-EXIF:FNumber=2.8",
)
CAMERAS = {
    "canon": ("-Make=Canon", "-Model=EOS 80D", "-EXIF:LensModel=EF 50mm", "-EXIF:OwnerName=Zoë"),
    "nikon": ("-Make=NIKON CORPORATION", "-EXIF:CFAPattern=0 2 0 2 0 1 1 2", "-EXIF:SubSecTime=12"),
    "sony": ("-Make=SONY", "-EXIF:InteropIndex=R98", "-XMP-xmp:Rating=5", "-XMP-dc:Subject=sea", "-XMP-dc:Subject=sky"),
    "fuji": ("-Make=FUJIFILM", "-IPTC:Keywords=straße", "-IPTC:Caption-Abstract=Die Braut", "-IPTC:City=Köln"),
    "apple": ("-Make=Apple", "-GPS:GPSLatitude=52.5", "-GPS:GPSLatitudeRef=N", "-GPS:GPSLongitude=13.4"),
    "windows": ("-EXIF:XPTitle=Größe", "-EXIF:XPKeywords=a;b", "-EXIF:Rating=4", "-EXIF:RatingPercent=75"),
    "lightroom": (
        "-XMP-lr:HierarchicalSubject=a|b|c",
        "-XMP-crs:Exposure2012=+0.50",
        "-XMP-dc:Rights=© Zoë",
        '-XMP-photoshop:Headline=<&">',
        "-XMP-tiff:Orientation=6",
    ),
    "scanner": ("-XResolution=1200", "-YResolution=1200", "-EXIF:ImageDescription=Dia 7", "-IPTC:By-line=Émile"),
}
CHANGED = {"Orientation", "ColorSpace", "ExifImageWidth", "ExifImageHeight", "ThumbnailImage", "InteropIndex"}
CHANGED |= {"ThumbnailOffset", "ThumbnailLength", "XMPToolkit", "ExifByteOrder", "YCbCrPositioning", "Warning"}
CHANGED |= {"Compression", "IPTCDigest", "CurrentIPTCDigest", "InteropVersion"}
OWN_GROUPS = ("ExifTool", "System", "File", "ICC", "Composite", "JFIF", "PNG", "SourceFile", "XMP-stylize", "IFD1")


@functools.cache
def tool() -> subprocess.Popen[bytes]:
    """exiftool, which takes one command after the other: to start takes it longer than to read a file."""
    command = ["exiftool", "-stay_open", "True", "-@", "-"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    atexit.register(process.communicate, b"-stay_open\nFalse\n")
    return process


def exiftool(*arguments: str | Path) -> str:
    """What it prints."""
    process, end, answer = tool(), b"{ready}\n", b""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("".join(f"{each}\n" for each in (*arguments, "-execute")).encode())
    process.stdin.flush()
    while not answer.endswith(end):
        line = process.stdout.readline()
        assert line, "it has ended"
        answer += line
    return answer.removesuffix(end).decode()


def write_tags(path: Path, *tags: str) -> None:
    """Write tags into a file."""
    said = exiftool("-m", "-overwrite_original", "-codedcharacterset=utf8", *tags, path)
    assert "1 image files updated" in said


def told(path: Path) -> dict[str, Any]:
    """What exiftool reads, but for what is of the file itself; names as group:tag."""
    (found,) = json.loads(exiftool("-j", "-a", "-G1", "-s", "-n", "-b", path))
    kept = {}
    for name, value in found.items():
        group, _, tag = name.partition(":")
        if not group.startswith(OWN_GROUPS) and tag not in CHANGED:
            kept[name] = value
    return kept


def photo(path: Path, *tags: str) -> Path:
    pixels = np.linspace(0, 255, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    thumbnail = io.BytesIO()
    Image.fromarray(pixels[::3, ::3].copy()).save(thumbnail, "JPEG")
    (path.parent / "thumb.bin").write_bytes(thumbnail.getvalue())
    extra = (f"-ThumbnailImage<={path.parent / 'thumb.bin'}", "-EXIF:Orientation#=6")
    write_tags(path, *tags, *extra)
    return path


@pytest.mark.slow
@needs_exiftool
@pytest.mark.parametrize("camera", CAMERAS)
def test_all_that_exiftool_reads_is_there_again(tmp_path: Path, camera: str) -> None:
    order = "-ExifByteOrder=II" if len(camera) % 2 else "-ExifByteOrder=MM"
    source = photo(tmp_path / "a.jpg", order, *COMMON, *CAMERAS[camera])
    before = told(source)
    assert "ExifIFD:UserComment" in before
    picture = replace(load(source), record=RECORD)
    assert picture.notes == ()
    for extension in FORMATS:
        path = tmp_path / f"b.{extension}"
        save(picture, path)
        after = told(path)
        for name, value in before.items():
            if name in ("IFD0:XResolution", "IFD0:YResolution", "IFD0:ResolutionUnit"):
                assert float(after[name]) == float(value), (extension, name)
                continue
            assert after.get(name) == value, (extension, name)
        assert "ThumbnailImage" not in exiftool("-s", path)
        assert read_record(path) is not None
        assert load(path).size == (32, 24)  # upright, and once only
        again = load(path)
        assert again.about.xmp is None or b"stylize" not in again.about.xmp


@pytest.mark.slow
@needs_exiftool
def test_iptc_becomes_xmp_where_a_format_holds_none(tmp_path: Path) -> None:
    tags = ("-IPTC:Keywords=straße", "-IPTC:Keywords=two", "-IPTC:Caption-Abstract=Die <Braut>", "-IPTC:City=Köln")
    source = photo(tmp_path / "a.jpg", *tags, "-IPTC:CopyrightNotice=© Zoë", "-XMP-dc:Rights=theirs")
    for extension in ("webp", "avif"):
        load(source).save(tmp_path / f"b.{extension}")
        found = told(tmp_path / f"b.{extension}")
        assert found["XMP-dc:Subject"] == ["straße", "two"]
        assert found["XMP-dc:Description"] == "Die <Braut>"
        assert found["XMP-photoshop:City"] == "Köln"
        assert found["XMP-dc:Rights"] == "theirs"
        again = load(tmp_path / f"b.{extension}")  # the records themselves, among the EXIF
        again.save(tmp_path / "c.jpg")
        assert told(tmp_path / "c.jpg")["IPTC:CopyrightNotice"] == "© Zoë"


def test_keywords_of_iptc_join_those_of_xmp() -> None:
    bag = "<dc:subject><rdf:Bag><rdf:li>one</rdf:li><rdf:li>a &amp; b</rdf:li></rdf:Bag></dc:subject>"
    packet = combined(b"", bag, {"dc": "http://purl.org/dc/elements/1.1/"}, {})
    words = b"".join(b"\x1c\x02\x19\0" + bytes([len(word)]) + word for word in (b"a & b", b"<two>", b"<two>"))
    joined, elements = as_xmp(words, packet)
    assert elements == ""
    assert cleaned(joined) == joined
    assert joined.count(b"<rdf:li>") == 3
    assert b"<rdf:li>&lt;two&gt;</rdf:li></rdf:Bag>" in joined


def blocks() -> tuple[bytes, bytes, bytes]:
    """EXIF with a name and an orientation, XMP and IPTC."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist], exif[ExifTags.Base.Orientation] = "Zoe", 6
    packet = combined(b"", "<dc:subject>sea</dc:subject>", {"dc": "http://purl.org/dc/elements/1.1/"}, {})
    return exif.tobytes().removeprefix(b"Exif\0\0"), packet, b"\x1c\x02\x19\0\x03sea"


def test_iptc_behind_other_resources_of_a_jpeg() -> None:
    """As Adobe's programs write it: under other signatures, and over several segments."""
    made = io.BytesIO()
    Image.new("RGB", (9, 6)).save(made, "JPEG")
    jpeg, iptc = made.getvalue(), blocks()[2]
    words = b"8BIM" + struct.pack(">HHI", 1028, 0, len(iptc)) + iptc
    for before in (b"", b"MeSa" + struct.pack(">HHI", 7000, 0, 2) + b"zz", b"8BIM" + struct.pack(">HHI", 1, 0, 70000)):
        resources = before.ljust(70012, b"y") + words if before.startswith(b"8BIM") else before + words
        parts = [resources[start : start + 65000] for start in range(0, len(resources), 65000)]
        segments = b"".join(
            b"\xff\xed" + struct.pack(">H", len(part) + 16) + b"Photoshop 3.0\0" + part for part in parts
        )
        assert load(jpeg[:2] + segments + jpeg[2:]).about.iptc == iptc


def in_photoshop(pixels: NDArray[np.uint8], exif: bytes, packet: bytes, iptc: bytes) -> bytes:
    resources = b""
    resolution = struct.pack(">IHHIHH", 300 << 16, 1, 1, 300 << 16, 1, 1)
    for number, data in ((1005, resolution), (1028, iptc), (1058, exif), (1060, packet)):
        resources += b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2)
    height, width = pixels.shape[:2]
    head = b"8BPS" + struct.pack(">H6xHIIHHI", 1, 3, height, width, 8, 3, 0)
    body = pixels.transpose(2, 0, 1).tobytes()
    return head + struct.pack(">I", len(resources)) + resources + bytes(4) + bytes(2) + body


def in_jpeg_2000(pixels: NDArray[np.uint8], exif: bytes, packet: bytes, iptc: bytes) -> bytes:
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "JPEG2000")
    names = b"JpgTiffExif->JP2".hex(), "be7acfcb97a942e89c71999491e3afac", "33c7a4d2b81d4723a0baf1a3e097ad38"
    for uuid, data in zip(map(bytes.fromhex, names), (exif, packet, iptc), strict=True):
        made.write(struct.pack(">I4s16s", 24 + len(data), b"uuid", uuid) + data)
    return made.getvalue()


def in_jpeg_xl(pixels: NDArray[np.uint8], exif: bytes, packet: bytes, *, packed: bool) -> bytes:
    pytest.importorskip("pillow_jxl")
    if packed:
        pytest.importorskip("brotli")
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "JXL", lossless=True, exif=exif, xmp=packet, compress_metadata=packed)
    return made.getvalue()


def in_gif(pixels: NDArray[np.uint8], packet: bytes) -> bytes:
    made = io.BytesIO()
    Image.fromarray(pixels).convert("P").save(made, "GIF")
    data = made.getvalue()
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)  # behind the palette
    trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    return data[:start] + b"!\xff\x0bXMP DataXMP" + packet + trailer + data[start:]


def test_blocks_of_formats_whose_readers_leave_them_out() -> None:
    pixels = np.full((6, 9, 3), 120, np.uint8)
    exif, packet, iptc = blocks()
    for data, held in (
        (in_photoshop(pixels, exif, packet, iptc), "exif xmp iptc dpi"),
        (in_jpeg_2000(pixels, exif, packet, iptc), "exif xmp iptc"),
        (in_jpeg_xl(pixels, exif, packet, packed=False), "exif xmp"),
        (in_jpeg_xl(pixels, exif, packet, packed=True), "exif xmp"),
        (in_gif(pixels, packet), "xmp"),
    ):
        picture = load(data)
        assert picture.size == (6, 9)
        assert picture.notes == ()
        assert (b"Zoe" in (picture.exif or b"")) is ("exif" in held)
        assert b"<dc:subject>sea</dc:subject>" in (picture.about.xmp or b"")
        assert picture.about.iptc == (iptc if "iptc" in held else None)
        assert (picture.about.dpi == (300, 300)) is ("dpi" in held)


def test_compressed_blocks_that_cannot_be_read_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    exif, packet, _ = blocks()
    data = in_jpeg_xl(np.full((6, 9, 3), 120, np.uint8), exif, packet, packed=True)
    monkeypatch.setitem(sys.modules, "brotli", None)
    (note,) = load(data).notes
    assert "stylize-host[photo]" in note


def test_a_tiff_is_no_file_of_exif_alone(tmp_path: Path) -> None:
    exif = b"MM\0*\0\0\0\x10ExifMeta\0\x01\x01\x3b\0\x02\0\0\0\x04Zoe\0\0\0\0\0"
    Picture(torch.zeros(1, 3, 4, 4), exif=b"Exif\0\0" + exif).save(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    assert b"ExifMeta" not in data
    assert b"Zoe" in data
    assert load(tmp_path / "a.tif").size == (4, 4)


@pytest.mark.slow
@needs_exiftool
@pytest.mark.parametrize("source", ["a.png", "a.tif", "a.webp"])
def test_other_sources_and_resolution(tmp_path: Path, source: str) -> None:
    path = tmp_path / source
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(path)
    tags = [*COMMON, *CAMERAS["sony"], *(() if source == "a.webp" else CAMERAS["fuji"][1:])]
    write_tags(path, *tags)
    before = told(path)
    picture = load(path)
    for extension in FORMATS:
        picture.save(tmp_path / f"b.{extension}")
        after = told(tmp_path / f"b.{extension}")
        for name, value in before.items():
            group, _, tag = name.partition(":")
            if name == "XMP-dc:Subject" and "IPTC:Keywords" in before and extension in ("webp", "avif"):
                assert after[name] == [*value, before["IPTC:Keywords"]]
            elif group in ("ExifIFD", "GPS") or group.startswith("XMP") or tag in ("Artist", "Copyright", "Make"):
                assert after.get(name) == value, (extension, name)
            if group == "IPTC" and extension in ("jpg", "png", "tif"):
                assert after.get(name) == value, (extension, name)
    save(Picture(picture.rgb, about=About(dpi=(300.0, 300.0))), tmp_path / "r.jpg")
    for extension in ("jpg", "png", "tif"):
        load(tmp_path / "r.jpg").save(tmp_path / f"r2.{extension}")
        with Image.open(tmp_path / f"r2.{extension}") as image:
            assert [round(float(side)) for side in image.info["dpi"]] == [300, 300]


@pytest.mark.slow
@needs_exiftool
def test_without_location(tmp_path: Path) -> None:
    places = ("-XMP-exif:GPSLatitude=52.5", "-XMP-photoshop:City=Köln", "-XMP-iptcExt:LocationShownCity=Köln")
    source = photo(tmp_path / "a.jpg", *COMMON, *CAMERAS["apple"], *places, "-IPTC:City=Köln", "-IPTC:Keywords=x")
    picture = replace(load(source), record=RECORD)
    for extension in FORMATS:
        path = tmp_path / f"b.{extension}"
        save(picture, path, location=False)
        everything = exiftool("-a", "-G1", "-s", path)
        assert "GPS" not in everything
        assert "Köln" not in everything
        assert "José Núñez" in everything
        record = read_record(path)
        assert record is not None
        assert record["content"]["path"] == "a.jpg"
        assert b"secret" not in path.read_bytes()


def exif_with_maker_note(order: str) -> tuple[bytes, bytes]:
    """A block whose maker note points to bytes by their offset in the block, as most do; and the note."""
    note_at, text = 8 + 2 + 12 + 4 + 2 + 2 * 12 + 4, b"The Owner\0"
    note = struct.pack(order + "HHHII", 1, 9, 2, len(text), note_at + 18) + bytes(4) + text
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    first = struct.pack(order + "HHHIII", 1, 34665, 4, 1, 26, 0)
    photo_ifd = struct.pack(order + "HHHI4s", 2, 36864, 7, 4, b"0232")
    photo_ifd += struct.pack(order + "HHIII", 37500, 7, len(note), note_at, 0)
    block = head + first + photo_ifd
    assert len(block) == note_at
    return b"Exif\0\0" + block + note, note


@pytest.mark.parametrize("order", ["<", ">"])
def test_maker_notes_stay_at_their_offsets(tmp_path: Path, order: str) -> None:
    exif, note = exif_with_maker_note(order)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    at = exif.index(note) - 6
    picture = load(tmp_path / "a.jpg")
    for extension in FORMATS:
        path = tmp_path / f"b.{extension}"
        picture.save(path)
        data = path.read_bytes()
        assert data.count(note) == 1
        start = 0 if extension == "tif" else data.index(note) - at
        assert data[start : start + 2] == (b"II" if order == "<" else b"MM")
        assert data.index(note) - start == at


def test_sixteen_bits_come_out_where_the_format_holds_them(tmp_path: Path) -> None:
    values = torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    save(values, tmp_path / "a.png", bits=16)
    picture = load(tmp_path / "a.png")
    assert picture.about.bits == 16
    for extension, bits in (("png", 16), ("tif", 16), ("jpg", 8), ("webp", 8)):
        picture.save(tmp_path / f"b.{extension}")
        assert (load(tmp_path / f"b.{extension}").about.bits > 8) == (bits == 16)
    picture.save(tmp_path / "c.png", bits=8)
    assert load(tmp_path / "c.png").about.bits == 8


def packet(inner: str) -> bytes:
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        f'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{inner}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def test_xmp_of_more_than_a_segment_of_a_jpeg(tmp_path: Path) -> None:
    text = "".join(f"{number:x} " for number in range(30_000))
    described = (
        f'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:source>{text}</dc:source>'
    )
    whole = cleaned(packet(described + "</rdf:Description>"))
    picture = Picture(torch.zeros(1, 3, 8, 8), record=RECORD, about=About(xmp=whole))
    for extension in FORMATS:
        path = tmp_path / f"a.{extension}"
        picture.save(path)
        assert read_record(path) is not None
        again = load(path).about.xmp
        assert again is not None
        assert text.encode() in again


def test_packets_that_are_damaged_or_of_others(tmp_path: Path) -> None:
    for bad in (b"nonsense", packet("<a>"), b'<!DOCTYPE a [<!ENTITY b "c">]>' + packet("")):
        assert cleaned(bad) is None
        Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", xmp=bad)
        assert load(tmp_path / "a.jpg").notes == ("XMP left out: it is damaged",)
    assert cleaned(packet("")) == b""
    upright = cleaned(packet('<rdf:Description xmlns:tiff="t" tiff:Orientation="6" tiff:ImageWidth="9"/>'))
    assert upright is not None
    assert b'tiff:Orientation="1"' in upright
    assert b"ImageWidth" not in upright
    made = combined(upright, "", {}, {"record": "{}"})
    again = cleaned(made)
    assert again is not None
    assert again.replace(b"\n", b"") == upright.replace(b"\n", b"")


def test_what_is_left_as_it_was_saved_is_no_edit(tmp_path: Path) -> None:
    described = '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="3"/>'
    iptc = b"\x1c\x02\x19\0\x03sea"
    for inner in ("", described):
        made = About(xmp=cleaned(packet(inner)) or None, iptc=iptc)
        for extension in FORMATS:
            path = tmp_path / f"a.{extension}"
            picture = Picture(torch.zeros(1, 3, 8, 8), record=RECORD, about=made)
            picture.save(path)
            assert keeping_edits(picture, path) is picture
            newer = replace(picture, about=replace(made, xmp=cleaned(packet(described.replace("3", "4")))))
            if extension != "png":
                assert keeping_edits(newer, path) is newer
    for name in ("none.png", "a.txt"):
        (tmp_path / "a.txt").write_bytes(b"nothing")
        assert keeping_edits(picture, tmp_path / name) is picture


def test_the_gain_map_of_an_hdr_jpeg_is_left_out_and_said(tmp_path: Path) -> None:
    described = (
        '<rdf:Description rdf:about="" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", xmp=packet(described))
    picture = load(tmp_path / "a.jpg")
    assert picture.notes == ("HDR gain map left out",)
    assert b"hdrgm:Version" not in (picture.about.xmp or b"")


@pytest.mark.parametrize("form", ["attributes", "elements"])
@pytest.mark.parametrize(
    ("space", "prefix", "names"),
    [
        ("http://ns.google.com/photos/1.0/camera/", "GCamera", ("MicroVideo", "MicroVideoVersion", "MicroVideoOffset")),
        ("http://ns.google.com/photos/1.0/camera/", "Camera", ("MotionPhoto", "MotionPhotoVersion")),
        ("http://ns.google.com/photos/1.0/depthmap/", "GDepth", ("Format", "Near", "Data")),
        ("http://ns.apple.com/HDRGainMap/1.0/", "HDRGainMap", ("HDRGainMapVersion",)),
    ],
)
def test_what_follows_the_picture_in_its_file_is_not_promised_of_the_result(
    tmp_path: Path, form: str, space: str, prefix: str, names: tuple[str, ...]
) -> None:
    kept = 'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"'
    if form == "attributes":
        inner = " ".join(f'{prefix}:{name}="1"' for name in names)
        described = f'<rdf:Description rdf:about="" {kept} xmlns:{prefix}="{space}" {inner}/>'
    else:
        inner = "".join(f"<{prefix}:{name}>1</{prefix}:{name}>" for name in names)
        described = f'<rdf:Description rdf:about="" {kept} xmlns:{prefix}="{space}">{inner}</rdf:Description>'
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", xmp=packet(described))
    picture = load(tmp_path / "a.jpg")
    assert ("film of the motion photo left out" in picture.notes) == prefix.endswith("Camera")
    for ending in ("jpg", "png", "webp"):
        picture.save(tmp_path / f"b.{ending}")
        data = (tmp_path / f"b.{ending}").read_bytes()
        assert f"{prefix}:".encode() not in data.replace(f"xmlns:{prefix}".encode(), b"")
        assert load(tmp_path / f"b.{ending}").about.xmp is not None
        assert b"Rating" in data


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_colour_space_is_told_anew_where_tags_of_the_old_layout_are_left_out(order: str) -> None:
    def table(*entries: tuple[int, int, int, bytes]) -> bytes:
        made = struct.pack(order + "H", len(entries))
        for tag, kind, count, value in entries:
            made += struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")
        return made + bytes(4)

    def short(value: int) -> bytes:
        return struct.pack(order + "H", value)

    def long(value: int) -> bytes:
        return struct.pack(order + "I", value)

    # 531, positions of chroma, stands before the pointer to the directory of the photo, and 40962 before the next
    first = table((274, 3, 1, short(6)), (531, 3, 1, short(1)), (34665, 4, 1, long(50)))
    photo = table((40961, 3, 1, short(65535)), (40962, 4, 1, long(4000)), (40963, 4, 1, long(3000)),
                  (40965, 4, 1, long(104)), (41729, 7, 1, b"\1"))  # fmt: skip
    inner = table((1, 2, 4, b"R03\0"))
    assert (8 + len(first), 50 + len(photo)) == (50, 116)
    photo = photo.replace(long(104), long(116))
    block = b"Exif\0\0" + (b"II*\0" if order == "<" else b"MM\0*") + long(8) + first + photo + inner
    exif = Image.Exif()
    exif.load(exif_cleaned(block) or b"")
    assert dict(exif) | {34665: 0} == {274: 1, 34665: 0}
    within = exif.get_ifd(34665)
    assert within[40961] == 1
    assert not {40962, 40963} & within.keys()
    assert exif.get_ifd(40965)[1].rstrip("\0") == "R98"


def test_values_that_begin_where_a_pointer_should_be_stay() -> None:
    """Some writers leave no room for the pointer behind the entries of the EXIF directory."""
    value = struct.pack("<II", 4_000_000_000, 7)
    inner = struct.pack("<HHHII", 1, 33434, 5, 1, 26 + 14) + value
    block = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<HHHIII", 1, 34665, 4, 1, 26, 0) + inner
    image = Image.new("RGB", (4, 4))
    image.info["exif"] = b"Exif\0\0" + block
    made = io.BytesIO()
    save(load(image), made, format="avif")
    assert value in made.getvalue()
