"""What there is to paint: the pictures of a folder or a pattern, their pairs of styles, and the names of results."""

from __future__ import annotations

import os
import re
import stat
import string
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePath

from stylize import FORMATS, ImageError, SettingsError, as_path, is_folder

_NAMES = """
    apng avif avifs bmp dds dib exr gif hdr heic heif hif ico j2k jfif jp2 jpe jpeg jpg jpx jxl pbm pcx pgm png pnm ppm
    psd qoi sgi tga tif tiff webp
"""  # what counts as a picture in a folder; whether it can be read shows when it is
EXTENSIONS = frozenset(f".{name}" for name in _NAMES.split())
_RAW_NAMES = "3fr arw cr2 cr3 crw dcr dng erf iiq kdc mef mos mrw nef nrw orf pef raf rw2 srw x3f"
_RAW_EXTENSIONS = frozenset(f".{name}" for name in _RAW_NAMES.split())
RAW = "a raw file of a camera: develop it to a TIFF or JPEG first"  # why those are not painted
_RUBBISH = """
    @eaDir @Recycle @Recently-Snapshot @Recently-Snapshots @tmp #recycle #snapshot $RECYCLE.BIN RECYCLER RECYCLED
    __MACOSX lost+found
"""  # folders of thumbnails, deleted files and snapshots, which network storage and operating systems make
LEFT_OUT = frozenset({*_RUBBISH.casefold().split(), "system volume information", "network trash folder"})
FIELDS = ("stem", "style", "ext", "name")
DEEP = frozenset((".png", ".tif", ".tiff"))  # those that hold 16 bits a channel
LONGEST = 200  # bytes of a name, so that there is room for what writing adds to it


@dataclass(frozen=True)
class Found:
    """A file, and where it lies below the folder that was searched."""

    path: Path
    relative: PurePath

    @property
    def name(self) -> str:
        return str(self.relative)


@dataclass(frozen=True)
class Passed:
    """What is not painted, and why; ``failed`` if that is a fault."""

    name: str
    reason: str
    failed: bool
    folder: bool = False  # all that lies below


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern such as ``holiday/**/*.jpg``: a file of that name comes first."""
    return bool(re.search(r"[*?\[]", str(path))) and not os.path.lexists(path)


def is_many(path: Path) -> bool:
    """Whether a path is a folder or a pattern."""
    return is_folder(path) or is_pattern(path)


class Excluded:
    """The files and folders that patterns leave out.

    A pattern without a slash is that of a name, at any depth; one with a slash is that of a place below the folder
    that is searched. All that lies in a folder that is left out is left out.

    Raises:
        SettingsError: a pattern is not one.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._names: list[re.Pattern[str]] = []
        self._places: list[re.Pattern[str]] = []
        for pattern in patterns:
            parts = [part for part in PurePath(pattern).parts if part not in ("/", ".")]
            if not parts or ".." in parts:
                raise SettingsError(f"--exclude {pattern!r} is no pattern of a name or a place in the folder")
            if parts[-1] == "**":
                parts.pop()
            try:
                made = re.compile(_expression(parts or ["*"]), re.DOTALL)
            except re.error as error:
                raise SettingsError(f"--exclude {pattern!r} is no pattern: {error}") from error
            (self._places if "/" in pattern.rstrip("/") else self._names).append(made)

    def leaves_out(self, place: PurePath) -> bool:
        """Whether a file or folder at this place below the folder that is searched is left out."""
        return any(each.fullmatch(place.name) for each in self._names) or any(
            each.fullmatch(place.as_posix()) for each in self._places
        )


def area(source: Path) -> tuple[Path, int | None]:
    """The folder that is searched for a folder or a pattern, and how deep; None: to the bottom. A file is searched for
    in its folder."""
    if not is_pattern(source):
        return (source, None) if is_many(source) else (source.parent, 1)
    parts = source.parts
    first = next(index for index, part in enumerate(parts) if re.search(r"[*?\[]", part))
    return as_path(Path(*parts[:first])), None if "**" in parts[first:] else len(parts) - first


def search(
    source: Path, without: Iterable[Path] = (), excluded: Excluded | None = None, others: Collection[str] = ()
) -> Iterator[Found | Passed]:
    """The pictures, and files with the endings ``others``, of a file, a folder or a pattern, in order of their names.

    Hidden files are no pictures, nor is anything in the folders ``without``, in what is ``excluded``, or in folders
    that storage devices and operating systems make for themselves, unless a pattern names them.
    """
    if is_pattern(source):
        root, deepest = area(source)
        parts = source.parts[len(root.parts) :]
        try:
            wanted = re.compile(_expression(parts), re.DOTALL)
        except re.error as error:
            raise SettingsError(f"{source} is no pattern: {error}") from error
        for found in _walk(root, without, excluded, others, named=parts, deepest=deepest):
            place = found.relative if isinstance(found, Found) else PurePath(found.name)
            if wanted.fullmatch(place.as_posix()) or (isinstance(found, Passed) and found.folder):
                yield found
    elif is_many(source):
        yield from _walk(source, without, excluded, others)
    else:
        yield Found(source, PurePath(source.name))


def check_found(source: Path, found: Iterable[Found | Passed]) -> None:
    """Refuse a folder or a pattern in which :func:`search` has found nothing to paint.

    Raises:
        ImageError: says so, and if the folder itself cannot be read, why.
    """
    found = [*found]
    if any(isinstance(each, Found) for each in found):
        return
    unread = [each for each in found if isinstance(each, Passed) and each.failed]
    if len(unread) == 1 and unread[0].folder:
        raise ImageError(f"{source}: no pictures there that can be read ({unread[0].name}: {unread[0].reason})")
    raise ImageError(f"{source}: no pictures there")


def _walk(
    root: Path,
    without: Iterable[Path],
    excluded: Excluded | None,
    others: Collection[str],
    *,
    named: Sequence[str] | None = None,
    deepest: int | None = None,
) -> Iterator[Found | Passed]:
    """``named`` are the parts of a pattern, with which files of any extension count."""
    rubbish = LEFT_OUT - {part.casefold() for part in named or ()}
    left_out = {os.path.realpath(folder) for folder in without}
    seen: set[tuple[int, int]] = set()
    pending = [PurePath()]
    while pending:
        relative = pending.pop()
        folder = root / relative
        try:
            if os.path.realpath(folder) in left_out:
                continue
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:  # a link to where we have been
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(folder.iterdir(), key=lambda entry: (entry.name.casefold(), entry.name))
        except OSError as error:
            yield Passed(
                str(relative) if relative.parts else str(root), f"folder not read: {error.strerror}", True, True
            )
            continue
        folders = []
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            inside = relative / name
            if excluded is not None and excluded.leaves_out(inside):
                continue
            try:
                mode = entry.stat().st_mode
            except OSError as error:  # a broken link, or gone by now
                yield Passed(str(inside), error.strerror or str(error), True)
                continue
            if stat.S_ISDIR(mode):
                if (deepest is None or len(inside.parts) < deepest) and name.casefold() not in rubbish:
                    folders.append(inside)
            elif not stat.S_ISREG(mode):
                yield Passed(str(inside), "not a regular file", False)
            elif named is not None or inside.suffix.lower() in EXTENSIONS or inside.suffix.lower() in others:
                yield Found(entry, inside)
            else:
                raw = inside.suffix.lower() in _RAW_EXTENSIONS
                yield Passed(str(inside), RAW if raw else "not a picture", False)
        pending += reversed(folders)


def _expression(parts: Sequence[str]) -> str:
    """The regular expression of a pattern: ``**`` is any number of folders, the rest as in a shell."""
    made = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            made += ".*" if last else "(?:[^/]+/)*"
            continue
        for piece in re.findall(r"\[!?\]?[^\]]*\]|.", part, re.DOTALL):
            if piece == "*":
                made += "[^/]*"
            elif piece == "?":
                made += "[^/]"
            elif len(piece) > 1:
                negated = piece[1] == "!"
                inner = piece[2 if negated else 1 : -1].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
                made += f"[{'^' if negated or inner.startswith('^') else ''}{inner.lstrip('^')}]"
            else:
                made += re.escape(piece)
        made += "" if last else "/"
    return made


# --- pairs -----------------------------------------------------------------------------------------------------------


def pairs(
    photos: Sequence[Found], styles: Sequence[str], how: str, seed: int
) -> tuple[list[tuple[Found, int]], list[Passed]]:
    """Each photo with the index of its style, those of one style together; and the photos that have none."""
    if how == "cross":
        return [(photo, index) for index in range(len(styles)) for photo in photos], []
    if how == "name":
        by_name = {_key(style): index for index, style in enumerate(styles)}
        found = [(photo, by_name.get(_key(photo.relative.stem))) for photo in photos]
        alone = [Passed(photo.name, "no style of its name", False) for photo, index in found if index is None]
        made = [(photo, index) for photo, index in found if index is not None]
    elif how == "random":
        made = [(photo, _drawn(photo, seed) % len(styles)) for photo in photos]
        alone = []
    else:
        made = [(photo, number % len(styles)) for number, photo in enumerate(photos)]
        alone = []
    return sorted(made, key=lambda pair: pair[1]), alone


def _drawn(photo: Found, seed: int) -> int:
    """A number that depends on the seed and the name alone: what others come or go does not change a photo's style."""
    text = f"{seed}/{photo.relative.as_posix()}"
    return int.from_bytes(sha256(os.fsencode(text)).digest()[:8], "big")


# --- names -----------------------------------------------------------------------------------------------------------


class Names:
    """Names of results below the output folder: no two of them alike, also not for a file system that ignores case.

    Raises:
        SettingsError: the template is not one.
    """

    def __init__(
        self,
        template: str | None,
        extension: str | None,
        *,
        several: bool,
        deep: bool = False,
        others: Mapping[str, str] | None = None,
    ) -> None:
        self._others = others or {}
        self._template = template or ("{stem}-{style}.{ext}" if several else "{stem}.{ext}")
        self._extension, self._deep = extension, deep
        self._taken: dict[str, tuple[str, str]] = {}
        try:
            fields = {field for _, field, _, _ in string.Formatter().parse(self._template) if field is not None}
            path = PurePath(self._fill("a", "b", "png", "a.png")) if fields <= set(FIELDS) else PurePath()
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            raise SettingsError(f"--name {template!r}: {error}") from error
        if unknown := fields - set(FIELDS):
            known = ", ".join(f"{{{field}}}" for field in FIELDS)
            raise SettingsError(f"--name {template!r} has {{{sorted(unknown)[0]}}}; there are {known}")
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise SettingsError(f"--name {template!r} leads out of the output folder")
        if deep and extension and f".{extension}" not in DEEP:
            raise SettingsError(f"--format {extension} holds 8 bits per channel, and --bits 16 is asked for; use png")
        if path.suffix.lower() not in FORMATS:
            raise SettingsError(f"--name {template!r} must end in .{{ext}} or one of {', '.join(FORMATS)}")

    def _fill(self, stem: str, style: str, ext: str, name: str) -> str:
        return self._template.format_map({"stem": stem, "style": style, "ext": ext, "name": name})

    def changes(self, photo: Found) -> int:
        """How far the format of a photo's result is from its own: 0 the same extension, 1 the same format, or 2.

        Where two photos would give their results one name, the one whose format changes less comes first.
        """
        own = photo.relative.suffix.lower()
        result = PurePath(self._fill("a", "b", self._ext(own), "a.png")).suffix.lower()
        return 0 if own == result else 1 if FORMATS.get(own) == FORMATS.get(result) else 2

    def _ext(self, own: str) -> str:
        if own.lower() in self._others:
            return self._others[own.lower()][1:]
        kept = own.lower() in (DEEP if self._deep else FORMATS)
        return self._extension or (own[1:] if kept else "png")

    def give(self, photo: Found, style: str) -> tuple[PurePath, str]:
        """The name for a photo in a style, and what to say of it if it is not the plain one. The same every time."""
        relative = photo.relative
        own = relative.suffix.lower()
        filled = PurePath(self._fill(relative.stem, style, self._ext(relative.suffix), relative.name))
        if own in self._others:
            filled = filled.with_suffix(self._others[own])
        plain = relative.parent / filled
        claim = (photo.name, style)
        candidates = [plain, plain.with_name(f"{plain.stem}-{own[1:] or 'x'}{plain.suffix}")]
        number = 0
        while True:
            number += 1
            candidate = _short(candidates.pop(0))
            if self._taken.setdefault(_key(str(candidate)), claim) == claim:
                break
            if not candidates:
                candidates.append(plain.with_name(f"{plain.stem}-{number}{plain.suffix}"))
        note = "" if candidate == plain else f"{photo.name} becomes {candidate}: {plain} is taken or too long"
        return candidate, note


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _short(path: PurePath) -> PurePath:
    if len(os.fsencode(path.name)) <= LONGEST:
        return path
    mark = f"-{sha256(os.fsencode(path.name)).hexdigest()[:8]}{path.suffix}"
    stem = os.fsencode(path.stem)[: LONGEST - len(os.fsencode(mark))].decode("utf-8", "ignore")
    return path.with_name(stem + mark)


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names for styles: their stems, numbered where two are alike."""
    made: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name, number = path.stem, 1
        while _key(name) in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(_key(name))
        made.append(name)
    return made
