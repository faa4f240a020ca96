"""The simulated federation that all methods of the benchmark of a GPU train in."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from gpu_study import Contest
from torch import Tensor

from fedpareto.cache.entries import CacheEntry, evenly_spaced, make_entries
from fedpareto.cache.exact.frontier import exact_frontier
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.networks.weights import Tensors, initial_tensors
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space
from fedpareto.training.clients.capabilities import capabilities
from fedpareto.training.clients.cuda_graphs import Recorder
from fedpareto.training.clients.trainer import recipe_of
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.images import ImageSet, Normalisation, normalisation_of
from fedpareto.training.data.partition.partition import partition
from fedpareto.training.data.split import validation_split
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.evaluation.evaluator import Evaluator
from fedpareto.training.execution.profile import Profile
from fedpareto.training.methods.protocol import MethodContext
from fedpareto.training.randomness import numpy_stream, torch_stream

#: Networks of the curriculum. Every trainer records a step of each: more of them would not be repaid in minutes.
ENTRIES = 6

#: Images that are tested on at least.
LEAST_TEST = 256

#: So many rounds each method should have; a slow device trains on fewer images for it.
LEAST_ROUNDS = 30

#: Of a method's time, kept for the evaluation on test images.
EVALUATION_SHARE = 0.12

#: Batches that every client has on average at least; where there are fewer images there are fewer clients.
_LEAST_BATCHES = 4


@dataclasses.dataclass(frozen=True)
class Images:
    """Training and test images, in the memory of the CPU."""

    train: ImageSet
    test: ImageSet


@dataclasses.dataclass(frozen=True)
class Federated:
    """A federation of simulated clients; methods change none of it.

    Attributes:
        space: the search space.
        entries: networks of the curriculum by ascending MACs.
        budgets: MACs of the networks that are tested, ascending.
        clients: how many there are; fewer than the study's where the images are few.
        train: the training images, on the device that trains.
        members: positions of every client's images in them.
        labels: how many images of each class every client has, (clients, classes).
        normalisation: of all clients' images.
        validation: evaluates as training goes.
        test: evaluates at the end.
    """

    space: SearchSpace
    entries: Sequence[CacheEntry]
    budgets: Sequence[int]
    clients: int
    train: ImageSet
    members: Sequence[Tensor]
    labels: IntArray
    normalisation: Normalisation
    validation: Evaluator
    test: Evaluator

    def engine(self, config: RunConfig, profile: Profile, recorder: Callable[[], Recorder] | None) -> InProcessEngine:
        """Return what trains the clients of a method's run."""
        recipe = recipe_of(config, self.space, self.normalisation)
        return InProcessEngine(self.train, self.members, recipe, profile, recorder)

    def ground(self, config: RunConfig) -> MethodContext:
        """Return what the method of a run decides with."""
        clients = capabilities(config.clients, self.space, config.seed)
        return MethodContext(config, self.space, self.entries, clients, self.labels)

    def initial(self, config: RunConfig) -> Tensors:
        """Return the supernet that every method begins with, on the CPU."""
        return initial_tensors(self.space, torch_stream(config.seed, "initialisation"))


def federation(contest: Contest, images: Images, device: torch.device) -> Federated:
    """Return the federation of a study: its clients, spread over the training images, a share of which is held out.

    Raises:
        UserError: there are too few images.
    """
    config, budgets = contest.config, contest.budgets
    space = load_space(config.space).adapted(classes=len(images.train.classes))
    share = config.data.validation_share
    training, held_out = validation_split(images.train, share, torch_stream(config.seed, "validation"))
    members = [training[torch.tensor(part)] for part in _parts(config, images.train.labels[training])]
    normalisation = normalisation_of(images.train.subset(training))
    drawn = training[torch.randperm(len(training), generator=torch_stream(config.seed, "calibration"))]
    # Where few images are tested on, more to calibrate with would take longer than the test.
    calibration = drawn[: min(config.evaluation.calibration_images, max(LEAST_TEST, len(images.test)))]

    def evaluator(measured: ImageSet) -> Evaluator:
        chosen = images.train.subset(calibration).on(device)
        return Evaluator(space, chosen, measured.on(device), normalisation, config.evaluation.batch_size)

    labels = images.train.labels
    return Federated(
        space=space,
        entries=entries_of(space, budgets),
        budgets=budgets,
        clients=len(members),
        train=images.train.on(device),
        members=members,
        labels=np.stack([np.bincount(labels[part].numpy(), minlength=space.classes) for part in members]),
        normalisation=normalisation,
        validation=evaluator(images.train.subset(held_out)),
        test=evaluator(images.test),
    )


def _parts(config: RunConfig, labels: Tensor) -> list[list[int]]:
    """Return the positions of every client's labels."""
    batch = config.client.batch
    clients = min(config.clients.count, len(labels) // (_LEAST_BATCHES * batch))
    if clients < 2:
        raise UserError(f"{counted(len(labels), 'image')} are too few for two clients at batch {batch}")
    return partition(labels.tolist(), clients, config.partition, batch, numpy_stream(config.seed, "partition"))


def fitted(contest: Contest, images: Images, trainable: float) -> Images:
    """Return as many of the images as a device is fast enough for, which can train on so many within its time.

    There are enough for rounds of every method, each client with four batches at least, and for the evaluations.
    """
    clients, own = contest.config.clients, trainable / len(contest.trials)
    a_round = int(own / LEAST_ROUNDS)
    least = _LEAST_BATCHES * contest.config.client.batch * clients.count
    to_train = max(a_round * clients.count // clients.per_round, least)
    to_test = max(LEAST_TEST, int(own * EVALUATION_SHARE / 2))
    return Images(*(_drawn(each, count) for each, count in ((images.train, to_train), (images.test, to_test))))


def _drawn(images: ImageSet, count: int) -> ImageSet:
    """Return so many of the images, drawn at random, or all."""
    return images.subset(torch.randperm(len(images), generator=torch_stream(0, "images"))[:count])


def entries_of(space: SearchSpace, budgets: Sequence[int]) -> list[CacheEntry]:
    """Return the curriculum: entries spread over the frontier, with the fittest within every budget."""
    frontier = exact_frontier(space, space.fitness.for_cache())
    within = [frontier.best_within(budget) for budget in budgets]
    chosen = {int(index) for index in evenly_spaced(frontier.macs, max(2, ENTRIES - len(budgets)))}
    chosen |= {index for index in within if index is not None}
    return make_entries(space, frontier.genes[sorted(chosen)], frontier.fitness)
