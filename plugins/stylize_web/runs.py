"""The queue: what is to be painted, is being painted and was painted, and the thread that does it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import shutil
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize import Chain, Frame, Host, Job, Painted, RunProgress, StylizeError, hookimpl
from stylize_web.board import Board
from stylize_web.orders import Order
from stylize_web.pictures import Pictures, file_name

if TYPE_CHECKING:
    from stylize import Picture, Settings, Step, Stylizer

ENDED = ("done", "stopped", "failed")
PAUSE = 0.12  # seconds between two previews, at least
SHARE = 4  # and so many times what the last one took: looking on must not be most of the work
PREVIEW, FINAL = 1024, 1600  # px: the longest side of what the page shows while it is painted, and afterwards
STYLIZERS_KEPT = 2
RUNS_KEPT = 60
HEAD_START, BREATH = 2.0, 0.25  # seconds that torch waits for the page to be opened, and then for its pictures
GRACE = 20.0  # seconds for the run in work to end with the server

log = logging.getLogger("stylize.web")


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


class Queue:
    """Paints orders one after the other, in a thread of its own.

    Args:
        pictures: what orders are about.
        host: plugins.
        board: where changes are counted.
        temporary: a folder for results.
        output: where results are kept besides.
    """

    def __init__(
        self, pictures: Pictures, host: Host, board: Board, temporary: Path, output: Path | None = None
    ) -> None:
        self._pictures, self._host, self._board = pictures, host, board
        self._temporary, self._output = temporary, output
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._lock = threading.Condition()
        self._closing = False
        self._opened = threading.Event()
        self._stylizers: OrderedDict[str, Stylizer] = OrderedDict()
        self.ready = False
        self.choices: dict[str, list[str]] = {}
        self._thread = threading.Thread(target=self._work, name="painter", daemon=True)

    def start(self) -> None:
        """Begin to paint, and before that to load torch: once the page is there, which would have to wait for it."""
        self._thread.start()

    def opened(self) -> None:
        """The page has been opened."""
        self._opened.set()

    def close(self) -> None:
        """End the run in work, and the thread."""
        with self._lock:
            self._closing = True
            for run in self._runs.values():
                run.stop.set()
            self._lock.notify_all()
        self._opened.set()
        if self._thread.is_alive():
            self._thread.join(GRACE)

    def runs(self) -> list[Run]:
        """All runs, in the order in which they were ordered."""
        with self._lock:
            return [*self._runs.values()]

    def __getitem__(self, key: str) -> Run:
        """The run with an id.

        Raises:
            StylizeError: there is none.
        """
        with self._lock:
            found = self._runs.get(key)
        if found is None:
            raise StylizeError("this run is not there any more")
        return found

    def add(self, order: Order) -> Run:
        """Put an order at the end of the queue."""
        self._opened.set()
        key = secrets.token_urlsafe(9)
        run = Run(key, order, self._temporary / secrets.token_hex(12))
        with self._lock:
            old = [each for each in self._runs.values() if each.ended][: max(0, len(self._runs) + 1 - RUNS_KEPT)]
            with self._board.change() as run.revision:
                self._runs[key] = run
            self._lock.notify_all()
        for each in old:
            self.remove(each)
        return run

    def stop(self, run: Run) -> None:
        """Stop a run and keep the picture as far as it is; one that waits is not begun."""
        with self._lock, self._board.change() as run.revision:
            run.stop.set()
            if run.state == "waiting":
                run.state, run.text = "stopped", "not begun"

    def remove(self, run: Run) -> None:
        """Forget a run that has ended, and its result.

        Raises:
            StylizeError: it has not ended.
        """
        with self._lock:
            if not run.ended:
                raise StylizeError("stop the run first")
            with self._board.change():
                self._runs.pop(run.id, None)
        shutil.rmtree(run.folder, ignore_errors=True)

    def in_use(self) -> set[str]:
        """The ids of the pictures that runs are about."""
        return {source for run in self.runs() for source in run.order.sources}

    def described(self, run: Run) -> dict[str, Any]:
        """What the page is told of a run: as it is after its last change."""
        with self._board.lock:
            return run.described()

    def told(self, seen: int) -> tuple[int, dict[str, Any]]:
        """What has become since change number ``seen``, and the number of the last change; -1: everything."""
        with self._lock, self._board.lock:
            runs = [*self._runs.values()]
            return self._board.revision, {
                "runs": [run.described() for run in runs if run.revision > seen],
                "all": [run.id for run in runs],
                "ready": self.ready,
                "choices": self.choices,
            }

    # --- in the thread

    def _work(self) -> None:
        if "torch" not in sys.modules and self._opened.wait(HEAD_START):
            time.sleep(BREATH)
        if not self._closing:
            self._load()
        while (run := self._next()) is not None:
            begun = time.monotonic()
            state, said = self._painted(run)
            with self._board.change() as run.revision:
                run.state, run.error = state, said
                run.fraction = 1.0 if state == "done" else run.fraction
                run.seconds, run.seconds_left = time.monotonic() - begun, None

    def _painted(self, run: Run) -> tuple[str, str]:
        """Paint a run: the state in which it ends, and the error if it failed."""
        try:
            with _notes(run):
                self._paint(run, _Watch(run, self._board))
        except StylizeError as error:
            return "failed", " ".join(str(error).split())
        except Exception as error:  # a bug of stylize or of a plugin
            if os.environ.get("STYLIZE_TRACEBACK"):
                traceback.print_exc()
            return "failed", f"unexpected {type(error).__name__}: {error}"
        return ("stopped" if run.stop.is_set() else "done"), ""

    def _load(self) -> None:
        """Load torch and what plugins bring, while the page is looked at already."""
        from stylize import Stylizer  # noqa: F401

        encoders, modes = self._host.encoders(), self._host.color_modes()
        with self._board.change():
            self.choices = {
                "encoder": ["auto", *dict.fromkeys(spec.name for spec in encoders)],
                "preserve_color": [*dict.fromkeys(mode.name for mode in modes)],
            }
            self.ready = True

    def _next(self) -> Run | None:
        with self._lock:
            while not self._closing:
                for run in self._runs.values():
                    if run.state == "waiting":
                        with self._board.change() as run.revision:
                            run.state = "painting"
                        return run
                self._lock.wait()
        return None

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
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _needed(settings: Settings) -> int:
    """The longest side of the paintings, in px, that settings make use of."""
    return math.ceil(settings.size * max(settings.style_scale, settings.init == "style"))
