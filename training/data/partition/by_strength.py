"""Partition by compute: clients that can run larger networks get more images."""

from collections.abc import Sequence

import numpy as np

from fedpareto.supernet.arrays import FloatArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import option


def matched(parts: Sequence[list[int]], max_macs: Sequence[int | None]) -> list[list[int]]:
    """Match parts of the images to clients: the more MACs a client can run (None: any number), the larger its part."""
    strongest = sorted(range(len(max_macs)), key=lambda client: -(max_macs[client] or float("inf")))
    result: list[list[int]] = [[] for _ in max_macs]
    for client, part in zip(strongest, sorted(parts, key=len, reverse=True), strict=True):
        result[client] = part
    return result


def shares_of_images(max_macs: Sequence[int | None], gamma: float) -> FloatArray:
    """Share of the images for every client, ``b_i^γ / Σ b_j^γ`` with b the MACs it can run, (clients,).

    The shares add up to 1. FEAST (2026), "γ-allocation".

    Raises:
        UserError: a client has no limit on MACs.
    """
    limits = [macs for macs in max_macs if macs is not None]
    if len(limits) < len(max_macs):
        raise UserError(
            "clients.data is proportional to the MACs that clients can run, and not all have a limit on them; "
            f"give {option('clients.max-macs')}"
        )
    # Relative to the most: powers of MACs would lose digits.
    powers = (np.array(limits) / max(limits)) ** gamma
    shares: FloatArray = powers / powers.sum()
    return shares
