"""Local steps: the protocol of all of them, the update that they share, and the plain step of SGD."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from fedpareto.training.clients.loss import ClientLoss
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.execution.profile import Profile
from fedpareto.training.local_objective import LocalObjective, Logits
from fedpareto.training.messages import Task

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

Objective = TypeVar("Objective", bound=LocalObjective)


class Step(Protocol):
    """Local step: trains a task's network on one batch, whatever the task's local objective."""

    def begin(self, task: Task) -> None:
        """Forget everything of the client before, and take the local objective of a task.

        Raises:
            TypeError: the step is made for another local objective.
            UserError: the objective is not one for the task's architecture.
        """

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step on images (N, channels, side, side) and labels (N,) or (N, classes); return the mean loss."""

    @property
    def macs(self) -> int:
        """Forward multiply–accumulates of one image, summed over all steps since the task began."""

    @property
    def logits(self) -> Logits | None:
        """Logits that the objective trains beside the weights, as they are now; None where it has none."""


def objective_of(task: Task, kind: type[Objective]) -> Objective:
    """Local objective of a task, checked to be of one kind.

    Raises:
        TypeError: it is of another kind.
    """
    if not isinstance(task.objective, kind):
        raise TypeError(f"a step for {kind.kind}, and a task of {task.objective.kind}")
    return task.objective


class OptimizerStep:
    """Optimizer step, as all kinds of local steps share it: precision, scaled gradients, clipping, the update.

    Args:
        optimizer: updates the parameters.
        clip: largest norm of all gradients; 0 for none.
        profile: precision.
        device: device of the parameters and batches.
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
        """Factor of losses, and so of gradients, until the update; 1 except in fp16."""
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
    """Plain local step, whose operations run one after another.

    Args:
        network: the network, its parameters those of the optimizer.
        macs: its multiply–accumulates for one image.
        optimizer: updates them.
        loss: loss of logits and labels.
        config: the local training, for the clipping of gradients.
        profile: precision, and whether the network is compiled.
        device: device of the network and the batches.
    """

    def __init__(
        self,
        network: nn.Module,
        macs: int,
        optimizer: torch.optim.Optimizer,
        loss: ClientLoss,
        config: ClientConfig,
        profile: Profile,
        device: torch.device,
    ) -> None:
        self._network, self._macs = network, macs
        self.macs = 0
        self._run = runnable(network, profile)
        self._optimizer = optimizer
        self._criterion = loss
        self._descent = OptimizerStep(optimizer, config.clip, profile, device)

    def begin(self, task: Task) -> None:
        """Forget everything of the client before; the step is the same for every task."""
        del task
        self._descent.begin()
        self.macs = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step and return the mean loss."""
        self._optimizer.zero_grad(set_to_none=True)
        with self._descent.autocast():
            loss = self._criterion(self._run(images), labels)
        self._descent.backward(loss)
        self._descent.update(self._network.parameters())
        self.macs += self._macs
        return loss.detach()

    @property
    def logits(self) -> None:
        """No logits, as only weights are trained."""
        return None


def runnable(network: nn.Module, profile: Profile) -> Callable[[Tensor], Tensor]:
    """Return the function of a network's forward pass: the network, on numba's kernels or compiled if so chosen."""
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
