"""The clients of a federation: how many there are, how many train a round, what is said of what each can run."""

import dataclasses
from typing import Literal

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import parse_milliseconds, parse_quantity
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.config.bounds import bounded, check_bounds

MacsDistribution = Literal["listed", "tiers", "uniform", "zipf", "zipf-ranks"]

DataAmounts = Literal["independent", "matched", "proportional", "pooled"]


#: Registered clients of a configuration that does not say; data of natural clients have a number of their own.
DEFAULT_COUNT = 20

#: Of Zipf's s: beyond it all clients have one limit.
_LARGEST_EXPONENT = 10.0


@dataclasses.dataclass(frozen=True)
class ClientsConfig:
    """The federation.

    Attributes:
        count: registered clients; when left out 20, and with partition.scheme natural as many as the data name.
        per_round: clients drawn each round.
        max_macs: most MACs a client can run, e.g. [60M, 180M]; macs_distribution says who gets which.
        max_memory: most bytes of fp32 parameters and feature maps of one batch a client can hold, e.g.
            [64M, 1G]; the list repeats over the clients.
        macs_distribution: listed (the values repeat over the clients), tiers (each client draws one of the values),
            uniform or zipf (each client draws from the range of the two values), or zipf-ranks (each draws one of as
            many levels as there are clients, evenly spaced over that range, the rth lowest as often as r^-s has it, and
            up to half a step beside it, as in FEAST).
        macs_exponent: s of zipf, whose density at c MACs falls as c^-s, and of zipf-ranks.
        macs_cap: no client is taken to run more MACs than this.
        max_latency: longest time of one image on a client, by latency_table, e.g. [5ms, 20ms]; the list repeats.
        latency_table: latency table of the clients' device.
        file: JSON Lines file with the macs, memory and latency of every client, in place of all these limits.
        data: independent of what a client can run; matched: the more images, the more MACs it can run; proportional: so
            many images as the power gamma of those MACs has it, with partition.scheme iid or dirichlet; or pooled: the
            first client has the images of all and trains alone, which is what a federation is compared with.
        gamma: of proportional; 0 for equal amounts, 1 for images in proportion to MACs.
        sampler: who takes part in a round: uniform (drawn without a preference), or the name of a registered one.
    """

    count: int = DEFAULT_COUNT
    per_round: int = 8
    max_macs: tuple[str, ...] = ()
    max_memory: tuple[str, ...] = ()
    macs_distribution: MacsDistribution = "listed"
    macs_exponent: float = bounded(1.2, least=-_LARGEST_EXPONENT, most=_LARGEST_EXPONENT)
    macs_cap: str | None = None
    max_latency: tuple[str, ...] = ()
    latency_table: str | None = None
    file: str | None = None
    data: DataAmounts = "independent"
    gamma: float = bounded(1.0, least=0, hint=" (0 for equal amounts)")
    sampler: str = "uniform"

    def __post_init__(self) -> None:
        if self.count < 1 or self.per_round < 1:
            raise UserError(
                f"clients.count is {self.count} and clients.per_round {self.per_round}; both must be at least 1"
            )
        # How many a configuration has that does not say is known where its partition is.
        if self.count != DEFAULT_COUNT:
            self.check_drawn()
        if self.data == "pooled" and self.per_round != 1:
            raise UserError(
                f"clients.per_round is {self.per_round} and clients.data pooled, where one client has all images; "
                "set clients.per_round to 1"
            )
        check_bounds(self, "clients")
        for text in (*self.max_macs, *self.max_memory, *([self.macs_cap] if self.macs_cap else [])):
            parse_quantity(text)
        for text in self.max_latency:
            parse_milliseconds(text)
        self._check_distribution()
        if bool(self.max_latency) != bool(self.latency_table) and self.file is None:
            lacks, has = ("latency_table", "max_latency") if self.max_latency else ("max_latency", "latency_table")
            raise UserError(f"clients.{has} is given without clients.{lacks}; a limit on latency needs both")
        if self.file is not None and (self.max_macs or self.max_memory or self.max_latency):
            raise UserError(f"clients.file is {self.file}, which holds all limits; leave out the other limits")

    def check_drawn(self) -> None:
        """Refuse to draw more clients a round than there are.

        Raises:
            UserError: naming both numbers.
        """
        if self.per_round > self.count:
            raise UserError(
                f"clients.per_round is {self.per_round}, more than the {counted(self.count, 'client')} of clients.count"
            )

    def _check_distribution(self) -> None:
        name = self.macs_distribution
        if name == "listed":
            return
        if name == "tiers" and not self.max_macs:
            raise UserError("clients.macs_distribution tiers draws from clients.max_macs; list some, e.g. [25M, 60M]")
        if name in ("uniform", "zipf", "zipf-ranks"):
            ends = [parse_quantity(text) for text in self.max_macs]
            if len(ends) != 2 or ends[0] > ends[1]:
                raise UserError(
                    f"clients.max_macs is {list(self.max_macs)}; {name} draws between two values, e.g. [25M, 600M]"
                )
