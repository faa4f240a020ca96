import dataclasses
import math

import numpy as np
import pytest
from helpers.networks.exhaustive import numbers_of, tables, weights_of
from helpers.networks.learned import learned_terms, most
from helpers.networks.strategies import gene_vectors, runs, spaces_with_genes, tiny_space, user_spaces
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.cache.costs.cost import AdditiveCost, count_cost
from fedpareto.cache.exact.plan import plan_of
from fedpareto.fitness.learned import learned_sum
from fedpareto.fitness.part_tables import Parts, space_parts
from fedpareto.fitness.score import score
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.genes import choices, gene_layout, random_genes
from fedpareto.supernet.space import SearchSpace


@pytest.mark.slow
@given(user_spaces())
@runs(60)
def test_macs_and_parameters_are_additive(space: SearchSpace) -> None:
    genes = random_genes(space, 50, np.random.default_rng(0))
    scores = score(space, genes)
    assert count_cost(space, "macs").of(space, genes).tolist() == scores.macs.tolist()
    assert count_cost(space, "params").of(space, genes).tolist() == scores.params.tolist()


@given(spaces_with_genes(), st.data())
@runs(80)
def test_a_cost_is_the_sum_of_the_parts_a_network_has(drawn: tuple[SearchSpace, IntArray], data: st.DataObject) -> None:
    space, genes = drawn
    cost = data.draw(tables(space))
    parts, columns = space_parts(space), genes[:, None]
    depths = choices(space, genes).depth[:, 0]
    expected = cost.parts.stem[parts.stem.index(columns)[0]] + cost.parts.head[parts.head.index(columns)[0]]
    for s, slots in enumerate(parts.blocks):
        for b, part in enumerate(slots[: depths[s]]):
            expected += cost.parts.blocks[s][b][part.index(columns)[0]]
    assert cost.of(space, genes[None]).tolist() == [expected]


def test_no_networks_have_no_costs() -> None:
    space = tiny_space()
    genes = np.empty((0, len(gene_layout(space).sizes)), dtype=np.int64)
    assert count_cost(space, "macs").of(space, genes).tolist() == []


@pytest.mark.parametrize(
    ("name", "unit", "limit", "words"),
    [
        ("latency", "ms", 5.0, "at most 5 ms latency"),
        ("latency", "ms", 0.1234567, "at most 0.123457 ms latency"),
        ("macs", "", 1000.0, "at most 1K MACs"),
    ],
)
def test_a_limit_in_words(name: str, unit: str, limit: float, words: str) -> None:
    nothing = np.zeros(1)
    assert AdditiveCost(name, Parts(nothing, (), nothing), limit, unit).words() == words


def test_a_cost_has_no_limit_unless_it_is_given_one() -> None:
    assert count_cost(tiny_space(), "macs").limit == math.inf
    assert count_cost(tiny_space(), "params", 7).limit == 7


@st.composite
def _plans(draw: st.DrawFn) -> tuple[SearchSpace, IntArray]:
    space = draw(user_spaces())
    return space, np.stack(draw(st.lists(gene_vectors(space), min_size=1, max_size=4)))


@given(_plans(), st.data())
@runs(100)
def test_a_plans_figures_add_up_to_costs_and_entropy(drawn: tuple[SearchSpace, IntArray], data: st.DataObject) -> None:
    space, all_genes = drawn
    terms = data.draw(st.none() | learned_terms(space))
    weights = dataclasses.replace(data.draw(weights_of(len(space.stages))), learned=terms)
    costs = [count_cost(space, "macs"), data.draw(tables(space)), count_cost(space, "params")]
    layout = gene_layout(space)
    alphas = np.broadcast_to(weights.entropy_weights, len(space.stages))
    for genes in all_genes:
        scores = score(space, genes, weights)
        plan = plan_of(space, weights, costs, int(genes[layout.resolution]))
        width = int(genes[layout.stem])
        paid = plan.stem.costs[:, width].copy()
        layers, log_widths = int(plan.stem.layers[width]), float(plan.stem.log_widths[width])
        falls, so_far, entropy = 0.0, 0.0, float(plan.stem.gains[width])
        (outputs,), (choices,) = numbers_of(space, genes[None])
        for s, stage in enumerate(plan.stages):
            before, width = width, int(outputs[s])
            gained = 0.0
            if weights.entropy == "prefix":
                entropy += float(stage.weights[width]) * so_far
            for b in range(space.depths[genes[layout.depth[s]]]):
                options = stage.first if b == 0 else stage.later[b - 1]
                choice = int(choices[s, b])
                at = (before, width, choice) if b == 0 else (width, choice)
                paid += options.costs[(slice(None), *at)]
                layers += int(options.layers[at])
                gained += float(options.log_widths[at])
                entropy += float(options.gains[at])
            log_widths += gained
            so_far += gained
            falls += float(stage.falls[before, width])
            assert stage.ends[width] == genes[layout.width[s]]
            width = int(stage.ends[width])
        paid += plan.head[:, width]
        assert paid.tolist() == [cost.of(space, genes[None])[0] for cost in costs]
        assert layers * math.exp(-log_widths / layers) == pytest.approx(scores.rho[0], rel=1e-9)
        assert falls == pytest.approx(weights.width_penalty * scores.width_violation[0])
        plain = score(space, genes, dataclasses.replace(weights, kind_weights=(1.0,))).entropy
        magnitude = float(np.abs(weights.kind_weights).max() * np.abs(alphas[:, None] * plain).sum())
        expected = float(alphas @ scores.entropy[:, 0]) - weights.block_penalty * float(scores.blocks[0])
        if terms is not None:
            magnitude += most(terms)
            expected += float(learned_sum(space, genes[:, None], terms)[0])
        assert entropy == pytest.approx(expected, abs=1e-12 * max(1.0, magnitude))


@given(user_spaces())
@runs(40)
def test_options_between_widths_hold_every_choice_once_by_number_of_layers(space: SearchSpace) -> None:
    plan = plan_of(space, space.fitness, [count_cost(space, "macs")], 0)
    for stage in plan.stages:
        inputs, outputs = stage.falls.shape
        for i, o in np.ndindex(inputs, outputs):
            groups = stage.first.between(i, o)
            choices = len(space.kernels) * (len(space.expands) if space.expands_per == "block" else 1)
            assert sorted(np.concatenate([numbers for _, numbers in groups])) == list(range(choices))
            counts = [int(options.layers[0]) for options, _ in groups]
            assert counts == sorted(set(counts))
            for options, numbers in groups:
                assert set(options.layers.tolist()) == {int(options.layers[0])}
                assert np.array_equal(options.costs, stage.first.costs[:, i, o, numbers])
                assert np.array_equal(options.log_widths, stage.first.log_widths[i, o, numbers])
                assert np.array_equal(options.gains, stage.first.gains[i, o, numbers])


def test_stages_of_one_block_have_no_later_one() -> None:
    space = dataclasses.replace(tiny_space(), depths=(1,))
    plan = plan_of(space, space.fitness, [count_cost(space, "macs")], 0)
    assert [stage.later for stage in plan.stages] == [()] * 3
