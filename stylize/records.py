"""Records: what a stylized picture says of how it was made, and the way back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize.errors import ImageError, StylizeError
from stylize.images import digest
from stylize.settings import Settings

if TYPE_CHECKING:
    from stylize.host import Host


def recipe(record: Mapping[str, Any], picture: Path, sources: Path | None) -> tuple[Settings, Path, list[Path]]:
    """The settings, the content and the styles of a record; files are found from the picture's folder, or by name in
    ``sources`` and below, and are the same, byte by byte.

    Raises:
        StylizeError: a file is gone or is another now, or the record is not one of ours.
    """
    try:
        settings = Settings.from_dict(record["settings"])
        content, *styles = (_found(each, picture, sources) for each in (record["content"], *record["styles"]))
        if start := record.get("init"):
            settings = settings.replace(init=str(_found(start, picture, sources)))
        if not styles:
            raise KeyError("styles")
        for key in ("options", "plugins", "saving", "encoder"):
            if not isinstance(record.get(key, {}), Mapping):
                raise TypeError(f"{key!r} is {record[key]!r}")
    except (KeyError, TypeError, AttributeError) as error:
        raise StylizeError(f"the record in {picture} is not complete ({error})") from error
    return settings, content, styles


def _found(origin: Mapping[str, str] | None, picture: Path, sources: Path | None) -> Path:
    if origin is None:
        raise StylizeError(f"{picture} was made of a picture that was in no file; it cannot be replayed")
    path, wanted = picture.parent / origin["path"], origin["sha256"]
    candidates = [path] if sources is None else sorted(sources.rglob(path.name))
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


def differences(record: Mapping[str, Any], now: Mapping[str, Any], host: Host) -> Iterator[str]:
    """What may make a replay come out otherwise, in words."""
    if record.get("stopped"):
        yield "it was stopped before it was done"
    for name in ("stylize", "torch"):
        if record.get(name) != now[name]:
            yield f"it was made with {name} {record.get(name)}, this is {now[name]}"
    then, encoder = record.get("encoder") or {}, now["encoder"]
    if then != encoder:
        other = then.get("name") != encoder["name"]
        yield (
            f"it was made with the encoder {then.get('name')}"
            if other
            else f"the weights of {encoder['name']} are others"
        )
    contributors = host.contributors()
    for name, version in (record.get("plugins") or {}).items():
        if contributors.get(name) != version:
            yield f"it was made with plugin {name} {version}, here is {contributors.get(name) or 'none'}"
