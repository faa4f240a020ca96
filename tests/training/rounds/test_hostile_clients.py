"""One hostile client in a run: it is named, and the others train as if it had failed."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs.attacks import Change, HostileEngine, constant, from_round, scaled, with_logit
from helpers.runs.simulation import (
    recorder,
    same_bytes,
    short_config,
    simulated_run,
    spoiled_run,
    train_run,
)

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.run import ClientConfig, RunConfig, ServerConfig
from fedpareto.training.messages import Failure, Update
from fedpareto.training.runs.state import RunState

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
    assert reason.endswith(" times as far as the median client's (at most 20)")
    assert 1e5 < float(reason.split()[4]) < 1e7


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


def test_without_a_factor_only_what_no_steps_can_do_is_refused(tmp_path: Path) -> None:
    config = _config(rounds=1, server=ServerConfig(outlier_factor=0))
    state, tensors, _ = _attacked(tmp_path, config, scaled(2))
    assert state.failures == {}
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    state, _, told = _attacked(tmp_path / "far", config, scaled(1e6))
    assert state.failures == {"outlier": 1}
    assert "steps of learning rate 0.05 with clipped gradients" in told[0]["reason"]
