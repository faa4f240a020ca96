"""Settings of differential privacy."""

import dataclasses
import math
from typing import Literal

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.bounds import bounded, check_bounds

#: What becomes of statistics of clients' images, beside their clipped and noised updates.
Statistics = Literal["withheld", "exact"]


#: Least noise multiplier of a run with noise; the accountant finds no ε of much less.
LEAST_NOISE = 1e-6


@dataclasses.dataclass(frozen=True)
class PrivacyConfig:
    """Differential privacy of the clients, by the server (DP-FedAvg).

    ``training/privacy/mechanism.py`` says what it covers. Noise is weighed by the largest client: equal weights, which
    runs with noise have unless asked for others, and many clients a round have the least of it.

    Attributes:
        clip: largest L2 norm of a client's update, over all its tensors; 0 for no privacy.
        noise: standard deviation of the Gaussian noise, in multiples of the most that one client can change; 0 for
            clipping alone, which promises nothing; auto for the least with which all rounds are within epsilon.
        delta: δ at which ε is reported; 1e-5 or clients.count^-1.1, the lower, when left out.
        epsilon: budget: the run ends before a round after which ε would be larger; none when left out.
        statistics: what becomes of losses, counts, normalisation, calibration and accuracies of clients' images in a
            run with noise: withheld, or exact as in other runs, which (ε, δ) does not cover.
    """

    clip: float = bounded(0.0, least=0, below=math.inf, hint=" (0 for none)")
    noise: float | Literal["auto"] = bounded(0.0, least=0, below=math.inf, hint=" (0 for none, auto)")
    delta: float | None = bounded(None, above=0, below=1)
    epsilon: float | None = bounded(None, above=0, below=math.inf)
    statistics: Statistics = "withheld"

    def __post_init__(self) -> None:
        check_bounds(self, "privacy")
        if self.noise != "auto" and 0 < self.noise < LEAST_NOISE:
            raise UserError(
                f"privacy.noise is {self.noise:g}; it must be 0 for none, or at least {LEAST_NOISE:g}: with less ε is "
                "beyond all numbers that say anything"
            )
        if self.noise and not self.clip:
            raise UserError(
                f"privacy.noise is {self.noise} without privacy.clip; noise protects clipped updates only: set "
                "privacy.clip to a positive norm"
            )
        if self.noise == "auto" and self.epsilon is None:
            raise UserError(
                "privacy.noise is auto without privacy.epsilon; it is the noise that keeps within that budget: give "
                "one, e.g. --privacy.epsilon 8"
            )
        if self.epsilon is not None and not self.noise:
            raise UserError(
                f"privacy.epsilon is {self.epsilon:g} without privacy.noise; without noise there is no finite ε: give "
                "privacy.noise a number, or auto"
            )

    @property
    def multiplier(self) -> float:
        """Noise multiplier z.

        Raises:
            ValueError: it is still to be found.
        """
        if self.noise == "auto":
            raise ValueError("privacy.noise is auto, and no number was put in its place")
        return self.noise

    @property
    def withheld(self) -> bool:
        """True if a run has noise, and nothing beside its supernet may tell of clients' images."""
        return bool(self.noise) and self.statistics == "withheld"

    def delta_among(self, clients: int) -> float:
        """Return δ of a federation of ``clients``."""
        return min(1e-5, clients**-1.1) if self.delta is None else self.delta
