"""The last round under a limit on compute: as small as what is left, whatever the method."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.networks.strategies import runs
from helpers.runs.federation import MICRO, micro_recipe, random_images
from helpers.runs.simulation import (
    fresh_start,
    largest,
    micro_entries,
    micro_task,
    random_architectures,
    recorder,
    same_bytes,
    short_config,
    simulated_run,
    smallest,
    spoiled_run,
    train_client,
    train_run,
    unspoiled,
)
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.fitness.score import macs_of
from fedpareto.training.aggregation.round_results import RoundPlan
from fedpareto.training.clients.trainer import LocalTrainer
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.methods import CoTrainConfig, DecNasConfig, DfnasConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.execution.profile import Profile
from fedpareto.training.local_objective import CoTraining, Standard
from fedpareto.training.messages import Failure, Update
from fedpareto.training.methods.schedules import learning_rate
from fedpareto.training.rounds.last_round import shortened, step_macs, steps_for
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.runs.progress import Progress, extent

#: Micro clients have two steps an epoch.
_EPOCHS = 8


def _config(compute: int, **changes: Any) -> RunConfig:
    client = ClientConfig(epochs=_EPOCHS, batch_size=8, lr=0.01)
    return short_config(rounds=1, client=client, compute=str(compute), **changes)


_UNEQUAL = ClientsConfig(
    count=5, per_round=4, max_macs=tuple(str(micro_entries()[index].macs) for index in (1, 3, 5, 2, 4))
)

_METHODS: dict[str, dict[str, Any]] = {
    "deepfednas": {},
    "superfednas": {"method": "superfednas"},
    "fedavg": {"method": "fedavg"},
    "cotrain": {"method": "cotrain"},
    "cotrain-extremes": {"method": "cotrain", "cotrain": CoTrainConfig(networks="extremes")},
    "cotrain-smallest": {"method": "cotrain", "cotrain": CoTrainConfig(networks="smallest")},
    "dfnas": {"method": "dfnas", "dfnas": DfnasConfig(lr=0.1)},
    "decnas": {"method": "decnas", "decnas": DecNasConfig(budget="110K", step=0.3, least_rounds=1, most_rounds=1)},
    "unequal": {"clients": _UNEQUAL},
    "unequal-cotrain": {"method": "cotrain", "clients": _UNEQUAL},
    "one-client": {"clients": ClientsConfig(count=5, per_round=1)},
}


#: What ends as another one does but for the networks that it trains.
_ALIKE = ("superfednas", "cotrain-extremes", "cotrain-smallest", "unequal-cotrain")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, id=name, marks=[pytest.mark.slow] if name in _ALIKE else [])
        for name, changes in _METHODS.items()
    ],
)
def test_every_method_computes_what_it_may_to_within_a_hundredth(tmp_path: Path, changes: dict[str, Any]) -> None:
    limit = 131_000_000
    if changes.get("method") == "dfnas":
        # A step of each client must be less than a hundredth, as it can be too much.
        limit *= 3
    run, engine = spoiled_run(tmp_path, unspoiled, _config(limit, **changes))
    state, _ = train_run(run)
    records = recorder(run).records
    assert abs(state.compute - limit) <= 0.01 * limit
    assert state.compute == sum(record.compute for record in records)
    assert [record.done == 1 for record in records] == [False] * (len(records) - 1) + [True]
    assert records[-1].probes
    shortened_rounds = {update.task.round for update in engine.updates if update.task.steps is not None}
    # What path sampling computes shows only as it goes.
    assert len(shortened_rounds) <= (6 if run.config.method == "dfnas" else 2)
    assert shortened_rounds <= set(range(state.round - 5, state.round + 1))


def test_a_limit_below_one_step_of_each_client_ends_after_one_step_of_each(tmp_path: Path) -> None:
    run, engine = spoiled_run(tmp_path, unspoiled, _config(1000))
    state, _ = train_run(run)
    assert state.round == 1
    assert [update.task.steps for update in engine.updates] == [1, 1, 1]
    assert state.compute == sum(8 * macs_of(MICRO, update.task.architecture) for update in engine.updates)


@pytest.mark.slow
def test_rates_are_those_of_a_longer_run_until_the_last_round_and_resuming_changes_no_byte(tmp_path: Path) -> None:
    config = _config(130_000_000)
    run = simulated_run(tmp_path / "whole", config)
    _, tensors = train_run(run)
    done = 0
    for record in recorder(run).records:
        assert record.lr == learning_rate("cosine", 0.01, done, 130_000_000)
        done += record.compute
    rounds = len(recorder(run).records)
    for stop in range(1, rounds):
        halted = simulated_run(tmp_path / f"at-{stop}", config)
        counter = itertools.count(1)
        halted = dataclasses.replace(halted, should_stop=functools.partial(_reached, counter, stop))
        start = fresh_start(halted)
        train(halted, *start)
        kept = load_checkpoint(newest_checkpoint(halted.folder), MICRO)
        assert not extent(config, kept.state).finished
        again = dataclasses.replace(halted, should_stop=lambda: False)
        train(again, kept.state, kept.models)
        assert same_bytes(kept.models.supernet, tensors)


def _reached(counter: Iterator[int], stop: int) -> bool:
    return next(counter) >= stop


@pytest.mark.slow
def test_clients_that_fail_leave_their_compute_to_further_rounds(tmp_path: Path) -> None:
    failed: list[Update] = []

    def spoil(update: Update) -> Update | Failure:
        if update.task.client == 2 and update.task.steps is not None and not failed:
            failed.append(update)
            return Failure(update.task, "lost", "gone")
        return update

    run, _ = spoiled_run(tmp_path, spoil, _config(330_000_000, clients=ClientsConfig(count=3, per_round=3)))
    state, _ = train_run(run)
    assert failed
    assert abs(state.compute - 330_000_000) <= 3_300_000


@pytest.mark.parametrize("objective", [Standard(), CoTraining((smallest(),), tuple(random_architectures(4)), 0.5, 1.0)])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 100])
def test_a_client_takes_its_first_steps_and_counts_them(objective: Any, steps: int) -> None:
    data, task = random_images(16), micro_task(epochs=3, objective=objective)
    limited = train_client(dataclasses.replace(task, steps=steps), data, micro_recipe())
    taken = min(steps, 6)
    macs = itertools.islice(step_macs(MICRO, largest(), objective, task.seed), taken)
    assert limited.compute == 8 * sum(macs)
    whole = train_client(task, data, micro_recipe())
    assert same_bytes(dict(limited.tensors), dict(whole.tensors)) == (taken == 6)
    if taken == 2:
        # A whole epoch is a whole epoch.
        one = train_client(dataclasses.replace(task, epochs=1), data, micro_recipe())
        assert same_bytes(dict(limited.tensors), dict(one.tensors))
        assert limited.loss == one.loss


def test_memory_that_clients_share_keeps_nothing_of_a_client_that_stopped_early() -> None:
    trainer = LocalTrainer(micro_recipe(), Profile(), torch.device("cpu"))
    data, task = random_images(24), micro_task(epochs=2)
    expected = train_client(task, data, micro_recipe())
    trainer.train(dataclasses.replace(task, steps=2), data)
    assert same_bytes(dict(trainer.train(task, data).tensors), dict(expected.tensors))


@given(
    steps=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    costs=st.lists(st.integers(1_000, 200_000), min_size=12, max_size=12),
    share=st.floats(0.001, 0.999),
)
@runs(120)
def test_steps_reach_what_is_left_and_little_more(steps: list[int], costs: list[int], share: float) -> None:
    every = {client: list(itertools.accumulate([costs[client]] * count)) for client, count in enumerate(steps)}
    total = sum(own[-1] for own in every.values())
    left = max(1, int(share * total))
    found = steps_for(every, left)
    reached = sum(own[found[client] - 1] for client, own in every.items())
    assert found.keys() == every.keys()
    assert all(1 <= found[client] <= len(own) for client, own in every.items())
    least = sum(own[0] for own in every.values())
    assert reached >= left
    assert reached == least or reached - left <= max(own[0] for own in every.values()) + left / 2000 * len(every)
    if len(steps) >= 6 and min(steps) >= 10 and max(costs) < 10 * min(costs):
        assert reached == least or reached - left <= min(own[0] for own in every.values())
    # Clients keep their shares of the round; what whole steps leave of a share, at most one step each, the others take.
    most = share + least / total
    assert all(found[client] <= max(1, most * len(own)) + 5 for client, own in every.items())


def test_a_round_that_fits_is_left_as_it_is() -> None:
    entry = micro_entries()[2]
    plan = RoundPlan(3, 0.1, None, {0: entry, 4: entry}, {0: 1.0, 4: 1.0})
    config = short_config()
    cost = 2 * 2 * 8 * entry.macs
    assert shortened(plan, config, MICRO, Progress(5, cost + 5), lambda client: 20) is plan
    assert shortened(plan, config, MICRO, Progress(5, 2 * cost + 5), lambda client: 20) is plan
    assert shortened(plan, config, MICRO, Progress(0, cost - 1), lambda client: 20).steps == {0: 2, 4: 2}
    assert shortened(plan, config, MICRO, Progress(0, cost // 2), lambda client: 20).steps == {0: 1, 4: 1}


def test_a_client_of_less_than_a_batch_costs_what_it_has() -> None:
    entry = micro_entries()[2]
    plan = RoundPlan(3, 0.1, None, {0: entry}, {0: 1.0})
    config = short_config()
    cost = config.client.epochs * 3 * entry.macs
    assert shortened(plan, config, MICRO, Progress(5, cost + 5), lambda client: 3) is plan
    assert shortened(plan, config, MICRO, Progress(0, cost - 1), lambda client: 3) is not plan


def test_a_round_that_would_leave_a_few_steps_is_made_two(tmp_path: Path) -> None:
    entry = micro_entries()[2]
    plan = RoundPlan(3, 0.1, None, dict.fromkeys(range(3), entry), dict.fromkeys(range(3), 1.0))
    config, step = short_config(), 3 * 8 * entry.macs
    found = [
        shortened(plan, config, MICRO, Progress(0, (20 + more) * step), lambda client: 160).steps for more in range(6)
    ]
    assert [sum(steps.values()) for steps in found] in (
        [0, first, 33, last, 0, 0] for first in (31, 32) for last in (34, 35)
    )
    assert all(10 <= taken <= 12 for steps in found for taken in steps.values())


def test_augmented_clients_draw_the_same_images_up_to_their_last_step() -> None:
    recipe = dataclasses.replace(micro_recipe(), augmentation=Augmentation(crop=2, flip=True, mixup=0.3))
    task, data = micro_task(epochs=1), random_images(24)
    two = train_client(dataclasses.replace(task, steps=2), data, recipe)
    three = train_client(dataclasses.replace(task, steps=3), data, recipe)
    assert not same_bytes(dict(two.tensors), dict(three.tensors))
    assert same_bytes(dict(three.tensors), dict(train_client(task, data, recipe).tensors))
