"""Whole rounds in memory: random images on a few clients, a tracker that remembers, an engine that spoils updates."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import decode, random_genes, smallest_genes
from fedpareto.supernet.networks.weights import Tensors, extract, initial_tensors
from fedpareto.supernet.slices import supernet_architecture
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.capabilities import capabilities
from fedpareto.training.clients.trainer import LocalRecipe, LocalTrainer
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.config.methods import DecNasConfig
from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.images import ImageSet
from fedpareto.training.engines.protocol import Engine
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.evaluation.evaluator import Evaluator
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import Failure, Task, Update
from fedpareto.training.methods.protocol import MethodContext
from fedpareto.training.methods.registry import make_method
from fedpareto.training.privacy.key import KEY_BYTES
from fedpareto.training.privacy.ledger import RELEASES, Ledger, new_ledger, read_ledger
from fedpareto.training.rounds.loop import train
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import Counts, RunState
from fedpareto.training.trackers.records import LostRound, RoundRecord
from helpers.runs.federation import MICRO, NORMALISATION, micro_cache, random_images

#: Images of every simulated client: two batches of 8 and an incomplete one.
IMAGES_A_CLIENT = 20


def smallest(space: SearchSpace = MICRO) -> Architecture:
    return decode(space, smallest_genes(space))


def largest(space: SearchSpace = MICRO) -> Architecture:
    return supernet_architecture(space)


def random_architectures(count: int, seed: int = 0, space: SearchSpace = MICRO) -> list[Architecture]:
    return [decode(space, genes) for genes in random_genes(space, count, np.random.default_rng(seed))]


def random_tensors(seed: int = 0, space: SearchSpace = MICRO) -> Tensors:
    """Return supernet tensors whose norms and biases are random too, so that no two entries are alike."""
    generator = torch.Generator().manual_seed(seed)
    tensors = initial_tensors(space, generator)
    return {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) if tensor.ndim == 1 else tensor
        for name, tensor in tensors.items()
    }


def micro_task(
    architecture: Architecture | None = None,
    tensors: Tensors | None = None,
    space: SearchSpace = MICRO,
    **fields: Any,
) -> Task:
    """Return a task of one epoch on the slices of ``architecture`` (the largest) in ``tensors``."""
    architecture = architecture or largest(space)
    sliced = extract(space, random_tensors(0, space) if tensors is None else tensors, architecture)
    chosen = {"round": 1, "client": 0, "epochs": 1, "learning_rate": 0.05, "seed": 7, **fields}
    return Task(architecture=architecture, tensors=sliced, **chosen)


def train_client(task: Task, data: ImageSet, recipe: LocalRecipe, profile: Profile | None = None) -> Update:
    """Train one client with memory of its own."""
    return LocalTrainer(recipe, profile or Profile(), torch.device("cpu")).train(task, data)


@functools.cache
def micro_entries() -> tuple[CacheEntry, ...]:
    return micro_cache().entries


class Recorder:
    """A tracker that remembers what it was told."""

    def __init__(self) -> None:
        self.clients: list[tuple[int, int, int]] = []
        self.records: list[RoundRecord] = []
        self.lost: list[LostRound] = []
        self.checkpoints: list[tuple[str, list[str]]] = []
        self.closed = 0

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        self.clients.append((round_number, done, clients))

    def round_done(self, record: RoundRecord) -> None:
        self.records.append(record)

    def round_lost(self, record: LostRound) -> None:
        self.lost.append(record)

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        self.checkpoints.append((folder.name, list(aliases)))

    def close(self) -> None:
        self.closed += 1


def own_memory(update: Update) -> Update:
    """Return an update that outlives the engine's reuse of its memory."""
    return dataclasses.replace(update, tensors={name: tensor.clone() for name, tensor in update.tensors.items()})


class WrappedEngine:
    """Has the clients of another engine; what becomes of their answers says a subclass."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    def available(self) -> Sequence[int]:
        return self._inner.available()

    def examples(self, client: int) -> int:
        return self._inner.examples(client)


class SpoilingEngine(WrappedEngine):
    """Trains as another engine does, then passes every update through ``spoil``; remembers the true updates."""

    def __init__(self, inner: Engine, spoil: Callable[[Update], Update | Failure]) -> None:
        super().__init__(inner)
        self._spoil = spoil
        self.updates: list[Update] = []

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        for answer in self._inner.run(tasks):
            assert isinstance(answer, Update)
            self.updates.append(own_memory(answer))
            yield self._spoil(self.updates[-1])


class Start(NamedTuple):
    """What a simulated run begins with."""

    state: RunState
    models: Models


def short_config(**changes: Any) -> RunConfig:
    config = RunConfig(
        rounds=3,
        clients=ClientsConfig(count=5, per_round=3),
        client=ClientConfig(epochs=1, batch_size=8, lr=0.05),
        evaluation=EvaluationConfig(every=2, probes=2, calibration_images=16, batch_size=16),
        checkpoint=CheckpointConfig(every=1, keep=2),
        decnas=DecNasConfig(budget="110K", step=0.1, least_rounds=1, most_rounds=2),
    )
    return dataclasses.replace(config, **changes)


def simulated_run(
    folder: Path, config: RunConfig | None = None, *, profile: Profile | None = None, **fields: Any
) -> Run:
    """Return a run of random images in equal parts; ``fields`` replace those of the run."""
    config = config or short_config()
    entries = micro_entries()
    data = random_images(config.clients.count * IMAGES_A_CLIENT, seed=1)
    parts = list(torch.arange(len(data)).view(config.clients.count, IMAGES_A_CLIENT))
    recipe = LocalRecipe(MICRO, config.client, Augmentation(crop=1, flip=True), NORMALISATION)
    held_out = random_images(24, seed=2)
    labels = np.stack([np.bincount(data.labels[part], minlength=4) for part in parts])
    clients = capabilities(config.clients, MICRO, config.seed)
    run = Run(
        folder=folder,
        config=config,
        config_mapping=config_to_mapping(config),
        space=MICRO,
        entries=entries,
        method=make_method(MethodContext(config, MICRO, entries, clients, labels)),
        engine=InProcessEngine(data, parts, recipe, profile or Profile()),
        evaluator=Evaluator(
            MICRO, data.subset(torch.arange(16)), held_out, NORMALISATION, config.evaluation.batch_size
        ),
        tracker=Recorder(),
        ledger=_ledger(folder, fields.pop("noise_key"), config) if "noise_key" in fields else None,
    )
    return dataclasses.replace(run, **fields)


def _ledger(folder: Path, key: int, config: RunConfig) -> Ledger:
    """Return the ledger in a folder, as it is, or a new one."""
    path, secret = folder / RELEASES, key.to_bytes(KEY_BYTES)
    if path.exists():
        return read_ledger(path, secret)
    folder.mkdir(parents=True, exist_ok=True)
    return new_ledger(path, secret, "a run", config.clients.count)


def spoiled_run(
    folder: Path, spoil: Callable[[Update], Update | Failure], config: RunConfig | None = None, **fields: Any
) -> tuple[Run, SpoilingEngine]:
    run = simulated_run(folder, config, **fields)
    engine = SpoilingEngine(run.engine, spoil)
    return dataclasses.replace(run, engine=engine), engine


def fresh_start(run: Run) -> Start:
    tensors = initial_tensors(run.space, torch.Generator().manual_seed(run.config.seed))
    momentum = run.config.server.momentum
    velocity = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()} if momentum else None
    state = RunState(0, Counts.zero(run.config.clients.count), (0,) * len(run.entries))
    return Start(state, Models(tensors, velocity))


def recorder(run: Run) -> Recorder:
    assert isinstance(run.tracker, Recorder)
    return run.tracker


def same_bytes(first: Tensors, second: Tensors) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def train_run(run: Run) -> tuple[RunState, Tensors]:
    start = fresh_start(run)
    return train(run, *start), start.models.supernet


def checkpoint_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def unspoiled(update: Update) -> Update:
    return update


def entry_of(update: Update) -> CacheEntry:
    (entry,) = [entry for entry in micro_entries() if entry.architecture == update.task.architecture]
    return entry
