"""What plugins and the core agree on: a job's frames and chains, what was painted, and who paints it.

A plugin author needs this file and :mod:`stylize.hookspecs`. Nothing here imports torch.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from stylize.claims import Claims
    from stylize.executors import Run
    from stylize.host import Host
    from stylize.images import Picture
    from stylize.masks import Mask
    from stylize.objective import Term
    from stylize.optimizer import Curvature
    from stylize.regions import Region
    from stylize.settings import Settings
    from stylize.stylizer import Stylizer

hookimpl = pluggy.HookimplMarker("stylize")


class Flow(Protocol):
    """An optical flow engine: from two pictures (H, W, 3) in uint8, (H, W, 2) in float32: by how many pixels to the
    right and down each pixel of the first lies elsewhere in the second."""

    def __call__(self, one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]: ...


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture to paint.

    ``name`` is for messages; ``init``, (1, 3, H, W) in [0, 1], where to begin if not as set; ``steps``, at full size
    alone, if it is nearly there already; ``curvature``, of the frame before, is replaced by that of this one; ``terms``
    are added to the loss. ``styles`` is what to paint it in, a tuple of pictures (several are blended, by
    ``style_weights``), if not as the command line says: the same tuple for every frame of a style, so that its
    statistics are computed once. ``number``
    counts from 1 to ``total``, which is None where the job cannot know it. ``mask`` is what is painted, if not
    all; ``regions`` are parts with styles of their own. ``data`` is the job's own. A ``copied`` frame needs no
    painting, as the job has its result already: observers are told of it, and it is neither painted nor written.
    """

    name: str
    image: Picture
    init: Tensor | None = None
    steps: int | None = None
    curvature: Curvature | None = None
    terms: Sequence[Term] = ()
    styles: tuple[Picture, ...] = ()
    style_weights: tuple[float, ...] = ()
    number: int = 1
    total: int | None = 1
    data: Mapping[str, Any] = field(default_factory=dict)
    copied: bool = False
    mask: Mask | None = None
    regions: Sequence[Region] = ()


@dataclass(frozen=True, eq=False)
class Painted:
    """What became of a frame.

    ``picture`` carries its record; ``steps`` counts the gradient steps over all scales; ``seconds`` is the time they
    took, from the start of this frame; ``terms`` holds the last value of each weighted term of the loss by its name.
    ``stopped`` is True where the run was stopped before the frame was finished: the picture is then as far as it got.
    """

    picture: Picture
    steps: int = 0
    seconds: float = 0.0
    terms: Mapping[str, float] = field(default_factory=dict)
    stopped: bool = False


@dataclass(frozen=True)
class Chain:
    """Frames that are painted in order, each written before the next is asked for, so that one may start from the
    last. Chains are independent of each other: they can be painted in any order and in any process.

    ``key`` tells a chain from the others of its job and is the same in every run. ``data`` is the job's own, and must
    be picklable.
    """

    key: str
    data: Any = None


class Job(abc.ABC):
    """What to paint, and where the results go. A class derived from it needs only :meth:`frames` and :meth:`write`.

    One process calls :meth:`begin`, :meth:`chains` and :meth:`finish`. Where several paint, each of the others opens a
    job of its own from the same :class:`Request`, calls :meth:`begin` and then :meth:`frames`, :meth:`write` and
    :meth:`outcome` for the chains it is given, one at a time; :meth:`collect` gets the outcomes in the first process.
    What a job of several chains keeps for :meth:`finish` must go that way; a job of one chain is painted in the process
    that finishes it, and may keep what it likes.
    """

    styles: tuple[Picture, ...] = ()  # what to paint in, if that is not simply what the command line names
    mixed: bool = False  # whether it opens sources of other plugins, so that their options apply, too
    poll: float | None = None  # seconds after which chains() is called again, until the run is stopped; None: never
    claims: Claims | None = None  # how runs that share this work agree on who paints which chain; closed by the run
    request: Request | None = None  # what the job was opened from: other processes open it again

    def begin(self, stylizer: Stylizer) -> None:
        """Called once in every process that takes part, before anything else."""
        return

    def chains(self) -> Iterator[Chain]:
        """The chains still to be painted, lazily: one alone unless a job says otherwise."""
        yield Chain("")

    @abc.abstractmethod
    def frames(self, chain: Chain) -> Iterator[Frame]:
        """The frames of a chain that are still to be painted, lazily; none if another run has painted them."""

    @abc.abstractmethod
    def write(self, frame: Frame, painted: Painted) -> None:
        """Take the result of a frame."""

    def failed(self, chain: Chain, error: Exception) -> None:
        """What to do when a frame could not be painted or written, or the process that painted the chain died: raise
        to end the run, or return to go on with what follows."""
        raise error

    def outcome(self, chain: Chain) -> Any:
        """What there is to tell of a chain after its last frame: any picklable value, or a future of one where its
        results are still being written. The chain is claimed until then."""
        return None

    def held(self, chain: Chain) -> None:
        """Another run is painting a chain, which is tried again later. What follows may lie anywhere else in the work,
        so that runs do not follow each other."""
        return

    def collect(self, chain: Chain, outcome: Any) -> None:
        """Take the outcome of a chain, wherever it was painted."""
        return

    def finish(self) -> Path | None:
        """Close the job, when all is painted or it was stopped early; where the result lies, if in one place."""
        return None


class Executor(abc.ABC):
    """Paints the chains of a job: one after the other here, or elsewhere."""

    @abc.abstractmethod
    def paint(self, run: Run) -> None:
        """Paint every chain of ``run``, until it is stopped.

        Raises:
            StylizeError: what ends the run.
        """

    def prepare(self) -> None:
        """Start what :meth:`paint` needs later. Called, if at all, first of all in a program, while that has one thread
        and has not loaded PyTorch: processes can then be forked that share it."""
        return

    def close(self) -> None:
        """End what :meth:`prepare` started, whether it was needed or not."""
        return


@dataclass(frozen=True)
class Request:
    """What a job is opened from, in values that can be sent to another process.

    ``source``, ``styles`` and ``target`` are paths; ``options`` holds the values of all options of the command line,
    by name: what a plugin does not find there has its default.
    """

    source: Path
    styles: tuple[Path, ...]
    target: Path | None
    settings: Settings
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, host: Host) -> Job:
        """The job that the first plugin to know the source makes of it.

        Raises:
            StylizeError: what is wrong with the request, or no plugin opens the source.
            PluginError: a plugin failed, or gave something else.
        """
        return host.open(self.source, self.styles, self.target, self.settings, self.options)

    def stylizer(self, job: Job, host: Host, progress: Callable[[int, int | None], None] | None = None) -> Stylizer:
        """The stylizer to paint the job with; ``progress`` is called while weights are downloaded."""
        from stylize.stylizer import Stylizer

        return Stylizer(
            job.styles or self.styles,
            self.settings,
            encoders=host.encoders(),
            color_modes=host.color_modes(),
            weights=self.options.get("weights"),
            progress=progress,
        )
