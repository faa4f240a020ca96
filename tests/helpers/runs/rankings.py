"""Networks with accuracies that are made up, for what ranks and fits."""

import json
from pathlib import Path

import numpy as np

from fedpareto.fitness.score import score
from fedpareto.search.ranking.measuring.bands import Band
from fedpareto.search.ranking.measuring.measured_sample import Sample
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import decode, random_genes
from fedpareto.supernet.space import SearchSpace

#: A fitness unlike that of any preset.
PLANTED = FitnessSettings(
    entropy_weights=(1.0,), kind_weights=(0.5, 0.0, 1.0), depth_penalty=3.0, width_penalty=0.5, block_penalty=80.0
)


def banded(space: SearchSpace, count: int, bands: int, seed: int = 0) -> tuple[IntArray, IntArray, tuple[Band, ...]]:
    """Random networks ordered by MACs, (N, genes), and in as many bands of equally many."""
    genes = random_genes(space, count, np.random.default_rng(seed))
    macs = score(space, genes).macs
    genes, macs = genes[np.argsort(macs)], np.sort(macs)
    band = np.arange(count) * bands // count
    return genes, band, tuple(Band(float(macs[band == b][0]), float(macs[band == b][-1])) for b in range(bands))


def planted(space: SearchSpace, count: int = 80, bands: int = 4, noise: float = 0.0, seed: int = 0) -> Sample:
    """A sample whose accuracies within each band rise with the planted fitness, and with noise."""
    genes, band, found = banded(space, count, bands, seed)
    fitness = score(space, genes, PLANTED).fitness
    shares = np.argsort(np.argsort(fitness)) / count
    accuracy = 0.3 + 0.4 * shares + noise * np.random.default_rng(seed + 1).normal(size=count)
    return Sample(space, genes, np.clip(accuracy, 0, 1), band, found)


def write_accuracies(path: Path, sample: Sample) -> Path:
    """Write a sample as a file of accuracies."""
    write_lines(path, sample.space, sample.genes, sample.accuracy)
    return path


def write_lines(path: Path, space: SearchSpace, genes: IntArray, accuracy: FloatArray) -> None:
    """Write networks with their accuracies as JSON Lines."""
    lines = [
        json.dumps({"architecture": decode(space, vector).to_json(), "accuracy": float(value)})
        for vector, value in zip(genes, accuracy, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
