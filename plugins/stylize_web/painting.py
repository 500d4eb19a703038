"""The painter: paints what is ordered by the package's own jobs, and tells the page what it sees meanwhile."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize import Chain, Frame, Host, Job, Painted, RunProgress, StylizeError, hookimpl
from stylize_web.board import Board
from stylize_web.orders import Order
from stylize_web.pictures import Pictures, file_name
from stylize_web.runs import Run

if TYPE_CHECKING:
    from stylize import Picture, Settings, Step, Stylizer

PAUSE = 0.12  # seconds between two previews, at least
SHARE = 4  # and so many times what the last one took: looking on must not be most of the work
PREVIEW, FINAL = 1024, 1600  # px: the longest side of what the page shows while it is painted, and afterwards
STYLIZERS_KEPT = 2


class PictureJob(Job):
    """One picture of the page, or parts of it."""

    def __init__(self, frame: Frame, target: Path, bits: int) -> None:
        self._frame, self._target, self._bits = frame, target, bits

    def frames(self, chain: Chain) -> Iterator[Frame]:
        yield self._frame

    def write(self, frame: Frame, painted: Painted) -> None:
        painted.picture.save(self._target, bits=self._bits)

    def finish(self) -> Path:
        return self._target


class Painter:
    """Paints one order after the other.

    Args:
        pictures: what orders are about.
        host: plugins.
        board: where changes are counted.
        output: where results are kept besides.
    """

    def __init__(self, pictures: Pictures, host: Host, board: Board, output: Path | None) -> None:
        self._pictures, self._host, self._board, self._output = pictures, host, board, output
        self._stylizers: OrderedDict[str, Stylizer] = OrderedDict()

    def load(self) -> dict[str, list[str]]:
        """Load torch and what plugins bring: the choices that there are of it."""
        from stylize import Stylizer  # noqa: F401

        return {
            "encoder": ["auto", *dict.fromkeys(spec.name for spec in self._host.encoders())],
            "preserve_color": [*dict.fromkeys(mode.name for mode in self._host.color_modes())],
        }

    def paint(self, run: Run) -> None:
        """Paint what a run was ordered to, into its folder or below the folder that is offered.

        Raises:
            StylizeError: it cannot be painted.
        """
        with _notes(run):
            self._paint(run, _Watch(run, self._board))

    def _paint(self, run: Run, watch: _Watch) -> None:
        import stylize

        order, host = run.order, self._host
        options = {**host.default_options(), "bits": order.bits}
        if order.content.kind in ("folder", "clip"):
            job, stylizer = self._many(run, options, watch)
        else:
            run.folder.mkdir()
            target = run.folder / f"{file_name(run.title)}{order.extension}"
            stylizer = self._stylizer(order, watch)
            job = PictureJob(self._frame(order), target, order.bits)
        with self._board.change() as run.revision:
            run.text = "beginning"
        host.register(watch, "the page")
        try:
            run.result = stylize.run(job, stylizer, host=host, options=options, stop=run.stop.is_set)
        finally:
            if host.is_registered(watch):
                host.unregister(watch)
        if isinstance(job, PictureJob) and self._output is not None and run.result is not None:
            self._keep(run, run.result, self._output)

    def _frame(self, order: Order) -> Frame:
        """The picture of an order, with its mask and regions."""
        from stylize import SPARE, Region

        needed = _needed(order.settings) * SPARE
        picture = self._pictures.picture(order.content, order.settings.size * SPARE)
        mask, *masks = (
            None if each is None else self._pictures.mask(each, self._output)
            for each in (order.mask, *(part.mask for part in order.regions))
        )
        styles = [[self._pictures.picture(style, needed) for style in part.styles] for part in order.regions]
        regions = [Region(where, each) for where, each in zip(masks, styles, strict=True) if where is not None]
        return Frame(picture.name, picture, mask=mask, regions=regions)

    def _many(self, run: Run, options: dict[str, Any], watch: _Watch) -> tuple[Job, Stylizer]:
        """The job for a folder or clip below the folder that is offered."""
        from stylize import Stylizer

        order, host, folder = run.order, self._host, self._pictures.folder
        assert folder is not None
        painted = folder / "painted"
        painted.mkdir(exist_ok=True)
        stem = Path(order.content.name).stem
        target = painted / (order.content.name if order.content.kind == "folder" else f"{stem}.mp4")
        run.report = painted / f"{stem}.html"
        options |= {"report": run.report, "format": None}
        job = host.open(order.content.path, [style.path for style in order.styles], target, order.settings, options)
        styles = job.styles or [self._pictures.picture(style) for style in order.styles]
        modes, encoders = host.color_modes(), host.encoders()
        return job, Stylizer(styles, order.settings, encoders=encoders, color_modes=modes, progress=watch.downloading)

    def _stylizer(self, order: Order, watch: _Watch) -> Stylizer:
        """The stylizer of an order; those of the last ones are kept, with what was measured of their styles."""
        from stylize import SPARE, Stylizer

        key = str((order.settings, [style.id for style in order.styles]))
        if key not in self._stylizers:
            host, needed = self._host, _needed(order.settings) * SPARE
            styles = [self._pictures.picture(style, needed) for style in order.styles]
            self._stylizers[key] = Stylizer(
                styles,
                order.settings,
                encoders=host.encoders(),
                color_modes=host.color_modes(),
                progress=watch.downloading,
            )
        self._stylizers.move_to_end(key)
        while len(self._stylizers) > STYLIZERS_KEPT:
            self._stylizers.popitem(last=False)
        return self._stylizers[key]

    def _keep(self, run: Run, result: Path, output: Path) -> None:
        """Copy a result to the folder for results, under a name that is free there, and its masks."""
        output.mkdir(exist_ok=True)
        for mask in run.order.masks:  # whose names tell what is in them
            with contextlib.suppress(FileExistsError), (output / mask.name).open("xb") as file:
                file.write(mask.path.read_bytes())
        for number in range(1, 10_000):
            target = output / f"{result.stem}{'' if number == 1 else f'-{number}'}{result.suffix}"
            try:
                with target.open("xb") as file, result.open("rb") as source:
                    shutil.copyfileobj(source, file)
            except FileExistsError:
                continue
            except OSError as error:
                run.notes.append(f"not kept in {output}: {error.strerror}")
            return


class _Watch:
    """What a run shows of itself: a plugin while it lasts."""

    def __init__(self, run: Run, board: Board) -> None:
        self._run, self._board = run, board
        self._progress, self._due = RunProgress(), 0.0

    def downloading(self, done: int, total: int | None) -> None:
        """Tell how far the download of weights is."""
        run, of = self._run, f" of {total / 1e6:.0f}" if total else ""
        if run.stop.is_set():
            raise StylizeError("stopped before the weights were downloaded; the next run goes on with them")
        with self._board.change() as run.revision:
            run.text = f"downloading the weights of the encoder: {done / 1e6:.0f}{of} MB"

    @hookimpl
    def stylize_step(self, frame: Frame, step: Step) -> None:
        from stylize import thumbnail

        run = self._run
        self._progress.step(step, frame)
        several = f"{frame.name} ({frame.number}{f' of {frame.total}' if frame.total else ''}), "
        place = several if frame.total != 1 else ""
        preview = None
        if (now := time.monotonic()) >= self._due:
            with contextlib.suppress(LookupError):
                preview = thumbnail(step.image(), PREVIEW)
            self._due = time.monotonic() + max(PAUSE, SHARE * (time.monotonic() - now))
        with self._board.change() as run.revision:
            run.fraction, run.seconds_left = self._progress.fraction, self._progress.seconds_left
            run.text = f"{place}{step.width}x{step.height}, step {step.number} of {step.steps}"
            if step.schedule is not None:
                run.width, run.height = step.schedule.scales[-1].width, step.schedule.scales[-1].height
            self._show(preview)

    @hookimpl
    def stylize_painted(self, frame: Frame, image: Picture) -> None:
        from stylize import thumbnail

        run = self._run
        self._progress.painted(frame)
        preview = thumbnail(image.opaque().rgb, FINAL)
        with self._board.change() as run.revision:
            run.height, run.width = image.size
            self._show(preview)

    @hookimpl
    def stylize_copied(self, frame: Frame) -> None:
        run = self._run
        self._progress.copied(frame)
        with self._board.change() as run.revision:
            run.fraction = self._progress.fraction

    def _show(self, preview: bytes | None) -> None:
        run = self._run
        if preview is not None:
            run.preview, run.made, run.version = preview, time.time(), run.version + 1


@contextlib.contextmanager
def _notes(run: Run) -> Iterator[None]:
    """What the package logs meanwhile is a note of the run."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note = " ".join(record.getMessage().split())
            if note not in run.notes:
                run.notes = [*run.notes, note][-20:]

    logger, handler = logging.getLogger("stylize"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _needed(settings: Settings) -> int:
    """The longest side of the paintings, in px, that settings make use of."""
    return math.ceil(settings.size * max(settings.style_scale, settings.init == "style"))
