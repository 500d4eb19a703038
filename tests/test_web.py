"""The live page's server: who may ask for what, orders, the queue, uploads, the folder."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import numpy as np
import pytest
import torch
from PIL import Image

import stylize
from stylize import Settings, Stylizer, load, read_record
from stylize.testing import tiny_encoder
from tests.conftest import SAMPLES, Call, waves

pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")

QUICK = {"encoder": "tiny", "size": 32, "steps": [2], "tolerance": 0.0, "device": "cpu"}
PATIENCE = 300.0  # seconds until something that is waited for counts as hung
ENDLESS = {**QUICK, "size": 16, "optimizer": "adam", "steps": [100000]}


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Client:
    """A browser as far as the server sees it."""

    def __init__(self, port: int, token: str = "") -> None:
        self.port, self.token = port, token

    def ask(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            given = {key.replace("_", "-"): value for key, value in headers.items()}
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()})
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, **headers)

    def upload(self, picture: bytes, name: str = "photo.png") -> Any:
        answer = self.ask("POST", f"/api/pictures?{urlencode({'name': name})}", picture)
        assert answer.status == 201, answer.body
        return answer.json

    def order(self, *, status: int = 201, **values: Any) -> Any:
        sent = {"content": "sample-cat", "styles": ["sample-waves"], "settings": QUICK, **values}
        answer = self.ask("POST", "/api/runs", json.dumps(sent).encode())
        assert answer.status == status, answer.body
        return answer.json if status == 201 else answer.text

    def run(self, key: str) -> Any:
        return next(run for run in self.get("/api/state").json["runs"] if run["id"] == key)

    def wait(self, key: str, *states: str) -> Any:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            run = self.run(key)
            if run["state"] in (states or ("done", "stopped", "failed")):
                return run
            time.sleep(0.02)
        raise AssertionError(self.run(key))


def png(height: int = 24, width: int = 32, seed: int = 1) -> bytes:
    buffer = io.BytesIO()
    array = (waves(height, width, seed)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def brushed(left: int, right: int) -> str:
    """What the page sends where a brush has been over a part of the width of 64."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (left, 0, right, 64))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def promised(width: int, height: int) -> str:
    """A mask whose header promises a size, and which has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    data += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return "data:image/png;base64," + base64.b64encode(data).decode()


HUGE = promised(60000, 60000)

Serve = Callable[..., Client]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts the server in this process; with the encoder of tests, which needs no files."""
    import uvicorn

    from stylize import plugin_manager
    from stylize_web.board import Board
    from stylize_web.pictures import Pictures
    from stylize_web.queue import Queue
    from stylize_web.security import Place
    from stylize_web.server import Page, application, listen

    host = plugin_manager(only=["batch"])
    monkeypatch.setattr(host, "encoders", lambda: [tiny_encoder()])
    ends: list[Callable[[], object]] = []

    def start(folder: Path | None = None, output: Path | None = None, address: str = "127.0.0.1") -> Client:
        for name in ("uploads", "results"):
            (tmp_path / "temporary" / name).mkdir(parents=True)
        listening = listen("127.0.0.1", 0, 0)
        place = Place(address, listening.getsockname()[1])
        board, pictures = Board(), Pictures(tmp_path / "temporary" / "uploads", folder)
        queue = Queue(pictures, host, board, tmp_path / "temporary" / "results", output)
        server = uvicorn.Server(
            uvicorn.Config(application(Page(pictures, queue, board), place), log_level="warning", lifespan="off")
        )
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        queue.start()

        def end() -> None:
            board.close()
            queue.close()
            server.should_exit = True
            thread.join(PATIENCE)
            listening.close()

        ends.append(end)
        return Client(place.port, place.token)

    yield start
    for end in ends:
        end()


@pytest.fixture
def client(serve: Serve) -> Client:
    return serve()


# Who may ask


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:80", "[::1]:1"])
def test_this_machine_is_answered_under_its_names(client: Client, host: str) -> None:
    assert client.get("/", Host=host).status == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "[", "0.0.0.0"]
)
def test_other_host_names_are_refused(client: Client, host: str) -> None:
    for path in ("/", "/api/state", "/static/page.js"):
        assert client.get(path, Host=host).status == 421


@pytest.mark.slow
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
    ],
)
def test_other_sites_cannot_order(client: Client, headers: dict[str, str]) -> None:
    assert client.ask("POST", "/api/runs", b"{}", **headers).status == 403
    assert client.ask("POST", "/api/pictures?name=a.png", png(), **headers).status == 403
    assert client.ask("DELETE", "/api/runs/x", None, **headers).status == 403


@pytest.mark.slow
def test_other_sites_can_link_to_the_page_but_not_embed_what_it_shows(client: Client) -> None:
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert client.get("/", **link).status == 200
    embedded = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}
    assert client.get("/api/pictures/sample-cat/view", **embedded).status == 403


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/api/state", "/static/page.js", "/api/nothing", "/static/../server.py"])
def test_every_answer_says_what_a_page_may_load(client: Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'self'; ")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.slow
def test_the_page_is_small_and_names_no_other_host(client: Client) -> None:
    from stylize_web import server

    names = [path.name for path in (Path(server.__file__).parent / "static").iterdir()]
    files = [client.get(path).body for path in ("/", *(f"/static/{name}" for name in names if name != "index.html"))]
    assert sum(map(len, files)) <= 60_000
    addresses = {each for file in files for each in re.findall(rb"https?://[^\"' )]+", file)}
    assert addresses == {b"http://www.w3.org/2000/svg"}
    assert b"style=" not in files[0]
    assert not re.search(rb"<script(?![^>]* src=)", files[0])


@pytest.mark.slow
def test_beyond_this_machine_the_token_is_asked_for(serve: Serve) -> None:
    client = serve(address="0.0.0.0")
    assert len(client.token) >= 20
    for path in ("/", "/api/state", "/static/page.js", "/?token=", "/?token=wrong"):
        assert client.get(path).status == 401
    assert client.get("/", Cookie="stylize_token=wrong").status == 401
    given = client.get(f"/?token={client.token}")
    assert (given.status, given.headers["location"]) == (303, "/")
    cookie = given.headers["set-cookie"]
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in cookie.split(";")}
    assert client.get("/", Cookie=cookie.split(";")[0]).status == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_this_machine_there_is_no_token(address: str) -> None:
    from stylize_web.security import Place

    assert Place(address, 1).token == ""


# Pictures


@pytest.mark.slow
def test_an_upload_is_shown_under_its_name_and_kept_under_another(client: Client, tmp_path: Path) -> None:
    source = client.upload(png(), "../../etc/pass\0wd\n.png")
    assert source["name"] == "passwd.png"
    (file,) = (tmp_path / "temporary" / "uploads").iterdir()
    assert re.fullmatch("[0-9a-f]+", file.name)
    small = Image.open(io.BytesIO(client.get(f"/api/pictures/{source['id']}/thumbnail").body))
    assert (small.format, small.size) == ("JPEG", (32, 24))
    assert source["id"] in [each["id"] for each in client.get("/api/state").json["pictures"]]


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg/>", png()[:60]])
def test_what_is_no_picture_is_refused_and_removed(client: Client, tmp_path: Path, data: bytes) -> None:
    answer = client.ask("POST", "/api/pictures?name=mine.png", data)
    assert answer.status == 400
    assert "mine.png" in answer.text
    assert str(tmp_path) not in answer.text
    assert list((tmp_path / "temporary" / "uploads").iterdir()) == []


@pytest.mark.slow
def test_too_large_an_upload_is_refused(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylize_web.server.LARGEST", 1000)
    assert client.ask("POST", "/api/pictures?name=a.png", png(200, 200)).status == 413
    assert client.ask("POST", "/api/pictures?name=a.png", b"", Content_Length=str(10**12)).status == 413
    assert list((tmp_path / "temporary" / "uploads").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("key", ["..", "../../etc/passwd", "%2e%2e%2fserver.py", "upload-x", "/etc/passwd"])
def test_only_known_pictures_are_given(client: Client, key: str) -> None:
    for size in ("thumbnail", "view"):
        assert client.get(f"/api/pictures/{key}/{size}").status in (400, 404)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["..", "../..", "/etc", "inner/../..", "nowhere", "link", "a\0b"])
def test_nothing_outside_the_folder_is_listed(serve: Serve, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "offered"
    (folder / "inner").mkdir(parents=True)
    (folder / "link").symlink_to("/etc")
    client = serve(folder)
    assert client.get(f"/api/folder?place={quote(place)}").status == 400
    names = [each["name"] for each in client.get("/api/folder").json["entries"]]
    assert names == ["inner"]


@pytest.mark.slow
def test_names_that_are_no_text_and_links_in_circles(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "offered"
    inner = folder / os.fsdecode(b"d\xe9r")
    inner.mkdir(parents=True)
    for path in (inner / "a.jpg", folder / os.fsdecode(b"\xff.jpg")):
        Image.new("RGB", (9, 9)).save(path, "JPEG")
    (folder / "round.jpg").symlink_to("round.jpg")
    client = serve(folder)
    entries = client.get("/api/folder").json["entries"]
    assert [each["name"] for each in entries] == ["d\ufffdr", "\ufffd.jpg"]
    assert client.get(f"/api/pictures/{entries[1]['id']}/thumbnail").status == 200
    (found,) = client.get(f"/api/folder?place={quote(entries[0]['place'])}").json["entries"]
    assert found["name"] == "a.jpg"
    assert client.get(f"/api/folder?place={'a' * 4000}").status == 400


# Orders


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"content": None}, "choose a photo first"),
        ({"styles": []}, "choose a painting first"),
        ({"styles": "sample-waves"}, "choose a painting first"),
        ({"styles": ["sample-waves"] * 7}, "blend at most 6"),
        ({"content": "/etc/passwd"}, "not there any more"),
        ({"settings": {"size": 3}}, "size is 3; it must be 16 to 32768 px"),
        ({"settings": {"bla": 3}}, "unknown setting 'bla'"),
        ({"settings": {"init": "/etc/passwd"}}, "init is '/etc/passwd'"),
        ({"settings": []}, "settings must be an object"),
        ({"preset": "none such"}, "unknown preset"),
        ({"preset": ["default"]}, "unknown preset"),
        ({"format": "exe"}, "exe with 8 bits cannot be written"),
        ({"format": "jpg", "bits": 16}, "jpg with 16 bits cannot be written"),
        ({"mask": "http://evil.example/"}, "the mask must be a PNG"),
        ({"mask": "data:image/png;base64,!"}, "the mask is damaged"),
        ({"mask": "data:image/png;base64,AAAA"}, "the mask is damaged"),
        ({"mask": HUGE}, "the mask is damaged, or too large"),
        ({"mask": "mask-none"}, "not there any more"),
        ({"mask": brushed(0, 0)}, "nothing is painted with the brush"),
        ({"regions": [{"mask": brushed(0, 0), "styles": ["sample-waves"]}]}, "nothing is painted with the brush"),
        ({"regions": [{"mask": brushed(0, 9), "styles": []}]}, "choose a painting first"),
        ({"regions": [{"styles": ["sample-waves"]}]}, "the mask must be a PNG"),
        ({"regions": ["all"]}, "regions must be a list"),
        ({"regions": [{}] * 13}, "at most 12"),
    ],
)
def test_a_bad_order_is_refused_in_a_line(client: Client, values: dict[str, Any], said: str) -> None:
    assert said in client.order(status=400, **values)
    assert client.get("/api/state").json["runs"] == []


@pytest.mark.slow
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"7"])
def test_an_order_that_is_none_is_refused(client: Client, body: bytes) -> None:
    assert client.ask("POST", "/api/runs", body).status == 400


@pytest.mark.slow
def test_the_result_is_what_stylizer_gives_bit_for_bit(client: Client, tmp_path: Path) -> None:
    photo, painting = client.upload(png(40, 60, 3), "my photo.png"), client.upload(png(50, 50, 4), "my style.png")
    run = client.order(content=photo["id"], styles=[painting["id"]])
    run = client.wait(run["id"])
    assert (run["state"], run["error"], run["fraction"]) == ("done", "", 1.0)
    assert (run["width"], run["height"]) == (32, 21)
    answer = client.get(f"/api/runs/{run['id']}/result")
    assert answer.headers["content-disposition"] == 'attachment; filename="my-photo-my-style.png"'
    (tmp_path / "got.png").write_bytes(answer.body)
    (tmp_path / "photo.png").write_bytes(png(40, 60, 3))
    (tmp_path / "style.png").write_bytes(png(50, 50, 4))
    settings = Settings.from_dict(QUICK)
    expected = Stylizer(tmp_path / "style.png", settings, encoders=[tiny_encoder()])(tmp_path / "photo.png")
    expected.save(tmp_path / "expected.png")
    assert torch.equal(load(tmp_path / "got.png").rgb, load(tmp_path / "expected.png").rgb)
    record = read_record(tmp_path / "got.png")
    assert record is not None
    assert record["settings"] == settings.to_dict()
    assert Path(record["content"]["path"]).name == "my photo.png"
    assert str(tmp_path / "temporary") not in json.dumps(record)


@pytest.mark.slow
def test_a_painted_picture_brings_its_recipe_back(client: Client) -> None:
    photo = client.upload(png(40, 60, 3))
    run = client.wait(client.order(content=photo["id"])["id"])
    painted = client.upload(client.get(f"/api/runs/{run['id']}/result").body, "painted.png")
    recipe = painted["recipe"]
    assert (recipe["content"], recipe["styles"]) == (photo["id"], ["sample-waves"])
    assert recipe["settings"]["size"] == 32
    assert photo["recipe"] is None


@pytest.mark.slow
def test_a_run_can_be_stopped_and_keeps_its_picture(client: Client) -> None:
    run = client.order(settings=ENDLESS)
    waiting = client.order()
    client.wait(run["id"], "painting")
    while not client.run(run["id"])["version"]:
        time.sleep(0.02)
    assert client.ask("DELETE", f"/api/runs/{run['id']}").status == 400
    assert client.ask("POST", f"/api/runs/{waiting['id']}/stop").json["state"] == "stopped"
    client.ask("POST", f"/api/runs/{run['id']}/stop")
    stopped = client.wait(run["id"])
    assert stopped["state"] == "stopped"
    assert stopped["fraction"] < 1
    assert Image.open(io.BytesIO(client.get(f"/api/runs/{run['id']}/result").body)).size == (16, 11)
    assert client.run(waiting["id"])["result"] is None
    assert client.ask("DELETE", f"/api/runs/{run['id']}").status == 204
    assert client.get(f"/api/runs/{run['id']}/result").status == 400


@pytest.mark.slow
def test_the_events_tell_all_at_first_and_then_what_changes(client: Client) -> None:
    run = client.order(settings=ENDLESS)
    told = events_of(client)
    assert next(told)["all"] == [run["id"]]
    fractions = [each["fraction"] for event in (next(told) for _ in range(6)) for each in event["runs"]]
    assert fractions == sorted(fractions)
    client.ask("POST", f"/api/runs/{run['id']}/stop")
    assert any(each["state"] == "stopped" for event in told for each in event["runs"])
    client.ask("DELETE", f"/api/runs/{run['id']}")
    assert next(event for event in told if event["gone"])["gone"] == [run["id"]]


def events_of(client: Client) -> Iterator[Any]:
    """What the server tells from now on."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=PATIENCE)
    connection.request("GET", "/api/events")
    try:
        answer = connection.getresponse()
        assert answer.getheader("content-type", "").startswith("text/event-stream")
        for line in answer:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    finally:
        connection.close()


@pytest.mark.slow
def test_the_end_of_every_run_is_told(client: Client) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns wherever they can
    try:
        told = events_of(client)
        for _ in range(6):
            run = client.order(settings={**QUICK, "size": 16, "steps": [1]})
            assert any(each["id"] == run["id"] and each["state"] == "done" for event in told for each in event["runs"])
    finally:
        sys.setswitchinterval(interval)


def test_a_change_is_seen_whole_or_not_at_all() -> None:
    from stylize_web.board import Board

    board, text, seen = Board(), ["before"], []
    inside, go = threading.Event(), threading.Event()

    def change() -> None:
        with board.change():
            inside.set()
            go.wait(PATIENCE)
            text[0] = "after"

    def look() -> None:
        with board.lock:
            seen.append((board.revision, text[0]))

    changing, looking = threading.Thread(target=change), threading.Thread(target=look)
    look()
    changing.start()
    inside.wait(PATIENCE)
    looking.start()
    looking.join(0.05)
    go.set()
    looking.join(PATIENCE)
    changing.join(PATIENCE)
    assert seen == [(0, "before"), (1, "after")]


def test_who_is_woken_by_a_change_finds_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from stylize_web import board as module

    board, text, found, wake = module.Board(), ["before"], [], module._wake

    def at_once(*arguments: Any) -> None:  # the reader runs before the thread that has made the change goes on
        found.append((board.revision, text[0]))
        wake(*arguments)

    monkeypatch.setattr(module, "_wake", at_once)

    async def wait() -> None:
        waiting = asyncio.create_task(board.wait(0, PATIENCE))
        await asyncio.sleep(0)
        with board.change():
            text[0] = "after"
        await waiting
        await board.wait(0, PATIENCE)  # which has come already

    asyncio.run(wait())
    assert found == [(1, "after")]


def pixels(picture: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), int)


@pytest.mark.slow
def test_only_the_part_under_the_brush_is_painted_and_can_be_painted_again(
    serve: Serve, tmp_path: Path, call: Call
) -> None:
    client = serve(output=tmp_path / "kept")
    photo = client.upload(png(32, 32, 5), "photo.png")
    run = client.wait(
        client.order(content=photo["id"], mask=brushed(0, 32), settings={**QUICK, "scales": 1, "steps": [8]})["id"]
    )
    assert run["state"] == "done", run
    result = client.get(f"/api/runs/{run['id']}/result").body
    before, after = pixels(png(32, 32, 5)), pixels(result)
    assert (before[:, 20:] == after[:, 20:]).all()
    assert np.abs(before[:, :12] - after[:, :12]).mean() > 3
    key = run["order"]["mask"]
    assert client.get(f"/api/pictures/{key}/view").body == base64.b64decode(brushed(0, 32).partition(",")[2])
    again = client.wait(client.order(content=photo["id"], mask=key)["id"])
    assert (again["state"], again["order"]["mask"]) == ("done", key)
    assert client.upload(result)["recipe"]["mask"] == key
    # and on the command line
    (tmp_path / "kept" / "photo.png").write_bytes(png(32, 32, 5))
    assert len([*(tmp_path / "kept").glob("photo-mask-*.png")]) == 1
    with zipfile.ZipFile(io.BytesIO(client.get(f"/api/runs/{run['id']}/masks").body)) as archive:
        assert [(tmp_path / "kept" / name).read_bytes() for name in archive.namelist()] == [
            archive.read(name) for name in archive.namelist()
        ]
    shutil.copy(SAMPLES / "waves.jpg", tmp_path / "kept")
    done = call("replay", "kept/photo-waves.png", "--sources", "kept", "-o", "again.png")
    assert done.code == 0, done.err
    assert pixels((tmp_path / "again.png").read_bytes()).tolist() == after.tolist()


@pytest.mark.slow
def test_parts_have_paintings_of_their_own(client: Client, tmp_path: Path) -> None:
    photo, painting = client.upload(png(32, 32, 5), "photo.png"), client.upload(png(32, 32, 6), "own.png")
    region = {"mask": brushed(0, 32), "styles": [painting["id"]]}
    run = client.wait(client.order(content=photo["id"], regions=[region])["id"])
    assert run["state"] == "done", run
    (tmp_path / "got.png").write_bytes(client.get(f"/api/runs/{run['id']}/result").body)
    (tmp_path / "photo.png").write_bytes(png(32, 32, 5))
    (tmp_path / "own.png").write_bytes(png(32, 32, 6))
    (tmp_path / "mask.png").write_bytes(base64.b64decode(brushed(0, 32).partition(",")[2]))
    stylizer = Stylizer(SAMPLES / "waves.jpg", Settings.from_dict(QUICK), encoders=[tiny_encoder()])
    expected = stylizer(tmp_path / "photo.png", regions=[(tmp_path / "mask.png", tmp_path / "own.png")])
    expected.save(tmp_path / "expected.png")
    assert torch.equal(load(tmp_path / "got.png").rgb, load(tmp_path / "expected.png").rgb)
    described = run["order"]["regions"]
    assert [[style["name"] for style in each["styles"]] for each in described] == [["own.png"]]
    recipe = client.upload((tmp_path / "got.png").read_bytes())["recipe"]
    assert recipe["regions"] == [{"mask": described[0]["mask"], "styles": [painting["id"]]}]


@pytest.mark.slow
def test_a_clip_is_served_in_parts_to_players(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "offered").mkdir()
    (tmp_path / "offered" / "clip.mp4").write_bytes(bytes(range(200)))
    client = serve(tmp_path / "offered")
    (clip,) = client.get("/api/folder").json["entries"]
    part = client.get(f"/api/pictures/{clip['id']}/view", Range="bytes=10-19")
    assert (part.status, part.body, part.headers["content-type"]) == (206, bytes(range(10, 20)), "video/mp4")
    assert client.get(f"/api/pictures/{clip['id']}/thumbnail").status == 404
    (tmp_path / "offered" / "clip.mp4").unlink()
    (tmp_path / "offered" / "clip.mp4").symlink_to("/etc/passwd")
    assert client.get(f"/api/pictures/{clip['id']}/view").status == 400


@pytest.mark.slow
def test_a_folder_is_painted_with_its_report(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "offered"
    (folder / "trip").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png")):
        (folder / "trip" / name).write_bytes(png(24, 32, number))
    client = serve(folder)
    (trip,) = [each for each in client.get("/api/folder").json["entries"] if each["name"] == "trip"]
    assert (trip["kind"], trip["place"]) == ("folder", "trip")
    assert "choose a picture as the painting" in client.order(status=400, styles=[trip["id"]])
    run = client.wait(client.order(content=trip["id"])["id"])
    assert (run["state"], run["error"]) == ("done", "")
    assert sorted(path.name for path in (folder / "painted" / "trip").iterdir()) == ["a.png", "b.png"]
    report = client.get(f"/api/runs/{run['id']}/report/{run['report']}")
    assert report.status == 200
    assert "sandbox" in report.headers["content-security-policy"]
    linked = re.findall(r'href="(trip/[^"]+)"', report.text)
    assert linked
    assert client.get(f"/api/runs/{run['id']}/report/{linked[0]}").status == 200
    for elsewhere in ("../trip/a.png", "..%2Ftrip%2Fa.png", "/etc/passwd", "other.html"):
        assert client.get(f"/api/runs/{run['id']}/report/{elsewhere}").status == 404


@pytest.mark.slow
def test_results_are_kept_where_asked_and_never_over_another(serve: Serve, tmp_path: Path) -> None:
    client = serve(output=tmp_path / "kept")
    for _ in range(2):
        client.wait(client.order()["id"])
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["cat-waves-2.png", "cat-waves.png"]


@pytest.mark.slow
def test_a_blend_needs_a_weight_for_each(client: Client) -> None:
    styles = ["sample-waves", "sample-mosaic"]
    run = client.wait(client.order(styles=styles, settings={**QUICK, "style_weights": [1, 3]})["id"])
    assert run["state"] == "done"
    run = client.wait(client.order(styles=styles, settings={**QUICK, "style_weights": [1]})["id"])
    assert run["state"] == "failed"
    assert "style_weights has 1 numbers for 2 style pictures" in run["error"]


# The command


@pytest.fixture
def command(cli_environment: Mapping[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = {**cli_environment, "TMPDIR": str(tmp_path / "tmp")}
        (tmp_path / "tmp").mkdir(exist_ok=True)
        line = [sys.executable, "-m", "stylize", "serve", *arguments]
        started.append(subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_the_server_says_where_it_is_and_leaves_nothing_behind(
    command: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = command("--port", "0")
    assert process.stderr is not None
    said = process.stderr.readline()
    found = re.fullmatch(r"stylize: http://127\.0\.0\.1:(\d+)/  \(Ctrl-C ends\)\n", said)
    assert found, said
    client = Client(int(found[1]))
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            assert client.get("/").status == 200
            break
        except OSError:
            time.sleep(0.05)
    client.upload((SAMPLES / "cat.jpg").read_bytes(), "cat.jpg")
    run = client.order(settings=ENDLESS)
    client.wait(run["id"], "painting")
    stream = http.client.HTTPConnection("127.0.0.1", client.port, timeout=PATIENCE)
    stream.request("GET", "/api/events")
    stream.getresponse()
    assert list((tmp_path / "tmp").glob("stylize-page-*"))
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0, process.stderr.read()
    assert "Traceback" not in process.stderr.read()
    assert list((tmp_path / "tmp").glob("stylize-page-*")) == []
    stream.close()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--port", "70000"), 2, "70000"),
        (("--folder", "nowhere"), 2, "nowhere"),
        (("--output", "nowhere/inner"), 2, "there is no folder nowhere"),
        (("--host", "not.a.host.invalid"), 1, "cannot listen on not.a.host.invalid"),
        (("--host", "192.0.2.77"), 1, "cannot listen on 192.0.2.77"),
    ],
)
def test_what_is_wrong_with_the_call_is_said_in_a_line(
    call: Call, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = call("serve", *arguments)
    assert done.code == code
    assert said in done.err
    assert done.err.count("\n") == 1


def test_a_port_that_is_taken_is_an_error_only_if_it_was_asked_for() -> None:
    from stylize_web.server import listen

    with listen("127.0.0.1", 0, 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(stylize.StylizeError, match=f"cannot listen on 127.0.0.1, port {port}: "):
            listen("127.0.0.1", port, 0)
        with listen("127.0.0.1", None, port) as other:
            assert isinstance(other, socket.socket)
            assert other.getsockname()[1] not in (0, port)


def test_small_answers_are_sent_at_once() -> None:
    """asyncio turns Nagle's algorithm off only where a socket names its protocol."""
    from stylize_web.server import listen

    with listen("127.0.0.1", 0, 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


@pytest.mark.slow
def test_the_server_starts_without_torch(cli_environment: Mapping[str, str]) -> None:
    code = "import sys, stylize_web.server, stylize_web.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(cli_environment), timeout=PATIENCE).returncode == 0


def test_torch_is_loaded_once_the_page_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading it would hold up all answers."""
    from stylize_web import queue as queues
    from stylize_web.board import Board
    from stylize_web.painting import Painter
    from stylize_web.pictures import Pictures

    monkeypatch.setattr(queues, "sys", SimpleNamespace(modules={}))  # as if it were not loaded
    monkeypatch.setattr(queues, "HEAD_START", PATIENCE)
    monkeypatch.setattr(queues, "BREATH", 0)
    asked = threading.Event()

    def load(painter: Painter) -> dict[str, list[str]]:
        asked.set()
        return {}

    monkeypatch.setattr(Painter, "load", load)
    queue = queues.Queue(Pictures(tmp_path, None), stylize.Host(), Board(), tmp_path)
    queue.start()
    assert not asked.wait(0.05)
    queue.opened()
    assert asked.wait(PATIENCE)
    queue.close()
