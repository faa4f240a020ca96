"""Moments of a BatchNorm: sums over batches, and the mean and total variance that follow from the sums.

The variance over images in batches is the variance within the batches plus the variance of their means (the law of
total variance). With n_b images, mean m_b and biased variance v_b of a batch, N = Σ n_b and m = Σ n_b·m_b / N,

    variance = Σ n_b·v_b / N + (Σ n_b·m_b² / N − m²).

The second part is large where every batch holds few classes, as a client's batches may. All images of a norm have
feature maps of one size, so weighing by images is the same as weighing by pixels.
"""

from torch import Tensor

from fedpareto.training.messages import Statistics

#: What is summed for every norm, each times the images of its batch: the mean, the biased variance, the squared mean.
MOMENTS = ("running_mean", "running_var", "squared_mean")

#: Sums of float32 values in float64 are exact to about this share of them.
_ROUNDING = 1e-9


def moments_of(norm: str) -> tuple[str, str, str]:
    """Return the names of a norm's sums of means, of variances and of squared means."""
    mean, variance, squared = MOMENTS
    return f"{norm}.{mean}", f"{norm}.{variance}", f"{norm}.{squared}"


def norms_of(statistics: Statistics) -> list[str]:
    """Return the names of the norms that statistics are of."""
    suffix = f".{MOMENTS[0]}"
    return [name.removesuffix(suffix) for name in statistics.sums if name.endswith(suffix)]


def mean_and_variance(statistics: Statistics, norm: str) -> tuple[Tensor, Tensor]:
    """Return a norm's mean and total (biased) variance over all images, float64, shapes (channels,)."""
    mean, within, squared = (statistics.sums[name] / statistics.images for name in moments_of(norm))
    # Rounding alone can take it below zero.
    between = (squared - mean.square()).clamp(min=0)
    return mean, within + between


def impossible(statistics: Statistics) -> str | None:
    """Return the reason, in words, that no images can have these statistics; None if some can."""
    for norm in norms_of(statistics):
        mean, within, squared = (statistics.sums[name] / statistics.images for name in moments_of(norm))
        # What they become is float32.
        if not all(part.float().isfinite().all() for part in (mean, within + squared)):
            return "its statistics hold NaN or infinity"
        if (within < 0).any():
            return "its statistics hold negative variances"
        if (squared < mean.square() * (1 - _ROUNDING)).any():
            return "its statistics hold squared means below the square of their mean"
    return None
