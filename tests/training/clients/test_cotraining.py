"""Co-training's step, against networks taken out, trained alone, and their gradients put back."""

import dataclasses

import pytest
import torch
from helpers.networks.spaces import SMALL_RESNET
from helpers.runs.federation import MICRO, micro_recipe, random_images
from helpers.runs.simulation import (
    largest,
    micro_task,
    random_architectures,
    random_tensors,
    same_bytes,
    smallest,
    train_client,
)
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import intersection
from fedpareto.supernet.networks.weights import Tensors, extract, network_with, views
from fedpareto.supernet.slices import slices, supernet_architecture
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.cotraining import CoTrainingStep, InnerNetwork, distillation_loss
from fedpareto.training.clients.loss import ClientLoss
from fedpareto.training.clients.trainer import make_optimizer
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.execution.profile import Profile
from fedpareto.training.local_objective import CoTraining

_CPU = torch.device("cpu")
_DOUBLE = torch.float64


def _images(side: int, count: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, side, side, generator=generator, dtype=_DOUBLE), torch.arange(count) % 4


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def _inside(space: SearchSpace = MICRO) -> list[Architecture]:
    """Return an architecture, one inside it and the smallest."""
    outer, other = random_architectures(2, seed=5, space=space)
    inner = intersection(space, outer, other)
    assert len({outer, inner, smallest(space)}) == 3
    return [outer, inner, smallest(space)]


def _gradients_alone(
    space: SearchSpace, tensors: Tensors, architecture: Architecture, images: Tensor, loss_of: object
) -> tuple[dict[str, Tensor], Tensor]:
    """Return a network's gradients, and its logits, when it is taken out of supernet tensors and runs alone."""
    network = network_with(space, architecture, extract(space, tensors, architecture)).train()
    logits = network(_resized(images, architecture.resolution))
    loss_of(logits).backward()  # type: ignore[operator]
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, logits.detach()


@pytest.mark.parametrize("space", [MICRO, SMALL_RESNET], ids=["mobilenet", "resnet"])
@pytest.mark.parametrize(("share", "temperature"), [(0.0, 1.0), (0.5, 1.0), (0.3, 4.0), (1.0, 2.0)])
def test_the_summed_gradient_is_that_of_extracted_networks_scattered_back(
    space: SearchSpace, share: float, temperature: float
) -> None:
    tensors = {name: tensor.double() for name, tensor in random_tensors(0, space).items()}
    outer, inner, least = _inside(space)
    images, labels = _images(outer.resolution)

    def own(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    gradients, targets = _gradients_alone(space, tensors, outer, images, own)
    expected = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    for name, view in views(space, expected, outer).items():
        view.add_(gradients[name])
    for architecture in (least, inner):

        def distilled(logits: Tensor) -> Tensor:
            soft = F.softmax(targets / temperature, dim=1)
            cross = -(soft * F.log_softmax(logits / temperature, dim=1)).sum(dim=1).mean()
            entropy = -(soft * soft.log()).sum(dim=1).mean()
            return (1 - share) * own(logits) + share * temperature**2 * (cross - entropy)

        gradients, _ = _gradients_alone(space, tensors, architecture, images, distilled)
        for name, view in views(space, expected, architecture).items():
            view.add_(gradients[name])

    lr = 0.5
    config = ClientConfig(momentum=0.0, weight_decay=0.0, clip=0.0)
    network = network_with(space, outer, extract(space, tensors, outer)).train()
    optimizer = make_optimizer(network, config, lr)
    step = CoTrainingStep(
        network,
        lambda architecture: InnerNetwork(space, architecture, network, Profile()),
        macs_of(space, outer),
        optimizer,
        ClientLoss(config, space.classes, _CPU),
        config,
        Profile(),
        _CPU,
    )
    step.begin(micro_task(outer, space=space, seed=0, objective=CoTraining((least,), (inner,), share, temperature)))
    loss = step(images, labels)
    assert step.macs == sum(macs_of(space, architecture) for architecture in (outer, inner, least))
    assert loss.item() == pytest.approx(own(targets).item())
    for name, parameter in network.named_parameters():
        before, change = views(space, tensors, outer)[name], views(space, expected, outer)[name]
        torch.testing.assert_close(parameter.detach(), before - lr * change, rtol=1e-6, atol=1e-8)


def test_distillation_pulls_towards_the_targets_and_is_zero_at_them() -> None:
    targets = torch.tensor([[2.0, 0.0, -1.0]])
    assert distillation_loss(targets, targets, 3.0).item() == pytest.approx(0.0, abs=1e-7)
    assert distillation_loss(-targets, targets, 3.0) > distillation_loss(0.5 * targets, targets, 3.0) > 0


def _objective(**fields: object) -> CoTraining:
    _, inner, least = _inside()
    return dataclasses.replace(CoTraining((least,), (inner, least), 0.5, 1.0), **fields)  # type: ignore[arg-type]


def test_a_client_that_co_trains_sends_its_whole_envelope_once_and_counts_every_network() -> None:
    outer = largest()
    objective = CoTraining((smallest(),), tuple(random_architectures(3)), 0.5, 1.0)
    update = train_client(micro_task(outer, objective=objective, epochs=2), random_images(20), micro_recipe())
    assert {name: t.shape for name, t in update.tensors.items()} == {
        name: t.shape for name, t in extract(MICRO, random_tensors(), outer).items()
    }
    # Two epochs of two whole batches of 8, each with the envelope, the smallest and one of three.
    always = macs_of(MICRO, outer) + macs_of(MICRO, smallest())
    drawn = [macs_of(MICRO, architecture) for architecture in objective.drawn]
    assert 4 * 8 * (always + min(drawn)) <= update.compute <= 4 * 8 * (always + max(drawn))
    assert not same_bytes(dict(update.tensors), extract(MICRO, random_tensors(), outer))


def test_networks_are_drawn_by_the_tasks_seed_alone() -> None:
    objective = CoTraining((), tuple(random_architectures(6)), 0.5, 1.0)
    data, recipe = random_images(40), micro_recipe()
    first, again, other = (train_client(micro_task(objective=objective, seed=seed), data, recipe) for seed in (1, 1, 2))
    assert same_bytes(dict(first.tensors), dict(again.tensors))
    assert first.compute == again.compute != other.compute


def test_without_other_networks_co_training_is_plain_training() -> None:
    data, recipe = random_images(24), micro_recipe()
    plain = train_client(micro_task(), data, recipe)
    alone = train_client(micro_task(objective=CoTraining((), (), 0.5, 1.0)), data, recipe)
    assert same_bytes(dict(plain.tensors), dict(alone.tensors))
    assert plain.compute == alone.compute == 24 * macs_of(MICRO, largest())


@pytest.mark.parametrize("precision", ["bf16"])
def test_co_training_in_other_precisions_stays_near_fp32(precision: str) -> None:
    data, recipe, objective = random_images(24), micro_recipe(), _objective(drawn=())
    outer = _inside()[0]
    exact = train_client(micro_task(outer, objective=objective), data, recipe)
    rough = train_client(micro_task(outer, objective=objective), data, recipe, Profile(precision=precision))  # type: ignore[arg-type]
    assert rough.loss == pytest.approx(exact.loss, rel=0.05)


def test_images_are_resized_for_inner_networks_of_lower_resolution() -> None:
    space = dataclasses.replace(MICRO, resolutions=(4, 8))
    outer, inner = supernet_architecture(space), smallest(space)
    assert (outer.resolution, inner.resolution) == (8, 4)
    network = network_with(space, outer, extract(space, random_tensors(0, space), outer)).train()
    found = InnerNetwork(space, inner, network, Profile())
    images = torch.randn(4, 3, 8, 8)
    alone = network_with(space, inner, extract(space, random_tensors(0, space), inner)).train()
    small = F.interpolate(images, size=(4, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(found(images), alone(small))


def test_an_inner_network_shares_the_outer_ones_memory() -> None:
    outer = largest()
    network = network_with(MICRO, outer, extract(MICRO, random_tensors(), outer)).train()
    inner = InnerNetwork(MICRO, smallest(), network, Profile())
    images = torch.randn(4, 3, 8, 8)
    before = inner(images)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    assert not torch.equal(before, inner(images))


@pytest.mark.parametrize("space", [MICRO, SMALL_RESNET], ids=["mobilenet", "resnet"])
def test_the_intersection_of_two_networks_lies_in_the_slices_of_both(space: SearchSpace) -> None:
    networks = random_architectures(30, seed=9, space=space)
    for one, other in zip(networks[::2], networks[1::2], strict=True):
        both = intersection(space, one, other)
        assert both == intersection(space, other, one)
        assert intersection(space, one, one) == one
        for name, index in slices(space, both).items():
            for outer in (slices(space, one)[name], slices(space, other)[name]):
                assert all(o.start <= i.start <= i.stop <= o.stop for i, o in zip(index, outer, strict=True))


def test_norms_keep_no_statistics_while_networks_share_them() -> None:
    network = network_with(MICRO, largest(), extract(MICRO, random_tensors(), largest())).train()
    inner = InnerNetwork(MICRO, smallest(), network, Profile())
    inner(torch.randn(4, 3, 8, 8))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(norm.running_mean is None for norm in norms)
