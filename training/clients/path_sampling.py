"""Local step of direct federated search: one path a step, drawn from logits that learn by the same backward pass.

Garg et al., "Direct Federated Neural Architecture Search" (2021), with the gradient of DSNAS (Hu et al., 2020): what
the block of slot l adds to its shortcut is multiplied by a gate g_l = 1, so that R_l = ∂L/∂g_l comes with the gradients
of the weights, and ∇α_l = R_l·(onehot_l − softmax(α_l)), which is the gradient of the loss with
g_l = p_l/stop_gradient(p_l), p_l the probability of what was drawn. A skipped slot adds nothing: its R is 0, and blocks
are weighed against that.

A gate on the sum of block and shortcut would tell nothing wherever a norm follows the next convolution: the norm takes
any factor out again, and R would be rounding. A block without shortcut has this problem while the next slot is skipped;
in MobileNet spaces it is the first block of a stage. Adam's ε keeps such an R from moving anything.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.network import Network
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.loss import ClientLoss
from fedpareto.training.clients.path_network import PathNetwork
from fedpareto.training.clients.paths import Path, Paths
from fedpareto.training.clients.step import OptimizerStep, objective_of
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.execution.profile import Profile
from fedpareto.training.local_objective import Logits, PathSampling
from fedpareto.training.messages import Task
from fedpareto.training.randomness import torch_stream

#: Of Adam on the logits, as in DSNAS.
_BETAS = (0.5, 0.999)

#: Far below gradients that mean something (1e-3 and more), far above rounding (1e-7), which Adam would scale up.
_EPSILON = 1e-5


class PathLogits:
    """Logits α of a client's open slots while it trains: paths are drawn from them, and Adam moves them.

    Adam's moments begin at 0.

    They are float64 and on the CPU, whatever device trains the weights.

    Args:
        paths: paths through the task's architecture.
        objective: the local objective, with the first values of the logits and their learning rate.
        seed: seed of the draws.

    Raises:
        UserError: the objective's logits are not those of the paths.
    """

    def __init__(self, paths: Paths, objective: PathSampling, seed: int) -> None:
        _check_lengths(paths, objective.logits)
        self._paths, self._objective, self._draws = paths, objective, torch_stream(seed, "paths")
        self._open = {
            number: nn.Parameter(torch.tensor(logits, dtype=torch.float64))
            for number, logits in enumerate(objective.logits)
            if logits is not None
        }
        rate = objective.learning_rate
        self._adam = torch.optim.Adam(self._open.values(), rate, _BETAS, _EPSILON) if self._open else None

    def draw(self) -> Path:
        """Draw a path; slots that are not open hold their largest block."""
        chosen = [slot.largest for slot in self._paths.slots]
        with torch.no_grad():
            for number, logits in self._open.items():
                chosen[number] = int(torch.multinomial(logits.softmax(0), 1, generator=self._draws))
        return self._paths.path(chosen)

    def gated(self, path: Path) -> list[int]:
        """Return the open slots that take part in a path."""
        return [number for number in self._open if path[number] is not None]

    def step(self, path: Path, gate_gradients: Mapping[int, float]) -> None:
        """Move the logits of the slots in a path by the gradients R of their gates, and all by the penalty.

        Slots outside the path have no gradient of the loss. Gradients that are not finite, as after an overflow of
        fp16, move nothing.
        """
        if self._adam is None or not all(map(math.isfinite, gate_gradients.values())):
            return
        self._adam.zero_grad(set_to_none=True)
        self._penalise()
        for number, gradient in gate_gradients.items():
            logits, choice = self._open[number], path[number]
            towards = -logits.detach().softmax(0)
            towards[choice] += 1
            own = gradient * towards
            logits.grad = own if logits.grad is None else logits.grad + own
        self._adam.step()

    def values(self) -> Logits:
        """Return the logits as they are now."""
        return tuple(
            tuple(self._open[number].tolist()) if number in self._open else None
            for number in range(len(self._paths.slots))
        )

    def _penalise(self) -> None:
        """Set the gradients of the penalty, λ·max(0, E − target) with E the expected multiply–accumulates."""
        if not self._objective.macs_penalty:
            return
        probabilities = [
            self._open[number].softmax(0) if number in self._open else None for number in range(len(self._paths.slots))
        ]
        excess = expected_macs(self._paths, probabilities) - self._objective.macs_target
        if excess > 0:
            (self._objective.macs_penalty * excess).backward()  # type: ignore[no-untyped-call]


def _check_lengths(paths: Paths, logits: Logits) -> None:
    choices = [len(slot.choices) for slot in paths.slots]
    given = [None if slot is None else len(slot) for slot in logits]
    if len(given) != len(choices) or any(one not in (None, most) for one, most in zip(given, choices, strict=True)):
        raise UserError(f"a job whose logits number {given}, for slots of its architecture with choices {choices}")


def expected_macs(paths: Paths, probabilities: Sequence[Tensor | None]) -> Tensor:
    """Return the expected multiply–accumulates of a path, by the probabilities of every slot's choices.

    A slot without probabilities holds its largest block. A slot counts with the probability that no slot before it ends
    the stage.
    """
    total = torch.tensor(float(paths.macs_around), dtype=torch.float64)
    for slot, own in zip(paths.slots, probabilities, strict=True):
        if slot.index == 0:
            reached = torch.ones((), dtype=torch.float64)
        if own is None:
            total = total + reached * slot.macs[slot.largest]
            continue
        total = total + reached * (own @ torch.tensor(slot.macs, dtype=torch.float64))
        if slot.choices[-1] is None:
            reached = reached * (1 - own[-1])
    return total


class PathSamplingStep:
    """One step of path sampling: the weights of one path by the optimizer, the logits by Adam, on the same batch.

    Args:
        space: the search space.
        architecture: the task's architecture, which contains all paths.
        network: its module, whose parameters are those of the optimizer.
        optimizer: updates them; tensors outside a step's path are left alone.
        loss: loss of logits and labels.
        config: the local training, for the clipping of the weights' gradients.
        profile: precision, and whether modules are compiled.
        device: device of the networks and batches.
    """

    def __init__(
        self,
        space: SearchSpace,
        architecture: Architecture,
        network: Network,
        optimizer: torch.optim.Optimizer,
        loss: ClientLoss,
        config: ClientConfig,
        profile: Profile,
        device: torch.device,
    ) -> None:
        self._weights, self._optimizer, self._device = network, optimizer, device
        self._network = PathNetwork(space, architecture, network, profile)
        self._criterion = loss
        self._descent = OptimizerStep(optimizer, config.clip, profile, device)

    def begin(self, task: Task) -> None:
        """Forget everything of the client before; paths are drawn with the task's seed.

        Raises:
            TypeError: the task is not one of path sampling.
            UserError: its logits are not those of the architecture.
        """
        self._descent.begin()
        self._logits = PathLogits(self._network.paths, objective_of(task, PathSampling), task.seed)
        self.macs = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step and return the mean loss of its path."""
        self._optimizer.zero_grad(set_to_none=True)
        path = self._logits.draw()
        gated = self._logits.gated(path)
        gates = torch.ones(len(gated), device=self._device, requires_grad=True)
        with self._descent.autocast():
            outputs = self._network(images, path, dict(zip(gated, gates.unbind(), strict=True)))
            loss = self._criterion(outputs, labels)
        self._descent.backward(loss)
        self._network.push_gradients()
        # Without a gradient where all of them are skipped.
        gradients = torch.zeros_like(gates) if gates.grad is None else gates.grad / self._descent.scale
        self._logits.step(path, dict(zip(gated, gradients.tolist(), strict=True)))
        self._descent.update(self._weights.parameters())
        self.macs += self._network.paths.macs(path)
        return loss.detach()

    @property
    def logits(self) -> Logits:
        """Logits as they are now."""
        return self._logits.values()
