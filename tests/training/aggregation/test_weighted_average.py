from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from helpers.networks.strategies import architectures, runs
from helpers.runs.federation import MICRO
from helpers.runs.simulation import largest, random_architectures, random_tensors, same_bytes, smallest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import intersection
from fedpareto.supernet.networks.weights import Tensors, extract
from fedpareto.supernet.space import SearchSpace, StageSpec, StemSpec
from fedpareto.training.aggregation.weighted_average import ServerStep, WeightedAverage, _parts, maxnet_weights

Contribution = tuple[Architecture, Mapping[str, Tensor], float]


def _constant(architecture: Architecture, value: float) -> Tensors:
    return {name: torch.full_like(tensor, value) for name, tensor in _subnet(architecture).items()}


def _subnet(architecture: Architecture, seed: int = 0) -> Tensors:
    return extract(MICRO, random_tensors(seed), architecture)


def _merged(contributions: Sequence[Contribution], tensors: Tensors, space: SearchSpace = MICRO) -> Tensors:
    fold = WeightedAverage(space, tensors)
    for architecture, update, weight in contributions:
        fold.add(architecture, update, weight)
    result = {name: tensor.clone() for name, tensor in tensors.items()}
    fold.write_mean(result)
    return result


def _slow_mean(name: str, tensor: Tensor, contributions: Sequence[Contribution]) -> Tensor:
    """Merge one tensor entry by entry: channels are counted from the first, kernels from the centre."""
    expected = tensor.double().clone()
    for entry in np.ndindex(*tensor.shape):
        total = weights = 0.0
        for _, update, weight in contributions:
            if name not in update:
                continue
            own = update[name]
            place = [
                position - (whole - size) // 2 if axis >= 2 else position
                for axis, (position, whole, size) in enumerate(zip(entry, tensor.shape, own.shape, strict=True))
            ]
            if all(0 <= position < size for position, size in zip(place, own.shape, strict=True)):
                total += weight * float(own[tuple(place)])
                weights += weight
        if weights:
            expected[entry] = total / weights
    return expected


def test_one_client_of_weight_1_over_the_whole_network_is_the_identity() -> None:
    update = random_tensors(1)
    assert same_bytes(_merged([(largest(), update, 1.0)], random_tensors(0)), update)


def test_where_two_clients_overlap_an_entry_is_their_weighted_mean_and_elsewhere_the_ones_own() -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in random_tensors().items()}
    result = _merged([(largest(), _constant(largest(), 1), 1.0), (smallest(), _constant(smallest(), 5), 3.0)], zeros)
    # The smallest has 8 of 16 output and 16 of 24 input channels here: (1·1 + 3·5) / 4 = 4.
    project = result["stages.0.0.project.conv.weight"][:, :, 0, 0]
    assert (project[:8, :16] == 4).all()
    assert (project[8:] == 1).all()
    assert (project[:, 16:] == 1).all()
    # Its 3×3 kernel is the centre of the 5×5 one.
    ring = [[1.0] * 5, [1.0, 4.0, 4.0, 4.0, 1.0], [1.0, 4.0, 4.0, 4.0, 1.0], [1.0, 4.0, 4.0, 4.0, 1.0], [1.0] * 5]
    assert result["stages.0.0.depthwise.conv.weight"][15, 0].tolist() == ring
    assert (result["stages.0.0.depthwise.conv.weight"][16:] == 1).all()
    # Its stages have one block of two.
    assert (result["stages.1.1.project.norm.bias"] == 1).all()
    assert (result["head.classifier.linear.bias"] == 4).all()


def test_the_mean_of_three_clients_matches_one_computed_entry_by_entry() -> None:
    tensors = random_tensors(9)
    chosen = random_architectures(3, seed=4)
    assert len(set(chosen)) == 3
    contributions = [
        (architecture, _subnet(architecture, seed), weight)
        for seed, (architecture, weight) in enumerate(zip(chosen, (0.7, 0.2, 0.1), strict=True), 1)
    ]
    result = _merged(contributions, tensors)
    for name, tensor in tensors.items():
        expected = _slow_mean(name, tensor, contributions)
        torch.testing.assert_close(result[name].double(), expected, atol=1e-6, rtol=1e-6)


def test_entries_no_client_covers_keep_their_bytes() -> None:
    tensors = random_tensors(0)
    # Values a sum or a quotient would change: NaN, negative zero, the least positive number.
    odd = torch.tensor([float("nan"), -0.0, 1e-45])
    tensors["stages.1.1.project.norm.bias"][:3] = odd
    tensors["head.last.norm.bias"][16:19] = odd
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    result = _merged([(smallest(), _subnet(smallest(), 1), 0.3)], tensors)

    def bits(tensor: Tensor) -> Tensor:
        return tensor.contiguous().view(torch.int32)

    own = _subnet(smallest())
    for name, tensor in before.items():
        if name not in own:
            assert torch.equal(bits(result[name]), bits(tensor)), name
    assert torch.equal(bits(result["head.last.norm.bias"][16:]), bits(before["head.last.norm.bias"][16:]))
    assert not torch.equal(result["head.last.norm.bias"][:16], before["head.last.norm.bias"][:16])


def test_server_momentum_moves_covered_entries_only_as_computed_by_hand() -> None:
    tensors = {name: torch.full_like(tensor, 2.0) for name, tensor in random_tensors().items()}
    velocity = {name: torch.full_like(tensor, 0.5) for name, tensor in tensors.items()}
    for mean in (3.0, 5.0):
        fold = WeightedAverage(MICRO, tensors)
        fold.add(smallest(), _constant(smallest(), mean), 0.4)
        fold.write_mean(tensors, velocity, ServerStep(0.5))
    # v = 0.5·0.5 + (3 − 2) = 1.25, x = 3.25; then v = 0.5·1.25 + (5 − 3.25) = 2.375, x = 5.625.
    name = "head.last.norm.weight"
    assert velocity[name].tolist() == [2.375] * 16 + [0.125] * 16
    assert tensors[name].tolist() == [5.625] * 16 + [2.0] * 16
    assert (tensors["stages.0.1.expand.conv.weight"] == 2).all()
    # What nobody covers is not moved, and its velocity fades instead of coming back stale.
    assert (velocity["stages.0.1.expand.conv.weight"] == 0.125).all()


def test_without_momentum_a_velocity_of_zero_gives_the_mean() -> None:
    update, tensors = random_tensors(1), random_tensors(0)
    velocity = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    fold = WeightedAverage(MICRO, tensors)
    fold.add(largest(), update, 1.0)
    fold.write_mean(tensors, velocity)
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, update[name], atol=1e-6, rtol=1e-6)


def test_the_order_of_clients_changes_the_mean_to_rounding_only() -> None:
    contributions = [
        (architecture, _subnet(architecture, seed), 0.1 + 0.2 * seed)
        for seed, architecture in enumerate(random_architectures(4, seed=1))
    ]
    forward, backward = _merged(contributions, random_tensors(0)), _merged(contributions[::-1], random_tensors(0))
    for name, tensor in forward.items():
        torch.testing.assert_close(tensor, backward[name], atol=1e-6, rtol=1e-5)


def test_a_fold_counts_updates_and_leaves_tensors_alone_until_it_is_merged() -> None:
    tensors, update = random_tensors(0), _subnet(smallest(), 1)
    given_away = {name: tensor.clone() for name, tensor in update.items()}
    fold = WeightedAverage(MICRO, tensors)
    for _ in range(2):
        fold.add(smallest(), update, 0.5)
    assert fold.updates == 2
    assert same_bytes(tensors, random_tensors(0))
    # The fold keeps sums, not the update: a client may reuse its memory.
    for tensor in update.values():
        tensor.zero_()
    fold.write_mean(tensors)
    torch.testing.assert_close(tensors["head.last.norm.bias"][:16], given_away["head.last.norm.bias"])


@pytest.mark.parametrize(
    ("macs", "beta", "weights"),
    [
        ([10, 30, 20], 0.9, [0.05, 0.9, 0.05]),
        ([30, 10], 0.6, [0.6, 0.4]),
        ([10, 30, 30], 0.5, [0.25, 0.5, 0.25]),
        ([10], 0.9, [1.0]),
    ],
)
def test_the_largest_network_weighs_beta_and_the_others_share_the_rest(
    macs: list[int], beta: float, weights: list[float]
) -> None:
    assert maxnet_weights(macs, beta) == pytest.approx(weights)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(macs=st.lists(st.integers(1, 5), min_size=1, max_size=12), beta=st.floats(0.01, 0.99))
def test_weights_are_positive_and_sum_to_1(macs: list[int], beta: float) -> None:
    weights = maxnet_weights(macs, beta)
    assert sum(weights) == pytest.approx(1)
    assert min(weights) > 0
    assert len(weights) == len(macs)


#: Blocks whose hidden and output widths change apart: the slices of three clients leave holes in a tensor.
_NARROW_RESNET = SearchSpace(
    name="narrow-resnet",
    family="resnet",
    stem=StemSpec(8, multipliers=(0.5, 1.0)),
    stages=(StageSpec(8), StageSpec(16, stride=2)),
    resolutions=(8,),
    depths=(1, 2),
    expands=(0.5, 1.0),
    width_multipliers=(0.5, 1.0),
)


def _contributions(space: SearchSpace, most: int = 4) -> st.SearchStrategy[list[Contribution]]:
    """Random networks with random values and weights, some of them alike."""

    def contribution(architecture: Architecture, seed: int, weight: float) -> Contribution:
        return architecture, extract(space, random_tensors(seed, space), architecture), weight

    one = st.builds(contribution, architectures(space), st.integers(1, 5), st.floats(0.01, 1.0))
    return st.lists(one, min_size=1, max_size=most)


def _spaces_with_contributions() -> st.SearchStrategy[tuple[SearchSpace, list[Contribution]]]:
    spaces = st.sampled_from((MICRO, _NARROW_RESNET))
    return spaces.flatmap(lambda space: st.tuples(st.just(space), _contributions(space)))


@pytest.mark.slow
@runs(6, shrink=False)
@given(drawn=_spaces_with_contributions())
def test_the_mean_of_any_clients_matches_one_computed_entry_by_entry(
    drawn: tuple[SearchSpace, list[Contribution]],
) -> None:
    space, contributions = drawn
    tensors = random_tensors(9, space)
    result = _merged(contributions, tensors, space)
    for name, tensor in tensors.items():
        expected = _slow_mean(name, tensor, contributions)
        torch.testing.assert_close(result[name].double(), expected, atol=1e-6, rtol=1e-5)


@runs(20, shrink=False)
@given(drawn=_spaces_with_contributions(), data=st.data())
def test_any_order_gives_the_same_values_and_the_same_order_the_same_bytes(
    drawn: tuple[SearchSpace, list[Contribution]], data: st.DataObject
) -> None:
    space, contributions = drawn
    tensors = random_tensors(0, space)
    result = _merged(contributions, tensors, space)
    assert same_bytes(_merged(contributions, tensors, space), result)
    other = _merged(data.draw(st.permutations(contributions)), tensors, space)
    for name, tensor in result.items():
        torch.testing.assert_close(other[name], tensor, atol=1e-6, rtol=1e-5)


def _channels_last(tensors: Mapping[str, Tensor]) -> Tensors:
    return {
        name: tensor.to(memory_format=torch.channels_last, copy=True) if tensor.ndim == 4 else tensor.clone()
        for name, tensor in tensors.items()
    }


@runs(10, shrink=False)
@given(drawn=_spaces_with_contributions())
def test_supernets_and_updates_of_either_memory_format_merge_to_the_same_values(
    drawn: tuple[SearchSpace, list[Contribution]],
) -> None:
    space, contributions = drawn
    plain = random_tensors(0, space)
    expected = _merged(contributions, plain, space)
    turned = [(architecture, _channels_last(update), weight) for architecture, update, weight in contributions]
    for supernet, updates in ((_channels_last(plain), contributions), (plain, turned), (_channels_last(plain), turned)):
        for name, tensor in _merged(updates, supernet, space).items():
            torch.testing.assert_close(tensor, expected[name], atol=1e-7, rtol=1e-6)


def test_merging_keeps_the_memory_and_the_format_of_the_supernet() -> None:
    tensors = _channels_last(random_tensors(0))
    places = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    fold = WeightedAverage(MICRO, tensors)
    for architecture in (largest(), smallest()):
        fold.add(architecture, _subnet(architecture, 1), 0.5)
    fold.write_mean(tensors)
    assert {name: tensor.data_ptr() for name, tensor in tensors.items()} == places
    assert all(
        tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors.values() if tensor.ndim == 4
    )


def _rounds(space: SearchSpace) -> list[list[Contribution]]:
    """Return rounds that cover all of the supernet, then less and less of it, then all again; one leaves infinities."""
    some = random_architectures(6, seed=2, space=space)
    networks = [[largest(space), *some[:2]], some[2:5], [smallest(space), some[5]], [smallest(space)], [largest(space)]]
    rounds: list[list[Contribution]] = [
        [
            (architecture, extract(space, random_tensors(10 * number + place, space), architecture), 0.3 + 0.1 * place)
            for place, architecture in enumerate(chosen, 1)
        ]
        for number, chosen in enumerate(networks, 1)
    ]
    large = {name: torch.full_like(tensor, 3e38) for name, tensor in rounds[0][0][1].items()}
    # Sums of this round overflow; nothing of them may be seen in the next.
    rounds.insert(1, [(largest(space), large, 1.0), (largest(space), large, 1.0)])
    return rounds


@pytest.mark.parametrize("momentum", [None, 0.0, 0.5])
@pytest.mark.parametrize("space", [MICRO, _NARROW_RESNET], ids=lambda space: space.name)
def test_a_fold_of_many_rounds_gives_in_each_the_bytes_of_a_fresh_one(
    space: SearchSpace, momentum: float | None
) -> None:
    kept = WeightedAverage(space, random_tensors(0, space))
    for contributions in _rounds(space):
        # Every round starts from finite values again: what differs can only come from the fold.
        ends = []
        for fold in (kept, WeightedAverage(space, random_tensors(0, space))):
            tensors = random_tensors(0, space)
            velocity = None if momentum is None else random_tensors(99, space)
            for architecture, update, weight in contributions:
                fold.add(architecture, update, weight)
            assert fold.updates == len(contributions)
            fold.write_mean(tensors, velocity, ServerStep(momentum or 0.0))
            assert fold.updates == 0
            ends.append((tensors, velocity or {}))
        (tensors, velocity), (fresh_tensors, fresh_velocity) = ends
        assert same_bytes(tensors, fresh_tensors)
        assert same_bytes(velocity, fresh_velocity)


def test_an_empty_fold_changes_nothing_whatever_it_held_before() -> None:
    tensors = random_tensors(0)
    fold = WeightedAverage(MICRO, tensors)
    fold.add(largest(), random_tensors(1), 1.0)
    fold.write_mean(tensors)
    velocity = random_tensors(2)
    fold.write_mean(tensors)
    fold.write_mean(tensors, velocity, ServerStep(0.5))
    assert same_bytes(tensors, random_tensors(1))
    assert same_bytes(velocity, {name: 0.5 * tensor for name, tensor in random_tensors(2).items()})


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@given(rate=st.floats(0.1, 3.0), seed=st.integers(0, 1000))
@settings(max_examples=3)
def test_a_server_rate_moves_overlapping_slices_as_entry_by_entry(momentum: float, rate: float, seed: int) -> None:
    chosen = [largest(), smallest(), *random_architectures(2, seed)]
    contributions = [(own, _subnet(own, seed + number), 1.0 + number) for number, own in enumerate(chosen)]
    before = random_tensors(0)
    tensors, velocity = random_tensors(0), random_tensors(7)
    fold = WeightedAverage(MICRO, tensors)
    for architecture, update, weight in contributions:
        fold.add(architecture, update, weight)
    fold.write_mean(tensors, velocity if momentum else None, ServerStep(momentum, rate))
    for name in ("stages.0.1.expand.conv.weight", "stages.0.0.depthwise.conv.weight", "head.last.norm.weight"):
        step = _slow_mean(name, before[name], contributions) - before[name].double()
        moved = momentum * random_tensors(7)[name].double() + step if momentum else step
        torch.testing.assert_close(tensors[name].double(), before[name] + rate * moved, rtol=1e-4, atol=1e-5)


_edges = st.integers(0, 4).flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, 5)))


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(boxes=st.dictionaries(st.tuples(_edges, _edges, _edges), st.integers(1, 9).map(float), max_size=4))
def test_parts_lie_apart_and_hold_the_sums_of_the_weights_wherever_there_is_any(
    boxes: dict[tuple[tuple[int, int], ...], float],
) -> None:
    # The slices of today's networks leave no holes in a band; boxes anywhere do.
    expected, cover, times = (np.zeros((5, 5, 5)) for _ in range(3))
    for bounds, weight in boxes.items():
        expected[tuple(slice(*edges) for edges in bounds)] += weight
    for part, weights in _parts(boxes, torch.device("cpu")):
        assert weights.shape == (1, *cover[part].shape[1:])
        cover[part] = weights.numpy()
        times[part] += 1
    assert (cover == expected).all()
    assert (times == (expected > 0)).all()


@given(outer=architectures(MICRO), inner=architectures(MICRO))
@runs(40)
def test_updates_of_a_network_merge_into_its_own_tensors_as_into_its_slices_of_the_supernet(
    outer: Architecture, inner: Architecture
) -> None:
    inner = intersection(MICRO, inner, outer)
    updates = [(outer, _subnet(outer, 1), 2.0), (inner, _subnet(inner, 2), 3.0)]
    own = _merged(updates, _subnet(outer))
    assert same_bytes(own, extract(MICRO, _merged(updates, random_tensors()), outer))
