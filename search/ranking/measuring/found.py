"""Comparison of two forms of the fitness by the accuracies of the networks that searches find with them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CacheEntry
from fedpareto.search.query.searcher import search
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.console import print_table, say
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace

#: Measures an architecture: its accuracy by the name of the images, ``validation`` and perhaps ``test``.
Measure = Callable[[Architecture], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Finding:
    """The fittest network within a budget by one form of the fitness.

    Attributes:
        budget: most MACs allowed.
        form: name of the form of the fitness.
        entry: the network.
        accuracies: accuracies by the name of the images.
    """

    budget: int
    form: str
    entry: CacheEntry
    accuracies: Mapping[str, float]


def find_networks(
    space: SearchSpace,
    forms: Mapping[str, FitnessSettings],
    budgets: Sequence[int],
    measure: Measure,
    listener: ProgressListener,
) -> list[Finding]:
    """Search the fittest network of every form within every budget of MACs, and measure each network once.

    Raises:
        BudgetError: no network meets a budget.
    """
    found: list[Finding] = []
    known: dict[Architecture, Mapping[str, float]] = {}
    for number, budget in enumerate(budgets):
        for form, settings in forms.items():
            listener.report("searching and evaluating", number, len(budgets))
            entry = search(space, settings, Limits(macs=budget), listener=listener).entry
            if entry.architecture not in known:
                known[entry.architecture] = measure(entry.architecture)
            found.append(Finding(budget, form, entry, known[entry.architecture]))
    listener.report("searching and evaluating", len(budgets), len(budgets))
    return found


def gains(found: Sequence[Finding], form: str, other: str, images: str) -> list[float]:
    """Return the gains in accuracy of the networks of ``form`` over those of ``other``, in percentage points."""
    reached = {(each.budget, each.form): 100 * each.accuracies[images] for each in found}
    return [reached[budget, form] - reached[budget, other] for budget in dict.fromkeys(each.budget for each in found)]


def findings_to_json(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON values."""
    return [
        {
            "budget": each.budget,
            "form": each.form,
            "macs": each.entry.macs,
            "params": each.entry.params,
            "fitness": each.entry.fitness,
            "accuracy": dict(each.accuracies),
            "architecture": each.entry.architecture.to_json(),
        }
        for each in found
    ]


def print_findings(found: Sequence[Finding], form: str, other: str) -> None:
    """Print the networks of two forms of the fitness side by side, and what ``form`` gains over ``other``."""
    by_form = {name: [each for each in found if each.form == name] for name in (other, form)}
    for images in found[0].accuracies:
        gained = gains(found, form, other, images)
        rows = [
            (format_quantity(mine.budget), *_cells(theirs, images), *_cells(mine, images), f"{gain:+.1f}")
            for theirs, mine, gain in zip(by_form[other], by_form[form], gained, strict=True)
        ]
        columns = ("MACs at most", f"{other}:\nMACs", "accuracy", f"{form}:\nMACs", "accuracy", "gain\n(points)")
        print_table(f"networks found, on images for {images}", columns, rows)
        mean = float(np.mean(gained))
        say(f"{form} less {other}, in points of accuracy for {images}: {mean:+.1f} on average")


def _cells(found: Finding, images: str) -> tuple[str, str]:
    return format_quantity(float(f"{found.entry.macs:.3g}")), f"{100 * found.accuracies[images]:.1f} %"
