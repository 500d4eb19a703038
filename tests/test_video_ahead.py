"""What is done beside the painting of a clip: the frames are the same, errors come where they did, and threads end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stylize import Flow, Frame, ImageError, Mask, Painted, Picture, Settings, StylizeError, Stylizer, load
from stylize_video.ahead import frames_ahead
from stylize_video.areas import FrameAreas
from stylize_video.exposure import Exposure
from stylize_video.flow import engine
from stylize_video.probe import Clip
from stylize_video.shot import ShotPainter
from stylize_video.styling import Styling
from stylize_video.task import Task
from stylize_video.work import Plan, Shot, Work
from stylize_video.writing import write_png
from tests.conftest import waves

Array = NDArray[Any]
HEIGHT, WIDTH = 24, 32
AHEAD = 4
OTHERS = set[threading.Thread]()


def panned(count: int, seed: int = 0) -> list[Array]:
    wide = (waves(HEIGHT, WIDTH + 2 * count, seed)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    return [np.ascontiguousarray(wide[:, 2 * number : 2 * number + WIDTH]) for number in range(count)]


def masked(number: int) -> FrameAreas:
    """A part of the picture that moves to the right, half of whose first row is mixed."""
    parts = np.zeros((HEIGHT, WIDTH), np.uint8)
    parts[4:, number : number + 20] = 1
    weights = torch.from_numpy(parts.astype(np.float32))[None, None].clone()
    weights[..., 4, :] /= 2
    return FrameAreas(Mask(weights), (), weights, parts)


def dis() -> Flow:
    found = engine("dis")
    assert found is not None
    return found


@dataclass(frozen=True)
class InMemory(Task):
    """A clip whose frames are there, up to the one that cannot be read."""

    frames: Sequence[Array] = ()
    fails: int | None = None
    given: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)

    def read(self) -> Iterator[Array]:
        number = 0
        try:
            for number, frame in enumerate(self.frames):
                if number == self.fails:
                    raise StylizeError("cannot be read")
                self.given.append(number)
                yield frame
        finally:
            self.closed.append(number)


class Painting:
    """Paints a clip with a painter that takes no time."""

    def __init__(
        self,
        folder: Path,
        frames: Sequence[Array],
        options: Mapping[str, Any] | None = None,
        *,
        plan: Plan | None = None,
        areas: Callable[[int], FrameAreas | None] = lambda _: None,
        flow: Flow | None = None,
        fails: int | None = None,
    ) -> None:
        settings, clip = (
            Settings(size=WIDTH),
            Clip(folder / "clip.mkv", WIDTH, HEIGHT, Fraction(25), frames=len(frames)),
        )
        known = cast("Any", SimpleNamespace(at=lambda number, *_: areas(number)))
        styling, target = Styling({}, settings, clip), folder / "out.mkv"
        place, given = (target, None, None, None), (settings, options or {}, known, styling)
        self.task = InMemory(clip, "", *place, HEIGHT, WIDTH, *given, frames=tuple(frames), fails=fails)
        self.plan, self.work = plan or Plan({}, len(frames)), Work(target)
        self.painter = ShotPainter(self.task, self.work, flow or dis())
        self.work.make()
        stylizer = SimpleNamespace(
            settings=settings, styles=(None,), engine=SimpleNamespace(device=torch.device("cpu"))
        )
        self.painter.begin(cast("Stylizer", stylizer))

    def paint(self, most: int = 1000) -> dict[str, bytes]:
        """Paint so many frames at most; the files of the frames."""
        for shot in self.plan.shots():
            with closing(cast("Any", self.painter.frames(Shot(shot, self.plan)))) as frames:
                for frame in frames:
                    if frame.copied:
                        continue
                    if most == 0:
                        break
                    most -= 1
                    self.painter.write(frame, self.painted(frame))
            self.painter.take_counts()
        return self.files()

    def painted(self, frame: Frame) -> Painted:
        """A result that shows what the frame began with, and in which curvature."""
        begun = frame.image.rgb if frame.init is None else frame.init
        known = frame.curvature
        moves = torch.linspace(-1, 1, 2 * begun.numel()).view(2, *begun.shape[1:])
        if known is not None:
            bend = moves if known.moves is None else 0.5 * known.moves.float() + moves
            known.moves, known.changes = bend, 2 * bend
            begun = begun + 0.05 * bend.mean(0, keepdim=True)
        rgb = (0.9 * begun + 0.1 * frame.image.rgb.flip(1)).clamp(0, 1)
        return Painted(Picture(rgb, frame.image.alpha), frame.steps or 20, 0.0, {"style": float(rgb.mean())})

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.work.path.glob("*.png"))}


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """So many frames are prepared ahead from now on."""
    return lambda count: monkeypatch.setattr("stylize_video.shot.frames_ahead", lambda *_: count)


def still(count: int) -> list[Array]:
    """A scene that stands still, moves, and stands still again."""
    return [*panned(1) * 3, *panned(count), *panned(count)[-1:] * 3]


FADED = [Exposure(0.0), Exposure(0.4), *[Exposure()] * 3, Exposure(1.1, 0.1), Exposure(0.0), Exposure(0.5), Exposure()]
CASES: dict[str, Callable[[Path], Painting]] = {
    "panned": lambda folder: Painting(folder, panned(9)),
    "two shots": lambda folder: Painting(folder, [*panned(5), *panned(4, 1)], plan=Plan({}, 9, (5,))),
    "static": lambda folder: Painting(folder, still(4)),
    "every third": lambda folder: Painting(folder, panned(9), {"every": 3}),
    "every third, of still ones, too": lambda folder: Painting(folder, still(5), {"every": 3}),
    "every third of two shots": lambda folder: Painting(
        folder, [*panned(5), *panned(5, 1)], {"every": 3}, plan=Plan({}, 10, (5,))
    ),
    "every third masked": lambda folder: Painting(folder, panned(9), {"every": 3}, areas=masked),
    "every third faded": lambda folder: Painting(
        folder, panned(9), {"every": 3}, plan=Plan({}, 9, exposures=tuple(FADED))
    ),
    "paced": lambda folder: Painting(folder, panned(9), {"draft": True}, plan=Plan({}, 9, painted=(0, 1, 4, 8))),
    "every third held": lambda folder: Painting(folder, panned(9), {"every": 3, "hold": True}),
    "masked": lambda folder: Painting(folder, panned(9), areas=masked),
    "faded": lambda folder: Painting(folder, panned(9), plan=Plan({}, 9, exposures=tuple(FADED))),
    "16 bits": lambda folder: Painting(folder, [frame.astype(np.uint16) * 257 for frame in panned(9)], {"bits": 16}),
    "alpha": lambda folder: Painting(folder, [np.dstack([frame, frame[..., :1]]) for frame in panned(9)]),
    "another flow": lambda folder: Painting(folder, panned(9), flow=lambda one, other: dis()(one, other)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_frames_are_the_same_as_without_and_however_often_it_is_interrupted(
    case: str, tmp_path: Path, ahead: Callable[[int], None]
) -> None:
    found = []
    for count, interrupted in ((0, ()), (AHEAD, ()), (1, ()), (AHEAD, (1, 2, 3)), (0, (4,))):
        folder = tmp_path / f"{count}-{len(interrupted)}"
        folder.mkdir()
        ahead(count)
        for most in interrupted:
            CASES[case](folder).paint(most)
        found.append(CASES[case](folder).paint())
    assert len(found[0]) >= 9
    assert all(each == found[0] for each in found[1:])


def test_large_frames_after_the_last_kept_state_are_painted_again(
    tmp_path: Path, ahead: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylize_video.shot.STATE_BYTES", 20_000)  # every fourth frame
    ahead(AHEAD)
    painting = Painting(tmp_path, panned(9))
    assert len(painting.paint(7)) == 7
    state = painting.work.read_state(range(9))
    assert state is not None
    assert state.number == 4
    (tmp_path / "undisturbed").mkdir()
    assert Painting(tmp_path, panned(9)).paint() == Painting(tmp_path / "undisturbed", panned(9)).paint()


def test_a_flow_of_a_plugin_is_called_where_the_painting_is(tmp_path: Path, ahead: Callable[[int], None]) -> None:
    seen = set()

    def flow(one: Array, other: Array) -> Array:
        seen.add(threading.current_thread())
        return dis()(one, other)

    ahead(AHEAD)
    Painting(tmp_path, panned(4), flow=flow).paint()
    assert seen == {threading.current_thread()}


@pytest.fixture(autouse=True)
def others() -> Iterator[None]:
    """What the tests before have left running is not this one's."""
    OTHERS.update(threading.enumerate())
    yield
    OTHERS.clear()


def threads() -> list[str]:
    ours = (each for each in threading.enumerate() if each not in OTHERS)
    return [each.name for each in ours if each.name.startswith(("prepare", "motion", "write"))]


@pytest.mark.parametrize("count", [0, AHEAD])
def test_what_cannot_be_read_is_told_after_the_frames_before_it(
    tmp_path: Path, ahead: Callable[[int], None], count: int
) -> None:
    ahead(count)
    painting = Painting(tmp_path, panned(9), fails=3)
    with pytest.raises(StylizeError, match="cannot be read"):
        painting.paint()
    assert list(painting.files()) == [f"{number:08}.png" for number in range(3)]
    assert painting.task.closed == [3]
    assert not threads()


def test_a_flow_that_fails_is_told_at_its_frame(
    tmp_path: Path, ahead: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def flow(one: Array, other: Array) -> Array:
        calls.append(1)
        if len(calls) > 4:  # two for each frame
            raise StylizeError("no flow")
        return dis()(one, other)

    monkeypatch.setattr("stylize_video.chain.is_thread_safe", lambda _: True)
    monkeypatch.setattr("stylize_video.ahead._threads", lambda _: 1)
    ahead(AHEAD)
    painting = Painting(tmp_path, panned(9), flow=flow)
    with pytest.raises(StylizeError, match="no flow"):
        painting.paint()
    assert len(painting.files()) == 3
    assert not threads()


def test_to_end_early_ends_the_threads_and_loses_nothing(tmp_path: Path, ahead: Callable[[int], None]) -> None:
    ahead(AHEAD)
    painting = Painting(tmp_path, panned(40))
    assert len(painting.paint(2)) == 2
    assert not threads()


def test_so_many_frames_are_read_ahead_and_no_more(tmp_path: Path, ahead: Callable[[int], None]) -> None:
    ahead(AHEAD)
    painting = Painting(tmp_path, panned(40))
    painting.paint(2)
    assert max(painting.task.given) <= 2 + AHEAD


@pytest.mark.parametrize("count", [0, AHEAD])
def test_a_frame_that_cannot_be_written_ends_it_and_none_comes_after_it(
    tmp_path: Path, ahead: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    ahead(count)
    painting, save = Painting(tmp_path, panned(9)), ShotPainter.save

    def full(self: ShotPainter, path: Path, result: Picture) -> None:
        if path.name == "00000003.png":
            raise ImageError("No space left on device")
        save(self, path, result)

    with monkeypatch.context() as patches:
        patches.setattr(ShotPainter, "save", full)
        with pytest.raises(ImageError, match="No space left"):
            painting.paint()
    assert list(painting.files()) == [f"{number:08}.png" for number in range(3)]
    assert not threads()
    again = Painting(tmp_path, panned(9)).paint()
    (tmp_path / "undisturbed").mkdir()
    assert again == Painting(tmp_path / "undisturbed", panned(9)).paint()


def test_the_last_frames_that_cannot_be_written_are_told(
    tmp_path: Path, ahead: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead(AHEAD)
    painting = Painting(tmp_path, panned(4))

    def full(self: ShotPainter, path: Path, result: Picture) -> None:
        raise ImageError("No space left on device")

    monkeypatch.setattr(ShotPainter, "save", full)
    frames = painting.painter.frames(Shot(range(4), painting.plan))
    frame = next(frames)
    painting.painter.write(frame, painting.painted(frame))
    cast("Any", frames).close()  # stopped: no error yet
    with pytest.raises(ImageError, match="No space left"):
        painting.painter.take_counts()


@pytest.mark.parametrize(("every", "last"), [(1, 0), (1, 3), (1, 6), (1, 9), (3, 6), (3, 8), (3, 10), (3, 12)])
def test_killed_between_any_two_files_it_goes_on_and_frames_are_the_same(
    tmp_path: Path, ahead: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, every: int, last: int
) -> None:
    ahead(AHEAD)
    done, options, count = 0, {"every": every}, 4 + every

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def once(*given: Any, **named: Any) -> Any:
            nonlocal done
            done += 1
            if done > last:
                raise SystemError("killed")
            return function(*given, **named)

        return once

    with monkeypatch.context() as patches:
        patches.setattr(ShotPainter, "save", counted(ShotPainter.save))
        for name in ("write_state", "remove_states", "note"):
            patches.setattr(Work, name, counted(getattr(Work, name)))
        with pytest.raises(SystemError, match="killed"):
            Painting(tmp_path, panned(count), options).paint()
    (tmp_path / "undisturbed").mkdir()
    undisturbed = Painting(tmp_path / "undisturbed", panned(count), options).paint()
    assert len(undisturbed) == count
    assert Painting(tmp_path, panned(count), options).paint() == undisturbed


def test_painted_frames_come_before_those_between_and_none_is_painted_twice(tmp_path: Path) -> None:
    painted: list[int] = []

    def paint(most: int) -> list[int]:
        painting, order = Painting(tmp_path, panned(8), {"every": 3}), []
        for frame in painting.painter.frames(Shot(range(8), painting.plan)):
            order.append(frame.number - 1)
            if not frame.copied:
                painted.append(order[-1])
                painting.painter.write(frame, painting.painted(frame))
            if len(order) == most:
                break
        return order

    assert paint(3) == [0, 3, 1]
    assert paint(1) == [2]
    assert paint(2) == [6, 4]
    assert paint(9) == [5, 7]
    assert painted == [0, 3, 6, 7]


def test_a_frame_of_a_draft_gets_more_steps_where_others_lie_before_it(tmp_path: Path) -> None:
    task = Painting(tmp_path, panned(2), {"draft": True}).task
    assert [task.steps_after(frames) for frames in (1, 2, 3, 30)] == [(2, 8), (4, 8), (4, 8), (4, 8)]
    assert Painting(tmp_path, panned(2)).task.steps_after(1) == (4, 12)


def test_frames_that_do_not_fit_into_memory_are_made_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    monkeypatch.setattr("stylize_video.ahead.ROOM", 1000)
    painting = Painting(tmp_path, panned(8), {"every": 3})
    for frame in painting.painter.frames(Shot(range(8), painting.plan)):
        order.append((frame.number - 1, frame.copied))
        if not frame.copied:
            painting.painter.write(frame, painting.painted(frame))
    assert order == [(number, number not in (0, 3, 6, 7)) for number in range(8)]
    assert len(painting.files()) == 8


def test_nothing_is_done_beside_a_painting_on_the_cpu_and_little_of_large_frames() -> None:
    assert frames_ahead(torch.device("cpu"), 720, 1280) == 0
    assert frames_ahead(torch.device("cuda"), 720, 1280) > frames_ahead(torch.device("cuda"), 2160, 3840) >= 2
    assert frames_ahead(torch.device("cuda"), 20_000, 20_000) == 2


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_frame_is_written_as_a_picture_is(tmp_path: Path, bits: int, alpha: bool) -> None:
    picture = Picture(waves(20, 30) * 1.2 - 0.1, waves(20, 30, 1)[:, :1] if alpha else None)
    write_png(tmp_path / "quick.png", picture, bits)
    picture.save(tmp_path / "saved.png", bits=bits)
    quick, saved = load(tmp_path / "quick.png"), load(tmp_path / "saved.png")
    assert torch.equal(quick.rgb, saved.rgb)
    assert (quick.alpha is None) == (saved.alpha is None) == (not alpha)
    assert quick.alpha is None or saved.alpha is None or torch.equal(quick.alpha, saved.alpha)
    assert quick.about.bits == bits


def test_what_is_no_picture_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"frame\.png: the picture holds NaN"):
        write_png(tmp_path / "frame.png", Picture(waves(8, 8) * torch.nan), 8)
    with pytest.raises(ImageError, match="cannot write"):
        write_png(tmp_path / "none" / "frame.png", Picture(waves(8, 8)), 8)
    assert not list(tmp_path.iterdir())


def test_curvature_is_kept_for_a_run_that_goes_on(tmp_path: Path, ahead: Callable[[int], None]) -> None:
    ahead(AHEAD)
    painting = Painting(tmp_path, panned(6))
    painting.paint(4)
    state = painting.work.read_state(range(6))
    assert state is not None
    assert state.number == 3
    assert state.curvature.moves is not None
