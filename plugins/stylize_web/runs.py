"""A run: an order, and what has become of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylize_web.orders import Order

ENDED = ("done", "stopped", "failed")


@dataclass(eq=False)
class Run:
    """An order, and what has become of it. ``revision`` is the number of its last change, as the board counts it."""

    id: str
    order: Order
    folder: Path
    state: str = "waiting"
    text: str = ""
    fraction: float | None = 0.0
    seconds_left: float | None = None
    error: str = ""
    notes: list[str] = field(default_factory=list)
    preview: bytes = b""
    version: int = 0
    made: float = 0.0  # when the preview was, in seconds since 1970
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    result: Path | None = None
    report: Path | None = None
    revision: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def ended(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state in ENDED

    @property
    def title(self) -> str:
        """What it is called, and its result."""
        styles = " + ".join(Path(style.name).stem for style in self.order.styles)
        return f"{Path(self.order.content.name).stem} · {styles}"

    def described(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "id": self.id,
            "title": self.title,
            "order": self.order.described(),
            "state": self.state,
            "text": self.text,
            "fraction": self.fraction,
            "secondsLeft": self.seconds_left,
            "seconds": self.seconds,
            "error": self.error,
            "notes": self.notes,
            "version": self.version,
            "made": self.made,
            "width": self.width,
            "height": self.height,
            "result": None if self.result is None else self.result.name,
            "report": None if self.report is None else self.report.name,
            "revision": self.revision,
        }
