"""Training steps on a GPU as CUDA graphs.

A step of a tiny model consists of hundreds of small kernels, and the GPU finishes each before
Python has launched the next. So the whole step, forward, backward and optimizers, is recorded once
for each shape of its inputs (`ops/fixed.py`) and then repeated with one call. While the GPU works,
the CPU prepares the next step's inputs.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from tinylm.ops.fixed import Shape
from tinylm.train.masking import StaticInputs


@dataclass(frozen=True)
class Recorded:
    """A step that can be repeated.

    Attributes:
        graph: of the step.
        inputs: what the graph reads, in memory that does not move.
        loss: what the graph writes.
    """

    graph: torch.cuda.CUDAGraph
    inputs: StaticInputs
    loss: Tensor


class Graphs:
    """Takes the steps of a run.

    Args:
        learn: a step on inputs that lie on the device; returns the loss.
        device: a GPU.
    """

    def __init__(self, learn: Callable[[StaticInputs], Tensor], device: torch.device) -> None:
        self.learn, self.device = learn, device
        # One stream and one pool for all: the recordings never run at the same time, so they
        # may use the same memory for what does not outlive a step.
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        self.recorded: dict[Shape, Recorded | None] = {}
        self.prepared: tuple[int, StaticInputs] | None = None

    def step(self, number: int, inputs_of: Callable[[int], StaticInputs]) -> Tensor:
        """Start step `number`, then prepare the next one's inputs; the loss may still be computing."""
        if self.prepared is None or self.prepared[0] != number:
            self.prepared = number, inputs_of(number).pinned()
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            loss = self._take(self.prepared[1])
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        self.prepared = number + 1, inputs_of(number + 1).pinned()
        return loss

    def _take(self, inputs: StaticInputs) -> Tensor:
        if inputs.shape not in self.recorded:
            # The first step of a shape runs without recording: libraries initialise themselves in it,
            # which a graph cannot record.
            self.recorded[inputs.shape] = None
            return self.learn(inputs.to(self.device))
        recorded = self.recorded[inputs.shape]
        if recorded is None:
            recorded = self.recorded[inputs.shape] = self._record(inputs)
        recorded.inputs.copy_(inputs)
        recorded.graph.replay()
        return recorded.loss.clone()  # the next repetition overwrites it, perhaps before it is read

    def _record(self, inputs: StaticInputs) -> Recorded:
        """Record the step without taking it."""
        graph, inputs = torch.cuda.CUDAGraph(), inputs.to(self.device)
        with _no_collection(), torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            loss = self.learn(inputs)
        return Recorded(graph, inputs, loss)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage now and not meanwhile.

    What an earlier run of this process left, its graphs and their memory, cannot be given back while a
    graph is recorded: that would spoil the recording, and every later one with it.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
