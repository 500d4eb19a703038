"""For tests of stylize and of its plugins: an encoder that is there at once, small, and the same everywhere; what
every job must keep to; and, with ``pytest_plugins = ["stylize.testing"]`` in a conftest.py, the fixture ``stylizer``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stylize.encoders import Encoder, EncoderSpec, Place, Progress, layer_names

if TYPE_CHECKING:
    from torch import Tensor

    from stylize.contracts import Chain, Executor, Job
    from stylize.stylizer import Stylizer

TINY_WIDTHS = (8, 8, None, 12, 12, None, 16, 16, 16, 16, None, 20, 20, 20, 20, None, 20, 20, 20, 20)


def tiny_encoder(name: str = "tiny", seed: int = 0) -> EncoderSpec:
    """A VGG-19 of at most 20 channels with seeded random weights: its layer names, none of its taste."""

    def load(file: Path | None, progress: Progress | None) -> Callable[[Iterable[str], Place], Encoder]:
        from stylize.encoders.vgg import VGG

        tensors = random_weights(TINY_WIDTHS, seed)

        def build(layers: Iterable[str], place: Place) -> Encoder:
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

    (folder / "photos").mkdir(exist_ok=True)
    for number in range(4):
        picture = Picture(torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(number)))
        picture.save(folder / "photos" / f"{number}.png")
    Picture(torch.rand(1, 3, 32, 32)).save(folder / "style.png")


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
    return {path: path.read_bytes() for path in found if not str(path.relative_to(folder)).startswith(".")}
