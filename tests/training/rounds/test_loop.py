import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.runs.federation import MICRO
from helpers.runs.simulation import (
    Recorder,
    checkpoint_names,
    entry_of,
    fresh_start,
    micro_entries,
    own_memory,
    recorder,
    same_bytes,
    short_config,
    simulated_run,
    spoiled_run,
    train_run,
    unspoiled,
)

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.training.clients.capabilities import Capability
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.evaluation import CheckpointConfig, Metric
from fedpareto.training.config.methods.registry import METHODS
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.engines.protocol import Engine
from fedpareto.training.evaluation.evaluator import Evaluation, Probe
from fedpareto.training.evaluation.measures import Measures
from fedpareto.training.messages import Failure, Task, Update
from fedpareto.training.methods.protocol import MethodContext
from fedpareto.training.methods.registry import make_method
from fedpareto.training.methods.schedules import largest_weight, learning_rate
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.trackers.records import RoundRecord

_BIAS = "head.classifier.linear.bias"


def _without_times(record: RoundRecord) -> dict[str, Any]:
    fields = record.to_json()
    for name in ("seconds", "sgd_seconds", "overhead_share", "evaluation_seconds"):
        del fields[name]
    return fields


def test_every_round_is_recorded_and_the_state_adds_them_up(tmp_path: Path) -> None:
    run = simulated_run(tmp_path, short_config(method="deepfednas"))
    state, _ = train_run(run)
    told = recorder(run)
    assert [record.round for record in told.records] == [1, 2, 3]
    assert told.clients == [(number, done, 3) for number in (1, 2, 3) for done in (1, 2, 3)]
    assert state.round == 3
    assert state.traffic.down == sum(record.traffic.down for record in told.records)
    assert state.traffic.up == sum(record.traffic.up for record in told.records)
    assert state.failures == {}
    times = Counter(client["macs"] for record in told.records for client in record.clients)
    assert state.trained == tuple(times[entry.macs] for entry in micro_entries())
    assert told.records[-1].trained == state.trained
    # Others may draw the smallest and the largest as well.
    assert sum(state.counts.smallest) == state.trained[0] >= 3
    assert sum(state.counts.largest) == state.trained[-1] >= 3


def test_records_hold_the_rate_and_the_weight_of_their_round(tmp_path: Path) -> None:
    run = simulated_run(tmp_path, short_config(method="deepfednas"))
    train_run(run)
    for index, record in enumerate(recorder(run).records):
        assert record.lr == learning_rate("cosine", 0.05, index, 3)
        assert record.beta == largest_weight(index, 3, 3, 0.9)
    assert len({record.lr for record in recorder(run).records}) == 3


def test_tasks_carry_the_rate_of_the_round_and_a_seed_of_their_own(tmp_path: Path) -> None:
    run, engine = spoiled_run(tmp_path, unspoiled)
    train_run(run)
    tasks = [update.task for update in engine.updates]
    assert [task.round for task in tasks] == [1] * 3 + [2] * 3 + [3] * 3
    assert len({task.seed for task in tasks}) == 9
    assert {task.learning_rate for task in tasks} == {record.lr for record in recorder(run).records}


@pytest.mark.parametrize("method", METHODS.names())
def test_two_runs_of_one_seed_give_the_same_bytes_and_another_seed_others(tmp_path: Path, method: Any) -> None:
    ended = []
    for seed in (0, 0, 1):
        run = simulated_run(tmp_path, short_config(seed=seed, method=method))
        state, tensors = train_run(run)
        ended.append((state, tensors, [_without_times(record) for record in recorder(run).records]))
    (state, tensors, records), (state_again, tensors_again, records_again), (_, other, _) = ended
    assert same_bytes(tensors, tensors_again)
    assert state == state_again
    assert records == records_again
    assert not same_bytes(tensors, other)


def test_global_generators_play_no_part(tmp_path: Path) -> None:
    def drawn() -> tuple[float, float, float]:
        return torch.rand(()).item(), np.random.random(), random.random()  # noqa: S311

    def seed() -> None:
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)

    seed()
    undisturbed = drawn()
    seed()
    train_run(simulated_run(tmp_path))
    assert drawn() == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "superfednas"},
        {"method": "fedavg"},
        {"method": "cotrain"},
        {"server": ServerConfig(momentum=0.5, weight_by_examples=True)},
        {"method": "cotrain", "compute": "20M", "server": ServerConfig(momentum=0.5)},
    ],
)
def test_a_resumed_run_ends_with_the_bytes_of_one_never_interrupted(
    tmp_path: Path, changes: dict[str, Any], stop_after: int
) -> None:
    config = short_config(**changes)
    whole = simulated_run(tmp_path / "whole", config)
    state, tensors = train_run(whole)
    answers = iter([False] * (stop_after - 1) + [True])
    first = simulated_run(tmp_path / "parts", config, should_stop=lambda: next(answers))
    train_run(first)
    checkpoint = load_checkpoint(newest_checkpoint(tmp_path / "parts"), MICRO)
    assert checkpoint.state.round == stop_after
    second = simulated_run(tmp_path / "parts", config)
    resumed = train(second, checkpoint.state, checkpoint.models)
    assert same_bytes(checkpoint.models.supernet, tensors)
    assert resumed == state
    # An evaluation that was owed is recorded anew.
    told = {record.round: record for record in [*recorder(first).records, *recorder(second).records]}
    assert list(map(_without_times, told.values())) == list(map(_without_times, recorder(whole).records))


def test_a_run_asked_to_stop_ends_at_the_edge_of_the_round_with_a_checkpoint(tmp_path: Path) -> None:
    config = short_config(checkpoint=CheckpointConfig(every=50))
    run = simulated_run(tmp_path, config, should_stop=lambda: True)
    state, tensors = train_run(run)
    assert state.round == 1
    assert [record.round for record in recorder(run).records] == [1]
    found = load_checkpoint(newest_checkpoint(tmp_path), MICRO)
    assert found.state == state
    assert same_bytes(found.models.supernet, tensors)
    assert found.config == run.config_mapping


def test_a_finished_run_trains_no_further(tmp_path: Path) -> None:
    run = simulated_run(tmp_path)
    start = fresh_start(run)
    done = dataclasses.replace(start.state, round=3)
    assert train(run, done, start.models) == done
    assert recorder(run).records == []


def test_bytes_are_those_of_the_slices_sent_and_answered(tmp_path: Path) -> None:
    run, engine = spoiled_run(tmp_path, unspoiled)
    train_run(run)
    for record in recorder(run).records:
        updates = [update for update in engine.updates if update.task.round == record.round]
        sizes = [
            sum(4 * int(np.prod(shape)) for shape in tensor_shapes(MICRO, update.task.architecture).values())
            for update in updates
        ]
        assert record.traffic.down == sum(sizes)
        assert record.traffic.up == sum(sizes)
        assert record.traffic.down == sum(t.nbytes for update in updates for t in update.task.tensors.values())


def test_overhead_is_the_share_of_the_round_that_is_not_local_training(tmp_path: Path) -> None:
    def measured(update: Update) -> Update:
        # One after another, however long they really took.
        started, seconds = float(update.task.client), 0.001 * (update.task.client + 1)
        return dataclasses.replace(update, started=started, sgd_seconds=seconds)

    run, engine = spoiled_run(tmp_path, measured)
    train_run(run)
    for record in recorder(run).records:
        clients = [update.task.client for update in engine.updates if update.task.round == record.round]
        assert record.sgd_seconds == pytest.approx(sum(0.001 * (client + 1) for client in clients))
        assert record.sgd_seconds is not None
        assert record.seconds is not None
        assert record.overhead_share == pytest.approx(1 - record.sgd_seconds / record.seconds)


def test_time_in_a_round_is_local_training_and_less_than_a_whole_overhead(tmp_path: Path) -> None:
    run, engine = spoiled_run(tmp_path, unspoiled)
    train_run(run)
    for record in recorder(run).records:
        updates = [update for update in engine.updates if update.task.round == record.round]
        assert record.sgd_seconds == pytest.approx(sum(update.sgd_seconds for update in updates))
        assert record.overhead_share is not None
        assert 0 < record.overhead_share < 1


def test_the_training_loss_is_the_mean_over_clients_weighted_by_their_images(tmp_path: Path) -> None:
    def told(update: Update) -> Update:
        client = update.task.client
        return dataclasses.replace(update, examples=client + 1, loss=10.0 * client)

    run, engine = spoiled_run(tmp_path, told)
    train_run(run)
    for record in recorder(run).records:
        clients = [update.task.client for update in engine.updates if update.task.round == record.round]
        mean = sum((client + 1) * 10.0 * client for client in clients) / sum(client + 1 for client in clients)
        assert record.train_loss == pytest.approx(mean)
        assert {c["client"]: (c["examples"], c["loss"]) for c in record.clients} == {
            client: (client + 1, 10.0 * client) for client in clients
        }


def test_one_client_with_the_largest_network_replaces_the_supernet(tmp_path: Path) -> None:
    config = short_config(rounds=1, clients=ClientsConfig(count=3, per_round=1))
    largest = micro_entries()[-1:]
    run, engine = spoiled_run(tmp_path, unspoiled, config)
    method = make_method(MethodContext(config, MICRO, largest, [Capability()] * 3))
    run = dataclasses.replace(run, method=method, entries=largest)
    _, tensors = train_run(run)
    (update,) = engine.updates
    assert same_bytes(tensors, dict(update.tensors))


@pytest.mark.parametrize("by_examples", [False, True])
def test_updates_are_merged_with_the_weights_of_the_round(tmp_path: Path, by_examples: bool) -> None:
    def told(update: Update) -> Update:
        return dataclasses.replace(update, examples=update.task.client + 1)

    config = short_config(method="deepfednas", rounds=1, server=ServerConfig(0.7, weight_by_examples=by_examples))
    run, engine = spoiled_run(tmp_path, told, config)
    _, tensors = train_run(run)
    largest = [update for update in engine.updates if entry_of(update) == micro_entries()[-1]]
    weights = [
        (0.7 if update is largest[0] else 0.15) * (update.task.client + 1 if by_examples else 1)
        for update in engine.updates
    ]
    # Every client covers the classifier's biases.
    expected = sum(
        weight * update.tensors[_BIAS].double() for weight, update in zip(weights, engine.updates, strict=True)
    ) / sum(weights)
    torch.testing.assert_close(tensors[_BIAS].double(), expected, atol=1e-6, rtol=1e-5)


class _Reversed:
    """Answers in the opposite order."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    def available(self) -> Sequence[int]:
        return self._inner.available()

    def examples(self, client: int) -> int:
        return self._inner.examples(client)

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        yield from [own_memory(update) for update in self._inner.run(tasks) if isinstance(update, Update)][::-1]


def test_answers_may_come_in_any_order(tmp_path: Path) -> None:
    config = short_config(rounds=1)
    run = simulated_run(tmp_path, config)
    _, tensors = train_run(run)
    backwards = dataclasses.replace(run, engine=_Reversed(run.engine), tracker=Recorder())
    _, other = train_run(backwards)
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=1e-5)
    assert [c["client"] for c in recorder(run).records[0].clients] == [
        c["client"] for c in recorder(backwards).records[0].clients
    ]


def test_probes_are_evaluated_when_due_and_after_the_last_round(tmp_path: Path) -> None:
    run = simulated_run(tmp_path)
    state, tensors = train_run(run)
    probes = run.method.probes(state)
    first, second, third = recorder(run).records
    assert first.probes == ()
    assert first.evaluation_seconds == 0
    assert [probe.macs for probe in second.probes] == [probes[0].macs, probes[-1].macs]
    assert list(third.probes) == run.evaluator.probe(tensors, probes).probes
    means = {record.round: record.mean_accuracy or 0.0 for record in (second, third)}
    assert state.best is not None
    assert state.best.accuracy == max(means.values())
    assert means[state.best.round] == state.best.accuracy


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 2), ("balanced", 4), ("macro-f1", 6)])
def test_the_metric_says_which_round_is_best(tmp_path: Path, metric: Metric, best: int) -> None:
    values = iter([(0.9, 0.1, 0.2), (0.8, 0.7, 0.3), (0.7, 0.6, 0.4)])

    @dataclasses.dataclass(frozen=True)
    class Scripted:
        def probe(self, tensors: Tensors, entries: Any) -> Evaluation:
            del tensors, entries
            accuracy, balanced, f1 = next(values)
            return Evaluation([Probe(1, 1, accuracy, 9, Measures(balanced, f1, None, None, None, 0.5, 2, ()))])

    config = short_config(rounds=6)
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, metric=metric))
    state, _ = train_run(simulated_run(tmp_path, config, evaluator=Scripted()))
    assert state.best is not None
    assert state.best.round == best


def test_the_best_round_is_the_first_of_the_highest_accuracy_and_is_kept(tmp_path: Path) -> None:
    accuracies = iter([0.25, 0.75, 0.5, 0.75])
    config = short_config(rounds=8, checkpoint=CheckpointConfig(every=50, keep=1))

    @dataclasses.dataclass(frozen=True)
    class Scripted:
        def probe(self, tensors: Tensors, entries: Any) -> Evaluation:
            del tensors, entries
            return Evaluation([Probe(1, 1, next(accuracies))])

    run = simulated_run(tmp_path, config, evaluator=Scripted())
    state, _ = train_run(run)
    assert state.best is not None
    assert (state.best.round, state.best.accuracy) == (4, 0.75)
    assert checkpoint_names(tmp_path) == ["round-000004", "round-000008"]
    assert recorder(run).checkpoints == [
        ("round-000002", ["best"]), ("round-000004", ["best"]), ("round-000008", ["final"]),
    ]  # fmt: skip


def test_checkpoints_are_written_as_often_as_asked_for_and_after_the_last_round(tmp_path: Path) -> None:
    config = short_config(rounds=5, checkpoint=CheckpointConfig(every=2, keep=50))
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, every=50))
    run = simulated_run(tmp_path, config)
    state, tensors = train_run(run)
    assert checkpoint_names(tmp_path) == ["round-000002", "round-000004", "round-000005"]
    assert recorder(run).checkpoints == [("round-000005", ["best", "final"])]
    found = load_checkpoint(newest_checkpoint(tmp_path), MICRO)
    assert found.state == state
    assert same_bytes(found.models.supernet, tensors)


def test_a_record_is_told_before_its_checkpoint_is_written(tmp_path: Path) -> None:
    class Looking(Recorder):
        def round_done(self, record: RoundRecord) -> None:
            super().round_done(record)
            seen.append((tmp_path / "checkpoints" / f"round-{record.round:06d}").exists())

    seen: list[bool] = []
    train_run(simulated_run(tmp_path, tracker=Looking()))
    assert seen == [False, False, False]
