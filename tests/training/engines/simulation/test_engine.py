"""The engine of one process: the order of answers, several clients at once, and the ends of a round."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.runs.federation import MICRO, micro_recipe, random_images
from helpers.runs.simulation import (
    largest,
    micro_task,
    own_memory,
    random_architectures,
    random_tensors,
    same_bytes,
    short_config,
    simulated_run,
    smallest,
    train_run,
)

from fedpareto.training.config.server import ServerConfig
from fedpareto.training.data.images import ImageSet
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import Task, Update
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint

CLIENTS = 8
#: Images of every client: two batches of 8.
IMAGES = 16
#: So many that a test which waited for them all would not end.
ENDLESS = 10**9


def _engine(workers: int, *, spoiled: int | None = None) -> InProcessEngine:
    """Return an engine of 8 clients; the labels of the spoiled one are no classes of the network."""
    data = random_images(CLIENTS * IMAGES)
    parts = list(torch.arange(len(data)).view(CLIENTS, IMAGES))
    if spoiled is not None:
        labels = data.labels.clone()
        labels[parts[spoiled]] = 10_000
        data = ImageSet(data.images, labels, data.classes)
    return InProcessEngine(data, parts, micro_recipe(momentum=0.9), Profile(workers=workers, threads=1))


def _tasks(count: int = CLIENTS, epochs: int | None = None) -> list[Task]:
    """Return tasks of small and large networks in turn, of one, two and three epochs unless told otherwise."""
    supernet = random_tensors()
    networks = [largest(), smallest(), *random_architectures(2)]
    return [
        micro_task(
            networks[client % 4],
            supernet,
            client=client,
            seed=client,
            learning_rate=0.01 * (client + 1),
            epochs=epochs or 1 + client % 3,
        )
        for client in range(count)
    ]


def _updates(engine: InProcessEngine, tasks: list[Task]) -> Iterator[Update]:
    for answer in engine.run(tasks):
        assert isinstance(answer, Update)
        yield answer


def _answers(engine: InProcessEngine, tasks: list[Task]) -> list[Update]:
    """Return all updates; every one is copied before the next is asked for."""
    return [own_memory(answer) for answer in _updates(engine, tasks)]


def _client_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("client")]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_several_clients_at_once_answer_in_the_order_of_tasks_with_the_bytes_of_one_at_a_time(workers: int) -> None:
    tasks, several = _tasks(), _engine(workers)
    expected = _answers(_engine(1), tasks)
    # The second round trains in the memory of the first.
    for _ in range(2):
        answers = _answers(several, tasks)
        assert [answer.task for answer in answers] == tasks
        for answer, one in zip(answers, expected, strict=True):
            assert same_bytes(dict(answer.tensors), dict(one.tensors))
            assert (answer.loss, answer.examples) == (one.loss, one.examples)
    assert _client_threads() == []


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5])
def test_any_number_of_tasks_has_as_many_answers(count: int) -> None:
    tasks = _tasks(count, epochs=1)
    assert [answer.task for answer in _answers(_engine(3), tasks)] == tasks


@pytest.mark.parametrize(("workers", "ahead"), [(1, 0), (2, 3), (3, 4)])
def test_tasks_are_pulled_only_as_memory_becomes_free(workers: int, ahead: int) -> None:
    pulled = 0

    def counted() -> Iterator[Task]:
        nonlocal pulled
        for task in _tasks(epochs=1):
            pulled += 1
            yield task

    answers = _engine(workers).run(counted())
    assert pulled == 0
    for answered, _ in enumerate(answers, 1):
        assert pulled == min(CLIENTS, answered + ahead)
    assert pulled == CLIENTS


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_memory_of_an_update_is_no_other_clients_until_the_next_is_asked_for(workers: int) -> None:
    name = "head.classifier.linear.bias"
    places = [answer.tensors[name].data_ptr() for answer in _updates(_engine(workers), _tasks(epochs=1))]
    # While one answer is looked at, as many clients as there are workers may train.
    at_once = 1 if workers == 1 else workers + 1
    for start in range(CLIENTS - at_once + 1):
        assert len(set(places[start : start + at_once])) == at_once
    assert len(set(places)) == at_once


@pytest.mark.parametrize("workers", [1, 3])
def test_a_client_that_raises_ends_the_round_with_its_error(workers: int) -> None:
    tasks = _tasks(4)
    # The first answers; those beside the broken one would train for ever.
    tasks[2:] = [dataclasses.replace(task, epochs=ENDLESS) for task in tasks[2:]]
    answers = _engine(workers, spoiled=1).run(tasks)
    assert isinstance(next(answers), Update)
    with pytest.raises(IndexError, match="Target 10000 is out of bounds"):
        next(answers)
    assert _client_threads() == []


def test_an_engine_trains_on_after_a_round_that_ended_early() -> None:
    engine, tasks = _engine(3, spoiled=1), _tasks(4)
    long = [dataclasses.replace(task, epochs=ENDLESS) for task in tasks]
    with pytest.raises(IndexError):
        list(engine.run([tasks[1], *long[2:]]))
    well = [tasks[0], *tasks[2:]]
    answers, expected = _answers(engine, well), _answers(_engine(1), well)
    assert all(
        same_bytes(dict(answer.tensors), dict(one.tensors)) for answer, one in zip(answers, expected, strict=True)
    )


def test_a_round_closed_early_leaves_no_thread() -> None:
    first, *rest = _tasks()
    answers = _engine(3).run([first, *(dataclasses.replace(task, epochs=ENDLESS) for task in rest)])
    next(answers)
    assert _client_threads()
    answers.close()  # type: ignore[attr-defined]
    assert _client_threads() == []


def test_an_error_of_whoever_makes_the_tasks_ends_the_threads_too() -> None:
    def broken() -> Iterator[Task]:
        yield from _tasks(2, epochs=ENDLESS)
        raise LookupError("no more tasks")

    with pytest.raises(LookupError, match="no more tasks"):
        next(_engine(3).run(broken()))
    assert _client_threads() == []


@pytest.mark.parametrize("workers", [1, 3])
def test_the_callers_number_of_threads_is_given_back(workers: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        list(_engine(workers).run(_tasks(4, epochs=1)))
        assert torch.get_num_threads() == 2
        with pytest.raises(IndexError):
            list(_engine(workers, spoiled=0).run(_tasks(4, epochs=1)))
        assert torch.get_num_threads() == 2
        closed = _engine(workers).run(_tasks(4, epochs=1))
        next(closed)
        closed.close()  # type: ignore[attr-defined]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_run_of_two_clients_at_once_ends_with_the_bytes_of_one_at_a_time_resumed_or_not(tmp_path: Path) -> None:
    config, two = short_config(server=ServerConfig(momentum=0.5)), Profile(workers=2)
    state, tensors = train_run(simulated_run(tmp_path / "one", config))
    state_of_two, tensors_of_two = train_run(simulated_run(tmp_path / "two", config, profile=two))
    assert same_bytes(tensors_of_two, tensors)
    assert state_of_two == state

    answers = iter([False, True])
    train_run(simulated_run(tmp_path / "parts", config, profile=two, should_stop=lambda: next(answers)))
    checkpoint = load_checkpoint(newest_checkpoint(tmp_path / "parts"), MICRO)
    assert checkpoint.state.round == 2
    again = simulated_run(tmp_path / "parts", config, profile=two)
    resumed = train(again, checkpoint.state, checkpoint.models)
    assert same_bytes(checkpoint.models.supernet, tensors)
    assert resumed == state


def test_a_network_is_built_once_for_as_many_rounds_as_there_are_where_clients_are_few() -> None:
    engine, built = _engine(2), []
    tasks = _tasks(3, epochs=1)
    for _ in range(4):
        tasks = [*tasks[1:], tasks[0]]
        assert len(_answers(engine, tasks)) == 3
        built.append(sorted(len(trainer._built) for trainer in engine._trainers))
    assert built == [[1, 1, 1]] * 4
