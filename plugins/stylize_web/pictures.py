"""The pictures that the page knows: samples, those of a folder, and what was uploaded."""

from __future__ import annotations

import hashlib
import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize import SettingsError, StylizeError

if TYPE_CHECKING:
    from stylize import Mask, Picture

HERE = Path(__file__).parent
SAMPLES = next(
    folder for folder in (HERE.parent / "stylize" / "samples", HERE.parents[1] / "samples") if folder.is_dir()
)  # wheel, checkout
PHOTOS = ("bridge", "moose", "cat", "coffee")
PAINTINGS = ("starry-night", "waves", "mosaic", "swirls")
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".avif", ".bmp", ".gif"})
CLIPS = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".ogv"})
THUMBNAIL, VIEW = 320, 1600  # px
VIEWS_KEPT = 12
LISTED = 500  # entries of a folder
UPLOADS_KEPT = 100
MASK_PIXELS = 4_000_000


@dataclass(frozen=True)
class Source:
    """A picture, folder or clip that can be painted, or painted in the style of.

    ``kind`` is ``photo`` or ``painting`` for samples, ``upload``, ``mask``, ``picture``, ``folder`` or ``clip``;
    ``place`` is the path of a file below the folder that is offered.
    """

    id: str
    name: str
    path: Path
    kind: str
    place: str = ""

    def described(self) -> dict[str, str]:
        """What the page is told."""
        return {"id": self.id, "name": self.name, "kind": self.kind, "place": self.place}


def _is_below(path: Path, folder: Path) -> bool:
    """Whether a path leads into a folder, links followed; those that go round in circles do not."""
    try:
        return path.resolve().is_relative_to(folder)
    except RuntimeError:
        return False


def _as_unicode(name: str) -> str:
    """The name of a file as Unicode; what is none is replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Pictures:
    """All sources by their ids. Names come from elsewhere and are shown only; files are found by id.

    Args:
        temporary: a folder for what is uploaded.
        folder: what is offered besides.
    """

    def __init__(self, temporary: Path, folder: Path | None) -> None:
        self._temporary, self.folder = temporary, None if folder is None else folder.resolve()
        self._known: OrderedDict[str, Source] = OrderedDict()
        self._thumbnails: dict[str, bytes] = {}
        self._views: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        for names, kind in ((PHOTOS, "photo"), (PAINTINGS, "painting")):
            for name in names:
                self._add(Source(f"sample-{name}", name.replace("-", " "), SAMPLES / f"{name}.jpg", kind))

    def _add(self, source: Source) -> Source:
        self._known[source.id] = source
        return source

    def __getitem__(self, key: str) -> Source:
        """The source with an id.

        Raises:
            StylizeError: there is none.
        """
        found = self._known.get(key)
        if found is None:
            raise StylizeError("this picture is not there any more; choose it again")
        return found

    def offered(self) -> list[Source]:
        """The samples, then what was uploaded, newest first."""
        known = [*self._known.values()]
        samples = [source for source in known if source.kind in ("photo", "painting")]
        return samples + [source for source in reversed(known) if source.kind == "upload"]

    # --- the folder

    def listed(self, place: str = "") -> list[Source]:
        """What is in the folder offered, or in a folder below it, as far as it can be painted.

        Raises:
            StylizeError: there is no such folder below it.
        """
        here = self._below(place)
        try:
            entries = sorted(here.iterdir(), key=lambda path: (not path.is_dir(), path.name.lower()))
            return [*self._sources(entries)][:LISTED]
        except OSError as error:
            raise StylizeError(f"cannot read {place or 'the folder'}: {error.strerror}") from error

    def _below(self, place: str) -> Path:
        if self.folder is None:
            raise StylizeError("no folder is offered; start the server with --folder")
        with self._lock:  # those that were listed, which may have names that are no Unicode
            known = [each.path for each in self._known.values() if each.kind == "folder" and each.place == place]
        here = known[0] if known else self.folder / place
        try:
            found = _is_below(here, self.folder) and here.is_dir()
        except (OSError, ValueError) as error:  # such as a name that is too long
            raise StylizeError("there is no such folder") from error
        if not found:
            raise StylizeError("there is no such folder")
        return here.resolve()

    def _sources(self, entries: list[Path]) -> Iterator[Source]:
        assert self.folder is not None
        for path in entries:
            if path.name.startswith(".") or not _is_below(path, self.folder):
                continue
            suffix = path.suffix.lower()
            kinds = {"folder": path.is_dir(), "picture": suffix in PICTURES, "clip": suffix in CLIPS}
            kind = next((kind for kind, matches in kinds.items() if matches), None)
            if kind is not None:
                place = path.relative_to(self.folder).as_posix()
                key = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:24]
                yield self._add(Source(f"folder-{key}", _as_unicode(path.name), path, kind, _as_unicode(place)))

    def clip(self, source: Source) -> Path:
        """The file of a clip, for players.

        Raises:
            StylizeError: it lies in the folder offered no more.
        """
        assert self.folder is not None
        path = source.path.resolve()
        if not path.is_relative_to(self.folder) or not path.is_file():
            raise StylizeError(f"{source.name} is not there any more")
        return path

    # --- uploads

    def new_upload(self) -> Path:
        """Where the next upload goes."""
        return self._temporary / secrets.token_hex(12)

    def uploaded(self, path: Path, name: str) -> Source:
        """A file that was uploaded, once it is whole, under the name it had there.

        Raises:
            ImageError: it is no picture; the file is removed.
        """
        source = Source(f"upload-{path.name}", _shown(name), path, "upload")
        try:
            self.thumbnail(source)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with self._lock:
            self._add(source)
        return source

    def new_mask(self, png: bytes, content: Source) -> Source:
        """A mask that the page has sent, kept as a file; its name is that of the content, with a part of its SHA-256.

        Raises:
            SettingsError: it is no PNG, too large, or there is nothing in it.
        """
        from PIL import Image

        try:
            with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
                if image.width * image.height > MASK_PIXELS:
                    raise SettingsError(f"the mask is too large: at most {MASK_PIXELS // 10**6} megapixels")
                brightest = image.convert("L").getextrema()[1]
        except SettingsError:
            raise
        except Exception as error:  # decoders raise nearly anything on damaged files
            raise SettingsError("the mask is damaged, or too large") from error
        if not brightest:
            raise SettingsError("nothing is painted with the brush; paint over a part, or clear it")
        digest = hashlib.sha256(png).hexdigest()
        key = f"mask-{digest}"
        with self._lock:
            if key not in self._known:
                path = self.new_upload()
                path.write_bytes(png)
                self._add(Source(key, f"{file_name(Path(content.name).stem)}-mask-{digest[:8]}.png", path, "mask"))
            return self._known[key]

    def forget_uploads(self, used: set[str]) -> None:
        """Remove the oldest uploads where there are many, but none of those that are in use."""
        with self._lock:
            uploads = [source for source in self._known.values() if source.kind in ("upload", "mask")]
            for source in uploads[: max(0, len(uploads) - UPLOADS_KEPT)]:
                if source.id not in used:
                    del self._known[source.id]
                    self._thumbnails.pop(source.id, None)
                    source.path.unlink(missing_ok=True)

    # --- what they look like

    def picture(self, source: Source, longest: int | None = None) -> Picture:
        """A source read, under the name it has here.

        Raises:
            ImageError: it cannot be read.
        """
        from stylize import ImageError, Origin, load

        try:
            picture = load(source.path, longest=longest)
        except ImageError as error:
            raise ImageError(str(error).replace(str(source.path), source.name)) from error
        digest = "" if picture.origin is None else picture.origin.sha256
        origin = Origin(Path(source.name), digest) if source.kind == "upload" else picture.origin
        return replace(picture, name=Path(source.name).stem, origin=origin)

    def mask(self, source: Source, kept: Path | None) -> Mask:
        """A source as a mask; ``kept`` is the folder in which records find it.

        Raises:
            ImageError: it cannot be read.
        """
        from stylize import Origin, as_mask

        mask = as_mask(source.path)
        assert mask.origin is not None
        return replace(mask, origin=Origin((kept or Path()) / source.name, mask.origin.sha256))

    def thumbnail(self, source: Source) -> bytes:
        """A small JPEG of a source.

        Raises:
            ImageError: it cannot be read.
        """
        from stylize import thumbnail

        if source.id not in self._thumbnails:
            picture = self.picture(source, THUMBNAIL)
            self._thumbnails[source.id] = thumbnail(picture.opaque().rgb, THUMBNAIL)
        return self._thumbnails[source.id]

    def view(self, source: Source) -> bytes:
        """A JPEG of a source to fill the page.

        Raises:
            ImageError: it cannot be read.
        """
        from stylize import thumbnail

        with self._lock:
            if source.id in self._views:
                return self._views[source.id]
        data = thumbnail(self.picture(source, VIEW).opaque().rgb, VIEW)
        with self._lock:
            self._views[source.id] = data
            if len(self._views) > VIEWS_KEPT:
                self._views.popitem(last=False)
        return data

    def recipe(self, source: Source) -> dict[str, Any] | None:
        """How a painted picture was made, as far as its sources are known here: settings, and the ids of content,
        styles, mask and regions, each None where it is not known; None if the picture carries no record."""
        from stylize import ImageError, digest, read_record

        record = read_record(source.path)
        if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
            return None
        known: dict[str, str] = {}
        for each in [*self._known.values()]:
            if each.kind not in ("folder", "clip"):
                try:
                    known.setdefault(digest(each.path), each.id)
                except ImageError:
                    continue

        def found(origin: Any) -> str | None:
            plain = isinstance(origin, dict) and not origin.get("inverted") and not origin.get("color")
            return known.get(str(origin.get("sha256"))) if plain else None

        regions = [each for each in _listed(record.get("regions")) if isinstance(each, dict)]
        return {
            "settings": record["settings"],
            "content": found(record.get("content")),
            "styles": [found(each) for each in _listed(record.get("styles"))],
            "mask": found(record.get("mask")),
            "regions": [
                {"mask": found(each.get("mask")), "styles": [found(style) for style in _listed(each.get("styles"))]}
                for each in regions
            ],
        }


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def file_name(title: str) -> str:
    """A title as the name of a file: letters, digits, dots, dashes and underscores."""
    plain = "".join(each if each.isalnum() or each in "-_." else "-" for each in title.replace(" · ", "-"))
    return "-".join(filter(None, plain.split("-")))[:80].strip(".") or "painted"


def _shown(name: str) -> str:
    """A name from elsewhere, fit to be shown: its last part, without control characters."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(each for each in last if each.isprintable())[-120:].strip() or "picture"
