"""The local step of direct federated search."""

import dataclasses
import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
from helpers.networks.spaces import SMALL_RESNET
from helpers.runs.federation import MICRO, micro_recipe, micro_space, random_images
from helpers.runs.simulation import largest, micro_task, random_tensors, same_bytes, smallest, train_client
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import Tensors, network_with, views
from fedpareto.supernet.slices import supernet_architecture, tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.path_network import PathNetwork
from fedpareto.training.clients.path_sampling import PathLogits, expected_macs
from fedpareto.training.clients.paths import Path, Paths, paths_through
from fedpareto.training.clients.trainer import LocalTrainer
from fedpareto.training.execution.profile import Profile
from fedpareto.training.local_objective import Logits, PathSampling
from fedpareto.training.messages import Task, Update


def _paths(space: SearchSpace = MICRO) -> Paths:
    return paths_through(space, supernet_architecture(space))


def _even(paths: Paths | None = None) -> Logits:
    """Return logits of all slots, their choices alike."""
    return tuple((0.0,) * len(slot.choices) for slot in (paths or _paths()).slots)


def _uneven(paths: Paths) -> Logits:
    return tuple(
        tuple(math.sin(3 * number + own) for own in range(len(slot.choices))) for number, slot in enumerate(paths.slots)
    )


def _only(number: int) -> Logits:
    """Return logits of one slot alone; all others keep their block."""
    return tuple(logits if own == number else None for own, logits in enumerate(_even()))


def _task(objective: PathSampling, **fields: Any) -> Task:
    return dataclasses.replace(micro_task(**fields), objective=objective)


def _moved(update: Update) -> list[Tensor]:
    assert update.logits is not None
    return [torch.tensor(slot or (), dtype=torch.float64) for slot in update.logits]


# The gradient.


class _Sampled:
    """The loss of one path as a function of all logits, in float64: gates are p/stop_gradient(p) of what was drawn."""

    def __init__(self, space: SearchSpace, logits: Logits, chosen: list[int]) -> None:
        whole = supernet_architecture(space)
        tensors = {name: tensor.double() for name, tensor in random_tensors(0, space).items()}
        self.network = PathNetwork(space, whole, network_with(space, whole, tensors).train(), Profile())
        self.path = self.network.paths.path(chosen)
        self.logits = [torch.tensor(slot, dtype=torch.float64) for slot in logits]
        side, generator = space.resolutions[-1], torch.Generator().manual_seed(3)
        self.images = torch.randn(8, 3, side, side, generator=generator, dtype=torch.float64)
        self.labels = torch.arange(8) % space.classes

    def loss(self, gates: dict[int, Tensor]) -> Tensor:
        return F.cross_entropy(self.network(self.images, self.path, gates), self.labels)

    def at(self, logits: list[Tensor]) -> float:
        """Return the loss at other logits; what the gates are divided by stays."""
        gates = {
            number: logits[number].softmax(0)[choice] / self.logits[number].softmax(0)[choice]
            for number, choice in enumerate(self.path)
            if choice is not None
        }
        with torch.no_grad():
            return self.loss(gates).item()

    def gate_gradients(self) -> dict[int, float]:
        gates = {number: torch.ones((), dtype=torch.float64, requires_grad=True) for number in range(len(self.path))}
        self.loss(gates).backward()  # type: ignore[no-untyped-call]
        taken = [number for number, choice in enumerate(self.path) if choice is not None]
        return {number: 0.0 if (grad := gates[number].grad) is None else grad.item() for number in taken}


def _first_gradient(logits: PathLogits) -> list[Tensor]:
    """Return the gradients that Adam has seen in its only step, by its first moments."""
    adam = logits._adam
    assert adam is not None
    return [
        adam.state[parameter]["exp_avg"] / 0.5 if parameter in adam.state else torch.zeros_like(parameter)
        for parameter in logits._open.values()
    ]


@pytest.mark.parametrize("space", [MICRO, micro_space(norm="group"), SMALL_RESNET], ids=["batch", "group", "resnet"])
@pytest.mark.parametrize("ends", [False, True], ids=["deep", "ends"])
def test_the_gradient_of_the_logits_is_exactly_that_of_the_sampled_objective(space: SearchSpace, ends: bool) -> None:
    paths = _paths(space)
    chosen = [slot.choices.index(None) if ends and slot.index and None in slot.choices else 1 for slot in paths.slots]
    logits = _uneven(paths)
    sampled = _Sampled(space, logits, chosen)
    moving = PathLogits(paths, PathSampling(logits, 1e-3), 0)
    moving.step(sampled.path, sampled.gate_gradients())
    got, step = _first_gradient(moving), 1e-5
    largest_gradient = 0.0
    for number, slot in enumerate(logits):
        for own in range(len(slot or ())):
            ends_at = []
            for sign in (1, -1):
                shifted = [tensor.clone() for tensor in sampled.logits]
                shifted[number][own] += sign * step
                ends_at.append(sampled.at(shifted))
            difference = (ends_at[0] - ends_at[1]) / (2 * step)
            assert got[number][own].item() == pytest.approx(difference, abs=1e-8, rel=1e-5)
            largest_gradient = max(largest_gradient, abs(difference))
    # In a MobileNet whose stages have one block each, norms take every factor out again.
    assert largest_gradient > 1e-4 or (ends and space.family == "mobilenet")


def test_slots_that_have_no_part_in_a_path_are_left_alone() -> None:
    space = micro_space(depths=(1, 2, 3))
    paths = _paths(space)
    logits = _uneven(paths)
    moving = PathLogits(paths, PathSampling(logits, 0.1), 0)
    moving.step(paths.path([0, 0, 0, 0, 0, 0]), dict.fromkeys(range(6), 1.0))
    before = moving.values()
    path = paths.path([0, 4, 0, 0, 0, 4])
    assert moving.gated(path) == [0, 1, 3, 4, 5]
    moving.step(path, dict.fromkeys(moving.gated(path), 1.0))
    changed = [old != new for old, new in zip(before, moving.values(), strict=True)]
    # Not even by what Adam remembers.
    assert changed == [True, True, False, True, True, True]


@pytest.mark.parametrize("gradient", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_move_nothing(gradient: float) -> None:
    paths = _paths()
    moving = PathLogits(paths, PathSampling(_even(), 0.1, 1e-6), 0)
    moving.step(paths.path([0, 0, 0, 0]), {0: 1.0, 1: gradient, 2: 1.0, 3: 1.0})
    assert moving.values() == _even()


# Draws.


def test_paths_are_drawn_by_softmax_and_settled_slots_hold_their_block() -> None:
    paths = _paths()
    logits: Logits = ((0.0, math.log(3), -math.inf, 0.0), None, None, (0.0, -50.0, -50.0, -50.0, math.log(2)))
    finite: Logits = ((0.0, math.log(3), -50.0, 0.0), *logits[1:])
    drawn = PathLogits(paths, PathSampling(finite, 0.1), 5)
    seen = Counter(drawn.draw() for _ in range(3000))
    first, last = (Counter(dict.fromkeys(range(5), 0)) for _ in range(2))
    for path, times in seen.items():
        assert path[1:3] == (3, 3)
        assert path[0] is not None
        assert path[3] is not None
        first[path[0]] += times
        last[path[3]] += times
    assert [first[own] / 3000 for own in range(4)] == pytest.approx([0.2, 0.6, 0.0, 0.2], abs=0.03)
    assert [last[own] / 3000 for own in range(5)] == pytest.approx([1 / 3, 0, 0, 0, 2 / 3], abs=0.03)


def test_draws_follow_the_seed() -> None:
    def drawn(seed: int) -> list[Path]:
        logits = PathLogits(_paths(), PathSampling(_even(), 0.1), seed)
        return [logits.draw() for _ in range(10)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize(
    "logits",
    [(), _even()[:3], (*_even(), (0.0,)), ((0.0,) * 5, *_even()[1:]), ((), *_even()[1:]), ((0.0,), *_even()[1:])],
    ids=range(6),
)
def test_logits_of_another_network_are_refused_in_one_line(logits: Logits) -> None:
    with pytest.raises(UserError, match=r"a job whose logits number .* with choices \[4, 5, 4, 5\]") as caught:
        train_client(_task(PathSampling(logits, 0.1)), random_images(16), micro_recipe())
    assert "\n" not in str(caught.value)


# The penalty.


@pytest.mark.parametrize("depths", [(1, 2), (1, 3), (1, 2, 3)])
def test_expected_macs_are_the_mean_over_all_draws(depths: tuple[int, ...]) -> None:
    space = micro_space(depths=depths, kernels=(3,), stages=MICRO.stages[:1])
    paths = _paths(space)
    own = [torch.tensor(slot or (), dtype=torch.float64).softmax(0) for slot in _uneven(paths)]
    mean = 0.0
    for chosen in itertools.product(*(range(len(slot.choices)) for slot in paths.slots)):
        share = math.prod(own[number][choice].item() for number, choice in enumerate(chosen))
        mean += share * macs_of(space, paths.network(paths.path(chosen)))
    assert expected_macs(paths, own).item() == pytest.approx(mean, rel=1e-12)


def test_slots_that_are_settled_count_with_their_block() -> None:
    paths = _paths()
    assert expected_macs(paths, [None] * 4).item() == macs_of(MICRO, largest())


def test_the_penalty_moves_logits_by_the_gradient_of_the_expected_macs() -> None:
    paths, logits = _paths(), _uneven(_paths())
    moving = PathLogits(paths, PathSampling(logits, 1e-3, 1e-6, 1000), 0)
    moving.step(paths.path([0, 0, 0, 0]), dict.fromkeys(range(4), 0.0))
    leaves = [torch.tensor(slot, dtype=torch.float64, requires_grad=True) for slot in logits]
    (1e-6 * expected_macs(paths, [leaf.softmax(0) for leaf in leaves])).backward()  # type: ignore[no-untyped-call]
    for got, leaf in zip(_first_gradient(moving), leaves, strict=True):
        torch.testing.assert_close(got, leaf.grad, atol=1e-12, rtol=1e-6)


def _expected(logits: Logits) -> float:
    return expected_macs(_paths(), [torch.tensor(slot or (), dtype=torch.float64).softmax(0) for slot in logits]).item()


@pytest.mark.parametrize("target", [0, 60_000])
def test_the_penalty_pushes_to_fewer_macs_down_to_the_target(target: int) -> None:
    paths = _paths()
    moving = PathLogits(paths, PathSampling(_even(), 0.05, 1e-4, target), 0)
    before = _expected(_even())
    assert before > 60_000
    for _ in range(400):
        path = moving.draw()
        moving.step(path, dict.fromkeys(moving.gated(path), 0.0))
    after = _expected(moving.values())
    # Widths stay: the least that is left are the smallest first blocks.
    assert after == pytest.approx(target or paths.macs(paths.path([0, 4, 0, 4])), rel=0.05)


# Whole clients.


def test_only_tensors_of_the_path_change_without_decay_and_momentum() -> None:
    # One step, of 8 images, along a path that skips a slot.
    task, recipe = _task(PathSampling(_even(), 0.1), seed=4), micro_recipe(momentum=0.0, weight_decay=0.0)
    update = train_client(task, random_images(8), recipe)
    path = PathLogits(_paths(), PathSampling(_even(), 0.1), task.seed).draw()
    own = views(MICRO, random_tensors(), _paths().network(path))
    assert len(own) < len(task.tensors)
    changed = {name for name, before in task.tensors.items() if not torch.equal(update.tensors[name], before)}
    assert changed <= own.keys()
    # All that has to: norms and dead units leave some without a gradient.
    assert {name for name in own if name.endswith(("expand.conv.weight", "project.conv.weight"))} <= changed


def test_a_client_trains_the_path_as_its_network_alone_is_trained() -> None:
    recipe = micro_recipe(momentum=0.0, weight_decay=0.0, clip=0.5)
    task = _task(PathSampling(_even(), 0.1))
    network = _paths().network(PathLogits(_paths(), PathSampling(_even(), 0.1), task.seed).draw())
    update = train_client(task, random_images(8), recipe)
    alone = train_client(micro_task(network), random_images(8), recipe)
    got = views(MICRO, dict(update.tensors), network)
    for name, tensor in alone.tensors.items():
        torch.testing.assert_close(got[name], tensor, atol=1e-6, rtol=1e-5)
    assert update.loss == pytest.approx(alone.loss, rel=1e-5)


def test_one_seed_gives_the_same_bytes_and_another_others() -> None:
    data, objective = random_images(24), PathSampling(_even(), 0.1)

    def trained(seed: int) -> Update:
        return train_client(_task(objective, seed=seed), data, micro_recipe())

    first, again, other = trained(7), trained(7), trained(8)
    assert same_bytes(dict(first.tensors), dict(again.tensors))
    assert first.logits == again.logits != other.logits


def test_nothing_is_left_of_the_client_before() -> None:
    data, objective = random_images(24), PathSampling(_even(), 0.1)
    trainer = LocalTrainer(micro_recipe(), Profile(), torch.device("cpu"))
    other = _task(PathSampling(_only(1), 0.05), seed=2)
    tasks = [_task(objective, seed=1), other, micro_task(seed=3), _task(objective, seed=1)]
    first, *_, last = [
        (dict(map(lambda item: (item[0], item[1].clone()), update.tensors.items())), update.logits)  # noqa: C417
        for update in (trainer.train(task, data) for task in tasks)
    ]
    assert same_bytes(first[0], last[0])
    assert first[1] == last[1]


def test_compute_is_that_of_the_paths_that_were_run() -> None:
    task = _task(PathSampling(_even(), 1e-9), epochs=3)
    update = train_client(task, random_images(20), micro_recipe())
    drawn = PathLogits(_paths(), PathSampling(_even(), 1e-9), task.seed)
    # Two whole batches of 8 an epoch; so small a rate moves no draw.
    expected = [macs_of(MICRO, _paths().network(drawn.draw())) for _ in range(6)]
    assert update.compute == 8 * sum(expected)
    assert len(set(expected)) > 1


def test_settled_slots_have_no_logits_in_the_answer() -> None:
    update = train_client(_task(PathSampling(_only(1), 0.1)), random_images(16), micro_recipe())
    assert update.logits is not None
    assert [slot and len(slot) for slot in update.logits] == [None, 5, None, None]
    assert train_client(micro_task(), random_images(16), micro_recipe()).logits is None


def test_all_open_slots_move() -> None:
    update = train_client(_task(PathSampling(_even(), 0.1), epochs=4), random_images(24), micro_recipe())
    assert all(slot.abs().max() > 0.01 for slot in _moved(update)[1::2])


@pytest.mark.parametrize(("slot", "better"), [(1, 4), (1, 3), (3, 1)])
def test_a_choice_that_is_clearly_better_is_found(slot: int, better: int) -> None:
    # Weights are trained with one choice until they fit, and kept; that choice is then to be told from the others.
    paths, data, tensors = _paths(), random_images(16), random_tensors()
    network = paths.network(paths.path([better if own == slot else 3 for own in range(4)]))
    trainer = LocalTrainer(micro_recipe(), Profile(), torch.device("cpu"))
    _plant(tensors, network, trainer.train(micro_task(network, tensors, epochs=30), data))
    objective = PathSampling(_only(slot), 0.05)
    update = trainer.train(_task(objective, tensors=tensors, epochs=40, learning_rate=1e-9), data)
    probabilities = _moved(update)[slot].softmax(0)
    assert probabilities.argmax() == better
    assert probabilities[better] > 0.3


def _plant(tensors: Tensors, network: Any, update: Update) -> None:
    for name, view in views(MICRO, tensors, network).items():
        view.copy_(update.tensors[name])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_has_about_the_gradients_of_fp32(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[int, float]] = []
    monkeypatch.setattr(PathLogits, "step", lambda self, path, gradients: seen.append(dict(gradients)))
    for own in ("fp32", precision):
        train_client(_task(PathSampling(_even(), 0.1)), random_images(8), micro_recipe(), Profile(own))
    exact, rough = seen
    assert rough == pytest.approx(exact, rel=0.3, abs=1e-4)
    assert max(map(abs, exact.values())) > 1e-2


def test_tensors_of_the_hull_alone_are_sent_back() -> None:
    update = train_client(
        _task(PathSampling(((0.0,), (0.0,)), 0.1), architecture=smallest()), random_images(16), micro_recipe()
    )
    assert update.tensors.keys() == tensor_shapes(MICRO, smallest()).keys()
