"""Local steps as CUDA graphs: a step is recorded once and replayed for every batch, which saves launches of kernels."""

import threading
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import option
from fedpareto.training.clients.step import Step
from fedpareto.training.execution.out_of_memory import tells_of_memory
from fedpareto.training.local_objective import Logits
from fedpareto.training.messages import Task

#: Steps on a side stream before a capture, as torch's notes on CUDA graphs ask for.
_WARM_UP_STEPS = 3

# A process captures one graph at a time, and to begin waits for the whole device.
_CAPTURE = threading.Lock()


class RecordingError(UserError):
    """Error of a step that cannot be recorded; without a graph it may well run."""


class Recorder(Protocol):
    """Recorder: records work on a device once, so that it can be replayed as a whole."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        """Run and record ``work``; return its result and a function that replays it, which computes the result anew."""


class CudaRecorder:
    """Recorder of CUDA graphs on one stream; they share their scratch memory, since one runs at a time."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        """Capture ``work`` as a CUDA graph after it has run a few times."""
        for _ in range(_WARM_UP_STEPS):
            work()
        graph = torch.cuda.CUDAGraph()
        # Other workers go on using the device meanwhile, but do not capture.
        with (
            _CAPTURE,
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            result = work()
        return result, graph.replay


class CudaGraphStep:
    """Step that is recorded once for batches of one shape; a batch is copied in, then the record is replayed.

    Recording trains on the given tensors: whoever made the step fills weights and momentum afterwards.

    Args:
        step: the step that is recorded.
        images: memory of a batch of images.
        labels: memory of a batch of labels.
        recorder: recorder of the step.

    Raises:
        RecordingError: the device, or its driver, cannot record the step.
    """

    def __init__(self, step: Step, images: Tensor, labels: Tensor, recorder: Recorder) -> None:
        self._step, self._images, self._labels = step, images, labels
        # Counted where the step runs by itself: a replay passes its counter by.
        self._recorded_macs = self.macs = 0
        try:
            self._loss, self._replay = recorder.record(self._run)
        except RuntimeError as error:
            if tells_of_memory(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RecordingError(
                f"a step cannot be recorded as a graph ({reason}); add "
                f"{option('execution.graphs', 'false')} to do without"
            ) from error

    def begin(self, task: Task) -> None:
        """Forget everything of the client before, and begin the recorded step."""
        self._step.begin(task)
        self.macs = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step and return the mean loss; a batch of another shape is not replayed."""
        if images.shape != self._images.shape:
            before = self._step.macs
            loss = self._step(images, labels)
            self.macs += self._step.macs - before
            return loss
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._replay()
        self.macs += self._recorded_macs
        return self._loss.clone()

    @property
    def logits(self) -> Logits | None:
        """Logits of the recorded step."""
        return self._step.logits

    def _run(self) -> Tensor:
        before = self._step.macs
        loss = self._step(self._images, self._labels)
        self._recorded_macs = self._step.macs - before
        return loss
