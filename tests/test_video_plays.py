"""Clips as they leave us play in a browser: picture, length, sound."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stylize_video.ffmpeg import executable
from tests.conftest import PATIENCE, Call

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--autoplay-policy=no-user-gesture-required"]
PAGE = """<!doctype html><video src="{name}" autoplay></video><script>
const video = document.querySelector("video");
const say = event => fetch("/said?" + encodeURIComponent(JSON.stringify({{
  event, length: video.duration, width: video.videoWidth, height: video.videoHeight,
  frames: video.getVideoPlaybackQuality().totalVideoFrames, sound: video.webkitAudioDecodedByteCount,
}})));
video.onerror = () => say("error");
video.onended = () => say("ended");
</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is installed"),
]

Play = Callable[[Path], dict[str, Any]]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """Plays a clip of the test's folder to its end, and tells what the browser made of it."""
    said: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path == "/said":
                said.put(json.loads(urllib.parse.unquote(query)))
                self.send_error(204)
            else:
                super().do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(clip: Path) -> dict[str, Any]:
        (tmp_path / "play.html").write_text(PAGE.format(name=clip.name))
        address = f"http://127.0.0.1:{server.server_address[1]}/play.html"
        command = [
            str(CHROMIUM),
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--remote-debugging-port=0",
            address,
        ]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return said.get(timeout=PATIENCE)
        finally:
            browser.kill()
            browser.wait()

    yield run
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("target", "codec"), [("out.mp4", None), ("out.webm", None), ("out.mp4", "av1")])
def test_a_clip_plays_whole_and_with_its_sound(
    call: Call, play: Play, folder: Path, target: str, codec: str | None
) -> None:
    from stylize import Picture
    from tests.conftest import waves

    Picture(waves(20, 20, 9)).save("style.png")
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x72:rate=10", "-f", "lavfi", "-i", "sine", "-t", "0.8"]
    subprocess.run([executable(), "-v", "error", *source, "-pix_fmt", "yuv420p", "in.mp4"], check=True)
    options = ["--codec", codec] if codec else []
    done = call("in.mp4", "style.png", "-o", target, "--encoder", "tiny", "--size", "96", "--steps", "1",
                "--frame-steps", "1", *options)  # fmt: skip
    assert done.code == 0, done.err
    found = play(folder / target)
    assert found["event"] == "ended"
    assert (found["width"], found["height"]) == (96, 72)
    assert found["length"] == pytest.approx(0.8, abs=0.1)
    assert found["frames"] >= 7  # the last may not be shown before the end is told
    assert found["sound"] > 0
