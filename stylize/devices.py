"""Devices: which one a run uses, in which precision it computes there, and how much of its memory is free.

Importing this module is cheap; torch comes with the functions.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize.errors import DeviceError, SettingsError

if TYPE_CHECKING:
    import torch

MARGIN = 0.15  # share of the free memory that is left to other programs


def resolve_device(name: str) -> torch.device:
    """The torch device of a setting: auto takes CUDA (or ROCm), then MPS, then the CPU. Another accelerator that torch
    itself reports, as Intel's xpu, is taken by its name.

    Raises:
        SettingsError: not a device name.
        DeviceError: the device is not there.
    """
    import torch

    if name == "auto":
        mps = platform.system() == "Darwin" and torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    kind, _, index = name.partition(":")
    other = kind not in ("cpu", "mps", "cuda") and kind == _accelerator()
    if not re.fullmatch(r"\w+(:\d+)?" if other else r"cpu|mps|cuda(:\d+)?", name, re.ASCII):
        raise SettingsError(f"device is {name!r}; it must be auto, cpu, cuda, cuda:N or mps")
    found = torch.accelerator.device_count() if other else torch.cuda.device_count()
    if (other or kind == "cuda") and int(index or 0) >= found:
        what = kind if other else "CUDA"
        raise DeviceError(f"device {name} is not there ({found} {what} devices found); use --device cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device mps is not there; use --device cpu or auto")
    return torch.device(name)


def _accelerator() -> str:
    """The kind of accelerator that torch reports, or nothing."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "" if found is None else found.type


def resolve_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The encoder's dtype of a setting; auto is bfloat16 on CPUs with instructions for it and on NVIDIA GPUs with
    tensor cores for it (compute capability 8.0), where convolutions take half the time and the pictures score the same,
    else float32.

    Raises:
        DeviceError: the device cannot compute in it.
    """
    import torch

    if precision == "bfloat16":
        if device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise DeviceError("this GPU has no bfloat16; use --precision float32")
        return torch.bfloat16
    return torch.bfloat16 if precision == "auto" and _bfloat16_is_fast(device) else torch.float32


def _bfloat16_is_fast(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    known = cpu_capabilities()
    return any(known.get(name) for name in ("avx512_bf16", "amx_bf16"))


def cpu_capabilities() -> Mapping[str, object]:
    """What torch tells of the CPU, its name and its instructions; old versions tell nothing."""
    import torch

    found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def computed_with(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What decides, besides the settings, how sums are rounded and so every bit of a picture, as records have it."""
    import torch

    found: dict[str, Any] = {"precision": str(dtype).removeprefix("torch.")}
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), **found}
    if device.type != "cpu":
        return {"device": device.type, **found}
    found |= {"threads": torch.get_num_threads(), "instructions": torch.backends.cpu.get_cpu_capability()}
    return {"device": "cpu", **found, **{name: os.environ[name] for name in ("MKL_CBWR",) if name in os.environ}}


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be used on a device without taking them from others; None where that cannot be told."""
    import torch

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int((torch.cuda.mem_get_info(device)[0] + unused) * (1 - MARGIN))
    if device.type != "cpu":
        return None
    limits = [_available(), _allowed()]
    known = [limit for limit in limits if limit is not None]
    return int(min(known) * (1 - MARGIN)) if known else None


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _allowed() -> int | None:
    """What a container leaves, by cgroup v2."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit == "max":
            return None
        files = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - int(used) + int(files["inactive_file"]))  # page cache: reclaimable
    except (OSError, ValueError, KeyError):
        return None
