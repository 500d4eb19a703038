"""How a frame moved since one that is several frames away: composed of how each moved since the one before."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from stylize_video.flow import composed, is_thread_safe, refined

if TYPE_CHECKING:
    from stylize import Flow

Array = NDArray[Any]
Ways = tuple[Array, Array]  # the flows (H, W, 2) from a later frame to an earlier one, and from that to the later
Made = TypeVar("Made")

NEAR = 3  # frames over which composed flows are exact enough


class Chain:
    """The flows between frames, (H, W, 3) in uint8, each of which is found when it is first needed.

    Args:
        flow: by which they are found.
        contents: the frames, in order.
        workers: threads in which that is done, unless the flow bears none.
    """

    def __init__(self, flow: Flow, contents: Sequence[Array], workers: Executor | None) -> None:
        self._flow, self._contents = flow, contents
        self._workers = workers if is_thread_safe(flow) else None  # others may also take the memory of the device
        self._links = [partial(_ways, flow, now, before) for before, now in pairwise(contents)]
        self._found: dict[int, Callable[[], Ways]] = {}

    def between(self, later: int, earlier: int, use: Callable[[Ways], Made]) -> Callable[[], Made]:
        """What is made of the flows between two frames, by their numbers: in a thread, or when it is asked for."""
        links = [self._link(number) for number in range(earlier, later)]  # begun first: the other waits for them
        ends = self._contents[later], self._contents[earlier]
        return self._begun(partial(_used, use, self._flow, links, *ends))

    def _link(self, number: int) -> Callable[[], Ways]:
        if number not in self._found:
            self._found[number] = self._begun(self._links[number])
        return self._found[number]

    def _begun(self, find: Callable[[], Made]) -> Callable[[], Made]:
        return functools.cache(find) if self._workers is None else self._workers.submit(find).result


def _ways(flow: Flow, later: Array, earlier: Array) -> Ways:
    return flow(later, earlier), flow(earlier, later)


def _used(
    use: Callable[[Ways], Made], flow: Flow, links: Sequence[Callable[[], Ways]], later: Array, earlier: Array
) -> Made:
    back, forth = links[-1]()
    for link in reversed(links[:-1]):
        more_back, more_forth = link()
        back, forth = composed(back, more_back), composed(more_forth, forth)
    if len(links) > NEAR:
        back, forth = refined(flow, later, earlier, back), refined(flow, earlier, later, forth)
    return use((back, forth))
