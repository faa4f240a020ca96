"""Dry step: how long one step of local training takes here, of the largest network that a client's limits allow."""

import dataclasses

import numpy as np
import torch

from fedpareto.cache.entries import CacheEntry, make_entries
from fedpareto.fitness.score import score
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.genes import canonical, encode, random_genes, smallest_genes
from fedpareto.supernet.networks.weights import extract, initial_tensors
from fedpareto.supernet.slices import supernet_architecture
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.capabilities import Capability
from fedpareto.training.clients.trainer import LocalTrainer, recipe_of
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.images import ImageSet, Normalisation
from fedpareto.training.execution.device import resolve_device
from fedpareto.training.execution.profile import default_profile
from fedpareto.training.messages import Task
from fedpareto.training.preflight.findings import Finding

#: Networks that are drawn where the largest of the space is beyond the limits.
_DRAWN = 2000


@dataclasses.dataclass(frozen=True)
class Round:
    """Round that a client is to get through.

    Attributes:
        images: of the client; None where a run settles how many.
        epochs: passes over them.
        deadline: seconds that it has.
    """

    images: int | None
    epochs: int
    deadline: float


def largest_within(space: SearchSpace, limits: Capability, batch: int) -> CacheEntry | None:
    """Return the network of most MACs within a client's limits, of the largest and a draw; None if none is."""
    whole, smallest = encode(space, supernet_architecture(space)), smallest_genes(space)
    drawn = random_genes(space, _DRAWN, np.random.default_rng(0))
    genes = np.concatenate([whole[None], drawn, smallest[None]])
    macs = score(space, canonical(space, genes), space.fitness).macs
    for place in np.argsort(-macs, kind="stable"):
        if limits.macs is None or macs[place] <= limits.macs:
            (entry,) = make_entries(space, genes[place][None], space.fitness)
            if limits.runs(entry, batch):
                return entry
    return None


def dry_step(space: SearchSpace, entry: CacheEntry, batch: int, device: str, asked: Round) -> Finding:
    """Train one step on random pixels, and one before that is not timed; judge by it whether a round can be in time.

    Raises:
        UserError: the machine has no such device.
        OutOfMemoryError: the network and its batch do not fit.
    """
    place, side = resolve_device(device), space.resolutions[-1]
    config = RunConfig(client=ClientConfig(batch_size=batch))
    flat = Normalisation((0.5,) * space.in_channels, (0.25,) * space.in_channels)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (batch, space.in_channels, side, side), generator=generator, dtype=torch.uint8)
    classes = tuple(str(label) for label in range(space.classes))
    images = ImageSet(pixels, torch.arange(batch) % space.classes, classes).on(place)
    trainer = LocalTrainer(recipe_of(config, space, flat), default_profile("fp32", config.execution), place)
    tensors = extract(space, initial_tensors(space, generator), entry.architecture)
    task = Task(1, 0, entry.architecture, tensors, epochs=1, learning_rate=0.01, seed=0, steps=1)
    trainer.train(task, images)
    seconds = trainer.train(task, images).sgd_seconds
    found = (
        f"{seconds:.3g} s for {counted(batch, 'image')} in a network of {format_quantity(entry.macs)} MACs on {place}"
    )
    if asked.images is None:
        return Finding("dry step", found)
    steps = max(asked.images // batch, 1) * asked.epochs
    found += (
        f"; about {seconds * steps:,.0f} s for {counted(asked.epochs, 'epoch')} of {counted(asked.images, 'image')}"
    )
    if seconds * steps > asked.deadline:
        remedy = f"beyond the deadline of {asked.deadline:g} s: ask for a lower --clients.max-macs, or a later deadline"
        return Finding("dry step", found, "failed", remedy)
    return Finding("dry step", found)
