"""Bounds on one client's update: honest ones are within them, whatever is larger is not."""

import dataclasses
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs.federation import MICRO, micro_recipe, random_images
from helpers.runs.simulation import (
    largest,
    micro_entries,
    micro_task,
    random_tensors,
    same_bytes,
    smallest,
    train_client,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpareto.training.aggregation.held_updates import HeldUpdates
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.aggregation.update_bounds import _ADAM_STEPS, REMEMBERED, PastRound, UpdateBounds
from fedpareto.training.aggregation.weighted_average import WeightedAverage
from fedpareto.training.clients.path_sampling import _BETAS
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.local_objective import PathSampling
from fedpareto.training.messages import Failure, Task, Update

_UNCLIPPED = ClientConfig(batch_size=8, clip=0)
_CLIENTS = 5


def _update(client: int = 0, move: float = 0.01, *, task: Task | None = None, examples: int = 20) -> Update:
    """Return an update whose weights are all moved by a share of themselves."""
    task = task or micro_task(smallest() if client % 2 else largest(), client=client)
    tensors = {name: tensor * (1 + move) for name, tensor in task.tensors.items()}
    return Update(task, tensors, examples, 1.0, 0.0, 0.0)


def _results(bounds: UpdateBounds, clients: int = _CLIENTS) -> tuple[RoundResults, WeightedAverage]:
    entry, fold = micro_entries()[0], WeightedAverage(MICRO, random_tensors())
    plan = RoundPlan(1, 0.05, None, dict.fromkeys(range(clients), entry), dict.fromkeys(range(clients), 1.0))
    return RoundResults(plan, fold, by_examples=False, bounds=bounds), fold


_magnitudes = st.one_of(
    st.floats(1.0, 1e38), st.floats(-1e38, -1.0), st.sampled_from([math.inf, -math.inf, math.nan, 3.4e38, 1e15, 1e19])
)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    client=st.integers(0, _CLIENTS - 1),
    value=_magnitudes,
    name=st.sampled_from(sorted(micro_task(smallest()).tensors)),
    whole=st.booleans(),
    first=st.booleans(),
    moves=st.lists(st.floats(1e-3, 4e-3), min_size=_CLIENTS, max_size=_CLIENTS),
)
def test_no_value_of_one_client_goes_beyond_the_factor(
    client: int, value: float, name: str, whole: bool, first: bool, moves: list[float]
) -> None:
    bounds = UpdateBounds(_UNCLIPPED, 20.0, () if first else [PastRound(2e-3, 0.05, 1.0)])
    results, _ = _results(bounds)
    for number, move in enumerate(moves):
        update = _update(number, move)
        if number == client:
            tensor = update.tensors[name].clone()
            tensor.reshape(-1)[: None if whole else 1] = value
            update = dataclasses.replace(update, tensors={**update.tensors, name: tensor})
        results.take(update)
    results.settle()
    honest = set(range(_CLIENTS)) - {client}
    assert honest <= results.accepted.keys()
    most = 20 * (sorted(bounds.moves.values())[len(bounds.moves) // 2] if first else 2e-3)
    assert all(move <= most * 1.01 for move in results.moves.values())
    merged = random_tensors()
    results.fold.write_mean(merged)
    assert all(tensor.isfinite().all() for tensor in merged.values())
    assert [failure.task.client for failure in results.failures] == [client] * (client not in results.accepted)


@settings(deadline=None, max_examples=10)
@given(
    lr=st.floats(1e-4, 2.0),
    momentum=st.floats(0, 0.95),
    decay=st.sampled_from([0.0, 5e-4, 0.1]),
    clip=st.sampled_from([1e-3, 0.1, 10.0]),
    epochs=st.integers(1, 3),
    images=st.integers(4, 30),
)
def test_no_honest_client_is_beyond_its_steps(
    lr: float, momentum: float, decay: float, clip: float, epochs: int, images: int
) -> None:
    config = ClientConfig(epochs, 8, lr, momentum=momentum, weight_decay=decay, clip=clip, decay_all=decay > 0)
    recipe = dataclasses.replace(micro_recipe(), config=config)
    update = train_client(micro_task(epochs=epochs, learning_rate=lr), random_images(images), recipe)
    finite = all(tensor.isfinite().all() for tensor in update.tensors.values())
    assert not finite or UpdateBounds(config, 0.0).measure(update) is None


def test_more_than_clipped_steps_can_do_is_refused_without_any_other_client() -> None:
    config = ClientConfig(1, 8, 0.05, momentum=0.9, weight_decay=0.0, clip=10.0)
    task = micro_task()
    name = next(iter(task.tensors))
    # 20 images are three batches at most: 3 · 0.05 / (1 − 0.9) · 10 = 15, and a tenth for rounding.
    for far, fits in ((14.9, True), (16.9, False)):
        tensor = task.tensors[name].clone()
        tensor.reshape(-1)[0] += far
        update = Update(task, {**task.tensors, name: tensor}, 20, 1.0, 0.0, 0.0)
        failure = UpdateBounds(config, 0.0).measure(update)
        assert (failure is None) == fits
        if failure is not None:
            assert failure.kind == "outlier"
            assert "3 steps of learning rate 0.05 with clipped gradients reach 17 at most" in failure.reason


def test_honest_updates_are_added_in_the_order_they_came_to_the_same_bytes() -> None:
    told, fold = _results(UpdateBounds(_UNCLIPPED, 20.0))
    plain, other = _results(UpdateBounds(_UNCLIPPED, 0.0))
    for number in (3, 0, 4, 1, 2):
        update = _update(number, 0.01 * (number + 1))
        told.take(update)
        plain.take(_update(number, 0.01 * (number + 1)))
        for tensor in update.tensors.values():
            # An engine reuses the memory of its answers.
            tensor.fill_(7.0)
    assert not told.accepted
    told.settle()
    assert list(told.accepted) == list(plain.accepted) == [3, 0, 4, 1, 2]
    merged, expected = random_tensors(), random_tensors()
    fold.write_mean(merged)
    other.write_mean(expected)
    assert same_bytes(merged, expected)


def test_updates_beyond_the_memory_wait_in_files_that_go_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held, updates = HeldUpdates(in_memory=40_000), [_update(number, 0.01 * number) for number in range(4)]
    for update in updates:
        held.keep(update)
    (folder,) = tmp_path.iterdir()
    for update, back in zip(updates, held.taken(), strict=True):
        assert back.task is update.task
        assert same_bytes(dict(back.tensors), dict(update.tensors))
    assert list(held.taken()) == []
    assert not folder.exists()


def test_two_clients_of_a_first_round_cannot_tell_who_is_honest() -> None:
    results, _ = _results(UpdateBounds(_UNCLIPPED, 20.0), clients=2)
    for number, move in ((0, 0.01), (1, 1.0)):
        results.take(_update(number, move))
    results.settle()
    assert len(results.accepted) == 2


def test_only_the_last_rounds_count_each_by_its_learning_rate() -> None:
    past = [*[PastRound(100.0, 0.05, 1.0)] * 6, *[PastRound(0.01, 0.05, 1.0)] * REMEMBERED]
    for rate, move, refused in ((0.05, 0.19, False), (0.05, 0.21, True), (0.5, 1.9, False), (0.5, 2.1, True),
                                (0.005, 0.19, False)):  # fmt: skip
        bounds = UpdateBounds(_UNCLIPPED, 20.0, past)
        update = _update(move=move, task=micro_task(learning_rate=rate))
        assert not bounds.waiting
        assert bounds.measure(update) is None
        assert (bounds.compare(update) is not None) == refused


@pytest.mark.parametrize("value", [1e30, 3e38, -3e38])
def test_no_value_that_overflows_sums_is_taken_with_all_comparisons_off(value: float) -> None:
    task = micro_task()
    tensors = {name: torch.full_like(tensor, value) for name, tensor in task.tensors.items()}
    failure = UpdateBounds(_UNCLIPPED, 0.0).measure(Update(task, tensors, 20, 1.0, 0.0, 0.0))
    assert failure is not None
    assert failure.kind == "outlier"


def test_rounding_is_no_outlier_where_the_learning_rate_ends() -> None:
    bounds = UpdateBounds(_UNCLIPPED, 20.0, [PastRound(1e-9, 1e-6, 1.0)])
    update = _update(move=5e-4, task=micro_task(learning_rate=1e-9))
    assert bounds.measure(update) is None
    assert bounds.compare(update) is None


def test_adams_bound_is_that_of_the_logits_betas() -> None:
    first, second = _BETAS
    steps = math.sqrt((1 - first) ** 2 / (1 - second) / (1 - first**2 / second))
    assert steps <= _ADAM_STEPS <= 1.01 * steps


@pytest.mark.parametrize("seed", range(5))
def test_adam_never_moves_a_logit_beyond_the_bound(seed: int) -> None:
    (first, second), draws = _BETAS, np.random.default_rng(seed)
    mean = square = 0.0
    for step in range(1, 200):
        gradient = draws.normal() * 10.0 ** draws.integers(-6, 6)
        mean, square = first * mean + (1 - first) * gradient, second * square + (1 - second) * gradient**2
        assert abs(mean / (1 - first**step)) / math.sqrt(square / (1 - second**step)) <= _ADAM_STEPS


def test_logits_within_their_steps_are_taken() -> None:
    objective = PathSampling(((0.0, 0.0), None), learning_rate=0.01)
    task = micro_task(objective=objective)
    bounds = UpdateBounds(ClientConfig(1, 8), 0.0)
    for logit, refused in ((0.3, False), (0.6, False), (0.7, True), (-0.7, True)):
        update = dataclasses.replace(_update(task=task), logits=((logit, 0.0), None))
        assert isinstance(bounds.measure(update), Failure) == refused
