"""From what the page sends to what is painted: checked, and with nothing in it that names a file."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stylize import PRESETS, Settings, SettingsError, preset
from stylize_web.pictures import Pictures, Source

if TYPE_CHECKING:
    from stylize.arrays import Array

STYLES = 6  # in a blend, at most
MASK_PIXELS = 4_000_000
STARTS = ("content", "noise", "style")


@dataclass(frozen=True)
class Order:
    """What to paint. ``mask`` is a PNG, white where to paint; None: everywhere."""

    content: Source
    styles: tuple[Source, ...]
    settings: Settings
    preset: str = "default"
    extension: str = ".png"
    bits: int = 8
    mask: bytes | None = None

    def described(self) -> dict[str, Any]:
        """What the page is told; it can send the same again."""
        base = preset(self.preset).to_dict()
        changed = {key: value for key, value in self.settings.to_dict().items() if value != base.get(key)}
        return {
            "content": self.content.described(),
            "styles": [style.described() for style in self.styles],
            "preset": self.preset,
            "settings": changed,
            "size": self.settings.size,
            "format": self.extension[1:],
            "bits": self.bits,
            "masked": self.mask is not None,
        }


def read(sent: Any, pictures: Pictures) -> Order:
    """The order that the page has sent, as JSON holds it.

    Raises:
        SettingsError: something in it is wrong; the message says what.
        StylizeError: a picture is not known.
    """
    if not isinstance(sent, Mapping):
        raise SettingsError("an order must be an object")
    if not isinstance(sent.get("content"), str):
        raise SettingsError("choose a photo first")
    styles = sent.get("styles")
    if not isinstance(styles, Sequence) or isinstance(styles, str) or not styles:
        raise SettingsError("choose a painting first")
    if len(styles) > STYLES:
        raise SettingsError(f"{len(styles)} paintings are chosen; blend at most {STYLES}")
    content, found = pictures[sent["content"]], tuple(pictures[str(style)] for style in styles)
    for each in found:
        if each.kind in ("folder", "clip"):
            raise SettingsError(f"{each.name} is a {each.kind}; choose a picture as the painting")
    name, extension, bits = sent.get("preset", "default"), f".{sent.get('format', 'png')}", sent.get("bits", 8)
    if not isinstance(name, str) or name not in PRESETS:
        raise SettingsError(f"unknown preset {name!r}")
    from stylize import FORMATS  # with torch, which the page does not wait for

    if extension not in FORMATS or bits not in (8, 16) or (bits == 16 and FORMATS[extension] not in ("PNG", "TIFF")):
        raise SettingsError(f"{extension[1:]} with {bits} bits cannot be written")
    mask = _mask(sent.get("mask"))
    if mask is not None and content.kind in ("folder", "clip"):
        raise SettingsError(f"a {content.kind} cannot be painted in part; clear the brush")
    return Order(content, found, _settings(sent.get("settings", {}), name), name, extension, bits, mask)


def _settings(values: Any, name: str) -> Settings:
    if not isinstance(values, Mapping):
        raise SettingsError("settings must be an object")
    settings = Settings.from_dict({str(key): value for key, value in values.items() if key != "preset"}, preset(name))
    if settings.init not in STARTS:  # which could be the path of any file
        raise SettingsError(f"init is {settings.init!r}; on the page it must be one of {', '.join(STARTS)}")
    return settings


def _mask(sent: Any) -> bytes | None:
    if sent is None:
        return None
    head, _, data = str(sent).partition(",")
    if head != "data:image/png;base64":
        raise SettingsError("the mask must be a PNG")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError("the mask is damaged") from error


def mask_array(png: bytes, height: int, width: int) -> Array:
    """A mask of booleans (H, W) from a PNG of another size.

    Raises:
        SettingsError: it is no PNG, too large, or there is nothing in it.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.width * image.height > MASK_PIXELS:
                raise SettingsError("the mask is too large")
            mask = np.asarray(image.convert("L").resize((width, height), Image.Resampling.BILINEAR)) > 127
    except (OSError, SyntaxError) as error:
        raise SettingsError("the mask is damaged") from error
    if not mask.any():
        raise SettingsError("nothing is painted with the brush; paint over a part, or clear it")
    return mask
