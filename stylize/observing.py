"""What an observer sees of a picture while it is painted."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass

from torch import Tensor

Snapshot = Callable[[], Tensor]


@dataclass(frozen=True)
class Step:
    """What an observer sees after an iteration.

    ``scale`` counts from 1 to ``scales``, coarse to fine, ``number`` from 1 to at most ``steps`` within it; ``terms``
    are the weighted addends of ``total``; ``retries`` counts the trials in a row that were taken back, the last of
    them because of NaN or inf where ``finite`` is false; ``seconds`` since the picture was begun.
    """

    scale: int
    scales: int
    height: int
    width: int
    number: int
    steps: int
    total: float
    terms: Mapping[str, float]
    retries: int
    finite: bool
    seconds: float
    snapshot: InitVar[weakref.ref[Snapshot] | None] = None  # weak, so that stored steps do not keep pictures alive

    def __post_init__(self, snapshot: weakref.ref[Snapshot] | None) -> None:
        vars(self)["snapshot"] = snapshot or (lambda: None)

    def image(self) -> Tensor:
        """The picture as it is now, (1, 3, H, W) sRGB in [0, 1] on the CPU, in its final colours, at its scale's size.

        It is computed on request, in any thread; only then does the host wait for a GPU.

        Raises:
            LookupError: its scale is done.
        """
        snapshot: Snapshot | None = vars(self)["snapshot"]()
        if snapshot is None:
            raise LookupError("the picture of a step can be seen while its scale is painted")
        return snapshot()


Observer = Callable[[Step], object]
