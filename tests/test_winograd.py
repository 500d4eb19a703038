"""Fast convolutions against those of torch in float64."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stylize.encoders import winograd
from stylize.encoders.winograd import FEWEST_CHANNELS, OUT, Winograd


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.relu(F.conv2d(x.double(), weight.double(), bias.double(), padding=1))


def exact_back(gradient: Tensor, weight: Tensor) -> Tensor:
    return F.conv_transpose2d(gradient.double(), weight.double(), padding=1)


def apart(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    last=st.booleans(),
)
@pytest.mark.slow
def test_both_ways_equal_float64(size: tuple[int, int], channels: tuple[int, int], last: bool) -> None:
    weight, bias = normal(channels[1], channels[0], 3, 3), normal(channels[1], seed=1)
    x, gradient = normal(1, channels[0], *size, seed=2), normal(1, channels[1], *size, seed=3)
    if last:
        x, gradient = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, gradient))
    fast = Winograd(weight)
    largest = exact(x, weight, bias).abs().max().item() + 1
    torch.testing.assert_close(fast.forward(x, bias).double(), exact(x, weight, bias), rtol=0, atol=5e-6 * largest)
    expected = exact_back(gradient, weight)
    torch.testing.assert_close(fast.back(gradient).double(), expected, rtol=0, atol=5e-6 * expected.abs().max().item())


def test_rounding_errors_are_a_few_of_the_last_bits() -> None:
    """As in the usual way, which has 5e-7 and 7e-7 here; points 0, 1, -1, 2, -2 would give 1e-6 and 2e-6."""
    weight, bias, x = normal(128, 128, 3, 3) / 30, normal(128, seed=1), normal(1, 128, 40, 60, seed=2).abs()
    assert apart(Winograd(weight).forward(x, bias), exact(x, weight, bias)) <= 7e-7
    gradient = normal(1, 128, 40, 60, seed=3)
    assert apart(Winograd(weight).back(gradient), exact_back(gradient, weight)) <= 1.5e-6


def test_pictures_wider_than_what_is_worked_on_at_once() -> None:
    weight, bias, x = normal(3, 2, 3, 3), normal(3, seed=1), normal(1, 2, 9, 5000, seed=2)
    assert apart(Winograd(weight).forward(x, bias), exact(x, weight, bias)) <= 1e-5


def test_nothing_is_left_over_from_another_picture() -> None:
    weight, bias = normal(4, 4, 3, 3), normal(4, seed=1)
    small, large = normal(1, 4, 21, 30, seed=2), torch.full((1, 4, 70, 90), 1e30)
    fast = Winograd(weight)
    before = fast.forward(small, bias)
    fast.forward(large, bias)
    fast.back(large * torch.inf)
    assert torch.equal(fast.forward(small, bias), before)
    with torch.inference_mode():
        fast.forward(normal(1, 4, 200, 200), bias)
    assert torch.equal(fast.forward(small, bias), before)


def test_threads_do_not_share_their_buffers() -> None:
    weight, bias = normal(8, 8, 3, 3), normal(8, seed=1)
    pictures = [normal(1, 8, 120, 160, seed=seed) for seed in range(4)]
    fast = Winograd(weight)
    alone = [fast.forward(picture, bias) for picture in pictures]
    found: dict[int, list[Tensor]] = {}

    def work(number: int) -> None:
        found[number] = [fast.forward(pictures[number], bias) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expected in enumerate(alone):
        assert len(found[number]) == 10
        assert all(apart(made, expected) <= 1e-6 for made in found[number])


@pytest.mark.parametrize("begin", [OUT, 3 * OUT])
def test_a_part_that_begins_on_the_grid_rounds_as_the_whole_does(begin: int) -> None:
    weight, bias, x = normal(96, 96, 3, 3) / 30, normal(96, seed=1), normal(1, 96, 48, 64, seed=2).abs()
    fast = Winograd(weight)
    whole, part = fast.forward(x, bias), fast.forward(x[..., begin:, begin:].contiguous(), bias)
    assert apart(part[..., 1:, 1:], whole[..., begin + 1 :, begin + 1 :]) <= 1e-7
    off = fast.forward(x[..., begin + 1 :, begin + 1 :].contiguous(), bias)
    assert apart(off[..., 1:, 1:], whole[..., begin + 2 :, begin + 2 :]) > 1e-7


def test_it_is_for_wide_layers_in_float32_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_gains", lambda: True)
    wide = normal(FEWEST_CHANNELS, FEWEST_CHANNELS, 3, 3)
    assert Winograd.of(wide) is not None
    assert Winograd.of(wide.bfloat16()) is None
    assert Winograd.of(wide.double()) is None
    assert Winograd.of(wide[1:]) is None
    assert Winograd.of(wide[:, 1:]) is None
    assert Winograd.of(wide.to("meta")) is None
    monkeypatch.setattr(winograd, "_gains", lambda: False)
    assert Winograd.of(wide) is None


@pytest.mark.parametrize(
    ("known", "gains"),
    [
        ({}, True),
        ({"cpu_name": "AMD EPYC", "avx512_f": True, "avx_vnni": True}, False),
        ({"cpu_name": "AMD EPYC", "avx512_f": True, "avx_vnni": False}, True),
        ({"cpu_name": "AMD Ryzen", "avx512_f": False, "avx_vnni": False}, True),
        ({"cpu_name": "Intel Xeon", "avx512_f": True, "avx_vnni": True}, True),
    ],
)
def test_it_is_not_where_convolutions_have_what_products_lack(
    known: dict[str, object], gains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert winograd._gains.__wrapped__() is gains
