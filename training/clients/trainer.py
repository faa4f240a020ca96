"""Local training of clients: SGD on a client's own images, from the slices of a task to the update of an answer."""

import dataclasses
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import Tensors, network_with
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.buffers import Buffers
from fedpareto.training.clients.cuda_graphs import CudaGraphStep, CudaRecorder, Recorder
from fedpareto.training.clients.local_steps import KEPT_NETWORKS, LocalModel, make_step
from fedpareto.training.clients.loss import ClientLoss
from fedpareto.training.clients.sgd import Sgd
from fedpareto.training.clients.step import Step
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.batches import Batches, batch_of
from fedpareto.training.data.images import ImageSet, Normalisation
from fedpareto.training.execution.out_of_memory import out_of_memory
from fedpareto.training.execution.profile import Profile
from fedpareto.training.local_objective import LocalObjective
from fedpareto.training.messages import Task, Update, tensor_bytes
from fedpareto.training.traffic import Traffic


@dataclasses.dataclass(frozen=True)
class LocalRecipe:
    """Recipe of local training that all clients share: the space, the settings and the preparation of images."""

    space: SearchSpace
    config: ClientConfig
    augmentation: Augmentation
    normalisation: Normalisation


@dataclasses.dataclass(frozen=True)
class _Built:
    """Network of one architecture on a trainer's memory, with its step for one kind of local objective."""

    weights: Tensors
    momentum: Tensors
    optimizer: torch.optim.SGD
    step: Step


class LocalTrainer:
    """Trainer of clients, one after another, in memory that the next client reuses.

    Args:
        recipe: the local training.
        profile: execution profile: precision, memory format, kernels.
        device: device that trains.
        recorder: recorder of steps that are replayed; CUDA graphs when left out.
    """

    def __init__(
        self, recipe: LocalRecipe, profile: Profile, device: torch.device, recorder: Recorder | None = None
    ) -> None:
        self._recipe, self._profile, self._device = recipe, profile, device
        layout = profile.torch_format
        self._weights = Buffers(recipe.space, device, layout)
        self._momentum = Buffers(recipe.space, device, layout)
        self._batches = Batches(
            recipe.config.batch, recipe.augmentation, recipe.normalisation, recipe.space.classes, layout
        )
        self._loss = ClientLoss(recipe.config, recipe.space.classes, device)
        self._built: OrderedDict[tuple[Architecture, type[LocalObjective]], _Built] = OrderedDict()
        self._stream = _stream(device)
        self._recorder = CudaRecorder(self._stream) if recorder is None and self._stream is not None else recorder

    def train(self, task: Task, data: ImageSet, cancelled: Callable[[], bool] = lambda: False) -> Update:
        """Train ``task``'s subnet on ``data`` and return its tensors, which the next call overwrites.

        Deterministic for one machine, device and profile: every draw comes from the task's seed. ``cancelled`` is
        asked before every step.

        Raises:
            OutOfMemoryError: the network and its batch do not fit.
            CancelledError: ``cancelled`` returned True.
        """
        with out_of_memory(task.architecture, self._recipe.config.batch, self._device), self._on_stream():
            return self._train(task, data, cancelled)

    def holds(self, architecture: Architecture, objective: type[LocalObjective]) -> bool:
        """Return True if the network of an architecture is built, and its step recorded."""
        return (architecture, objective) in self._built

    def _train(self, task: Task, data: ImageSet, cancelled: Callable[[], bool]) -> Update:
        built = self._network(task.architecture, type(task.objective))
        _fill(built, task)
        self._loss.begin(data.labels)
        generator = torch.Generator().manual_seed(task.seed)
        loss, taken = 0.0, 0
        started = time.monotonic()
        for _ in range(task.epochs):
            losses = []
            epoch = self._batches.epoch(data, task.architecture.resolution, generator)
            for images, labels in itertools.islice(epoch, None if task.steps is None else task.steps - taken):
                if cancelled():
                    raise CancelledError
                losses.append(built.step(images, labels))
            if not losses:
                break
            taken += len(losses)
            # Reading the loss waits for the device: the time is that of all steps.
            loss = torch.stack(losses).mean().item()
        # Many networks stay built; none may keep the memory of its gradients.
        built.optimizer.zero_grad(set_to_none=True)
        seconds, traffic = time.monotonic() - started, Traffic(*[tensor_bytes(built.weights)] * 2)
        compute = built.step.macs * batch_of(self._recipe.config.batch, len(data))
        return Update(task, built.weights, len(data), loss, started, seconds, traffic, compute, built.step.logits)

    def _on_stream(self) -> AbstractContextManager[object]:
        if self._stream is None:
            return nullcontext()
        # The server's tensors were written, and the last update was read, on the default stream.
        self._stream.wait_stream(torch.cuda.default_stream(self._device))
        return torch.cuda.stream(self._stream)

    def _network(self, architecture: Architecture, objective: type[LocalObjective]) -> _Built:
        key = (architecture, objective)
        built = self._built.pop(key, None) or self._build(architecture, objective)
        self._built[key] = built
        if len(self._built) > KEPT_NETWORKS:
            self._built.popitem(last=False)
        return built

    def _build(self, architecture: Architecture, objective: type[LocalObjective]) -> _Built:
        recipe = self._recipe
        graphs = self._profile.graphs and objective.same_every_step
        shapes = tensor_shapes(recipe.space, architecture)
        weights = self._weights.views(shapes)
        network = network_with(recipe.space, architecture, weights).train()
        momentum = self._momentum.views(shapes) if recipe.config.momentum else {}
        # A graph reads the learning rate where it was at its recording.
        rate = torch.zeros((), device=self._device) if graphs else 0.0
        optimizer = make_optimizer(network, recipe.config, rate, fused=self._profile.fused)
        for name, parameter in network.named_parameters():
            if momentum:
                optimizer.state[parameter]["momentum_buffer"] = momentum[name]
        model = LocalModel(
            recipe.space, architecture, network, optimizer, self._loss, recipe.config, self._profile, self._device
        )
        step = make_step(objective, model)
        if graphs:
            if self._recorder is None:
                raise ValueError(f"graphs are recorded on a GPU, not on {self._device}")
            step = CudaGraphStep(step, *self._batches.empty(architecture.resolution, self._device), self._recorder)
        return _Built(weights, momentum, optimizer, step)


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def make_optimizer(network: nn.Module, config: ClientConfig, lr: float | Tensor, *, fused: bool = False) -> Sgd:
    """Return SGD with weight decay on weights of two or more dimensions only, or with ``decay_all`` on everything."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": config.weight_decay if config.decay_all else 0.0},
    ]
    return Sgd(groups, lr=lr, momentum=config.momentum, fused=fused or None)


def _fill(built: _Built, task: Task) -> None:
    """Overwrite all state that the client before has left."""
    # One call for all: a copy by itself takes a GPU less time than Python takes to ask for it.
    torch._foreach_copy_([built.weights[name] for name in task.tensors], list(task.tensors.values()))
    if built.momentum:
        torch._foreach_zero_(list(built.momentum.values()))
    for group in built.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(task.learning_rate)
        else:
            group["lr"] = task.learning_rate
    built.step.begin(task)


def recipe_of(config: RunConfig, space: SearchSpace, normalisation: Normalisation) -> LocalRecipe:
    """Return the recipe of a run's local training."""
    return LocalRecipe(space, config.client, _augmentation(config.data), normalisation)


def _augmentation(data: DataConfig) -> Augmentation:
    return Augmentation(
        crop=data.crop or 0,
        flip=bool(data.flip),
        cutout=data.cutout or 0,
        randaugment=data.randaugment,
        magnitude=data.magnitude,
        mixup=data.mixup,
        cutmix=data.cutmix,
    )
