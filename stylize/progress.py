"""The progress of a painting for Python programs: a bar of tqdm, or in a notebook the picture as it is painted."""

from __future__ import annotations

import base64
import html
import io
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from stylize.images import Picture
from stylize.observing import Observer, Step

if TYPE_CHECKING:
    from stylize.encoders import Progress

PAUSE = 0.4  # seconds between two pictures of a notebook, at least
SHARE = 5  # and so many times what the last one took: showing must not be most of the work
LARGEST = 640  # px: the longest side of the picture while it is painted


class Progressing:
    """Shows the progress of a painting, and of a download of weights, while it is entered.

    Args:
        shown: whether to; or a function to be told of the download alone.
        label: what is painted, in a word.
    """

    def __init__(self, shown: Progress | bool | None, label: str = "") -> None:
        self._told = shown if callable(shown) else None
        self._view: _Bar | _Live | None = None
        if shown is True:
            self._view = _Live() if in_notebook() else _Bar()
        self._label = label

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._view is not None:
            self._view.close()

    @property
    def download(self) -> Progress | None:
        """What to call with (bytes done, bytes in all or None)."""
        return self._told if self._view is None else self._downloaded

    def _downloaded(self, done: int, total: int | None) -> None:
        assert self._view is not None
        self._view.show(f"weights: {done / 1e6:.0f} MB", done / total if total else 0.0)

    def also(self, on_step: Observer | None) -> Observer | None:
        """An observer that shows a step before another sees it."""
        if self._view is None:
            return on_step

        def observe(step: Step) -> None:
            self.step(step)
            if on_step is not None:
                on_step(step)

        return observe

    def step(self, step: Step, label: str | None = None, number: int = 1, total: int | None = 1) -> None:
        """Show a step of picture ``number`` of ``total``."""
        if self._view is None:
            return
        parts = [self._label if label is None else label]
        if total != 1:
            parts.insert(0, f"{number}/{total or '?'}")
        parts.append(f"{step.width}x{step.height}, step {step.number} of {step.steps}")
        fraction = share_done(step) if total is None else (number - 1 + share_done(step)) / total
        self._view.show("  ".join(filter(None, parts)), fraction, lambda: Picture(step.image()))

    def done(self, picture: Picture, label: str | None = None) -> None:
        """Show a finished picture."""
        if self._view is not None:
            name = self._label if label is None else label
            self._view.finish(" ".join(filter(None, [name, f"{picture.size[1]}x{picture.size[0]}"])), picture)


def share_done(step: Step) -> float:
    """How much of a picture is painted, 0 to 1: each scale takes four times as long as the one before."""
    before, whole = ((4.0**scales - 1) / 3 for scales in (step.scale - 1, step.scales))
    return (before + 4.0 ** (step.scale - 1) * step.number / step.steps) / whole


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, which shows pictures."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class _Bar:
    """A bar of tqdm on standard error."""

    def __init__(self) -> None:
        self._bar: Any = None

    def show(self, text: str, fraction: float, picture: Callable[[], Picture] | None = None) -> None:
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=100, bar_format="{desc}  {percentage:3.0f}% |{bar}| {elapsed}<{remaining}")
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(max(0.0, min(100.0, 100 * fraction) - self._bar.n))

    def finish(self, text: str, picture: Picture) -> None:
        if self._bar is not None:
            self.show(text, 1.0)
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Live:
    """A picture in a notebook, with a line below it, both of which change."""

    def __init__(self) -> None:
        self._display: Any = None
        self._due = 0.0

    def show(self, text: str, fraction: float, picture: Callable[[], Picture] | None = None) -> None:
        if (now := time.monotonic()) < self._due:
            return
        self._put(f"{text} ({fraction:.0%})", None if picture is None else picture())
        self._due = time.monotonic() + max(PAUSE, SHARE * (time.monotonic() - now))

    def finish(self, text: str, picture: Picture) -> None:
        self._put(text, picture)

    def close(self) -> None:
        return

    def _put(self, text: str, picture: Picture | None) -> None:
        from IPython.display import display

        shown = f"<div>{html.escape(text)}</div>"
        if picture is not None:
            data = base64.b64encode(_jpeg(picture)).decode()
            shown = f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(text)}">{shown}'
        bundle = {"text/html": shown, "text/plain": text}
        if self._display is None:
            self._display = display(bundle, raw=True, display_id=True)
        else:
            self._display.update(bundle, raw=True)


def _jpeg(picture: Picture) -> bytes:
    image = picture.opaque().pil()
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
