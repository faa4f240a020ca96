import numpy as np
from pymoo.core.population import Population
from strategies import tiny_space

from cache.limits import Limits
from cache.operators import StepMutation
from cache.problem import ArchitectureProblem
from supernet.genes import gene_layout, random_genes
from supernet.layouts import IntArray

_SPACE = tiny_space()
_SIZES = gene_layout(_SPACE).sizes


def _mutated(mutation: StepMutation, genes: IntArray, seed: int) -> IntArray:
    problem = ArchitectureProblem(_SPACE, _SPACE.fitness, Limits(), frontier=True)
    population = mutation(problem, Population.new(X=genes), random_state=np.random.default_rng(seed))
    return np.asarray(population.get("X"))


def test_mutation_keeps_genes_integers() -> None:
    mutated = _mutated(StepMutation(), random_genes(_SPACE, 50, np.random.default_rng(0)), 0)
    assert np.issubdtype(mutated.dtype, np.integer)


def test_mutation_stays_in_range_and_on_whole_numbers() -> None:
    genes = random_genes(_SPACE, 400, np.random.default_rng(0))
    mutated = _mutated(StepMutation(), genes, 0)
    assert mutated.shape == genes.shape
    assert np.array_equal(mutated, np.rint(mutated))
    assert (mutated >= 0).all()
    assert (mutated < _SIZES).all()


def test_about_one_gene_of_a_vector_is_drawn_to_change() -> None:
    # Genes in mid-range with steps only: every gene that is drawn moves.
    genes = np.repeat((_SIZES // 2)[None], 2000, axis=0)
    movable = _SIZES > 2
    changed = (_mutated(StepMutation(redraw=0.0), genes, 1) != genes)[:, movable]
    assert abs(changed.mean() * len(_SIZES) - 1) < 0.1
    assert (changed.mean(axis=0) > 0).all()


def test_without_redraws_a_gene_moves_one_step() -> None:
    genes = random_genes(_SPACE, 500, np.random.default_rng(2))
    moves = _mutated(StepMutation(redraw=0.0), genes, 2) - genes
    assert set(np.unique(moves)) == {-1, 0, 1}


def test_redraws_reach_every_value_from_anywhere() -> None:
    wide = _SIZES == 3
    genes = np.zeros((2000, len(_SIZES)), dtype=np.int64)
    mutated = _mutated(StepMutation(redraw=1.0), genes, 3)
    assert (mutated[:, wide].max(axis=0) == 2).all()


def test_mutation_depends_on_the_given_generator_alone() -> None:
    genes = random_genes(_SPACE, 100, np.random.default_rng(0))
    np.random.seed(1)
    first = _mutated(StepMutation(), genes, 5)
    np.random.seed(2)
    assert np.array_equal(first, _mutated(StepMutation(), genes, 5))
    assert not np.array_equal(first, _mutated(StepMutation(), genes, 6))
