"""Compute of local training: the forward multiply–accumulates (MACs) of every image of every step.

A backward pass takes about twice as many more. That holds for every method, so it is not counted.
"""

from fedpareto.training.data.batches import batch_of


def training_macs(macs: int, examples: int, epochs: int, batch_size: int) -> int:
    """Return the forward MACs of some epochs, with ``macs`` for one image; images that fill no batch are left out.

    Fewer images than a batch are one batch, of so many.
    """
    batch_size = batch_of(batch_size, examples)
    return macs * batch_size * epochs * (examples // batch_size)
