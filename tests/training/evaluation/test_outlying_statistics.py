"""Statistics of one client in a calibration: honest ones are taken, impossible and outlying ones are refused."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from helpers.runs.attacks import HostileCalibration
from helpers.runs.federation import MICRO, micro_recipe, random_images
from helpers.runs.simulation import largest, random_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpareto.supernet.networks.weights import views
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.evaluation.calibration import CalibrationPlan, gather
from fedpareto.training.evaluation.moments import moments_of, norms_of
from fedpareto.training.evaluation.outlying_statistics import MOST, judged
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import CalibrationTask, Failure, Statistics

_CLIENTS, _HOSTILE = 5, 2


def _tasks(clients: int = _CLIENTS) -> list[CalibrationTask]:
    plan = CalibrationPlan(range(clients), 2, 8, 5)
    return list(plan.tasks(largest(), views(MICRO, random_tensors(), largest())))


def _engine() -> InProcessEngine:
    data = random_images(_CLIENTS * 20)
    return InProcessEngine(data, list(torch.arange(len(data)).view(_CLIENTS, 20)), micro_recipe(), Profile())


_HONEST = list(_engine().calibrate(_tasks()))


def _times(factor: float, moment: int) -> Callable[[Statistics], Statistics]:
    def change(statistics: Statistics) -> Statistics:
        names = {moments_of(norm)[moment] for norm in norms_of(statistics)}
        sums = {name: values * factor if name in names else values for name, values in statistics.sums.items()}
        return dataclasses.replace(statistics, sums=sums)

    return change


def _same(first: Statistics, second: Statistics) -> bool:
    return all(torch.equal(first.sums[name], second.sums[name]) for name in first.sums)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_times(1e9, 1), "outlier"),
        (_times(100, 1), "outlier"),
        (_times(1e9, 2), "outlier"),
        (_times(-1, 1), "non-finite"),
        (_times(float("nan"), 1), "non-finite"),
        (_times(1e300, 1), "non-finite"),
        (_times(1e6, 0), "non-finite"),
    ],
)
def test_one_client_sets_no_statistics(change: Callable[[Statistics], Statistics], kind: str) -> None:
    tasks = _tasks()
    statistics, failures = gather(tasks, HostileCalibration(_engine(), [_HOSTILE], change).calibrate(tasks))
    honest = [task for task in tasks if task.client != _HOSTILE]
    expected, none = gather(honest, _engine().calibrate(honest))
    assert not none
    assert _same(statistics, expected)
    assert (statistics.batches, statistics.images) == (expected.batches, expected.images)
    assert [(failure.task.client, failure.kind) for failure in failures] == [(_HOSTILE, kind)]


@settings(deadline=None, max_examples=50)
@given(
    client=st.integers(0, _CLIENTS - 1),
    norm=st.sampled_from(norms_of(_HONEST[0]) if isinstance(_HONEST[0], Statistics) else []),
    channel=st.integers(0, 7),
    factor=st.floats(1e-3, 1e30),
    moment=st.integers(1, 2),
)
def test_no_channel_goes_beyond_the_bound(client: int, norm: str, channel: int, factor: float, moment: int) -> None:
    answers = list(_HONEST)
    answer = answers[client]
    assert isinstance(answer, Statistics)
    sums = {name: values.clone() for name, values in answer.sums.items()}
    sums[moments_of(norm)[moment]][channel] *= factor
    answers[client] = dataclasses.replace(answer, sums=sums)
    taken = [one for _, one in judged(_tasks(), answers)]
    assert all(isinstance(one, Statistics) for number, one in enumerate(taken) if number != client)
    if isinstance(taken[client], Statistics):
        others = [one for number, one in enumerate(_HONEST) if number != client and isinstance(one, Statistics)]
        honest = torch.stack([_second(one, norm) for one in others]).amax(dim=0)
        own = _second(answers[client], norm)
        assert (own <= MOST * (honest + honest.mean()) + 1e-9).all()


def _second(part: Statistics | Failure, norm: str) -> torch.Tensor:
    assert isinstance(part, Statistics)
    _, within, squared = (part.sums[name] / part.images for name in moments_of(norm))
    return within + squared


def test_two_clients_cannot_tell_who_is_honest() -> None:
    answers = [_HONEST[0], _HONEST[1]]
    assert isinstance(answers[1], Statistics)
    answers[1] = _times(1e6, 1)(answers[1])
    assert not any(isinstance(answer, Failure) for _, answer in judged(_tasks(2), answers))


def test_clients_without_a_batch_and_failures_pass() -> None:
    tasks = _tasks()
    empty, failure = Statistics({}, 0, 0), Failure(tasks[1], "error", "its battery is empty")
    taken = [answer for _, answer in judged(tasks, [empty, failure, *_HONEST[2:]])]
    assert taken[:2] == [empty, failure]
    assert all(isinstance(answer, Statistics) for answer in taken[2:])
