"""Candidates for a profile: what a machine and its device have to choose from."""

import dataclasses

import pytest
import torch
from helpers.runs.tuning import GivenMachine, Rates

from fedpareto.training.config.execution import ExecutionConfig, Precision
from fedpareto.training.engines.simulation import candidates
from fedpareto.training.engines.simulation.candidates import Scope
from fedpareto.training.execution.profile import Profile

#: What is chosen first: all else is measured against it.
_PLAIN = Profile()

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(
    ("possible", "tried"),
    [
        (["fp32"], ["fp32"]),
        (["fp32", "bf16", "fp16"], ["fp32", "bf16"]),
        (["fp32", "fp16"], ["fp32", "fp16"]),
        (["fp32", "tf32", "bf16", "fp16"], ["fp32", "tf32", "bf16"]),
    ],
)
def test_fp16_is_tried_only_where_there_is_no_bf16(
    clock: Rates, possible: list[Precision], tried: list[Precision]
) -> None:
    clock.machine.possible = possible
    clock.choose()
    assert list(dict.fromkeys(profile.precision for profile in clock.measured)) == tried


@pytest.mark.parametrize(
    ("count", "workers"),
    [(2, [(2, 1)]), (4, [(2, 2), (4, 1)]), (6, [(2, 3), (4, 1)]), (9, [(2, 4), (4, 2), (8, 1)])],
)
def test_clients_at_once_share_the_threads(clock: Rates, count: int, workers: list[tuple[int, int]]) -> None:
    clock.machine.count = count
    clock.choose(dataclasses.replace(_PLAIN.chosen(), workers=None, threads=None), "fp32")
    tried = list(dict.fromkeys((profile.workers, profile.threads) for profile in clock.measured))
    assert tried == [(1, count), *workers]


def test_clients_at_once_have_the_threads_that_were_set(clock: Rates) -> None:
    clock.machine.count = 4
    clock.choose(dataclasses.replace(_PLAIN.chosen(), workers=None, threads=3), "fp32")
    assert {(profile.workers, profile.threads) for profile in clock.compared} == {(1, 3), (2, 3), (4, 3)}


_GPU = torch.device("cuda:0")


def _graphs(best: Profile, config: ExecutionConfig) -> list[Profile]:
    return list(candidates.graphs(best, Scope("auto", config, _GPU, GivenMachine())))


def test_graphs_are_tried_on_a_gpu_where_they_are_possible_and_nothing_was_said() -> None:
    assert _graphs(_PLAIN, ExecutionConfig()) == [dataclasses.replace(_PLAIN, graphs=True)]
    assert _graphs(_PLAIN, ExecutionConfig(graphs=False)) == []
    assert _graphs(dataclasses.replace(_PLAIN, graphs=True), ExecutionConfig(graphs=True)) == []
    assert _graphs(dataclasses.replace(_PLAIN, precision="fp16"), ExecutionConfig()) == []
    assert _graphs(dataclasses.replace(_PLAIN, compiled=True), ExecutionConfig(compiled=True)) == []


def test_up_to_eight_clients_at_once_are_tried_on_a_gpu() -> None:
    tried = list(candidates.workers(Profile(threads=2), Scope("auto", ExecutionConfig(), _GPU, GivenMachine(count=2))))
    assert [(profile.workers, profile.threads) for profile in tried] == [(2, 1), (4, 1), (8, 1)]
