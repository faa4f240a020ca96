"""What a user can set of the methods."""

import dataclasses
import math
from typing import Literal

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.training.config.bounds import bounded, check_bounds

MethodName = Literal["fedpareto", "deepfednas", "superfednas", "fedavg", "cotrain", "dfnas", "decnas"]

CacheDraw = Literal["balanced", "uniform"]

CoTrainedNetworks = Literal["all", "extremes", "largest", "smallest"]


#: Draws in proportion to MACs^∓p of a larger p are of one entry all but always.
_LARGEST_POWER = 20.0


@dataclasses.dataclass(frozen=True)
class FedParetoConfig:
    """Networks drawn from the cache, small ones first.

    Attributes:
        power_first: p of the first round, whose clients draw entries in proportion to MACs^−p.
        power_last: p that the last rounds come up to; between them it is a line. 1 gives all entries the
            same compute, 0 draws all alike, and below 0 the large ones are drawn most.
        nested_start: begin with a supernet in which what only larger networks have adds nothing yet, so that all
            compute what the smallest does.
    """

    power_first: float = bounded(4.0, least=-_LARGEST_POWER, most=_LARGEST_POWER)
    power_last: float = bounded(-1.0, least=-_LARGEST_POWER, most=_LARGEST_POWER)
    nested_start: bool = True

    def __post_init__(self) -> None:
        check_bounds(self, "fedpareto")


@dataclasses.dataclass(frozen=True)
class DeepFedNasConfig:
    """Networks drawn from the cache.

    Attributes:
        draw: balanced (in inverse proportion to their MACs: all get the same compute) or uniform (as published).
    """

    draw: CacheDraw = "balanced"


@dataclasses.dataclass(frozen=True)
class FedAvgConfig:
    """Federated averaging of one network.

    Attributes:
        architecture: JSON file of it; the largest cache entry that every client can run when left out.
    """

    architecture: str | None = None


@dataclasses.dataclass(frozen=True)
class CoTrainConfig:
    """Co-training of several networks by every client.

    Attributes:
        networks: all (smallest, one drawn from the cache, largest), extremes (none drawn), largest or smallest alone.
        distillation: share of the smaller networks' loss that is distilled from the largest; 0 for none.
        temperature: of the distillation.
    """

    networks: CoTrainedNetworks = "all"
    distillation: float = bounded(0.5, least=0, most=1)
    temperature: float = bounded(1.0, above=0)

    def __post_init__(self) -> None:
        check_bounds(self, "cotrain")


@dataclasses.dataclass(frozen=True)
class DfnasConfig:
    """Direct federated search: blocks are chosen while their weights are trained.

    Attributes:
        architecture: JSON file of the network it begins with, whose widths it keeps and whose blocks it makes smaller
            or leaves out; the supernet when left out, or the largest cache entry that every client can run.
        lr: learning rate of the logits that blocks are drawn with.
        gap: a block is settled once its two best choices are so far apart in probability; 1 for never.
        macs_penalty: added to the loss for every share of the first network's MACs by which the expected MACs of a draw
            exceed macs_target; 0 for none.
        macs_target: MACs that cost nothing, e.g. 60M; all of them do when left out.
        personal: every client keeps logits of its own; only weights are shared.
    """

    architecture: str | None = None
    lr: float = bounded(1e-3, above=0, below=math.inf)
    gap: float = bounded(0.3, above=0, most=1)
    macs_penalty: float = bounded(0.0, least=0, below=math.inf, hint=" (0 for none)")
    macs_target: str | None = None
    personal: bool = False

    def __post_init__(self) -> None:
        check_bounds(self, "dfnas")
        if self.macs_target is not None:
            parse_quantity(self.macs_target)
            if not self.macs_penalty:
                raise UserError(f"dfnas.macs_target is {self.macs_target} without dfnas.macs_penalty; give both")


@dataclasses.dataclass(frozen=True)
class DecNasConfig:
    """Shrinking of one network by candidates that groups of clients train.

    Attributes:
        budget: MACs it is shrunk to, e.g. 60M; must be named.
        architecture: JSON file of the network to start from; the largest of the space when left out.
        step: share of its MACs that the first iteration takes off.
        decay: of the step, from iteration to iteration.
        drop_after: rounds of an iteration after which candidates below the median accuracy are dropped.
        least_rounds: rounds of a candidate before its gain may stop it.
        most_rounds: rounds of a candidate at the most.
        gain: accuracy that two rounds must gain a candidate for it to go on.
        lr: learning rate of the search; that of the first round of fine-tuning when left out.
    """

    budget: str | None = None
    architecture: str | None = None
    step: float = bounded(0.025, above=0, below=1)
    decay: float = bounded(0.96, above=0, most=1)
    drop_after: int = bounded(2, least=1)
    least_rounds: int = bounded(3, least=1)
    most_rounds: int = 10
    gain: float = bounded(0.005, least=0)
    lr: float | None = bounded(None, above=0)

    def __post_init__(self) -> None:
        if self.budget is not None:
            parse_quantity(self.budget)
        check_bounds(self, "decnas")
        if self.most_rounds < self.least_rounds:
            raise UserError(
                f"decnas.most_rounds is {self.most_rounds}; it must be at least the {self.least_rounds} of least_rounds"
            )
