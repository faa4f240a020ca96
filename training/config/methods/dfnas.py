"""Settings and description of the method ``dfnas``."""

import dataclasses
import math

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.training.config.bounds import bounded, check_bounds
from fedpareto.training.config.methods.spec import MethodSpec


@dataclasses.dataclass(frozen=True)
class DfnasConfig:
    """Direct federated search: blocks are chosen while their weights are trained.

    Attributes:
        architecture: JSON file of the network it begins with, whose widths it keeps and whose blocks it makes smaller
            or drops; when left out, the supernet if every client can run it, else the largest cache entry that all can.
        lr: learning rate of the logits that blocks are drawn with.
        gap: a block is settled once its two best choices are so far apart in probability; 1 for never.
        macs_penalty: added to the loss for every share of the first network's MACs by which the expected MACs of a draw
            exceed macs_target; 0 for none.
        macs_target: expected MACs without a penalty, e.g. 60M; 0 when left out.
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


DFNAS = MethodSpec(
    name="dfnas",
    summary="one network, searched while it is trained",
    factory="fedpareto.training.methods.dfnas.method:dfnas",
    settings=DfnasConfig,
    single_network=True,
    files={"architecture": ".json"},
)
