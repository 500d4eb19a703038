"""What has become of the pictures of a run: the latest of each counts, and nothing is told twice in a row."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter

from stylize import StorePath, as_path
from stylize_batch.report import STATES, Entry

log = logging.getLogger("stylize.batch")


class Ledger:
    """One entry for each picture in each style, or for a file that is in no style: in a watched folder a later success
    takes the place of a failure."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}
        self._told: dict[tuple[str, str], str] = {}
        self._painted = 0  # in a watched folder, a picture perhaps several times

    def take(self, entry: Entry, said: str = "") -> None:
        """Note what became of a picture, and warn of it with the words ``said`` unless just that was told last."""
        key = entry.name, entry.style
        if entry.style:  # what was said of the file alone no longer holds
            self._entries.pop((entry.name, ""), None)
            self._told.pop((entry.name, ""), None)
        self._entries[key] = entry
        self._painted += entry.state == "painted"
        said = " ".join(said.split())
        mark = re.sub(r"\d+", "", said)  # of a file that is still growing, how much is there differs every time
        if said and self._told.get(key) != mark:
            log.warning("%s", said)
        self._told[key] = mark

    def entries(self) -> list[Entry]:
        """All of them, by name and style."""
        return sorted(self._entries.values(), key=lambda entry: (entry.name, entry.style))

    def counts(self) -> Counter[str]:
        """How many there are of each state; what was painted several times counts as often."""
        found = Counter(entry.state for entry in self._entries.values())
        if self._painted:
            found["painted"] = self._painted
        return found

    def gone(self) -> int:
        """How many results of this run somebody has removed."""
        targets = [as_path(entry.target) for entry in self.entries() if entry.state == "painted"]
        return sum(not isinstance(target, StorePath) and not os.path.lexists(target) for target in targets)

    def tell(self, left: int, several: bool, seconds: str) -> None:
        """Log the sum: counts, how many were not begun, and each failure; ``several`` styles are named."""
        counts = self.counts()
        said = [f"{counts[state]} {state}" for state in STATES if counts[state]]
        if left > 0:
            said.append(f"{left} not begun")
        log.info("%s in %s", ", ".join(said) or "nothing to do", seconds)
        for entry in self.entries():
            if entry.state == "failed":
                name = f"{entry.name} in {entry.style}" if several and entry.style else entry.name
                log.info("%s", " ".join(f"failed: {name}: {entry.reason}".split()))
