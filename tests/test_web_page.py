"""The live page in a real browser: Chromium without a window, on a server of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from stylize import Settings, Stylizer, load
from stylize.testing import tiny_encoder
from tests.conftest import SAMPLES

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")
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


@pytest.fixture
def address(cli_environment: Mapping[str, str], tmp_path: Path) -> Iterator[str]:
    """The address of a server that offers a folder."""
    (tmp_path / "offered" / "trip").mkdir(parents=True)
    shutil.copy(SAMPLES / "cat.jpg", tmp_path / "offered" / "trip")
    line = [sys.executable, "-m", "stylize", "serve", "--port", "0", "--folder", "offered"]
    with subprocess.Popen(line, env=dict(cli_environment), stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
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


def test_the_brush_paints_a_part(page: Page) -> None:
    page.click("#photo [data-id=sample-cat]")
    page.click("#painting [data-id=sample-waves]")
    set_fields(page, encoder="tiny", device="cpu", steps="2")
    slide(page, "size", 7)
    page.click("#mask-open")
    page.wait_for_selector("#mask:visible")
    box = page.locator("#mask").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5, steps=5)
    page.mouse.up()
    page.click("#brushed")
    page.click("#paint")
    page.wait_for_selector("#save:visible")
    with page.expect_download() as download:
        page.click("#save")
    painted, photo = load(download.value.path()).rgb, load(SAMPLES / "cat.jpg")
    from stylize import resize

    difference = (painted - resize(photo.rgb, *painted.shape[2:])).abs().mean(1)[0]
    width = difference.shape[1]
    assert difference[:, int(width * 0.7) :].max() < 0.01
    assert difference[:, int(width * 0.15) : int(width * 0.45)].max() > 0.05


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
