"""How functions of stylize get to workers through a scheduler that need not have it."""

from __future__ import annotations

import pickle
import platform
from collections.abc import Callable
from typing import Any


class _Call:
    """Is unpickled as the result of a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._made = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._made


def packed(function: Callable[..., object], *arguments: object) -> bytes:
    """A call, for :func:`pickle.loads` to make. The scheduler, which unpickles the tasks it is given, sees only bytes:
    otherwise it would load stylize and PyTorch, half a gigabyte."""
    return pickle.dumps(_Call(function, *arguments))


def about() -> tuple[str, str]:
    """The version of stylize in this process, and the name of its machine."""
    from stylize import __version__

    return __version__, platform.node()


def unfit(found: dict[str, Any], version: str) -> list[str]:
    """What is wrong with workers, by what :func:`about` gave or raised in each, by its address."""
    told = []
    for address, answer in found.items():
        if isinstance(answer, ImportError | AttributeError):
            told.append(f"the worker at {address} cannot load stylize ({answer})")
        elif isinstance(answer, tuple) and answer[0] != version:
            told.append(f"the worker on {answer[1]} has stylize {answer[0]}, not {version}")
    return told
