import numpy as np
from helpers.networks.strategies import tiny_space
from pymoo.core.population import Population

from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.nsga2.operators import ExchangeMutation
from fedpareto.cache.nsga2.problem import ArchitectureProblem
from fedpareto.cache.objectives import Objectives
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.genes import gene_layout, random_genes

_SPACE = tiny_space()
_SIZES = gene_layout(_SPACE).sizes
_SINGLE = ExchangeMutation(_SPACE, trade=0.0)
_STEPS = ExchangeMutation(_SPACE, trade=0.0, redraw=0.0)
_TRADES = ExchangeMutation(_SPACE, trade=1.0)


def _mutated(mutation: ExchangeMutation, genes: IntArray, seed: int) -> IntArray:
    problem = ArchitectureProblem(Objectives(_SPACE, _SPACE.fitness, Limits()))
    population = mutation(problem, Population.new(X=genes), random_state=np.random.default_rng(seed))
    return np.asarray(population.get("X"))


def _middle(count: int) -> IntArray:
    return np.repeat((_SIZES // 2)[None], count, axis=0)


def test_mutation_stays_in_range_and_on_whole_numbers() -> None:
    genes = random_genes(_SPACE, 400, np.random.default_rng(0))
    mutated = _mutated(ExchangeMutation(_SPACE), genes, 0)
    assert mutated.shape == genes.shape
    assert np.array_equal(mutated, np.rint(mutated))
    assert (mutated >= 0).all()
    assert (mutated < _SIZES).all()


def test_about_one_gene_of_a_vector_is_drawn_to_change() -> None:
    # Genes in mid-range with steps only: every gene that is drawn moves.
    movable = _SIZES > 2
    changed = (_mutated(_STEPS, _middle(2000), 1) != _middle(2000))[:, movable]
    assert abs(changed.mean() * len(_SIZES) - 1) < 0.1
    assert (changed.mean(axis=0) > 0).all()


def test_without_redraws_a_gene_moves_one_step() -> None:
    genes = random_genes(_SPACE, 500, np.random.default_rng(2))
    assert set(np.unique(_mutated(_STEPS, genes, 2) - genes)) == {-1, 0, 1}


def test_redraws_reach_every_value_from_anywhere() -> None:
    genes = np.zeros((2000, len(_SIZES)), dtype=np.int64)
    mutated = _mutated(ExchangeMutation(_SPACE, trade=0.0, redraw=1.0), genes, 3)
    assert (mutated.max(axis=0) == _SIZES - 1).all()


def test_a_trade_moves_one_unit_up_and_another_down() -> None:
    layout = gene_layout(_SPACE)
    moves = _mutated(_TRADES, _middle(3000), 4) - _middle(3000)
    three = _SIZES == 3  # where a step in either direction stays in range
    ups, downs = (moves[:, three] > 0), (moves[:, three] < 0)
    assert (ups.any(axis=1) & downs.any(axis=1)).mean() > 0.25
    whole_stage = [(moves[:, row] == 1).all(axis=1).any() for row in layout.expand]
    assert all(whole_stage)
    assert (moves[:, _SIZES == 1] == 0).all()


def test_mutation_depends_on_the_given_generator_alone() -> None:
    genes = random_genes(_SPACE, 100, np.random.default_rng(0))
    mutation = ExchangeMutation(_SPACE)
    first = _mutated(mutation, genes, 5)
    assert np.array_equal(first, _mutated(mutation, genes, 5))
    assert not np.array_equal(first, _mutated(mutation, genes, 6))
