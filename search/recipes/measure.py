"""Measurement of a finished run of an ablation on validation images; test images are never opened."""

from collections.abc import Sequence
from pathlib import Path

from fedpareto.search.comparison.measure import searched
from fedpareto.search.extraction.opened_run import Extraction, opened_run
from fedpareto.search.recipes.ablation import Planned
from fedpareto.search.recipes.result import Reached, Result, given_settings
from fedpareto.supernet.common.machine import machine
from fedpareto.training.runs.folder import read_space


def measure(run: Planned, folder: Path, budgets: Sequence[int]) -> Result:
    """Measure the fittest network within every budget, at the last checkpoint: there all runs have equal compute.

    Args:
        run: the run.
        folder: its finished run.
        budgets: MACs, ascending.

    Raises:
        UserError: a file of the run is damaged, or its images are missing.
    """
    trained = opened_run(folder, read_space(folder), "newest", None, test=False, root=run.trial.config.data.root)
    networks = []
    for budget, entry, _ in searched(trained, budgets):
        report = trained.extract(entry, Extraction(), {}).info.report
        networks.append(Reached(budget, entry.macs, report["validation_accuracy"]))
    state, given = trained.checkpoint.state, given_settings(run.trial.config)
    label, seed = run.recipe.label, run.trial.seed
    return Result(run.setting, label, seed, given, state.round, state.compute, networks, machine())
