"""What ``stylize doctor`` checks: versions, devices, memory, weights, plugins, and what plugins check themselves."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stylize import __version__
from stylize.checks import Check, package_check
from stylize.devices import resolve_dtype
from stylize.discovery import unreadable_distributions
from stylize.encoders import mini, weights
from stylize.errors import StylizeError

if TYPE_CHECKING:
    from stylize.host import Host

# distributions, and others that bring the same modules
PACKAGES: tuple[tuple[str, ...], ...] = (
    ("torch",),
    ("torchvision",),
    ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    ("pillow",),
    ("pluggy",),
)
GIB = 2**30


def checks(host: Host) -> Iterator[Check]:
    """Every check, in reading order."""
    yield Check("ok", "stylize", f"{__version__}, Python {platform.python_version()}, {platform.system()}")
    for names in PACKAGES:
        yield package_check(*names)
    devices = list(_devices())
    yield from devices
    torch_works = devices[0].state == "ok"
    if torch_works:
        yield _memory()
    yield from host.checks()
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
