"""Random generators of a run, each derived from (run seed, purpose, round, client …), in place of global generators."""

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed that depends on the run's seed and on the purpose of the draw."""
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def numpy_stream(seed: int, *path: str | int) -> np.random.Generator:
    """Return a generator of numpy for one purpose."""
    return np.random.default_rng(derive_seed(seed, *path))


def torch_stream(seed: int, *path: str | int) -> torch.Generator:
    """Return a generator of torch (on the CPU) for one purpose.

    It keeps only the low 32 bits of its seed, so that few draws are enough to find the seed: it is for nothing secret.
    """
    return torch.Generator().manual_seed(derive_seed(seed, *path))
