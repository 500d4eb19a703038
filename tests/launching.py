"""The command line in processes of its own, on machines of other names, forked from one that has loaded torch already.

A process that is forked so starts in a moment, and has a working folder, an environment and a host name of its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

NEW_NAME = 0x04000000  # CLONE_NEWUTS


class Launched:
    """A process, with the methods of a Popen that tests need; what it writes goes into files."""

    def __init__(self, pid: int, files: Path) -> None:
        self.pid, self._files = pid, files
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and (told := self._files.with_suffix(".code")).exists():
            self.returncode = int(told.read_text())
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for its end; what it wrote to stdout and stderr."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            assert time.monotonic() < until, "it does not end"
            time.sleep(0.02)
        return self._files.with_suffix(".out").read_text(), self._files.with_suffix(".err").read_text()


class Launcher:
    """Starts processes; ends, with all that it started, by :meth:`close`.

    Args:
        environment: in which torch is loaded: OMP_NUM_THREADS counts from here.
        folder: for the files that processes write to.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._folder, self._started = folder, list[Launched]()
        self._process = subprocess.Popen(
            ["unshare", "-r", "-u", sys.executable, str(Path(__file__).resolve())],
            env={**environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, host: str, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Launched:
        """``stylize ARGUMENTS`` as on a machine of that name."""
        files = self._folder / f"{len(self._started)}"
        order = {"host": host, "arguments": arguments, "cwd": str(cwd), "files": str(files)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**order, "environment": {**environment}}) + "\n")
        self._process.stdin.flush()
        self._started.append(Launched(int(self._process.stdout.readline()), files))
        return self._started[-1]

    def close(self) -> None:
        for launched in self._started:
            launched.send_signal(signal.SIGKILL)
        self._process.communicate()


def main() -> None:
    """Load torch, and fork for each order."""
    import torch  # noqa: F401

    import stylize_video.job  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(read)
            _watch(order, write)
        os.close(write)
        with os.fdopen(read) as pipe:
            print(pipe.read(), flush=True)


def _watch(order: Mapping[str, Any], pipe: int) -> NoReturn:
    """Fork once more, tell the number of that process, and in the end its exit code, which is negative for a signal."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if process == 0:
        os.close(pipe)
        _become(order)
    os.write(pipe, str(process).encode())
    os.close(pipe)
    _, status = os.waitpid(process, 0)
    code = Path(order["files"]).with_suffix(".code")
    code.with_suffix(".new").write_text(str(os.waitstatus_to_exitcode(status)))
    code.with_suffix(".new").replace(code)
    os._exit(0)


def _become(order: Mapping[str, Any]) -> NoReturn:
    """Be the command line."""
    for number, suffix in ((0, os.devnull), (1, ".out"), (2, ".err")):
        name = suffix if number == 0 else str(Path(order["files"]).with_suffix(suffix))
        os.dup2(os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_NAME):
        os._exit(99)
    socket.sethostname(order["host"])
    platform._uname_cache = None  # type: ignore[attr-defined]
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    if late := float(os.environ.get("CLOCK_LATE", 0)):  # by so many seconds is the clock of that machine wrong
        now = time.time
        time.time = lambda: now() - late
    if slept := os.environ.get("SLEPT"):  # when there is such a file, that machine has been asleep for hours
        for name in ("monotonic", "clock_gettime"):
            clock = getattr(time, name)
            setattr(time, name, lambda *which, clock=clock: clock(*which) + 10000 * Path(slept).exists())
    code = 98
    try:
        from stylize.cli.main import main

        main(list(order["arguments"]))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
