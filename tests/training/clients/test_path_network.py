"""Paths through a network as modules on its weights."""

import numpy as np
import pytest
import torch
from helpers.networks.spaces import SMALL_RESNET
from helpers.runs.federation import MICRO, micro_space
from helpers.runs.simulation import random_tensors
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from fedpareto.supernet.networks.weights import Tensors, forward, network_with
from fedpareto.supernet.slices import supernet_architecture, tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.path_network import PathNetwork
from fedpareto.training.clients.paths import Path
from fedpareto.training.execution.profile import Profile

_SPACES = [MICRO, micro_space(name="grouped", norm="group"), SMALL_RESNET]


def _images(space: SearchSpace, count: int = 8) -> Tensor:
    side = space.resolutions[-1]
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


class _Whole:
    """The paths through the supernet of a space, on weights of their own."""

    def __init__(self, space: SearchSpace) -> None:
        self.space, self.tensors = space, random_tensors(0, space)
        whole = supernet_architecture(space)
        self.module = network_with(space, whole, self.tensors).train()
        self.network = PathNetwork(space, whole, self.module, Profile())
        self.paths = self.network.paths

    def random_paths(self, count: int) -> list[Path]:
        generator = np.random.default_rng(2)
        return [
            self.paths.path([int(generator.integers(len(slot.choices))) for slot in self.paths.slots])
            for _ in range(count)
        ]

    def gradients(self, path: Path) -> dict[str, Tensor | None]:
        """Return the gradients of all weights after a loss of one path, and forget them."""
        labels = torch.arange(8) % self.space.classes
        F.cross_entropy(self.network(_images(self.space), path, {}), labels).backward()  # type: ignore[no-untyped-call]
        self.network.push_gradients()
        found = {name: parameter.grad for name, parameter in self.module.named_parameters()}
        self.module.zero_grad(set_to_none=True)
        return found


@pytest.fixture(scope="module", params=_SPACES, ids=lambda space: space.name)
def whole(request: pytest.FixtureRequest) -> _Whole:
    return _Whole(request.param)


def test_a_path_computes_what_its_network_does(whole: _Whole) -> None:
    images = _images(whole.space)
    with torch.no_grad():
        for path in whole.random_paths(8):
            expected = forward(whole.space, whole.tensors, whole.paths.network(path), images)
            assert torch.equal(whole.network(images, path, {}), expected)


def test_a_skipped_slot_makes_the_shallower_network(whole: _Whole) -> None:
    images, slots = _images(whole.space), whole.paths.slots
    skipped = [slot.choices.index(None) if None in slot.choices else slot.largest for slot in slots]
    path = whole.paths.path(skipped)
    network = whole.paths.network(path)
    assert [len(stage.blocks) for stage in network.stages] == [1] * len(network.stages)
    with torch.no_grad():
        expected = forward(whole.space, whole.tensors, network, images)
        assert torch.equal(whole.network(images, path, {}), expected)


def test_gradients_are_those_of_the_paths_network_and_none_elsewhere(whole: _Whole) -> None:
    for path in whole.random_paths(4):
        leaves: Tensors = {
            name: tensor.clone().requires_grad_() for name, tensor in random_tensors(0, whole.space).items()
        }
        network, labels = whole.paths.network(path), torch.arange(8) % whole.space.classes
        F.cross_entropy(forward(whole.space, leaves, network, _images(whole.space)), labels).backward()  # type: ignore[no-untyped-call]
        found = whole.gradients(path)
        own = tensor_shapes(whole.space, network)
        assert found.keys() == leaves.keys()
        for name, gradient in found.items():
            if name not in own:
                assert gradient is None
                continue
            assert gradient is not None
            torch.testing.assert_close(gradient, leaves[name].grad, atol=1e-6, rtol=1e-4)


def test_the_last_paths_gradients_are_not_handed_over_again(whole: _Whole) -> None:
    path, other = whole.random_paths(2)
    first = whole.gradients(path)
    whole.gradients(other)
    for name, gradient in whole.gradients(path).items():
        before = first[name]
        assert (gradient is None) == (before is None)
        assert gradient is None or before is None or torch.equal(gradient, before)


def test_blocks_follow_the_weights_and_are_built_once(whole: _Whole) -> None:
    (path,) = whole.random_paths(1)
    with torch.no_grad():
        whole.network(_images(whole.space), path, {})
        built = dict(whole.network._blocks)
        for parameter in whole.module.parameters():
            parameter.add_(0.05)
        images = _images(whole.space)
        expected = forward(whole.space, whole.tensors, whole.paths.network(path), images)
        assert torch.equal(whole.network(images, path, {}), expected)
    assert all(whole.network._blocks[key] is block for key, block in built.items())


def test_a_gate_of_one_changes_nothing_and_another_scales_what_the_block_adds(whole: _Whole) -> None:
    images, slots = _images(whole.space), whole.paths.slots
    path = whole.paths.path([slot.largest for slot in slots])
    residual = next(number for number, slot in enumerate(slots) if slot.index == 1)
    with torch.no_grad():
        plain = whole.network(images, path, {})
        ones = {number: torch.ones(()) for number in range(len(slots))}
        assert torch.equal(whole.network(images, path, ones), plain)
        # Without a gate there is none left over from the call before.
        assert not torch.equal(whole.network(images, path, {residual: torch.tensor(0.5)}), plain)
        assert torch.equal(whole.network(images, path, {}), plain)


def test_a_block_that_adds_nothing_is_as_good_as_skipped() -> None:
    whole = _Whole(MICRO)
    images = _images(MICRO)
    taken, skipped = whole.paths.path([3, 3, 3, 3]), whole.paths.path([3, 4, 3, 4])
    with torch.no_grad():
        closed = whole.network(images, taken, {1: torch.zeros(()), 3: torch.zeros(())})
        assert torch.equal(closed, whole.network(images, skipped, {}))


def test_a_skipped_slots_gate_and_the_gates_behind_it_play_no_part(whole: _Whole) -> None:
    images, slots = _images(whole.space), whole.paths.slots
    path = whole.paths.path([slot.choices.index(None) if None in slot.choices else 0 for slot in slots])
    others = {number: torch.tensor(7.0) for number, slot in enumerate(slots) if slot.index}
    with torch.no_grad():
        assert torch.equal(whole.network(images, path, others), whole.network(images, path, {}))
