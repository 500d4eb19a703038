"""The live page measured in Chromium, and its screenshot: ``python -m tests.bench.page [SHOT.jpg]``.

Prints the seconds from the command to the page, the bytes of the page, the hosts that were asked, how long a preview
takes to the screen, and how many steps come after *Stop*.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

SHOWN = (1067, 900)  # px, of the screenshot
SIZE = 128  # px, while latencies are measured


def main() -> None:
    from playwright.sync_api import sync_playwright

    begun = time.monotonic()
    line = [sys.executable, "-m", "stylize", "serve", "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stderr is not None
        found = re.search(r"http://\S+", server.stderr.readline())
        assert found
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1080})
        hosts: set[str] = set()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.set_default_timeout(300_000)
        page.goto(found[0])
        page.wait_for_selector("body[data-drawn]")
        print(f"from command to page, the browser's own start included: {time.monotonic() - begun:.1f} s")
        names = ("page.css", "page.js", "brush.js", "dom.js", "icon.svg")
        own = [page.request.get(found[0] + path).body() for path in ("", *(f"static/{name}" for name in names))]
        print(f"page: {sum(map(len, own))} bytes")
        try:
            measure(page)
            if sys.argv[1:]:
                shoot(page, Path(sys.argv[1]))
        finally:
            browser.close()
            server.terminate()
        print(f"hosts asked: {sorted(hosts)}")


def choose(page: Any, size: int, **settings: str) -> None:
    for box, picture in (("photo", "moose"), ("painting", "starry-night")):
        if not page.locator(f"#{box} [aria-pressed=true][data-id]").count():
            page.click(f"#{box} [data-id=sample-{picture}]")
    page.wait_for_selector("#ready.on")
    page.locator("#more").evaluate("more => more.open = true")
    for name, value in {"encoder": "mini", **settings}.items():
        box = page.locator("#fields label", has=page.locator(f"span:text-is('{name}')")).locator("input, select")
        if box.evaluate("box => box.tagName") == "SELECT":
            box.select_option(value)
        else:
            box.fill(value)
            box.dispatch_event("change")
    page.locator("#more").evaluate("more => more.open = false")
    script = "(box, value) => { box.value = Math.log2(value); box.dispatchEvent(new Event('input')) }"
    page.locator("#size").evaluate(script, size)


def measure(page: Any) -> None:
    choose(page, SIZE, optimizer="adam", tolerance="0", steps="100000")
    page.click("#paint")
    while page.evaluate("latencies.length") < 30:
        time.sleep(0.02)
    latencies = sorted(page.evaluate("latencies"))
    median = statistics.median(latencies)
    print(f"preview to screen: median {median:.3f} s, most {latencies[-1]:.3f} s, of {len(latencies)}")
    before = page.inner_text("#say")
    page.click("#stop")
    page.wait_for_selector("#save:visible")
    print(f"stopped after: {before}; then: {page.inner_text('#say')}")


def shoot(page: Any, path: Path) -> None:
    page.click("#presets [role=radio] >> nth=0")  # as it was before the measurement
    choose(page, 384)
    page.click("#paint")
    page.wait_for_selector("#stop:visible")
    page.wait_for_selector("#save:visible")
    page.locator("#compare").evaluate("box => { box.value = 45; box.dispatchEvent(new Event('input')) }")
    page.evaluate("scrollTo(0, 0)")
    time.sleep(0.5)
    with tempfile.TemporaryDirectory() as folder:
        page.screenshot(path=f"{folder}/page.png")
        shot = Image.open(f"{folder}/page.png").convert("RGB").resize(SHOWN, Image.Resampling.LANCZOS)
        shot.save(path, quality=70, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
