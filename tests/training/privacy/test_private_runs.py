"""Runs with clipping and noise: what they record, how they resume, what they say."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from helpers.runs.federation import MICRO, finished_run, read_metrics
from helpers.runs.simulation import (
    entry_of,
    fresh_start,
    micro_entries,
    recorder,
    same_bytes,
    short_config,
    simulated_run,
    spoiled_run,
    train_run,
    unspoiled,
)

from fedpareto.supernet.networks.weights import views
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.messages import Failure, Update
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.runs.folder import NOISE_KEY

_KEY = 12345


def _private(**changes: object) -> RunConfig:
    config = short_config(privacy=PrivacyConfig(clip=0.5, noise=0.3))
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def test_rounds_record_the_account_and_the_clipped_share(tmp_path: Path) -> None:
    exact = _private(privacy=PrivacyConfig(clip=0.5, noise=0.3, statistics="exact"))
    run = simulated_run(tmp_path, exact, noise_key=_KEY)
    state, tensors = train_run(run)
    records = recorder(run).records
    spent = [record.epsilon or 0.0 for record in records]
    assert 0 < spent[0] < spent[-1]
    assert spent == sorted(spent)
    assert {record.delta for record in records} == {1e-5}
    assert all(record.clipped is not None and 0 <= record.clipped <= 1 for record in records)
    drawn = [client["client"] for record in records for client in record.clients]
    assert len(state.exposure) == 5
    assert all(0 < spent <= drawn.count(client) for client, spent in enumerate(state.exposure) if client in drawn)
    assert all(spent == 0 for client, spent in enumerate(state.exposure) if client not in drawn)
    assert load_checkpoint(newest_checkpoint(tmp_path), MICRO).state == state
    assert not same_bytes(tensors, train_run(simulated_run(tmp_path / "other", _private(), noise_key=_KEY + 1))[1])


def test_a_run_merges_with_noise_of_the_clip_and_the_largest_weight_of_its_round(tmp_path: Path) -> None:
    """One round as the docstring's formula has it, with the sums' noise drawn beside."""
    config = _private(method="deepfednas", rounds=1, privacy=PrivacyConfig(clip=0.05, noise=2.0))
    run, engine = spoiled_run(tmp_path, unspoiled, config, noise_key=_KEY)
    start = fresh_start(run)
    before = {name: tensor.double().clone() for name, tensor in start.models.supernet.items()}
    train(run, *start)
    beta = recorder(run).records[0].beta
    assert beta is not None
    big = next(update for update in engine.updates if entry_of(update) == micro_entries()[-1])
    weights = {update.task.client: beta if update is big else (1 - beta) / 2 for update in engine.updates}
    totals, covers = ({name: torch.zeros_like(tensor) for name, tensor in before.items()} for _ in range(2))
    for update in engine.updates:
        architecture, weight = update.task.architecture, weights[update.task.client]
        sent = views(MICRO, before, architecture)
        change = {name: tensor.double() - sent[name] for name, tensor in update.tensors.items()}
        norm = math.sqrt(sum(float(tensor.square().sum()) for tensor in change.values()))
        assert norm > 0.05
        for name, view in views(MICRO, totals, architecture).items():
            view.add_(0.05 / norm * weight * change[name])
        for view in views(MICRO, covers, architecture).values():
            view.add_(weight)
    left = torch.cat(
        [
            ((after.double() - before[name]) * covers[name] - totals[name])[covers[name] > 0]
            for name, after in start.models.supernet.items()
        ]
    )
    deviation = 2.0 * 0.05 * max(weights.values())
    assert float(left.std()) == pytest.approx(deviation, rel=5 / math.sqrt(2 * len(left)))
    assert abs(float(left.mean())) < 5 * deviation / math.sqrt(len(left))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_resumed_private_run_ends_with_the_bytes_of_one_never_interrupted(tmp_path: Path, momentum: float) -> None:
    config = _private(server=ServerConfig(momentum=momentum))
    whole = simulated_run(tmp_path / "whole", config, noise_key=_KEY)
    state, tensors = train_run(whole)
    train_run(simulated_run(tmp_path / "parts", config, should_stop=lambda: True, noise_key=_KEY))
    checkpoint = load_checkpoint(newest_checkpoint(tmp_path / "parts"), MICRO)
    assert checkpoint.state.round == 1
    second = simulated_run(tmp_path / "parts", config, noise_key=_KEY)
    assert train(second, checkpoint.state, checkpoint.models) == state
    assert same_bytes(checkpoint.models.supernet, tensors)
    assert [record.epsilon for record in recorder(second).records] == [
        record.epsilon for record in recorder(whole).records[1:]
    ]


def test_who_fails_has_no_say_in_later_plans_nor_in_the_account(tmp_path: Path) -> None:
    exact = PrivacyConfig(clip=0.5, noise=0.3, statistics="exact")
    config = _private(rounds=4, clients=ClientsConfig(count=5, per_round=3), privacy=exact)

    def failing(update: Update) -> Update | Failure:
        return Failure(update.task, "error", "its images are too dark") if update.task.client % 2 else update

    plans, accounts = [], []
    for spoil in (unspoiled, failing):
        run, engine = spoiled_run(tmp_path / spoil.__name__, spoil, config, noise_key=_KEY)
        state, _ = train_run(run)
        plans.append([(update.task.round, update.task.client, entry_of(update)) for update in engine.updates])
        accounts.append((state.exposure, state.counts))
    assert plans[0] == plans[1]
    assert accounts[0] == accounts[1]
    assert any(recorder(run).records[number].failures for number in range(4))


def test_clipping_alone_has_no_epsilon(tmp_path: Path) -> None:
    run = simulated_run(tmp_path, _private(privacy=PrivacyConfig(clip=1e-3)))
    train_run(run)
    assert {(record.epsilon, record.delta, record.clipped) for record in recorder(run).records} == {(None, None, 1.0)}


def test_a_run_that_is_not_private_has_no_account(tmp_path: Path) -> None:
    run = simulated_run(tmp_path)
    state, _ = train_run(run)
    assert state.exposure == ()
    assert {(record.epsilon, record.delta, record.clipped) for record in recorder(run).records} == {(None, None, None)}


def test_noise_without_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a ledger"):
        simulated_run(tmp_path, _private())


def test_the_command_reports_the_guarantee_and_keeps_its_key_to_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(
        tmp_path,
        rounds=2,
        privacy=PrivacyConfig(clip=1.0, noise=1.0, delta=1e-4),
        evaluation=EvaluationConfig(every=2, probes=2, calibration_images=64, batch_size=64),
        checkpoint=CheckpointConfig(every=1, keep=2),
    )
    last = read_metrics(run)[-1]
    assert last["delta"] == 1e-4
    told = capsys.readouterr().err
    assert f"differentially private: (ε, δ) = ({last['epsilon']:.2f}, 0.0001) for each client" in " ".join(told.split())
    key = (run / NOISE_KEY).read_text().strip()
    assert len(key) == 64
    assert (run / NOISE_KEY).stat().st_mode & 0o077 == 0
    held = [path for path in run.rglob("*") if path.is_file() and path.name != NOISE_KEY]
    assert not [path for path in held if key.encode() in path.read_bytes()]
    state = json.loads((newest_checkpoint(run) / "state.json").read_text())["state"]
    assert len(state["exposure"]) == 6
    # Fine-tuning has no noise.
    from fedpareto.search.cli import main

    with pytest.raises(SystemExit) as caught:
        main(
            ["--run", str(run), "--flops-budget", "1M", "--finetune-epochs", "1", "--output", str(tmp_path / "subnet")]
        )
    assert caught.value.code == 2
    assert "leave out --finetune-epochs" in " ".join(capsys.readouterr().err.split())
    # Every run has a key of its own, whatever its seed.
    (tmp_path / "other").mkdir()
    other = finished_run(tmp_path / "other", rounds=1, privacy=PrivacyConfig(clip=1.0, noise=1.0))
    assert (other / NOISE_KEY).read_text().strip() != key
