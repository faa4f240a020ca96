"""Calibration: what clients contribute adds up to what one pass over all their batches gives."""

import dataclasses
from collections.abc import Iterator, Sequence

import pytest
import torch
from helpers.runs.federation import MICRO, NORMALISATION, micro_recipe, micro_space, random_images
from helpers.runs.simulation import largest, random_architectures, random_tensors, smallest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import views
from fedpareto.supernet.space import Norm
from fedpareto.training.data.batches import prepare
from fedpareto.training.data.images import ImageSet
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.evaluation.calibration import (
    CalibrationPlan,
    blank_network,
    calibrate,
    client_statistics,
    combined,
    gather,
    plan_calibration,
    statistics_of,
    with_statistics,
)
from fedpareto.training.evaluation.moments import moments_of
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import CalibrationTask, Failure, Statistics

CLIENTS, IMAGES = 4, 20


def _engine() -> InProcessEngine:
    data = random_images(CLIENTS * IMAGES, seed=3)
    return InProcessEngine(data, list(torch.arange(len(data)).view(CLIENTS, IMAGES)), micro_recipe(), Profile())


def _buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if "running" in name}


def _batches_of(task: CalibrationTask) -> Iterator[Tensor]:
    """Yield the batches a client is to run, drawn here as the task's seed says."""
    images = random_images(CLIENTS * IMAGES, seed=3).loaded().view(CLIENTS, IMAGES, 3, 8, 8)[task.client]
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(task.seed))
    for batch in range(task.batches):
        chosen = order[batch * task.batch_size : (batch + 1) * task.batch_size]
        yield prepare(images[chosen], 8, NORMALISATION)


@pytest.mark.parametrize("architecture", [smallest(), *random_architectures(2)])
def test_federated_calibration_equals_central_calibration_over_the_same_batches(architecture: Architecture) -> None:
    tensors = random_tensors()
    plan = CalibrationPlan(range(CLIENTS), batches=2, batch_size=8, seed=5)
    tasks = list(plan.tasks(architecture, views(MICRO, tensors, architecture)))
    statistics, _ = gather(tasks, _engine().calibrate(tasks))
    federated = with_statistics(blank_network(MICRO, tensors, architecture), statistics)
    every_batch = [batch for task in tasks for batch in _batches_of(task)]
    central = calibrate(blank_network(MICRO, tensors, architecture), every_batch)
    assert (statistics.batches, statistics.images) == (8, 64)
    got, wanted = _buffers(federated), _buffers(central)
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-6, atol=1e-7)
    images = random_images(6, seed=9).loaded()
    with torch.inference_mode():
        x = prepare(images, 8, NORMALISATION)
        torch.testing.assert_close(federated(x), central(x), rtol=1e-5, atol=1e-5)


def _skewed_images(classes: int, counts: Sequence[int]) -> ImageSet:
    """Return images whose brightness is their class's: the means of single classes lie far apart."""
    labels = torch.cat([torch.full((count,), label % classes) for label, count in enumerate(counts)])
    noise = torch.randint(0, 30, (len(labels), 3, 8, 8), generator=torch.Generator().manual_seed(4))
    return ImageSet((noise + 200 * labels.view(-1, 1, 1, 1) // classes).byte(), labels, tuple("abcd"[:classes]))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    counts=st.lists(st.integers(2, 12), min_size=2, max_size=6),
    batch=st.integers(2, 12),
    architecture=st.sampled_from([smallest(), largest(), *random_architectures(2)]),
)
def test_clients_of_one_class_each_add_up_to_the_mean_and_variance_of_all_images(
    counts: list[int], batch: int, architecture: Architecture
) -> None:
    tensors, data = random_tensors(), _skewed_images(4, counts)
    parts = list(torch.split(torch.arange(len(data)), counts))
    engine = InProcessEngine(data, parts, micro_recipe(), Profile())
    # Every client runs as many whole batches as it has.
    used = [count // min(batch, count) * min(batch, count) for count in counts]
    plan = CalibrationPlan(range(len(counts)), 99, batch, 5)
    tasks = list(plan.tasks(architecture, views(MICRO, tensors, architecture)))
    statistics, _ = gather(tasks, engine.calibrate(tasks))
    network = with_statistics(blank_network(MICRO, tensors, architecture), statistics)
    assert statistics.images == sum(used)
    chosen = [
        part[torch.randperm(len(part), generator=torch.Generator().manual_seed(task.seed))[:count]]
        for task, part, count in zip(
            CalibrationPlan(range(len(counts)), 99, batch, 5).tasks(architecture, {}), parts, used, strict=True
        )
    ]
    pixels = prepare(data.images[torch.cat(chosen)], 8, NORMALISATION)
    inputs: list[Tensor] = []
    norm = network.get_submodule("stem.entry.norm")
    norm.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        network(pixels)
    variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(norm.get_buffer("running_mean"), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.get_buffer("running_var"), variance, rtol=1e-4, atol=1e-5)


def test_how_the_batches_lie_on_clients_changes_nothing() -> None:
    tensors, generator = random_tensors(), torch.Generator().manual_seed(0)
    batches = [torch.randn(8, 3, 8, 8, generator=generator) for _ in range(5)]

    def part(numbers: list[int]) -> Statistics:
        return statistics_of(blank_network(MICRO, tensors, smallest()), [batches[number] for number in numbers])

    whole = part([0, 1, 2, 3, 4])
    for split in ([[0], [1, 2], [3, 4]], [[4, 3, 2, 1], [0]], [[2, 0, 4], [], [1, 3]]):
        together = combined(part(numbers) for numbers in split)
        assert (together.batches, together.images) == (5, 40)
        for name, tensor in whole.sums.items():
            # Sums in float64 of float32 statistics: the order is in the last bits only.
            torch.testing.assert_close(together.sums[name], tensor, rtol=1e-14, atol=1e-14)


def test_a_contribution_holds_no_image() -> None:
    task = next(CalibrationPlan([0], 2, 8, 5).tasks(smallest(), views(MICRO, random_tensors(), smallest())))
    contribution = client_statistics(MICRO, task, random_images(IMAGES), NORMALISATION)
    channels = {name: tensor.numel() for name, tensor in contribution.sums.items()}
    assert channels == {
        moment: module.num_features
        for name, module in blank_network(MICRO, random_tensors(), smallest()).named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for moment in moments_of(name)
    }


def test_a_client_with_few_images_makes_whole_batches_of_what_it_has() -> None:
    task = next(CalibrationPlan([0], 4, 8, 5).tasks(smallest(), views(MICRO, random_tensors(), smallest())))
    for images, expected in ((5, (1, 5)), (20, (2, 16)), (100, (4, 32))):
        contribution = client_statistics(MICRO, task, random_images(images), NORMALISATION)
        assert (contribution.batches, contribution.images) == expected


@pytest.mark.parametrize("norm", ["group", "none"])
def test_networks_without_batch_norm_contribute_nothing(norm: Norm) -> None:
    space = micro_space(norm=norm)
    tensors = random_tensors(0, space)
    network = blank_network(space, tensors, smallest(space))
    assert statistics_of(network, [torch.randn(4, 3, 8, 8)]) == Statistics({}, 0, 0)


def test_statistics_of_another_network_are_refused() -> None:
    first, second = random_architectures(2)
    assert first != second
    statistics = statistics_of(blank_network(MICRO, random_tensors(), first), [torch.randn(4, 3, 8, 8)])
    odd = dataclasses.replace(statistics, sums={f"x.{name}": tensor for name, tensor in statistics.sums.items()})
    with pytest.raises(ValueError, match="another network"):
        with_statistics(blank_network(MICRO, random_tensors(), first), odd)


@pytest.mark.parametrize(
    ("clients", "images", "batch", "asked", "batches"),
    [(20, 1024, 32, 20, 2), (4, 64, 32, 2, 1), (1, 1000, 100, 1, 10), (10_000, 1024, 32, 32, 1), (3, 8, 16, 1, 1)],
)
def test_images_are_spread_over_the_clients(clients: int, images: int, batch: int, asked: int, batches: int) -> None:
    plan = plan_calibration(range(clients), images, batch, seed=1)
    assert (len(plan.clients), plan.batches, plan.batch_size) == (asked, batches, batch)
    assert sorted(set(plan.clients)) == list(plan.clients)
    assert set(plan.clients) <= set(range(clients))
    assert plan == plan_calibration(range(clients), images, batch, seed=1)


def test_clients_that_fail_are_left_out_and_all_failing_is_an_error() -> None:
    tasks = list(CalibrationPlan(range(3), 1, 8, 5).tasks(smallest(), views(MICRO, random_tensors(), smallest())))
    good = client_statistics(MICRO, tasks[0], random_images(8), NORMALISATION)
    failure = Failure(tasks[1], "error", "battery empty")
    statistics, failures = gather(tasks[:2], [good, failure])
    assert (statistics.batches, failures) == (good.batches, [failure])
    with pytest.raises(UserError, match=r"no client could calibrate the subnet \(client 1: battery empty\)"):
        gather(tasks[1:2], [failure])
