"""Masks and regions of clips: what is not painted stays the source's, frame by frame, wherever the masks move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from stylize import Picture, Settings
from stylize_video.areas import ClipAreas
from stylize_video.flow import warp_parts
from stylize_video.probe import probe
from stylize_video.steady import Motion
from tests.conftest import Call, waves
from tests.test_video import FAST, Paint, clip, failing_at, frames_of, moving, paint, picture, style

__all__ = ["paint", "style"]  # fixtures

Array = NDArray[Any]


def sliding(count: int) -> list[Array]:
    """Masks, white in a square of 12 px that goes to the right by 2 px a frame."""
    made = [np.zeros((24, 32, 3), np.uint8) for _ in range(count)]
    for number, mask in enumerate(made):
        mask[6:18, 2 + 2 * number : 14 + 2 * number] = 255
    return made


def pictures_of(folder: Path, frames: list[Array]) -> None:
    folder.mkdir()
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / f"{number:03}.png")


@pytest.fixture
def scene(folder: Path) -> Path:
    clip(folder / "in.mkv", moving(6))
    clip(folder / "mask.mkv", sliding(6))
    half = np.zeros((24, 32), np.uint8)
    half[:, 16:] = 255
    Image.fromarray(half).save(folder / "half.png")
    return folder


def check(source: list[Array], painted: list[Array], masks: list[Array]) -> None:
    """Black is the source's, to the bit, and what is white is painted."""
    assert len(source) == len(painted)
    for one, other, mask in zip(source, painted, masks, strict=True):
        black, white = mask.max(2) == 0, mask.min(2) == 255
        assert np.array_equal(one[black], other[black])
        assert not white.any() or np.abs(one.astype(int) - other)[white].mean() > 3


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--mask", "--keep"])
def test_a_picture_is_the_mask_of_all_frames(paint: Paint, scene: Path, option: str) -> None:
    paint("in.mkv", option, "half.png")
    half = np.dstack([np.asarray(Image.open("half.png"))] * 3)
    check(moving(6), frames_of(Path("out.mkv")), [half if option == "--mask" else 255 - half] * 6)


def as_lossy(masks: list[Array]) -> str:
    clip(Path("mask.mp4"), masks, codec="libx264", form="yuv420p")
    return "mask.mp4"


def as_pictures(masks: list[Array]) -> str:
    pictures_of(Path("masks"), masks)
    return "masks"


def as_pattern(masks: list[Array]) -> str:
    pictures_of(Path("masks"), masks)
    return "masks/%03d.png"


def as_map(masks: list[Array]) -> str:
    colored = [np.where(mask > 0, (255, 0, 0), (0, 0, 255)).astype(np.uint8) for mask in masks]
    clip(Path("map.mkv"), colored)
    return "red of map.mkv"


def as_animation(masks: list[Array]) -> str:
    first, *more = map(Image.fromarray, masks)
    first.save("mask.webp", save_all=True, append_images=more, lossless=True)
    return "mask.webp"


@pytest.mark.parametrize("write", [as_lossy, as_pictures, as_pattern, as_map, as_animation])
def test_a_mask_for_each_frame_is_any_kind_of_clip(scene: Path, write: Callable[[list[Array]], str]) -> None:
    areas = ClipAreas({"mask": write(sliding(6))}, Settings(), probe(Path("in.mkv")))
    blurred = 3 if write is as_lossy else 0
    for number, mask in enumerate(sliding(6)):
        found = areas.at(number, 24, 32)
        assert found is not None
        assert found.weights is not None
        weights = found.weights[0, 0].numpy()
        left, inside = 2 + 2 * number, slice(8, 16)
        assert (weights[inside, left + 2 + blurred : left + 10 - blurred] == 1).all()
        assert not weights[:, : max(0, left - blurred)].any()
        assert not weights[:, left + 12 + blurred :].any()
        assert mask[10, left].all()


@pytest.mark.slow
def test_a_clip_has_a_mask_for_each_frame(paint: Paint, scene: Path) -> None:
    paint("in.mkv", "--mask", "mask.mkv")
    check(moving(6), frames_of(Path("out.mkv")), sliding(6))


@pytest.mark.slow
def test_a_stretch_has_its_own_masks_or_those_of_the_whole(paint: Paint, scene: Path) -> None:
    stretch = ("--from", "0.2", "--to", "0.5")
    paint("in.mkv", "--mask", "mask.mkv", *stretch)
    check(moving(6)[2:5], frames_of(Path("out.mkv")), sliding(6)[2:5])
    clip(scene / "part.mkv", sliding(6)[2:5])
    paint("in.mkv", "--mask", "part.mkv", *stretch, target="part-out.mkv")
    check(moving(6)[2:5], frames_of(Path("part-out.mkv")), sliding(6)[2:5])


@pytest.mark.slow
def test_what_moves_where_it_is_not_painted_is_shown(paint: Paint, scene: Path) -> None:
    """The painted half stands still, so that its result is repeated, while the other half goes on."""
    frames = [frame.copy() for frame in moving(6)]
    for frame in frames:
        frame[:, 16:] = frames[0][:, 16:]
    clip(scene / "still.mkv", frames)
    assert "1 frame painted, 5 unchanged" in paint("still.mkv", "--mask", "half.png").err
    painted = frames_of(Path("out.mkv"))
    assert all(np.array_equal(one[:, :16], other[:, :16]) for one, other in zip(frames, painted, strict=True))
    assert all(np.array_equal(frame[:, 20:], painted[0][:, 20:]) for frame in painted)


@pytest.mark.slow
def test_a_mask_that_moves_over_a_still_scene_is_painted_on(paint: Paint, scene: Path) -> None:
    clip(scene / "still.mkv", [picture(0)] * 6)
    paint("still.mkv", "--mask", "mask.mkv")
    check([picture(0)] * 6, frames_of(Path("out.mkv")), sliding(6))


@pytest.mark.slow
def test_a_mask_that_is_black_at_first_is_painted_from_where_it_is_not(paint: Paint, scene: Path) -> None:
    masks = [np.zeros_like(mask) if number < 3 else mask for number, mask in enumerate(sliding(6))]
    clip(scene / "late.mkv", masks)
    paint("in.mkv", "--mask", "late.mkv")
    check(moving(6), frames_of(Path("out.mkv")), masks)


@pytest.mark.slow
def test_grey_is_mixed_alike_in_every_frame(paint: Paint, scene: Path) -> None:
    """What is mixed is not painted into the next frame."""
    Image.new("L", (32, 24), 128).save("grey.png")
    clip(scene / "still.mkv", [picture(0), *(np.roll(picture(0), number, 1) for number in range(1, 8))])
    paint("still.mkv", "--temporal-weight", "50")
    whole = frames_of(Path("out.mkv"))
    paint("still.mkv", "--temporal-weight", "50", "--mask", "grey.png")
    for number, (full, half) in enumerate(zip(whole, frames_of(Path("out.mkv")), strict=True)):
        shown = np.roll(picture(0), number, 1).astype(float)
        ratio = np.abs(half - shown).mean() / np.abs(full - shown).mean()
        assert 0.4 < ratio < 0.6


@pytest.mark.slow
def test_a_fade_keeps_what_is_not_painted(paint: Paint, scene: Path) -> None:
    gains = [1.0] * 6 + [0.8, 0.6, 0.4, 0.2, 0.0]
    still = picture(0).astype(float) * 0.6 + 20
    frames = [(still * gain).round().astype(np.uint8) for gain in gains]
    clip(scene / "fade.mkv", frames)
    paint("fade.mkv", "--mask", "half.png")
    assert all(
        np.array_equal(one[:, :16], other[:, :16])
        for one, other in zip(frames, frames_of(Path("out.mkv")), strict=True)
    )


@pytest.mark.slow
def test_regions_have_their_styles_and_move(paint: Paint, scene: Path) -> None:
    red = waves(20, 20, 4) * 0.3 + torch.tensor([0.7, 0.0, 0.0]).view(1, 3, 1, 1)
    Picture(red).save("red.png")
    options = ("--region", "mask.mkv", "red.png", "--steps", "9", "--frame-steps", "9", "--content-weight", "0.01")
    paint("in.mkv", *options)
    for frame, mask in zip(frames_of(Path("out.mkv")), sliding(6), strict=True):
        redness = frame[..., 0].astype(float) - frame[..., 2]
        assert redness[mask[..., 0] > 0].mean() > redness[mask[..., 0] == 0].mean() + 20


@pytest.mark.slow
def test_a_preview_shows_masked_frames(paint: Paint, scene: Path) -> None:
    paint("in.mkv", "--mask", "half.png", "--preview")
    paint("in.mkv", "--mask", "half.png")
    assert np.array_equal(frames_of(Path("out.mkv"))[0][:, :16], moving(6)[0][:, :16])


@pytest.mark.slow
def test_stopped_it_goes_on_with_its_masks(paint: Paint, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint("in.mkv", "--mask", "mask.mkv", target="whole.mkv")
    with failing_at(4, monkeypatch):
        assert "enough" in paint("in.mkv", "--mask", "mask.mkv", check=1).err
    assert "3 done before" in paint("in.mkv", "--mask", "mask.mkv").err
    assert all(map(np.array_equal, frames_of(Path("whole.mkv")), frames_of(Path("out.mkv"))))


@pytest.mark.slow
def test_other_masks_begin_anew(paint: Paint, scene: Path) -> None:
    paint("in.mkv", "--mask", "mask.mkv", "--preview")
    clip(scene / "mask.mkv", sliding(6)[::-1])
    paint("in.mkv", "--mask", "mask.mkv")
    check(moving(6), frames_of(Path("out.mkv")), sliding(6)[::-1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--mask", "short.mkv"), "the mask short.mkv has 4 frames, and in.mkv 6 frames; it must have as many"),
        (("--mask", "short.mkv", "--to", "0.3"), "6 frames, of which 3 are painted"),
        (("--mask", "tall.png"), "the mask tall.png is 24x32, and the picture 32x24"),
        (("--mask", "none.mkv"), "none.mkv"),
        (("--mask", "in.mkv", "--keep", "half.png"), "--mask and --keep cannot be combined"),
        (("--region", "half.png", "none.png"), "none.png"),
        (("--mask", "broken.mkv"), "broken.mkv"),
        (("--mask", "purplish of half.png"), "is no colour"),
    ],
)
def test_masks_that_do_not_fit_are_refused(call: Call, style: Path, scene: Path, options: Any, words: str) -> None:
    clip(scene / "short.mkv", sliding(4))
    Image.new("L", (24, 32), 255).save("tall.png")
    Path("broken.mkv").write_bytes(b"\x1a\x45\xdf\xa3 and nothing else")
    done = call("in.mkv", "style.png", "-o", "out.mkv", *FAST, *options)
    assert done.code in (1, 2)
    assert words in done.err
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not Path("out.mkv").exists()


def test_a_mask_is_never_written_over(call: Call, style: Path, scene: Path) -> None:
    done = call("in.mkv", "style.png", "-o", "mask.mkv", *FAST, "--mask", "mask.mkv")
    assert done.code in (1, 2)
    assert "also a source" in done.err


def test_a_mask_of_another_size_is_scaled(scene: Path) -> None:
    clip(scene / "large.mkv", [np.kron(mask, np.ones((3, 3, 1), np.uint8)) for mask in sliding(6)])
    areas = ClipAreas({"mask": "large.mkv"}, Settings(), probe(Path("in.mkv")))
    for number in (0, 3, 1):
        found = areas.at(number, 24, 32)
        assert found is not None
        assert found.mask is not None
        assert np.array_equal(found.mask.weights[0, 0].numpy() > 0.5, sliding(6)[number][..., 0] > 0)


def test_what_belongs_to_another_part_is_new_and_what_is_not_painted_does_not_count() -> None:
    still = picture(0)
    before, now = np.ones((24, 32), np.uint8), np.ones((24, 32), np.uint8)
    before[:, :8] = now[:, :8] = 0  # not painted
    now[:, 24:] = 2

    def flow(one: Array, other: Array) -> Array:
        return np.zeros((*one.shape[:2], 2), np.float32)

    motion = Motion.between(still, still, flow, parts=now, parts_before=before)
    assert motion.unseen == pytest.approx(8 / 24)
    assert not motion.mask[:, :8].any()
    assert not motion.mask[:, 24:].any()
    assert motion.mask[:, 8:24].all()


def test_parts_follow_the_flow() -> None:
    parts = np.zeros((8, 8), np.uint8)
    parts[:, 2:4] = 3
    moved = warp_parts(parts, np.full((8, 8, 2), (-2.2, 0), np.float32))
    assert (moved[:, 4:6] == 3).all()
    assert not np.delete(moved, (4, 5), 1).any()
