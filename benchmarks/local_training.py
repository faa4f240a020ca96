"""Rates of local training, measured in short passes: the plain loop's, and ours in rounds in miniature."""

import dataclasses
import time
from collections.abc import Callable, Iterator

import torch
from memory import peak_memory, reset_peak
from plain_loop import PlainLoop

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.networks.weights import Tensors, views
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.aggregation.weighted_average import WeightedAverage
from fedpareto.training.clients.cuda_graphs import Recorder
from fedpareto.training.clients.trainer import LocalRecipe
from fedpareto.training.data.images import ImageSet
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import Task


class Plain:
    """The plain loop on one client after another."""

    def __init__(self, entry: CacheEntry, recipe: LocalRecipe, device: torch.device) -> None:
        self._loop = PlainLoop(entry.architecture, recipe, device)
        self._batch, self._device = recipe.config.batch, device
        self._side = entry.architecture.resolution
        self._normalisation = recipe.normalisation

    def rate(self, steps: int) -> float:
        """Return images a second over ``steps`` steps."""
        data = noise(steps * self._batch, torch.device("cpu"), self._side)
        return self._timed(lambda: self._loop.train(data), len(data))

    def prepared_rate(self, steps: int) -> float:
        """Return images a second over ``steps`` steps where the normalised images lie on the device already."""
        data = noise(steps * self._batch, self._device, self._side)
        images = self._normalisation.apply(data.loaded())
        return self._timed(lambda: self._loop.train_prepared(images, data.labels), len(data))

    def _timed(self, work: Callable[[], object], images: int) -> float:
        synchronize(self._device)
        started = time.perf_counter()
        work()
        synchronize(self._device)
        return images / (time.perf_counter() - started)


@dataclasses.dataclass(frozen=True)
class Pass:
    """Images a second; of a round in miniature also its share outside SGD, and the bytes in use at their peak."""

    rate: float
    outside: float = 0.0
    peak: int = 0


class Ours:
    """Rounds of as many clients as train at once: extraction, local training, checks, fold and merge.

    Args:
        entry: the network.
        recipe: the local training.
        profile: how it is computed.
        tensors: the supernet's, which every round changes.
        steps: most local steps of a client.
        recorder: makes what records a trainer's steps; CUDA graphs when left out.
    """

    def __init__(
        self,
        entry: CacheEntry,
        recipe: LocalRecipe,
        profile: Profile,
        tensors: Tensors,
        steps: int,
        recorder: Callable[[], Recorder] | None = None,
    ) -> None:
        self._entry, self._space, self._tensors = entry, recipe.space, tensors
        self._clients, self._batch = profile.workers, recipe.config.batch
        self._device = next(iter(tensors.values())).device
        size = steps * self._batch
        data = noise(self._clients * size, self._device, entry.architecture.resolution)
        members = list(torch.arange(len(data), device=self._device).view(self._clients, size))
        self._steps, self._fold = steps, WeightedAverage(self._space, tensors)
        reset_peak(self._device)
        self._engine = InProcessEngine(data, members, recipe, profile, recorder)

    def run(self, steps: int | None = None) -> Pass:
        """Run one round, of all steps or of so many; the first one builds networks and records their steps.

        Raises:
            OutOfMemoryError: the clients do not fit into the device's memory.
        """
        steps = self._steps if steps is None else steps
        started = time.perf_counter()
        weights = dict.fromkeys(range(self._clients), 1 / self._clients)
        plan = RoundPlan(1, 0.01, 0.5, dict.fromkeys(weights, self._entry), weights)
        answers = RoundResults(plan, self._fold, by_examples=False)
        for answer in self._engine.run(self._tasks(steps)):
            answers.take(answer)
        self._fold.write_mean(self._tensors)
        synchronize(self._device)
        seconds = time.perf_counter() - started
        images = self._clients * steps * self._batch
        return Pass(images / seconds, 1 - answers.sgd_seconds / seconds, peak_memory(self._device))

    def _tasks(self, steps: int) -> Iterator[Task]:
        architecture = self._entry.architecture
        for client in range(self._clients):
            sliced = views(self._space, self._tensors, architecture)
            yield Task(1, client, architecture, sliced, 1, 0.01, client, steps=steps)


def synchronize(device: torch.device) -> None:
    """Wait for all that a device has been asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def noise(count: int, device: torch.device, side: int = 32) -> ImageSet:
    """Return random images of 10 classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels.to(device), (torch.arange(count) % 10).to(device), tuple("0123456789"))


def on_device(tensors: Tensors, device: torch.device, profile: Profile) -> Tensors:
    """Return a supernet's tensors on a device, in the profile's memory format."""
    return {
        name: tensor.to(device, memory_format=profile.torch_format if tensor.ndim == 4 else torch.preserve_format)
        for name, tensor in tensors.items()
    }
