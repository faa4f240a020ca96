"""A federated training of mobilenet-cifar that ends with its time, and what it reached."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from gpu_rates import Manner, set_kernels
from gpu_report import Accuracy, Point, Training
from local_training import on_device
from time_share import Until, cut_after

from cache.entries import Entry, make_entries, spread
from cache.frontier import exact_frontier
from supernet.errors import UserError
from supernet.layouts import IntArray
from supernet.space import SearchSpace, load_space
from supernet.weights import Tensors, initial_tensors
from supernet.words import counted
from training.capabilities import capabilities
from training.checkpoint_state import RunState
from training.client import Recipe
from training.clients import ClientsConfig
from training.config import CheckpointConfig, ClientConfig, EvaluationConfig, RunConfig, config_to_mapping
from training.curriculum import Counts
from training.data.augment import Augmentation
from training.data.images import ImageSet, normalisation_of
from training.data.split import validation_split
from training.engines.in_process import InProcessEngine
from training.engines.protocol import Stopped
from training.evaluation import Evaluator
from training.execution import Profile
from training.extent import extent
from training.methods.protocol import Ground
from training.methods.table import make_method
from training.randomness import numpy_stream, torch_stream
from training.records import LostRound, RoundRecord
from training.rounds import Run, train
from training.step import Recorder

SPACE = "mobilenet-cifar"
BUDGETS = (25_000_000, 60_000_000, 150_000_000)

#: Networks of the curriculum. Every trainer records a step of each: more of them would not be repaid in minutes.
ENTRIES = 6

CLIENTS, PER_ROUND, ALPHA = 20, 8, 1.0
RATE = 0.05

#: Share of the images that are held out for the curve, and how many points it has about.
VALIDATION, POINTS = 0.05, 8

#: Rounds after which it is planned anew how many there will be; the first ones also build networks.
PLANNED_AT = (3, 10, 30, 100, 300, 1000)

#: Images that are tested on at least, and calibrated with at most.
LEAST_TEST, MOST_CALIBRATION = 256, 1024

#: So many rounds there should be; a slow device trains on fewer images for it.
LEAST_ROUNDS = 30

#: Until the first round has been timed.
_MANY_ROUNDS = 100_000

#: Of the time, kept for the evaluation on test images.
_EVALUATION_SHARE = 0.12

_MOST_DRAWS = 1000


@dataclasses.dataclass(frozen=True)
class Images:
    """Training and test images, in the memory of the CPU."""

    train: ImageSet
    test: ImageSet


@dataclasses.dataclass(frozen=True)
class Federated:
    """A federation of simulated clients, and what it trains.

    Attributes:
        space: the search space.
        entries: networks of the curriculum by ascending MACs.
        config: of the run; its number of rounds is planned as it goes.
        labels: how many images of each class every client has, (clients, classes).
        engine: trains.
        validation: evaluates as training goes.
        test: evaluates at the end.
    """

    space: SearchSpace
    entries: Sequence[Entry]
    config: RunConfig
    labels: IntArray
    engine: InProcessEngine
    validation: Evaluator
    test: Evaluator


class Diary:
    """A tracker that remembers the rounds, and when each was done."""

    def __init__(self) -> None:
        self.records: list[RoundRecord] = []
        self.times: list[float] = []

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Another client has answered."""

    def round_done(self, record: RoundRecord) -> None:
        """Remember a round."""
        # The round of an evaluation that was owed is told of twice.
        if self.records and self.records[-1].round == record.round:
            self.records.pop()
            self.times.pop()
        self.records.append(record)
        self.times.append(time.monotonic())

    def round_lost(self, record: LostRound) -> None:
        """A round was not merged."""

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """A checkpoint was written."""

    def close(self) -> None:
        """The run ended."""


class _LeftInTime:
    """Leaves the training of clients, and evaluations, when the time is used up."""

    def __init__(self, until: Until) -> None:
        self._until = until

    def training(self) -> AbstractContextManager[None]:
        return cut_after(self._until.left, Stopped)

    def evaluating(self) -> AbstractContextManager[None]:
        return cut_after(self._until.left, Stopped)


def trained(
    images: Images,
    device: torch.device,
    profile: Profile,
    batch: int,
    recorder: Callable[[], Recorder] | None,
    until: Until,
) -> Training:
    """Train until the time is nearly used up, then measure what there is; raises nothing when time runs out.

    Raises:
        UserError: there are too few images, or training diverged.
    """
    set_kernels(Manner("ours", profile))
    federated = federation(images, device, profile, batch, recorder)
    tensors = on_device(initial_tensors(federated.space, torch_stream(0, "initialisation")), device, profile)
    started, diary = time.monotonic(), Diary()
    _train(federated, tensors, diary, Until(started + until.left * (1 - _EVALUATION_SHARE)))
    seconds = time.monotonic() - started
    found = Training(
        profile=str(profile),
        clients=federated.config.clients.count,
        per_round=federated.config.clients.per_round,
        rounds=len(diary.records),
        images=sum(client.get("examples", 0) for record in diary.records for client in record.clients),
        seconds=seconds,
        test_images=len(images.test),
        outside_sgd=_outside(diary.records),
        curve=tuple(
            Point(record.round, moment - started, record.mean_accuracy)
            for record, moment in zip(diary.records, diary.times, strict=True)
            if record.mean_accuracy is not None
        ),
    )
    return dataclasses.replace(found, accuracies=tuple(_accuracies(federated, tensors, until)))


def _outside(records: Sequence[RoundRecord]) -> float:
    seconds = sum(record.seconds for record in records)
    return 1 - sum(record.sgd_seconds for record in records) / seconds if seconds else 0.0


def _train(federated: Federated, tensors: Tensors, diary: Diary, until: Until) -> None:
    """Train until shortly before the time is used up; the learning rate falls to its end by then."""
    config = dataclasses.replace(federated.config, rounds=_MANY_ROUNDS)
    state = RunState(0, Counts.zero(config.clients.count), (0,) * len(federated.entries))
    with tempfile.TemporaryDirectory() as folder:
        for planned in (*PLANNED_AT, _MANY_ROUNDS):
            run = _run(federated, config, Path(folder), diary, until, planned)
            state = train(run, state, tensors, None)
            if extent(config, state).finished or state.round < planned or not _another_fits(diary, until):
                return
            config = _replanned(config, state.round, diary, until)


def _replanned(config: RunConfig, done: int, diary: Diary, until: Until) -> RunConfig:
    """Return the configuration with as many rounds as the time is enough for."""
    rounds = done + max(1, int(until.left / _seconds_of_a_round(diary)))
    evaluation = dataclasses.replace(config.evaluation, every=max(1, rounds // POINTS))
    return dataclasses.replace(config, rounds=rounds, evaluation=evaluation)


def _another_fits(diary: Diary, until: Until) -> bool:
    return not diary.records or until.left > _seconds_of_a_round(diary)


def _seconds_of_a_round(diary: Diary) -> float:
    """Return what a round takes, by the last ones: early ones build networks."""
    last = diary.records[-3:]
    return max(1e-3, sum(record.seconds + record.evaluation_seconds for record in last) / len(last))


def _run(federated: Federated, config: RunConfig, folder: Path, diary: Diary, until: Until, planned: int) -> Run:
    """Return a run that stops after the round ``planned``, or when no other fits into the time."""

    def should_stop() -> bool:
        return len(diary.records) + 1 >= planned or not _another_fits(diary, until)

    ground = Ground(
        config, federated.space, federated.entries, capabilities(config.clients, federated.space, 0), federated.labels
    )
    return Run(
        folder=folder,
        config=config,
        config_mapping=config_to_mapping(config),
        space=federated.space,
        entries=federated.entries,
        method=make_method(ground),
        engine=federated.engine,
        evaluator=federated.validation,
        tracker=diary,
        should_stop=should_stop,
        interruptible=_LeftInTime(until),
    )


def _accuracies(federated: Federated, tensors: Tensors, until: Until) -> list[Accuracy]:
    """Return test accuracies at the budgets, of as many as there is time for."""
    found: list[Accuracy] = []
    for budget in BUDGETS:
        within = [entry for entry in federated.entries if entry.macs <= budget]
        if not within:
            continue
        try:
            with cut_after(until.left, Stopped):
                (probe,) = federated.test.probe(tensors, within[-1:]).probes
        except Stopped:
            break
        found.append(Accuracy(budget, probe.macs, probe.accuracy))
    return found


def fitted(images: Images, batch: int, trainable: float) -> Images:
    """Return as many of the images as a device is fast enough for, which can train on so many within its time.

    There are enough for rounds, each client with four batches at least, and for the evaluations at the end.
    """
    a_round = int(trainable / LEAST_ROUNDS)
    to_train = max(a_round * CLIENTS // PER_ROUND, 4 * batch * CLIENTS)
    to_test = max(LEAST_TEST, int(trainable * _EVALUATION_SHARE / 2))
    return Images(drawn(images.train, to_train), drawn(images.test, to_test))


def drawn(images: ImageSet, count: int) -> ImageSet:
    """Return so many of the images, drawn at random, or all."""
    return images.subset(torch.randperm(len(images), generator=torch_stream(0, "images"))[:count])


def federation(
    images: Images, device: torch.device, profile: Profile, batch: int, recorder: Callable[[], Recorder] | None
) -> Federated:
    """Return the federation: Dirichlet clients of the training images, a share of which is held out.

    Raises:
        UserError: there are too few images.
    """
    space = load_space(SPACE).adapted(classes=len(images.train.classes))
    training, held_out = validation_split(images.train, VALIDATION, torch_stream(0, "validation"))
    clients = min(CLIENTS, len(training) // (4 * batch))
    if clients < 2:
        raise UserError(f"{counted(len(training), 'image')} are too few for two clients at batch {batch}")
    labels = images.train.labels
    parts = dirichlet(labels[training].numpy(), clients, batch, numpy_stream(0, "partition"))
    members = [training[torch.from_numpy(part)] for part in parts]
    normalisation = normalisation_of(images.train.subset(training))
    config = RunConfig(
        space=SPACE,
        precision=profile.precision,
        clients=ClientsConfig(count=clients, per_round=min(PER_ROUND, clients)),
        client=ClientConfig(epochs=1, batch_size=batch, lr=RATE),
        evaluation=EvaluationConfig(_MANY_ROUNDS, 3, min(MOST_CALIBRATION, max(LEAST_TEST, len(images.test)))),
        checkpoint=CheckpointConfig(every=_MANY_ROUNDS, keep=1),
        execution=profile.chosen(),
    )
    recipe = Recipe(space, config.client, Augmentation(crop=4, flip=True), normalisation)
    drawn = training[torch.randperm(len(training), generator=torch_stream(0, "calibration"))]
    calibration = images.train.subset(drawn[: config.evaluation.calibration_images]).on(device)
    evaluated_at_once = config.evaluation.batch_size
    return Federated(
        space,
        entries_of(space),
        config,
        np.stack([np.bincount(labels[part].numpy(), minlength=space.classes) for part in members]),
        InProcessEngine(images.train.on(device), members, recipe, profile, recorder),
        Evaluator(space, calibration, images.train.subset(held_out).on(device), normalisation, evaluated_at_once),
        Evaluator(space, calibration, images.test.on(device), normalisation, evaluated_at_once),
    )


def entries_of(space: SearchSpace) -> list[Entry]:
    """Return the curriculum: entries spread over the frontier, with the fittest within every budget."""
    frontier = exact_frontier(space, space.fitness.for_cache())
    within = [frontier.best_within(budget) for budget in BUDGETS]
    chosen = {int(index) for index in spread(frontier.macs, ENTRIES - len(BUDGETS))}
    chosen |= {index for index in within if index is not None}
    return make_entries(space, frontier.genes[sorted(chosen)], frontier.fitness)


def dirichlet(labels: IntArray, clients: int, least: int, generator: np.random.Generator) -> list[IntArray]:
    """Return the positions of every client's labels, each class spread by a Dirichlet draw (Hsu et al., 2019).

    Raises:
        UserError: in many draws some client always had fewer than ``least``.
    """
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(_MOST_DRAWS):
        parts: list[list[IntArray]] = [[] for _ in range(clients)]
        for positions in by_class:
            shares = generator.dirichlet([ALPHA] * clients)
            edges = (np.cumsum(shares)[:-1] * len(positions)).astype(int)
            for part, given in zip(parts, np.split(generator.permutation(positions), edges), strict=True):
                part.append(given)
        joined = [np.sort(np.concatenate(part)) for part in parts]
        if min(map(len, joined)) >= least:
            return joined
    raise UserError(
        f"cannot spread {counted(len(labels), 'image')} over {counted(clients, 'client')} with {least} each; "
        "take more images, or a lower --batch"
    )
