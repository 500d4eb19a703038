"""Programs run as anyone would run them, and measured from outside: seconds, memory, and the pictures as they come.

Whoever measures memory must not have imported torch: what Linux reports of a child includes its parent at the fork.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

RESULT = "out.png"
POLL = 0.2  # seconds between two looks for pictures


class FailedError(Exception):
    """A program could not be started or gave no picture; one line says why."""


@dataclass(frozen=True)
class Seen:
    """A picture on the way; ``seconds`` since the start of the program, ``steps`` in steps of the final size."""

    seconds: float
    picture: Path
    steps: float | None = None


@dataclass(frozen=True)
class Run:
    """What a run took: wall and processor seconds, the peak of its memory in bytes; and its pictures, the last last."""

    seconds: float
    processor: float
    peak: int
    picture: Path
    seen: Sequence[Seen]


def run(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Run:
    """Run a command that leaves out.png in the folder it is run in, which is made.

    Raises:
        FailedError: it did not.
    """
    folder.mkdir(parents=True)
    watch = _Watch(folder)
    with Path(folder, "log.txt").open("wb") as log:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise FailedError(f"{command[0]}: {error.strerror}") from error
        watch.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            seconds = time.time() - watch.begun
            watch.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not Path(folder, RESULT).exists():
        lines = Path(folder, "log.txt").read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        raise FailedError(f"exit code {process.returncode}: {last}")
    picture = folder / RESULT
    written = picture.stat().st_mtime - watch.begun
    seen = sorted((each for each in watch.seen if each.seconds < written), key=lambda each: each.seconds)
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, picture, [*seen, Seen(seconds, picture)])


class _Watch(threading.Thread):
    """Keeps a copy of every picture that a program leaves in its folder while it runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.seen: list[Seen] = []
        self.begun = time.time()
        self._folder, self._done = folder, threading.Event()
        self._known: dict[Path, int] = {}

    def run(self) -> None:
        Path(self._folder, "seen").mkdir()
        while not self._done.wait(POLL):
            self._look()
        self._look()

    def _look(self) -> None:
        for path in self._folder.glob("*.png"):
            self._keep(path)

    def _keep(self, path: Path) -> None:
        try:
            state = path.stat()
            if self._known.get(path) == state.st_mtime_ns:
                return
            data = path.read_bytes()
            Image.open(BytesIO(data)).load()
        except (OSError, SyntaxError, ValueError):  # not whole yet, or gone
            return
        self._known[path] = state.st_mtime_ns
        kept = self._folder / "seen" / f"{len(self.seen):04}.png"
        kept.write_bytes(data)
        self.seen.append(Seen(state.st_mtime - self.begun, kept))

    def stop(self) -> None:
        self._done.set()
        self.join()
