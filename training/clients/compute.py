"""What local training costs, counted: forward multiply–accumulates of every image of every step.

A backward pass takes about twice as many again, in every method alike, and is not counted.
"""

import functools

from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import encode
from fedpareto.supernet.space import SearchSpace


@functools.lru_cache(maxsize=4096)
def macs_of(space: SearchSpace, architecture: Architecture) -> int:
    """Return the multiply–accumulates of one image.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    return int(score(space, encode(space, architecture)).macs[0])


def training_macs(macs: int, examples: int, epochs: int, batch_size: int, steps: int | None = None) -> int:
    """Return the MACs of training a network of ``macs`` for some epochs, or for the first ``steps`` steps of them.

    Images that fill no batch are left out.
    """
    every = epochs * (examples // batch_size)
    return macs * batch_size * (every if steps is None else min(steps, every))
