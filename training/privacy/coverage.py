"""Coverage of a private run's guarantee, in words: what (ε, δ) holds for, and what was released beside it."""

from collections.abc import Sequence

from fedpareto.training.config.privacy import PrivacyConfig


def coverage(privacy: PrivacyConfig) -> str:
    """Coverage of the (ε, δ) of a run with noise, in words that go on after the guarantee."""
    if privacy.withheld:
        return "it covers the run's records too, as statistics of clients' images were withheld"
    return (
        "it does not cover the exact statistics of clients' images in records, normalisation, calibration and "
        "accuracies (privacy.statistics is exact)"
    )


def begun_apart(init: str | None) -> str:
    """Words on what the account of a run leaves out that began with the supernet ``init``; none if it began anew."""
    return "" if init is None else ", apart from what the supernet it began with was trained on"


def network_coverage(uncovered: Sequence[str]) -> str:
    """Coverage of a network by the (ε, δ) of its run, which does not cover the ``uncovered`` steps, in words."""
    return f"(ε, δ) does not cover this network: {', '.join(uncovered)}" if uncovered else "(ε, δ) covers this network"
