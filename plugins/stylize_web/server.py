"""The server: what the page asks for, and how it hears of what changes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import socket
import tempfile
import webbrowser
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from stylize import PRESETS, Host, StylizeError, setting_fields
from stylize_web import orders
from stylize_web.board import Board
from stylize_web.pictures import Pictures, file_name
from stylize_web.queue import Queue
from stylize_web.runs import Run
from stylize_web.security import Guard, Place

STATIC = Path(__file__).parent / "static"
LARGEST = 300 * 10**6  # bytes of an upload
LARGEST_ORDER = 8 * 10**6  # with a mask
HEARTBEAT = 15.0  # seconds
GAP = 0.03  # seconds between two events, at least
# Reports have their own policy, and run apart from the page.
REPORT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; img-src 'self' data:; media-src 'self' data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)

__all__ = ["Place", "listen", "serve_page"]


class Page:
    """What is behind the page: pictures, the queue, and the answers to its requests."""

    def __init__(self, pictures: Pictures, queue: Queue, board: Board) -> None:
        self._pictures, self._queue, self._board = pictures, queue, board

    def routes(self) -> list[Route | Mount]:
        """The answers by path and method."""
        return [
            Route("/", self.index),
            Route("/api/state", self.state),
            Route("/api/events", self.events),
            Route("/api/folder", self.folder),
            Route("/api/pictures", self.upload, methods=["POST"]),
            Route("/api/pictures/{key}/{size}", self.picture),
            Route("/api/runs", self.order, methods=["POST"]),
            Route("/api/runs/{key}/stop", self.stop, methods=["POST"]),
            Route("/api/runs/{key}", self.remove, methods=["DELETE"]),
            Route("/api/runs/{key}/preview", self.preview),
            Route("/api/runs/{key}/result", self.result),
            Route("/api/runs/{key}/masks", self.masks),
            Route("/api/runs/{key}/report/{name:path}", self.report),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]

    async def index(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def state(self, request: Request) -> Response:
        """All that the page needs to draw itself, as often as it is opened."""
        return JSONResponse(
            {
                "revision": self._board.revision,
                "ready": self._queue.ready,
                "choices": self._queue.choices,
                "fields": [dataclasses.asdict(field) for field in setting_fields()],
                "presets": [
                    {"name": name, "summary": summary, "values": values} for name, (summary, values) in PRESETS.items()
                ],
                "pictures": [source.described() for source in self._pictures.offered()],
                "folder": self._pictures.folder is not None,
                "runs": [self._queue.described(run) for run in self._queue.runs()],
            },
            background=BackgroundTask(self._queue.opened),
        )

    async def events(self, request: Request) -> Response:
        """A stream of the runs that have changed; the first event tells of all."""

        async def stream() -> AsyncIterator[str]:
            seen, known = -1, frozenset[str]()
            yield "retry: 1000\n\n"
            while not self._board.closed:
                revision, told = self._queue.told(seen)
                if revision > seen:
                    ids = frozenset(told["all"])
                    told["gone"], known = [*known - ids], ids
                    if seen >= 0:
                        del told["all"]
                    seen = revision
                    yield f"data: {json.dumps(told)}\n\n"
                else:
                    yield ": still here\n\n"
                await asyncio.sleep(GAP)
                await self._board.wait(seen, HEARTBEAT)

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def folder(self, request: Request) -> Response:
        place = request.query_params.get("place", "")
        found = await run_in_threadpool(self._pictures.listed, place)
        return JSONResponse({"place": place, "entries": [source.described() for source in found]})

    async def upload(self, request: Request) -> Response:
        """A picture, as the body of the request; its name is only shown."""
        path = self._pictures.new_upload()
        try:
            with path.open("xb") as file:
                await _copy(request, file.write, LARGEST)
            name = request.query_params.get("name", "picture")
            source = await run_in_threadpool(self._pictures.uploaded, path, name)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._pictures.forget_uploads(self._queue.in_use() | {source.id})
        recipe = await run_in_threadpool(self._pictures.recipe, source)
        return JSONResponse({**source.described(), "recipe": recipe}, 201)

    async def picture(self, request: Request) -> Response:
        source, size = self._pictures[request.path_params["key"]], request.path_params["size"]
        if source.kind == "folder" or (source.kind == "clip" and size != "view"):
            raise HTTPException(404, "it has no picture")
        if size not in ("thumbnail", "view"):
            raise HTTPException(404, "there is thumbnail and view")
        if source.kind == "clip":
            return FileResponse(self._pictures.clip(source))
        if source.kind in ("photo", "painting", "mask"):  # they are small, and there before torch is
            return FileResponse(source.path, headers=_kept(), media_type="image/png" if source.kind == "mask" else None)
        make = self._pictures.thumbnail if size == "thumbnail" else self._pictures.view
        return Response(await run_in_threadpool(make, source), media_type="image/jpeg", headers=_kept())

    async def order(self, request: Request) -> Response:
        data = bytearray()
        await _copy(request, data.extend, LARGEST_ORDER)
        try:
            sent = json.loads(bytes(data))
        except (ValueError, RecursionError):
            raise HTTPException(400, "the order is not JSON") from None
        order = await run_in_threadpool(orders.read, sent, self._pictures)
        return JSONResponse(self._queue.described(self._queue.add(order)), 201)

    async def stop(self, request: Request) -> Response:
        run = self._run(request)
        self._queue.stop(run)
        return JSONResponse(self._queue.described(run))

    async def remove(self, request: Request) -> Response:
        self._queue.remove(self._run(request))
        return Response(status_code=204)

    async def preview(self, request: Request) -> Response:
        """The newest picture of a run."""
        run = self._run(request)
        if not run.preview:
            raise HTTPException(404, "there is no picture yet")
        return Response(run.preview, media_type="image/jpeg")

    async def result(self, request: Request) -> Response:
        """The file of a result, to be saved or shown."""
        run = self._run(request)
        if run.result is None or not run.result.is_file():
            raise HTTPException(404, "there is no result, or it is a folder")
        shown = "show" in request.query_params
        how = "inline" if shown else "attachment"
        return FileResponse(run.result, filename=run.result.name, content_disposition_type=how)

    async def masks(self, request: Request) -> Response:
        """The masks of a run, in a ZIP archive, as a replay of its result needs them."""
        run = self._run(request)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for mask in run.order.masks:
                archive.write(mask.path, mask.name)
        name = f"{file_name(run.title)}-masks.zip"
        headers = {"Content-Disposition": f"attachment; filename*=utf-8''{quote(name)}"}
        return Response(packed.getvalue(), media_type="application/zip", headers=headers)

    async def report(self, request: Request) -> Response:
        """The report of a run, and the pictures it links to."""
        run, name = self._run(request), request.path_params["name"]
        if run.report is None:
            raise HTTPException(404, "there is no report")
        path = (run.report.parent / name).resolve()
        linked = run.result is not None and path.is_relative_to(run.result.resolve())
        if not path.is_file() or not (path == run.report.resolve() or linked):
            raise HTTPException(404, "there is no such file")
        return FileResponse(path, headers={"Content-Security-Policy": REPORT_POLICY})

    def _run(self, request: Request) -> Run:
        return self._queue[request.path_params["key"]]


async def _copy(request: Request, write: Callable[[bytes], object], largest: int) -> None:
    """Take the body of a request, which may not say how long it is.

    Raises:
        HTTPException: it is too large.
    """
    length = 0
    async for part in request.stream():
        length += len(part)
        if length > largest:
            raise HTTPException(413, f"too large: at most {largest // 10**6} MB")
        write(part)


def _kept() -> dict[str, str]:
    return {"Cache-Control": "private, max-age=3600"}


async def _said(request: Request, error: Exception) -> Response:
    return PlainTextResponse(" ".join(str(error).split()), 400)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


def application(page: Page, place: Place) -> Starlette:
    """The application that answers the requests for a page."""
    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        StylizeError: _said,
        HTTPException: _refused,
        ClientDisconnect: _left,
    }
    middleware = [Middleware(Guard, place=place, largest=LARGEST)]
    return Starlette(routes=page.routes(), middleware=middleware, exception_handlers=handlers)


def listen(address: str, port: int | None, usual: int) -> socket.socket:
    """A socket that listens on a port; without one on the usual one, or on another where that is taken.

    Raises:
        StylizeError: the address or port cannot be used.
    """
    for each in (usual, 0) if port is None else (port,):
        try:
            family, _, _, _, place = socket.getaddrinfo(address, each, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(
                family, socket.SOCK_STREAM, socket.IPPROTO_TCP
            )  # asyncio asks for TCP by its number
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(place)
                listening.listen(128)  # who asks before the server runs waits for it
            except BaseException:
                listening.close()
                raise
            return listening
        except (OSError, UnicodeError) as error:
            problem = error
    said = getattr(problem, "strerror", None) or problem
    raise StylizeError(f"cannot listen on {address}, port {port or usual}: {said}")


class _Server(uvicorn.Server):
    """Sends those home who wait for events before it ends."""

    def __init__(self, config: uvicorn.Config, board: Board, started: Callable[[], object]) -> None:
        super().__init__(config)
        self._board, self._when_started = board, started

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._board.close()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_started()


def serve_page(
    listening: socket.socket, place: Place, host: Host, *, folder: Path | None, output: Path | None, show: bool
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; the run in work ends after its step, and all temporary files go.

    Args:
        listening: a bound socket.
        place: where that is.
        host: the plugins.
        folder: what is offered besides the samples.
        output: where results are kept.
        show: whether to open the page in the browser.
    """
    with tempfile.TemporaryDirectory(prefix="stylize-page-", ignore_cleanup_errors=True) as temporary:
        for name in ("uploads", "results"):
            (Path(temporary) / name).mkdir()
        board, pictures = Board(), Pictures(Path(temporary) / "uploads", folder)
        queue = Queue(pictures, host, board, Path(temporary) / "results", output)
        app = application(Page(pictures, queue, board), place)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
        )

        def started() -> None:
            queue.start()
            if show:
                webbrowser.open(place.url)

        try:
            with contextlib.suppress(KeyboardInterrupt):
                _Server(config, board, started).run([listening])
        finally:
            queue.close()
