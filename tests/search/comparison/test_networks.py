"""The networks of yardsticks, against listing every network of the space."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from helpers.networks.exhaustive import all_genes
from helpers.runs.federation import MICRO
from helpers.runs.studies import BUDGETS, read_tiny

from fedpareto.cache.entries import make_entries
from fedpareto.search.comparison.networks import find_networks, space_of, with_networks
from fedpareto.search.comparison.studies.study import Study
from fedpareto.supernet.common.errors import BudgetError, UserError
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.fitness_settings import FitnessSettings


def _found(study: Study) -> dict[str, Any]:
    return {trial.name: trial.network for trial in with_networks(study.trials, SILENT)}


@pytest.mark.slow
def test_a_yardstick_trains_the_fittest_network_within_its_budget(tmp_path: Path) -> None:
    study = read_tiny(tmp_path, yardsticks=True)
    everything = make_entries(MICRO, all_genes(MICRO), MICRO.fitness)
    found = _found(study)
    for budget, words in zip(BUDGETS, ("60K", "120K"), strict=True):
        allowed = [entry for entry in everything if entry.rho <= MICRO.fitness.max_effectiveness]
        best = max(entry.fitness for entry in allowed if entry.macs <= budget)
        for kind in ("alone", "share", "central"):
            for seed in (0, 1):
                network = found[f"fedavg-{words}-{kind}-seed{seed}"]
                (entry,) = [entry for entry in everything if entry.architecture == network][:1]
                assert entry.macs <= budget
                assert entry.rho <= MICRO.fitness.max_effectiveness
                assert entry.fitness == pytest.approx(best)
    assert [found[f"{label}-seed0"] for label in ("deepfednas", "cotrain", "linear")] == [None] * 3


@pytest.mark.slow
def test_the_fitness_is_that_of_the_methods_cache(tmp_path: Path) -> None:
    config = read_tiny(tmp_path, yardsticks=["alone"]).trials[0].config
    weights = tmp_path / "fitness.yaml"
    weights.write_text("block_penalty: 60.0\n")
    other = dataclasses.replace(config, cache=None, fitness=str(weights))
    settings = FitnessSettings(block_penalty=60.0)
    space = space_of(other)
    network = find_networks(other, space, [120_000], SILENT)[120_000]
    within = [entry for entry in make_entries(space, all_genes(space), settings) if entry.macs <= 120_000]
    assert network.fitness == pytest.approx(
        max(entry.fitness for entry in within if entry.rho <= settings.max_effectiveness)
    )


def test_a_budget_without_a_network_is_refused(tmp_path: Path) -> None:
    study = read_tiny(tmp_path, yardsticks=["share"], budgets=["40k"])
    with pytest.raises(BudgetError, match=r"40,000|40K"):
        with_networks(study.trials, SILENT)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_that_no_client_of_a_seed_can_run_is_refused(tmp_path: Path, seed: int) -> None:
    limits = {"count": 2, "per_round": 2, "max_macs": ["60k", "200k"], "macs_distribution": "uniform"}
    run = {"clients": limits}
    central = read_tiny(tmp_path, run, yardsticks=["central"], seeds=[seed])
    assert len(with_networks(central.trials, SILENT)) == 4
    run["clients"]["max_macs"] = ["60k", "100k"]
    alone = read_tiny(tmp_path, run, yardsticks=["alone"], seeds=[seed])
    with pytest.raises(
        UserError, match=rf"with seed {seed} no client can run the 114\.7K MACs of .* fedavg-120K-alone"
    ):
        with_networks(alone.trials, SILENT)


def test_a_study_without_yardsticks_lists_no_images(tmp_path: Path) -> None:
    run = {"data": {"name": "imagefolder", "root": str(tmp_path / "nowhere")}}
    study = read_tiny(tmp_path, run)
    assert with_networks(study.trials, SILENT) == study.trials
