"""Files of a folder that are no pictures, such as clips: each is a job of another plugin, painted within this one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stylize import Chain, Frame, Host, Job, Painted, Picture, Settings, StylizeError, Stylizer
from stylize_batch.plan import Item

OF_PICTURES = ("bits", "quality", "report", "jobs", "mask_folder")  # options that such a job is not given
PATIENCE = 30.0  # s to wait for another run to leave a file
PAUSE = 0.5  # s between looks whether it has


class Other:
    """One such file, painted in a style.

    Args:
        item: which it is.
        target: where its result goes.
        name: of the file, for messages.
        styles: the paths of the pictures that are its style, and the pictures.
        settings, options: those of the run, ``given`` the options that were given, but those of folders.
        host: whose plugins open it.

    Raises:
        StylizeError: no plugin opens it, or the one that does refuses it.
    """

    def __init__(
        self,
        item: Item,
        target: Path,
        styles: tuple[tuple[Path, ...], tuple[Picture, ...]],
        settings: Settings,
        options: Mapping[str, Any],
        given: Mapping[str, Any],
        host: Host,
    ) -> None:
        self._name, (paths, self._styles), self._target = item.photo.name, styles, target
        options = {**options, **dict.fromkeys(OF_PICTURES), "output": target, "given": given}
        options |= {"mask": str(item.mask)} if item.mask is not None else {}
        self._job: Job = host.open(item.photo.path, paths, target, settings, options)
        self.seconds = 0.0  # of painting
        self.broken = False  # whether a frame could not be painted
        self.result: Path | None = None  # when all is done

    def frames(self, stylizer: Stylizer) -> Iterator[Frame]:
        """The frames that are to be painted; after the last, the result is made.

        Raises:
            StylizeError: what the job raises, or another run is at work on the file.
        """
        job = self._job
        job.begin(stylizer)
        try:
            for chain in self._chains():
                try:
                    yield from self._frames_of(chain)
                finally:
                    job.collect(chain, job.outcome(chain))
                    if job.claims is not None:
                        job.claims.release(chain.key)
                if self.broken:
                    return
            self.result = job.finish()
        except GeneratorExit:  # the run is stopped: the job says how far it is, or makes what can be made of that
            if not self.broken:
                self.result = job.finish()
            raise
        finally:
            if job.claims is not None:
                if self.result is not None:
                    job.claims.clear()
                job.claims.close()

    def _frames_of(self, chain: Chain) -> Iterator[Frame]:
        frames = iter(self._job.frames(chain))
        try:
            for frame in frames:
                data, styles = {"other": self, "frame": frame}, frame.styles or self._styles
                yield replace(frame, name=f"{self._name}: {frame.name}", data=data, styles=styles)
                if self.broken:
                    return
        finally:
            with contextlib.suppress(AttributeError):
                frames.close()  # type: ignore[attr-defined]

    def _chains(self) -> Iterator[Chain]:
        """The chains of the job, each claimed.

        Raises:
            StylizeError: another run has one of them, and does not give it back.
        """
        job, until = self._job, time.monotonic() + PATIENCE
        while True:
            for chain in job.chains():
                while job.claims is not None and not job.claims.take(chain.key):
                    self._wait(until)
                yield chain
            if job.poll is None:
                return
            self._wait(until)

    def _wait(self, until: float) -> None:
        if time.monotonic() > until:
            raise StylizeError(f"another run is painting {self._target}")
        time.sleep(PAUSE)

    def write(self, frame: Frame, painted: Painted) -> None:
        """Take the result of one of the frames."""
        self.seconds += painted.seconds
        self._job.write(frame.data["frame"], painted)
