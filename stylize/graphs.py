"""An optimizer's steps as a CUDA graph: recorded once, then launched as a whole.

A step is hundreds of operations. On small pictures each takes less time than its launch, and the GPU waits for the
host; a graph launches all of them at once. Steps can be recorded because they never wait for the GPU and take all
their decisions there (:mod:`stylize.optimizer`).
"""

from __future__ import annotations

import logging
import threading

import torch
from torch import Tensor

from stylize.optimizer import Optimizer
from stylize.streams import beside, join

log = logging.getLogger(__name__)

WARM_UP = 2  # steps before one is recorded: the first differs, and in the second libraries set themselves up
FEWEST = 6  # steps of a scale for which recording one pays
LARGEST = 2**23  # pixels: on larger pictures launches take no time beside the work, and a graph keeps its own memory
FREED = 2**28  # bytes of unused memory from which on it is given back before a step is recorded

# Where libraries are set up by a step recorded before: one step to warm up will do.
_set_up: set[tuple[object, ...]] = set()
_failed: set[torch.device] = set()  # what could not be recorded once is not tried again


class RecordedStep:
    """``optimizer.step()``, after a few calls as a graph; ``report`` is the optimizer's after the last call.

    Between calls the optimizer's tensors stay where they are in memory, so that they can be read as before. Where a
    step cannot be recorded, the log says why and steps go on one by one.

    Args:
        optimizer: not stepped yet.
        steps: how many are to come.
    """

    def __init__(self, optimizer: Optimizer, steps: int) -> None:
        image = optimizer.image
        self._optimizer = optimizer
        self._graph: torch.cuda.CUDAGraph | None = None
        self._report: Tensor | None = None
        self._calls = 0
        shapes = tuple(value.shape[:1] for value in vars(optimizer).values() if isinstance(value, Tensor))
        self._kind = type(optimizer), shapes, image.device, threading.get_ident()
        self._warm_up = WARM_UP - (self._kind in _set_up)
        pays = steps >= FEWEST and image.shape[2] * image.shape[3] <= LARGEST
        self._wanted = image.is_cuda and pays and image.device not in _failed

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
    def recorded(self) -> bool:
        """Whether steps are launched as a graph now."""
        return self._graph is not None

    @property
    def report(self) -> Tensor:
        return self._optimizer.report if self._report is None else self._report

    def _record(self) -> None:
        optimizer, device = self._optimizer, self._optimizer.image.device
        before = {name: value for name, value in vars(optimizer).items() if isinstance(value, Tensor)}
        try:
            if torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) > FREED:
                torch.cuda.empty_cache()  # a graph cannot use it
            with beside(device, "recording"):
                self._graph, self._report = self._captured(before)
            join(device, "recording")
        except Exception as error:  # a plugin's, too: if it is more than the recording, the next step raises it
            log.info("steps are not recorded as a CUDA graph: %s", str(error).partition("\n")[0])
            _failed.add(device)
        else:
            _set_up.add(self._kind)
        finally:
            vars(optimizer).update(before)

    def _captured(self, before: dict[str, Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A step as a graph that leaves what it computes in the tensors of ``before``, and its report."""
        optimizer, device = self._optimizer, self._optimizer.image.device
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            optimizer.step()
            after = {name: getattr(optimizer, name) for name in before}
            for name, value in after.items():
                if value is not before[name]:
                    before[name].copy_(value)
            vars(optimizer).update(before)
            report = optimizer.report
        finally:
            try:
                graph.capture_end()
            except Exception:
                # torch leaves its allocator recording then, which breaks all that follows
                torch._C._cuda_endAllocateToPool(device.index or 0, pool)
                torch._C._cuda_releasePool(device.index or 0, pool)
                raise
        return graph, report
