"""Processes that have loaded PyTorch before they start: loading it takes longer than most of what they are started for.

:class:`Popen` is :class:`subprocess.Popen`, except that ``python -m NAME ...`` and ``python FILE ...`` do not start a
new interpreter. A server process, which has imported the program and done nothing else, forks; the child takes over the
arguments, the environment, the folder and the streams. It is a process like any other: it has a PID of its own, gets
signals, exits and is waited for. The workers that it starts by :mod:`multiprocessing` come from the server, too. Where
what happens during the imports is tested, :mod:`subprocess` itself is used.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import multiprocessing.util
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TextIO

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ("stylize_batch", "stylize_video")
NUMBER = struct.Struct("!q")
SET_CHILD_SUBREAPER = 36  # of prctl(2)
COLLAPSE, LARGE_PAGE = 25, 2 << 20  # of madvise(2)
MOST_FILES = 32  # that a process gets
TESTS = ["-u", "-c"]  # what a process of pytest-xdist is started with
# What the program imports only when it is needed:
LATE_LIBRARIES = ("av", "email.policy", "rich.live", "rich.progress", "rich.table", "safetensors.torch", "scenedetect")
LIBRARIES_OF_TESTS = ("scipy.optimize", "distributed")
LEFT_OUT = {"stylize.kernels", "stylize_video.flow.raft"}  # they load Triton and torchvision: forks would take longer
HIGH = 900  # a file descriptor above those in use


class Popen(subprocess.Popen[str]):
    """A process of this Python, forked from the server where that is possible."""

    def _execute_child(self, args: Any, executable: Any, *rest: Any) -> None:
        _, _, pass_fds, cwd, env, _, _, shell, *pipes = rest
        pipes, options = pipes[:6], pipes[6:]
        words = [] if isinstance(args, (str, bytes, os.PathLike)) else [os.fsdecode(word) for word in args]
        *others, session, group = options[1:]  # the others: a user and a mask
        special = shell or pass_fds or any(option not in (None, -1) for option in others) or group != -1
        if sys.platform != "linux" or special or not (_runs_a_module_or_file(words) or _runs_tests(words)):
            super()._execute_child(args, executable, *rest)  # type: ignore[misc]
            return
        environment = {os.fsdecode(key): os.fsdecode(value) for key, value in (env or os.environ).items()}
        ends = [own if own != -1 else number for number, own in enumerate((pipes[0], pipes[3], pipes[5]))]
        self.pid = _started(
            words[1:], environment, os.fsdecode(cwd or Path.cwd()), dict(enumerate(ends)), bool(session)
        )
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def run(
    arguments: Sequence[str | Path], *, check: bool = False, capture_output: bool = False, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """:func:`subprocess.run` by :class:`Popen`."""
    timeout, given = options.pop("timeout", None), options.pop("input", None)
    if given is not None:
        options["stdin"] = subprocess.PIPE
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen([os.fspath(word) for word in arguments], **options) as process:
        try:
            out, err = process.communicate(given, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(arguments, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


_spawn = multiprocessing.util.spawnv_passfds


def preload_workers() -> None:
    """Take the workers that this process starts by :mod:`multiprocessing` from the server."""

    def spawned(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
        words = [os.fsdecode(word) for word in args]
        if words[-1] != "--multiprocessing-fork":  # the tracker of resources, a small process
            return int(_spawn(path, args, passfds))
        words = words[words.index("-c") :]
        given = {number: number for number in (0, 1, 2, *passfds)}
        return _started(words, dict(os.environ), str(Path.cwd()), given)

    if sys.platform == "linux":
        multiprocessing.util.spawnv_passfds = spawned


def _runs_a_module_or_file(words: Sequence[str]) -> bool:
    return len(words) > 1 and words[0] == sys.executable and (words[1] == "-m" or words[1].endswith(".py"))


def _runs_tests(words: Sequence[str]) -> bool:
    """Whether it is a process in which pytest-xdist runs tests."""
    return words[:3] == [sys.executable, *TESTS]


def _started(
    words: Sequence[str], environment: Mapping[str, str], folder: str, files: Mapping[int, int], leads: bool = False
) -> int:
    """Start a process, which is a child of this one; its PID.

    Args:
        words: the arguments of the interpreter.
        environment: its variables.
        folder: where it runs.
        files: the open files it gets: its number for each, and ours.
        leads: whether it has a session, and with it a group of processes, of its own.
    """
    request = {"words": words, "environment": environment, "folder": folder, "numbers": [*files], "leads": leads}
    data = json.dumps(request).encode()
    with _adopting, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(_address())
        socket.send_fds(connection, [NUMBER.pack(len(data))], [*files.values()])
        connection.sendall(data)
        (pid,) = NUMBER.unpack(_received(connection, NUMBER.size))
        _received(connection, 1)
    return int(pid)


class _Adopting:
    """While it is entered, in any thread, this process becomes the parent of processes of its children whose own parent
    ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> None:
        self._change(1)

    def __exit__(self, *_: object) -> None:
        self._change(-1)

    def _change(self, by: int) -> None:
        with self._lock:
            self._count += by
            ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, int(self._count > 0))


_adopting = _Adopting()
_known: dict[str, str] = {}  # the address of the server, once it is started
_starting = threading.Lock()


def _address() -> str:
    """Where the server listens; it is started by the first who asks, and ends with this process."""
    with _starting:
        if "address" not in _known:
            folder = tempfile.TemporaryDirectory(prefix="preloaded")
            address = f"{folder.name}/socket"
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(address)
            listener.listen()
            alive, ours = os.pipe()  # closed when this process ends
            inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            command = [sys.executable, "-m", "tests.preloaded", str(listener.fileno()), str(alive), address]
            files = [listener.fileno(), alive]
            server = subprocess.Popen(command, cwd=ROOT, env=inherited, pass_fds=files, stdin=subprocess.DEVNULL)
            listener.close()
            os.close(alive)
            _known["address"] = address
            atexit.register(_end, server, ours, folder)
    return _known["address"]


def _end(server: subprocess.Popen[bytes], alive: int, folder: tempfile.TemporaryDirectory[str]) -> None:
    os.close(alive)
    server.wait()
    folder.cleanup()


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
            if module.name not in LEFT_OUT and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    _import_libraries(LATE_LIBRARIES)
    Image.init()  # imports a module for each format of pictures


def _import_libraries(names: Sequence[str]) -> None:
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _import_what_tests_use() -> None:
    if LIBRARIES_OF_TESTS[-1] not in sys.modules:
        _import_libraries(LIBRARIES_OF_TESTS)
        gc.freeze()
        _use_large_pages()


def _use_large_pages() -> None:
    """Let what is in memory lie in large pages, where the system has them: a fork, which copies the table of pages, and
    the end of a process, which gives them back, take a third of the time."""
    with contextlib.suppress(OSError):
        madvise = ctypes.CDLL(None).madvise
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, rights, *_, name = [*line.split(maxsplit=5), ""][:6]
            if rights.startswith("rw") and name.strip() in ("", "[heap]"):
                start, end = (int(address, 16) // LARGE_PAGE for address in addresses.split("-"))
                for page in range(start + 1, end):
                    madvise(ctypes.c_void_p(page * LARGE_PAGE), ctypes.c_size_t(LARGE_PAGE), COLLAPSE)


def _forks(listener: socket.socket, alive: int) -> tuple[dict[str, Any], list[int]] | None:
    """Fork at every request. Returns None when the tests end, and in each child what it is to run."""
    while True:
        ready, _, _ = select.select([listener.fileno(), alive], [], [])
        if alive in ready:
            return None
        connection, _ = listener.accept()
        with connection:
            asked = _forked(connection)
        if asked is not None:
            listener.close()
            os.close(alive)
            return asked


def _forked(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    header, files, _, _ = socket.recv_fds(connection, NUMBER.size, MOST_FILES)
    if not header:
        return None  # who asked has been killed
    request = json.loads(_received(connection, NUMBER.unpack(header)[0]))
    if request["words"][:2] == TESTS:
        _import_what_tests_use()
    between = os.fork()
    if not between:
        ready, report = os.pipe()
        pid = os.fork()
        if not pid:
            if request["leads"]:
                os.setsid()
            os.close(ready)
            os.close(report)
            return request, files
        os.close(report)
        os.read(ready, 1)  # until it has its session
        with contextlib.suppress(OSError):
            connection.sendall(NUMBER.pack(pid))
        os._exit(0)  # now who asked is the child's parent
    os.waitpid(between, 0)
    for file in files:
        os.close(file)
    with contextlib.suppress(OSError):
        connection.sendall(b".")
    return None


def _become(request: Mapping[str, Any], files: Sequence[int]) -> None:
    """Take over what a new interpreter gets from the one who starts it."""
    for place, file in enumerate(files):
        os.dup2(file, HIGH + place)
        os.close(file)
    for place, number in enumerate(request["numbers"]):
        os.dup2(HIGH + place, number)
        os.close(HIGH + place)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED")) or request["words"][0] == "-u"
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _stream(1, sys.stdout, unbuffered)
    sys.stderr = _stream(2, sys.stderr, unbuffered)
    first = request["words"][0]
    first = request["folder"] if first.startswith("-") else str(Path(first).resolve().parent)
    search = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [first, *search, *sys.path[1:]]
    importlib.invalidate_caches()


def _stream(number: int, like: TextIO, unbuffered: bool) -> TextIO:
    file = open(number, "wb", buffering=0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(file, like.encoding, like.errors, line_buffering=number == 2, write_through=unbuffered)


def _run(words: Sequence[str]) -> NoReturn:
    """Run a module, a file or code as the main one, and end as an interpreter does, but for clearing up the memory,
    which takes longest."""
    code: object = 0
    words = [word for place, word in enumerate(words) if place or word != "-u"]
    try:
        if words[0] == "-m":
            sys.argv = list(words[1:])
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            sys.modules["__main__"] = ModuleType("__main__")
            exec(words[1], vars(sys.modules["__main__"]))
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


def _serve(listener: int, alive: int, address: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_everything()
    from tests import preloaded  # this file is __main__, which the children replace

    preloaded._known["address"] = address
    preloaded.preload_workers()
    for registered in [*weakref.finalize._registry]:  # type: ignore[attr-defined]
        registered.atexit = False  # PyTorch's tables of operators: most of what is done at the end
    gc.collect()
    gc.freeze()
    _use_large_pages()
    asked = _forks(socket.socket(fileno=listener), alive)
    while asked is not None and ("--jobs" in asked[0]["words"] or asked[0]["words"][:2] == TESTS):
        worker = _with_server_of_its_own(address, asked[1])
        if worker is None:
            break
        asked = worker[0]
    if asked is not None:
        _become(*asked)
        _run(asked[0]["words"])


def _with_server_of_its_own(address: str, files: Sequence[int]) -> tuple[Any] | None:
    """Fork a server for the workers of this process, as a process can adopt none but descendants. Returns None in this
    process, and in each worker, in a tuple, what it is to run; None there where the server ends."""
    from tests import preloaded

    own = f"{address}{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(own)
        listener.listen()
        alive, ours = os.pipe()
        if not os.fork():
            os.close(ours)
            for file in files:
                os.close(file)
            return (_forks(listener, alive),)
        os.close(alive)
    preloaded._known["address"] = own
    return None


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
