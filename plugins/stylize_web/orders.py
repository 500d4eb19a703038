"""From what the page sends to what is painted: checked, and with nothing in it that names a file."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stylize import PRESETS, Settings, SettingsError, preset
from stylize_web.pictures import Pictures, Source

STYLES = 6  # in a blend, at most
REGIONS = 12  # at most
STARTS = ("content", "noise", "style")


@dataclass(frozen=True)
class Part:
    """A part of the photo, white in the mask, that has paintings of its own."""

    mask: Source
    styles: tuple[Source, ...]


@dataclass(frozen=True)
class Order:
    """What to paint. ``mask`` is white where to paint; None: everywhere."""

    content: Source
    styles: tuple[Source, ...]
    settings: Settings
    preset: str = "default"
    extension: str = ".png"
    bits: int = 8
    mask: Source | None = None
    regions: tuple[Part, ...] = ()

    @property
    def masks(self) -> list[Source]:
        """Those of what is painted, and of the parts."""
        return [*([] if self.mask is None else [self.mask]), *(part.mask for part in self.regions)]

    @property
    def sources(self) -> set[str]:
        """The ids of all that it is about."""
        styles = [style for part in self.regions for style in part.styles]
        return {each.id for each in (self.content, *self.styles, *styles, *self.masks)}

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
            "mask": None if self.mask is None else self.mask.id,
            "regions": [
                {"mask": part.mask.id, "styles": [style.described() for style in part.styles]} for part in self.regions
            ],
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
    content, found = pictures[sent["content"]], _styles(sent.get("styles"), pictures)
    name, extension, bits = sent.get("preset", "default"), f".{sent.get('format', 'png')}", sent.get("bits", 8)
    if not isinstance(name, str) or name not in PRESETS:
        raise SettingsError(f"unknown preset {name!r}")
    from stylize import FORMATS  # with torch, which the page does not wait for

    if extension not in FORMATS or bits not in (8, 16) or (bits == 16 and FORMATS[extension] not in ("PNG", "TIFF")):
        raise SettingsError(f"{extension[1:]} with {bits} bits cannot be written")
    settings = _settings(sent.get("settings", {}), name)
    mask = None if sent.get("mask") is None else _mask(sent["mask"], content, pictures)
    regions = _regions(sent.get("regions"), content, pictures)
    if (mask or regions) and content.kind in ("folder", "clip"):
        raise SettingsError(f"a {content.kind} cannot be painted in part; clear the brush")
    return Order(content, found, settings, name, extension, bits, mask, regions)


def _styles(sent: Any, pictures: Pictures) -> tuple[Source, ...]:
    if not isinstance(sent, Sequence) or isinstance(sent, str) or not sent:
        raise SettingsError("choose a painting first")
    if len(sent) > STYLES:
        raise SettingsError(f"{len(sent)} paintings are chosen; blend at most {STYLES}")
    found = tuple(pictures[str(style)] for style in sent)
    for each in found:
        if each.kind in ("folder", "clip"):
            raise SettingsError(f"{each.name} is a {each.kind}; choose a picture as the painting")
    return found


def _settings(values: Any, name: str) -> Settings:
    if not isinstance(values, Mapping):
        raise SettingsError("settings must be an object")
    settings = Settings.from_dict({str(key): value for key, value in values.items() if key != "preset"}, preset(name))
    if settings.init not in STARTS:  # which could be the path of any file
        raise SettingsError(f"init is {settings.init!r}; on the page it must be one of {', '.join(STARTS)}")
    return settings


def _regions(sent: Any, content: Source, pictures: Pictures) -> tuple[Part, ...]:
    if sent is None:
        return ()
    if not isinstance(sent, Sequence) or not all(isinstance(each, Mapping) for each in sent):
        raise SettingsError("regions must be a list of objects")
    if len(sent) > REGIONS:
        raise SettingsError(f"{len(sent)} parts have paintings of their own; at most {REGIONS} can")
    return tuple(
        Part(_mask(each.get("mask"), content, pictures), _styles(each.get("styles"), pictures)) for each in sent
    )


def _mask(sent: Any, content: Source, pictures: Pictures) -> Source:
    """The mask that is sent as a PNG, or as the id of one that was sent before."""
    head, comma, data = str(sent).partition(",")
    if not comma and head.startswith("mask-"):
        return pictures[head]
    if head != "data:image/png;base64":
        raise SettingsError("the mask must be a PNG")
    try:
        png = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError("the mask is damaged") from error
    return pictures.new_mask(png, content)
