"""Latency tables of no device in particular."""

import json
from pathlib import Path

import numpy as np

from search.latency.names import block_names, distinct_names
from supernet.space import SearchSpace


def names_of(space: SearchSpace) -> list[str]:
    """Return the name of every block of a space, stems and heads included, each once."""
    return distinct_names(block_names(space))


def random_times(space: SearchSpace, seed: int = 0) -> dict[str, float]:
    """Return a time for every block of a space that has little to do with its MACs."""
    names = names_of(space)
    return dict(zip(names, np.random.default_rng(seed).uniform(0.1, 1.0, len(names)).tolist(), strict=True))


def write_table(path: Path, times: object) -> Path:
    path.write_text(json.dumps({"format": "fedpareto-latency-table", "version": 1, "blocks": times}))
    return path
