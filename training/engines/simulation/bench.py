"""Bench that measures execution profiles: steps of one architecture are timed, on images of noise."""

import dataclasses
import time
from collections.abc import Sequence

import torch

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.networks.weights import Tensors, initial_tensors, views
from fedpareto.training.clients.cuda_graphs import RecordingError
from fedpareto.training.clients.trainer import LocalRecipe
from fedpareto.training.data.images import ImageSet
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import Task

#: A profile this much slower than the best is not measured again: by its first step, which builds kernels, or a later.
_HOPELESS_FIRST, _HOPELESS = 4.0, 1.2

#: A measured step takes about this many seconds, or has the least batch.
_STEP_SECONDS = 0.25
_LEAST_BATCH = 8

#: How often a profile is measured; the fastest counts.
_REPEATS = 3


class Stopwatch:
    """Stopwatch that times the work of an engine."""

    def now(self) -> float:
        """Return the seconds since some fixed moment."""
        return time.monotonic()

    def seconds(self, engine: InProcessEngine, tasks: Sequence[Task]) -> float:
        """Return the time that an engine takes for tasks, in seconds."""
        started = time.perf_counter()
        for _ in engine.run(tasks):
            pass
        return time.perf_counter() - started


#: Stopwatch of the seconds that really pass.
WALL_TIME = Stopwatch()


@dataclasses.dataclass(frozen=True)
class Bench:
    """Bench that times steps of one architecture, on images of noise.

    Attributes:
        recipe: recipe of the local training; its batch is what a step has.
        entry: the architecture, with its MACs.
        device: device that trains.
        tensors: tensors of a supernet, on the device.
        stopwatch: stopwatch that times the steps.
    """

    recipe: LocalRecipe
    entry: CacheEntry
    device: torch.device
    tensors: Tensors
    stopwatch: Stopwatch

    def rate(self, engine: InProcessEngine, workers: int) -> float:
        """Return images a second of one step on each of ``workers`` clients."""
        sliced = views(self.recipe.space, self.tensors, self.entry.architecture)
        tasks = [Task(1, client, self.entry.architecture, sliced, 1, 0.01, client) for client in range(workers)]
        return workers * self.recipe.config.batch / self.stopwatch.seconds(engine, tasks)

    def engine(self, profile: Profile) -> InProcessEngine:
        """Return an engine whose clients hold one batch each."""
        batch, space = self.recipe.config.batch, self.recipe.space
        shape = (batch, space.in_channels, space.resolutions[-1], space.resolutions[-1])
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(self.device)
        data = ImageSet(images, torch.arange(batch, device=self.device) % space.classes, ())
        members = [torch.arange(batch, device=self.device)] * profile.workers
        return InProcessEngine(data, members, self.recipe, profile)

    def rates(self, candidates: Sequence[Profile], listener: ProgressListener, deadline: float) -> dict[Profile, float]:
        """Return the images a second of every profile, measured in turns; 0 for one that fails, which is remarked.

        After the ``deadline``, in seconds of the stopwatch, nothing is measured more than twice.
        """
        engines: dict[Profile, InProcessEngine] = {}
        rates = dict.fromkeys(candidates, 0.0)
        for repeat in range(_REPEATS + 1):
            if repeat > 1 and self.stopwatch.now() > deadline:
                break
            for profile in candidates:
                slack = _HOPELESS_FIRST if repeat == 1 else _HOPELESS
                if repeat and (profile not in engines or rates[profile] * slack < max(rates.values())):
                    continue
                try:
                    engine = engines[profile] if repeat else self.engine(profile)
                    rate = self.rate(engine, profile.workers)
                except (OutOfMemoryError, RecordingError, RuntimeError) as error:
                    # What a device lacks shows as a RuntimeError of some kernel.
                    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                    listener.remark(f"{profile}: not possible here ({reason})")
                    engines.pop(profile, None)
                    rates[profile] = 0.0
                    continue
                engines[profile] = engine
                rates[profile] = max(rate, rates[profile])
        return rates


def bench_of(
    recipe: LocalRecipe, entry: CacheEntry, device: torch.device, threads: int, stopwatch: Stopwatch = WALL_TIME
) -> Bench:
    """Return a bench whose batch makes a step short, by steps on ``threads`` threads.

    Raises:
        UserError: not even a small batch fits into the device's memory.
    """
    drawn = initial_tensors(recipe.space, torch.Generator().manual_seed(0))
    tensors = {name: tensor.to(device) for name, tensor in drawn.items()}

    def bench(batch: int) -> Bench:
        config = dataclasses.replace(recipe.config, batch_size=batch, epochs=1)
        return Bench(dataclasses.replace(recipe, config=config), entry, device, tensors, stopwatch)

    least = bench(min(_LEAST_BATCH, recipe.config.batch))
    try:
        engine = least.engine(Profile(threads=threads))
        rate = max(least.rate(engine, 1) for _ in range(2))
    except OutOfMemoryError as error:
        raise UserError(
            f"out of memory on {device}: even a batch of {error.batch_size} of the network of "
            f"{format_quantity(entry.macs)} MACs does not fit; use a smaller space, or another {option('device')}"
        ) from error
    return bench(max(least.recipe.config.batch, min(recipe.config.batch, int(rate * _STEP_SECONDS))))
