"""The clients of a federation: how many there are, how many train a round, and what each can run."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from supernet.errors import UserError
from supernet.units import format_bytes, format_quantity, parse_quantity


@dataclasses.dataclass(frozen=True)
class ClientsConfig:
    """The federation.

    Attributes:
        count: registered clients.
        per_round: clients drawn each round.
        max_macs: most MACs a client can run, e.g. [60M, 180M]; the list repeats over the clients.
        max_memory: most bytes of fp32 parameters and feature maps of one batch a client can hold, e.g.
            [64M, 1G]; the list repeats over the clients.
    """

    count: int = 20
    per_round: int = 8
    max_macs: tuple[str, ...] = ()
    max_memory: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1 or self.per_round < 1:
            raise UserError(
                f"clients.count is {self.count} and clients.per_round {self.per_round}; both must be at least 1"
            )
        if self.per_round > self.count:
            raise UserError(
                f"clients.per_round is {self.per_round}, more than the {self.count} clients of clients.count"
            )
        for text in (*self.max_macs, *self.max_memory):
            parse_quantity(text)


@dataclasses.dataclass(frozen=True)
class Capability:
    """What one client can run; None where it has no limit.

    Attributes:
        macs: most multiply–accumulates of one image.
        memory: most bytes of parameters and feature maps of one batch.
    """

    macs: int | None = None
    memory: int | None = None

    def runs(self, macs: int, memory: int) -> bool:
        """Return whether a network of these costs is within the client's limits."""
        return (self.macs is None or macs <= self.macs) and (self.memory is None or memory <= self.memory)

    def __str__(self) -> str:
        limits = []
        if self.macs is not None:
            limits.append(f"{format_quantity(self.macs)} MACs")
        if self.memory is not None:
            limits.append(format_bytes(self.memory))
        return " and ".join(limits) or "anything"


def capabilities(config: ClientsConfig) -> list[Capability]:
    """Return the capability of every client."""

    def limit(values: tuple[str, ...], client: int) -> int | None:
        return parse_quantity(values[client % len(values)]) if values else None

    return [
        Capability(limit(config.max_macs, client), limit(config.max_memory, client)) for client in range(config.count)
    ]


def draw_clients(available: Sequence[int], per_round: int, generator: np.random.Generator) -> list[int]:
    """Return ``per_round`` distinct clients of those available, or all of them, in random order."""
    drawn = generator.choice(len(available), size=min(per_round, len(available)), replace=False)
    return [available[index] for index in drawn]
