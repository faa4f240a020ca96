"""Robust rules against dense sums entry by entry, textbooks, hostile clients and other orders of arrival."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from helpers.networks.strategies import architectures, runs
from helpers.runs.federation import MICRO
from helpers.runs.simulation import largest, random_architectures, random_tensors, same_bytes, smallest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import Tensors, extract
from fedpareto.supernet.slices import slices
from fedpareto.training.aggregation.clipped import Clipped
from fedpareto.training.aggregation.krum import Krum, tolerated
from fedpareto.training.aggregation.median import Median
from fedpareto.training.aggregation.robust import RobustAggregator, clip_scales
from fedpareto.training.aggregation.trimmed import Trimmed, trimmed_count
from fedpareto.training.aggregation.weighted_average import AVERAGING, ServerStep, WeightedAverage

Array = NDArray[np.float64]
#: A client: its network and what it trained.
Client = tuple[Architecture, Mapping[str, Tensor]]

RULES: dict[str, Callable[..., RobustAggregator]] = {
    "clipped": Clipped,
    "median": Median,
    "trimmed": Trimmed,
    "trimmed much": functools.partial(Trimmed, trim=0.4),
    "krum": Krum,
    "krum of one": functools.partial(Krum, hostile=1),
}


def _client(architecture: Architecture, seed: int, size: float = 0.1, start: int = 0) -> Client:
    """A client whose change has about a ``size``."""
    generator = torch.Generator().manual_seed(seed)
    sent = extract(MICRO, random_tensors(start), architecture)
    return architecture, {
        name: tensor + size * torch.randn(tensor.shape, generator=generator) for name, tensor in sent.items()
    }


def _merged(
    rule: str, clients: Sequence[Client], tensors: Tensors, *, server: ServerStep = AVERAGING, **options: int
) -> Tensors:
    made = RULES[rule](MICRO, tensors, **options)
    for place, (architecture, trained) in enumerate(clients):
        made.add(architecture, trained, 0.1 + place)
    result = {name: tensor.clone() for name, tensor in tensors.items()}
    made.write_mean(result, None, server)
    return result


def _dense(clients: Sequence[Client], tensors: Tensors) -> dict[str, Array]:
    """Every client's change of every entry, (clients, …); NaN where it has none."""
    dense = {name: np.full((len(clients), *tensor.shape), np.nan) for name, tensor in tensors.items()}
    for place, (architecture, trained) in enumerate(clients):
        for name, index in slices(MICRO, architecture).items():
            own: tuple[int | slice, ...] = (place, *index)
            dense[name][own] = trained[name].double().numpy() - tensors[name][index].double().numpy()
    return dense


def _norms(dense: Mapping[str, Array]) -> list[float]:
    """Every client's root mean square."""
    flat = np.concatenate([array.reshape(len(array), -1) for array in dense.values()], axis=1)
    return [float(np.sqrt(np.nanmean(row**2))) for row in flat]


def _chosen(dense: Mapping[str, Array], hostile: int) -> list[int]:
    """Multi-Krum by its definition, on the entries that all clients cover."""
    flat = np.concatenate([array.reshape(len(array), -1) for array in dense.values()], axis=1)
    shared = flat[:, ~np.isnan(flat).any(axis=0)]
    count = len(shared)
    scores = []
    for one in range(count):
        distances = sorted(float(((shared[one] - shared[other]) ** 2).sum()) for other in range(count) if other != one)
        scores.append(sum(distances[: count - hostile - 2]))
    return sorted(np.argsort(scores)[: count - hostile].tolist())


def _entry(rule: str, column: Array) -> float:
    values = sorted(column[~np.isnan(column)].tolist())
    if rule == "median":
        return float(np.median(values))
    trim = {"trimmed": 0.2, "trimmed much": 0.4}.get(rule)
    out = 0 if trim is None else trimmed_count(len(values), trim)
    return float(np.mean(values[out : len(values) - out]))


def _expected(rule: str, clients: Sequence[Client], tensors: Tensors) -> dict[str, Array]:
    """The definition, one entry after another."""
    dense = _dense(clients, tensors)
    norms = _norms(dense)
    bound, count = sorted(norms)[(len(norms) - 1) // 2], len(clients)
    scales = np.array([min(1.0, bound / norm) for norm in norms])
    chosen = list(range(count))
    if rule.startswith("krum") and count >= 3:
        chosen = _chosen(dense, tolerated(count, 1 if rule == "krum of one" else None))
    expected = {}
    for name, array in dense.items():
        result = tensors[name].double().numpy().copy()
        for entry in np.ndindex(*result.shape):
            column = array[(slice(None), *entry)]
            if rule == "clipped" or np.isnan(column).any() or count < 3:
                column = column * scales
            column = column[chosen]
            if not np.isnan(column).all():
                result[entry] += _entry(rule, column)
        expected[name] = result
    return expected


_sizes = st.sampled_from([0.01, 0.1, 1.0, 50.0])
_clients = st.lists(
    st.builds(_client, architectures(MICRO), st.integers(1, 50), _sizes), min_size=1, max_size=6, unique_by=id
)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@given(clients=_clients)
@runs(4, shrink=False)
def test_a_rule_is_what_it_is_entry_by_entry(rule: str, clients: list[Client]) -> None:
    tensors = random_tensors(0)
    result = _merged(rule, clients, tensors)
    for name, values in _expected(rule, clients, tensors).items():
        np.testing.assert_allclose(result[name].double().numpy(), values, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_of_clients_on_one_network_the_rules_are_those_of_the_textbook(count: int) -> None:
    tensors = random_tensors(0)
    clients = [_client(largest(), seed, size=0.1 * seed) for seed in range(1, count + 1)]
    stacked = {name: torch.stack([trained[name] for _, trained in clients]).double().numpy() for name in tensors}
    out, dense = trimmed_count(count, 0.2), _dense(clients, tensors)
    textbook: dict[str, Callable[[Array], Array]] = {
        "median": lambda values: np.asarray(np.median(values, axis=0)),
        "trimmed": lambda values: np.asarray(np.sort(values, axis=0)[out : count - out].mean(axis=0)),
        "krum": lambda values: np.asarray(values[_chosen(dense, tolerated(count, None))].mean(axis=0)),
    }
    for rule, formula in textbook.items():
        result = _merged(rule, clients, tensors)
        for name, values in stacked.items():
            np.testing.assert_allclose(result[name].numpy(), formula(values), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@given(data=st.data(), clients=_clients)
@runs(10, shrink=False)
def test_order_of_arrival_weights_and_place_of_the_updates_change_no_byte(
    rule: str, data: st.DataObject, clients: list[Client]
) -> None:
    tensors = random_tensors(0)
    result = _merged(rule, clients, tensors)
    order = data.draw(st.permutations(clients))
    # Some of them in files, some in memory; in another layout.
    memory = data.draw(st.sampled_from([0, 100_000]))
    turned = [
        (architecture, {
            name: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
            for name, tensor in trained.items()
        })
        for architecture, trained in order
    ]  # fmt: skip
    assert same_bytes(_merged(rule, turned, tensors, memory=memory), result)


@given(
    honest=st.integers(2, 6),
    factor=st.sampled_from([-1e30, -1e6, -1.0, 0.0, 10.0, 1e6, 3e37]),
    data=st.data(),
)
@runs(20, shrink=False)
def test_as_few_hostile_clients_as_a_rule_tolerates_move_no_entry_out_of_the_honest_values(
    honest: int, factor: float, data: st.DataObject
) -> None:
    """On one network: whatever they send, the median and the trimmed mean stay within the honest values."""
    tensors, good = random_tensors(0), [_client(largest(), seed) for seed in range(honest)]
    low, high = (_extremes(good, by) for by in (torch.amin, torch.amax))
    for rule, most in (("median", honest - 1), ("trimmed much", _trimmed_of(honest))):
        hostile = data.draw(st.integers(0, most))
        bad = [_client(largest(), 100 + seed, size=abs(factor)) for seed in range(hostile)]
        if honest + hostile < 3:
            continue
        result = _merged(rule, good + bad, tensors)
        for name, tensor in result.items():
            assert (tensor >= low[name] - 1e-6).all(), (rule, name)
            assert (tensor <= high[name] + 1e-6).all(), (rule, name)


def _extremes(clients: Sequence[Client], by: Callable[..., Tensor]) -> Tensors:
    return {name: by(torch.stack([trained[name] for _, trained in clients]), dim=0) for name in clients[0][1]}


def _trimmed_of(honest: int) -> int:
    """Most hostile clients beside so many honest ones that a trim of 0.4 leaves out."""
    return max(bad for bad in range(honest) if bad == 0 or trimmed_count(honest + bad, 0.4) >= bad)


@given(size=st.sampled_from([1.0, 1e3, 1e30, 3e37]), data=st.data())
@runs(10, shrink=False)
def test_krum_leaves_out_hostile_clients_far_away_and_takes_all_honest_ones(size: float, data: st.DataObject) -> None:
    tensors, hostile = random_tensors(0), data.draw(st.integers(1, 2))
    count = 2 * hostile + 3
    good = [_client(largest(), seed, size=0.01) for seed in range(count - hostile)]
    bad = [_client(largest(), 100, size=size)] * hostile
    rule = Krum(MICRO, tensors, hostile=hostile)
    for architecture, trained in data.draw(st.permutations(good + bad)):
        rule.add(architecture, trained, 1.0)
    rule.write_mean(tensors)
    for name, tensor in tensors.items():
        mean = torch.stack([trained[name] for _, trained in good]).double().mean(0)
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@given(chosen=st.lists(architectures(MICRO), min_size=4, max_size=7), size=st.sampled_from([1e3, 1e30, 3e37]))
@runs(10, shrink=False)
def test_where_few_clients_meet_a_hostile_one_moves_nothing_further_than_the_median_client_moves_in_all(
    rule: str, chosen: list[Architecture], size: float
) -> None:
    """Entries that the hostile client alone covers are bounded, too: it has the largest slice."""
    tensors = random_tensors(0)
    clients = [_client(architecture, seed) for seed, architecture in enumerate([*chosen[1:], smallest()])]
    result = _merged(rule, [*clients, _client(largest(), 100, size=size)], tensors)
    honest = max(_norms(_dense(clients, tensors)))
    entries = sum(tensor.numel() for tensor in tensors.values())
    moved = sum(float((result[name] - tensor).double().square().sum()) for name, tensor in tensors.items())
    # Changes that are not clipped are those of shared entries, where one of five is tolerated.
    assert math.sqrt(moved) <= 3 * honest * math.sqrt(entries)


@pytest.mark.parametrize("rule", RULES)
def test_entries_that_nobody_covers_keep_their_bytes_and_their_velocity_fades(rule: str) -> None:
    tensors = random_tensors(0)
    odd = torch.tensor([float("nan"), -0.0, 1e-45])
    tensors["stages.1.1.project.norm.bias"][:3] = odd
    tensors["head.last.norm.bias"][16:19] = odd
    velocity = {name: torch.full_like(tensor, -0.5) for name, tensor in tensors.items()}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    made = RULES[rule](MICRO, tensors)
    for seed in range(3):
        made.add(*_client(smallest(), seed), 1.0)
    made.write_mean(tensors, velocity, ServerStep(0.5, 0.5))
    for name, entries in (("stages.1.1.project.norm.bias", slice(None)), ("head.last.norm.bias", slice(16, None))):
        assert torch.equal(tensors[name][entries].view(torch.int32), before[name][entries].view(torch.int32))
        assert (velocity[name][entries] == -0.25).all()
    assert not torch.equal(tensors["head.last.norm.bias"][:16], before["head.last.norm.bias"][:16])


@pytest.mark.parametrize("rule", RULES)
def test_momentum_and_rate_move_the_supernet_as_they_do_with_the_mean(rule: str) -> None:
    """Alike clients have the mean as their robust mean: both aggregators end with the same values and velocity."""
    ends = []
    for factory in (RULES[rule], WeightedAverage):
        tensors = random_tensors(0)
        velocity = {name: torch.full_like(tensor, 0.1) for name, tensor in tensors.items()}
        made = factory(MICRO, tensors)
        # A second round begins with nothing of the first.
        for seed in (1, 2):
            for _ in range(3):
                made.add(*_client(largest(), seed), 1.0)
            made.write_mean(tensors, velocity, ServerStep(0.9, 0.5))
        ends.append((tensors, velocity))
    (values, velocities), (wanted, wanted_velocities) = ends
    for name, tensor in wanted.items():
        torch.testing.assert_close(values[name], tensor, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(velocities[name], wanted_velocities[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_without_updates_nothing_moves(rule: str) -> None:
    assert same_bytes(_merged(rule, [], random_tensors(0)), random_tensors(0))


@pytest.mark.parametrize("rule", RULES)
def test_a_branch_with_shapes_of_its_own_is_merged_alike(rule: str) -> None:
    """A network's own tensors end as its slices of a supernet that it has all to itself."""
    (architecture,) = random_architectures(1, seed=3)
    clients = [_client(architecture, seed) for seed in range(5)]
    whole, branch = random_tensors(0), extract(MICRO, random_tensors(0), architecture)
    result = extract(MICRO, _merged(rule, clients, whole), architecture)
    assert same_bytes(_merged(rule, clients, branch), result)


@pytest.mark.parametrize(
    ("norms", "scales"),
    [
        ([], []),
        ([5.0], [1.0]),
        ([1.0, 1e30], [1.0, 1e-30]),
        ([4.0, 2.0, 1.0], [0.5, 1.0, 1.0]),
        ([0.0, 0.0, 3.0], [1.0, 1.0, 0.0]),
    ],
)
def test_norms_are_brought_to_their_median_and_of_two_to_the_lesser(norms: list[float], scales: list[float]) -> None:
    assert clip_scales(norms) == pytest.approx(scales)


@pytest.mark.parametrize(
    ("clients", "trim", "out"),
    [(2, 0.4, 0), (3, 0.01, 1), (4, 0.2, 1), (10, 0.2, 2), (100, 0.29, 29), (5, 0.49, 2), (4, 0.4999999999, 1)],
)
def test_a_share_of_an_entrys_clients_is_trimmed_and_one_at_least(clients: int, trim: float, out: int) -> None:
    assert trimmed_count(clients, trim) == out


@pytest.mark.parametrize(
    ("clients", "hostile", "out"), [(10, None, 2), (11, None, 3), (3, None, 0), (5, None, 1), (10, 1, 1), (6, 3, 1)]
)
def test_krum_leaves_out_a_fifth_and_no_more_than_it_can(clients: int, hostile: int | None, out: int) -> None:
    assert tolerated(clients, hostile) == out


def test_krum_leaves_out_by_the_distances_to_the_two_nearest_of_five_as_by_hand() -> None:
    """Changes 0, 1, 4, 5 and 7 score 17, 10, 10, 5 and 13 by two others each; by three, 7 would be left out."""
    tensors = {name: torch.zeros_like(tensor) for name, tensor in random_tensors(0).items()}
    rule = Krum(MICRO, tensors, hostile=1)
    for change in (7.0, 0.0, 4.0, 5.0, 1.0):
        rule.add(largest(), {name: torch.full_like(tensor, change) for name, tensor in tensors.items()}, 1.0)
    rule.write_mean(tensors)
    assert all((tensor == 4.25).all() for tensor in tensors.values())
