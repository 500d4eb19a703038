"""The styles that a folder is painted in, each read when it is needed."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stylize import SPARE, ImageError, Picture, Settings, load
from stylize_batch.scan import Excluded, Found, Passed, check_found, is_many, names_of, search

log = logging.getLogger("stylize.batch")

KEPT = 4  # styles that are kept in memory


@dataclass(frozen=True)
class Style:
    """One style to paint in: a picture, or several as a blend."""

    name: str
    paths: tuple[Path, ...]


class Styles:
    """The styles to choose from; ``how`` is how they are paired with the photos.

    Args:
        given: paths of pictures, folders and patterns.
        how: the pairing asked for, if any.
        without: a folder whose pictures are no styles.
        settings: those of the run.
        excluded: what is left out of folders.

    Raises:
        ImageError: no pictures there.
    """

    def __init__(
        self, given: Sequence[Path], how: str | None, without: Path, settings: Settings, excluded: Excluded
    ) -> None:
        self._settings = settings
        self._pictures: OrderedDict[int, tuple[Picture, ...]] = OrderedDict()
        self._bad: dict[int, str] = {}
        if how is None and not any(is_many(path) for path in given):
            self.all, self.how = [Style("+".join(names_of(given)), tuple(given))], "cross"
            return
        paths: list[Path] = []
        for path in given:
            found = [*search(path, [without], excluded)]
            check_found(path, found)
            for passed in found:
                if isinstance(passed, Passed) and passed.failed:
                    log.warning("%s", " ".join(f"style {passed.name}: {passed.reason}".split()))
            paths += [each.path for each in found if isinstance(each, Found)]
        self.all = [Style(name, (path,)) for name, path in zip(names_of(paths), paths, strict=True)]
        self.how = how or "cross"

    @property
    def names(self) -> list[str]:
        """Their names, in order."""
        return [style.name for style in self.all]

    def pictures(self, index: int) -> tuple[Picture, ...]:
        """The pictures of a style, the same tuple as long as they are kept.

        Raises:
            ImageError: one cannot be read.
        """
        if index in self._bad:
            raise ImageError(self._bad[index])
        if index not in self._pictures:
            settings = self._settings
            needed = math.ceil(settings.size * max(settings.style_scale, settings.init == "style"))
            try:
                made = tuple(load(path, longest=needed * SPARE) for path in self.all[index].paths)
            except ImageError as error:
                self._bad[index] = str(error)
                raise
            self._pictures[index] = made
        self._pictures.move_to_end(index)
        if len(self._pictures) > KEPT:
            self._pictures.popitem(last=False)
        return self._pictures[index]

    def first(self) -> tuple[Picture, ...]:
        """The pictures of the first style that can be read.

        Raises:
            ImageError: none can.
        """
        problem: ImageError | None = None
        for index in range(len(self.all)):
            try:
                return self.pictures(index)
            except ImageError as error:
                problem = problem or error
        raise problem or ImageError("no style picture given")
