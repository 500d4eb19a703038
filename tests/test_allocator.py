"""Memory that steps free is kept for the next, and given back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylize import Settings, Stylizer, allocator
from stylize.encoders import EncoderSpec
from tests import preloaded
from tests.conftest import PATIENCE, waves

SIZE = 64 * 2**20  # bytes of the tensor that is allocated
PAGES = SIZE // 4096
PROGRAM = f"""
import json, resource, sys
from pathlib import Path

import torch

from stylize import allocator


def faults_of_allocating(size):
    for turn in range(4):
        if turn == 1:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones((size - turn * 2**20) // 4)  # fits where the last one was, whatever else has come there
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if "allow" in sys.argv:
    allocator.allow()
with allocator.giving_back():
    told = {{"kept": allocator.keep(wanted=True), "faults": faults_of_allocating({SIZE})}}
    before = resident()
print(json.dumps({{**told, "given back": before - resident(), "faults after": faults_of_allocating({2 * SIZE})}}))
"""

Measure = Callable[..., Any]


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    """What a process of its own tells, as the memory of this one is also that of other threads: whether memory is kept;
    how many pages are cleared when it allocates and frees a tensor three times, having done so before; how many bytes
    are given back in the end, and how many pages are cleared then for one that fits into no hole in the heap."""
    if allocator._library() is None or sys.platform != "linux":
        pytest.skip("the C library is not GNU's, or there is no /proc/self/statm")
    (tmp_path / "program.py").write_text(PROGRAM)
    chosen = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
    kept = {key: value for key, value in os.environ.items() if key not in chosen}

    def run(*arguments: str, **variables: str) -> Any:
        command, environment = [sys.executable, str(tmp_path / "program.py"), *arguments], {**kept, **variables}
        done = preloaded.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=PATIENCE)
        return json.loads(done.stdout)

    return run


@pytest.mark.slow
def test_what_is_kept_is_not_cleared_again_and_given_back_in_the_end(measure: Measure) -> None:
    told = measure("allow")
    assert told["kept"]
    assert told["faults"] < PAGES / 8
    assert told["given back"] > SIZE / 2
    assert told["faults after"] > PAGES


@pytest.mark.slow
def test_programs_that_use_the_package_keep_their_allocator(measure: Measure) -> None:
    told = measure()
    assert not told["kept"]
    assert told["faults"] > PAGES


@pytest.mark.slow
def test_so_do_users_who_have_set_it(measure: Measure) -> None:
    assert not measure("allow", MALLOC_MMAP_MAX_="7")["kept"]


def test_a_picture_is_painted_with_memory_kept_where_there_is_plenty(
    tiny: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(allocator, "keep", lambda *, wanted: asked.append(wanted))
    settings = Settings(encoder="tiny", size=64, min_size=48, steps=(1,), device="cpu", memory="100GiB")
    made = Stylizer(waves(40, 40, 2), settings, encoders=[tiny])(waves(48, 64, 1))
    assert asked == [True, False]
    Stylizer(waves(40, 40, 2), settings.replace(memory="1000MiB"), encoders=[tiny])(waves(48, 64, 1))
    assert asked == [True, False, False, False]
    assert made.size == (48, 64)
