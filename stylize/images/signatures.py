"""The formats of files by their first bytes, for messages, and what to do about those that cannot be read."""

from __future__ import annotations

import contextlib
from typing import BinaryIO

from stylize.images.containers import boxes
from stylize.images.ifd import Tags

_STARTS: tuple[tuple[int, bytes, str], ...] = (  # offset, bytes, name
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"II\xbc", "JPEG XR"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (0, b"gimp xcf", "GIMP XCF"),
    (128, b"DICM", "DICOM"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"qoif", "QOI"),
    (0, b"farbfeld", "farbfeld"),
    (0, b"P7\n", "PAM"),
    (0, b"PF\n", "PFM in colour"),
    (0, b"id=ImageMagick", "MIFF"),
    (0, b"PK\x03\x04", "ZIP archive"),
    (0, b"\x1f\x8b", "gzip archive"),
    (0, b"7z\xbc\xaf", "7-Zip archive"),
    (0, b"Rar!", "RAR archive"),
    (0, b"RIFF", "RIFF (a sound or a clip)"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM clip"),
    (0, b"\0\0\0\x0cJXS ", "JPEG XS"),
    (0, b"\xabKTX", "KTX texture"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"SDPX", "DPX"),
    (0, b"XPDS", "DPX"),
    (0, b"\x80*_\xd7", "Cineon"),
    (0, b"\x8aMNG", "MNG"),
    (0, b"\x8bJNG", "JNG"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"FLIF", "FLIF"),
    (0, b"CSFCHUNK", "Clip Studio"),
    (0, b"LBLSIZE=", "VICAR"),
)
_RAW_STARTS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"FUJIFILMCCD-RAW", "Fujifilm RAF"),
    (8, b"CR\x02", "Canon CR2"),
    (6, b"HEAPCCDR", "Canon CRW"),
    (4, b"ftypcrx ", "Canon CR3"),
    (0, b"IIRO", "Olympus ORF"),
    (0, b"IIRS", "Olympus ORF"),
    (0, b"MMOR", "Olympus ORF"),
    (0, b"IIU\0", "Panasonic RW2"),
    (0, b"FOVb", "Sigma X3F"),
    (0, b"\0MRM", "Minolta MRW"),
)
_BRANDS = {
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
    "AVIF": (b"avif", b"avis"),
    "MP4 or MOV clip": (b"isom", b"mp41", b"mp42", b"qt  ", b"M4V ", b"avc1", b"iso2", b"iso5", b"3gp4", b"3gp5"),
}
_MOSAIC, _LINEAR_RAW = 32803, 34892  # photometric interpretations of sensor data
_MAKERS = {b"NIKON": "Nikon NEF", b"SONY": "Sony ARW", b"PENTAX": "Pentax PEF", b"SAMSUNG": "Samsung SRW"}


def raw_format(file: BinaryIO) -> str:
    """The name of the raw format of a camera, or nothing if a file holds no sensor data as its picture."""
    file.seek(0)
    head = file.read(64)
    for offset, start, name in _RAW_STARTS:
        if head[offset:].startswith(start):
            return name
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return ""
    try:
        tags = Tags(file)
        first = tags.directory(tags.first)
    except ValueError:
        return ""
    if 50706 in first.fields:
        return "DNG"
    for offset in (*tags.integers(first.fields.get(330))[:16], first.offset):
        with contextlib.suppress(ValueError):
            kinds = tags.integers(tags.directory(offset).fields.get(262))
            if kinds and kinds[0] in (_MOSAIC, _LINEAR_RAW):
                maker = tags.value(first.fields.get(271)).strip(b"\0 ").upper()
                return next((name for start, name in _MAKERS.items() if maker.startswith(start)), "raw TIFF")
    return ""


def format_name(file: BinaryIO) -> str:
    """The name of a format by its signature, or nothing for an unknown one."""
    file.seek(0)
    head = file.read(512)
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[index : index + 4] for index in range(16, int.from_bytes(head[:4]) & 0x1FF, 4))]
        for brand in brands:
            for name, known in _BRANDS.items():
                if brand in known:
                    return name
        return "MP4 or MOV clip"
    for offset, start, name in _STARTS:
        if head[offset:].startswith(start):
            return name
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")):
        return "SVG" if b"<svg" in text else "XML"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return ""


def nclx(file: BinaryIO, length: int) -> tuple[int, int] | None:
    """Primaries and transfer function of an AVIF or HEIC by their numbers in H.273, where it has no ICC profile."""
    found: tuple[int, int] | None = None
    pending = [(0, length, 0)]
    while pending:
        start, end, depth = pending.pop()
        for box in boxes(file, start, end):
            if box.kind in (b"meta", b"iprp", b"ipco") and depth < 4:
                pending.append((box.start + 4 * (box.kind == b"meta"), box.start + box.length, depth + 1))
            elif box.kind == b"colr":
                data = box.read(file, 2**24)
                if data[:4] in (b"prof", b"rICC"):
                    return None
                if data[:4] == b"nclx" and found is None:
                    found = int.from_bytes(data[4:6]), int.from_bytes(data[6:8])
    return found
