"""One step of SGD: forward, backward, clip, update; eagerly, or replayed as a graph."""

import threading
from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.clients.loss import ClientLoss
from fedpareto.training.config.run import ClientConfig
from fedpareto.training.execution.out_of_memory import tells_of_memory
from fedpareto.training.execution.profile import Profile

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

#: Steps on a side stream before a capture, as torch's notes on CUDA graphs ask for.
_WARM_UP_STEPS = 3

# A process captures one graph at a time, and to begin waits for the whole device.
_CAPTURE = threading.Lock()


class Step(Protocol):
    """Trains on one batch."""

    def begin(self) -> None:
        """Forget everything of the client before."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step on images (N, 3, side, side) and labels (N,) or (N, classes); return the mean loss."""


class OptimizerStep:
    """What steps of every kind share: precision, scaled gradients, clipping, the optimizer's update.

    Args:
        optimizer: updates the parameters.
        clip: largest norm of all gradients; 0 for none.
        profile: precision.
        device: where all of it is.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, clip: float, profile: Profile, device: torch.device) -> None:
        self._optimizer, self._clip, self._device = optimizer, clip, device.type
        self._dtype = _AUTOCAST.get(profile.precision)
        self._scaled = profile.precision == "fp16"
        self.begin()

    def begin(self) -> None:
        """Forget everything of the client before."""
        self._scaler = torch.amp.GradScaler(self._device, enabled=self._scaled)

    @property
    def scale(self) -> float:
        """What losses, and with them gradients, are multiplied by until the update; 1 but in fp16."""
        return self._scaler.get_scale()

    def autocast(self) -> torch.autocast:
        """Return the context that forward passes run in."""
        return torch.autocast(self._device, dtype=self._dtype, enabled=self._dtype is not None)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to the parameters' own."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self, parameters: Iterable[nn.Parameter]) -> None:
        """Clip the gradients of all ``parameters`` together and let the optimizer take its step."""
        if self._clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(parameters, self._clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()


class EagerStep:
    """A step whose operations run one after another.

    Args:
        network: the network, its parameters those of the optimizer.
        optimizer: updates them.
        loss: of logits and labels.
        config: clipping.
        profile: precision, and whether the network is compiled.
        device: where all of it is.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: ClientLoss,
        config: ClientConfig,
        profile: Profile,
        device: torch.device,
    ) -> None:
        self._network = network
        self._run = runnable(network, profile)
        self._optimizer = optimizer
        self._criterion = loss
        self._descent = OptimizerStep(optimizer, config.clip, profile, device)

    def begin(self) -> None:
        """Forget everything of the client before."""
        self._descent.begin()

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step; return the mean loss."""
        self._optimizer.zero_grad(set_to_none=True)
        with self._descent.autocast():
            loss = self._criterion(self._run(images), labels)
        self._descent.backward(loss)
        self._descent.update(self._network.parameters())
        return loss.detach()


class RecordingError(UserError):
    """A step that cannot be recorded; eagerly it may well run."""


class Recorder(Protocol):
    """Records work on a device once, to be replayed at once."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        """Run and record ``work``; return its result, which every call of the second value computes anew."""


class CudaRecorder:
    """Records CUDA graphs on one stream; all of them share their scratch memory, since one runs at a time."""

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
    """A step recorded once for batches of one shape; a batch is copied in, then the record is replayed.

    Recording trains on the given tensors: whoever made the step fills weights and momentum afterwards.

    Args:
        step: what is recorded.
        images: memory of a batch of images.
        labels: memory of a batch of labels.
        recorder: records.

    Raises:
        RecordingError: the device, or its driver, cannot.
    """

    def __init__(self, step: Step, images: Tensor, labels: Tensor, recorder: Recorder) -> None:
        self._step, self._images, self._labels = step, images, labels
        try:
            self._loss, self._replay = recorder.record(lambda: step(images, labels))
        except RuntimeError as error:
            if tells_of_memory(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RecordingError(
                f"a step cannot be recorded as a graph ({reason}); add --execution.graphs false to do without"
            ) from error

    def begin(self) -> None:
        """Forget everything of the client before."""
        self._step.begin()

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step; return the mean loss."""
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._replay()
        return self._loss.clone()


def runnable(network: nn.Module, profile: Profile) -> Callable[[Tensor], Tensor]:
    """Return what runs the network's forward pass: itself, on the profile's kernels, or compiled if it says so."""
    if profile.kernels == "numba":
        from fedpareto.training.kernels.layers import use_kernels  # noqa: PLC0415 - numba is an extra

        use_kernels(network)
    return _compiled(network) if profile.compiled else network


def _compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    # Every architecture is one more version of the same code, which dynamo would give up on after eight.
    torch._dynamo.config.recompile_limit = 1 << 20
    torch._dynamo.config.accumulated_recompile_limit = 1 << 20
    run: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False)
    return run
