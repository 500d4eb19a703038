"""A painting as a generator of steps."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Generator

import pytest
import torch

from stylize import Painting, Picture, Settings, SettingsError, Step, StylizeError, Stylizer, Term
from stylize.encoders import EncoderSpec
from tests.conftest import PATIENCE, waves

SETTINGS = Settings(encoder="tiny", size=24, min_size=24, steps=(3,), tolerance=0.0, device="cpu")
PHOTO, STARRY = waves(36, 48, 1), waves(40, 40, 2)


@pytest.fixture
def stylizer(tiny: EncoderSpec) -> Stylizer:
    return Stylizer(STARRY, SETTINGS, encoders=[tiny])


def painters() -> int:
    return sum(thread.name == "stylize painting" for thread in threading.enumerate())


def none_left() -> bool:
    deadline = time.monotonic() + PATIENCE
    while painters() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not painters()


def test_the_value_of_the_generator_is_the_picture(stylizer: Stylizer) -> None:
    numbers: list[tuple[int, int]] = []

    def whole() -> Generator[Step, None, Picture]:
        return (yield from stylizer.steps(PHOTO))

    painting = whole()
    for _ in range(3):
        step = next(painting)
        numbers.append((step.scale, step.number))
        assert step.image().shape[:2] == (1, 3)
    with pytest.raises(StopIteration) as end:
        next(painting)
    assert numbers == [(1, 1), (1, 2), (1, 3)]
    assert torch.equal(end.value.value.rgb, stylizer(PHOTO).rgb)
    assert none_left()


def test_to_leave_the_loop_is_to_stop(stylizer: Stylizer) -> None:
    seen: list[Step] = []
    painting = stylizer.steps(PHOTO)
    for step in painting:
        seen.append(step)
        image = step.image()
        if step.number == 2:
            break
    picture = painting.picture
    assert len(seen) == 2
    assert torch.equal(picture.rgb, image)
    assert (picture.record or {})["stopped"] is True
    assert next(painting, None) is None
    assert none_left()


def test_nothing_is_painted_until_it_is_asked_for(stylizer: Stylizer) -> None:
    painting = stylizer.steps(PHOTO)
    assert not painters()
    with pytest.raises(StylizeError, match="iterate"):
        _ = painting.picture
    next(painting)
    image = painting.picture
    assert image.size == (18, 24)


@pytest.mark.slow
def test_a_painting_that_is_forgotten_ends(stylizer: Stylizer) -> None:
    next(stylizer.steps(PHOTO))
    gc.collect()
    assert none_left()
    with stylizer.steps(PHOTO) as painting:
        next(painting)
    assert none_left()


def test_an_error_comes_out_of_the_loop(stylizer: Stylizer) -> None:
    with pytest.raises(SettingsError, match="not as int"):
        next(stylizer.steps(5))  # type: ignore[arg-type]
    painting = stylizer.steps(PHOTO, terms=lambda scale: [Term("bad", 1.0, lambda image, _: image)])
    with pytest.raises(SettingsError, match=r"^term bad gives"):
        list(painting)
    with pytest.raises(SettingsError, match=r"^term bad gives"):
        _ = painting.picture
    assert none_left()


def test_an_exception_thrown_into_it_ends_it(stylizer: Stylizer) -> None:
    painting = stylizer.steps(PHOTO)
    next(painting)
    with pytest.raises(KeyError, match="mine"):
        painting.throw(KeyError("mine"))
    assert painting.picture.size == (18, 24)


def test_two_at_once_step_in_turn(stylizer: Stylizer) -> None:
    one, other = stylizer.steps(PHOTO), stylizer.steps(PHOTO.flip(3))
    pairs = list(zip(one, other, strict=True))
    assert [(first.number, second.number) for first, second in pairs] == [(1, 1), (2, 2), (3, 3)]
    assert torch.equal(one.picture.rgb, stylizer(PHOTO).rgb)
    assert torch.equal(other.picture.rgb, stylizer(PHOTO.flip(3)).rgb)


def test_within_inference_mode_and_with_a_stop_of_its_own(stylizer: Stylizer) -> None:
    with torch.inference_mode():
        painting = stylizer.steps(PHOTO, stop=lambda: True)
        assert isinstance(painting, Painting)
        assert len(list(painting)) == 1
        assert torch.is_inference_mode_enabled()
    assert painting.picture.size == (18, 24)
