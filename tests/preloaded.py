"""Processes that have loaded PyTorch before they start: loading it takes longer than most of what they are started for.

:class:`Popen` is :class:`subprocess.Popen`, except that ``python -m NAME ...`` and ``python FILE ...`` do not start a
new interpreter. A server process, which has imported the program and done nothing else, forks; the child takes over the
arguments, the environment, the folder and the streams. It is a process like any other: it has a PID of its own, gets
signals, exits and is waited for. Where what happens during the imports is tested, :mod:`subprocess` itself is used.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ("stylize_batch", "stylize_video")
NUMBER = struct.Struct("!q")
SET_CHILD_SUBREAPER = 36  # of prctl(2)


class Popen(subprocess.Popen[Any]):
    """A process of this Python, forked from the server where that is possible."""

    def _execute_child(self, args: Any, executable: Any, *rest: Any) -> None:
        _, _, pass_fds, cwd, env, _, _, shell, *pipes = rest
        pipes, options = pipes[:6], pipes[6:]
        words = [] if isinstance(args, (str, bytes, os.PathLike)) else [os.fsdecode(word) for word in args]
        new_group = any(option not in (None, False, -1) for option in options[1:])  # a user, a session or a group
        if sys.platform != "linux" or shell or pass_fds or new_group or not _runs_a_module_or_file(words):
            super()._execute_child(args, executable, *rest)  # type: ignore[misc]
            return
        environment = {os.fsdecode(key): os.fsdecode(value) for key, value in (env or os.environ).items()}
        folder = os.fsdecode(cwd or Path.cwd())
        ends = [own if own != -1 else number for number, own in enumerate((pipes[0], pipes[3], pipes[5]))]
        self.pid = _server().start({"words": words[1:], "environment": environment, "folder": folder}, ends)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def run(
    arguments: Sequence[str | Path], *, check: bool = False, capture_output: bool = False, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """:func:`subprocess.run` by :class:`Popen`."""
    timeout = options.pop("timeout", None)
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(list(map(os.fspath, arguments)), **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(arguments, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def _runs_a_module_or_file(words: Sequence[str]) -> bool:
    return len(words) > 1 and words[0] == sys.executable and (words[1] == "-m" or words[1].endswith(".py"))


class _Server:
    """The server, as the tests see it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        command = [sys.executable, "-m", "tests.preloaded", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=inherited, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        self._lock = threading.Lock()
        atexit.register(self._end)

    def start(self, request: Mapping[str, Any], streams: Sequence[int]) -> int:
        """Start a process with these streams; its PID. It is a child of this one."""
        data = json.dumps(request).encode()
        with self._lock, _adopting():
            socket.send_fds(self._socket, [NUMBER.pack(len(data))], streams)
            self._socket.sendall(data)
            (pid,) = NUMBER.unpack(_received(self._socket, NUMBER.size))
            _received(self._socket, 1)
        return int(pid)

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()


_servers: dict[int, _Server] = {}  # by the process that started it


def _server() -> _Server:
    if os.getpid() not in _servers:
        _servers[os.getpid()] = _Server()
    return _servers[os.getpid()]


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Become the parent of processes of one's children whose own parent ends meanwhile."""
    libc = ctypes.CDLL(None)
    libc.prctl(SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        libc.prctl(SET_CHILD_SUBREAPER, 0)


def _received(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError("the other side has ended")
        data += more
    return data


# In the server


def _import_everything() -> None:
    for name in ("stylize", *PLUGINS):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if module.name != "stylize.encoders.kernels" and not module.name.endswith("__main__"):  # that needs Triton
                importlib.import_module(module.name)


def _forks(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Fork at every request. Returns None when the tests end, and in each child what it is to run."""
    while True:
        header, streams, _, _ = socket.recv_fds(connection, NUMBER.size, 3)
        if not header:
            return None
        request = json.loads(_received(connection, NUMBER.unpack(header)[0]))
        between = os.fork()
        if not between:
            pid = os.fork()
            if not pid:
                connection.close()
                return request, streams
            connection.sendall(NUMBER.pack(pid))
            os._exit(0)  # the child becomes the tests' own
        os.waitpid(between, 0)
        for stream in streams:
            os.close(stream)
        connection.sendall(b".")


def _become(request: Mapping[str, Any], streams: Sequence[int]) -> None:
    """Take over what a new interpreter gets from the one who starts it."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _stream(1, sys.stdout, unbuffered)
    sys.stderr = _stream(2, sys.stderr, unbuffered)
    first = request["folder"] if request["words"][0] == "-m" else str(Path(request["words"][0]).resolve().parent)
    search = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [first, *search, *sys.path[1:]]
    importlib.invalidate_caches()


def _stream(number: int, like: TextIO, unbuffered: bool) -> TextIO:
    file = open(number, "wb", buffering=0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(file, like.encoding, like.errors, line_buffering=number == 2, write_through=unbuffered)


def _run(words: Sequence[str]) -> NoReturn:
    """Run a module or a file as the main one, and end as an interpreter does, but for clearing the memory up, which
    takes longest."""
    code: object = 0
    try:
        if words[0] == "-m":
            sys.argv = list(words[1:])
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words)
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as exit:
        code = exit.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the threads
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except Exception as error:
        print(f"Exception ignored while flushing sys.stdout: {error!r}", file=sys.stderr)
        code = 120
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_everything()
    gc.collect()
    gc.freeze()
    asked = _forks(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        _become(*asked)
        _run(asked[0]["words"])
