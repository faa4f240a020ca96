"""Accuracies as text, each with its confidence interval, so that few images do not look like many."""

import math

#: Two-sided 95 % quantile of the standard normal distribution.
_QUANTILE = 1.959963984540054


def wilson_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Wilson score interval (low, high) of a share of right answers, at a confidence of 95 %.

    It stays within 0 and 1 and has a width also where all answers are right (Wilson, "Probable Inference, the Law of
    Succession, and Statistical Inference", 1927; recommended over others by Brown, Cai and DasGupta, 2001).

    Args:
        accuracy: share of right answers.
        images: number of answers.

    Raises:
        ValueError: there are no images, or the accuracy is not from 0 to 1.
    """
    if images < 1 or not 0 <= accuracy <= 1:
        raise ValueError(f"an accuracy of {accuracy}, images {images}")
    square = _QUANTILE**2
    centre = (accuracy + square / (2 * images)) / (1 + square / images)
    spread = accuracy * (1 - accuracy) / images + square / (4 * images**2)
    half = _QUANTILE / (1 + square / images) * math.sqrt(spread)
    return max(0.0, min(centre - half, accuracy)), min(1.0, max(centre + half, accuracy))


def format_accuracy(accuracy: float, images: int | None, digits: int = 1) -> str:
    """Accuracy in percent with its interval, e.g. ``86.4% (73.3–93.6)``; without it where the images are not known."""
    text = f"{accuracy:.{digits}%}"
    if images is None:
        return text
    low, high = wilson_interval(accuracy, images)
    return f"{text} ({100 * low:.{digits}f}–{100 * high:.{digits}f})"
