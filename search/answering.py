"""From budgets to an answer and its report. No torch."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.entries import make_entries
from cache.latency.table import table_summary
from cache.limits import Limits
from cache.progress import Listener
from search.budgets import Budgets, limits_of
from search.report import search_report
from search.searcher import Answer, search, search_cheapest
from search.subject import Subject
from supernet.architecture_file import read_architecture
from supernet.errors import ArchitectureError, UserError
from supernet.genes import encode


@dataclasses.dataclass(frozen=True)
class Answered:
    """What was found for some budgets.

    Attributes:
        budgets: as they were given.
        limits: what they stand for.
        answer: the architecture.
        report: costs, fitness, slack and origin, as ``--json`` prints them.
    """

    budgets: Budgets
    limits: Limits
    answer: Answer
    report: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Refused:
    """Budgets that no network meets, or whose files are of no use."""

    budgets: Budgets
    reason: str


def answer_targets(
    subject: Subject, targets: Mapping[str, Budgets], seed: int, listener: Listener
) -> dict[str, Answered | Refused]:
    """Return the answer for every named target; one that has none does not stop the others."""
    answers: dict[str, Answered | Refused] = {}
    for done, (name, budgets) in enumerate(targets.items()):
        listener.report(f"target {name}", done, len(targets))
        try:
            answers[name] = answer_budgets(subject, budgets, seed, Listener(remark=listener.remark))
        except UserError as error:
            answers[name] = Refused(budgets, str(error))
    listener.report("targets", len(targets), len(targets))
    return answers


def answer_budgets(subject: Subject, budgets: Budgets, seed: int, listener: Listener) -> Answered:
    """Return the fittest architecture within budgets, or the smallest that is as fit as they ask.

    Raises:
        UserError: no network meets them, or a table does not fit.
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
    return Answered(budgets, limits, answer, report)


def answer_given(subject: Subject, budgets: Budgets, path: str) -> Answered:
    """Return the architecture of a JSON file as the answer; ``budgets`` say how it is delivered.

    Raises:
        ArchitectureError: the file holds none, or one of another space.
    """
    architecture = read_architecture(path)
    try:
        genes = encode(subject.space, architecture)
    except ArchitectureError as error:
        raise ArchitectureError(f"{path}: {error}") from error
    (entry,) = make_entries(subject.space, genes[None], subject.fitness)
    limits, answer = Limits(), Answer(entry, "given", None)
    report = search_report(subject.space, str(subject.run), limits, None, answer, 0.0)
    return Answered(budgets, limits, answer, {**report, "given": path})


def _search(subject: Subject, budgets: Budgets, limits: Limits, seed: int, listener: Listener) -> Answer:
    if budgets.min_fitness is None:
        return search(subject.space, subject.fitness, limits, subject.known, seed, listener)
    return search_cheapest(subject.space, subject.fitness, budgets.min_fitness, limits, listener)
