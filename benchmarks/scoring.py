"""Speed of the fitness, beside one architecture at a time: prints one table, with the machine it was measured on."""

import argparse
import time

import numpy as np
from results import Results
from rich.console import Console

from fedpareto.fitness.score import score
from fedpareto.supernet.genes import random_genes
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space

SPACES = ("resnet-cifar", "mobilenet-cifar", "mobilenet-tiny")


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, allow_abbrev=False).parse_args()
    table = Results("fedpareto", "numpy")
    for name in SPACES:
        vectorised, single = fitness_rates(load_space(name))
        table.add(
            f"cost + fitness, {name}, one core",
            f"{vectorised:,.0f} architectures/s, {vectorised / single:,.0f}x one at a time ({single:,.0f}/s)",
            "300,000/s (on resnet-cifar)",
        )
    Console(width=130).print(table)


def fitness_rates(space: SearchSpace, count: int = 40_000) -> tuple[float, float]:
    """Return architectures a second, all at once and one at a time."""
    genes = random_genes(space, count, np.random.default_rng(0))
    score(space, genes[:1000])
    alone = genes[:200]
    best_vectorised, best_single = 0.0, 0.0
    for _ in range(3):
        started = time.perf_counter()
        score(space, genes)
        best_vectorised = max(best_vectorised, count / (time.perf_counter() - started))
        started = time.perf_counter()
        for vector in alone:
            score(space, vector)
        best_single = max(best_single, len(alone) / (time.perf_counter() - started))
    return best_vectorised, best_single


if __name__ == "__main__":
    main()
