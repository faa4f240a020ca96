"""Privacy accountant: the guarantee (ε, δ) of each client after the rounds of a private run, from dp-accounting.

In a round a client changes the weighted sum by at most w·C, under noise of z·C·w_max (``mechanism.py``): a Gaussian
mechanism of multiplier z·w_max/w. Gaussian mechanisms compose to one, also when later rounds see earlier ones. Over the
rounds in which it was drawn, a client has multiplier z/√e with its exposure e = Σ (w/w_max)² (Dong, Roth and Su 2022,
corollary 2), whose ε is known exactly (Balle and Wang 2018). The ε of a run is that of its most exposed client.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from fedpareto.supernet.common.extras import require_extra
from fedpareto.training.config.privacy import PrivacyConfig


def require_accountant(privacy: PrivacyConfig) -> None:
    """Refuse noise without the package that accounts for it.

    Raises:
        UserError: the package is missing; the message names the command that installs it.
    """
    if privacy.noise:
        require_extra("privacy", ("dp_accounting",))


def exposure_after(exposure: Sequence[float], weights: Mapping[int, float], clients: int) -> tuple[float, ...]:
    """Return the exposure of ``clients`` after a round that was planned with these ``weights`` of the drawn ones.

    An empty ``exposure`` is the one before the first round. Clients that fail count, too, as they had the weight.
    """
    most = max(weights.values())
    before = exposure or (0.0,) * clients
    return tuple(spent + (weights.get(client, 0.0) / most) ** 2 for client, spent in enumerate(before))


@dataclasses.dataclass(frozen=True)
class Guarantee:
    """Guarantee for every client of a private run, for the neighbouring relation of ``mechanism.py``."""

    epsilon: float
    delta: float

    def __str__(self) -> str:
        return f"(ε, δ) = ({self.epsilon:.2f}, {self.delta:.2g})"


def guarantee(privacy: PrivacyConfig, exposure: Sequence[float]) -> Guarantee | None:
    """Return the guarantee for clients of this ``exposure``; None without noise, as there is no finite ε."""
    if not privacy.noise:
        return None
    delta = privacy.delta_among(max(1, len(exposure)))
    return Guarantee(epsilon(max(exposure, default=0.0), privacy.noise, delta), delta)


def epsilon(exposure: float, noise: float, delta: float) -> float:
    """Return the least ε ≥ 0 at ``delta`` of a client of this ``exposure`` under a noise multiplier ``noise`` > 0."""
    if not exposure:
        return 0.0
    # A second of import that only private runs pay for.
    from dp_accounting import get_epsilon_gaussian  # noqa: PLC0415

    return float(get_epsilon_gaussian(noise / math.sqrt(exposure), delta))
