"""How far methods of a study are apart: seed by seed, as both have the same images, clients and initial weights."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from search.comparison.outcome import Outcome
from search.comparison.summary import Spread, markdown_table
from supernet.units import format_quantity


@dataclasses.dataclass(frozen=True)
class Difference:
    """One method's accuracies less another's.

    Attributes:
        label: of the one.
        other: of the other.
        seeds: that both have finished.
        accuracies: by budget; None where no seed has networks of both.
    """

    label: str
    other: str
    seeds: int
    accuracies: Sequence[Spread | None]


def differences(labels: Sequence[str], budgets: Sequence[int], outcomes: Sequence[Outcome]) -> list[Difference]:
    """Return the difference of every two methods that share a seed, in the order of the labels."""
    by_label = {label: {outcome.seed: outcome for outcome in outcomes if outcome.label == label} for label in labels}
    found = []
    for one, other in itertools.combinations(by_label, 2):
        seeds = sorted(by_label[one].keys() & by_label[other].keys())
        pairs = [(_accuracies(by_label[one][seed]), _accuracies(by_label[other][seed])) for seed in seeds]
        if pairs:
            found.append(Difference(one, other, len(seeds), [_at(budget, pairs) for budget in budgets]))
    return found


def _accuracies(outcome: Outcome) -> dict[int, float]:
    return {network.budget: network.test_accuracy for network in outcome.networks}


def _at(budget: int, pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]]) -> Spread | None:
    apart = [one[budget] - other[budget] for one, other in pairs if budget in one and budget in other]
    return Spread.of(apart) if apart else None


def differences_header(budgets: Sequence[int]) -> list[str]:
    """Return the names of the columns for people."""
    return ["difference in points", "seeds", *(f"at {format_quantity(budget)} MACs" for budget in budgets)]


def differences_cells(difference: Difference) -> list[str]:
    """Return a row for people, in points of accuracy."""
    return [
        f"{difference.label} − {difference.other}",
        str(difference.seeds),
        *("–" if found is None else found.in_points("+") for found in difference.accuracies),
    ]


def differences_markdown(found: Sequence[Difference], budgets: Sequence[int]) -> str:
    """Return the differences as Markdown."""
    return markdown_table(differences_header(budgets), [differences_cells(difference) for difference in found])
