"""What one round's answers add up to."""

import dataclasses

import pytest
import torch
from helpers.networks.strategies import runs
from helpers.runs.federation import MICRO
from helpers.runs.simulation import entry_of, micro_entries, micro_task, random_tensors, same_bytes
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.networks.weights import Tensors, extract
from fedpareto.training.aggregation.round_results import ClientResult, RoundPlan, RoundResults
from fedpareto.training.aggregation.weighted_average import WeightedAverage
from fedpareto.training.messages import Failure, Update, tensor_bytes
from fedpareto.training.traffic import Traffic

_CLIENTS = 5


def _answers(*, by_examples: bool = False, tensors: Tensors | None = None) -> RoundResults:
    """Return an empty round of five clients; client 0 weighs 1, client 1 weighs 2, and so on."""
    entries = micro_entries()
    plan = RoundPlan(
        number=1,
        learning_rate=0.1,
        beta=0.5,
        assigned={client: entries[client % len(entries)] for client in range(_CLIENTS)},
        weights={client: client + 1.0 for client in range(_CLIENTS)},
    )
    return RoundResults(plan, WeightedAverage(MICRO, tensors or random_tensors()), by_examples=by_examples)


def _update(client: int = 0, started: float = 0.0, seconds: float = 1.0, examples: int = 10) -> Update:
    architecture = micro_entries()[client % len(micro_entries())].architecture
    tensors = extract(MICRO, random_tensors(client + 1), architecture)
    size = tensor_bytes(tensors)
    task = micro_task(architecture, client=client)
    return Update(task, tensors, examples, 1.0 + client, started, seconds, Traffic(size, size), compute=70)


def test_beyond_the_most_examples_a_client_weighs_no_more() -> None:
    def merged(most: float, liar: int) -> Tensors:
        supernet, entry = random_tensors(), micro_entries()[0]
        plan = RoundPlan(1, 0.1, None, dict.fromkeys(range(2), entry), dict.fromkeys(range(2), 1.0))
        results = RoundResults(plan, WeightedAverage(MICRO, supernet), by_examples=True, most_examples=most)
        for client, examples in ((0, 10), (1, liar)):
            tensors = extract(MICRO, random_tensors(client + 1), entry.architecture)
            task = micro_task(entry.architecture, client=client)
            results.take(Update(task, tensors, examples, 1.0, 0.0, 1.0))
        results.fold.write_mean(supernet)
        return supernet

    assert same_bytes(merged(10, 1 << 30), merged(float("inf"), 10))
    assert not same_bytes(merged(float("inf"), 1 << 30), merged(float("inf"), 10))


def _sgd_seconds(intervals: list[tuple[float, float]]) -> float:
    """Return the time of a round whose clients trained from the first to the second of each pair of times."""
    answers, update = _answers(), _update()
    for start, stop in intervals:
        answers.take(dataclasses.replace(update, started=start, sgd_seconds=stop - start))
    return answers.sgd_seconds


@pytest.mark.parametrize(
    ("intervals", "seconds"),
    [
        ([], 0),
        ([(5, 8)], 3),
        ([(0, 1), (4, 6)], 3),
        ([(0, 2), (2, 5)], 5),
        ([(0, 3), (2, 5)], 5),
        ([(0, 10), (2, 5), (6, 7)], 10),
        ([(0, 10), (2, 5), (9, 12)], 12),
        ([(3, 5), (3, 5), (3, 4)], 2),
        ([(0, 4), (0, 6), (8, 8)], 6),
    ],
    ids=["none", "one", "apart", "touching", "overlapping", "nested", "out-of-a-nest", "alike", "empty"],
)
def test_time_in_a_round_is_that_in_which_anybody_trained(intervals: list[tuple[float, float]], seconds: float) -> None:
    assert _sgd_seconds(intervals) == seconds
    assert _sgd_seconds(intervals[::-1]) == seconds


_times = st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda drawn: (drawn[0], drawn[0] + drawn[1]))


@runs(60)
@given(intervals=st.lists(_times, max_size=6), since=st.sampled_from([0, 123_456]))
def test_time_in_a_round_counts_every_second_once(intervals: list[tuple[int, int]], since: int) -> None:
    seconds = {second for start, stop in intervals for second in range(start, stop)}
    assert _sgd_seconds([(start + since, stop + since) for start, stop in intervals]) == len(seconds)


def test_updates_that_cannot_be_merged_have_taken_time_and_bytes_too() -> None:
    answers, good = _answers(), _update(0, 0.0, 2.0)
    answers.take(good)
    answers.take(dataclasses.replace(_update(1, 5.0, 3.0), examples=0))
    answers.take(Failure(_update(2).task, "error", "its battery is empty"))
    assert answers.sgd_seconds == 5
    sizes = [sum(tensor.nbytes for tensor in _update(client).tensors.values()) for client in (0, 1)]
    assert answers.traffic.up == sum(sizes)
    assert [failure.task.client for failure in answers.failures] == [1, 2]
    assert answers.failed_by_kind == {"examples": 1, "error": 1}
    assert answers.accepted == {0: ClientResult(10, 1.0, 70, Traffic(sizes[0], sizes[0]))}
    # What was computed counts even where it cannot be merged.
    assert answers.compute == 140
    assert isinstance(answers.fold, WeightedAverage)
    assert answers.fold.updates == 1


@pytest.mark.parametrize("by_examples", [False, True])
def test_updates_are_folded_in_with_the_weights_of_the_plan(by_examples: bool) -> None:
    tensors = random_tensors()
    answers, fold = _answers(by_examples=by_examples, tensors=tensors), WeightedAverage(MICRO, tensors)
    for client in range(_CLIENTS):
        update = _update(client, examples=3 + client)
        assert entry_of(update) == answers.plan.assigned[client]
        answers.take(update)
        fold.add(update.task.architecture, update.tensors, (client + 1.0) * (3 + client if by_examples else 1))
    expected = random_tensors()
    fold.write_mean(expected)
    answers.fold.write_mean(tensors)
    assert same_bytes(tensors, expected)


def test_updates_of_a_branch_are_folded_into_its_own_sums_and_no_others() -> None:
    plan = dataclasses.replace(_answers().plan, branches={1: "beside"})
    (architecture,) = {plan.assigned[1].architecture}
    own = extract(MICRO, random_tensors(), architecture)
    fold, beside = WeightedAverage(MICRO, random_tensors()), WeightedAverage(MICRO, own)
    answers = RoundResults(plan, fold, by_examples=True, branches={"beside": beside})
    for client in (0, 1):
        answers.take(_update(client))
    assert (fold.updates, beside.updates) == (1, 1)
    beside.write_mean(own)
    for name, tensor in _update(1).tensors.items():
        torch.testing.assert_close(own[name], tensor)


def test_the_loss_is_the_mean_over_accepted_clients_weighted_by_their_images() -> None:
    answers = _answers()
    for client, examples in ((0, 10), (3, 30)):
        answers.take(_update(client, examples=examples))
    spoiled = _update(1)
    infinite = {name: torch.full_like(tensor, torch.inf) for name, tensor in spoiled.tensors.items()}
    answers.take(dataclasses.replace(spoiled, tensors=infinite))
    assert answers.train_loss == pytest.approx((10 * 1.0 + 30 * 4.0) / 40)
