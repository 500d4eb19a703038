"""Records: how a stylized picture says it was made, and the way back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize.errors import ImageError, StylizeError
from stylize.images import digest
from stylize.settings import Settings
from stylize.stores import StorePath, as_path
from stylize.text import shortened

if TYPE_CHECKING:
    from stylize.host import Host

LONGEST_PATH = 4096  # characters
MOST_THREADS = 1024  # that a record may ask for
NOT_THE_RESULT = {"device", "memory", "encoder"}  # settings that say how and not what; the encoder is compared itself


@dataclass(frozen=True)
class Record:
    """How a picture was made, in values that JSON has.

    ``stylize`` and ``torch`` are versions; ``encoder`` has a name and a ``sha256``; ``content``, each of ``styles`` and
    ``init``, the picture it was begun from, have a ``path`` and a ``sha256``, or are None if they come from no file.
    ``mask``, of what was painted, has them, too, with the ``color`` of a map, and ``inverted`` where black was painted;
    each of ``regions`` has a ``mask`` and ``styles``. A mask that comes from no file has a ``sha256`` alone.
    ``stopped`` is True where the picture is not finished. ``options`` are those of plugins that were given, ``saving``
    those of the file, ``plugins`` the versions of those that changed the picture, ``machine`` what else decides how
    numbers are rounded, such as the number of threads; each is None where nothing is known of it. ``more`` is what a
    job adds.
    """

    stylize: str | None = None
    torch: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    encoder: Mapping[str, Any] = field(default_factory=dict)
    content: Mapping[str, Any] | None = None
    styles: tuple[Mapping[str, Any] | None, ...] = ()
    init: Mapping[str, Any] | None = None
    mask: Mapping[str, Any] | None = None
    regions: tuple[Mapping[str, Any], ...] = ()
    stopped: bool = False
    options: Mapping[str, Any] | None = None
    saving: Mapping[str, Any] | None = None
    plugins: Mapping[str, Any] | None = None
    machine: Mapping[str, Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Record:
        """The record that a file holds. What is missing, or of another kind than it should be, counts as unknown."""

        def mapping(key: str) -> Mapping[str, Any] | None:
            value = found.get(key)
            return value if isinstance(value, Mapping) else None

        names = {each.name for each in dataclasses.fields(cls)} - {"more"}
        styles, regions = found.get("styles"), found.get("regions")
        return cls(
            stylize=found.get("stylize"),
            torch=found.get("torch"),
            settings=mapping("settings") or {},
            encoder=mapping("encoder") or {},
            content=mapping("content"),
            styles=tuple(s if isinstance(s, Mapping) else None for s in styles) if isinstance(styles, list) else (),
            init=mapping("init"),
            mask=mapping("mask"),
            regions=tuple(each for each in regions if isinstance(each, Mapping)) if isinstance(regions, list) else (),
            stopped=bool(found.get("stopped", False)),
            options=mapping("options"),
            saving=mapping("saving"),
            plugins=mapping("plugins"),
            machine=mapping("machine"),
            more={key: value for key, value in found.items() if key not in names},
        )

    def to_dict(self) -> dict[str, Any]:
        """As it is embedded in files."""
        made = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        more, made["styles"], made["regions"] = made.pop("more"), list(self.styles), list(self.regions)
        left_out = {key for key in ("options", "saving", "plugins", "machine", "mask") if made[key] is None}
        left_out |= set() if self.regions else {"regions"}
        left_out |= set() if self.stopped else {"stopped"}
        return {**{key: value for key, value in made.items() if key not in left_out}, **more}

    def same_work_as(self, other: Record) -> bool:
        """Whether both lead to the same picture."""
        return not self.changes_since(other)

    def changes_since(self, other: Record) -> list[str]:
        """What makes this another picture than ``other``, in words; not where the files lie, which version of stylize
        it was, or on what device."""
        now, then = self._work(), other._work()
        return [key for key in now if now[key] != then[key]]

    def fingerprint(self) -> str:
        """Hex digits that are the same for all records between which :meth:`changes_since` finds nothing."""
        return sha256(json.dumps(self._work(), sort_keys=True, default=str).encode()).hexdigest()

    def _work(self) -> dict[str, Any]:
        ignored = NOT_THE_RESULT | ({"init"} if self.init else set())
        return {
            "photo": _sha256(self.content),
            "style": [_sha256(style) for style in self.styles],
            "start": _sha256(self.init),
            "mask": _without_paths(self.mask),
            "regions": [_without_paths(each) for each in self.regions if "path" in each.get("mask", {})],
            "settings": {key: value for key, value in self.settings.items() if key not in ignored},
            "encoder": self.encoder,
            "options": self.options,
            "saving": self.saving and {**self.saving, "bits": self.saving.get("bits") or 8},
            "stopped": self.stopped,
        }


def _without_paths(value: Any) -> Any:
    """A part of a record without the places of files."""
    if isinstance(value, Mapping):
        return {key: _without_paths(each) for key, each in value.items() if key not in ("path", "version")}
    return [_without_paths(each) for each in value] if isinstance(value, list) else value


def saving_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of how a picture is written, as records hold them."""
    made: dict[str, Any] = {"bits": options.get("bits"), "quality": options.get("quality")}
    made |= {"no_location": True} if options.get("no_location") else {}
    return made | ({"profile": "keep"} if options.get("profile") == "keep" else {})


def _sha256(origin: Mapping[str, Any] | None) -> Any:
    return None if origin is None else origin.get("sha256")


def recipe(record: Mapping[str, Any], picture: Path, sources: Path | None) -> tuple[Settings, Path, list[Path]]:
    """The settings, the content and the styles of a record, as a file holds it; the files named there are looked for
    from the picture's folder, or by name in ``sources`` and below, and are the same, byte by byte.

    Raises:
        StylizeError: a file is missing or has changed, or the record is not one of ours.
    """
    try:
        if not isinstance(record["settings"], Mapping):
            raise TypeError(f"'settings' is {shortened(record['settings'])}")
        settings = Settings.from_dict(record["settings"])
        content, *styles = (_found(each, picture, sources) for each in (record["content"], *record["styles"]))
        if start := record.get("init"):
            settings = settings.replace(init=str(_found(start, picture, sources)))
        if not styles:
            raise KeyError("styles")
        for key in ("options", "plugins", "saving", "encoder"):
            if not isinstance(record.get(key, {}), Mapping):
                raise TypeError(f"{key!r} is {shortened(record[key])!r}")
    except (KeyError, TypeError, AttributeError) as error:
        raise StylizeError(f"the record in {picture} is not complete ({error})") from error
    return settings, content, styles


def areas(record: Mapping[str, Any], picture: Path, sources: Path | None) -> dict[str, Any]:
    """The options of a record that say what of the content is painted, and in which styles; their files are looked for
    as by :func:`recipe`. Regions that a plugin has found are left to it.

    Raises:
        StylizeError: a file is missing or has changed, or a mask was in no file.
    """

    def named(mask: Mapping[str, Any]) -> str:
        color = mask.get("color")
        return f"{_found(mask if 'path' in mask else None, picture, sources)}{f'={color}' if color else ''}"

    found: dict[str, Any] = {}
    try:
        if mask := record.get("mask"):
            found["keep" if mask.get("inverted") else "mask"] = named(mask)
        found["region"] = tuple(
            (
                named(each["mask"]),
                tuple(str(_found(style, picture, sources)) for style in each["styles"]),
                tuple(map(float, each.get("style_weights", ()))),
                each.get("content_weight"),
            )
            for each in record.get("regions", ())
            if "path" in each["mask"] or not record.get("plugins")
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StylizeError(f"the record in {picture} is not complete ({error})") from error
    return found


def _found(origin: Mapping[str, str] | None, picture: Path, sources: Path | None) -> Path:
    if origin is None:
        raise StylizeError(f"{picture} was made of a picture that was in no file; it cannot be replayed")
    named, wanted = origin["path"], origin["sha256"]
    if not isinstance(named, str) or not 0 < len(named) <= LONGEST_PATH or "\0" in named:
        raise TypeError(f"the path {shortened(named)!r}")
    path = picture.parent / named
    if sources is None and isinstance(as_path(named), StorePath):  # a record may come from anyone: nothing is fetched
        raise StylizeError(
            f"{shortened(named)}, which {picture} was made of, is in a store: copy it, and name its folder by --sources"
        )
    candidates = [path] if sources is None else sorted(each for each in sources.rglob("*") if each.name == path.name)
    for candidate in candidates:
        try:
            if digest(candidate) == wanted:
                return candidate
        except ImageError:
            continue
    if sources is not None:
        raise StylizeError(f"{sources} holds no {path.name} such as {picture} was made of")
    state = "has changed" if path.exists() else "is not there"
    raise StylizeError(f"{path}, which {picture} was made of, {state}; --sources FOLDER says where to look")


def differences(record: Mapping[str, Any], now: Record, host: Host) -> Iterator[str]:
    """What may make a replay of a record, as a file holds it, come out otherwise, in words."""
    then = Record.from_dict(record)
    if then.stopped:
        yield "it was stopped before it was done"
    for name in ("stylize", "torch"):
        made = getattr(then, name)
        if made != getattr(now, name):
            yield f"it was made with {name} {shortened(made)}, this is {getattr(now, name)}"
    here = now.machine or {}
    for name, made in (then.machine or {}).items() if here else ():
        if made != here.get(name):
            yield f"it was computed with {shortened(name)} {shortened(made)}, here with {here.get(name, 'none')}"
    if then.encoder != now.encoder:
        if then.encoder.get("name") != now.encoder["name"]:
            yield f"it was made with the encoder {shortened(then.encoder.get('name'))}"
        else:
            yield f"{now.encoder['name']} has different weights"
    contributors = host.contributors()
    for name, version in (then.plugins or {}).items():
        if contributors.get(name) != version:
            made = f"{shortened(name)} {shortened(version)}"
            yield f"it was made with plugin {made}, here is {contributors.get(name) or 'none'}"


def threads(record: Mapping[str, Any]) -> int | None:
    """The number of threads that a picture was computed with, which decides its bits; None where that is not known, or
    is not to be had here."""
    found = (Record.from_dict(record).machine or {}).get("threads")
    return found if isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= MOST_THREADS else None
