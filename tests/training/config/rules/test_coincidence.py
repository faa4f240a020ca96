"""Configurations that compute the same: told apart by their normal form exactly where their runs differ."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from helpers.runs.federation import micro_config
from helpers.runs.simulation import same_bytes, short_config, simulated_run, train_run

from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.config.methods import CoTrainConfig, DeepFedNasConfig, FedParetoConfig
from fedpareto.training.config.rules.coincidence import coincides, normal_form
from fedpareto.training.config.run import RunConfig
from fedpareto.training.setup import new_run


def _clients(per_round: int) -> dict[str, Any]:
    return {"clients": ClientsConfig(count=5, per_round=per_round)}


@pytest.mark.parametrize("per_round", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"method": "superfednas"}),
        ({}, {"deepfednas": DeepFedNasConfig("uniform")}),
        ({"method": "cotrain"}, {"method": "cotrain", "cotrain": CoTrainConfig("extremes")}),
        ({}, {"evaluation": EvaluationConfig(every=1, probes=3, calibration_images=16, batch_size=16)}),
        ({}, {"checkpoint": CheckpointConfig(every=2, keep=1)}),
        ({}, {"seed": 1}),
    ],
    ids=str,
)
def test_runs_end_with_the_same_bytes_exactly_where_their_normal_forms_are_equal(
    tmp_path: Path, per_round: int, first: dict[str, Any], second: dict[str, Any]
) -> None:
    configs = [short_config(rounds=4, **_clients(per_round), **changes) for changes in (first, second)]
    ends = [train_run(simulated_run(tmp_path / str(number), config))[1] for number, config in enumerate(configs)]
    one, other = (normal_form(config) for config in configs)
    assert (one == other) == same_bytes(*ends)


def test_where_nothing_is_drawn_a_run_says_so_when_it_starts(tmp_path: Path) -> None:
    remarks: list[str] = []

    said = "deepfednas and superfednas are one and the same"
    for method, per_round, told in (("superfednas", 2, True), ("deepfednas", 2, True), ("deepfednas", 3, False)):
        clients = ClientsConfig(count=6, per_round=per_round)
        config = micro_config(tmp_path, method=method, clients=clients, output=str(tmp_path / f"{method}-{per_round}"))
        remarks.clear()
        new_run(config, ProgressListener(remark=remarks.append))
        assert any(said in remark for remark in remarks) == told


def test_only_methods_that_draw_networks_can_have_nothing_to_draw() -> None:
    for method in ("deepfednas", "superfednas"):
        assert coincides(RunConfig(method=method, clients=ClientsConfig(2, 2)))
        assert coincides(RunConfig(method=method, clients=ClientsConfig(9, 2)))
        assert coincides(RunConfig(method=method, clients=ClientsConfig(9, 1))) is None
    assert coincides(RunConfig(method="cotrain", clients=ClientsConfig(2, 2))) is None


@pytest.mark.parametrize("entries", [None, 1, 2, 3, 60])
def test_a_small_cache_leaves_less_to_choose_from(entries: int | None) -> None:
    def same(first: RunConfig, second: RunConfig) -> bool:
        return normal_form(first, entries) == normal_form(second, entries)

    every, extremes, largest = (
        RunConfig(method="cotrain", cotrain=CoTrainConfig(networks)) for networks in ("all", "extremes", "largest")
    )
    assert same(every, extremes) == (entries in (1, 2))
    assert same(every, largest) == (entries == 1)
    own, uniform = (
        RunConfig(method="deepfednas", deepfednas=settings)
        for settings in (DeepFedNasConfig(), DeepFedNasConfig("uniform"))
    )
    assert same(own, uniform) == (entries == 1)
    assert not same(own, dataclasses.replace(uniform, seed=1))
    assert same(RunConfig(), RunConfig(fedpareto=FedParetoConfig(1.0, 1.0))) == (entries == 1)
    assert not same(RunConfig(), RunConfig(fedpareto=FedParetoConfig(nested_start=False)))
