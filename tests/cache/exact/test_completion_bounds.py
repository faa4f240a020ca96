from typing import NamedTuple

import numpy as np
from helpers.networks.exhaustive import all_genes, numbers_of, small_spaces, tables, weights_of
from helpers.networks.strategies import runs, tiny_space
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpareto.cache.costs.cost import AdditiveCost, count_cost
from fedpareto.cache.exact.completion_bounds import CompletionBounds, bound_completions
from fedpareto.cache.exact.plan import Plan, plan_of
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.genes import gene_layout
from fedpareto.supernet.space import SearchSpace


class Added(NamedTuple):
    """What N networks add: costs (costs, N), log-widths and numbers of layers (N,)."""

    costs: FloatArray
    log_widths: FloatArray
    layers: IntArray

    def plus(self, more: "Added") -> "Added":
        return Added(self.costs + more.costs, self.log_widths + more.log_widths, self.layers + more.layers)

    def take(self, where: NDArray[np.bool_]) -> "Added":
        return Added(self.costs[:, where], self.log_widths[where], self.layers[where])


class Growth:
    """All networks of one resolution block by block: what each has left to add at every place it passes."""

    def __init__(self, space: SearchSpace, plan: Plan, genes: IntArray) -> None:
        layout = gene_layout(space)
        self.space, self.plan = space, plan
        self.inputs = np.concatenate([genes[:, [layout.stem]], genes[:, layout.width]], axis=1)
        self.depths = np.asarray(space.depths)[genes[:, layout.depth]]
        self.outputs, self.choices = numbers_of(space, genes)

    def block(self, s: int, b: int) -> Added:
        """Costs, log-widths and layers of block b of stage s, 0 where the network has none."""
        stage, has = self.plan.stages[s], self.depths[:, s] > b
        options = stage.first if b == 0 else stage.later[b - 1]
        inputs = (self.inputs[:, s],) if b == 0 else ()
        at = (*inputs, self.outputs[:, s], self.choices[:, s, b])
        costs = np.stack([cost[at] for cost in options.costs])
        return Added(costs * has, options.log_widths[at] * has, options.layers[at] * has)

    def ahead(self, s: int, b: int) -> Added:
        """What every network adds from block b of stage s on, head included."""
        head = self.plan.head[:, self.inputs[:, -1]]
        total = Added(head, np.zeros(len(self.inputs)), np.zeros(len(self.inputs), dtype=np.int64))
        for stage in range(s, len(self.space.stages)):
            for block in range(b if stage == s else 0, self.space.max_depth):
                total = total.plus(self.block(stage, block))
        return total


def _check(ahead: CompletionBounds, added: Added) -> None:
    """Check that an ahead is the bounds of what networks add, no wider and no narrower."""
    assert ahead.layers.tolist() == sorted(set(added.layers.tolist()))
    for count, low, high in zip(ahead.layers, ahead.low, ahead.high, strict=True):
        log_widths = added.log_widths[added.layers == count]
        assert abs(log_widths.min() - low) <= 1e-9
        assert abs(log_widths.max() - high) <= 1e-9
    assert np.allclose(ahead.least, added.costs.min(axis=1), rtol=1e-12)
    assert np.allclose(ahead.most, added.costs.max(axis=1), rtol=1e-12)


@given(small_spaces(most=3000), st.data())
@runs(60)
def test_bounds_are_those_of_all_completions(space: SearchSpace, data: st.DataObject) -> None:
    weights = data.draw(weights_of(len(space.stages)))
    costs = [count_cost(space, "macs"), data.draw(tables(space))]
    every, resolution = all_genes(space), data.draw(st.integers(0, len(space.resolutions) - 1))
    plan = plan_of(space, weights, costs, resolution)
    space_bounds = bound_completions(plan, space.depths)
    growth = Growth(space, plan, every[every[:, 0] == resolution])
    for s in range(len(space.stages)):
        added = growth.ahead(s, 0)
        for width, ahead in enumerate(space_bounds.before[s].by_width):
            here = growth.inputs[:, s] == width
            _check(ahead, added.take(here))
        for d, place in enumerate(space_bounds.inside[s]):
            added = growth.ahead(s, d + 1)
            for width, ahead in enumerate(place.by_width):
                here = (growth.outputs[:, s] == width) & (growth.depths[:, s] > d)
                _check(ahead, added.take(here))
    for ahead, paid in zip(space_bounds.before[-1].by_width, plan.head.T, strict=True):
        assert (ahead.layers.tolist(), ahead.low.tolist(), ahead.high.tolist()) == ([0], [0.0], [0.0])
        assert ahead.least.tolist() == ahead.most.tolist() == paid.tolist()


@given(small_spaces(most=3000))
@runs(40)
def test_depth_sums_are_those_of_all_completions(space: SearchSpace) -> None:
    plan = plan_of(space, space.fitness, [count_cost(space, "macs")], 0)
    space_bounds = bound_completions(plan, space.depths)
    depths = np.unique(np.asarray(space.depths)[all_genes(space)[:, gene_layout(space).depth]], axis=0)

    def sums(rest: IntArray) -> list[list[int]]:
        return sorted(map(list, {(int(row.sum()), int((row * row).sum())) for row in rest}))

    for s in range(len(space.stages)):
        assert space_bounds.before[s].depths.tolist() == sums(depths[:, s:])
        for d, place in enumerate(space_bounds.inside[s]):
            assert place.depths.tolist() == sums(depths[depths[:, s] > d, s:])
    assert space_bounds.before[-1].depths.tolist() == [[0, 0]]


def test_there_is_a_place_for_every_block_and_between_stages() -> None:
    space = tiny_space()
    costs: list[AdditiveCost] = [count_cost(space, "macs"), count_cost(space, "params")]
    space_bounds = bound_completions(plan_of(space, space.fitness, costs, 0), space.depths)
    assert [len(stage) for stage in space_bounds.inside] == [3, 3, 3]
    assert len(space_bounds.before) == 4
    widths = [len(space.stem_choices), *map(len, space.width_choices)]
    assert [len(place.by_width) for place in space_bounds.before] == widths
    assert all(ahead.least.shape == (2,) for place in space_bounds.before for ahead in place.by_width)
