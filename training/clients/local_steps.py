"""Local steps by local objective: each objective of a client's training has a step of its own."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import torch

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.network import Network
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.cotraining import CoTrainingStep, InnerNetwork
from fedpareto.training.clients.loss import ClientLoss
from fedpareto.training.clients.path_sampling import PathSamplingStep
from fedpareto.training.clients.step import EagerStep, Step
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.execution.profile import Profile
from fedpareto.training.local_objective import CoTraining, LocalObjective, PathSampling, Standard

#: Networks that are kept built, for tasks and inside them; a cache of 60 entries fits.
KEPT_NETWORKS = 64


@dataclasses.dataclass(frozen=True)
class LocalModel:
    """Network that clients train one after another, with its optimizer, loss and settings.

    Attributes:
        space: the search space.
        architecture: the network.
        network: its module.
        optimizer: updates the module's parameters.
        loss: loss of logits and labels.
        config: the local training, for the clipping of gradients.
        profile: precision, and whether networks are compiled.
        device: device of the network and the batches.
    """

    space: SearchSpace
    architecture: Architecture
    network: Network
    optimizer: torch.optim.Optimizer
    loss: ClientLoss
    config: ClientConfig
    profile: Profile
    device: torch.device


def make_step(objective: type[LocalObjective], model: LocalModel) -> Step:
    """Local step of tasks with one kind of local objective, on the module of ``model``."""
    return _STEPS[objective](model)


def _eager(model: LocalModel) -> EagerStep:
    macs = macs_of(model.space, model.architecture)
    return EagerStep(model.network, macs, model.optimizer, model.loss, model.config, model.profile, model.device)


def _co_training(model: LocalModel) -> CoTrainingStep:
    @functools.lru_cache(maxsize=KEPT_NETWORKS)
    def inner(architecture: Architecture) -> InnerNetwork:
        return InnerNetwork(model.space, architecture, model.network, model.profile)

    macs = macs_of(model.space, model.architecture)
    return CoTrainingStep(
        model.network, inner, macs, model.optimizer, model.loss, model.config, model.profile, model.device
    )


def _path_sampling(model: LocalModel) -> PathSamplingStep:
    return PathSamplingStep(
        model.space,
        model.architecture,
        model.network,
        model.optimizer,
        model.loss,
        model.config,
        model.profile,
        model.device,
    )


_STEPS: Mapping[type[LocalObjective], Callable[[LocalModel], Step]] = {
    Standard: _eager,
    CoTraining: _co_training,
    PathSampling: _path_sampling,
}
