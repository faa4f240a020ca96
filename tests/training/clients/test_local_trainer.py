"""Clients that train one after another in the same memory, and the ways their steps are computed."""

import dataclasses
import functools
import gc
import itertools
import math
import weakref
from concurrent.futures import CancelledError
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers.networks.spaces import SMALL_RESNET
from helpers.runs.federation import MICRO, micro_recipe, micro_space, random_images
from helpers.runs.simulation import (
    largest,
    micro_task,
    random_architectures,
    random_tensors,
    same_bytes,
    smallest,
    train_client,
)

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.networks.weights import views
from fedpareto.supernet.space import SearchSpace, StageSpec
from fedpareto.training.clients.compute import training_macs
from fedpareto.training.clients.trainer import LocalRecipe, LocalTrainer
from fedpareto.training.config.execution import Kernels, Precision
from fedpareto.training.data.images import ImageSet
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import Task, Update


class _Pair(NamedTuple):
    """What a client trains, and on which images."""

    task: Task
    data: ImageSet


_MICRO_GROUP = micro_space(norm="group")
_BF16 = Profile(precision="bf16")


@functools.cache
def _pairs(space: SearchSpace) -> tuple[_Pair, ...]:
    """Return clients of the largest and the smallest network, two of each, and one of another.

    Each has tensors, images and a rate of its own; the tensors are views of a supernet, as the server's are.
    """
    (other,) = random_architectures(1, seed=3, space=space)
    chosen = [largest(space), smallest(space), largest(space), other, smallest(space)]
    assert len(set(chosen)) == 3
    return tuple(
        _Pair(
            Task(
                round=1,
                client=number,
                architecture=architecture,
                tensors=views(space, random_tensors(number, space), architecture),
                epochs=1,
                learning_rate=0.02 * (number + 1),
                seed=number,
            ),
            random_images(17 + number, seed=number),
        )
        for number, architecture in enumerate(chosen)
    )


def _shared_trainer(recipe: LocalRecipe, profile: Profile | None = None) -> LocalTrainer:
    return LocalTrainer(recipe, profile or Profile(), torch.device("cpu"))


@pytest.mark.parametrize(
    ("space", "client", "profile"),
    [
        (MICRO, {"momentum": 0.9, "weight_decay": 0.05, "clip": 0.5}, Profile()),
        (MICRO, {"momentum": 0.9, "weight_decay": 0.05, "clip": 0.5}, Profile("fp32", "contiguous", fused=False)),
        (MICRO, {"momentum": 0.0, "weight_decay": 0.0, "clip": 0.0}, Profile()),
        (_MICRO_GROUP, {"momentum": 0.9}, Profile()),
        (SMALL_RESNET, {"momentum": 0.9, "clip": 0.5}, Profile()),
    ],
    ids=["all", "contiguous", "plain", "group", "resnet"],
)
def test_a_client_in_memory_others_have_used_trains_to_the_bytes_of_one_in_its_own(
    space: SearchSpace, client: dict[str, float], profile: Profile
) -> None:
    recipe, pairs = micro_recipe(space, **client), _pairs(space)
    fresh = [train_client(*pair, recipe, profile) for pair in pairs]
    shared = _shared_trainer(recipe, profile)
    rest = np.random.default_rng(0).integers(len(pairs), size=5).tolist()
    for number in [0, 1, 2, 3, 4, 0, *rest]:
        update = shared.train(*pairs[number])
        assert same_bytes(dict(update.tensors), dict(fresh[number].tensors))
        assert update.loss == fresh[number].loss
        assert update.examples == 17 + number


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "fused"), [("fp32", True), ("fp32", False), ("bf16", True), ("fp16", True)])
def test_a_client_whose_training_diverged_leaves_no_trace(precision: Precision, fused: bool) -> None:
    profile, recipe = Profile(precision=precision, fused=fused), micro_recipe(MICRO, momentum=0.9, clip=0.0)
    pairs = _pairs(MICRO)[:2]
    fresh = [dict(train_client(*pair, recipe, profile).tensors) for pair in pairs]
    shared = _shared_trainer(recipe, profile)
    for spoiler, number in [(0, 0), (0, 1), (1, 0)]:
        # So many skipped steps make the scale of fp16 gradients too small for them.
        epochs = 12 if precision == "fp16" else 1
        task = dataclasses.replace(pairs[spoiler].task, learning_rate=1e30, epochs=epochs)
        assert not math.isfinite(shared.train(task, pairs[spoiler].data).loss)
        assert same_bytes(dict(shared.train(*pairs[number]).tensors), fresh[number])


def test_views_of_the_supernet_are_read_and_never_written() -> None:
    supernet = random_tensors()
    shared = _shared_trainer(micro_recipe(momentum=0.9))
    for architecture in (largest(), smallest(), largest()):
        for learning_rate in (0.05, 1e30):
            task = dataclasses.replace(
                micro_task(architecture, learning_rate=learning_rate), tensors=views(MICRO, supernet, architecture)
            )
            update = shared.train(task, random_images(16))
            theirs = {tensor.untyped_storage().data_ptr() for tensor in supernet.values()}
            assert not theirs & {tensor.untyped_storage().data_ptr() for tensor in update.tensors.values()}
    assert same_bytes(supernet, random_tensors())


_PROFILES = [
    Profile(memory_format=layout, fused=fused) for layout in ("channels_last", "contiguous") for fused in (True, False)
]


@pytest.mark.parametrize("space", [MICRO, SMALL_RESNET], ids=lambda space: space.name)
def test_memory_formats_and_optimizers_differ_by_rounding_and_each_repeats_its_bytes(space: SearchSpace) -> None:
    recipe = micro_recipe(space, momentum=0.9, weight_decay=0.05, clip=1.0)
    task, data = micro_task(space=space), random_images(24)
    trained = [dict(train_client(task, data, recipe, profile).tensors) for profile in _PROFILES]
    for profile, tensors in zip(_PROFILES, trained, strict=True):
        assert same_bytes(tensors, dict(train_client(task, data, recipe, profile).tensors))
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, trained[0][name], atol=1e-5, rtol=1e-4)
    moved = max(float((tensor - task.tensors[name]).abs().max()) for name, tensor in trained[0].items())
    assert moved > 0.01


@pytest.mark.parametrize("profile", _PROFILES, ids=str)
def test_an_update_lies_in_the_memory_format_of_the_profile(profile: Profile) -> None:
    for tensor in train_client(micro_task(), random_images(8), micro_recipe(), profile).tensors.values():
        assert tensor.ndim != 4 or tensor.is_contiguous(memory_format=profile.torch_format)


def test_bf16_learns_about_what_fp32_does_and_its_update_is_float32() -> None:
    data, recipe, task = random_images(32), micro_recipe(), micro_task(epochs=4)
    full = train_client(task, data, recipe)
    half = train_client(task, data, recipe, _BF16)
    assert half.loss == pytest.approx(full.loss, rel=0.05)
    assert half.loss != full.loss
    assert full.loss < 0.9 * train_client(micro_task(), data, recipe).loss
    assert {tensor.dtype for tensor in half.tensors.values()} == {torch.float32}
    assert not same_bytes(dict(half.tensors), dict(full.tensors))


def test_clients_after_the_first_of_each_network_take_no_new_memory() -> None:
    shared, pairs = _shared_trainer(micro_recipe(momentum=0.9)), _pairs(MICRO)

    def addresses(number: int) -> dict[str, int]:
        return {name: tensor.data_ptr() for name, tensor in shared.train(*pairs[number]).tensors.items()}

    first = [addresses(number) for number in range(len(pairs))]
    for number in (3, 0, 0, 2, 1):
        assert addresses(number) == first[number]
    # All networks are views of one block a tensor.
    assert all(own.items() <= first[0].items() for own in first)


def _one_block() -> SearchSpace:
    """A space of one block, quick to build, with more than 66 networks."""
    return micro_space(
        name="one-block",
        stages=(StageSpec(32, stride=2),),
        resolutions=(6, 8),
        depths=(1,),
        kernels=(1, 3, 5),
        expands=(1, 2, 3, 4, 5),
        width_multipliers=(0.25, 0.5, 0.75, 1.0),
        head=None,
    )


@pytest.mark.slow
def test_networks_trained_longest_ago_are_dropped_beyond_64_and_still_train_right() -> None:
    space = _one_block()
    chosen = list(dict.fromkeys(random_architectures(400, space=space)))[:66]
    assert len(chosen) == 66
    recipe, data, supernet = micro_recipe(space), random_images(8), random_tensors(0, space)
    shared = _shared_trainer(recipe)

    def train(number: int) -> Update:
        return shared.train(micro_task(chosen[number], supernet, space), data)

    def kept(*numbers: int) -> list[bool]:
        gc.collect()
        return [held[number]() is not None for number in numbers]

    # The tensors themselves tell whether anything still holds a network.
    held = [weakref.ref(next(iter(train(number).tensors.values()))) for number in range(64)]
    assert kept(0, 1, 2, 63) == [True] * 4
    train(0)
    for number in (64, 65):
        train(number)
    assert kept(0, 1, 2, 3, 63) == [True, False, False, True, True]
    for number in (1, 65, 0):
        alone = train_client(micro_task(chosen[number], supernet, space), data, recipe)
        assert same_bytes(dict(train(number).tensors), dict(alone.tensors))


def test_a_cancelled_client_stops_before_its_next_step_and_leaves_no_trace() -> None:
    recipe = micro_recipe(momentum=0.9)
    shared = _shared_trainer(recipe)
    data, task = random_images(24), micro_task(epochs=2)
    answers = iter([False, False, True])
    with pytest.raises(CancelledError):
        shared.train(task, data, lambda: next(answers))
    assert list(answers) == []
    asked = itertools.count()
    update = shared.train(task, data, lambda: next(asked) < 0)
    assert next(asked) == 6
    assert same_bytes(dict(update.tensors), dict(train_client(task, data, recipe).tensors))


def test_graphs_are_refused_where_there_is_no_gpu() -> None:
    with pytest.raises(ValueError, match="graphs are recorded on a GPU, not on cpu"):
        train_client(micro_task(), random_images(8), micro_recipe(), Profile(graphs=True))


@pytest.mark.parametrize("kernels", ["torch", pytest.param("numba", marks=pytest.mark.slow)])
def test_a_client_of_fewer_images_than_a_batch_trains_on_one_batch_of_them(kernels: Kernels) -> None:
    task, profile = micro_task(epochs=2), Profile(kernels=kernels)
    few = train_client(task, random_images(5), micro_recipe(batch_size=8), profile)
    exact = train_client(task, random_images(5), micro_recipe(batch_size=5), profile)
    assert same_bytes(dict(few.tensors), dict(exact.tensors))
    assert not same_bytes(dict(few.tensors), dict(task.tensors))
    assert few.compute == exact.compute == training_macs(macs_of(MICRO, task.architecture), 5, 2, 8) > 0
