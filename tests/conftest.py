"""Fixtures: the tiny encoder, pictures, and the real command line with a plugin that brings that encoder."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from PIL import Image

from stylize.cli.main import main
from stylize.encoders import EncoderSpec
from stylize.testing import stylizer, tiny_encoder

from . import preloaded

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["stylizer"]  # a fixture

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pictures of tests are too small for more; counts when torch is loaded

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"
OWN_PATH = "TEST_OWN_PATH"  # the variable that holds the PATH of the machine
PATIENCE = 300  # seconds to wait for what takes a moment: a busy machine is no fault of the program
SHARED = ROOT.parent / "shared"  # real weights and pictures, where they are at hand

PLUGIN = """
from stylize import hookimpl
from stylize.testing import tiny_encoder

@hookimpl
def stylize_encoders():
    return [tiny_encoder()]
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device for the tests that take one")


def pytest_configure(config: pytest.Config) -> None:
    """Install the pretend accelerator before anything is computed: torch has a queue for each device that it knows at
    the first backward, and for none that comes later. A real accelerator cannot be used beside it. Worker processes
    are preloaded."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as of what a shell starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # processes that are tested must not inherit that
    _quicken_ffmpeg(config)
    _keep_files_in_memory()
    gc.set_threshold(20_000, 20, 100)  # instead of 700, 10, 10: looking through all that PyTorch has made takes long
    if _has_workers(config):
        return  # PyTorch is for those who run tests
    if config.getoption("--device") == "cpu":
        importlib.import_module("tests.accelerator").install()
    preloaded.preload_workers()
    with contextlib.suppress(ImportError):  # the environment of the napari plugin does without
        from hypothesis import HealthCheck, settings

        # How long examples take is not what is tested, and a test is to find the same today and tomorrow. To look for
        # more: --hypothesis-profile default.
        settings.register_profile(
            "any machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
        )
        settings.load_profile("any machine")


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Iterator[None]:
    """The processes in which pytest-xdist runs tests are preloaded, too."""
    with mock.patch("subprocess.Popen", preloaded.Popen) if _has_workers(session.config) else contextlib.nullcontext():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Of the processes in which pytest-xdist runs tests, each begins to import the modules of tests at another one: it
    finds most of them compiled by the others, where else each would compile all."""
    if hasattr(session.config, "workerinput"):
        given = [Path(argument.partition("::")[0]) for argument in session.config.args]
        files = [file for path in given for file in (sorted(path.rglob("test_*.py")) if path.is_dir() else [path])]
        names = [f"tests.{file.stem}" for file in files if file.resolve().parent == Path(__file__).parent]
        worker, count = (session.config.workerinput[key] for key in ("workerid", "workercount"))
        start = int(worker.removeprefix("gw")) * len(names) // count
        for name in names[start:] + names[:start]:
            with contextlib.suppress(Exception, pytest.skip.Exception):  # of which the collection tells
                importlib.import_module(name)
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For ``-n auto``: tests often wait, for other processes, claims that grow stale, a browser or a disk."""
    return 2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _has_workers(config: pytest.Config) -> bool:
    """Whether tests run in other processes than this one."""
    return config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")


def _quicken_ffmpeg(config: pytest.Config) -> None:
    """Let ``ffmpeg`` be the one of imageio-ffmpeg, the same on all machines: clips of a few frames take it a fifth of
    the time of one that loads two hundred libraries. ``tests/test_video_ffmpeg.py`` tests the machine's own, too."""
    if OWN_PATH in os.environ or os.name == "nt":  # set by the process that has started this one
        return
    with contextlib.suppress(ImportError, RuntimeError):
        program = importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
        folder = tempfile.TemporaryDirectory(prefix="ffmpeg")
        config.add_cleanup(folder.cleanup)
        Path(folder.name, "ffmpeg").symlink_to(program)
        os.environ[OWN_PATH] = os.environ.get("PATH", os.defpath)
        os.environ["PATH"] = os.pathsep.join([folder.name, os.environ[OWN_PATH]])


def _keep_files_in_memory() -> None:
    """Let the folders of tests lie in memory, where that is ample: a good part of the time was waiting for the disk, on
    which results are to be before they get their names."""
    memory = Path("/dev/shm")
    with contextlib.suppress(OSError):
        if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


@pytest.fixture
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs are those of the machine, ffmpeg too."""
    monkeypatch.setenv("PATH", os.environ.get(OWN_PATH, os.environ["PATH"]))


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def only_the_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see a GPU only if they take ``device`` and it is one: ``auto`` would choose it for all of them."""
    import torch

    if "device" not in request.fixturenames or request.config.getoption("--device") == "cpu":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def tiny() -> EncoderSpec:
    return tiny_encoder()


def waves(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth colourful picture (1, 3, H, W) in [0, 1]."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    picture = torch.zeros(3, height, width)
    for channel in range(3):
        for _ in range(4):
            fy, fx, phase = (torch.rand(3, generator=generator) * torch.tensor([12.0, 12.0, 6.3])).tolist()
            picture[channel] += torch.sin(fy * y + fx * x + phase)
    return (picture / 8 + 0.5).clamp(0, 1)[None]


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """A content and a style file, 48x36 and 40x40."""
    paths = tmp_path / "photo.png", tmp_path / "starry.png"
    for path, (height, width), seed in zip(paths, ((36, 48), (40, 40)), (1, 2), strict=True):
        array = (waves(height, width, seed)[0].permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(array).save(path)
    return paths


def installed(folder: Path, name: str, code: str) -> Path:
    """A folder that, on PYTHONPATH, is an installed distribution with a plugin of that name."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}_plugin.py").write_text(code)
    info = folder / f"{name}_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[stylize]\n{name} = {name}_plugin\n")
    return folder


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, on PYTHONPATH, is an installed distribution with a plugin for the tiny encoder."""
    return installed(tmp_path_factory.mktemp("plugin"), "tiny", PLUGIN)


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli_environment(plugin_folder: Path, tmp_path: Path) -> Mapping[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("STYLIZE_")}
    return {**kept, "PYTHONPATH": str(plugin_folder), "STYLIZE_CACHE": str(tmp_path / "cache"), "COLUMNS": "100"}


@pytest.fixture
def cli(cli_environment: Mapping[str, str], tmp_path: Path) -> Cli:
    """Run ``stylize ARGUMENTS`` in the test's folder; ``check`` is the exit code expected."""

    def run(*arguments: object, check: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = preloaded.run(
            [sys.executable, "-m", "stylize", *map(str, arguments)],
            env={**cli_environment, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == check, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@dataclasses.dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == "step"]


Call = Callable[..., Done]


@pytest.fixture
def permissions() -> Iterator[None]:
    """Permissions of files count for this thread and those it starts, for root, too: what lets it ignore them, two of
    the capabilities of Linux, is laid down for a while."""
    if os.geteuid() != 0:
        yield
        return
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    before, sets = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    if libc.capget(header, before) != 0:
        pytest.skip("root, on a system without capabilities")
    ctypes.memmove(sets, before, ctypes.sizeof(sets))
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0
    yield
    assert libc.capset(header, before) == 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin_folder: Path) -> Path:
    """The working folder of a test, with the tiny encoder's plugin installed and no weights to be found."""
    for name in [key for key in os.environ if key.startswith("STYLIZE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STYLIZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.syspath_prepend(str(plugin_folder))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(folder: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run ``stylize ARGUMENTS`` in this process."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(exit.value.code, int)
        return Done(exit.value.code, captured.out, captured.err)

    return run
