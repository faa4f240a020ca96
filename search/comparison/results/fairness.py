"""Fairness of a comparison: all rows have spent equal compute, and no computation is counted twice."""

import dataclasses
import filecmp
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from fedpareto.search.comparison.results.outcome import TrialResult
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.training.config.run import EQUAL_COMPUTE

#: File of a checkpoint's weights.
_SUPERNET = "supernet.safetensors"


@dataclasses.dataclass(frozen=True)
class JudgedTrial:
    """Outcomes of trials divided into those that may be compared, and the reasons against the others, a line each."""

    fair: Sequence[TrialResult]
    refused: Sequence[str]


class Computed(Protocol):
    """Any result with a label, a seed and the MACs that its clients computed."""

    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def compute(self) -> int: ...  # noqa: D102


#: Function that is true if the runs of two outcomes ended with the same weights.
SameWeights = Callable[[TrialResult, TrialResult], bool]


def judged(outcomes: Sequence[TrialResult], limits: Mapping[int, int], same_weights: SameWeights) -> JudgedTrial:
    """Divide outcomes into those that may be compared and those that may not.

    Args:
        outcomes: outcomes of a study.
        limits: client MACs that the study promises, by seed.
        same_weights: called for outcomes that are alike in all else.
    """
    reasons = [unequal(outcome, limits[outcome.seed]) or _twin(outcome, outcomes, same_weights) for outcome in outcomes]
    fair = [outcome for outcome, reason in zip(outcomes, reasons, strict=True) if reason is None]
    return JudgedTrial(fair, [reason for reason in reasons if reason is not None])


def unequal(outcome: Computed, limit: int) -> str | None:
    """Return the reason against an outcome whose compute is not the study's ``limit`` of client MACs, or None."""
    apart = outcome.compute / limit - 1
    if abs(apart) <= EQUAL_COMPUTE:
        return None
    return (
        f"{outcome.label} with seed {outcome.seed} trained {format_quantity(outcome.compute)} client MACs, "
        f"{abs(apart):.1%} {'more' if apart > 0 else 'less'} than the {format_quantity(limit)} of the study"
    )


def _twin(outcome: TrialResult, outcomes: Sequence[TrialResult], same_weights: SameWeights) -> str | None:
    """Return the reason against an outcome that repeats the computation of an earlier one, or None."""
    for other in outcomes:
        if other is outcome:
            return None
        if _result(other) == _result(outcome) and same_weights(other, outcome):
            return (
                f"{outcome.label} with seed {outcome.seed} came to exactly what {other.label} did: they are one "
                "computation"
            )
    return None


def _result(outcome: TrialResult) -> TrialResult:
    """Return an outcome without the fields that differ between two runs of one computation."""
    networks = [dataclasses.replace(network, search_seconds=0.0) for network in outcome.networks]
    return dataclasses.replace(outcome, label="", seconds=0.0, machine="", networks=networks)


def same_checkpoint(one: Path, other: Path) -> bool:
    """Return True if the newest checkpoints of two runs hold the same supernet; False if one has none."""
    found = [sorted(run.glob(f"checkpoints/round-*/{_SUPERNET}")) for run in (one, other)]
    return all(found) and filecmp.cmp(found[0][-1], found[1][-1], shallow=False)
