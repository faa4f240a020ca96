"""Compute of local training: the forward multiply–accumulates (MACs) of every image of every step.

A backward pass takes about twice as many more. That holds for every method, so it is not counted.
"""


def training_macs(macs: int, examples: int, epochs: int, batch_size: int) -> int:
    """Return the forward MACs of some epochs, with ``macs`` for one image; images that fill no batch are left out."""
    return macs * batch_size * epochs * (examples // batch_size)
