"""What local training costs, counted: forward multiply–accumulates of every image of every step.

A backward pass takes about twice as many again, in every method alike, and is not counted.
"""


def training_macs(macs: int, examples: int, epochs: int, batch_size: int) -> int:
    """Return the MACs of training a network of ``macs`` for some epochs; images that fill no batch are left out."""
    return macs * batch_size * epochs * (examples // batch_size)
