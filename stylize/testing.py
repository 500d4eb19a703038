"""For tests of stylize and of its plugins.

A small encoder that needs no file and is the same everywhere; contracts, classes of tests that every job, encoder,
display and engine of optical flow must pass; and, with ``pytest_plugins = ["stylize.testing"]`` in a conftest.py, the
fixture ``stylizer``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stylize.encoders import Encoder, EncoderConfig, EncoderSpec, Progress, layer_names

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from stylize.contracts import Chain, Executor, Flow, Job
    from stylize.display import Display
    from stylize.observing import Step
    from stylize.stylizer import Stylizer

TINY_WIDTHS = (8, 8, None, 12, 12, None, 16, 16, 16, 16, None, 20, 20, 20, 20, None, 20, 20, 20, 20)


def tiny_encoder(name: str = "tiny", seed: int = 0) -> EncoderSpec:
    """A VGG-19 of at most 20 channels with seeded random weights: it has the layer names of VGG-19."""

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
        made[f"features.{index}.weight"] = (
            torch.randn(width, channels, 3, 3, generator=generator, dtype=torch.float32) * scale
        )
        made[f"features.{index}.bias"] = torch.rand(width, generator=generator, dtype=torch.float32) * 0.1
        index, channels = index + 2, width
    return made


@pytest.fixture
def stylizer() -> Stylizer:
    """A stylizer that paints a 16 px picture in two quick steps."""
    import torch

    from stylize.settings import Settings
    from stylize.stylizer import Stylizer

    style = torch.rand(1, 3, 20, 20, dtype=torch.float32, generator=torch.Generator().manual_seed(1))
    settings = Settings(encoder="tiny", size=16, steps=(2,), tolerance=0.0, palette="free", device="cpu")
    return Stylizer(style, settings, encoders=[tiny_encoder()])


class JobContract:
    """What every job keeps to. Derive a test class from it, with a fixture ``job``."""

    def test_frames_come_one_by_one_and_hold_a_picture_with_a_name(self, job: Job, stylizer: Stylizer) -> None:
        from stylize.contracts import Frame, Painted

        count, keys = 0, set()
        with _begun(job, stylizer) as chains:
            for chain in chains:
                assert chain.key not in keys, "two chains have one key: one of them would not be painted"
                keys.add(chain.key)
                frames = job.frames(chain)
                assert iter(frames) is frames, "frames() must give an iterator, not a list: a clip has thousands"
                for frame in frames:
                    assert isinstance(frame, Frame)
                    count += 1
                    assert frame.name
                    assert frame.image.rgb.shape[:2] == (1, 3)
                    assert frame.number == count
                    assert frame.total is None or frame.number <= frame.total
                    if not frame.copied:
                        job.write(frame, Painted(frame.image))
                outcome = job.outcome(chain)
                job.collect(chain, outcome.result() if isinstance(outcome, Future) else outcome)
            assert count, "the job of a test must have at least one frame"
            job.finish()

    def test_chains_can_be_sent_to_another_process(self, job: Job, stylizer: Stylizer) -> None:
        with _begun(job, stylizer) as chains:
            for chain in chains:
                assert pickle.loads(pickle.dumps(chain)).key == chain.key  # noqa: S301

    def test_a_job_that_is_stopped_finishes(self, job: Job, stylizer: Stylizer) -> None:
        from stylize.executors import run

        run(job, stylizer, stop=lambda: True)


class FileJobContract(JobContract):
    """What a job keeps to whose sources and results are files, which must lie in ``tmp_path``."""

    def test_before_the_first_result_no_file_is_written(self, job: Job, stylizer: Stylizer, tmp_path: Path) -> None:
        before = _contents(tmp_path)
        with _begun(job, stylizer) as chains:
            frames = job.frames(next(chains))
            next(frames)
            assert _contents(tmp_path) == before
            getattr(frames, "close", lambda: None)()

    def test_the_result_lies_where_finish_says_and_the_sources_are_as_they_were(
        self, job: Job, stylizer: Stylizer, tmp_path: Path
    ) -> None:
        from stylize.executors import run

        before = _contents(tmp_path)
        path = run(job, stylizer)
        assert path is not None
        assert path.exists()
        after = _contents(tmp_path)
        assert set(after) > set(before), "nothing was written"
        assert all(after[old] == data for old, data in before.items()), "a source has changed"
        assert not [name for name in after if ".tmp" in name.name], "an unfinished file was left"

    @pytest.mark.parametrize("after", [1, 4])
    def test_a_job_that_is_stopped_writes_what_it_has(
        self, job: Job, stylizer: Stylizer, tmp_path: Path, after: int
    ) -> None:
        from stylize.executors import run

        before, asked = _contents(tmp_path), [0]

        def stop() -> bool:
            asked[0] += 1
            return asked[0] >= after

        run(job, stylizer, stop=stop)
        assert set(_contents(tmp_path)) > set(before)


class EncoderContract:
    """What every encoder keeps to. Derive a test class from it, with a fixture ``spec``: its :class:`EncoderSpec`.

    The encoder is built on the CPU in float32, with either pooling; override the fixture ``place`` for another.
    """

    SIZES = ((1, 1), (1, 37), (15, 16), (33, 47))  # (height, width) in pixels

    @pytest.fixture(params=["max", "average"])
    def place(self, request: pytest.FixtureRequest) -> EncoderConfig:
        import torch

        return EncoderConfig(torch.device("cpu"), torch.float32, request.param)

    @pytest.fixture(params=SIZES, ids=lambda size: "{}x{}".format(*size))
    def image(self, request: pytest.FixtureRequest, place: EncoderConfig) -> Tensor:
        """Noise (1, 3, H, W) in [0, 1]."""
        import torch

        return torch.rand(1, 3, *request.param, dtype=torch.float32, generator=torch.Generator().manual_seed(0)).to(
            place.device
        )

    def test_every_layer_asked_for_is_there_at_every_size(
        self, spec: EncoderSpec, place: EncoderConfig, image: Tensor
    ) -> None:
        encoder = _built(spec, spec.layers, place)
        features = encoder(image)
        assert encoder.layers == set(features) == set(spec.layers)
        for layer in spec.layers:
            assert features[layer].dim() == 4
            assert features[layer].shape[0] == 1
            assert min(features[layer].shape) >= 1
            assert features[layer].isfinite().all()

    def test_features_do_not_depend_on_which_others_are_asked_for(
        self, spec: EncoderSpec, place: EncoderConfig, image: Tensor
    ) -> None:
        together = _built(spec, spec.layers, place)(image)
        for layer in spec.layers:
            alone = _built(spec, (layer,), place)(image)
            assert set(alone) == {layer}
            assert alone[layer].equal(together[layer])

    def test_the_same_picture_gives_the_same_features(
        self, spec: EncoderSpec, place: EncoderConfig, image: Tensor
    ) -> None:
        encoder, another = _built(spec, spec.layers, place), _built(spec, spec.layers, place)
        first = {layer: feature.clone() for layer, feature in encoder(image).items()}
        encoder(1 - image)
        for later in (encoder(image), another(image)):
            assert all(first[layer].equal(later[layer]) for layer in spec.layers)

    def test_every_layer_has_a_gradient_to_the_picture(
        self, spec: EncoderSpec, place: EncoderConfig, image: Tensor
    ) -> None:
        import torch

        encoder = _built(spec, spec.layers, place)
        for layer in spec.layers:
            leaf = image.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(encoder(leaf)[layer].square().sum(), leaf)
            assert gradient.shape == image.shape
            assert gradient.isfinite().all()
            assert gradient.abs().max() > 0

    def test_the_picture_is_not_written_to(self, spec: EncoderSpec, place: EncoderConfig, image: Tensor) -> None:
        before = image.clone()
        _built(spec, spec.layers, place)(image)
        assert image.equal(before)

    def test_a_grey_picture_may_be_expanded(self, spec: EncoderSpec, place: EncoderConfig, image: Tensor) -> None:
        grey, encoder = image[:, :1], _built(spec, spec.layers, place)
        expanded, copied = encoder(grey.expand(-1, 3, -1, -1)), encoder(grey.repeat(1, 3, 1, 1))
        assert all(expanded[layer].equal(copied[layer]) for layer in spec.layers)

    def test_bfloat16_features_are_near_the_float32_ones(
        self, spec: EncoderSpec, place: EncoderConfig, image: Tensor
    ) -> None:
        import torch

        exact = _built(spec, spec.layers, place)(image)
        rounded = _built(spec, spec.layers, EncoderConfig(place.device, torch.bfloat16, place.pooling))(image)
        for layer in spec.layers:
            assert rounded[layer].dtype == torch.bfloat16
            assert (rounded[layer].float() - exact[layer]).norm() <= 0.05 * exact[layer].norm()


def _built(spec: EncoderSpec, layers: Iterable[str], place: EncoderConfig) -> Encoder:
    return spec.load(None, None)(layers, place)


class FlowContract:
    """What every engine of optical flow keeps to. Derive a test class from it, with a fixture ``flow``: the engine."""

    def test_the_flow_has_the_size_of_the_frames(self, flow: Flow) -> None:
        import numpy as np

        for size in ((16, 16), (37, 64), (120, 33)):
            one, other = _blobs(*size), _blobs(*size, shift=(0, 1))
            found = flow(one, other)
            assert found.shape == (*size, 2)
            assert found.dtype == np.float32
            assert np.isfinite(found).all()

    def test_the_same_frames_give_the_same_flow_and_are_not_written_to(self, flow: Flow) -> None:
        import numpy as np

        one, other = _blobs(64, 80), _blobs(64, 80, shift=(2, 1))
        before = one.copy(), other.copy()
        first = np.array(flow(one, other))
        np.testing.assert_array_equal(flow(one, other), first)
        np.testing.assert_array_equal(one, before[0])
        np.testing.assert_array_equal(other, before[1])

    def test_nothing_moves_between_equal_frames(self, flow: Flow) -> None:
        import numpy as np

        frame = _blobs(64, 80)
        assert np.abs(flow(frame, frame)).mean() < 0.05

    @pytest.mark.parametrize("shift", [(0, 3), (2, 0), (-3, 2)], ids=str)
    def test_the_flow_leads_from_a_pixel_to_where_it_is_in_the_other_frame(
        self, flow: Flow, shift: tuple[int, int]
    ) -> None:
        import numpy as np

        found = flow(_blobs(96, 128), _blobs(96, 128, shift=shift))[16:-16, 16:-16]
        down, right = shift
        assert np.abs(np.median(found[..., 0]) - right) < 0.3, "channel 0 is x, to the right"
        assert np.abs(np.median(found[..., 1]) - down) < 0.3, "channel 1 is y, downwards"
        far = np.abs(found - np.array([right, down])).max(-1) > 1
        assert far.mean() < 0.1


def _blobs(height: int, width: int, shift: tuple[int, int] = (0, 0)) -> NDArray[Any]:
    """A frame (H, W, 3) in uint8 of smooth spots, all moved by (down, right) pixels."""
    import numpy as np

    y, x = np.mgrid[0.0:height, 0.0:width]
    spots = np.random.default_rng(0).random((600, 6)) * [200, 200, 1, 1, 1, 1] - [40, 40, 0, 0, 0, 0]
    frame = np.full((height, width, 3), 0.5)
    for down, right, size, *color in spots:
        far = (y - down - shift[0]) ** 2 + (x - right - shift[1]) ** 2
        frame += np.exp(-far / (2 * (1.5 + 2 * size) ** 2))[..., None] * (np.array(color) - 0.5)
    return np.asarray((frame.clip(0, 1) * 255).round().astype(np.uint8))


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
        from stylize.contracts import Frame
        from stylize.host import plugin_manager

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
                copy = Frame("a copy", picture, number=number, total=total, copied=True)
            host.observe("stylize_copied", frame=copy)
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


class ExecutorContract:
    """What every executor keeps to. Derive a test class from it, with a fixture ``executor``."""

    def test_every_picture_is_painted_as_by_one_process(self, executor: Executor, tmp_path: Path) -> None:
        _paint_folder(tmp_path, "one", None)
        _paint_folder(tmp_path, "many", executor)
        one, many = _contents(tmp_path / "one"), _contents(tmp_path / "many")
        assert len(one) == 4
        assert [*one.values()] == [*many.values()]

    def test_one_bad_picture_is_reported_and_the_rest_is_painted(self, executor: Executor, tmp_path: Path) -> None:
        from stylize.errors import StylizeError

        small_photos(tmp_path)
        (tmp_path / "photos" / "bad.png").write_bytes(b"no picture")
        with pytest.raises(StylizeError, match="1 of 5 pictures failed"):
            _paint_folder(tmp_path, "out", executor)
        assert len(_contents(tmp_path / "out")) == 4

    def test_once_stopped_no_more_is_begun(self, executor: Executor, tmp_path: Path) -> None:
        seen: list[str] = []
        _paint_folder(
            tmp_path, "out", executor, on_step=lambda frame, step: seen.append(frame.name), stop=lambda: bool(seen)
        )
        assert seen
        assert 1 <= len(_contents(tmp_path / "out")) < 4


def small_photos(folder: Path) -> None:
    """Four pictures, ``photos/0.png`` to ``photos/3.png``, and ``style.png``, in a folder."""
    import torch

    from stylize.images import Picture

    def noise(seed: int, *size: int) -> Picture:
        generator = torch.Generator().manual_seed(seed)
        return Picture(torch.rand(1, 3, *size, dtype=torch.float32, generator=generator))

    (folder / "photos").mkdir(exist_ok=True)
    for number in range(4):
        noise(number, 24, 32).save(folder / "photos" / f"{number}.png")
    noise(4, 32, 32).save(folder / "style.png")


def _paint_folder(folder: Path, target: str, executor: Executor | None, **options: Any) -> None:
    """Paint four small pictures with the encoder that every process has."""
    from stylize.contracts import Request
    from stylize.executors import run
    from stylize.host import plugin_manager
    from stylize.settings import Settings

    if not (folder / "photos").exists():
        small_photos(folder)
    settings = Settings(encoder="mini", size=32, steps=(3,), tolerance=0.0, device="cpu")
    request, host = Request(folder / "photos", (folder / "style.png",), folder / target, settings), plugin_manager()
    job = request.open(host)
    run(job, request.stylizer(job, host), host=host, executor=executor, **options)


@contextmanager
def _begun(job: Job, stylizer: Stylizer) -> Iterator[Iterator[Chain]]:
    """The chains of a job that has begun; what it claimed is released at the end."""
    try:
        job.begin(stylizer)
        yield job.chains()
    finally:
        if job.claims is not None:
            job.claims.close()


def _contents(folder: Path) -> dict[Path, bytes]:
    """All files but hidden ones, and what lies in hidden folders: there a job may keep what it needs to go on."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    shown = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return {path: path.read_bytes() for path in shown}
