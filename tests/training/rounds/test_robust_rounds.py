"""Rounds with robust rules: hostile clients in a run, branches, equal weights, and the bar of the attacks."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from attack_methods import HostileEngine, scaled
from attacks import BAR, CHANCE, SPACE, UNBOUNDED, Trial, accuracy_of
from helpers.runs.federation import micro_config
from helpers.runs.simulation import fresh_start, recorder, same_bytes, short_config, simulated_run, train_run

from fedpareto.cache.build import compute_cache
from fedpareto.cache.cache_file import write_cache
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CACHE_ENTRIES
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.space_file import load_space
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.methods import DecNasConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.execution.profile import Profile
from fedpareto.training.rounds.loop import train
from fedpareto.training.setup import new_run

ROBUST = ("clipped", "median", "trimmed", "krum")


@pytest.mark.parametrize("rule", ROBUST)
def test_a_client_that_sends_a_million_times_its_change_moves_the_supernet_no_further_than_others(
    tmp_path: Path, rule: str
) -> None:
    # Without any bounds on updates but the rule.
    server, client = ServerConfig(aggregation=rule, momentum=0.5, outlier_factor=0), ClientConfig(1, 8, 0.05, clip=0)
    config = short_config(server=server, client=client, clients=ClientsConfig(5, 5))
    run = simulated_run(tmp_path, config)
    start = fresh_start(run).models.supernet
    _, honest = train_run(run)
    run = simulated_run(tmp_path / "hostile", config)
    _, supernet = train_run(dataclasses.replace(run, engine=HostileEngine(run.engine, {0}, scaled(1e6))))

    def moved(tensors: dict[str, torch.Tensor]) -> float:
        return max(float((tensor - start[name]).norm()) for name, tensor in tensors.items())

    assert moved(supernet) < 3 * moved(honest)
    assert not recorder(run).records[-1].failures


@pytest.mark.parametrize("rule", ROBUST)
def test_how_many_clients_train_at_once_changes_no_byte(tmp_path: Path, rule: str) -> None:
    config = short_config(server=ServerConfig(aggregation=rule))
    _, one = train_run(simulated_run(tmp_path / "one", config))
    _, three = train_run(simulated_run(tmp_path / "three", config, profile=Profile(workers=3)))
    assert same_bytes(one, three)


def test_branches_are_merged_by_the_rule_too(tmp_path: Path) -> None:
    """Networks with weights of their own would end at a million times the change otherwise."""
    decnas = DecNasConfig(budget="110K", step=0.1, least_rounds=3, most_rounds=3)
    server, clients = ServerConfig(aggregation="median"), ClientsConfig(20, 20)
    run = simulated_run(tmp_path, short_config(method="decnas", decnas=decnas, server=server, clients=clients))
    # Stopped after its first round, when no branch has become the supernet yet.
    run = dataclasses.replace(
        run, engine=HostileEngine(run.engine, {0}, scaled(1e6)), should_stop=lambda: bool(recorder(run).clients)
    )
    start = fresh_start(run)
    train(run, *start)
    assert start.models.branches
    for branch in start.models.branches.values():
        assert max(float(tensor.abs().max()) for tensor in branch.tensors.values()) < 10


@pytest.mark.parametrize("rule", ["mean", *ROBUST])
def test_records_of_maxnet_name_a_weight_of_the_largest_network_only_where_it_has_one(
    tmp_path: Path, rule: str
) -> None:
    run = simulated_run(tmp_path, short_config(method="superfednas", server=ServerConfig(aggregation=rule)))
    train_run(run)
    assert [record.beta is None for record in recorder(run).records] == [rule != "mean"] * 3


@pytest.mark.parametrize(("rule", "told"), [("mean", 0), ("median", 1)])
def test_a_method_that_weighs_by_images_is_told_that_a_robust_rule_does_not(
    tmp_path: Path, rule: str, told: int
) -> None:
    remarks: list[str] = []
    config = micro_config(tmp_path, method="fedavg", server=ServerConfig(aggregation=rule))
    new_run(config, ProgressListener(remark=remarks.append))
    assert sum("weighs all clients alike; method fedavg would weigh" in remark for remark in remarks) == told


@functools.cache
def _cache(folder: Path) -> Path:
    space, path = load_space(SPACE), folder / "cache.jsonl"
    write_cache(path, compute_cache(space, space.fitness, Limits(), CACHE_ENTRIES, listener=SILENT))
    return path


@pytest.mark.slow
def test_with_2_of_10_clients_hostile_trimmed_stays_near_no_attack_where_the_mean_falls_to_chance(
    tmp_path: Path,
) -> None:
    cache, attack = _cache(tmp_path), "x10^6"
    unattacked = accuracy_of(Trial(UNBOUNDED, "", 0, seed=0), cache)
    assert unattacked > 0.8
    assert accuracy_of(Trial(UNBOUNDED, attack, 2, seed=0), cache) <= CHANCE
    assert accuracy_of(Trial("trimmed", attack, 2, seed=0), cache) >= unattacked - BAR
