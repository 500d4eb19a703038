"""The folder job: each picture once, its neighbours read and written while it is painted, one bad file costs itself."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch

from stylize import (
    FORMATS,
    SPARE,
    Chain,
    Claims,
    Frame,
    Host,
    ImageError,
    Job,
    Painted,
    Picture,
    Settings,
    SettingsError,
    StorePath,
    StylizeError,
    Stylizer,
    TargetError,
    as_mask,
    as_path,
    atomic_write,
    check_folder,
    check_target,
    claims_inside,
    is_folder,
    is_leftover,
    keeping_edits,
    load,
    read_record,
)
from stylize.text import duration
from stylize_batch import NAMES
from stylize_batch.ledger import Ledger
from stylize_batch.notes import note as write_note
from stylize_batch.order import Order
from stylize_batch.others import Other
from stylize_batch.plan import FORCED, NEW, Item, Planner, Verdict
from stylize_batch.report import Entry, page, thumbnail
from stylize_batch.scan import EXTENSIONS, Excluded, Found, Names, Passed, check_found, is_many, search
from stylize_batch.styles import Styles
from stylize_batch.watch import Watched

AHEAD = 2  # pictures read ahead, and pictures waiting to be written
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # what the next picture would run into, too

log = logging.getLogger("stylize.batch")


@dataclass(frozen=True)
class Numbered:
    """An item, and where it stands among those of the run, counted from 1."""

    item: Item
    number: int
    total: int | None


@dataclass(frozen=True)
class Outcome:
    """What became of a picture, what is to be said of it, if no other can be written either, why, and whether another
    run has painted it."""

    entry: Entry
    said: str = ""
    fatal: str = ""
    elsewhere: bool = False


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
        host: Host | None = None,
    ) -> None:
        self._source, self._settings, self._options = source, settings, dict(options)
        self._given = {key: value for key, value in options.get("given", {}).items() if key not in NAMES}
        self._folder = _output(source, styles, target)
        self._host, endings = host, {} if host is None else host.endings()
        if isinstance(source, StorePath) or isinstance(self._folder, StorePath):  # others work with files
            endings = {}
        self._endings = {own: end for own, end in endings.items() if own not in EXTENSIONS}
        self._begun = time.perf_counter()
        excluded = Excluded(options.get("exclude") or ())
        self._styles = Styles(styles, options.get("pair"), self._folder, settings, excluded)
        deep = options.get("bits") == 16
        several = self._styles.how == "cross" and len(self._styles.all) > 1
        self._planner = Planner(
            *(source, self._folder, self._styles),
            Names(options.get("name"), options.get("format"), several=several, deep=deep, others=self._endings),
            *(settings, options, self._given),
            passed=self._pass,
            unchanged=self._keep,
            kept=self._leave,
            others=self._endings,
        )
        if options.get("watch") and isinstance(source, StorePath):
            raise SettingsError(f"--watch looks at folders of this machine; {source} is in a store")
        self._watched = Watched(source, self._folder) if options.get("watch") else None
        self._ledger = Ledger()
        self._areas = self._planner.areas
        self._total = self._tried = 0
        self._fatal = ""  # why no more can be written
        self._planned = self._painting = False  # whether chains() has been called, and frames()
        self._order = Order(0)
        self._marks: dict[int, str] = {}  # by style: what of a run decides how its results look
        self._reading: dict[PurePath, Future[Picture]] = {}
        self._writing: deque[Future[Outcome]] = deque()
        self._outcomes: dict[str, Outcome | Future[Outcome]] = {}
        self._open: dict[str, Other] = {}  # what other plugins open, by the key of its chain
        self.poll = None if self._watched is None else self._watched.poll
        self.claims: Claims = Claims(claims_inside(self._folder))
        there = [*search(source, [self._folder], excluded, self._endings)]
        if self._watched is None:
            check_found(source, there)
        self.mixed = any(found.path.suffix.lower() in self._endings for found in there if isinstance(found, Found))
        self.styles = self._styles.first()

    # --- the job, as the core sees it

    def begin(self, stylizer: Stylizer) -> None:
        self._stylizer = stylizer
        _make_folder(self._folder)
        # One thread of torch in each: a second team of OpenMP threads would make those of the optimisation sleep
        # between operations instead of waiting, and cost it half its speed. The setting is the thread's own.
        self._readers = ThreadPoolExecutor(AHEAD, "read", torch.set_num_threads, (1,))
        self._writer = ThreadPoolExecutor(1, "write", torch.set_num_threads, (1,))

    def chains(self) -> Iterator[Chain]:
        if self._watched is not None:
            changed, self.poll = self._watched.changed(), self._watched.poll
            if self._planned and not changed:
                return
        if not self._planned:
            _remove_unfinished(self._folder)
        if self._watched is None:
            self.claims.watch_done()
        items = self._planner.due(self._stylizer, quiet=self._planned)
        if items:
            check_folder(self._folder)
        if self._watched is not None and not self._planned:
            log.info("watching %s; Ctrl-C ends", self._source)
        self._planned = True
        first, self._total = self._total + 1, self._total + len(items)
        if self._watched is None:
            before = self._ledger.counts()["unchanged"]
            self.claims.tell(total=self._total + before, before=before)
        ahead = AHEAD if self._settings.size <= 1024 else 1
        order = self._order = Order(len(items))
        while (index := order.take()) is not None:
            if self._fatal:  # finish() raises it
                return
            item = items[index]
            if self._is_done_elsewhere(item):
                self._ledger.take(self._done_elsewhere(item).entry)
                self._tried += 1
                continue
            if self._painting:  # here, and not in other processes
                for each in (item, *(items[number] for number in order.ahead(ahead))):
                    if each.target not in self._reading and not each.other:
                        self._reading[each.target] = self._readers.submit(self._read, each)
            total = self._total if self._watched is None else None
            yield Chain(str(item.target), Numbered(item, first + index, total))
            self._reading.pop(item.target, None)  # another run is painting it

    def frames(self, chain: Chain) -> Iterator[Frame]:
        self._painting = True
        numbered: Numbered = chain.data
        item = numbered.item
        if self._fatal:
            return
        try:
            verdict = Verdict(False) if self._is_done_elsewhere(item) else self._verdict(chain)
            if not verdict.paint:
                done = self._left(item, verdict.why) if verdict.why else self._done_elsewhere(item)
                self._outcomes[chain.key] = done
                return
            if item.other:
                yield from self._frames_of(chain)
                return
            self._check(item)
            reading = self._reading.pop(item.target, None)
            picture = self._read(item) if reading is None else reading.result()
            styles = self._styles.pictures(item.style)
            mask = self._areas.mask if item.mask is None else as_mask(item.mask)
        except Exception as error:
            self.failed(chain, error)
            return
        yield Frame(
            item.photo.name,
            picture,
            styles=styles,
            mask=mask,
            regions=self._areas.regions,
            number=numbered.number,
            total=numbered.total,
            data={"chain": chain},
        )

    def _verdict(self, chain: Chain) -> Verdict:
        """Whether a result is still to be painted: another run may have done so meanwhile."""
        item: Item = chain.data.item
        if item.why == FORCED and self.claims.is_done(chain.key):
            return self._planner.verdict(item, self._stylizer, force=False)
        return self._planner.verdict(item, self._stylizer)

    def held(self, chain: Chain) -> None:
        self._order.go_elsewhere()
        for reading in self._reading.values():
            reading.cancel()
        self._reading.clear()
        self.claims.look_done()

    def _mark(self, item: Item) -> str:
        """Says what is made of a photo: the same in all runs that would make the same."""
        if item.style not in self._marks:
            self._marks[item.style] = self._planner.mark(item, self._stylizer)
        return self._marks[item.style]

    def _is_done_elsewhere(self, item: Item) -> bool:
        """Whether another run has said that it has painted that meanwhile."""
        return self._watched is None and self.claims.is_known_done(str(item.target), self._mark(item))

    def _done_elsewhere(self, item: Item) -> Outcome:
        entry = Entry(item.photo.name, "unchanged", "by another run", self._styles.names[item.style])
        return Outcome(entry, elsewhere=True)

    def _frames_of(self, chain: Chain) -> Iterator[Frame]:
        """Those of a file that another plugin opens."""
        item: Item = chain.data.item
        path, pictures, own = self._folder / item.target, self._styles.pictures(item.style), self._stylizer
        assert self._host is not None
        _make_folder(path.parent)
        styles = self._styles.all[item.style].paths, pictures
        other = self._open[chain.key] = Other(
            item, path, styles, self._settings, self._options, self._given, self._host
        )
        yield from other.frames(own if pictures is self.styles else own.restyled(pictures))
        if other.result is None:
            return
        write_note(other.result, replace(self._planner.record(item, own), stopped=False).to_dict())
        self.claims.note_done(chain.key, self._mark(item), at_once=False)
        name, style = item.photo.name, self._styles.names[item.style]
        reason = "" if item.why == NEW else item.why
        self._outcomes[chain.key] = Outcome(
            Entry(name, "painted", reason, style, str(other.result), other.seconds, b"", b"")
        )

    def write(self, frame: Frame, painted: Painted) -> None:
        if "other" in frame.data:
            frame.data["other"].write(frame, painted)
            return
        chain: Chain = frame.data["chain"]
        while len(self._writing) >= AHEAD:
            self._writing.popleft().result()
        record = {**(painted.picture.record or {}), "options": self._given}  # those of folders left out
        painted = replace(painted, picture=replace(painted.picture, record=record))
        future = self._writer.submit(self._write, chain, frame.image, painted)
        self._writing.append(future)
        self._outcomes[chain.key] = future

    def failed(self, chain: Chain, error: Exception) -> None:
        if other := self._open.get(chain.key):
            other.broken = True
        self._outcomes[chain.key] = self._failure(chain.data.item, error)

    def outcome(self, chain: Chain) -> Outcome | Future[Outcome] | None:
        self._open.pop(chain.key, None)
        return self._outcomes.pop(chain.key, None)

    def collect(self, chain: Chain, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        if outcome.elsewhere:
            self.held(chain)
        self._ledger.take(outcome.entry, outcome.said)
        self._tried += 1
        if outcome.entry.state == "failed":
            self.claims.tell(failed=self._ledger.counts()["failed"])
        self._fatal = self._fatal or outcome.fatal

    def finish(self) -> Path:
        self._readers.shutdown(cancel_futures=True)
        self._writer.shutdown()
        seconds = duration(time.perf_counter() - self._begun)
        self._ledger.tell(self._total - self._tried, len(self._styles.all) > 1, seconds)
        self._report()
        counts = self._ledger.counts()
        if self._fatal:
            raise ImageError(self._fatal)
        if self._watched is None and (gone := self._gone()):
            raise StylizeError(
                f"{gone} of {counts['painted']} results are no longer in {self._folder}: somebody has removed them; "
                "the same command paints them again"
            )
        if counts["failed"]:
            raise StylizeError(f"{counts['failed']} of {counts['failed'] + counts['painted']} pictures failed")
        return self._folder

    def _gone(self) -> int:
        """How many results of this run somebody has removed."""
        targets = [as_path(entry.target) for entry in self._ledger.entries() if entry.state == "painted"]
        return sum(not isinstance(target, StorePath) and not os.path.lexists(target) for target in targets)

    # --- reading and writing, in threads of their own

    def _read(self, item: Item) -> Picture:
        profile = self._options.get("profile") or "srgb"
        return load(item.photo.path, longest=self._settings.size * SPARE, profile=profile)

    def _check(self, item: Item) -> None:
        """Raise now what writing the result would raise."""
        path = self._folder / item.target
        _make_folder(path.parent)
        check_target(path, bits=self._options.get("bits"), quality=self._options.get("quality"))

    def _write(self, chain: Chain, photo: Picture, painted: Painted) -> Outcome:
        item: Item = chain.data.item
        path, result = self._folder / item.target, painted.picture
        before = after = b""
        try:
            _make_folder(path.parent)
            if why := self._planner.kept(item.target):
                return self._left(item, why)
            if not self._options.get("force"):
                result = keeping_edits(result, path)
            result.save(
                path,
                bits=self._options.get("bits"),
                quality=self._options.get("quality"),
                location=not self._options.get("no_location"),
            )
            if self._options.get("sidecar"):
                self._write_sidecar(path)
            if self._options.get("report"):
                before, after = (thumbnail(each.opaque().in_profile().rgb) for each in (photo, result))
        except Exception as error:
            return self._failure(item, error)
        if item.why == FORCED:
            self.claims.note_done(chain.key)
        if not painted.stopped:
            self.claims.note_done(chain.key, self._mark(item), at_once=False)
        reason = "" if item.why == NEW else item.why
        style = self._styles.names[item.style]
        return Outcome(Entry(item.photo.name, "painted", reason, style, str(path), painted.seconds, before, after))

    # --- what is told

    def _pass(self, passed: Passed) -> None:
        """Take note of what is not painted."""
        entry = Entry(passed.name, "failed" if passed.failed else "ignored", passed.reason)
        self._ledger.take(entry, f"{passed.name}: {passed.reason}" if passed.failed else "")

    def _keep(self, item: Item) -> None:
        """Take note of a result that is up to date."""
        outcome = Outcome(Entry(item.photo.name, "unchanged", style=self._styles.names[item.style]))
        try:
            if self._options.get("sidecar"):
                self._write_sidecar(self._folder / item.target)
        except Exception as error:
            outcome = self._failure(item, error)
        self._ledger.take(outcome.entry, outcome.said)

    def _leave(self, item: Item, why: str) -> None:
        """Take note of a file that is not painted over."""
        outcome = self._left(item, why)
        self._ledger.take(outcome.entry, outcome.said)

    def _left(self, item: Item, why: str) -> Outcome:
        said = f"{self._folder / item.target} is left as it is: {why} (--force paints over it)"
        return Outcome(Entry(item.photo.name, "skipped", f"{item.target}: {why}", self._styles.names[item.style]), said)

    def _failure(self, item: Item, error: Exception) -> Outcome:
        reason = str(error) if isinstance(error, StylizeError) else f"unexpected {type(error).__name__}: {error}"
        reason = " ".join(reason.split())
        said = reason if str(item.photo.path) in reason else f"{item.photo.name}: {reason}"
        entry = Entry(item.photo.name, "failed", reason, self._styles.names[item.style])
        return Outcome(entry, said, reason if _errno(error) in FULL else self._folder_problem())

    def _folder_problem(self) -> str:
        """Why no result can be written any more, or nothing."""
        if isinstance(self._folder, StorePath) or not is_folder(self._folder):  # one that is gone is made anew
            return ""
        try:
            check_folder(self._folder)
        except ImageError as error:
            return str(error)
        return ""

    def _write_sidecar(self, path: Path) -> None:
        """Write the record of a result into a file beside it, unless it is there."""
        text, sidecar = json.dumps(read_record(path), indent=2) + "\n", path.with_name(f"{path.name}.json")
        try:
            there = sidecar.read_text(encoding="utf-8")
            if there == text:
                return
            if there.strip() and not (self._options.get("force") or _is_sidecar(there)):
                raise ImageError(f"{sidecar} is no record of stylize; move it away, or --force writes over it")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ImageError(f"cannot read {sidecar}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ImageError(f"{sidecar} is no record of stylize; move it away") from error
        with atomic_write(sidecar) as file:
            file.write_text(text, encoding="utf-8")

    def _report(self) -> None:
        path: Path | None = self._options.get("report")
        if path is None:
            return
        here = os.path.realpath(path.parent)
        entries = [
            replace(entry, target=_seen_from(here, entry.target) if entry.target else "")
            for entry in self._ledger.entries()
        ]
        settings = self._settings
        summary = {
            "styles": ", ".join(self._styles.names),
            "encoder": self._stylizer.engine.spec.name,
            "size": f"{settings.size} px",
            "content weight": f"{settings.content_weight:g}",
        }
        text = page(entries, title=f"{self._source} → {self._folder}", summary=summary)
        with atomic_write(path) as file:
            file.write_text(text, encoding="utf-8")


def _seen_from(here: str, target: str) -> str:
    """The path of a result as seen from a folder; nothing for what is in a store, which no browser opens."""
    return "" if isinstance(as_path(target), StorePath) else os.path.relpath(os.path.realpath(target), here)


def _is_sidecar(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"stylize", "settings", "content"} <= found.keys()


def _output(source: Path, styles: Sequence[Path], target: Path | None) -> Path:
    folder = target if target is not None else Path(f"{source.resolve().name or 'pictures'}-stylized")
    if not is_folder(folder) and (os.path.lexists(folder) or folder.suffix.lower() in FORMATS):
        many = next((path for path in (source, *styles) if is_many(path)), None)
        reason = "--pair can make several results" if many is None else f"{many} holds many pictures"
        raise TargetError(f"{reason}: give -o the name of a folder for the results, not {folder}")
    if os.path.realpath(folder) == os.path.realpath(source):
        raise TargetError(f"the output folder {folder} is the folder of the photos; choose another one with -o")
    return folder


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"cannot make the folder {folder}: {error.strerror}") from error


def _remove_unfinished(folder: Path) -> None:
    """Remove what killed runs left of pictures they were writing."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if is_leftover(path):
                path.unlink(missing_ok=True)


def _errno(error: BaseException | None) -> int | None:
    """The system's error code behind an error."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno
        error = error.__cause__
    return None
