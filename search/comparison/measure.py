"""Measurement of a finished trial: one network for each budget, searched, calibrated and evaluated on test images."""

import time
from collections.abc import Sequence
from pathlib import Path

from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CacheEntry
from fedpareto.search.comparison.linear import LinearResult, read_linear
from fedpareto.search.comparison.results.outcome import MeasuredNetwork, TrialResult
from fedpareto.search.comparison.studies.study import Trial
from fedpareto.search.extraction.opened_run import Extraction, OpenedRun, opened_run
from fedpareto.search.query.searcher import search
from fedpareto.supernet.common.machine import machine
from fedpareto.supernet.common.terminal.console import stderr
from fedpareto.training.methods.registry import method_of
from fedpareto.training.runs.folder import METRICS, read_run_cache, read_space
from fedpareto.training.trackers.metrics_file import read_records


def measure(trial: Trial, folder: Path, budgets: Sequence[int]) -> TrialResult:
    """Measure the trial whose finished run is in ``folder``, at its last checkpoint: there all have equal compute.

    Raises:
        UserError: a file of the run is damaged, or its images are missing.
    """
    kind = None if trial.yardstick is None else trial.yardstick.kind
    if kind == "linear":
        return _linear(trial, read_linear(folder), budgets)
    space = read_space(folder)
    run = opened_run(folder, space, "newest", None, test=True)
    state = run.checkpoint.state
    if trial.yardstick is not None and trial.yardstick.budget is not None:
        # Even where a smaller budget keeps its network.
        budgets = [trial.yardstick.budget]
    found = _single(run, budgets) if trial.config.spec.single_network else searched(run, budgets)
    networks = [_measured(run, budget, entry, taken) for budget, entry, taken in found]
    # What is in one place is sent nowhere.
    up, down = (0, 0) if kind == "central" else (state.traffic.up, state.traffic.down)
    return TrialResult(
        trial.label,
        trial.seed,
        state.round,
        state.compute,
        up,
        down,
        _seconds(folder, state.round),
        networks,
        machine(),
        tuple(budgets),
    )


def _linear(trial: Trial, result: LinearResult, budgets: Sequence[int]) -> TrialResult:
    """Return the outcome of a linear model, which is the same at every budget."""
    accuracies = result.validation_accuracy, result.test_accuracy
    network = MeasuredNetwork(result.macs, result.macs, result.params, *accuracies, 0.0, None)
    return TrialResult(trial.label, trial.seed, 0, 0, 0, 0, result.seconds, [network], machine(), tuple(budgets))


def _seconds(folder: Path, rounds: int) -> float:
    """Return the seconds of all rounds; those without a record count as the mean of the others."""
    known = [record["seconds"] for record in read_records(folder / METRICS) if record["seconds"] is not None]
    if not known:
        stderr.print(f"{folder / METRICS} holds no seconds of a round; its seconds count as 0")
        return 0.0
    return float(sum(known)) * rounds / len(known)


def searched(run: OpenedRun, budgets: Sequence[int]) -> list[tuple[int, CacheEntry, float]]:
    """Search the fittest network within each budget; return budget, network and the seconds of the search."""
    cache = read_run_cache(run.folder, run.space)
    found = []
    for budget in budgets:
        started = time.perf_counter()
        answer = search(run.space, cache.fitness, Limits(macs=budget), cache.entries)
        found.append((budget, answer.entry, time.perf_counter() - started))
    return found


def _single(run: OpenedRun, budgets: Sequence[int]) -> list[tuple[int, CacheEntry, float]]:
    """Return a single-network method's network at the least budget that it is within, if there is one."""
    cache = read_run_cache(run.folder, run.space)
    (entry,) = method_of(run.config, run.space, cache, run.federation.labels()).probes(run.checkpoint.state)
    kept = [budget for budget in budgets if entry.macs <= budget]
    return [(kept[0], entry, 0.0)] if kept else []


def _measured(run: OpenedRun, budget: int, entry: CacheEntry, seconds: float) -> MeasuredNetwork:
    report = run.extract(entry, Extraction(), {}).info.report
    return MeasuredNetwork(
        budget,
        entry.macs,
        entry.params,
        report["validation_accuracy"],
        report["test_accuracy"],
        seconds,
        entry.architecture.to_json(),
    )
