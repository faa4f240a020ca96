"""Co-training's local step: a network and networks inside it on one batch, their gradients summed, one update.

It is the sandwich rule with in-place distillation (Yu and Huang, "Universally slimmable networks", 2019), within the
network that a client can run (FEAST, 2026).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import network_with
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.loss import ClientLoss
from fedpareto.training.clients.nested import NestedWeights
from fedpareto.training.clients.step import OptimizerStep, objective_of, runnable
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.execution.profile import Profile
from fedpareto.training.local_objective import CoTraining
from fedpareto.training.messages import Task


class InnerNetwork:
    """Network inside another one: its parameters are views of the other's, and its gradients are added to the other's.

    Args:
        space: the search space.
        architecture: the inner network.
        outer: the network around it, whose parameters have its names.
        profile: whether it is compiled.
    """

    def __init__(self, space: SearchSpace, architecture: Architecture, outer: nn.Module, profile: Profile) -> None:
        self._weights = NestedWeights(tensor_shapes(space, architecture), dict(outer.named_parameters()))
        self.resolution, self.macs = architecture.resolution, macs_of(space, architecture)
        self._network = network_with(space, architecture, self._weights.views()).train()
        self._run: Callable[[Tensor], Tensor] = runnable(self._network, profile)

    def __call__(self, images: Tensor) -> Tensor:
        """Map images of any side to logits; they are resized to the network's resolution."""
        if images.shape[-1] != self.resolution:
            side = (self.resolution, self.resolution)
            images = F.interpolate(images, size=side, mode="bilinear", antialias=True)
        return self._run(images)

    def push_gradients(self) -> None:
        """Add the gradients to the slices of the outer network's, and forget them."""
        self._weights.push_gradients(self._network.named_parameters())


class CoTrainingStep:
    """One step of co-training.

    Args:
        outer: the task's network, its parameters those of the optimizer.
        inner: function that returns the network of an architecture inside the outer one.
        macs: multiply–accumulates of the task's network.
        optimizer: updates the parameters.
        loss: loss of logits and labels.
        config: the local training, for the clipping of gradients.
        profile: precision, and whether networks are compiled.
        device: device of the networks and batches.
    """

    def __init__(
        self,
        outer: nn.Module,
        inner: Callable[[Architecture], InnerNetwork],
        macs: int,
        optimizer: torch.optim.Optimizer,
        loss: ClientLoss,
        config: ClientConfig,
        profile: Profile,
        device: torch.device,
    ) -> None:
        self._outer, self._inner, self._outer_macs, self._optimizer = outer, inner, macs, optimizer
        self._run = runnable(outer, profile)
        self._criterion = loss
        self._descent = OptimizerStep(optimizer, config.clip, profile, device)

    def begin(self, task: Task) -> None:
        """Forget everything of the client before; networks are drawn with the task's seed.

        Raises:
            TypeError: the task is not one of co-training.
        """
        self._descent.begin()
        self._objective = objective_of(task, CoTraining)
        self._networks = self._objective.networks_of_steps(task.seed)
        self.macs = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step and return the mean loss of the outer network."""
        self._optimizer.zero_grad(set_to_none=True)
        with self._descent.autocast():
            logits = self._run(images)
            loss = self._criterion(logits, labels)
        self._descent.backward(loss)
        self.macs += self._outer_macs
        targets = logits.detach()
        for architecture in next(self._networks):
            inner = self._inner(architecture)
            with self._descent.autocast():
                self._descent.backward(self._loss(inner(images), targets, labels))
            inner.push_gradients()
            self.macs += inner.macs
        self._descent.update(self._outer.parameters())
        return loss.detach()

    @property
    def logits(self) -> None:
        """No logits, as only weights are trained."""
        return None

    def _loss(self, logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
        share, temperature = self._objective.distillation, self._objective.temperature
        own = self._criterion(logits, labels)
        if not share:
            return own
        return (1 - share) * own + share * distillation_loss(logits, targets, temperature)


def distillation_loss(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return T²·KL(softmax(targets/T) ‖ softmax(logits/T)), the mean over rows of (N, classes) (Hinton et al. 2015)."""
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(targets.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
