"""Which frames of a draft are painted: the fewer, the less comes into view from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from stylize_video.steady import News

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]

MOST_NEW = 0.2  # share of the picture, by adding up what each frame shows that the one before does not


class Pace:
    """Watches the frames of a clip, (H, W, 3) in uint8, small, for what is new in each."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._new: list[float] = []

    def watch(self, frames: Iterator[Array]) -> Iterator[Array]:
        last = None
        for frame in frames:
            self._new.append(1.0 if last is None else News.between(frame, last, self._flow).unseen)
            yield frame
            last = frame

    def painted(self, shots: Sequence[range], every: int) -> tuple[int, ...]:
        """The frames to paint: the first and the last of each shot, and between them ``every``-th ones, or more where
        :data:`MOST_NEW` would be new."""
        return tuple(number for shot in shots for number in self._of(shot, every))

    def _of(self, shot: range, every: int) -> Iterator[int]:
        yield shot.start
        last, new = shot.start, 0.0
        for number in shot[1:]:
            new += self._new[number]
            if new > MOST_NEW and number - 1 > last:
                last, new = number - 1, self._new[number]
                yield last
            if new > MOST_NEW or number - last == every or number == shot[-1]:
                last, new = number, 0.0
                yield last
