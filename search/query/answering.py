"""Answers to queries: a device's budgets are answered with an architecture and a report, without torch."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.cache.costs.latency.table import table_summary
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CacheEntry, make_entries
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.cache.exact.solver import SpaceTooLargeError
from fedpareto.search.query.budgets import Budgets, limits_of
from fedpareto.search.query.report import search_report
from fedpareto.search.query.searcher import Answer, search, search_cheapest
from fedpareto.search.query.subject import SearchTarget
from fedpareto.search.query.target_workers import answered_by, workers_for
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.architecture_file import read_architecture
from fedpareto.supernet.common.errors import ArchitectureError, UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.machine import available_cores
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.genes import encode


@dataclasses.dataclass(frozen=True, repr=False)
class SearchOutcome:
    """Architecture that was found for a device's budgets.

    Attributes:
        target: target of the search: a search space, and the run if there is one.
        budgets: budgets as they were given.
        limits: limits on costs that the budgets stand for.
        answer: the architecture, with its proof or solver.
        report: costs, fitness, slack and origin, as ``--json`` prints them.
    """

    target: SearchTarget
    budgets: Budgets
    limits: Limits
    answer: Answer
    report: dict[str, Any]

    @property
    def entry(self) -> CacheEntry:
        """Architecture with its costs and fitness."""
        return self.answer.entry

    @property
    def architecture(self) -> Architecture:
        """Architecture that was found."""
        return self.entry.architecture

    @property
    def certified(self) -> bool:
        """True if it is proven that no network within the limits has a higher fitness."""
        return self.answer.certified

    @property
    def gap(self) -> float | None:
        """Optimality gap: a bound on the highest fitness within the limits less this one; 0 if proven, else None."""
        return 0.0 if self.certified else None

    def __repr__(self) -> str:
        entry = self.entry
        proof = "certified" if self.certified else f"by {self.answer.solver}, not certified"
        return (
            f"SearchOutcome({format_quantity(entry.macs)} MACs, {format_quantity(entry.params)} parameters, "
            f"fitness {entry.fitness:.1f}, {proof})"
        )

    def _repr_html_(self) -> str:
        from fedpareto.cache.plot import front_title, fronts_html  # noqa: PLC0415 - a notebook draws
        from fedpareto.search.reports.plot import fronts_of  # noqa: PLC0415

        return fronts_html(repr(self), front_title(self.target.space), fronts_of(self.target, self))


@dataclasses.dataclass(frozen=True)
class Refused:
    """Refusal of budgets that no network meets, or whose files are of no use, with the reason."""

    budgets: Budgets
    reason: str


@dataclasses.dataclass(frozen=True)
class _Answering:
    """Function that answers budgets in any process; it returns the outcome and the remarks on the way."""

    subject: SearchTarget
    seed: int

    def __call__(self, budgets: Budgets) -> tuple[SearchOutcome | Refused, list[str]]:
        remarks: list[str] = []
        try:
            return answer_budgets(self.subject, budgets, self.seed, ProgressListener(remark=remarks.append)), remarks
        except UserError as error:
            return Refused(budgets, str(error)), remarks


def answer_targets(
    subject: SearchTarget,
    targets: Mapping[str, Budgets],
    seed: int,
    listener: ProgressListener,
    cores: int | None = None,
) -> dict[str, SearchOutcome | Refused]:
    """Return the answer for every named target; a target without an answer does not stop the others.

    Several processes answer them where that is faster, at most one for each of ``cores``, by default all there are;
    the answers are the same.
    """
    answering = _Answering(subject, seed)
    workers = workers_for(targets, cores or available_cores())
    if workers > 1:
        # Found here once, and not in every process.
        with contextlib.suppress(SpaceTooLargeError):
            load_or_compute_frontier(subject.space, subject.fitness, listener)
        found = answered_by(answering, targets, workers)
    else:
        found = ((name, answering(budgets)) for name, budgets in targets.items())
    answers: dict[str, SearchOutcome | Refused] = {}
    listener.report("targets", 0, len(targets))
    with contextlib.closing(found):
        for name, (answer, remarks) in found:
            answers[name] = answer
            for remark in remarks:
                listener.remark(remark)
            listener.report(f"target {name}", len(answers), len(targets))
    return answers


def answer_budgets(subject: SearchTarget, budgets: Budgets, seed: int, listener: ProgressListener) -> SearchOutcome:
    """Return the fittest architecture within budgets, or the smallest that is as fit as they ask.

    Raises:
        UserError: no network meets the budgets, or a latency table does not fit.
    """
    limits = limits_of(budgets, subject.space)
    started = time.perf_counter()
    answer = _search(subject, budgets, limits, seed, listener)
    seconds = time.perf_counter() - started
    run = None if subject.run is None else str(subject.run)
    report = search_report(subject.space, run, limits, budgets.min_fitness, answer, seconds)
    report["max_effectiveness"] = subject.fitness.max_effectiveness
    if budgets.latency_table is not None:
        report["latency_table"] = table_summary(Path(budgets.latency_table))
    return SearchOutcome(subject, budgets, limits, answer, report)


def answer_given(subject: SearchTarget, budgets: Budgets, path: str) -> SearchOutcome:
    """Return the architecture of a JSON file as the answer; ``budgets`` say how it is delivered.

    Raises:
        ArchitectureError: the file holds no architecture, or one of another space.
    """
    architecture = read_architecture(path)
    try:
        genes = encode(subject.space, architecture)
    except ArchitectureError as error:
        raise ArchitectureError(f"{path}: {error}") from error
    (entry,) = make_entries(subject.space, genes[None], subject.fitness)
    limits, answer = Limits(), Answer(entry, "given", None)
    report = search_report(subject.space, str(subject.run), limits, None, answer, 0.0)
    return SearchOutcome(subject, budgets, limits, answer, {**report, "given": path})


def _search(subject: SearchTarget, budgets: Budgets, limits: Limits, seed: int, listener: ProgressListener) -> Answer:
    if budgets.min_fitness is None:
        return search(subject.space, subject.fitness, limits, subject.known, seed, listener)
    return search_cheapest(subject.space, subject.fitness, budgets.min_fitness, limits, listener)
