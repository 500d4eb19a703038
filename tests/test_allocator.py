"""Memory that steps free is kept for the next, and given back."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stylize import Settings, Stylizer, allocator
from stylize.encoders import EncoderSpec
from tests.conftest import waves

PAGES = 64 * 2**20 // 4096  # of the tensor that is allocated


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    found = allocator._library()
    if found is None:
        pytest.skip("the C library is not GNU's")
    for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    yield found
    monkeypatch.undo()
    allocator._allowed = True
    allocator.keep(wanted=False)
    allocator._allowed = False


def faults_of_allocating() -> int:
    """How many pages are cleared when 64 MiB are allocated and freed three times, having been before."""
    for turn in range(7):
        if turn == 4:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_what_is_kept_is_not_cleared_again_and_given_back_in_the_end(library: ctypes.CDLL) -> None:
    allocator.allow()
    with allocator.giving_back():
        assert allocator.keep(wanted=True)
        assert faults_of_allocating() < PAGES / 8
        kept = resident()
    assert kept - resident() > 32 * 2**20
    assert faults_of_allocating() > PAGES


def test_programs_that_use_the_package_keep_their_allocator(library: ctypes.CDLL) -> None:
    assert not allocator.keep(wanted=True)
    assert faults_of_allocating() > PAGES


def test_so_do_users_who_have_set_it(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    allocator.allow()
    assert not allocator.keep(wanted=True)


def test_a_picture_is_painted_with_memory_kept_where_there_is_plenty(
    tiny: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(allocator, "keep", lambda *, wanted: asked.append(wanted))
    settings = Settings(encoder="tiny", size=64, min_size=48, steps=(1,), device="cpu", memory="100GiB")
    made = Stylizer(waves(40, 40, 2), settings, encoders=[tiny])(waves(48, 64, 1))
    assert asked == [True, False]
    Stylizer(waves(40, 40, 2), settings.replace(memory="600MiB"), encoders=[tiny])(waves(48, 64, 1))
    assert asked == [True, False, False, False]
    assert made.size == (48, 64)
