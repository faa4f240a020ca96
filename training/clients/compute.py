"""What local training costs, counted: forward multiply–accumulates of every image of every step.

A backward pass takes about twice as many again, in every method alike, and is not counted.
"""


def training_macs(macs: int, examples: int, epochs: int, batch_size: int, steps: int | None = None) -> int:
    """Return the MACs of training a network of ``macs`` for some epochs, or for the first ``steps`` steps of them.

    Images that fill no batch are left out.
    """
    every = epochs * (examples // batch_size)
    return macs * batch_size * (every if steps is None else min(steps, every))
