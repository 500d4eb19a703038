"""What a picture takes is told before it is painted."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from stylize import Settings, estimate
from stylize.cost import CPU, Work, work
from stylize.encoders import EncoderConfig, EncoderSpec, mini
from stylize.estimate import Estimator
from stylize.observing import Step
from stylize.pyramid import Scale, Schedule
from tests.conftest import Call

# Strokes are painted at 64 px, and measured is what has at most 128 px.
SETTINGS = Settings(encoder="tiny", device="cpu", precision="float32", brush=4.0, min_size=32)


@pytest.fixture(autouse=True)
def _at_most_128_px(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "LARGEST", 128)


class Clock:
    """A time of which each step of a scale takes as many seconds as its picture has thousands of pixels."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return 2 * self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    step = Step.__post_init__

    def painted(self: Step, snapshot: object) -> None:
        step(self, snapshot)  # type: ignore[arg-type]
        made.now += self.height * self.width / 1000

    monkeypatch.setattr(Step, "__post_init__", painted)
    monkeypatch.setattr(estimate, "time", made)
    return made


def test_the_time_of_a_picture_that_was_measured_whole_is_that_of_its_steps(tiny: EncoderSpec, clock: Clock) -> None:
    made = Estimator(SETTINGS.replace(steps=(30, 20)), encoders=[tiny])(48, 64)
    assert (made.scales, made.steps) == (2, 50)
    assert made.seconds == pytest.approx((24 * 32 * 30 + 48 * 64 * 20) / 1000)
    assert made.processor_seconds == pytest.approx(2 * made.seconds)
    assert made.memory is not None
    assert clock.now == pytest.approx((24 * 32 + 48 * 64) * estimate.STEPS / 1000)


def test_that_of_a_larger_one_grows_with_its_work(tiny: EncoderSpec, clock: Clock) -> None:
    estimator = Estimator(SETTINGS.replace(steps=(7,)), encoders=[tiny])  # all of a scale alike
    small, large, huge = (estimator(side * 3 // 4, side) for side in (128, 256, 512))
    begun = clock.now
    again = estimator(384, 512)
    assert (again, clock.now) == (huge, begun)  # nothing is measured twice
    assert small.seconds == pytest.approx(sum(side * side * 3 // 4 for side in (32, 64, 128)) * 7 / 1000)
    grown = [after.seconds - before.seconds for before, after in ((small, large), (large, huge))]
    assert 2 < grown[1] / grown[0] <= 4  # a step takes some time whatever the size
    assert grown[0] > 1.5 * 96 * 128 * 7 / 1000  # of the scale before


def test_what_does_not_fit_the_memory_is_estimated_all_the_same(tiny: EncoderSpec) -> None:
    estimator = Estimator(SETTINGS.replace(memory="700MB", steps=(2,), brush=1.0), encoders=[tiny])
    made = estimator(30000, 30000)
    assert made.memory is None
    assert made.seconds > 0


def test_pictures_in_tiles_take_more(tiny: EncoderSpec) -> None:
    whole, parted = (
        Estimator(SETTINGS.replace(steps=(2,), memory=memory, scales=1), encoders=[tiny])._stylizer.engine
        for memory in ("auto", "1500MB")
    )
    plan = parted.plan(2048, 2048)
    assert plan.side
    assert parted.work(plan.network_pixels, parted.encoder).step > whole.work(2048**2, whole.encoder).step


def test_settings_of_one_picture_do_not_keep_it_from_being_estimated(tiny: EncoderSpec) -> None:
    settings = SETTINGS.replace(style_weights=(1.0, 2.0), init="nowhere.png", steps=(1,), preserve_color="luminance")
    assert Estimator(settings, encoders=[tiny])(30, 40).steps == 1


def test_work_grows_with_pixels_and_layers_and_falls_with_precision() -> None:
    tensors, device = mini.read(), torch.device("cpu")
    place = EncoderConfig(device, torch.float32)
    deep, shallow = (mini.encoder(tensors, layers, place) for layers in (("relu1_1", "relu5_1"), ("relu1_1",)))

    def step(encoder: object, pixels: int, dtype: torch.dtype = torch.float32, threads: int = 1) -> float:
        found = work(encoder, pixels, ("relu1_1",), device=device, dtype=dtype, threads=threads)  # type: ignore[arg-type]
        return found.step

    small, large = step(deep, 10_000), step(deep, 40_000)
    assert 3 < large / small < 4  # some of it does not depend on the size
    assert step(shallow, 10_000) < small
    assert step(deep, 10_000, torch.bfloat16) < small
    assert small / 2 < step(deep, 10_000, threads=2) < small
    assert step(lambda image: {}, 10_000) > CPU[torch.float32].step  # an encoder that tells nothing of itself


def test_the_schedule_counts_what_comes_before_the_first_step() -> None:
    schedule = Schedule((Scale(8, 8, 10), Scale(16, 16, 20)), work=(Work(10, 1), Work(30, 1.5)))
    assert [schedule.fraction(*place) for place in ((1, 1), (1, 10), (2, 1), (2, 20))] == pytest.approx(
        [11 / 80, 20 / 80, 51.5 / 80, 1]
    )


# --- the command line -------------------------------------------------------------------------------------------------


def test_doctor_estimates_sizes(call: Call) -> None:
    done = call("doctor", "--estimate", "60x40", "--estimate", "80", "--encoder", "tiny", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    first, second = json.loads(done.out)
    assert {field.name for field in dataclasses.fields(estimate.Estimate)} < set(first)
    assert (first["width"], first["height"], second["width"], second["height"]) == (60, 40, 80, 60)
    assert first["seconds"] > 0
    assert (first["encoder"], first["device"]) == ("tiny", "cpu")


def test_doctor_says_estimates_in_a_line_each(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    painted = estimate.Estimate(768, 1024, 61.0, 122.0, 3 * 2**29, 4, 76)
    monkeypatch.setattr(Estimator, "__call__", lambda *_: painted)
    done = call("doctor", "--estimate", "1024", "--encoder", "tiny", "--precision", "float32")
    first, last = done.out.splitlines()
    assert first.split(maxsplit=1) == [
        "1024x768",
        "about 1 min 01 s (2 min 02 s of CPU time), at most 1.5 GiB; 76 steps at 4 scales",
    ]
    assert last == "tiny on cpu in float32; start-up and reading and writing pictures left out"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--estimate", "large"], "'large' is no size such as 1024 or 1024x768"),
        (["--estimate", "0x5"], "has no pixels"),
        (["--estimate", "1024x"], "is no size"),
        (["--estimate", "40000", "--encoder", "tiny"], "size is 40000; it must be 16 to 32768 px"),
        (["--encoder", "tiny"], "are for --estimate"),
        (["--weights", "nowhere"], "are for --estimate"),
    ],
)
def test_what_cannot_be_estimated_is_refused(call: Call, words: list[str], why: str) -> None:
    done = call("doctor", *words)
    assert (done.code, done.out) == (2, "")
    assert why in done.err


@pytest.mark.slow
def test_the_live_display_says_how_long_a_long_picture_takes(
    call: Call, pictures: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("photo.png", "starry.png", "-o", "out.png", "--encoder", "tiny", "--size", "48", "--steps", "3")
    monkeypatch.setattr("stylize.cli.display.LONG", 1e9)
    assert "about" not in call(*command).err
    monkeypatch.setattr("stylize.cli.display.LONG", 0)
    (line,) = [line for line in call(*command).err.splitlines() if "about" in line]
    assert line.startswith("48x36 in 3 steps at 1 scale, about ")
