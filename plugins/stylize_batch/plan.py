"""What of a folder has to be painted: which results are missing, or were made of something else."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch

from stylize import (
    ImageError,
    Mask,
    Origin,
    Record,
    Saved,
    Settings,
    SettingsError,
    StorePath,
    Stylizer,
    as_path,
    chosen_areas,
    digest,
    is_folder,
    read_record,
    saved_state,
    saving_of,
)
from stylize_batch.notes import noted, noted_state
from stylize_batch.scan import RAW, Excluded, Found, Names, Passed, check_found, pairs, search
from stylize_batch.styles import Styles

NEW, FORCED, DAMAGED = "new", "again: forced", "again: damaged"  # why
KEPT = {  # why a file that bears the name of a result is not painted over
    Saved.FOREIGN: "there is a file without a record",
    Saved.RETOUCHED: "it was edited since it was painted",
}
CHECKS, REQUESTS = 4, 16  # results that are looked at at a time: on disks, and in a store
SETTLED = 1.0  # seconds a file must not have changed before it is read from a watched folder

log = logging.getLogger("stylize.batch")


@dataclass(frozen=True)
class Item:
    """One result to be made."""

    photo: Found
    style: int
    target: PurePath  # below the output folder
    mask: Path | None = None  # of its own
    other: bool = False  # no picture, but what another plugin opens
    why: str = ""
    before: tuple[int, ...] = ()  # marks the file that was there when this was planned


@dataclass(frozen=True)
class Verdict:
    """What is to be done about a result: ``paint`` it and why, or leave it alone: up to date if ``why`` is empty."""

    paint: bool
    why: str = ""


class Planner:
    """Finds what is to be painted.

    Args:
        source: the folder or pattern of photos.
        folder: the output folder.
        styles, names: what to paint in, and how results are called.
        settings, options: those of the run.
        given: the options of plugins that the records of results hold.
        passed: called with each file that is not painted.
        unchanged: called with each item whose result is there already.
        others: endings of files that other plugins open.
        kept: called with each item in whose place is a file that must not be painted over, and why.
    """

    def __init__(
        self,
        source: Path,
        folder: Path,
        styles: Styles,
        names: Names,
        settings: Settings,
        options: Mapping[str, Any],
        given: Mapping[str, Any],
        *,
        passed: Callable[[Passed], object],
        unchanged: Callable[[Item], object],
        kept: Callable[[Item, str], object],
        others: Collection[str] = (),
    ) -> None:
        self._others = others
        self._source, self._folder, self._styles, self._names = source, folder, styles, names
        self._settings, self._options, self._given = settings, options, given
        self._passed, self._unchanged, self._kept = passed, unchanged, kept
        self._excluded = Excluded(options.get("exclude") or ())
        self.areas = chosen_areas(options, settings)
        self._masks = _masks(options, others)
        self._watching = bool(options.get("watch"))
        self._digests: dict[Path, str] = {}
        self._marks: dict[int, str] = {}  # by style
        self._seen: dict[Path, tuple[int, int]] = {}
        self._listed: dict[PurePath, StorePath] | None = None  # what there is in a store, while all is looked at

    def due(self, stylizer: Stylizer, *, quiet: bool = False) -> list[Item]:
        """What has to be painted now; unless ``quiet``, says what is left alone, and why."""
        photos: list[Found] = []
        raw = 0
        for found in search(self._source, [self._folder], self._excluded, self._others):
            if not isinstance(found, Passed):
                photos.append(found)
            elif not quiet:
                raw += found.reason == RAW
                self._passed(found)
        if raw:
            log.info("raw files of cameras are ignored (%d): develop them to TIFF or JPEG first", raw)
        chosen, alone = pairs(photos, self._styles.names, self._styles.how, self._settings.seed)
        if not quiet:
            for passed in alone:
                self._passed(passed)
            if alone and not chosen:
                log.warning("no style has the name of a picture, and --pair name is asked for")
        items = self._named(chosen, quiet)
        if self._watching:
            arrived = {photo.path for photo in photos if self._arrived(photo.path)}
            items = [item for item in items if item.photo.path in arrived]
        due, unchanged = [], 0
        for item, (verdict, mark) in zip(items, self._verdicts(items, stylizer), strict=True):
            if verdict.paint:
                due.append(replace(item, why=verdict.why, before=mark))
            elif verdict.why:
                self._kept(item, verdict.why)
            else:
                unchanged += 1
                self._unchanged(item)
        if unchanged and not quiet:
            log.info("%d of %d are up to date (--force paints them again)", unchanged, len(items))
        for why, count in Counter(item.why for item in due if item.why != NEW).items():
            log.info("%d of %d to be painted %s", count, len(items), why)
        return due

    def _verdicts(self, items: Sequence[Item], stylizer: Stylizer) -> list[tuple[Verdict, tuple[int, ...]]]:
        """What is to be done about each item, and what marks the file that is there. What a store holds is listed
        once, not asked for one by one."""
        folder = self._folder
        stored = isinstance(folder, StorePath) or isinstance(self._source, StorePath)
        self._listed = folder.below() if isinstance(folder, StorePath) else None
        try:
            with ThreadPoolExecutor(REQUESTS if stored else CHECKS, "check") as checkers:
                return [
                    *checkers.map(lambda item: (self.verdict(item, stylizer), _mark(self._place(item.target))), items)
                ]
        finally:
            self._listed = None

    def _place(self, target: PurePath) -> Path:
        """Where a result lies."""
        if self._listed is None:
            return self._folder / target
        assert isinstance(self._folder, StorePath)
        return self._listed.get(target) or (self._folder / target).as_absent()

    def verdict(self, item: Item, stylizer: Stylizer, *, force: bool = True) -> Verdict:
        """Whether an item has to be painted, and why. What others made or edited is never painted over.

        Without ``force``, the option is not heeded.
        """
        path = self._place(item.target)
        if force and self._options.get("force") and (not item.why or _mark(path) == item.before):
            return Verdict(True, FORCED)  # else another run has painted it meanwhile: perhaps the same
        if not _holds_something(path):
            return Verdict(True, NEW)  # what is no file at all is refused when it is to be written
        made = noted(path) if item.other else read_record(path)
        try:
            wanted = self.record(item, stylizer, made)
        except ImageError:
            return Verdict(True, NEW)  # reading it for painting will say what is wrong
        differing = [] if made is None else wanted.changes_since(Record.from_dict(made))
        if made is not None and not differing:
            return Verdict(False)
        if self._options.get("force"):
            return Verdict(True, FORCED)
        state = noted_state(path) if item.other else saved_state(path)
        if state in KEPT:
            return Verdict(False, KEPT[state])
        return Verdict(True, f"again: changed: {', '.join(differing)}" if differing else DAMAGED)

    def kept(self, target: PurePath) -> str:
        """Why the file at a target must not be painted over, which may have come since it was planned, or nothing."""
        path = self._folder / target
        if self._options.get("force") or not _holds_something(path):
            return ""
        return KEPT.get(saved_state(path), "")

    def record(self, item: Item, stylizer: Stylizer, made: Mapping[str, Any] | None = None) -> Record:
        """The record that the result is to have; ``made`` is the one that it has, if any."""
        known = Record.from_dict(made or {}).content or {}
        if (version := _version(item.photo.path)) and known.get("version") == version:  # and need not be fetched
            photo = Origin(item.photo.path, str(known.get("sha256")))
        else:
            photo = Origin(item.photo.path, self._digest(item.photo.path))
        styles = [Origin(path, self._digest(path)) for path in self._styles.all[item.style].paths]
        mask = self.areas.mask
        if item.mask is not None:
            mask = Mask(torch.zeros(1, 1, 1, 1, dtype=torch.float32), Origin(item.mask, self._digest(item.mask)))
        wanted = stylizer.record(photo, styles, mask=mask, regions=self.areas.regions)
        return replace(wanted, options=dict(self._given), saving=saving_of(self._options))

    def mark(self, item: Item, stylizer: Stylizer) -> str:
        """Says what is made of the photos in a style: the same in all runs that would make the same."""
        if item.style in self._marks:
            return self._marks[item.style]
        styles = [Origin(path, self._digest(path)) for path in self._styles.all[item.style].paths]
        wanted = stylizer.record(None, styles, mask=self.areas.mask, regions=self.areas.regions)
        wanted = replace(wanted, options=dict(self._given), saving=saving_of(self._options))
        masks = self._options.get("mask_folder")
        mark = f"{wanted.fingerprint()} {_absolute(self._source)} {masks and _absolute(as_path(masks))}"
        return self._marks.setdefault(item.style, mark)

    def _named(self, chosen: Iterable[tuple[Found, int]], quiet: bool) -> list[Item]:
        sources = {os.path.realpath(photo.path) for photo, _ in chosen}
        sources |= {os.path.realpath(path) for style in self._styles.all for path in style.paths}
        if self._settings.start_file is not None:
            sources.add(os.path.realpath(self._settings.start_file))
        sources |= {os.path.realpath(path) for path in (*self.areas.files, *(self._masks or {}).values())}
        items = []
        by_name = sorted(chosen, key=lambda pair: (pair[0].name.casefold(), pair[0].name, pair[1]))
        for photo, index in sorted(by_name, key=lambda pair: self._names.changes(pair[0])):
            target, note = self._names.give(photo, self._styles.names[index])
            if os.path.realpath(self._folder / target) in sources:
                self._passed(Passed(photo.name, f"the result {target} would overwrite a source", True))
                continue
            if note and not quiet:
                log.info("%s", " ".join(note.split()))
            mask = None if self._masks is None else self._masks.get(_without_extension(photo.relative))
            if self._masks is not None and mask is None:
                if not quiet:
                    self._passed(Passed(photo.name, "no mask of its name", False))
                continue
            other = photo.relative.suffix.lower() in self._others
            items.append(Item(photo, index, target, mask=mask, other=other))
        if chosen and not items and self._masks is not None and not quiet:
            log.warning("no picture has a mask of its name in %s", self._options["mask_folder"])
        place = {id(photo): number for number, (photo, _) in enumerate(by_name)}
        return sorted(items, key=lambda item: (item.style, place[id(item.photo)]))  # those of one style together

    def _digest(self, path: Path) -> str:
        if path not in self._digests or self._watching:
            self._digests[path] = digest(path)
        return self._digests[path]

    def _arrived(self, path: Path) -> bool:
        """Whether a file of a watched folder is new, or has changed since it was seen, and is no longer written to."""
        try:
            status = path.stat()
        except OSError:
            return False
        mark = (status.st_size, status.st_mtime_ns)
        if self._seen.get(path) == mark or 0 <= time.time() - status.st_mtime < SETTLED:
            return False
        self._seen[path] = mark
        return True


def _version(path: Path) -> str:
    """Tells what a file in a store holds from what it held before; empty for a file on this machine."""
    try:
        return path.version() if isinstance(path, StorePath) else ""
    except OSError:
        return ""


def _mark(path: Path) -> tuple[int, ...]:
    """Tells the file at a path from others that will be or have been there; empty where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _holds_something(path: Path) -> bool:
    """Whether there is a file that is not empty."""
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def _masks(options: Mapping[str, Any], others: Collection[str]) -> dict[str, Path] | None:
    """The masks of ``--mask-folder`` by their places, without extensions."""
    if options.get("mask_folder") is None:
        return None
    folder = as_path(options["mask_folder"])
    if options.get("mask") is not None or options.get("keep") is not None:
        raise SettingsError("--mask-folder cannot be combined with --mask or --keep")
    if not is_folder(folder):
        raise SettingsError(f"--mask-folder {folder} is no folder")
    there = [*search(folder, others=others)]
    check_found(folder, there)
    return {_without_extension(found.relative): found.path for found in there if isinstance(found, Found)}


def _absolute(path: Path) -> str:
    return str(path if isinstance(path, StorePath) else path.absolute())


def _without_extension(place: PurePath) -> str:
    return place.with_suffix("").as_posix()
