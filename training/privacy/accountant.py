"""Privacy accountant: the guarantee (ε, δ) of each client after the rounds of a private run, from dp-accounting.

In a round a client changes the weighted sum by at most w·C, under noise of z·C·w_max (``mechanism.py``): a Gaussian
mechanism of multiplier z·w_max/w. Gaussian mechanisms compose to one, also when later rounds see earlier ones. Over the
rounds in which it was drawn, a client has multiplier z/√e with its exposure e = Σ (w/w_max)² (Dong, Roth and Su 2022,
corollary 2), whose ε is known exactly (Balle and Wang 2018). The ε of a run is that of its most exposed client.

What is counted are releases, not rounds: every set of sums that was given noise and may have been seen since, whether
or not the run went on from it (``ledger.py``). A round that a killed process had released is counted again if its
clients answer otherwise when it is repeated, and not if they answer alike, as the noise is then the same, too. A budget
(``privacy.epsilon``) is kept by asking before a round what ε would be after it (``rounds/budget.py``).
"""

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedpareto.supernet.common.extras import require_extra
from fedpareto.training.config.privacy import PrivacyConfig

#: Least noise multiplier that is looked for: with less ε is of no use to anybody.
_LEAST_NOISE = 1e-3


def require_accountant(privacy: PrivacyConfig) -> None:
    """Refuse noise without the packages that account for it and make it.

    Raises:
        UserError: one is missing; the message names the command that installs it.
    """
    if privacy.noise:
        require_extra("privacy", ("dp_accounting", "cryptography"))


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
    return Guarantee(epsilon(max(exposure, default=0.0), privacy.multiplier, delta), delta)


def epsilon(exposure: float, noise: float, delta: float) -> float:
    """Return the least ε ≥ 0 at ``delta`` of a client of this ``exposure`` under a noise multiplier ``noise`` > 0."""
    if not exposure:
        return 0.0
    # A second of import that only private runs pay for.
    from dp_accounting import get_epsilon_gaussian  # noqa: PLC0415

    # Logarithms of 0 are meant there, where noise is large.
    with np.errstate(divide="ignore"):
        return float(get_epsilon_gaussian(noise / math.sqrt(exposure), delta))


def least_noise(exposure: float, budget: float, delta: float) -> float:
    """Least noise multiplier, rounded up to four digits, whose ε at ``delta`` is within the ``budget``.

    Args:
        exposure: exposure of the most exposed client after the planned rounds.
        budget: the most that ε may be; positive.
        delta: δ.
    """
    low = high = 1.0
    while epsilon(exposure, high, delta) > budget:
        low, high = high, 2 * high
    while low > _LEAST_NOISE and epsilon(exposure, low, delta) <= budget:
        low, high = low / 2, low
    step = 10.0 ** (math.floor(math.log10(high)) - 3)

    def rounded(count: int) -> float:
        return float(f"{count * step:.4g}")

    # ε falls as the noise rises: the first of the rounded multipliers within the budget.
    counts = range(math.floor(low / step), math.ceil(high / step) + 1)
    first = bisect.bisect_left(counts, True, key=lambda count: epsilon(exposure, rounded(count), delta) <= budget)
    return rounded(counts[first])
