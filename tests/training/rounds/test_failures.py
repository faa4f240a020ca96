"""Rounds in which clients fail."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.runs.federation import MICRO
from helpers.runs.simulation import (
    entry_of,
    fresh_start,
    micro_entries,
    recorder,
    same_bytes,
    short_config,
    smallest,
    spoiled_run,
    train_run,
    unspoiled,
)

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.evaluation import CheckpointConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.messages import Failure, Update, tensor_bytes
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.traffic import Traffic

_BIAS = "head.classifier.linear.bias"


def _nan(update: Update) -> Update:
    tensors = {name: tensor.clone() for name, tensor in update.tensors.items()}
    tensors[_BIAS][3] = float("nan")
    return dataclasses.replace(update, tensors=tensors)


def _misshapen(update: Update) -> Update:
    return dataclasses.replace(update, tensors={**update.tensors, _BIAS: torch.zeros(11)})


def _failed(update: Update) -> Failure:
    return Failure(update.task, "error", "its battery is empty", traffic=Traffic(down=update.traffic.down))


def _busy_config(**changes: Any) -> RunConfig:
    return short_config(clients=ClientsConfig(count=5, per_round=5), **changes)


def _spoil_three(update: Update) -> Update | Failure:
    """Spoil the updates of clients 0, 1 and 2, each in its own way."""
    spoils: list[Callable[[Update], Update | Failure]] = [_nan, _misshapen, _failed, unspoiled, unspoiled]
    return spoils[update.task.client](update)


def test_all_clients_are_sent_bytes_and_those_without_an_answer_send_none(tmp_path: Path) -> None:
    def silent(update: Update) -> Update | Failure:
        return _failed(update) if update.task.client < 3 else update

    run, engine = spoiled_run(tmp_path, silent, _busy_config())
    train_run(run)
    for record in recorder(run).records:
        sizes = {
            update.task.client: sum(tensor.nbytes for tensor in update.task.tensors.values())
            for update in engine.updates
            if update.task.round == record.round
        }
        assert record.traffic.down == sum(sizes.values())
        assert record.traffic.up == sizes[3] + sizes[4]


def test_failures_are_counted_by_kind_and_the_run_goes_on(tmp_path: Path) -> None:
    run, _ = spoiled_run(tmp_path, _spoil_three, _busy_config())
    state, tensors = train_run(run)
    assert state.round == 3
    assert state.failures == {"non-finite": 3, "shape": 3, "error": 3}
    assert load_checkpoint(newest_checkpoint(tmp_path), MICRO).state.failures == state.failures
    for record in recorder(run).records:
        assert record.failures == {"non-finite": 1, "shape": 1, "error": 1}
        told = {client["client"]: client for client in record.clients}
        assert {client: told[client].get("failure") for client in told} == {
            0: "non-finite", 1: "shape", 2: "error", 3: None, 4: None,
        }  # fmt: skip
        assert told[0]["reason"] == f"{_BIAS} holds NaN or infinity"
        assert told[2]["reason"] == "its battery is empty"
        assert {"examples", "loss"} <= told[3].keys()
        assert "loss" not in told[0]
        assert record.train_loss is not None
        assert np.isfinite(record.train_loss)
    assert recorder(run).clients[-1] == (3, 5, 5)
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_failed_clients_do_not_count_as_trained(tmp_path: Path) -> None:
    run, engine = spoiled_run(tmp_path, _spoil_three, _busy_config())
    state, _ = train_run(run)
    for counts in (state.counts.smallest, state.counts.largest):
        assert counts[:3] == (0, 0, 0)
    well = Counter(entry_of(update).macs for update in engine.updates if update.task.client > 2)
    assert state.trained == tuple(well[entry.macs] for entry in micro_entries())


def test_failed_updates_have_no_part_in_the_merge(tmp_path: Path) -> None:
    run, engine = spoiled_run(tmp_path, _spoil_three, _busy_config(rounds=1))
    start = fresh_start(run)
    before = {name: tensor.clone() for name, tensor in start.models.supernet.items()}
    train(run, *start)
    merged = [update for update in engine.updates if update.task.client > 2]
    # The weights of those who failed are missing; the mean is over the others' weights.
    low = torch.stack([update.tensors[_BIAS] for update in merged]).amin(dim=0)
    high = torch.stack([update.tensors[_BIAS] for update in merged]).amax(dim=0)
    assert ((low - 1e-6 <= start.models.supernet[_BIAS]) & (start.models.supernet[_BIAS] <= high + 1e-6)).all()
    untouched = [name for name in before if not any(name in update.tensors for update in merged)]
    assert all(torch.equal(start.models.supernet[name], before[name]) for name in untouched)


def test_when_the_smallest_network_always_fails_nobody_has_had_it(tmp_path: Path) -> None:
    config = short_config(method="deepfednas")
    run, _ = spoiled_run(
        tmp_path, lambda update: _failed(update) if update.task.architecture == smallest() else update, config
    )
    state, _ = train_run(run)
    assert state.counts.smallest == (0,) * 5
    assert state.trained[0] == 0
    assert sum(state.counts.largest) >= 3
    assert state.failures["error"] >= 3


@pytest.mark.parametrize(("every", "failing"), [(1, 2), (50, 2), (50, 1)])
def test_when_every_client_fails_the_run_ends_with_the_last_good_round_kept(
    tmp_path: Path, every: int, failing: int
) -> None:
    config = short_config(checkpoint=CheckpointConfig(every=every))
    run, engine = spoiled_run(tmp_path, lambda u: _nan(u) if u.task.round == failing else u, config)
    start = fresh_start(run)
    with pytest.raises(UserError, match=f"all 3 clients of round {failing} failed") as caught:
        train(run, *start)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{_BIAS} holds NaN or infinity" in message
    assert "--client.lr (now 0.05)" in message
    folder = newest_checkpoint(tmp_path)
    assert str(folder) in message
    found = load_checkpoint(folder, MICRO)
    assert found.state.round == failing - 1
    assert same_bytes(found.models.supernet, start.models.supernet)
    assert all(tensor.isfinite().all() for tensor in found.models.supernet.values())
    assert [record.round for record in recorder(run).records] == list(range(1, failing))
    # What was asked in vain is told all the same.
    (lost,) = recorder(run).lost
    assert (lost.round, lost.failures, lost.merged) == (failing, {"non-finite": 3}, False)
    assert [client["failure"] for client in lost.clients] == ["non-finite"] * 3
    assert lost.traffic.down == sum(tensor_bytes(u.task.tensors) for u in engine.updates if u.task.round == failing)
