"""The napari viewer with the plugin at work, as a picture. Needs the extra napari and a screen, real or virtual:

xvfb-run -s "-screen 0 1280x800x24" python -m tests.bench.napari_shot samples/napari.jpg
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--encoder", default="auto")
    parser.add_argument("--layer", type=Path, help="save the stylized layer there, too")
    arguments = parser.parse_args()

    import napari  # and no torch: as with a user, the window and its OpenGL are there first
    from napari.settings import get_settings
    from PIL import Image
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    get_settings().application.save_window_geometry = False
    viewer = napari.Viewer()
    viewer.window.resize(1180, 640)
    viewer.open_sample("stylize-host", "bridge")
    _, widget = viewer.window.add_plugin_dock_widget("stylize-host", "Stylize")
    widget["style"].value = viewer.layers["starry-night"]
    widget["size"].value = arguments.size
    widget["encoder"].value = arguments.encoder

    def wait(until: Callable[[], Any]) -> None:
        begun = time.monotonic()
        while not until():
            if time.monotonic() - begun > 600:
                raise SystemExit("the viewer does not come to an end")
            QApplication.processEvents()
            time.sleep(0.01)

    buttons = widget["buttons"]
    buttons["run"].native.click()
    wait(lambda: buttons["run"].enabled)
    viewer.reset_view()
    rest = time.monotonic() + 1
    wait(lambda: time.monotonic() > rest)
    shot = viewer.screenshot(canvas_only=False, flash=False)
    Image.fromarray(shot).convert("RGB").save(arguments.target, quality=88)
    if arguments.layer:
        viewer.layers["bridge stylized"].save(str(arguments.layer), plugin="stylize-host")
    widget["size"].value = 512
    buttons["run"].native.click()  # closing must not wait for it
    QTimer.singleShot(1000, viewer.close)
    napari.run()


if __name__ == "__main__":
    main()
