"""The live page in a real browser: Chromium without a window, on a server of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from stylize import Settings, Stylizer, load, resize
from stylize.testing import tiny_encoder
from tests import preloaded
from tests.conftest import SAMPLES

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")
FFMPEG = shutil.which("ffmpeg")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]

Page = Any  # of playwright
PATIENCE = 300  # seconds until something that is waited for counts as hung
ENDLESS = {"optimizer": "adam", "tolerance": "0", "steps": "100000"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *quiet])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the server offers: one with a picture, and a clip of three frames."""
    folder = tmp_path_factory.mktemp("offered")
    (folder / "trip").mkdir()
    shutil.copy(SAMPLES / "cat.jpg", folder / "trip")
    if FFMPEG is not None:
        source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=3:duration=1", "-pix_fmt", "yuv420p"]
        subprocess.run([FFMPEG, "-loglevel", "error", *source, folder / "clip.mp4"], check=True)
    return folder


@pytest.fixture(scope="module")
def address(plugin_folder: Path, offered: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server, the same for all tests; each has a browser of its own, as another user would."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("STYLIZE_")}
    own = {"PYTHONPATH": str(plugin_folder), "STYLIZE_CACHE": str(tmp_path_factory.mktemp("cache"))}
    line = [sys.executable, "-m", "stylize", "serve", "--port", "0", "--folder", str(offered)]
    with preloaded.Popen(line, env={**kept, **own}, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found
        yield found[0]
        process.terminate()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    """The page, with every request and complaint of the browser noted."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    hosts: set[str] = set()
    complaints: list[str] = []
    context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc or urlsplit(request.url).scheme))
    opened.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.set_default_timeout(1000 * PATIENCE)
    opened.goto(address)
    opened.wait_for_selector("body[data-drawn]")
    opened.wait_for_selector("#ready.on")
    yield opened
    assert hosts <= {urlsplit(address).netloc, "blob"}
    assert [said for said in complaints if "Failed to load resource" not in said] == []  # which answers of 400 are
    context.close()


def until(page: Page, expression: str) -> None:
    """Wait until JavaScript is true; the page's policy keeps playwright from doing that in the page."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"{expression}: {page.inner_text('main')}"
        time.sleep(0.02)


def set_fields(page: Page, **values: str) -> None:
    page.locator("#more").evaluate("more => more.open = true")
    for name, value in values.items():
        box = page.locator("#fields label", has=page.locator(f"span:text-is('{name}')")).locator("input, select")
        if box.evaluate("box => box.tagName") == "SELECT":
            box.select_option(value)
        else:
            box.fill(value)
            box.dispatch_event("change")
    page.locator("#more").evaluate("more => more.open = false")


def slide(page: Page, name: str, value: float) -> None:
    page.locator(f"#{name}").evaluate(
        "(box, value) => { box.value = value; box.dispatchEvent(new Event('input')) }", value
    )


def drop(page: Page, where: str, path: Path) -> None:
    """Let go of a file over a place, as from a file manager."""
    import base64

    data = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(
        """([where, data, name]) => {
            const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: 'image/jpeg' }));
            const target = document.querySelector(where);
            for (const kind of ['dragover', 'drop'])
                target.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        [where, data, path.name],
    )


def test_drop_two_pictures_watch_stop_reload_and_download(page: Page, tmp_path: Path) -> None:
    drop(page, "#photo .drop", SAMPLES / "bridge.jpg")
    page.wait_for_selector("#photo .drop img:not([hidden])")
    drop(page, "#painting .drop", SAMPLES / "waves.jpg")
    page.wait_for_selector("#painting .drop img:not([hidden])")
    set_fields(page, encoder="tiny", device="cpu", **ENDLESS)
    slide(page, "size", 7)
    assert page.inner_text("#size-value") == "128 px"
    page.click("#paint")
    until(page, "latencies.length >= 3")  # previews arrive
    assert page.inner_text("#title") == "bridge · waves"
    page.reload()  # it goes on
    page.wait_for_selector("#stop:visible")
    assert page.inner_text("#title") == "bridge · waves"
    until(page, "latencies.length >= 2")
    assert page.inner_text("#size-value") == "128 px"  # the form is as it was
    page.click("#stop")
    page.wait_for_selector("#save:visible")
    assert page.inner_text("#say").startswith("stopped, 128 x 94")
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "bridge-waves.png"
    assert load(download.value.path()).size == (94, 128)


def test_the_download_is_what_stylizer_gives_bit_for_bit(page: Page, tmp_path: Path) -> None:
    page.click("#photo [data-id=sample-cat]")
    page.click("#painting [data-id=sample-mosaic]")
    set_fields(page, encoder="tiny", device="cpu", steps="3")
    slide(page, "size", 7)
    slide(page, "weight", -1)
    page.click("#paint")
    page.wait_for_selector("#save:visible")
    with page.expect_download() as download:
        page.click("#save")
    settings = Settings(encoder="tiny", device="cpu", steps=(3,), size=128, content_weight=0.1)
    expected = Stylizer(SAMPLES / "mosaic.jpg", settings, encoders=[tiny_encoder()])(SAMPLES / "cat.jpg")
    expected.save(tmp_path / "expected.png")
    assert torch.equal(load(download.value.path()).rgb, load(tmp_path / "expected.png").rgb)
    page.locator("#compare").focus()
    page.keyboard.press("End")
    assert page.evaluate("document.getElementById('frame').style.getPropertyValue('--cut')") == "100%"
    page.click("#larger")
    until(page, "document.getElementById('say').textContent.includes('256 x')")


def test_at_390_px_nothing_sticks_out_and_all_can_be_reached_by_keyboard(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#more").evaluate("more => more.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for color in ("light", "dark"):
        page.emulate_media(color_scheme=color)
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor")
            == {"light": "rgb(246, 242, 234)", "dark": "rgb(21, 19, 17)"}[color]
        )
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, a[href], input, select, [role=radio]')]
            .filter((each) => !(each.getAttribute('aria-label') || each.textContent.trim() || each.labels?.length))
            .map((each) => each.outerHTML)"""
    )
    assert nameless == []
    page.focus("#photo [data-id=sample-cat]")
    page.keyboard.press("Enter")
    assert page.get_attribute("#photo [data-id=sample-cat]", "aria-pressed") == "true"
    assert page.evaluate("document.activeElement.dataset.id") == "sample-cat"  # the focus stays


def test_what_is_wrong_is_said_beside_the_button(page: Page) -> None:
    page.click("#paint")
    until(page, "document.getElementById('problem').textContent === 'choose a photo first'")
    drop(page, "#photo .drop", Path(__file__))
    until(page, "document.getElementById('problem').textContent.includes('test_web_page.py')")


def brush(page: Page, *points: tuple[float, float]) -> None:
    """A stroke over the photo, from point to point, in shares of its width and height."""
    page.locator("#mask").scroll_into_view_if_needed()
    box = page.locator("#mask").bounding_box()
    places = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places:
        page.mouse.move(*place, steps=3)
    page.mouse.up()


def difference(page: Page, photo: Path) -> torch.Tensor:
    """How far what is downloaded is from a photo, (H, W)."""
    page.wait_for_selector("#save:visible")
    with page.expect_download() as download:
        page.click("#save")
    painted = load(download.value.path()).rgb
    return (painted - resize(load(photo).rgb, *painted.shape[2:])).abs().mean(1)[0]


def test_the_brush_paints_parts_each_in_a_painting_of_its_own(page: Page) -> None:
    page.click("#photo [data-id=sample-cat]")
    page.click("#painting [data-id=sample-waves]")
    set_fields(page, encoder="tiny", device="cpu", steps="2")
    slide(page, "size", 7)
    page.click("#mask-open")
    page.wait_for_selector("#mask:visible")
    brush(page, (0.2, 0.5), (0.4, 0.5))
    page.click("#pens [data-pen=sample-mosaic]")
    brush(page, (0.2, 0.5))
    brush(page, (0.9, 0.5))
    page.click("#undo")
    page.click("#brushed")
    assert page.inner_text("#mask-open") == "2 parts are brushed"
    page.click("#paint")
    changed = difference(page, SAMPLES / "cat.jpg")
    width = changed.shape[1]
    assert changed[:, int(width * 0.7) :].max() < 0.01
    assert changed[:, int(width * 0.15) : int(width * 0.45)].max() > 0.05
    (region,) = page.evaluate("fetch('/api/state').then((a) => a.json()).then((s) => s.runs.at(-1).order.regions)")
    assert [style["name"] for style in region["styles"]] == ["mosaic"]
    page.click("#photo [data-id=sample-moose]")  # which the brush has not been over
    assert page.inner_text("#mask-open") == "Brush parts…"
    page.click("#runs [aria-pressed] >> nth=0")
    page.click("#reuse")
    until(page, "document.getElementById('mask-open').textContent === '2 parts are brushed'")


@pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")
def test_a_clip_plays_before_and_after_it_is_painted(page: Page, offered: Path) -> None:
    page.click("#photo .browse")
    page.get_by_role("button", name="clip.mp4").click()
    plays = "document.getElementById('film').videoWidth === 64 && document.getElementById('film').src"
    until(page, f"{plays}.includes('/api/pictures/')")
    page.click("#painting [data-id=sample-waves]")
    set_fields(page, encoder="tiny", device="cpu", steps="1")
    slide(page, "size", 7)
    page.click("#paint")
    page.wait_for_selector("#save:visible")
    until(page, f"{plays}.includes('/result')")
    assert page.inner_text("#say").startswith("done, in painted, below the folder")
    assert (offered / "painted" / "clip.mp4").is_file()
    page.click("#remove")
    until(page, f"{plays}.includes('/api/pictures/')")


def test_the_folder_can_be_walked_through(page: Page, tmp_path: Path) -> None:
    page.click("#photo .browse")
    page.get_by_role("button", name="trip", exact=False).first.click()
    page.get_by_role("button", name="cat.jpg").click()
    page.wait_for_selector("#folder", state="hidden")
    assert page.get_attribute("#photo .drop img", "alt") == "cat.jpg"


def test_a_server_that_ends_is_noticed(page: Page, tmp_path: Path) -> None:
    page.route("**/api/events", lambda route: route.abort())
    page.reload()
    until(page, "document.getElementById('ready').textContent === 'the server does not answer'")
