"""What ``stylize doctor`` checks: versions, devices, memory, ffmpeg, weights and plugins."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from stylize import __version__
from stylize.devices import resolve_dtype
from stylize.encoders import mini, weights
from stylize.errors import StylizeError
from stylize.host import unreadable_distributions

if TYPE_CHECKING:
    from stylize.host import Host

# distributions, and others that bring the same modules
PACKAGES: tuple[tuple[str, ...], ...] = (
    ("torch",),
    ("torchvision",),
    ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    ("pillow",),
    ("pluggy",),
    ("ffmpeg-python",),
    ("av",),
    ("scenedetect-headless", "scenedetect"),
)
MODULES = ("av", "scenedetect")  # used for clips alone: that they can be imported is not seen otherwise
GIB = 2**30
OLDEST_FFMPEG = (4, 4)  # that can make clips


@dataclass(frozen=True)
class Check:
    """One line: ``state`` is ok, note (something optional is missing) or fail; ``advice`` is what to do."""

    state: str
    name: str
    found: str
    advice: str = ""


def checks(host: Host) -> Iterator[Check]:
    """Every check, in reading order."""
    yield Check("ok", "stylize", f"{__version__}, Python {platform.python_version()}, {platform.system()}")
    for names in PACKAGES:
        yield _package(*names)
    for module in MODULES:
        yield from _broken_module(module)
    devices = list(_devices())
    yield from devices
    torch_works = devices[0].state == "ok"
    if torch_works:
        yield _memory()
    yield _ffmpeg()
    if torch_works:
        for name in weights.ARCHITECTURES:
            yield _weights(name)
        yield _mini()
    host.encoders(), host.color_modes()  # finds out whether these hooks work
    for name, _ in sorted(host.list_name_plugin()):
        yield Check("ok", "plugin", name)
    for problem in host.problems:
        yield Check("fail", "plugin", problem, "update or uninstall it")
    for problem in unreadable_distributions():
        yield Check("note", "package", problem, "reinstall or remove it")


def _package(*names: str) -> Check:
    for name in names:
        try:
            return Check("ok", _short_name(name), version(name))
        except PackageNotFoundError:
            continue
        except Exception as error:  # its metadata cannot be read
            return Check("fail", _short_name(name), f"unreadable metadata: {error}", f"pip install --force {names[0]}")
    return Check("fail", _short_name(names[0]), "not installed", f"pip install {names[0]}")


def _short_name(package: str) -> str:
    return package.removesuffix("-headless").removesuffix("-python" if package.startswith("opencv") else "")


def _broken_module(name: str) -> Iterator[Check]:
    try:
        import_module(name)
    except ModuleNotFoundError:
        pass  # the missing package is reported
    except (ImportError, OSError) as error:  # OSError: a broken shared library
        yield Check("fail", name, f"cannot be imported: {error}", f"reinstall {name}; clips need it")


def _ffmpeg() -> Check:
    lacking = ""
    if found := shutil.which("ffmpeg"):
        lacking = _lacking(found)
        if not lacking:
            return Check("ok", "ffmpeg", found)
        lacking = f"; {found} {lacking}"
    try:
        import imageio_ffmpeg

        return Check("ok", "ffmpeg", f"{imageio_ffmpeg.get_ffmpeg_exe()} (from imageio-ffmpeg{lacking})")
    except (ImportError, RuntimeError) as error:
        return Check(
            "note",
            "ffmpeg",
            f"neither on PATH nor in imageio-ffmpeg ({error}{lacking})",
            "clips need it: pip install imageio-ffmpeg",
        )


def _lacking(program: str) -> str:
    """What an ffmpeg lacks for most clips; empty if nothing."""
    said = []
    for question in ("-version", "-encoders"):
        try:
            command = [program, "-hide_banner", "-nostdin", question]
            done = subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            return "does not run"
        said.append(done.stdout.decode("utf-8", "replace"))
    number = re.match(r"ffmpeg version n?(\d+)\.(\d+)", said[0])
    if number is not None and (int(number[1]), int(number[2])) < OLDEST_FFMPEG:
        return f"is version {number[1]}.{number[2]}, too old for clips"
    return "" if " libx264 " in said[1] else "has no encoder libx264"


def _devices() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a broken shared library
        yield Check("fail", "torch", f"cannot be imported: {error}", "reinstall torch")
        return
    precision = str(resolve_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    yield Check("ok", "cpu", f"{torch.get_num_threads()} threads, encoders in {precision}")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Check("ok", f"cuda:{index}", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    if torch.backends.mps.is_available():
        yield Check("ok", "mps", platform.processor())
    elif not torch.cuda.is_available():
        yield Check("note", "gpu", "none found", "pictures are painted on the CPU")


def _memory() -> Check:
    """What a plan may use on the CPU: less than what is free, by a margin."""
    import torch

    from stylize.devices import free_memory

    usable = free_memory(torch.device("cpu"))
    if usable is None:
        return Check("note", "memory", "free memory is unknown on this system", "set --memory for large pictures")
    return Check("ok", "memory", f"{usable / GIB:.1f} GiB can be used")


def _mini() -> Check:
    try:
        mini.read()
    except StylizeError as error:
        return Check("fail", "mini", str(error))
    return Check("ok", "mini", "comes with stylize; used if the weights of vgg19 cannot be found or downloaded")


def _weights(name: str) -> Check:
    try:
        place = weights.find(name)
        if place.path is None:
            size = weights.DOWNLOAD_SIZES[name]
            return Check("note", name, "weights not here", f"`stylize weights fetch {name}` downloads {size}")
        weights.read(place.path, name)
        return Check("ok", name, f"{place.path} ({place.origin})")
    except StylizeError as error:
        # one STYLIZE_WEIGHTS file serves one encoder: the other one is not broken by it
        state = "note" if name != "vgg19" and os.environ.get("STYLIZE_WEIGHTS") else "fail"
        return Check(state, name, str(error), "see `stylize weights`")
