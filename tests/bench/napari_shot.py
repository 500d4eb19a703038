"""The napari viewer with the plugin at work, as a picture. Needs the extra napari and a screen, real or virtual:

xvfb-run -s "-screen 0 1280x800x24" python -m tests.bench.napari_shot samples/napari.jpg --during during.jpg

Prints how long the window was held at most while the widget was opened and while the picture was painted: on the clock,
which other programs at work make longer, and in seconds of the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class Stalls:
    """The longest time for which the window did not react."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    def turn(self, action: Callable[[], object]) -> None:
        """Let the window react once, by ``action``."""
        begun, cpu = time.perf_counter(), time.thread_time()
        action()
        self.seconds = max(self.seconds, time.perf_counter() - begun)
        self.cpu_seconds = max(self.cpu_seconds, time.thread_time() - cpu)

    @contextlib.contextmanager
    def between_ticks(self) -> Iterator[None]:
        """The longest time between two ticks of a clock of the window, for what lets it react by itself meanwhile."""
        from qtpy.QtCore import QTimer

        last = time.perf_counter(), time.thread_time()

        def tick() -> None:
            nonlocal last
            now = time.perf_counter(), time.thread_time()
            self.seconds, self.cpu_seconds = (
                max(self.seconds, now[0] - last[0]),
                max(self.cpu_seconds, now[1] - last[1]),
            )
            last = now

        timer = QTimer()
        timer.timeout.connect(tick)
        timer.start(1)
        yield
        timer.stop()
        tick()

    def told(self) -> dict[str, float]:
        return {"seconds": round(self.seconds, 3), "cpu_seconds": round(self.cpu_seconds, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("--during", type=Path, help="a picture of the window while it paints")
    parser.add_argument("--unfold", action="store_true", help="with all settings to be seen")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--encoder", default="auto")
    parser.add_argument("--layer", type=Path, help="save the stylized layer there, too")
    arguments = parser.parse_args()

    import napari  # and no torch: as with a user, the window and its OpenGL are there first
    from napari.settings import get_settings
    from PIL import Image
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    def wait(until: Callable[[], Any], stalls: Stalls | None = None) -> None:
        begun, stalls = time.monotonic(), stalls or Stalls()
        while not until():
            if time.monotonic() - begun > 600:
                raise SystemExit("the viewer does not come to an end")
            stalls.turn(QApplication.processEvents)
            time.sleep(0.01)

    def shoot(path: Path) -> None:
        shot = viewer.screenshot(canvas_only=False, flash=False)
        Image.fromarray(shot).convert("RGB").save(path, quality=88)

    get_settings().application.save_window_geometry = False
    viewer = napari.Viewer()
    viewer.window.resize(1180, 720)
    sample, opening, painting = Stalls(), Stalls(), Stalls()
    with sample.between_ticks():
        viewer.open_sample("stylize-host", "bridge")
    docked: list[Any] = []
    opening.turn(lambda: docked.append(viewer.window.add_plugin_dock_widget("stylize-host", "Stylize")[1]))
    (widget,) = docked
    wait(lambda: arguments.encoder in widget.form["encoder"].choices and "vgg19" in widget.form["encoder"].choices)
    widget["style"].value = viewer.layers["starry-night"]
    widget["size"].value = arguments.size
    widget.form["encoder"].value = arguments.encoder
    if arguments.unfold:
        for fold in widget.folds:
            fold.expand(animate=False)
    buttons, bar = widget["buttons"], widget["bar"]
    buttons["run"].native.click()
    if arguments.during:
        wait(lambda: buttons["run"].enabled or (len(viewer.layers) > 2 and bar.value > 600))
        viewer.reset_view()
        shoot(arguments.during)
    wait(lambda: buttons["run"].enabled, painting)
    viewer.reset_view()
    rest = time.monotonic() + 1
    wait(lambda: time.monotonic() > rest)
    shoot(arguments.target)
    if arguments.layer:
        viewer.layers["bridge stylized"].save(str(arguments.layer), plugin="stylize-host")
    print(json.dumps({"sample": sample.told(), "widget": opening.told(), "painting": painting.told()}))
    widget["size"].value = 512
    buttons["run"].native.click()  # closing must not wait for it
    QTimer.singleShot(1000, viewer.close)
    napari.run()


if __name__ == "__main__":
    main()
