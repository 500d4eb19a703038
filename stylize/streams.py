"""CUDA streams beside the current one, kept: libraries hold tens of MB for every stream they have been used on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


def side_stream(device: torch.device, purpose: object) -> torch.cuda.Stream:
    """This thread's stream for a purpose: what one thread records must not get among another's work."""
    return _stream(device, purpose, threading.get_ident())


@cache
def _stream(device: torch.device, purpose: object, thread: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def beside(device: torch.device, purpose: object) -> Iterator[None]:
    """On CUDA, work on a side stream that starts after what the current one has been given; :func:`join` it later."""
    if device.type != "cuda":
        yield
        return
    stream = side_stream(device, purpose)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield


def join(device: torch.device, purpose: object) -> None:
    """Let the current stream wait for a side stream."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).wait_stream(side_stream(device, purpose))
