"""A pretend accelerator: tensors of device ``pretend`` whose numbers lie in the host's memory, for tests without a GPU.

To a program they are on a device of their own, which is not the CPU: it takes the branches it would take on a GPU, and
autograd runs backward in a thread of its own, as there. Every operator runs on the CPU underneath, on tensors of the
same strides over the same storage, so that views, writes through views, and memory formats are what they are. As on a
GPU, an operator fails that is given tensors of two devices, unless one is a scalar that can travel with the launch.

What would make the host wait for a GPU can be listed (:func:`waits`) or forbidden (:func:`no_waits`), what other
devices lack can be taken away (:func:`limited`), and memory is counted: :func:`limited` makes it small,
:func:`peak` tells how much was used at most.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration

NAME = "pretend"
SOURCES = ("stylize", "stylize_video")  # packages in whose code a wait is located

# Operators whose result, or its size, the host has to know; those of linear algebra read back whether they succeeded.
READ_BACK = frozenset({
    "_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount",
    "_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_lstsq",
})  # fmt: skip
# Operators besides the pointwise ones that take a scalar from the host.
TAKES_SCALAR = frozenset({"fill_", "masked_fill", "masked_fill_", "index_put", "index_put_", "index_fill", "where"})
# Operators that need a kernel of their own: factories, which torch would otherwise have resize what they write to, as
# tensors of the device cannot, and copies, which it makes past the fallback where numbers become a tensor.
OWN_KERNEL = ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace", "copy_")


@dataclass(frozen=True)
class Wait:
    """What made the host wait, and the line of :data:`SOURCES` that asked for it."""

    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class _Device:
    """What the device is now: what it lacks, and what is counted."""

    def __init__(self) -> None:
        self.float64 = True
        self.lacking: frozenset[str] = frozenset()
        self.limit: int | None = None
        self.used = self.peak = 0
        self.listeners: list[list[Wait]] = []
        self.blocks: weakref.WeakValueDictionary[int, _Block] = weakref.WeakValueDictionary()
        self.lock = threading.RLock()  # backward runs in another thread

    def block(self, raw: Tensor) -> _Block:
        """The memory of a tensor, allocated unless it is known."""
        storage = raw.untyped_storage()
        with self.lock:
            known = self.blocks.get(storage._cdata)
            if known is None:
                known = self.blocks[storage._cdata] = _Block(storage.nbytes())
            return known

    def waits(self, what: str) -> None:
        if self.listeners:
            wait = Wait(what, _where())
            for listener in self.listeners:
                listener.append(wait)


class _Block:
    """Memory of the device, until the last tensor over it is gone."""

    def __init__(self, size: int) -> None:
        self.size = 0
        if _device.limit is not None and _device.used + size > _device.limit:
            raise torch.OutOfMemoryError(f"{NAME} out of memory: {size} bytes beside {_device.used} of {_device.limit}")
        self.size = size
        _device.used += size
        _device.peak = max(_device.peak, _device.used)

    def __del__(self) -> None:
        _device.used -= self.size


_device = _Device()


class PretendTensor(Tensor):
    """A tensor of the device; ``raw`` is the one on the CPU underneath."""

    raw: Tensor
    _block: _Block
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, raw: Tensor) -> PretendTensor:
        made: PretendTensor = Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            layout=raw.layout,
            device=torch.device(NAME, 0),
        )
        made.raw, made._block = raw, _device.block(raw)
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operator: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(operator, args, kwargs or {})

    def tolist(self) -> Any:
        return self.cpu().tolist()  # torch refuses it to subclasses

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({self.raw})"


@cache
def install() -> str:
    """Make the device known to torch, once; why that cannot be done, or nothing."""
    setup = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if setup is None:
        return f"torch {torch.__version__} takes no device written in Python"
    setup(NAME)
    library = torch.library.Library("_", "IMPL")
    library.fallback(_call, "PrivateUse1")
    _kept.append(library)
    kernels = torch.library.Library("aten", "IMPL")
    for name in OWN_KERNEL:
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
        kernels.impl(name, partial(_call, operator), "PrivateUse1")
    _kept.append(kernels)
    return ""


_kept: list[object] = []  # registrations end with their objects


@contextmanager
def waits() -> Iterator[list[Wait]]:
    """A list of all waits meanwhile."""
    found: list[Wait] = []
    _device.listeners.append(found)
    try:
        yield found
    finally:
        _device.listeners = [listener for listener in _device.listeners if listener is not found]


@contextmanager
def no_waits() -> Iterator[None]:
    """Fail, when all is done, if there was a wait.

    Raises:
        AssertionError: it lists them.
    """
    with waits() as found:
        yield
    assert not found, "the host waits\n" + "\n".join(map(str, dict.fromkeys(found)))


@contextmanager
def limited(*, float64: bool = True, lacking: Collection[str] = (), memory: int | None = None) -> Iterator[None]:
    """A lesser device meanwhile.

    Args:
        float64: whether it has tensors of that type, as MPS has not.
        lacking: operators it does not have, by their names in ``torch.ops.aten``.
        memory: bytes, beside those already used.
    """
    before = _device.float64, _device.lacking, _device.limit
    limit = None if memory is None else _device.used + memory
    _device.float64, _device.lacking, _device.limit = float64, frozenset(lacking), limit
    try:
        yield
    finally:
        _device.float64, _device.lacking, _device.limit = before


@contextmanager
def peak() -> Iterator[list[int]]:
    """A list with, at the end, the most bytes that were used at once, beside those already used."""
    found: list[int] = []
    begun = _device.peak = _device.used
    yield found
    found.append(_device.peak - begun)


# --- running an operator ---------------------------------------------------------------------------------------------


def _run(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operator that was given a tensor of the device, or is to make one, on the CPU."""
    name = operator._schema.name.removeprefix("aten::")
    if name in _device.lacking:
        raise NotImplementedError(f"{operator} is not implemented for {NAME}")
    given = _tensors((*args, *kwargs.values()))
    mine = [x for x in given if isinstance(x, PretendTensor)]
    if name == "copy_":
        _check_copy(*args)
    else:
        _check_devices(operator, name, given)
    if name in READ_BACK or (name in ("index", "index_put", "index_put_") and _picks(args[1])):
        _device.waits(name)
    target = kwargs.get("device")
    leaves = target is not None and torch.device(target).type != NAME
    if leaves and name == "_to_copy" and not kwargs.get("non_blocking"):
        _device.waits("a copy to the host")
    made = operator(*_mapped(_raw, args), **{key: _mapped(_raw, value) for key, value in kwargs.items()})
    if torch.Tag.inplace_view in operator.tags:  # squeeze_ and its like: the tensor follows the one underneath
        with torch._C._DisableTorchDispatch():
            operator(*args, **kwargs)
    _check_sizes(operator, mine)
    same = {id(x.raw): x for x in mine}

    def wrapped(x: Any) -> Any:
        if not isinstance(x, Tensor) or leaves:
            return x
        return same[id(x)] if id(x) in same else _made(x)

    if name == "copy_" and not isinstance(args[0], PretendTensor):
        return args[0]
    return _mapped(wrapped, made)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors in lists and tuples: operators take and give no other structures."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += _tensors(value)
    return found


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The same value of what a function makes of what is in it. (Those of torch.utils take longer than operators.)"""
    if isinstance(value, (tuple, list)):
        made = [_mapped(function, each) for each in value]
        return made if isinstance(value, list) else tuple(made)
    return function(value)


def _call(operator: Any, *args: Any, **kwargs: Any) -> Any:
    return _run(operator, args, kwargs)


def _made(raw: Tensor) -> PretendTensor:
    if raw.dtype in (torch.float64, torch.complex128) and not _device.float64:
        raise TypeError(f"{NAME} has no {raw.dtype}")
    return PretendTensor(raw)


def _raw(x: Any) -> Any:
    if isinstance(x, PretendTensor):
        return x.raw
    return torch.device("cpu") if isinstance(x, torch.device) and x.type == NAME else x


def _check_sizes(operator: Any, tensors: Sequence[PretendTensor]) -> None:
    for x in tensors:
        if x.shape != x.raw.shape or x.stride() != x.raw.stride():
            raise NotImplementedError(f"{operator} resizes a tensor of {NAME}, at {_where()}")


def _check_devices(operator: Any, name: str, given: Sequence[Tensor]) -> None:
    elsewhere = [x for x in given if not isinstance(x, PretendTensor)]
    if not elsewhere or len(elsewhere) == len(given):
        return
    scalars = all(x.dim() == 0 and x.device.type == "cpu" for x in elsewhere)
    if scalars and (name in TAKES_SCALAR or torch.Tag.pointwise in operator.tags):
        return
    shapes = ", ".join(f"{tuple(x.shape)} on {x.device}" for x in given)
    raise RuntimeError(f"{operator} expects all tensors on the same device, not {shapes}, at {_where()}")


def _check_copy(into: Tensor, source: Tensor, non_blocking: bool = False) -> None:
    if into.device != source.device and not non_blocking:
        _device.waits("a copy to the host" if isinstance(source, PretendTensor) else "a copy from the host")


def _picks(indices: Sequence[Tensor | None]) -> bool:
    """Whether indices are masks, whose number of elements is to be known."""
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _where() -> str:
    """The innermost line of the sources that is being run."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        for package in SOURCES:
            if package in path.parts[:-1]:
                begin = len(path.parts) - 1 - path.parts[::-1].index(package)
                return f"{Path(*path.parts[begin:])}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
