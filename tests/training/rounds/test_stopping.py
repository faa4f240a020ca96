"""Runs that are stopped by signals, at places that are known: in a step, in an evaluation, between rounds."""

import dataclasses
import json
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.runs.federation import MICRO
from helpers.runs.simulation import WrappedEngine, fresh_start, recorder, same_bytes, short_config, simulated_run
from torch import Tensor

from fedpareto.cache.entries import CacheEntry
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.engines.protocol import Engine
from fedpareto.training.evaluation.evaluator import Evaluation, ProbeEvaluator
from fedpareto.training.messages import Failure, Task, Update
from fedpareto.training.rounds.interrupt import StopRequest
from fedpareto.training.rounds.loop import train
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.trackers.records import RoundRecord, record_from_json

INT, TERM = signal.SIGINT, signal.SIGTERM

_TIMES = ("seconds", "sgd_seconds", "overhead_share", "evaluation_seconds")


class _InterruptedEngine(WrappedEngine):
    """Sends a request signals when the first client of some round has answered, then goes on."""

    def __init__(self, inner: Engine, request: StopRequest, number: int, signals: Sequence[int]) -> None:
        super().__init__(inner)
        self._request, self._number, self._signals = request, number, list(signals)

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        for answer in self._inner.run(tasks):
            yield answer
            assert isinstance(answer, Update)
            while answer.task.round == self._number and self._signals:
                self._request.hear(self._signals.pop(0), None)


class _InterruptedEvaluator:
    """Sends a request a signal in its evaluation number ``when``, then goes on."""

    def __init__(self, inner: ProbeEvaluator, request: StopRequest, when: int, number: int) -> None:
        self._inner, self._request, self._left, self._number = inner, request, when, number

    def probe(self, tensors: Mapping[str, Tensor], entries: Sequence[CacheEntry]) -> Evaluation:
        self._left -= 1
        if self._left == 0:
            self._request.hear(self._number, None)
        return self._inner.probe(tensors, entries)


def _stopped_run(folder: Path, config: Any, where: str, number: int, signals: Sequence[int]) -> Run:
    request = StopRequest(str)
    run = simulated_run(folder, config, should_stop=request, interruptible=request)
    if where == "step":
        return dataclasses.replace(run, engine=_InterruptedEngine(run.engine, request, number, signals))
    return dataclasses.replace(run, evaluator=_InterruptedEvaluator(run.evaluator, request, number, signals[0]))


def _resumed(folder: Path, config: Any) -> tuple[Run, Any, Any]:
    checkpoint = load_checkpoint(newest_checkpoint(folder), MICRO)
    run = simulated_run(folder, config)
    state = train(run, checkpoint.state, checkpoint.models)
    return run, state, checkpoint.models.supernet


def _known(records: Iterable[RoundRecord]) -> list[dict[str, Any]]:
    """Return the last record of every round without what a clock says."""
    last = {record.round: {**record.to_json(), **dict.fromkeys(_TIMES)} for record in records}
    return [last[number] for number in sorted(last)]


_PLACES = [
    ("step", 1, [TERM]),
    ("step", 2, [INT]),
    ("step", 2, [INT, INT]),
    ("step", 3, [TERM]),
    ("step", 4, [INT]),
    ("evaluation", 1, [INT]),
    ("evaluation", 2, [TERM]),
]


@pytest.mark.parametrize(
    ("method", "where", "number", "signals"),
    [
        *(("deepfednas", *place) for place in _PLACES),
        *((method, *_PLACES[3]) for method in ("cotrain", "dfnas", "decnas")),
        *(pytest.param(method, *_PLACES[5], marks=pytest.mark.slow) for method in ("cotrain", "dfnas", "decnas")),
    ],
)
def test_a_run_stopped_anywhere_and_resumed_ends_as_one_that_never_was(
    tmp_path: Path, method: str, where: str, number: int, signals: Sequence[int]
) -> None:
    config = short_config(
        method=method,
        rounds=4,
        evaluation=EvaluationConfig(every=2, probes=2, calibration_images=16, batch_size=16),
        checkpoint=CheckpointConfig(every=3, keep=9),
    )
    whole = simulated_run(tmp_path / "whole", config)
    start = fresh_start(whole)
    expected = train(whole, *start)
    stopped = _stopped_run(tmp_path / "parts", config, where, number, signals)
    state = train(stopped, *fresh_start(stopped))
    newest = load_checkpoint(newest_checkpoint(tmp_path / "parts"), MICRO)
    assert newest.state == state
    second, found, tensors = _resumed(tmp_path / "parts", config)
    assert found == expected
    assert found.owed is None
    assert same_bytes(tensors, start.models.supernet)
    assert _known([*recorder(stopped).records, *recorder(second).records]) == _known(recorder(whole).records)
    if expected.best is not None:
        name = f"checkpoints/round-{expected.best.round:06d}/supernet.safetensors"
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_evaluation_that_is_owed_is_in_the_checkpoint_and_no_round_is_trained_before_it(tmp_path: Path) -> None:
    config = short_config()
    stopped = _stopped_run(tmp_path, config, "step", 2, [INT])
    state = train(stopped, *fresh_start(stopped))
    assert state.round == 2
    assert state.owed is not None
    last = recorder(stopped).records[-1]
    assert (last.round, last.owed, last.probes) == (2, True, ())
    assert record_from_json(json.loads(state.owed)) == dataclasses.replace(last, owed=False)
    # Stopped once more before it is made: it is still owed.
    again = simulated_run(tmp_path, config, should_stop=lambda: True)
    checkpoint = load_checkpoint(newest_checkpoint(tmp_path), MICRO)
    assert train(again, checkpoint.state, checkpoint.models).owed is not None
    assert [record.owed for record in recorder(again).records] == [True]
    second, _, _ = _resumed(tmp_path, config)
    assert [(record.round, record.owed) for record in recorder(second).records] == [(2, False), (3, False)]
    assert len(recorder(second).records[0].probes) == 2


def test_an_abandoned_round_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    config = short_config(checkpoint=CheckpointConfig(every=50))
    stopped = _stopped_run(tmp_path, config, "step", 2, [TERM])
    state = train(stopped, *fresh_start(stopped))
    assert state.round == 1
    assert newest_checkpoint(tmp_path).name == "round-000001"
    assert [record.round for record in recorder(stopped).records] == [1]
