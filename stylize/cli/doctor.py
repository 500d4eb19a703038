"""What ``stylize doctor`` checks."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from stylize import __version__
from stylize.encoders import mini, resolve_dtype, weights
from stylize.errors import StylizeError

if TYPE_CHECKING:
    from stylize.host import Host

PACKAGES = ("torch", "torchvision", "opencv-python-headless", "pillow", "pluggy", "ffmpeg-python")


@dataclass(frozen=True)
class Check:
    """One line: ``state`` is ok, note (something optional is missing) or fail; ``advice`` the one thing to do."""

    state: str
    name: str
    found: str
    advice: str = ""


def checks(host: Host) -> Iterator[Check]:
    """Every check, in reading order."""
    yield Check("ok", "stylize", f"{__version__}, Python {platform.python_version()}, {platform.system()}")
    for package in PACKAGES:
        yield _package(package)
    devices = list(_devices())
    yield from devices
    yield _memory()
    yield _ffmpeg()
    if devices[0].state == "ok":
        for name in weights.ARCHITECTURES:
            yield _weights(name)
        yield _mini()
    host.encoders()  # adds to the problems
    for name, _ in sorted(host.list_name_plugin()):
        yield Check("ok", "plugin", name)
    for problem in host.problems:
        yield Check("fail", "plugin", problem, "update or uninstall it")


def _package(name: str) -> Check:
    try:
        return Check("ok", name.removesuffix("-python-headless"), version(name))
    except PackageNotFoundError:
        if name == "opencv-python-headless":
            return _package("opencv-python")
        return Check("fail", name, "not installed", f"pip install {name}")


def _ffmpeg() -> Check:
    if found := shutil.which("ffmpeg"):
        return Check("ok", "ffmpeg", found)
    try:
        import imageio_ffmpeg

        return Check("ok", "ffmpeg", f"{imageio_ffmpeg.get_ffmpeg_exe()} (of imageio-ffmpeg)")
    except (ImportError, RuntimeError) as error:
        return Check("note", "ffmpeg", f"not on PATH, and not from imageio-ffmpeg ({error})", "clips need it")


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
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):  # not on this system
        return Check("note", "memory", "unknown on this system")
    if total < 4 * 2**30:
        return Check("note", "memory", f"{total / 2**30:.1f} GiB", "keep --size at 512 or below")
    return Check("ok", "memory", f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free")


def _mini() -> Check:
    try:
        mini.read()
    except StylizeError as error:
        return Check("fail", "mini", str(error))
    return Check("ok", "mini", "comes with stylize; used where VGG-19's weights cannot be had")


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
