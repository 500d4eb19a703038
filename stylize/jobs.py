"""Jobs: what is to be painted, and where the results go."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stylize.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from stylize.engine import Step
    from stylize.host import Host
    from stylize.images import Picture
    from stylize.losses import Term
    from stylize.stylizer import Stylizer

STYLES_KEPT = 4  # stylizers for the frames' own styles: their statistics are kept that long
IDLE = 0.25  # seconds between asking a job that has nothing to do

log = logging.getLogger(__name__)


class Flow(Protocol):
    """An engine of optical flow: from two pictures (H, W, 3) in uint8, (H, W, 2) in float32: by how many pixels to the
    right and down each pixel of the first lies elsewhere in the second."""

    def __call__(self, one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]: ...


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture to paint.

    ``name`` is for messages; ``init``, (1, 3, H, W) in [0, 1], where to begin if not as set; ``steps``, at full size
    alone, if it is nearly there already; ``terms`` are added to the loss. ``styles`` is what to paint it in, a tuple of
    pictures (several are blended), if not as the command line says: the same tuple for every frame of a style, so that
    it is measured once. ``number`` counts from 1 to ``total``, which is None where the job cannot know it. ``data`` is
    the job's own.
    """

    name: str
    image: Picture
    init: Tensor | None = None
    steps: int | None = None
    terms: Sequence[Term] = ()
    styles: tuple[Picture, ...] = ()
    number: int = 1
    total: int | None = 1
    data: Mapping[str, Any] = field(default_factory=dict)


class Job(Protocol):
    """Yields frames lazily and takes their results. A frame is written before the next is asked for, so a job may
    yield its last result as the next frame's ``init``. Classes that derive from it need only the first two methods."""

    styles: tuple[Picture, ...] = ()  # what to paint in, if that is not simply what the command line names

    def begin(self, stylizer: Stylizer) -> None:
        """Called once, before the first frame is asked for."""
        return

    def frames(self) -> Iterator[Frame | None]:
        """The frames; None where there is nothing to do yet, and it should be asked again in a moment."""
        ...

    def write(self, frame: Frame, result: Picture) -> None:
        """Take one result."""
        ...

    def failed(self, frame: Frame, error: Exception) -> None:
        """What to do when a frame could not be painted or written: raise, to end the job, or go on."""
        raise error

    def finish(self) -> Path | None:
        """Close the job, when all is painted or it was stopped early; where the result lies, if in one place."""
        return None


class ImageJob(Job):
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
    host: Host | None = None,
    options: Mapping[str, Any] | None = None,
    on_step: Callable[[Frame, Step], object] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Path | None:
    """Paint every frame of a job; where its result lies.

    Args:
        job: what to paint.
        stylizer: for frames without styles of their own, and what those of others share the encoder with.
        host: plugins that add terms, look on and finish the pictures.
        options: what the plugins get as ``options``; ``options["given"]``, those of plugins' own options that were
            given, goes into the pictures' records.
        on_step: sees every step of every frame.
        stop: asked after every step; once True, the frame in work is written as far as it is, and no more.
    """
    known: OrderedDict[int, tuple[tuple[Picture, ...], Stylizer]] = OrderedDict()

    def stylizer_for(styles: tuple[Picture, ...]) -> Stylizer:
        if not styles or styles is job.styles:
            return stylizer
        key = id(styles)  # held by the entry itself: it cannot come to mean another tuple
        if key not in known:
            known[key] = styles, stylizer.restyled(styles)
        known.move_to_end(key)
        if len(known) > STYLES_KEPT:
            known.popitem(last=False)
        return known[key][1]

    def stopped() -> bool:
        return stop is not None and stop()

    job.begin(stylizer)
    frames = job.frames()
    try:
        for frame in frames:
            if frame is None:
                if stopped():
                    break
                time.sleep(IDLE)
                continue
            for note in frame.image.notes:
                log.info("%s", note if frame.total == 1 else f"{frame.name}: {note}")
            try:
                job.write(frame, _paint(frame, stylizer_for(frame.styles), host, options or {}, on_step, stop))
            except Exception as error:  # the job decides
                job.failed(frame, error)
            if stopped():
                break
    finally:
        if close := getattr(frames, "close", None):  # a generator's threads and files end here, not some time later
            close()
    return job.finish()


def _paint(
    frame: Frame,
    stylizer: Stylizer,
    host: Host | None,
    options: Mapping[str, Any],
    on_step: Callable[[Frame, Step], object] | None,
    stop: Callable[[], bool] | None,
) -> Picture:
    settings, terms = stylizer.settings, list(frame.terms)
    if host is not None:
        terms += host.terms(frame, settings, options)

    def observe(step: Step) -> None:
        if host is not None:
            host.observe("stylize_step", frame=frame, step=step)
        if on_step is not None:
            on_step(frame, step)

    result = stylizer(
        frame.image, init=frame.init, steps=frame.steps, terms=lambda scale: terms, on_step=observe, stop=stop
    )
    record = dict(result.record or {})
    if host is not None:
        result = host.finish(result, frame, settings, options)
    if stop is not None and stop():
        record["stopped"] = True
    record["options"] = dict(options.get("given", {}))
    record["saving"] = {"bits": options.get("bits", 8), "quality": options.get("quality")}
    if host is not None:
        record["plugins"] = host.contributors()
    result = dataclasses.replace(result, record=record)
    if host is not None:
        host.observe("stylize_painted", frame=frame, image=result)
    return result
