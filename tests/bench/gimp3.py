"""The plug-in in a real GIMP 3: layers, a selection, kinds of image, errors; with ``--window``, its dialog, previews
and undo on a virtual screen (Xvfb, openbox, xdotool and ImageMagick).

    python -m tests.bench.gimp3 FOLDER             # which keeps pictures; the last line is JSON

GIMP runs with settings of its own, in FOLDER, and with the plug-in of this checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).with_name("gimp_inside.py")
GIMPRC = '(show-welcome-dialog no)\n(check-updates no)\n(config-version "3.0.4")\n'
PATIENCE = 1800  # s


def prepare(folder: Path) -> dict[str, str]:
    """Pictures, and the settings of a GIMP with the plug-in; the environment for it."""
    folder.mkdir(exist_ok=True)
    samples = ROOT / "samples"
    shutil.copy(samples / "waves.jpg", folder)
    with Image.open(samples / "cat.jpg") as photo:
        photo.resize((1024, 768)).save(folder / "large.png")
        photo.resize((160, 120)).save(folder / "small.png")
    (folder / "broken.jpg").write_text("no picture")
    home = folder / "gimp" / "3.0"
    (home / "plug-ins").mkdir(parents=True, exist_ok=True)
    (home / "gimprc").write_text(GIMPRC)
    environment = {**os.environ, "GIMP3_DIRECTORY": str(home), "STYLIZE_GIMP_FOLDER": str(folder)}
    command = [sys.executable, "-m", "stylize", "gimp", "install", str(home / "plug-ins")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    (folder / "found.json").unlink(missing_ok=True)
    return environment


def look(folder: Path, *, window: bool = False) -> dict[str, Any]:
    """Run GIMP; what was seen inside it."""
    environment = prepare(folder)
    batch = f"exec(compile(open({str(INSIDE)!r}).read(), 'inside', 'exec'))"
    arguments = ["--batch-interpreter=python-fu-eval", "-b", batch]
    if window:
        gimp = ["bash", "-c", 'openbox & exec "$@"', "bash", "gimp-3.0", "-s", *arguments]
        command = ["xvfb-run", "-a", "-s", "-screen 0 1280x900x24", *gimp]
        environment["STYLIZE_GIMP_WINDOW"] = "1"
    else:
        command = ["gimp-console-3.0", "-i", "--quit", *arguments]
    with (
        (folder / "gimp.log").open("wb") as log,
        subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        begun = time.monotonic()
        while process.poll() is None and not (folder / "found.json").exists():
            if time.monotonic() - begun > PATIENCE:
                break
            time.sleep(0.5)
        if window:
            time.sleep(1)
            os.killpg(process.pid, 15)
        elif process.poll() is None:
            process.wait(300)
    if not (folder / "found.json").exists():
        raise SystemExit((folder / "gimp.log").read_text())
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--window", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(look(arguments.folder.resolve(), window=arguments.window)))


if __name__ == "__main__":
    main()
