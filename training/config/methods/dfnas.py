"""What a user can set of the method ``dfnas``, and what the package knows of it."""

import dataclasses
import math

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.training.config.methods.spec import MethodSpec


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
    lr: float = 1e-3
    gap: float = 0.3
    macs_penalty: float = 0.0
    macs_target: str | None = None
    personal: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise UserError(f"dfnas.lr is {self.lr}; it must be positive")
        if not 0 < self.gap <= 1:
            raise UserError(f"dfnas.gap is {self.gap}; it must be above 0 and up to 1")
        if not 0 <= self.macs_penalty < math.inf:
            raise UserError(f"dfnas.macs_penalty is {self.macs_penalty}; it must not be negative (0 for none)")
        if self.macs_target is not None:
            parse_quantity(self.macs_target)
            if not self.macs_penalty:
                raise UserError(f"dfnas.macs_target is {self.macs_target} without dfnas.macs_penalty; give both")


DFNAS = MethodSpec(
    name="dfnas",
    summary="one network, searched while it is trained",
    factory="fedpareto.training.methods.dfnas.method:dfnas",
    settings=DfnasConfig,
    single_network=True,
    files={"architecture": ".json"},
)
