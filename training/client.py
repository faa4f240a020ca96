"""A client's local training: SGD on its own images, from the server's slices to its update."""

import dataclasses
import time

import torch
from torch import nn

from supernet.space import SearchSpace
from supernet.weights import network_with
from training.config import ClientConfig
from training.data.augment import Augmentation
from training.data.batches import training_batches
from training.data.images import ImageSet, Normalisation
from training.messages import Task, Update


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What all clients share: the space, the local training and how images are prepared."""

    space: SearchSpace
    config: ClientConfig
    augmentation: Augmentation
    normalisation: Normalisation


def train_client(task: Task, data: ImageSet, recipe: Recipe) -> Update:
    """Train ``task``'s subnet on ``data`` and return its tensors.

    The task's tensors are the client's own and may be overwritten. Deterministic for one machine, device and
    number of threads: every draw comes from the task's seed.
    """
    config, device = recipe.config, data.images.device
    tensors = {name: tensor.to(device) for name, tensor in task.tensors.items()}
    # oneDNN and cuDNN run small convolutions faster with the channels last.
    network = network_with(recipe.space, task.architecture, tensors).to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(network, config, task.learning_rate)
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    generator = torch.Generator().manual_seed(task.seed)
    loss = 0.0
    started = time.perf_counter()
    for _ in range(task.epochs):
        losses = []
        for images, labels in training_batches(
            data,
            config.batch,
            task.architecture.resolution,
            recipe.augmentation,
            recipe.normalisation,
            generator,
        ):
            optimizer.zero_grad(set_to_none=True)
            batch_loss = criterion(network(images), labels)
            batch_loss.backward()
            if config.clip:
                nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            optimizer.step()
            losses.append(batch_loss.detach())
        loss = torch.stack(losses).mean().item()
    seconds = time.perf_counter() - started
    trained = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return Update(task, trained, len(data), loss, seconds)


def make_optimizer(network: nn.Module, config: ClientConfig, lr: float) -> torch.optim.SGD:
    """Return SGD with weight decay on weights of two or more dimensions only."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum)
