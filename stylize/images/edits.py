"""What other programs noted in an older result, kept when it is painted again: ratings, keywords, captions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from stylize.errors import ImageError
from stylize.images import about, xmp
from stylize.images.picture import Picture
from stylize.images.read import open_file
from stylize.images.signatures import format_name
from stylize.images.silence import SILENCE


def keeping_edits(picture: Picture, path: str | Path) -> Picture:
    """The picture with the XMP of the file at ``path`` where another program has changed it since it was saved."""
    try:
        with open_file(Path(path)) as (file, _), SILENCE:
            kind = format_name(file)
            file.seek(0)
            with Image.open(file) as image:
                packet = about.packet_of(image, file, kind)
    except ImageError:
        return picture
    now = xmp.cleaned(packet) if packet else None
    if not now:
        return picture
    if kind == "PNG":  # our properties are not in its packet
        expected, found = picture.about.xmp or b"", now
    else:
        expected, found = xmp.combined(now, "", {}, xmp.properties_in(packet)), packet
    if _bare(expected) == _bare(found):
        return picture
    return replace(picture, about=replace(picture.about, xmp=now))


def _bare(packet: bytes) -> bytes:
    return packet.replace(b"\n", b"").strip()
