"""Jobs: what is to be painted, and where the results go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stylize.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

    from stylize.engine import Step
    from stylize.images import Picture
    from stylize.stylizer import Stylizer


@dataclass(frozen=True)
class Frame:
    """One picture to paint: ``name`` for messages, the content, and where to begin (1, 3, H, W) if not as set."""

    name: str
    image: Picture
    init: Tensor | None = None


class Job(Protocol):
    """Yields frames lazily and takes their results. A frame is written before the next is asked for, so a job may
    yield its last result as the next frame's ``init``."""

    def frames(self) -> Iterator[Frame]: ...

    def write(self, frame: Frame, result: Picture) -> None:
        """Keep one result for good."""

    def finish(self) -> Path | None:
        """Close the job; where the result lies, if in one place."""


class ImageJob:
    """One picture file to another; ``keep`` are other files of the run that must not be written over.

    A picture much larger than ``size``, the longest side of the result in px, is shrunk as it is read.

    Raises:
        ImageError: the source cannot be read, or the target cannot be written or is a source.
    """

    def __init__(
        self,
        source: Path,
        target: Path | None,
        *,
        bits: int = 8,
        quality: int | None = None,
        size: int | None = None,
        keep: Sequence[Path] = (),
    ) -> None:
        from stylize import images

        self.image = images.load(source, longest=size and size * images.SPARE)
        self.target = target if target is not None else Path(f"{source.stem}-stylized.png")
        painted = None if size is None else images.fit(*self.image.size, size)
        images.check_target(self.target, bits=bits, quality=quality, size=painted)
        check_distinct(self.target, source, *keep)
        self._options = {"bits": bits, "quality": quality}

    def frames(self) -> Iterator[Frame]:
        yield Frame(self.image.name, self.image)

    def write(self, frame: Frame, result: Picture) -> None:
        result.save(self.target, **self._options)

    def finish(self) -> Path | None:
        return self.target


def check_distinct(target: Path, *sources: Path) -> None:
    """Refuse to write over a source.

    Raises:
        ImageError: names the file.
    """
    for source in sources:
        try:
            same = os.path.realpath(target) == os.path.realpath(source)
            if not same and os.path.exists(target) and os.path.exists(source):  # noqa: PTH110, Path's raises OSError
                same = target.samefile(source)
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot write {target}: {getattr(error, 'strerror', None) or error}") from error
        if same:
            raise ImageError(f"the target {target} is also a source; choose another name with -o")


def run(
    job: Job,
    stylizer: Stylizer,
    *,
    on_frame: Callable[[Frame], object] | None = None,
    on_step: Callable[[Frame, Step], object] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Path | None:
    """Paint every frame of a job; once ``stop`` is True the frame in work is written as far as it is, and no more."""
    for frame in job.frames():
        if on_frame is not None:
            on_frame(frame)
        observe = None if on_step is None else lambda step, frame=frame: on_step(frame, step)
        job.write(frame, stylizer(frame.image, init=frame.init, on_step=observe, stop=stop))
        if stop is not None and stop():
            break
    return job.finish()
