"""ICC profiles: which one a picture's colours have, and conversion between them and sRGB.

Pictures are in sRGB unless their own profile is asked for: then they stay in its colours, and so does all that is
painted of them.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms
from torch import Tensor

from stylize.errors import SettingsError
from stylize.images.encodings import D50, Encoding, of_icc, srgb_to_xyz
from stylize.images.picture import Picture
from stylize.images.tables import Tables, of_tables
from stylize.settings import PROFILES
from stylize.text import one_line

GREYS = (85, 180)  # where half of a space's range may lie in sRGB: others, such as linear light, are not painted in

Array = NDArray[Any]


def color_space(mode: str) -> str:
    """The colour space of a Pillow mode as ICC profiles spell it."""
    if mode in ("CMYK", "LAB"):
        return mode
    return "GRAY" if mode in ("1", "L", "LA", "La", "F") or mode.startswith("I") else "RGB"


def check_profile(profile: str) -> None:
    """Refuse a way with colours that there is not.

    Raises:
        SettingsError: names it.
    """
    if profile not in PROFILES:
        raise SettingsError(f"profile is {profile!r}; it must be one of {', '.join(PROFILES)}")


@dataclass(frozen=True)
class Source:
    """The colours of the samples in a file: told by numbers, else by a ``profile`` for the colour engine, else sRGB; or
    ``kept``, the ICC profile that they stay in."""

    told: Encoding | Tables | None = None
    profile: ImageCms.ImageCmsProfile | None = None
    kept: bytes = b""


def source_of(
    data: bytes, encoding: Encoding | None, mode: str, notes: list[str], *, keep: bool = False, deep: bool = False
) -> Source:
    """What samples in a mode of Pillow are, by their ICC profile, or by the encoding where that counts. ``deep`` ones
    have more than 8 bits, which the colour engine does not take; ``keep``: they are to stay what they are."""
    if encoding is not None:
        own = b"" if not keep or encoding.hdr or encoding.has_srgb_primaries else made_of(encoding)
        return Source(kept=own) if own else Source(encoding)
    profile = foreign_profile(data, mode, notes)
    if keep and data and color_space(mode) != "LAB" and (profile or _is_srgb(data)):
        if not (why := _unfit(data)):
            return Source(kept=data)
        notes.append(f"the colour profile is not kept: {why}")
    if profile is None or not deep:
        return Source(None, profile)
    told = of_icc(data, 1 if data[16:20] == b"GRAY" else 3) or of_tables(data)
    return Source(told) if told else Source(None, profile)


def _unfit(data: bytes) -> str:
    """Why a profile is not one to paint in, or nothing."""
    try:
        profile = _opened(data)
        space = profile.profile.xcolor_space.strip()
        if space != "RGB":
            return f"it is for {'grey' if space == 'GRAY' else space} pixels; the result is in sRGB"
        ImageCms.buildTransform(srgb(), profile, "RGB", "RGB")
        grey = ImageCms.profileToProfile(Image.new("RGB", (1, 1), (128, 128, 128)), profile, srgb(), outputMode="RGB")
    except Exception:  # the colour engine raises several kinds
        return "it is for reading alone; the result is in sRGB"
    level = np.asarray(grey).mean()
    return "" if GREYS[0] <= level <= GREYS[1] else "its values are not spaced as the eye sees; the result is in sRGB"


def _is_srgb(data: bytes) -> bool:
    problems: list[str] = []
    return bool(data) and foreign_profile(data, "RGB", problems) is None and not problems


# --- conversion


def in_profile(picture: Picture, profile: bytes) -> Picture:
    """The picture in the colours of an ICC profile; of none: in sRGB. Conversion takes 8 bits."""
    if picture.profile == profile:
        return picture
    rgb = _converted(picture.rgb, picture.profile, profile)
    return dataclasses.replace(picture, rgb=rgb, profile=profile)


def _converted(rgb: Tensor, before: bytes, after: bytes) -> Tensor:
    if all(not each or _is_srgb(each) for each in (before, after)):
        return rgb
    levels = (rgb.detach().float()[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
    first, second = (_opened(each) if each else srgb() for each in (before, after))
    made = ImageCms.profileToProfile(Image.fromarray(levels), first, second, outputMode="RGB")
    found = torch.from_numpy(np.array(made)).permute(2, 0, 1)[None].float() / 255
    return found.to(rgb)


# --- profiles


def _opened(data: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(data))


def foreign_profile(data: bytes, mode: str, notes: list[str]) -> ImageCms.ImageCmsProfile | None:
    """The ICC profile of pixels of a mode, or None where there is none to convert from: absent, unusable (noted) or
    sRGB."""
    channels = color_space(mode)
    if not data or channels == "LAB":
        return None
    try:
        profile = _opened(data)
        space = profile.profile.xcolor_space.strip()
        if space != channels and (space, channels) != ("RGB", "GRAY"):
            raise ValueError(f"it is for {space} pixels")
        return None if _looks_like_srgb(profile, space) else profile
    except Exception as error:  # a broken profile is no reason to refuse the picture
        notes.append(one_line(f"colour profile ignored: {error}"))
        return None


def _looks_like_srgb(profile: ImageCms.ImageCmsProfile, space: str) -> bool:
    """Whether a lattice of colours comes through unchanged. Profile names are unreliable, and converting would cost
    the 16 bits."""
    if space == "CMYK":
        return False
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    lattice = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(81, 9, 3))
    if space == "GRAY":
        lattice = lattice.getchannel("R")
    converted = ImageCms.profileToProfile(lattice, profile, srgb(), outputMode="RGB")
    difference = np.asarray(converted).astype(np.int16) - np.asarray(lattice.convert("RGB"))
    return bool(np.abs(difference).max() <= 2)


@functools.cache
def srgb_profile() -> bytes:
    """The sRGB ICC profile to embed, with a fixed date in its header, so that equal pictures make equal files."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


def srgb() -> ImageCms.ImageCmsProfile:
    return _opened(srgb_profile())


def made_of(encoding: Encoding) -> bytes:
    """An ICC profile, of version 2.4, of the primaries and the curve of an encoding."""
    curve = np.clip(encoding.linear(np.linspace(0, 1, 4096, dtype=np.float32)[:, None].repeat(3, 1))[:, 0], 0, 1)
    table = (curve * 65535).round().astype(">u2").tobytes()
    name = b"RGB of the photo\0"
    described = struct.pack(">4s4xI", b"desc", len(name)) + name + bytes(4 + 4 + 2 + 1 + 67)
    tags = {
        b"desc": described + bytes(-len(described) % 4),
        b"cprt": b"text\0\0\0\0no copyright, use freely\0\0\0\0",
        b"wtpt": _point(D50),
    }
    columns = srgb_to_xyz() @ encoding.matrix
    tags |= {name: _point(columns[:, index]) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    names: Sequence[bytes] = [*tags, b"rTRC", b"gTRC", b"bTRC"]
    start, listed, body = 128 + 4 + 12 * len(names), b"", b""
    for name, tag in [*tags.items(), (b"rTRC", struct.pack(">4s4xI", b"curv", 4096) + table)]:
        same = (name, b"gTRC", b"bTRC") if name == b"rTRC" else (name,)
        listed += b"".join(struct.pack(">4sII", each, start + len(body), len(tag)) for each in same)
        body += tag
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    head = struct.pack(">I4xI4s4s4s", start + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ") + date + b"acsp"
    head += bytes(28) + _point(D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(names)) + listed + body


def _point(xyz: Array) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in xyz))
