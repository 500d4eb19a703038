"""CUDA streams beside the current one, kept: libraries hold tens of MB for every stream they have been used on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch


def side_stream(device: torch.device, purpose: object) -> torch.cuda.Stream:
    """This thread's stream for a purpose: what one thread records must not get among another's work."""
    return _stream(device, purpose, threading.get_ident())


@cache
def _stream(device: torch.device, purpose: object, thread: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def mark(device: torch.device) -> torch.cuda.Event | None:
    """What the current stream has been given so far, on CUDA."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


@contextmanager
def beside(device: torch.device, purpose: object, after: Sequence[torch.cuda.Event | None] = (None,)) -> Iterator[None]:
    """On CUDA, work on a side stream that starts after some events, or if one is None after all that the current stream
    has been given; :func:`join` it later."""
    if device.type != "cuda":
        yield
        return
    stream = side_stream(device, purpose)
    for event in after:
        if event is None:
            stream.wait_stream(torch.cuda.current_stream(device))
        else:
            stream.wait_event(event)
    with torch.cuda.stream(stream):
        yield


def join(device: torch.device, purpose: object) -> None:
    """Let the current stream wait for a side stream."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).wait_stream(side_stream(device, purpose))
