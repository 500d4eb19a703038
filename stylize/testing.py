"""For tests of stylize and of its plugins: an encoder that is there at once, small, and the same everywhere; what
every job and every display must keep to; and, with ``pytest_plugins = ["stylize.testing"]`` in a conftest.py, the
fixture ``stylizer``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stylize.encoders import Encoder, EncoderConfig, EncoderSpec, Progress, layer_names

if TYPE_CHECKING:
    from torch import Tensor

    from stylize.display import Display
    from stylize.engine import Step
    from stylize.jobs import Job
    from stylize.stylizer import Stylizer

TINY_WIDTHS = (8, 8, None, 12, 12, None, 16, 16, 16, 16, None, 20, 20, 20, 20, None, 20, 20, 20, 20)


def tiny_encoder(name: str = "tiny", seed: int = 0) -> EncoderSpec:
    """A VGG-19 of at most 20 channels with seeded random weights: its layer names, none of its taste."""

    def load(file: Path | None, progress: Progress | None) -> Callable[[Iterable[str], EncoderConfig], Encoder]:
        from stylize.encoders.vgg import VGG

        tensors = random_weights(TINY_WIDTHS, seed)

        def build(layers: Iterable[str], place: EncoderConfig) -> Encoder:
            return VGG(tensors, TINY_WIDTHS, layers, place)

        return build

    return EncoderSpec(name, layer_names(TINY_WIDTHS), load)


def random_weights(widths: Iterable[int | None], seed: int = 0) -> dict[str, Tensor]:
    """Weights with torchvision keys of a VGG with these widths, scaled to keep activations alike (He et al. 2015)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {}
    index, channels = 0, 3
    for width in widths:
        if width is None:
            index += 1
            continue
        scale = (2 / (9 * channels)) ** 0.5
        made[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3, generator=generator) * scale
        made[f"features.{index}.bias"] = torch.rand(width, generator=generator) * 0.1
        index, channels = index + 2, width
    return made


@pytest.fixture
def stylizer() -> Stylizer:
    """A stylizer that paints a 16 px picture in two quick steps, of no taste."""
    import torch

    from stylize.settings import Settings
    from stylize.stylizer import Stylizer

    style = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    settings = Settings(encoder="tiny", size=16, steps=(2,), tolerance=0.0, device="cpu")
    return Stylizer(style, settings, encoders=[tiny_encoder()])


class JobContract:
    """What every job keeps to. Derive a test class from it, with a fixture ``job`` whose sources and results lie in
    ``tmp_path``."""

    def test_frames_come_one_by_one_and_hold_a_picture_with_a_name(self, job: Job, stylizer: Stylizer) -> None:
        from stylize.jobs import Frame

        job.begin(stylizer)
        frames = job.frames()
        assert iter(frames) is frames, "frames() must give an iterator, not a list: a clip has thousands"
        count = 0
        for frame in frames:
            assert isinstance(frame, Frame)
            count += 1
            assert frame.name
            assert frame.image.rgb.shape[:2] == (1, 3)
            assert frame.number == count
            assert frame.total is None or frame.number <= frame.total
            job.write(frame, frame.image)
        assert count, "the job of a test must have at least one frame"
        job.finish()

    def test_before_the_first_result_no_file_is_written(self, job: Job, stylizer: Stylizer, tmp_path: Path) -> None:
        before = _contents(tmp_path)
        job.begin(stylizer)
        frames = job.frames()
        next(frames)
        assert _contents(tmp_path) == before
        getattr(frames, "close", lambda: None)()

    def test_the_result_lies_where_finish_says_and_the_sources_are_as_they_were(
        self, job: Job, stylizer: Stylizer, tmp_path: Path
    ) -> None:
        from stylize.jobs import run

        before = _contents(tmp_path)
        path = run(job, stylizer)
        assert path is not None
        assert path.exists()
        after = _contents(tmp_path)
        assert set(after) > set(before), "nothing was written"
        assert all(after[old] == data for old, data in before.items()), "a source has changed"
        assert not [name for name in after if ".tmp" in name.name], "an unfinished file was left"

    @pytest.mark.parametrize("after", [1, 4])
    def test_a_job_that_is_stopped_finishes_what_it_has(
        self, job: Job, stylizer: Stylizer, tmp_path: Path, after: int
    ) -> None:
        from stylize.jobs import run

        before, asked = _contents(tmp_path), [0]

        def stop() -> bool:
            asked[0] += 1
            return asked[0] >= after

        run(job, stylizer, stop=stop)
        assert set(_contents(tmp_path)) > set(before)


class DisplayContract:
    """What every display keeps to. Derive a test class from it, with a fixture ``display`` that is new for each
    test."""

    def test_it_shows_a_run_of_one_picture(self, display: Display, stylizer: Stylizer) -> None:
        self._run(display, stylizer, numbers=[1], total=1)

    def test_it_shows_a_run_of_several_pictures(self, display: Display, stylizer: Stylizer) -> None:
        self._run(display, stylizer, numbers=[1, 2], total=2)

    def test_it_shows_a_run_whose_number_of_pictures_is_not_known(self, display: Display, stylizer: Stylizer) -> None:
        self._run(display, stylizer, numbers=[1, 2], total=None)

    def _run(self, display: Display, stylizer: Stylizer, numbers: Iterable[int], total: int | None) -> None:
        from stylize.host import plugin_manager
        from stylize.jobs import Frame

        host, picture = plugin_manager(only=[]), stylizer.styles[0]
        host.register(display, "the display")
        with display as entered:
            assert entered is display
            display.notes([["a remark"], []])
            display.download(1, None)
            display.download(2, 2)
            for number in numbers:
                frame = Frame(f"picture {number}", picture, number=number, total=total)

                def observe(step: Step, frame: Frame = frame) -> None:
                    host.observe("stylize_step", frame=frame, step=step)

                result = stylizer(picture, on_step=observe)
                host.observe("stylize_painted", frame=frame, image=result)
            display.warning("something is wrong")
            display.written(Path("result.png"))
        assert host.problems == [], "a hook of the display has failed"

    def test_it_shows_steps_without_a_job(self, display: Display, stylizer: Stylizer) -> None:
        with display:
            for cell in ("1/2 ", "2/2 "):
                stylizer(stylizer.styles[0], on_step=lambda step, cell=cell: display.step(step, cell))  # type: ignore[misc]
            display.written(None)

    def test_it_can_be_interrupted_before_anything_is_shown(self, display: Display) -> None:
        with display:
            display.stopping()
            display.stopped()
            display.written(None)

    def test_an_error_goes_through_it(self, display: Display) -> None:
        with pytest.raises(ZeroDivisionError), display:
            raise ZeroDivisionError


def _contents(folder: Path) -> dict[Path, bytes]:
    """All files but hidden ones, and what lies in hidden folders: there a job may keep what it needs to go on."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in found if not str(path.relative_to(folder)).startswith(".")}
