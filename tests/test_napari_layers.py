"""The napari plugin without napari: layers to pictures and back, masks, stacks, samples and the writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import stylize
from stylize import ImageError, Job, Picture, StylizeError, Stylizer
from stylize.arrays import as_array
from stylize.encoders import EncoderSpec
from stylize.testing import JobContract
from stylize_napari import samples
from stylize_napari.layers import KEY, Slices, mask_of, placed
from stylize_napari.painting import LayerJob, paint
from stylize_napari.writer import write
from tests.conftest import SAMPLES, waves

Array = NDArray[Any]
STYLE = Slices("style", as_array(Picture(waves(20, 20, 2)), np.dtype(np.uint8)), rgb=True)


def colours(*lead: int, height: int = 24, width: int = 32, dtype: Any = np.uint8, channels: int = 3) -> Slices:
    """A layer of noise over the whole range of the type."""
    unit = np.random.default_rng(0).random((*lead, height, width, channels))
    whole = np.issubdtype(dtype, np.integer)
    return Slices("noise", (unit * np.iinfo(dtype).max if whole else unit).astype(dtype), rgb=True)


# Arrays and pictures


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_come_back_as_they_were(dtype: Any, channels: int) -> None:
    layer = colours(dtype=dtype, channels=channels)
    picture = layer.picture()
    assert picture.rgb.shape == (1, 3, 24, 32)
    assert (picture.alpha is None) == (channels == 3)
    np.testing.assert_array_equal(as_array(picture, np.dtype(dtype)), layer.data)


def test_grey_is_taken_as_it_is_seen() -> None:
    data = np.array([[900, 1000, 1500, 2000, 60000]], np.uint16)
    rgb = Slices("grey", data, rgb=False, limits=(1000, 2000)).picture().rgb
    assert rgb.shape == (1, 3, 1, 5)
    for channel in rgb[0, :, 0].tolist():
        assert channel == pytest.approx([0, 0, 0.5, 1, 1])


def test_the_slices_of_a_stack_are_pictures() -> None:
    stack = colours(2, 3)
    assert (stack.lead, stack.size, stack.channels) == ((2, 3), (24, 32), 3)
    np.testing.assert_array_equal(as_array(stack.picture((1, 2)), np.dtype(np.uint8)), stack.data[1, 2])
    only = stack.at(1, 2)
    assert only.lead == (1, 1)
    np.testing.assert_array_equal(only.data[0, 0], stack.data[1, 2])


def test_the_file_is_named_only_if_the_layer_still_is_what_is_in_it(tmp_path: Path) -> None:
    layer = colours()
    path = tmp_path / "photo.png"
    layer.picture().save(path)
    found = Slices("photo", layer.data, rgb=True, path=path).picture().origin
    assert found is not None
    assert (found.path, found.sha256) == (path, stylize.digest(path))
    changed = layer.data.copy()
    changed[3, 4, 1] ^= 1
    assert Slices("photo", changed, rgb=True, path=path).picture().origin is None
    assert Slices("photo", layer.data, rgb=True, path=tmp_path / "gone.png").picture().origin is None


def test_the_record_of_a_layer_changes_with_its_numbers() -> None:
    one, other = colours(2), colours(2)
    assert one.described() == other.described()
    assert one.described()["shape"] == [2, 24, 32, 3]
    other.data[1, 0, 0, 0] ^= 1
    assert one.described()["sha256"] != other.described()["sha256"]


# Where results lie


def test_a_coarser_result_covers_its_content() -> None:
    angle = np.deg2rad(30)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([2.0, 3.0])
    scale, translate = placed(linear, np.array([5.0, 7.0]), np.array([2.0, 3.0]), (), (4.0, 2.5))
    assert scale.tolist() == [8, 7.5]
    result = linear @ np.diag([4.0, 2.5])
    for content, own in (((-0.5, -0.5), (-0.5, -0.5)), ((79.5, 49.5), (19.5, 19.5))):  # first and last corner
        expected = linear @ np.array(content) + [5, 7]
        np.testing.assert_allclose(result @ np.array(own) + translate, expected)


def test_one_slice_lies_where_it_was_in_the_stack() -> None:
    scale, translate = placed(np.diag([10.0, 1, 1]), np.zeros(3), np.array([10.0, 1, 1]), (4,), (1.0, 1.0))
    assert scale.tolist() == [10, 1, 1]
    assert translate.tolist() == [40, 0, 0]


# Masks


def test_a_mask_is_for_all_slices_or_for_each() -> None:
    stack, one, each = colours(2), np.zeros((24, 32), int), np.zeros((2, 24, 32), int)
    one[3, 4] = each[1, 3, 4] = 9
    assert mask_of(one, stack)[:, 3, 4].tolist() == [True, True]
    assert mask_of(each, stack)[:, 3, 4].tolist() == [False, True]


def test_a_mask_of_another_size_is_refused_in_one_line() -> None:
    with pytest.raises(ImageError, match=r"^the mask is 24x31, and the content 24x32; use labels of the same size$"):
        mask_of(np.ones((24, 31)), colours())


# Painting


class TestLayerJob(JobContract):
    @pytest.fixture
    def job(self) -> Job:
        job = LayerJob(colours(3), STYLE, 16)
        job.lay_out()
        return job


def painted(stylizer: Stylizer, content: Slices, labels: Array | None = None, **options: Any) -> LayerJob:
    job = LayerJob(content, STYLE, 16, None if labels is None else Slices("labels", labels, rgb=False))
    job.lay_out()
    stylize.run(job, stylizer, **options)
    return job


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_layer_becomes_the_picture_stylize_makes_of_it(stylizer: Stylizer, dtype: Any) -> None:
    content = colours(dtype=dtype)
    job = painted(stylizer, content)
    expected = as_array(stylizer(content.picture()), np.dtype(dtype))
    assert expected.shape == (12, 16, 3)
    np.testing.assert_array_equal(job.canvas, expected)


def test_the_content_is_there_before_it_is_painted() -> None:
    content = colours(2, channels=4)
    job = LayerJob(content, STYLE, 32)
    job.lay_out()
    np.testing.assert_array_equal(job.canvas, content.data)


def test_every_slice_of_a_stack_is_painted_by_itself(stylizer: Stylizer) -> None:
    stack = Slices("stack", np.random.default_rng(1).random((2, 2, 24, 32), np.float32), rgb=False)
    job = painted(stylizer, stack)
    assert job.canvas.shape == (2, 2, 12, 16, 3)
    for index in np.ndindex(2, 2):
        np.testing.assert_array_equal(job.canvas[index], as_array(stylizer(stack.picture(index)), job.canvas.dtype))
    assert "stopped" not in job.record


@pytest.mark.slow
def test_a_clip_is_painted_along_the_first_axis(folder: Path) -> None:
    data = np.random.default_rng(1).integers(0, 60000, (2, 2, 24, 32), np.uint16)
    data[1, 0] = data[0, 0]  # one place stands still, the other does not
    stack, seen = Slices("stack", data, rgb=False, limits=(0, 60000)), list[float]()
    job = LayerJob(stack, STYLE, 16)
    settings = stylize.Settings(size=16, steps=(2,), encoder="tiny")
    paint(job, settings, look=lambda _, fraction: seen.append(fraction), stop=lambda: False, as_clip=True)
    assert (job.canvas.shape, job.canvas.dtype) == ((2, 2, 12, 16, 3), np.uint16)
    np.testing.assert_array_equal(job.canvas[1, 0], job.canvas[0, 0])
    assert (job.canvas[1, 1] != job.canvas[0, 1]).any()
    assert seen == sorted(seen)
    assert "stopped" not in job.record
    assert job.record["layers"]["content"] == stack.described()


@pytest.mark.slow
def test_a_clip_is_painted_within_its_mask_and_a_stopped_one_says_so(folder: Path) -> None:
    content, labels = colours(2), np.zeros((2, 24, 32), np.int32)
    labels[:, :, 16:] = 1
    settings = stylize.Settings(size=32, steps=(2,), encoder="tiny")
    job = LayerJob(content, STYLE, 32, Slices("labels", labels, rgb=False))
    paint(job, settings, look=lambda *_: None, stop=lambda: False, as_clip=True)
    np.testing.assert_array_equal(job.canvas[:, :, :14], content.data[:, :, :14])
    assert (job.canvas[:, :, 16:] != content.data[:, :, 16:]).any(-1).mean() > 0.9
    stopped = LayerJob(content, STYLE, 32)
    paint(stopped, settings, look=lambda *_: None, stop=lambda: True, as_clip=True)
    assert stopped.record["stopped"]


def test_alpha_stays(stylizer: Stylizer) -> None:
    content = colours(height=12, width=16, channels=4)
    job = painted(stylizer, content)
    np.testing.assert_array_equal(job.canvas[..., 3], content.data[..., 3])
    assert (job.canvas[..., :3] != content.data[..., :3]).any()


def test_outside_the_mask_not_one_number_changes(stylizer: Stylizer) -> None:
    content, labels = colours(2), np.zeros((2, 24, 32), np.int32)
    labels[0, :, 16:] = 3
    job = painted(stylizer, content, labels)
    assert job.canvas.shape == content.data.shape
    np.testing.assert_array_equal(job.canvas[0, :, :14], content.data[0, :, :14])
    np.testing.assert_array_equal(job.canvas[1], content.data[1])
    changed = (job.canvas[0, :, 16:] != content.data[0, :, 16:]).any(-1)
    assert changed.mean() > 0.9


def test_labels_are_a_mask_as_any_other(stylizer: Stylizer) -> None:
    content, labels = colours(), np.zeros((24, 32), int)
    labels[:, 16:] = 7
    mask = stylize.as_mask(labels > 0)
    alone = stylizer(content.picture(), mask=mask)
    expected = Picture(mask.over(content.picture().rgb, alone.rgb))
    np.testing.assert_array_equal(painted(stylizer, content, labels).canvas, as_array(expected, np.dtype(np.uint8)))


def test_several_styles_are_blended(tiny: EncoderSpec) -> None:
    other = Slices("other", as_array(Picture(waves(20, 20, 5)), np.dtype(np.uint8)), rgb=True)
    content, settings = colours(), stylize.Settings(size=16, steps=(2,), style_weights=(1, 3), encoder="tiny")
    job = LayerJob(content, [STYLE, other], 16)
    job.lay_out()
    blended = Stylizer(job.style(), settings, encoders=[tiny])
    stylize.run(job, blended)
    assert [style.name for style in blended.styles] == ["style", "other"]
    np.testing.assert_array_equal(job.canvas, as_array(blended(content.picture()), np.dtype(np.uint8)))
    assert set(job.record["layers"]) == {"content", "style", "style 2"}


def test_an_empty_mask_is_an_error_in_one_line() -> None:
    with pytest.raises(StylizeError, match="nothing is labelled"):
        LayerJob(colours(), STYLE, 16, Slices("labels", np.zeros((24, 32)), rgb=False))


@pytest.mark.slow
def test_the_record_says_what_was_painted_and_how(stylizer: Stylizer, tmp_path: Path) -> None:
    content = colours()
    path = tmp_path / "photo.png"
    content.picture().save(path)
    job = painted(stylizer, Slices("photo", content.data, rgb=True, path=path))
    assert job.record["settings"]["size"] == 16
    assert job.record["content"] == {"path": str(path), "sha256": stylize.digest(path)}
    assert job.record["layers"]["content"]["layer"] == "photo"
    assert job.record["layers"]["style"] == STYLE.described()
    masked = painted(stylizer, Slices("photo", content.data, rgb=True, path=path), np.ones((24, 32)))
    assert masked.record["content"] == job.record["content"]
    assert masked.record["mask"].keys() == {"sha256"}
    assert masked.record["layers"]["mask"]["layer"] == "labels"


@pytest.mark.parametrize(("asked", "finished"), [(2, 1), (10**6, 3)])
def test_a_stack_that_is_stopped_says_so_and_keeps_what_it_has(stylizer: Stylizer, asked: int, finished: int) -> None:
    calls = [0]

    def stop() -> bool:
        calls[0] += 1
        return calls[0] > asked

    content = colours(3, height=12, width=16)
    job = painted(stylizer, content, stop=stop)
    changed = [bool((job.canvas[index] != content.data[index]).any()) for index in range(3)]
    assert sum(changed) == finished
    assert job.record.get("stopped", False) == (finished < 3)


def test_a_download_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(progress: Callable[[int, int], None]) -> None:
        progress(0, 10)
        progress(5, 10)

    monkeypatch.setattr("stylize_napari.painting.Stylizer", lambda *_, progress, **__: fetch(progress))
    seen: list[str] = []
    job = LayerJob(colours(), STYLE, 16)
    with pytest.raises(StylizeError, match="stopped before the weights"):
        paint(job, stylize.Settings(), look=lambda text, _: seen.append(text), stop=lambda: len(seen) == 2)
    assert seen == ["begun", "weights: 0 MB"]


# Samples and saving


@pytest.mark.parametrize(("sample", "names"), [(samples.bridge, "bridge starry-night"), (samples.cat, "cat waves")])
def test_samples_are_a_photo_and_a_style_side_by_side(sample: Callable[[], Any], names: str) -> None:
    (left, about_left, _), (right, about_right, kind) = sample()
    assert [about_left["name"], about_right["name"]] == names.split()
    assert kind == "image"
    assert about_right["translate"][1] > left.shape[1]
    expected = stylize.load(SAMPLES / f"{about_right['name']}.jpg")
    np.testing.assert_array_equal(right, as_array(expected, np.dtype(np.uint8)))


@pytest.mark.parametrize(("dtype", "ending"), [(np.uint8, "png"), (np.uint16, "png"), (np.uint16, "webp")])
def test_a_stylized_layer_is_saved_with_its_record(tmp_path: Path, dtype: Any, ending: str) -> None:
    layer, path = colours(dtype=dtype), tmp_path / f"out.{ending}"
    assert write(str(path), layer.data, {"name": "noise", "metadata": {KEY: {"settings": {"size": 16}}}}) == [str(path)]
    assert stylize.read_record(path) == {"settings": {"size": 16}}
    if ending == "png":
        assert torch.equal(stylize.load(path).rgb, layer.picture().rgb)


def test_a_stack_is_saved_as_a_picture_for_each_slice(tmp_path: Path) -> None:
    stack = colours(2)
    files = write(str(tmp_path / "out.png"), stack.data, {"metadata": {KEY: {"a": 1}}})
    assert [Path(file).name for file in files] == ["out-0000.png", "out-0001.png"]
    assert torch.equal(stylize.load(files[1]).rgb, stack.picture((1,)).rgb)
    assert [stylize.read_record(file) for file in files] == [{"a": 1}, {"a": 1}]
