"""How steady clips are: against clips whose motion and flicker are known, and through the real command line."""

from __future__ import annotations

import itertools
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stylize_video.flow import engine
from stylize_video.measure import Measured, e_warp, flow_to_previous, mean_luminance, measure, summary
from tests.conftest import Call
from tests.test_video import clip, moving, picture
from tests.test_video_steady import texture

Array = NDArray[Any]
SIGMA = 0.03


def across(count: int, step: int = 3, seed: int = 0, height: int = 48, width: int = 64) -> list[Array]:
    """A pattern that moves to the left by whole pixels."""
    wide = texture(height, width + count * step // 4 * 4 + 8, seed)
    return [wide[:, number * step : number * step + width] for number in range(count)]


def exact(one: Array, other: Array) -> Array:
    """The flow of :func:`across`, found by trying."""
    for right in (0, 3, -3):
        if np.array_equal(np.roll(one, right, 1)[:, 3:-3], other[:, 3:-3]):
            return np.full((*one.shape[:2], 2), (right, 0), np.float32)
    raise AssertionError("another motion")


def still(one: Array, other: Array) -> Array:
    return np.zeros((*one.shape[:2], 2), np.float32)


def noisy(frames: list[Array], sigma: float = SIGMA) -> list[Array]:
    """In floats, of which rounding takes nothing; some leave [0, 1]."""
    random = np.random.default_rng(0)
    return [(frame / 255 + random.normal(0, sigma, frame.shape)).astype(np.float32) for frame in frames]


# --- E_warp ----------------------------------------------------------------------------------------------------------


def test_what_moves_with_the_source_is_steady_however_it_moves() -> None:
    found = list(measure(across(4, seed=1), across(4, seed=2), exact))
    assert [each.warp is None for each in found] == [True, False, False, False]
    assert all(each.warp < 1e-9 and each.source_warp < 1e-9 for each in found[1:])  # type: ignore[operator]


def test_without_motion_it_is_the_mean_squared_difference() -> None:
    frames = [picture(seed) for seed in range(3)]
    found = list(measure(frames, None, still))
    for (one, two), each in zip(itertools.pairwise(frames), found[1:], strict=True):
        assert each.warp == pytest.approx(np.mean((one.astype(np.float64) - two) ** 2) / 255**2, rel=1e-5)
        assert each.source_warp is None


def test_flicker_counts_twice_its_variance_and_only_that() -> None:
    source = across(6)
    (_, *found) = measure(noisy(source), source, exact)
    for each in found:
        assert each.warp == pytest.approx(2 * SIGMA**2, rel=0.05)
        assert each.source_warp == pytest.approx(0, abs=1e-9)


def test_only_the_pixels_of_the_mask_count() -> None:
    one, two = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)
    two[:, :2] = 255
    two[:, 2:3] = 51
    mask = np.zeros((4, 6), bool)
    mask[:, 2:4] = True
    assert e_warp(two, one, still(one, two), mask) == pytest.approx(0.2**2 / 2)
    assert e_warp(two, one, still(one, two), mask & False) is None


@pytest.mark.parametrize("name", ["dis", "farneback"])
def test_the_engines_carry_frames_along(name: str) -> None:
    flow, frames = engine(name), across(3, height=96, width=128)
    assert flow is not None
    carried, standing = (summary(list(measure(frames, None, each))).warp for each in (flow, still))
    assert carried is not None
    assert standing is not None
    assert carried < standing / 20


def test_a_frame_of_which_nothing_was_to_be_seen_before_has_none() -> None:
    def away(one: Array, other: Array) -> Array:
        return np.full((*one.shape[:2], 2), 1000, np.float32)

    found = list(measure(across(3), None, away))
    assert [each.warp for each in found] == [None, None, None]
    total = summary(found)
    assert (total.warp, total.ratio, total.median, total.worst) == (None, None, None, None)


def test_all_kinds_of_samples_mean_the_same() -> None:
    eight = across(3)
    alpha = [np.dstack([frame, np.full(frame.shape[:2], 7, np.uint8)]) for frame in eight]
    deep = [frame.astype(np.uint16) * 257 for frame in eight]
    unit = [frame.astype(np.float64) / 255 for frame in eight]
    found = [list(measure(frames, frames, exact)) for frames in (eight, alpha, deep, unit)]
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert other.luminance == pytest.approx(one.luminance, abs=1e-6)
            assert other.warp == (None if one.warp is None else pytest.approx(one.warp, abs=1e-9))


def test_the_engine_gets_eight_bits_in_a_row() -> None:
    seen = []

    def flow(one: Array, other: Array) -> Array:
        seen.append((one.dtype, one.shape, one.flags.c_contiguous))
        return still(one, other)

    frame = np.zeros((20, 24, 4), np.uint16)
    flow_to_previous(frame, frame, flow)
    assert seen == [(np.uint8, (20, 24, 3), True)] * 2


# --- shots and light -------------------------------------------------------------------------------------------------


def test_a_shot_has_no_predecessor() -> None:
    found = list(measure(across(6), across(6), exact, {2, 4}))
    assert [each.shot for each in found] == [1, 1, 2, 2, 3, 3]
    assert [each.warp is None for each in found] == [True, False] * 3
    assert [each.number for each in found] == list(range(6))


def test_the_luminance_is_that_of_the_eye() -> None:
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        frame = np.zeros((4, 4, 3), np.uint8)
        frame[:2, :, channel] = 255
        assert mean_luminance(frame) == pytest.approx(weight / 2, abs=1e-3)


def test_drift_is_what_the_source_does_not_do_and_begins_anew_with_a_shot() -> None:
    source = [np.full((16, 16, 3), 0.3 + 0.05 * number) for number in range(4)]
    painted = [np.full((16, 16, 3), 0.5 + 0.07 * number) for number in range(4)]
    found = list(measure(painted, source, still, {2}))
    assert [each.drift for each in found] == pytest.approx([0, 0.02, 0, 0.02], abs=1e-6)
    alone = list(measure(painted, None, still))
    assert [each.drift for each in alone] == pytest.approx([0, 0.07, 0.14, 0.21], abs=1e-6)
    assert summary(found).drift == pytest.approx(0.02, abs=1e-6)
    assert summary(list(measure(painted[::-1], None, still))).drift == pytest.approx(-0.21, abs=1e-6)


def test_the_summary_is_over_the_frames_that_have_a_value() -> None:
    values = [(None, None), (0.01, 0.002), (0.04, 0.004), (None, None), (0.01, 0.006)]
    light = [0.2, 0.3, 0.4, 0.5, 0.6]
    found = [Measured(n, 1 + n // 3, *values[n], light[n], 1 - light[n], 0) for n in range(5)]
    total = summary(found)
    assert (total.frames, total.shots) == (5, 2)
    assert (total.warp, total.source_warp) == pytest.approx((0.02, 0.004))
    assert (total.ratio, total.median) == pytest.approx((5, 0.01))
    assert total.worst is found[2]
    assert (total.luminance, total.source_luminance) == ((0.2, 0.6), (0.4, 0.8))


def test_a_source_that_stands_still_gives_no_ratio() -> None:
    total = summary(list(measure(noisy([texture(16, 16)] * 3), [texture(16, 16)] * 3, still)))
    assert total.source_warp == 0
    assert total.ratio is None


def test_few_frames_are_in_memory_at_a_time_and_the_shorter_clip_ends_it() -> None:
    alive: set[int] = set()
    most = 0

    def stream(count: int) -> Iterator[Array]:
        nonlocal most
        for number in itertools.count():
            if number == count:
                return
            frame = np.zeros((16, 16, 3), np.uint8)
            key = id(frame)
            alive.add(key)
            weakref.finalize(frame, alive.discard, key)
            most = max(most, len(alive))
            yield frame
            del frame

    assert sum(1 for _ in measure(stream(40), stream(30), still)) == 30
    assert most <= 6


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def values(call: Call) -> Callable[..., dict[str, Any]]:
    def run(*arguments: object) -> dict[str, Any]:
        done = call("flicker", *arguments, "--json")
        assert done.code == 0, done.err
        (found,) = done.events
        return found

    return run


Values = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_the_command_sums_a_clip_up(call: Call, folder: Path) -> None:
    source = across(12)
    clip(folder / "in.mkv", source)
    clip(folder / "out.mkv", [(frame * 255).round().clip(0, 255).astype(np.uint8) for frame in noisy(source)])
    done = call("flicker", "out.mkv", "--source", "in.mkv")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "12 frames, 1 shot, at 64x48 px, flow farneback"
    assert [line[:11].strip() for line in lines[1:]] == ["E_warp", "of frames", "luminance"]
    assert "times as much" in lines[1]
    assert "(frame " in lines[2]
    assert "the source's" in lines[3]
    assert "source" not in call("flicker", "out.mkv").out


@pytest.mark.slow
def test_the_json_holds_what_flickers_and_every_frame(values: Values, folder: Path) -> None:
    grey = [np.full((48, 64, 3), 128, np.uint8)] * 5
    random = np.random.default_rng(0)
    clip(folder / "in.mkv", grey)
    clip(folder / "out.mkv", [(each + random.normal(0, 20, each.shape)).round().astype(np.uint8) for each in grey])
    found = values("out.mkv", "--source", "in.mkv")
    assert found["warp"] == pytest.approx(2 * (20 / 255) ** 2, rel=0.05)
    assert (found["source_warp"], found["ratio"]) == (0, None)
    assert (found["painted"], found["source"], found["flow"]) == ("out.mkv", "in.mkv", "farneback")
    assert [each["number"] for each in found["per_frame"]] == [0, 1, 2, 3, 4]
    assert [each["time"] for each in found["per_frame"]] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    worst = max(found["per_frame"][1:], key=lambda each: each["warp"])
    assert found["worst"] == {key: worst[key] for key in ("number", "time", "warp")}


@pytest.mark.slow
def test_the_clip_is_compared_with_the_source_from_there(values: Values, folder: Path) -> None:
    frames = across(10)
    clip(folder / "in.mkv", frames)
    clip(folder / "part.mkv", frames[4:])
    found = values("part.mkv", "--source", "in.mkv", "--from", "00:00.4", "--flow", "dis")
    assert all(each["warp"] == each["source_warp"] for each in found["per_frame"])
    assert all(each["luminance"] == each["source_luminance"] for each in found["per_frame"])


def test_cuts_are_found_and_do_not_count(values: Values, folder: Path) -> None:
    clip(folder / "in.mkv", [*moving(12, 1), *moving(12, 2)])
    found = values("in.mkv")
    assert found["shots"] == 2
    assert [each["number"] for each in found["per_frame"] if each["warp"] is None] == [0, 12]


@pytest.mark.slow
def test_it_is_measured_at_a_size(values: Values, folder: Path) -> None:
    clip(folder / "in.mkv", across(3))
    assert [(found["width"], found["height"]) for found in (values("in.mkv"), values("in.mkv", "--size", 32))] == [
        (64, 48),
        (32, 24),
    ]


@pytest.mark.slow
def test_a_source_of_another_size_is_brought_to_that_of_the_clip(values: Values, folder: Path) -> None:
    clip(folder / "in.mkv", across(3, height=96, width=132))
    clip(folder / "out.mkv", across(3, height=46, width=64))  # as sides are rounded down to even ones
    found = values("out.mkv", "--source", "in.mkv")
    assert (found["width"], found["height"], found["frames"]) == (64, 46, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "options", "said"),
    [
        (8, (), "out.mkv has 5 frames, in.mkv 8; comparing the first 5"),
        (3, (), "out.mkv has 5 frames, in.mkv 3; comparing the first 3"),
        (8, ("--from", "0.4"), "out.mkv has 5 frames, in.mkv 4 from there on; comparing the first 4"),
    ],
)
def test_clips_of_different_length_are_compared_as_far_as_they_go(
    call: Call, folder: Path, count: int, options: tuple[str, ...], said: str
) -> None:
    clip(folder / "in.mkv", across(count))
    clip(folder / "out.mkv", across(5))
    done = call("flicker", "out.mkv", "--source", "in.mkv", *options)
    assert (done.code, done.err) == (0, f"stylize: {said}\n")
    assert done.out.startswith(f"{min(5, count - (4 if options else 0))} frames,")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("none.mkv",), 1, "no such clip: none.mkv"),
        (("text.mkv",), 1, "cannot read text.mkv as a clip"),
        (("a.mkv", "--source", "none.mkv"), 1, "no such clip: none.mkv"),
        (("one.mkv",), 1, "one.mkv: only one frame to measure"),
        (("a.mkv", "--source", "one.mkv"), 1, "one.mkv: only one frame to measure"),
        (("a.mkv", "--source", "tall.mkv"), 1, "a.mkv is 64x48, tall.mkv 48x64: a clip and its source must have"),
        (("a.mkv", "--flow", "nonsense"), 2, "unknown flow 'nonsense'"),
        (("a.mkv", "--from", "1"), 2, "--from needs --source"),
        (("a.mkv", "--source", "a.mkv", "--from", "soon"), 2, "--from is 'soon'"),
        (("a.mkv", "--source", "a.mkv", "--from", "7"), 1, "a.mkv: no frame between start and end"),
        (("a.mkv", "--size", "3"), 2, "--size"),
        ((), 2, "PAINTED"),
    ],
)
def test_bad_input_is_one_clear_line(
    call: Call, folder: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    clip(folder / "a.mkv", across(3))
    clip(folder / "one.mkv", across(1))
    clip(folder / "tall.mkv", across(3, height=64, width=48))
    (folder / "text.mkv").write_text("no clip")
    done = call("flicker", *arguments)
    assert done.code == code
    assert said in done.err.splitlines()[-1]
    assert done.err.startswith("stylize: ")
    assert done.out == ""


def test_a_plugin_may_bring_the_flow(values: Values, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import numpy\nfrom stylize import hookimpl\n\n\n@hookimpl\ndef stylize_flow(name):\n"
    code += "    zero = lambda one, other: numpy.zeros((*one.shape[:2], 2), 'f4')\n"
    (folder / "own_flow.py").write_text(f"{code}    return zero if name == 'none' else None\n")
    info = folder / "own_flow-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-flow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stylize]\nown = own_flow\n")
    monkeypatch.syspath_prepend(str(folder))
    frames = across(2)
    clip(folder / "in.mkv", frames)
    plain = np.mean((frames[0] / 255 - frames[1] / 255) ** 2)
    assert values("in.mkv", "--flow", "none")["warp"] == pytest.approx(plain, rel=1e-3)


def test_the_json_is_json_where_nothing_could_be_followed(call: Call, folder: Path) -> None:
    random = np.random.default_rng(0)
    clip(folder / "in.mkv", [random.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(3)])
    found = json.loads(call("flicker", "in.mkv", "--json").out, parse_constant=pytest.fail)
    assert len(found["per_frame"]) == 3
