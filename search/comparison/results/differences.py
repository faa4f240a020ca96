"""Paired differences between the methods of a study, seed by seed.

With one seed, two methods have the same images, clients and initial draw. So the difference of their accuracies varies
less than either of them.
"""

import csv
import dataclasses
import io
import itertools
from collections.abc import Mapping, Sequence

from fedpareto.search.comparison.results.outcome import TrialResult
from fedpareto.search.comparison.results.summary import MeanStd, markdown_table
from fedpareto.supernet.common.formats.units import format_quantity

#: Columns of the CSV file.
_COLUMNS = ("method", "less", "seeds", "budget_macs", "difference_mean", "difference_std")


@dataclasses.dataclass(frozen=True)
class Difference:
    """Difference of two methods: one's accuracies less the other's.

    Attributes:
        label: label of the first.
        other: label of the second.
        seeds: number of seeds that both have finished.
        accuracies: differences by budget; None where no seed has networks of both.
    """

    label: str
    other: str
    seeds: int
    accuracies: Sequence[MeanStd | None]


def differences(labels: Sequence[str], budgets: Sequence[int], outcomes: Sequence[TrialResult]) -> list[Difference]:
    """Return the difference of every two methods that share a seed, in the order of the labels."""
    return paired(list(itertools.combinations(labels, 2)), budgets, outcomes)


def price_of_sharing(
    supernets: Sequence[str], alone: Sequence[str], budgets: Sequence[int], outcomes: Sequence[TrialResult]
) -> list[Difference]:
    """Return the price of sharing: accuracy of supernets less that of networks trained alone, at each budget.

    Args:
        supernets: labels of the methods whose networks share weights.
        alone: labels of the rows of networks that were trained alone.
        budgets: MACs.
        outcomes: outcomes of both.
    """
    return paired(list(itertools.product(supernets, alone)), budgets, outcomes)


def paired(
    pairs_of_labels: Sequence[tuple[str, str]], budgets: Sequence[int], outcomes: Sequence[TrialResult]
) -> list[Difference]:
    """Return the difference of every pair of labels that share a seed, in their order."""
    by_label: dict[str, dict[int, TrialResult]] = {}
    for outcome in outcomes:
        by_label.setdefault(outcome.label, {})[outcome.seed] = outcome
    found = []
    for one, other in pairs_of_labels:
        these, those = by_label.get(one, {}), by_label.get(other, {})
        seeds = sorted(these.keys() & those.keys())
        pairs = [(_accuracies(these[seed]), _accuracies(those[seed])) for seed in seeds]
        if pairs:
            found.append(Difference(one, other, len(seeds), [_at(budget, pairs) for budget in budgets]))
    return found


def _accuracies(outcome: TrialResult) -> dict[int, float]:
    return {network.budget: network.test_accuracy for network in outcome.networks}


def _at(budget: int, pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]]) -> MeanStd | None:
    apart = [one[budget] - other[budget] for one, other in pairs if budget in one and budget in other]
    return MeanStd.of(apart) if apart else None


def differences_header(budgets: Sequence[int], title: str = "difference in points") -> list[str]:
    """Return the names of the columns for people, of which the first says what is subtracted."""
    return [title, "seeds", *(f"at {format_quantity(budget)} MACs" for budget in budgets)]


def differences_cells(difference: Difference) -> list[str]:
    """Return a row for people, in points of accuracy."""
    return [
        f"{difference.label} − {difference.other}",
        str(difference.seeds),
        *("–" if found is None else found.cell(difference.seeds, sign="+") for found in difference.accuracies),
    ]


def differences_markdown(
    found: Sequence[Difference], budgets: Sequence[int], title: str = "difference in points"
) -> str:
    """Return the differences as Markdown."""
    return markdown_table(differences_header(budgets, title), [differences_cells(difference) for difference in found])


def differences_csv(found: Sequence[Difference], budgets: Sequence[int]) -> str:
    """Return the differences as CSV, a line for each and each budget, with full precision; accuracies are shares."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for difference in found:
        for budget, spread in zip(budgets, difference.accuracies, strict=True):
            if spread is not None:
                names = (difference.label, difference.other)
                writer.writerow([*names, spread.count, budget, spread.mean, spread.deviation])
    return text.getvalue()
