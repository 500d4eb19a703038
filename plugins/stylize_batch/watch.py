"""The look at a watched folder: cheap, so that waiting for pictures takes next to nothing of a processor."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from stylize_batch.scan import area

POLL = 1.0  # seconds between looks at a watched folder, at least
SHARE = 0.01  # of a processor that the looks may take
SETTLING = 3.0  # seconds after which a file that was written to has been noticed


class Watched:
    """Notices when something changes below a source.

    Args:
        source: the folder or pattern of photos.
        without: a folder whose changes do not count.
    """

    def __init__(self, source: Path, without: Path) -> None:
        self._root, self._deepest = area(source)
        self._without = os.path.realpath(without)
        self._before: tuple[int, int] | None = None
        self.poll = POLL  # seconds until the next look

    def changed(self) -> bool:
        """Whether anything has been added, removed or written to since the last look, or only just before it."""
        begun = time.thread_time()
        count, mark, newest = self._look()
        changed = (count, mark) != self._before or abs(time.time() - newest) < SETTLING
        self._before = count, mark
        self.poll = POLL if changed else max(POLL, (time.thread_time() - begun) / SHARE)
        return changed

    def _look(self) -> tuple[int, int, float]:
        """The number of files and folders, a sum over their names, sizes and times, and the latest of these times."""
        count, mark, newest = 0, 0, 0.0
        pending = [(self._root, 1)]
        seen: set[tuple[int, int]] = set()
        while pending:
            folder, depth = pending.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        status = entry.stat()
                        count += 1
                        key = status.st_dev, status.st_ino
                        if not stat.S_ISDIR(status.st_mode):
                            mark += hash((entry.path, status.st_size, status.st_mtime_ns, key))
                            newest = max(newest, status.st_mtime)
                        elif key not in seen and (self._deepest is None or depth < self._deepest):
                            seen.add(key)
                            mark += hash((entry.path, key))
                            if os.path.realpath(entry.path) != self._without:
                                pending.append((Path(entry.path), depth + 1))
            except OSError:  # gone, or not for us: the search says so
                mark += hash((str(folder), "unreadable"))
        return count, mark, newest
