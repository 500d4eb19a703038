"""The folder job: each picture once, its neighbours read and written while it is painted, one bad file costs itself."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import re
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch

from stylize import (
    FORMATS,
    SPARE,
    Frame,
    ImageError,
    Job,
    Origin,
    Picture,
    Settings,
    StylizeError,
    Stylizer,
    atomic_write,
    check_target,
    digest,
    load,
    read_record,
)
from stylize_batch import NAMES
from stylize_batch.claims import Claims
from stylize_batch.report import Entry, page, thumbnail
from stylize_batch.scan import Found, Names, Passed, is_many, names_of, pairs, search

AHEAD = 2  # pictures read ahead, and pictures waiting to be written
STYLES_KEPT = 4
SETTLED = 1.0  # seconds a file must not have changed before it is read from a watched folder
POLL = 1.0  # seconds between looks at a watched folder
UNFINISHED = re.compile(r"\..{0,40}\.(\d+)-[0-9a-f]{8}\.tmp\.\w+")  # how stylize names files in the making
STALE = 5.0  # seconds after which such a file of a process that is gone is removed
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # what the next picture would run into, too

NEW, FORCED = "new", "again: forced"  # why

log = logging.getLogger("stylize.batch")


@dataclass(frozen=True)
class Style:
    """One style to paint in: a picture, or several as a blend."""

    name: str
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Item:
    """One result to be made."""

    photo: Found
    style: int
    target: PurePath  # below the output folder
    why: str = ""


class FolderJob(Job):
    """Every picture of a folder (or of a pattern) into another folder: same tree, same names.

    A result that is there already and whose record says that it was made of the same picture, style, encoder and
    settings is left alone. What fails is told at once and again at the end, and does not stop the rest.

    Raises:
        SettingsError: options that do not fit.
        ImageError: the output folder cannot be used, there is nothing to paint, or no style can be read.
    """

    def __init__(
        self,
        source: Path,
        styles: Sequence[Path],
        target: Path | None,
        settings: Settings,
        options: Mapping[str, Any],
    ) -> None:
        self._source, self._settings, self._options = source, settings, dict(options)
        self._given = {key: value for key, value in options.get("given", {}).items() if key not in NAMES}
        self._folder = _output(source, styles, target)
        self._begun = time.perf_counter()
        self._entries: list[Entry] = []  # what has become of the pictures
        self._styles, self._how = _styles(styles, options.get("pair"), self._folder)
        self._names = Names(
            options.get("name"), options.get("format"), several=self._how == "cross" and len(self._styles) > 1
        )
        self._pictures: OrderedDict[int, tuple[Picture, ...]] = OrderedDict()
        self._bad_styles: dict[int, str] = {}
        self._digests: dict[Path, str] = {}
        self._lock = threading.Lock()
        self._fatal: Exception | None = None
        self._total = self._finished = 0
        self._seen: dict[Path, tuple[int, int]] = {}
        self._started, self._waited = 0.0, False
        if not self._watching and not any(isinstance(found, Found) for found in search(source, [self._folder])):
            raise ImageError(f"{source}: no pictures there")
        self.styles = self._first_style()

    @property
    def _watching(self) -> bool:
        return bool(self._options.get("watch"))

    # --- the job, as the core sees it

    def begin(self, stylizer: Stylizer) -> None:
        self._stylizer = stylizer
        _make_folder(self._folder)
        _remove_unfinished(self._folder)
        self._claims = Claims(self._folder)
        # One thread of torch in each: a second team of OpenMP threads would make those of the optimisation sleep
        # between operations instead of waiting, and cost it half its speed. The setting is the thread's own.
        self._readers = ThreadPoolExecutor(AHEAD, "read", torch.set_num_threads, (1,))
        self._writer = ThreadPoolExecutor(1, "write", torch.set_num_threads, (1,))
        self._writing: deque[Future[None]] = deque()

    def frames(self) -> Iterator[Frame | None]:
        try:
            yield from self._frames(self._plan())
            if self._watching:
                log.info("watching %s; Ctrl-C ends", self._source)
            while self._watching:
                yield from self._frames(self._plan(quiet=True))
                until = time.monotonic() + POLL
                while time.monotonic() < until:
                    yield None
        finally:
            self._readers.shutdown(cancel_futures=True)
            self._writer.shutdown()
            self._claims.close()

    def write(self, frame: Frame, result: Picture) -> None:
        item: Item = frame.data["item"]
        seconds = time.perf_counter() - self._started
        while len(self._writing) >= AHEAD:
            self._writing.popleft().result()
        result = replace(result, record={**(result.record or {}), "options": self._given})  # those of folders left out
        self._writing.append(self._writer.submit(self._write, item, frame.image, result, seconds))

    def failed(self, frame: Frame, error: Exception) -> None:
        item: Item = frame.data["item"]
        self._claims.give(item.target)
        self._fail(item, error)

    def finish(self) -> Path:
        counts, left = Counter(entry.state for entry in self._entries), self._total - self._finished
        said = [f"{counts[state]} {state}" for state in ("painted", "unchanged", "failed", "ignored") if counts[state]]
        if left > 0:
            said.append(f"{left} not begun")
        log.info("%s in %s", ", ".join(said) or "nothing to do", _clock(time.perf_counter() - self._begun))
        for entry in self._entries:
            if entry.state == "failed":
                log.info("%s", " ".join(f"failed: {entry.name}: {entry.reason}".split()))
        self._report()
        if self._fatal is not None:
            raise self._fatal
        if counts["failed"]:
            raise StylizeError(f"{counts['failed']} of {counts['failed'] + counts['painted']} pictures failed")
        return self._folder

    # --- what is to be done

    def _plan(self, quiet: bool = False) -> list[Item]:
        """What has to be painted now; says what is left alone, and why."""
        photos: list[Found] = []
        for found in search(self._source, [self._folder]):
            if isinstance(found, Passed):
                if not quiet:
                    self._pass(found)
            else:
                photos.append(found)
        chosen, alone = pairs(photos, [style.name for style in self._styles], self._how, self._settings.seed)
        if not quiet:
            for passed in alone:
                self._pass(passed)
        items = self._named(chosen, quiet)
        if self._watching:
            arrived = {photo.path for photo in photos if self._arrived(photo.path)}
            items = [item for item in items if item.photo.path in arrived]
        with ThreadPoolExecutor(4, "check") as checkers:
            due = [item for item in checkers.map(self._due, items) if item is not None]
        unchanged = len(items) - len(due)
        if unchanged and not quiet:
            log.info("%d of %d are up to date (--force paints them again)", unchanged, len(items))
        for why, count in Counter(item.why for item in due if item.why != NEW).items():
            log.info("%d of %d to be painted %s", count, len(items), why)
        return due

    def _named(self, chosen: Iterable[tuple[Found, int]], quiet: bool) -> list[Item]:
        sources = {os.path.realpath(photo.path) for photo, _ in chosen}
        sources |= {os.path.realpath(path) for style in self._styles for path in style.paths}
        if self._settings.start_file is not None:
            sources.add(os.path.realpath(self._settings.start_file))
        items = []
        for photo, index in sorted(chosen, key=lambda pair: (pair[0].name.casefold(), pair[0].name, pair[1])):
            target, note = self._names.give(photo, self._styles[index].name)
            if os.path.realpath(self._folder / target) in sources:
                self._pass(Passed(photo.name, f"the result {target} would overwrite a source", True))
                continue
            if note and not quiet:
                log.info("%s", " ".join(note.split()))
            items.append(Item(photo, index, target))
        return sorted(items, key=lambda item: item.style)  # those of one style together

    def _due(self, item: Item) -> Item | None:
        """The item with the reason why it must be painted, or None if it is there."""
        why = self._why(item)
        if not why:
            self._note(Entry(item.photo.name, "unchanged", style=self._styles[item.style].name))
            self._write_sidecar(self._folder / item.target)
            return None
        return replace(item, why=why)

    def _why(self, item: Item) -> str:
        if self._options.get("force"):
            return FORCED
        path = self._folder / item.target
        if not os.path.lexists(path):
            return NEW
        made = read_record(path)
        if made is None:
            return "over a file without a record"
        try:
            wanted = self._record(Origin(item.photo.path, self._digest(item.photo.path)), item.style)
        except ImageError:
            return NEW  # reading it for painting will say what is wrong
        now, then = _comparable(wanted), _comparable(made)
        differing = [key for key in now if then[key] != now[key]]
        return f"again: changed: {', '.join(differing)}" if differing else ""

    def _record(self, photo: Origin, style: int) -> dict[str, Any]:
        origins = [Origin(path, self._digest(path)) for path in self._styles[style].paths]
        saving = {"bits": self._options.get("bits", 8), "quality": self._options.get("quality")}
        return {**self._stylizer.record(photo, origins), "options": self._given, "saving": saving}

    def _digest(self, path: Path) -> str:
        if path not in self._digests or self._watching:
            self._digests[path] = digest(path)
        return self._digests[path]

    def _arrived(self, path: Path) -> bool:
        """Whether a file of a watched folder is new, or has changed since it was seen, and lies still."""
        try:
            status = path.stat()
        except OSError:
            return False
        mark = (status.st_size, status.st_mtime_ns)
        if self._seen.get(path) == mark or 0 <= time.time() - status.st_mtime < SETTLED:
            return False
        self._seen[path] = mark
        return True

    # --- reading ahead

    def _frames(self, items: Sequence[Item]) -> Iterator[Frame | None]:
        self._total += len(items)
        waiting, postponed, reading = deque(items), deque[Item](), deque[tuple[Item, Future[Picture]]]()
        number = self._total - len(items)
        ahead = AHEAD if self._settings.size <= 1024 else 1
        while waiting or postponed or reading:
            if self._fatal is not None:  # finish() raises it
                return
            while waiting and len(reading) <= ahead:
                item = waiting.popleft()
                if self._claims.take(item.target):
                    reading.append((item, self._readers.submit(self._read, item.photo.path)))
                else:
                    postponed.append(item)
            if not reading:  # what is left is being painted by another run
                yield from self._take_over(postponed, waiting)
                continue
            item, future = reading.popleft()
            number += 1
            self._started = time.perf_counter()
            try:
                if self._done_meanwhile(item):
                    self._claims.give(item.target)
                    self._total -= 1
                    number -= 1
                    continue
                self._check(item)
                picture, styles = future.result(), self._style(item.style)
            except Exception as error:
                self._claims.give(item.target)
                self._fail(item, error)
                continue
            data = {"item": item}
            total = None if self._watching else self._total
            yield Frame(item.photo.name, picture, styles=styles, number=number, total=total, data=data)

    def _take_over(self, postponed: deque[Item], waiting: deque[Item]) -> Iterator[None]:
        """Wait until another run is done with a picture, or gone."""
        if not self._waited:
            log.info("waiting for another run, which paints some of these pictures")
        self._waited = True
        while postponed:
            for _ in range(len(postponed)):
                item = postponed.popleft()
                if self._claims.take(item.target):
                    self._claims.give(item.target)
                    waiting.append(item)
                else:
                    postponed.append(item)
            if waiting:
                return
            yield None

    def _check(self, item: Item) -> None:
        """Raise now what writing the result would raise."""
        path = self._folder / item.target
        _make_folder(path.parent)
        check_target(path, bits=self._options.get("bits", 8), quality=self._options.get("quality"))

    def _done_meanwhile(self, item: Item) -> bool:
        if item.why == FORCED or self._why(item):
            return False
        self._note(Entry(item.photo.name, "unchanged", "by another run", self._styles[item.style].name))
        return True

    def _read(self, path: Path) -> Picture:
        return load(path, longest=self._settings.size * SPARE)

    def _style(self, index: int) -> tuple[Picture, ...]:
        if index in self._bad_styles:
            raise ImageError(self._bad_styles[index])
        if index not in self._pictures:
            needed = math.ceil(self._settings.size * max(self._settings.style_scale, self._settings.init == "style"))
            try:
                made = tuple(load(path, longest=needed * SPARE) for path in self._styles[index].paths)
            except ImageError as error:
                self._bad_styles[index] = str(error)
                raise
            self._pictures[index] = made
        self._pictures.move_to_end(index)
        if len(self._pictures) > STYLES_KEPT:
            self._pictures.popitem(last=False)
        return self._pictures[index]

    def _first_style(self) -> tuple[Picture, ...]:
        """The pictures of the first style that can be read."""
        problem: ImageError | None = None
        for index in range(len(self._styles)):
            try:
                return self._style(index)
            except ImageError as error:
                problem = problem or error
        raise problem or ImageError("no style picture given")

    # --- writing, in a thread of its own

    def _write(self, item: Item, photo: Picture, result: Picture, seconds: float) -> None:
        path = self._folder / item.target
        try:
            _make_folder(path.parent)
            result.save(path, bits=self._options.get("bits", 8), quality=self._options.get("quality"))
            self._write_sidecar(path)
            before, after = (
                (thumbnail(photo.opaque().rgb), thumbnail(result.opaque().rgb))
                if self._options.get("report")
                else (b"", b"")
            )
        except Exception as error:
            self._fail(item, error)
            if _errno(error) in FULL:
                self._fatal = error
            return
        finally:
            self._claims.give(item.target)
        reason = "" if item.why == NEW else item.why
        style = self._styles[item.style].name
        entry = Entry(item.photo.name, "painted", reason, style, str(path), seconds, before, after)
        self._note(entry, finished=True)

    def _write_sidecar(self, path: Path) -> None:
        if not self._options.get("sidecar"):
            return
        text, sidecar = json.dumps(read_record(path), indent=2) + "\n", path.with_name(f"{path.name}.json")
        with contextlib.suppress(OSError, ValueError):
            if sidecar.read_text(encoding="utf-8") == text:
                return
        with atomic_write(sidecar) as file:
            file.write_text(text, encoding="utf-8")

    # --- what is told

    def _note(self, entry: Entry, *, finished: bool = False) -> None:
        with self._lock:
            self._entries.append(entry)
            self._finished += finished

    def _pass(self, passed: Passed) -> None:
        """Take note of what is not painted."""
        self._note(Entry(passed.name, "failed" if passed.failed else "ignored", passed.reason))
        if passed.failed:
            log.warning("%s", " ".join(f"{passed.name}: {passed.reason}".split()))

    def _fail(self, item: Item, error: Exception) -> None:
        reason = str(error) if isinstance(error, StylizeError) else f"unexpected {type(error).__name__}: {error}"
        reason = " ".join(reason.split())
        self._note(Entry(item.photo.name, "failed", reason, self._styles[item.style].name), finished=True)
        log.warning("%s", reason if str(item.photo.path) in reason else f"{item.photo.name}: {reason}")

    def _report(self) -> None:
        path: Path | None = self._options.get("report")
        if path is None:
            return
        here = os.path.realpath(path.parent)
        entries = [
            replace(entry, target=os.path.relpath(os.path.realpath(entry.target), here) if entry.target else "")
            for entry in sorted(self._entries, key=lambda entry: (entry.name, entry.style))
        ]
        settings = self._settings
        summary = {
            "styles": ", ".join(style.name for style in self._styles),
            "encoder": self._stylizer.engine.spec.name,
            "size": f"{settings.size} px",
            "content weight": f"{settings.content_weight:g}",
        }
        text = page(entries, title=f"{self._source} → {self._folder}", summary=summary)
        with atomic_write(path) as file:
            file.write_text(text, encoding="utf-8")


def _output(source: Path, styles: Sequence[Path], target: Path | None) -> Path:
    folder = target if target is not None else Path(f"{source.resolve().name or 'pictures'}-stylized")
    if not os.path.isdir(folder) and (os.path.lexists(folder) or folder.suffix.lower() in FORMATS):  # noqa: PTH112
        many = next((path for path in (source, *styles) if is_many(path)), None)
        reason = "--pair can make several results" if many is None else f"{many} holds many pictures"
        raise ImageError(f"{reason}: give -o the name of a folder for the results, not {folder}")
    if os.path.realpath(folder) == os.path.realpath(source):
        raise ImageError(f"the output folder {folder} is the folder of the photos; choose another one with -o")
    return folder


def _styles(given: Sequence[Path], how: str | None, without: Path) -> tuple[list[Style], str]:
    """The styles to choose from, and how they are paired with the photos."""
    if how is None and not any(is_many(path) for path in given):
        return [Style("+".join(names_of(given)), tuple(given))], "cross"
    paths = [found.path for path in given for found in search(path, [without]) if isinstance(found, Found)]
    if not paths:
        raise ImageError(f"{given[0]}: no pictures there")
    return [Style(name, (path,)) for name, path in zip(names_of(paths), paths, strict=True)], how or "cross"


def _comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a result another one: not where the files lie, which version it was, or on what device."""

    def content(origin: Any) -> Any:
        return origin.get("sha256") if isinstance(origin, Mapping) else None

    settings, styles, start = record.get("settings"), record.get("styles"), record.get("init")
    settings = settings if isinstance(settings, Mapping) else {}
    ignored = {"device", "memory", "encoder", *(["init"] if start else [])}
    return {
        "photo": content(record.get("content")),
        "style": [content(style) for style in styles] if isinstance(styles, list) else None,
        "start": content(start),
        "settings": {key: value for key, value in settings.items() if key not in ignored},
        "encoder": record.get("encoder"),
        "options": record.get("options"),
        "saving": record.get("saving"),
        "stopped": record.get("stopped", False),
    }


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"cannot make the folder {folder}: {error.strerror}") from error


def _remove_unfinished(folder: Path) -> None:
    """Remove what killed runs left of pictures they were writing."""
    for parent, _, names in os.walk(folder):
        for name in names:
            match = UNFINISHED.fullmatch(name)
            path = Path(parent, name)
            with contextlib.suppress(OSError):
                if match and time.time() - path.stat().st_mtime > STALE and not _alive(int(match[1])):
                    path.unlink()


def _alive(process: int) -> bool:
    if os.name == "nt":  # asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _errno(error: BaseException | None) -> int | None:
    """The system's error code behind an error."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno
        error = error.__cause__
    return None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
