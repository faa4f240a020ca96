"""One hostile client in a run: it is named, and the others train as if it had failed."""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs.attacks import Change, HostileEngine, constant, from_round, scaled, with_logit
from helpers.runs.federation import MICRO, micro_config
from helpers.runs.simulation import (
    Recorder,
    recorder,
    same_bytes,
    short_config,
    simulated_run,
    spoiled_run,
    train_run,
)

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.engines.protocol import never
from fedpareto.training.messages import Failure, Update
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.runs.state import RunState
from fedpareto.training.setup import assemble, new_run

_METHODS = ("fedpareto", "deepfednas", "superfednas", "fedavg", "cotrain", "dfnas", "decnas")
_HOSTILE = 3

_ATTACKS: dict[str, Change] = {
    "a million times": scaled(1e6),
    "a hundred times": scaled(100),
    "1e30": constant(1e30),
    "3e38": constant(3e38),
    "NaN": constant(math.nan),
    "3e38 from round 2": from_round(2, constant(3e38)),
}


def _config(**changes: Any) -> RunConfig:
    return short_config(**{"rounds": 2, "clients": ClientsConfig(count=5, per_round=5), **changes})


def _attacked(folder: Path, config: RunConfig, change: Change) -> tuple[RunState, Tensors, list[dict[str, Any]]]:
    """Return the state, the supernet, and what the records say of the hostile client."""
    run = simulated_run(folder, config)
    run = dataclasses.replace(run, engine=HostileEngine(run.engine, {_HOSTILE: change}))
    state, tensors = train_run(run)
    told = [dict(one) for record in recorder(run).records for one in record.clients if one["client"] == _HOSTILE]
    return state, tensors, told


def _without(folder: Path, config: RunConfig, first: int = 1) -> Tensors:
    """Return the supernet of a run in which the client fails from a round on."""

    def fails(update: Update) -> Update | Failure:
        failed = update.task.client == _HOSTILE and update.task.round >= first
        return Failure(update.task, "error", "its battery is empty") if failed else update

    run, _ = spoiled_run(folder, fails, config)
    return train_run(run)[1]


def _check(folder: Path, config: RunConfig, attack: str) -> None:
    first = 2 if attack.endswith("round 2") else 1
    state, tensors, told = _attacked(folder / "attacked", config, _ATTACKS[attack])
    assert same_bytes(tensors, _without(folder / "without", config, first))
    refused = [one for one in told if "failure" in one]
    assert len(refused) == len(told) - first + 1
    assert {one["failure"] for one in refused} <= {"outlier", "non-finite"}
    assert sum(state.failures.values()) == len(refused)


@pytest.mark.parametrize("attack", ["a million times", "3e38 from round 2"])
def test_others_train_as_if_the_hostile_client_had_failed(tmp_path: Path, attack: str) -> None:
    _check(tmp_path, _config(), attack)


@pytest.mark.slow
@pytest.mark.parametrize("attack", _ATTACKS)
@pytest.mark.parametrize("method", _METHODS)
def test_others_train_as_if_it_had_failed_with_every_method(tmp_path: Path, method: Any, attack: str) -> None:
    _check(tmp_path, _config(method=method), attack)


@pytest.mark.parametrize("attack", ["1e30", "3e38"])
def test_weights_by_examples_overflow_nothing(tmp_path: Path, attack: str) -> None:
    _check(tmp_path, _config(rounds=1, server=ServerConfig(weight_by_examples=True)), attack)


def test_the_refusal_says_how_far_beyond_the_others_the_update_is(tmp_path: Path) -> None:
    # Without clipped gradients there is no bound by the steps alone.
    config = _config(rounds=1, client=ClientConfig(epochs=1, batch_size=8, lr=0.05, clip=0))
    _, _, told = _attacked(tmp_path, config, scaled(1e6))
    assert told[0]["failure"] == "outlier"
    reason = told[0]["reason"]
    assert reason.startswith("its update moves weights ")
    assert reason.endswith("× as far as the median client's (at most 20×)")
    assert 1e5 < float(reason.split()[4].removesuffix("×")) < 1e7


@pytest.mark.parametrize("logit", [1e300, 2e3, 50.0, -1e300])
def test_a_logit_that_steps_cannot_reach_settles_nothing(tmp_path: Path, logit: float) -> None:
    config = _config(method="dfnas", rounds=1)
    state, tensors, told = _attacked(tmp_path / "attacked", config, with_logit(logit))
    assert told[0]["failure"] == "outlier"
    assert "logit" in told[0]["reason"]
    run, _ = spoiled_run(
        tmp_path / "without",
        lambda update: Failure(update.task, "error", "gone") if update.task.client == _HOSTILE else update,
        config,
    )
    expected, without = train_run(run)
    assert state.method == expected.method
    assert same_bytes(tensors, without)


def test_a_resumed_run_remembers_the_rounds_before(tmp_path: Path) -> None:
    # Within what steps can do, so that only the rounds before tell.
    config = _config(rounds=3, client=ClientConfig(epochs=1, batch_size=8, lr=0.05, clip=0))
    change = from_round(3, scaled(1000))
    state, tensors, _ = _attacked(tmp_path / "whole", config, change)
    assert state.failures == {"outlier": 1}
    run, merged = simulated_run(tmp_path / "resumed", config), itertools.count(1)
    train_run(dataclasses.replace(run, should_stop=lambda: next(merged) == 2))
    checkpoint = load_checkpoint(newest_checkpoint(tmp_path / "resumed"), MICRO)
    assert len(checkpoint.state.past) == 2
    run = simulated_run(tmp_path / "resumed", config)
    run = dataclasses.replace(run, engine=HostileEngine(run.engine, {_HOSTILE: change}))
    resumed = train(run, checkpoint.state, checkpoint.models)
    assert (resumed.past, resumed.failures) == (state.past, state.failures)
    assert same_bytes(checkpoint.models.supernet, tensors)


@pytest.mark.parametrize(("clients", "magnitude"), [(2, 1e6), (2, 1e4), (1, 1e6)])
def test_where_nobody_can_compare_a_spoiled_merge_names_the_client_and_no_learning_rate(
    tmp_path: Path, clients: int, magnitude: float
) -> None:
    config = _config(
        clients=ClientsConfig(count=clients, per_round=clients),
        client=ClientConfig(epochs=1, batch_size=8, lr=0.05, clip=0),
    )
    run = simulated_run(tmp_path, config)
    hostile = clients - 1
    run = dataclasses.replace(run, engine=HostileEngine(run.engine, {hostile: scaled(magnitude)}))
    with pytest.raises(UserError, match=rf"^round 1 is refused: .*\(client {hostile} moved its weights") as caught:
        train_run(run)
    assert "--client.lr" not in str(caught.value)
    assert "leave that client out" in str(caught.value)


def test_without_a_factor_only_what_no_steps_can_do_is_refused(tmp_path: Path) -> None:
    config = _config(rounds=1, server=ServerConfig(outlier_factor=0))
    state, tensors, _ = _attacked(tmp_path, config, scaled(2))
    assert state.failures == {}
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    state, _, told = _attacked(tmp_path / "far", config, scaled(1e6))
    assert state.failures == {"outlier": 1}
    assert "steps of learning rate 0.05 with clipped gradients" in told[0]["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedpareto", "deepfednas"])
def test_a_run_on_digits_ends_as_accurate_as_without_the_hostile_client(tmp_path: Path, method: Any) -> None:
    clients, partition = ClientsConfig(count=6, per_round=6), PartitionConfig(alpha=10.0)
    client = ClientConfig(epochs=3, batch_size=16, lr=0.1)
    config = micro_config(tmp_path, method=method, rounds=12, clients=clients, partition=partition, client=client)
    prepared, tracker = new_run(config, SILENT), Recorder()
    run = assemble(prepared, tracker, never)
    run = dataclasses.replace(run, engine=HostileEngine(run.engine, {_HOSTILE: scaled(1e6)}))
    state = train(run, prepared.checkpoint.state, prepared.checkpoint.models)
    assert state.failures == {"outlier": 12}
    accuracy = tracker.records[-1].mean_accuracy
    assert accuracy is not None
    assert accuracy > 0.6
