"""Temperature scaling: one number that makes a network's confidence fit its accuracy, and leaves its classes alone."""

import dataclasses
import math

from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.training.evaluation.measures import PredictionCounts

#: Range of temperatures: where no wrong answer bounds confidence the best one would be 0, where logits tell nothing ∞.
LEAST, MOST = 0.01, 100.0


@dataclasses.dataclass(frozen=True)
class Temperature:
    """Temperature of a network's logits, fitted on validation images.

    Attributes:
        value: T; softmax of logits / T are calibrated confidences.
        error_before: expected calibration error of the logits as they are, on the images that T was fitted on.
        error_after: the same of logits / T.
    """

    value: float
    error_before: float
    error_after: float


def fit_temperature(logits: Tensor, labels: Tensor) -> Temperature:
    """Temperature of least cross-entropy (Guo et al., "On Calibration of Modern Neural Networks", 2017, §4.2).

    Cross-entropy is convex in 1/T, so that there is one minimum. It is looked for within ``LEAST`` and ``MOST``.

    Args:
        logits: of held-out images, finite, (N, classes).
        labels: their classes, (N,).

    Raises:
        ValueError: a logit is not finite.
    """
    exact = logits.double()
    if not bool(exact.isfinite().all()):
        raise ValueError("a temperature of logits that are not finite")

    def loss(exponent: float) -> float:
        return float(F.cross_entropy(exact / math.exp(exponent), labels))

    found = minimize_scalar(loss, bounds=(math.log(LEAST), math.log(MOST)), method="bounded", options={"xatol": 1e-6})
    value = math.exp(float(found.x))
    before, after = (PredictionCounts.over([(scaled, labels)]) for scaled in (exact, exact / value))
    return Temperature(value, before.calibration_error, after.calibration_error)
