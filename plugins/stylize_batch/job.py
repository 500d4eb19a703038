"""The folder job: each picture once, its neighbours read and written while it is painted, one bad file costs itself."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stylize import (
    FORMATS,
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
    atomic_write,
    check_folder,
    claims_inside,
    is_folder,
    is_leftover,
)
from stylize.text import duration
from stylize_batch import NAMES
from stylize_batch.files import AHEAD, Files, Outcome, make_folder
from stylize_batch.ledger import Ledger
from stylize_batch.notes import note as write_note
from stylize_batch.order import Order
from stylize_batch.others import Other
from stylize_batch.plan import FORCED, Item, Planner, Verdict
from stylize_batch.report import Entry, page, seen_from
from stylize_batch.scan import EXTENSIONS, Excluded, Found, Names, Passed, check_found, is_many, search
from stylize_batch.styles import Styles
from stylize_batch.watch import Watched

log = logging.getLogger("stylize.batch")


@dataclass(frozen=True)
class Numbered:
    """An item, and where it stands among those of the run, counted from 1."""

    item: Item
    number: int
    total: int | None


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
            unchanged=lambda item: self._note(self._files.kept(item)),
            kept=lambda item, why: self._note(self._files.left(item, why)),
            others=self._endings,
        )
        self._files = Files(self._folder, self._styles.names, self._planner, self._options, settings.size)
        if options.get("watch") and isinstance(source, StorePath):
            raise SettingsError(f"--watch looks at folders of this machine; {source} is in a store")
        self._watched = Watched(source, self._folder) if options.get("watch") else None
        self._ledger = Ledger()
        self._areas = self._planner.areas
        self._total = self._tried = 0
        self._fatal = ""  # why no more can be written
        self._planned = self._painting = False  # whether chains() has been called, and frames()
        self._order = Order(0)
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
        make_folder(self._folder)
        self._files.open()

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
                self._note(self._files.elsewhere(item))
                self._tried += 1
                continue
            if self._painting:  # here, and not in other processes
                self._files.read_ahead((item, *(items[number] for number in order.ahead(ahead))))
            total = self._total if self._watched is None else None
            yield Chain(str(item.target), Numbered(item, first + index, total))
            self._files.forget(item)  # another run is painting it

    def frames(self, chain: Chain) -> Iterator[Frame]:
        self._painting = True
        numbered: Numbered = chain.data
        item = numbered.item
        if self._fatal:
            return
        try:
            self.claims.look_anew((self._folder / item.target).parent)
            forced = item.why != FORCED or not self.claims.is_done(chain.key)  # not by another run meanwhile
            elsewhere = self._is_done_elsewhere(item)
            verdict = Verdict(False) if elsewhere else self._planner.verdict(item, self._stylizer, force=forced)
            if not verdict.paint:
                done = self._files.left(item, verdict.why) if verdict.why else self._files.elsewhere(item)
                self._outcomes[chain.key] = done
                return
            if item.other:
                yield from self._frames_of(chain)
                return
            self._files.check(item)
            picture = self._files.read(item)
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

    def held(self, chain: Chain) -> None:
        self._order.go_elsewhere()
        self._files.forget_all()
        self.claims.look_done()

    def _is_done_elsewhere(self, item: Item) -> bool:
        """Whether another run has said that it has painted that meanwhile."""
        return self._watched is None and self.claims.is_known_done(
            str(item.target), self._planner.mark(item, self._stylizer)
        )

    def _frames_of(self, chain: Chain) -> Iterator[Frame]:
        """Those of a file that another plugin opens."""
        item: Item = chain.data.item
        path, pictures, own = self._folder / item.target, self._styles.pictures(item.style), self._stylizer
        assert self._host is not None
        make_folder(path.parent)
        styles = self._styles.all[item.style].paths, pictures
        other = self._open[chain.key] = Other(
            item, path, styles, self._settings, self._options, self._given, self._host
        )
        yield from other.frames(own if pictures is self.styles else own.restyled(pictures))
        if other.result is None:
            return
        write_note(other.result, replace(self._planner.record(item, own), stopped=False).to_dict())
        self.claims.note_done(chain.key, self._planner.mark(item, self._stylizer), at_once=False)
        self._outcomes[chain.key] = self._files.painted(item, other.result, other.seconds)

    def write(self, frame: Frame, painted: Painted) -> None:
        if "other" in frame.data:
            frame.data["other"].write(frame, painted)
            return
        chain: Chain = frame.data["chain"]
        record = {**(painted.picture.record or {}), "options": self._given}  # those of folders left out
        painted = replace(painted, picture=replace(painted.picture, record=record))
        self._outcomes[chain.key] = self._files.later(lambda: self._write(chain, frame.image, painted))

    def _write(self, chain: Chain, photo: Picture, painted: Painted) -> Outcome:
        item: Item = chain.data.item
        outcome = self._files.write(item, photo, painted)
        if outcome.entry.state == "painted":
            if item.why == FORCED:
                self.claims.note_done(chain.key)
            if not painted.stopped:
                self.claims.note_done(chain.key, self._planner.mark(item, self._stylizer), at_once=False)
        return outcome

    def failed(self, chain: Chain, error: Exception) -> None:
        if other := self._open.get(chain.key):
            other.broken = True
        self._outcomes[chain.key] = self._files.failure(chain.data.item, error)

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
        self._files.close()
        seconds = duration(time.perf_counter() - self._begun)
        self._ledger.tell(self._total - self._tried, len(self._styles.all) > 1, seconds)
        self._report()
        counts = self._ledger.counts()
        if self._fatal:
            raise ImageError(self._fatal)
        if self._watched is None and (gone := self._ledger.gone()):
            raise StylizeError(
                f"{gone} of {counts['painted']} results are no longer in {self._folder}: somebody has removed them; "
                "the same command paints them again"
            )
        if counts["failed"]:
            raise StylizeError(f"{counts['failed']} of {counts['failed'] + counts['painted']} pictures failed")
        return self._folder

    # --- what is told

    def _pass(self, passed: Passed) -> None:
        """Take note of what is not painted."""
        entry = Entry(passed.name, "failed" if passed.failed else "ignored", passed.reason)
        self._ledger.take(entry, f"{passed.name}: {passed.reason}" if passed.failed else "")

    def _note(self, outcome: Outcome) -> None:
        """Take note of what is not tried."""
        self._ledger.take(outcome.entry, outcome.said)

    def _report(self) -> None:
        path: Path | None = self._options.get("report")
        if path is None:
            return
        settings = self._settings
        summary = {
            "styles": ", ".join(self._styles.names),
            "encoder": self._stylizer.engine.spec.name,
            "size": f"{settings.size} px",
            "content weight": f"{settings.content_weight:g}",
        }
        entries = seen_from(path, self._ledger.entries())
        text = page(entries, title=f"{self._source} → {self._folder}", summary=summary)
        with atomic_write(path) as file:
            file.write_text(text, encoding="utf-8")


def _output(source: Path, styles: Sequence[Path], target: Path | None) -> Path:
    folder = target if target is not None else Path(f"{source.resolve().name or 'pictures'}-stylized")
    if not is_folder(folder) and (os.path.lexists(folder) or folder.suffix.lower() in FORMATS):
        many = next((path for path in (source, *styles) if is_many(path)), None)
        reason = "--pair can make several results" if many is None else f"{many} holds many pictures"
        raise TargetError(f"{reason}: give -o the name of a folder for the results, not {folder}")
    if os.path.realpath(folder) == os.path.realpath(source):
        raise TargetError(f"the output folder {folder} is the folder of the photos; choose another one with -o")
    return folder


def _remove_unfinished(folder: Path) -> None:
    """Remove what killed runs left of pictures they were writing."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if is_leftover(path):
                path.unlink(missing_ok=True)
