"""An optimizer's steps as a CUDA graph: recorded once, then launched as a whole.

A step is hundreds of operations. On small pictures each takes less time than its launch, and the GPU waits for the
host; a graph launches all of them at once. Steps can be recorded because they never wait for the GPU and take all
their decisions there (:mod:`stylize.optimizer`).
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

from stylize.optimizer import Optimizer

log = logging.getLogger(__name__)

WARM_UP = 2  # steps before one is recorded: the first differs, and in the second libraries set themselves up
FEWEST = 6  # steps of a scale for which recording one pays
LARGEST = 2**23  # pixels: on larger pictures launches take no time beside the work, and a graph keeps its own memory
FREED = 2**30  # bytes of unused memory from which on it is given back before a step is recorded

_set_up: set[tuple[type[Optimizer], torch.device]] = set()  # by a step recorded before: one to warm up will do


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream to record on: libraries keep tens of MB for every stream they have been used on."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class RecordedStep:
    """``optimizer.step()``, after a few calls as a graph; ``report`` is the optimizer's after the last call.

    Between calls the optimizer's tensors stay where they are in memory, so that they can be read as before. Where a
    step cannot be recorded, the log says why and steps go on one by one.
    """

    def __init__(self, optimizer: Optimizer, steps: int) -> None:
        image = optimizer.image
        self._optimizer = optimizer
        self._graph: torch.cuda.CUDAGraph | None = None
        self._report: Tensor | None = None
        self._calls = 0
        self._warm_up = WARM_UP - ((type(optimizer), image.device) in _set_up)
        self._wanted = image.is_cuda and steps >= FEWEST and image.shape[2] * image.shape[3] <= LARGEST

    def __call__(self) -> None:
        """One step."""
        self._calls += 1
        if self._wanted and self._calls > self._warm_up:
            self._wanted = False
            self._record()
        if self._graph is None:
            self._optimizer.step()
        else:
            self._graph.replay()

    @property
    def report(self) -> Tensor:
        return self._optimizer.report if self._report is None else self._report

    def _record(self) -> None:
        optimizer, device = self._optimizer, self._optimizer.image.device
        before = {name: value for name, value in vars(optimizer).items() if isinstance(value, Tensor)}
        if torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) > FREED:
            torch.cuda.empty_cache()  # a graph cannot use it
        graph, stream = torch.cuda.CUDAGraph(), _stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        try:
            with torch.cuda.stream(stream):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    optimizer.step()
                    after = {name: getattr(optimizer, name) for name in before}
                    for name, value in after.items():
                        if value is not before[name]:
                            before[name].copy_(value)
                    vars(optimizer).update(before)
                    report = optimizer.report
                finally:
                    graph.capture_end()
        except Exception as error:  # a plugin's, too: if it is more than the recording, the next step raises it
            log.info("steps are not recorded as a CUDA graph: %s", str(error).partition("\n")[0])
        else:
            self._graph, self._report = graph, report
            _set_up.add((type(optimizer), device))
        finally:
            vars(optimizer).update(before)
        torch.cuda.current_stream(device).wait_stream(stream)
