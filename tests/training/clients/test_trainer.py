import dataclasses

import pytest
import torch
from helpers.runs.federation import MICRO, NORMALISATION, micro_recipe, micro_space, random_images
from helpers.runs.simulation import (
    largest,
    micro_task,
    random_architectures,
    random_tensors,
    same_bytes,
    smallest,
    train_client,
)
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from fedpareto.supernet.networks.weights import Tensors, extract, forward, network_with
from fedpareto.supernet.slices import slices
from fedpareto.training.clients.trainer import LocalRecipe
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.batches import Batches
from fedpareto.training.data.images import ImageSet
from fedpareto.training.messages import Task, Update


def _plain_recipe(**client: float) -> LocalRecipe:
    """Return a recipe without augmentation, momentum, decay and clipping, but for ``client``."""
    bare = {"momentum": 0.0, "weight_decay": 0.0, "clip": 0.0, **client}
    return dataclasses.replace(micro_recipe(MICRO, **bare), augmentation=Augmentation())


def _trained(task: Task, data: ImageSet, recipe: LocalRecipe) -> Tensors:
    return dict(train_client(task, data, recipe).tensors)


def _step(recipe: LocalRecipe, learning_rate: float = 0.05) -> Tensors:
    """Return how far one step on one batch of 8 moves every tensor."""
    before = micro_task().tensors
    after = _trained(micro_task(learning_rate=learning_rate), random_images(8), recipe)
    return {name: after[name] - tensor for name, tensor in before.items()}


def _norm(tensors: Tensors) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors.values()]).norm())


def _batches(task: Task, data: ImageSet, recipe: LocalRecipe) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(task.seed)
    batches = Batches(8, recipe.augmentation, NORMALISATION, 4)
    return [batch for _ in range(task.epochs) for batch in batches.epoch(data, 8, generator)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    data, recipe = random_images(24), micro_recipe()
    first, again, other = (_trained(micro_task(seed=seed), data, recipe) for seed in (7, 7, 8))
    assert same_bytes(first, again)
    assert not same_bytes(first, other)


def test_global_generators_are_neither_read_nor_moved() -> None:
    data, recipe = random_images(24), micro_recipe()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = _trained(micro_task(), data, recipe)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert same_bytes(first, _trained(micro_task(), data, recipe))


def test_training_leaves_the_supernet_the_task_was_cut_from_alone() -> None:
    supernet = random_tensors()
    update = _trained(micro_task(tensors=supernet), random_images(24), micro_recipe())
    assert same_bytes(supernet, random_tensors())
    assert not same_bytes(update, supernet)


def test_local_training_is_sgd_with_clipping_momentum_and_decay_as_written_out() -> None:
    data, task = random_images(24), micro_task(epochs=2)
    recipe = micro_recipe(momentum=0.9, weight_decay=0.05, clip=0.5)
    tensors = {name: tensor.clone() for name, tensor in task.tensors.items()}
    velocity = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    losses = []
    for images, labels in _batches(task, data, recipe):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
        loss = F.cross_entropy(forward(MICRO, leaves, largest(), images), labels)
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        shrink = min(1.0, 0.5 / _norm(gradients))
        for name, tensor in tensors.items():
            decay = 0.05 * tensor if tensor.ndim > 1 else 0.0
            velocity[name] = 0.9 * velocity[name] + shrink * gradients[name] + decay
            tensors[name] = tensor - 0.05 * velocity[name]
        losses.append(loss.item())
    update = train_client(task, data, recipe)
    for name, tensor in tensors.items():
        torch.testing.assert_close(update.tensors[name], tensor, atol=2e-5, rtol=1e-4)
    assert update.loss == pytest.approx(sum(losses[3:]) / 3, rel=1e-4)


def test_weight_decay_on_all_pulls_on_norms_and_biases_as_on_weights() -> None:
    free, decayed = _step(_plain_recipe()), _step(_plain_recipe(weight_decay=0.1, decay_all=True))
    for name, before in micro_task().tensors.items():
        torch.testing.assert_close(decayed[name] - free[name], -0.005 * before, atol=1e-6, rtol=1e-3)


def test_weight_decay_pulls_on_weights_and_not_on_norms_and_biases() -> None:
    free, decayed = _step(_plain_recipe()), _step(_plain_recipe(weight_decay=0.1))
    for name, before in micro_task().tensors.items():
        pull = -0.05 * 0.1 * before if before.ndim > 1 else torch.zeros_like(before)
        torch.testing.assert_close(decayed[name] - free[name], pull, atol=1e-6, rtol=1e-3)


def test_clipping_bounds_the_step() -> None:
    free = _norm(_step(_plain_recipe()))
    assert free > 0.05 * 0.1
    assert _norm(_step(_plain_recipe(clip=0.1))) == pytest.approx(0.05 * 0.1, rel=1e-3)
    assert _norm(_step(_plain_recipe(clip=1e6))) == pytest.approx(free, rel=1e-6)


def test_the_step_follows_the_learning_rate_of_the_task() -> None:
    assert _norm(_step(_plain_recipe(lr=99.0), 0.02)) == pytest.approx(
        _norm(_step(_plain_recipe(), 0.01)) * 2, rel=1e-2
    )


def test_the_last_incomplete_batch_is_left_out() -> None:
    data, recipe, task = random_images(20), _plain_recipe(), micro_task(seed=3)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    before = _trained(task, data, recipe)

    def changed(position: int) -> Tensors:
        images = data.loaded().clone()
        images[order[position]] = 255 - images[order[position]]
        return _trained(micro_task(seed=3), ImageSet(images, data.labels, data.classes), recipe)

    assert all(same_bytes(before, changed(position)) for position in (16, 19))
    assert not any(same_bytes(before, changed(position)) for position in (0, 15))


def test_label_smoothing_spreads_its_share_of_the_target_over_all_classes() -> None:
    data, task = random_images(8), micro_task(learning_rate=1e-12)
    ((images, labels),) = _batches(task, data, _plain_recipe())
    logs = F.log_softmax(forward(MICRO, task.tensors, largest(), images), dim=1)
    hard = -logs[torch.arange(8), labels].mean().item()
    uniform = -logs.mean().item()
    plain, smooth = (
        train_client(micro_task(learning_rate=1e-12), data, _plain_recipe(label_smoothing=share)).loss
        for share in (0.0, 0.2)
    )
    assert plain == pytest.approx(hard, rel=1e-4)
    assert smooth == pytest.approx(0.8 * hard + 0.2 * uniform, rel=1e-4)
    assert abs(smooth - plain) > 1e-3


def test_gradients_through_views_of_the_supernet_are_those_of_the_extracted_network() -> None:
    images, labels = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8)
    for architecture in [smallest(), *random_architectures(3), largest()]:
        supernet = {name: tensor.requires_grad_() for name, tensor in random_tensors().items()}
        F.cross_entropy(forward(MICRO, supernet, architecture, images), labels).backward()  # type: ignore[no-untyped-call]
        network = network_with(MICRO, architecture, extract(MICRO, supernet, architecture)).train()
        F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        own = {name: parameter.grad for name, parameter in network.named_parameters()}
        for name, tensor in supernet.items():
            scattered = torch.zeros_like(tensor)
            gradient = own.get(name)
            if gradient is not None:
                scattered[slices(MICRO, architecture)[name]] = gradient
            got = tensor.grad if tensor.grad is not None else torch.zeros_like(tensor)
            torch.testing.assert_close(got, scattered, atol=1e-6, rtol=1e-4)


def test_an_update_answers_its_task_with_its_names_shapes_and_number_of_images() -> None:
    task = micro_task(smallest(), client=4)
    update: Update = train_client(task, random_images(21), micro_recipe())
    assert update.task is task
    assert update.examples == 21
    assert update.sgd_seconds > 0
    assert {name: tensor.shape for name, tensor in update.tensors.items()} == {
        name: tensor.shape for name, tensor in micro_task(smallest()).tensors.items()
    }
    assert not any(tensor.requires_grad for tensor in update.tensors.values())


def test_training_learns() -> None:
    data = random_images(16)
    first = train_client(micro_task(), data, _plain_recipe()).loss
    last = train_client(micro_task(epochs=30), data, _plain_recipe(momentum=0.9)).loss
    assert last < first / 2


def test_networks_of_group_norm_train_too() -> None:
    space = micro_space(norm="group")
    update = train_client(micro_task(space=space), random_images(16), micro_recipe(space))
    assert all(tensor.isfinite().all() for tensor in update.tensors.values())
