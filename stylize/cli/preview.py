"""The file of ``--preview-file``: the picture as it is, for programs that show a run while it lasts."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stylize.contracts import hookimpl
from stylize.errors import ImageError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from stylize.contracts import Frame
    from stylize.images import Picture
    from stylize.observing import Step

PAUSE = 0.2  # seconds between two previews, at least
SHARE = 4  # and so many times what the last one took: previews must not be most of the work
LONGEST = 1024  # px
MARK = b"stylize preview"  # a JPEG comment: only files that have it are replaced

log = logging.getLogger(__name__)


class PreviewFile:
    """Writes a JPEG of the picture in work a few times a second, always whole, and of every finished one. A plugin
    while the run lasts.

    Raises:
        SettingsError: the name does not end in .jpg.
        ImageError: the file cannot be written, or is there and no preview.
    """

    def __init__(self, path: Path) -> None:
        from stylize.images import check_target

        if path.suffix.lower() not in (".jpg", ".jpeg"):
            raise SettingsError(f"--preview-file {path} must end in .jpg")
        check_target(path)
        if path.exists() and path.stat().st_size and not _is_preview(path):
            raise ImageError(f"{path} is there and no preview of stylize; give --preview-file another name")
        self._path, self._due, self._failed = path, 0.0, False

    def step(self, step: Step) -> None:
        """Write the picture after a step, if it is time to."""
        if (now := time.monotonic()) < self._due or self._failed:
            return
        try:
            image = step.image()
        except LookupError:  # it is painted in another process
            return
        self._write(image)
        self._due = time.monotonic() + max(PAUSE, SHARE * (time.monotonic() - now))

    @hookimpl
    def stylize_step(self, frame: Frame, step: Step) -> None:
        self.step(step)

    @hookimpl
    def stylize_painted(self, frame: Frame, image: Picture) -> None:
        self.finished(image)

    def finished(self, image: Picture) -> None:
        """Write a finished picture."""
        if not self._failed:
            self._write(image.opaque().in_profile().rgb)

    def _write(self, rgb: Tensor) -> None:
        from stylize.images import atomic_write, thumbnail

        data = thumbnail(rgb, LONGEST, comment=MARK)
        try:
            with atomic_write(self._path) as temporary:
                temporary.write_bytes(data)
        except ImageError as error:
            self._failed = True
            log.warning("%s; no more previews are written", error)


def _is_preview(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get("comment") == MARK
    except (OSError, ValueError):
        return False
