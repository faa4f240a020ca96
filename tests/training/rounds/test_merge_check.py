"""A merge that spoils the supernet ends the run before it is taken over, with the cause and the way on."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.runs.attacks import HostileEngine
from helpers.runs.federation import MICRO
from helpers.runs.simulation import (
    checkpoint_names,
    fresh_start,
    recorder,
    same_bytes,
    short_config,
    simulated_run,
)
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.aggregation.round_results import RoundResults
from fedpareto.training.aggregation.weighted_average import AVERAGING, ServerStep, WeightedAverage
from fedpareto.training.config.evaluation import CheckpointConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.evaluation.evaluator import Evaluation
from fedpareto.training.messages import Update
from fedpareto.training.rounds import loop
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint


class _Spoiling(WeightedAverage):
    """An aggregator that spoils what it merges from its second merge on."""

    spoil: Any = staticmethod(lambda tensors: None)

    def __init__(self, space: Any, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(space, tensors)
        self._merges = 0

    def write_mean(self, tensors: Tensors, velocity: Tensors | None = None, server: ServerStep = AVERAGING) -> None:
        super().write_mean(tensors, velocity, server)
        self._merges += 1
        if self._merges > 1:
            self.spoil(tensors)


def _spoilt(
    folder: Path, spoil: Any, monkeypatch: pytest.MonkeyPatch, config: RunConfig | None = None, **fields: Any
) -> tuple[UserError, Any]:
    kind = type("Kind", (_Spoiling,), {"spoil": staticmethod(spoil)})
    monkeypatch.setattr(loop, "new_aggregator", lambda config, space, tensors: kind(space, tensors))
    run = simulated_run(folder, config or short_config(), **fields)
    with pytest.raises(UserError) as raised:
        train(run, *fresh_start(run))
    return raised.value, run


def _set(value: float) -> Any:
    return lambda tensors: tensors["head.classifier.linear.bias"].fill_(value)


def _grown(tensors: Tensors) -> None:
    for tensor in tensors.values():
        tensor.mul_(100)


def _unstable(tensors: Tensors) -> None:
    tensors["head.classifier.linear.bias"][0] = 800.0


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_set(float("nan")), r"head\.classifier\.linear\.bias has NaN or infinity"),
        (_set(float("inf")), r"head\.classifier\.linear\.bias has NaN or infinity"),
        (_set(3e10), r"head\.classifier\.linear\.bias has a weight of 3\.0e\+10, and no network that trains"),
        (_grown, r"the norm of all weights has risen from \d+ to [\d.e+]+"),
        (_unstable, r"has risen from"),
    ],
)
def test_a_spoiled_merge_is_refused_and_the_round_before_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, words: str
) -> None:
    error, run = _spoilt(tmp_path, spoil, monkeypatch)
    assert re.search(rf"^round 2 is refused: merged, .*{words}", str(error))
    assert "client " in str(error)
    assert f"round 1 is kept in {tmp_path / 'checkpoints' / 'round-000001'}" in str(error)
    assert f"train-supernet --resume {tmp_path}" in str(error)
    assert "\n" not in str(error)
    assert [lost.round for lost in recorder(run).lost] == [2]
    assert checkpoint_names(tmp_path)[-1] == "round-000001"


def test_a_round_without_a_checkpoint_is_written_as_it_was_before_the_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = short_config(checkpoint=CheckpointConfig(every=50, keep=1))
    _spoilt(tmp_path / "rare", _set(float("nan")), monkeypatch, rare)
    _spoilt(tmp_path / "often", _set(float("nan")), monkeypatch)
    kept, expected = (load_checkpoint(newest_checkpoint(tmp_path / name), MICRO) for name in ("rare", "often"))
    assert kept.state.round == 1
    assert same_bytes(kept.models.supernet, expected.models.supernet)


def test_losses_of_clients_tell_where_the_server_has_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind:
        def probe(self, tensors: Any, entries: Any) -> Evaluation:
            del tensors, entries
            return Evaluation()

    def losing(update: Update) -> Update:
        return dataclasses.replace(update, loss=1e5) if update.task.round == 2 else update

    run = simulated_run(tmp_path, short_config(), evaluator=Blind())
    run = dataclasses.replace(run, engine=HostileEngine(run.engine, dict.fromkeys(range(5), losing)))
    with pytest.raises(UserError, match=r"round 2 is refused.*the loss of the median client has risen from"):
        train(run, *fresh_start(run))


def test_one_clients_doing_is_not_answered_with_a_lower_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RoundResults, "moves", property(lambda self: dict.fromkeys(self.accepted, 1.0)))
    error, _ = _spoilt(tmp_path / "all", _set(3e10), monkeypatch)
    assert "no client stands out: if training diverged, start a new run with a lower --client.lr" in str(error)
    monkeypatch.setattr(
        RoundResults,
        "moves",
        property(lambda self: {c: 500.0 if c == max(self.accepted) else 1.0 for c in self.accepted}),
    )
    error, _ = _spoilt(tmp_path / "one", _set(3e10), monkeypatch)
    assert re.search(
        r"\(client \d moved its weights by 5e\+02 of their norm, the median of the others by 1,", str(error)
    )
    assert "--client.lr" not in str(error)
