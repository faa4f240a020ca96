import numpy as np
from helpers.networks.strategies import tiny_space

from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.nsga2.problem import ArchitectureProblem
from fedpareto.cache.objectives import Objectives
from fedpareto.fitness.score import score
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import gene_layout, random_genes

_SPACE = tiny_space()
_GENES = random_genes(_SPACE, 60, np.random.default_rng(0))
_WEIGHTS = FitnessSettings(max_effectiveness=0.9)


def test_objectives_are_negated_fitness_and_macs() -> None:
    problem = ArchitectureProblem(Objectives(_SPACE, _WEIGHTS, Limits()))
    found = problem.evaluate(_GENES, return_values_of=["F"])
    scores = score(_SPACE, _GENES, _WEIGHTS)
    assert np.array_equal(found, np.stack([-scores.fitness, scores.macs], axis=1))


def test_a_network_is_feasible_when_it_meets_every_limit_and_the_effectiveness_bound() -> None:
    limits = Limits(macs=900_000, min_macs=200_000, params=90_000)
    problem = ArchitectureProblem(Objectives(_SPACE, _WEIGHTS, limits))
    found = problem.evaluate(_GENES, return_values_of=["G"])
    scores = score(_SPACE, _GENES, _WEIGHTS)
    expected = (scores.macs <= 900_000) & (scores.macs >= 200_000) & (scores.params <= 90_000)
    expected &= scores.rho <= 0.9
    assert found.shape == (60, 4)
    assert np.array_equal((found <= 0).all(axis=1), expected)
    assert 0 < expected.sum() < 60


def test_variables_range_over_the_choices_of_every_gene() -> None:
    problem = ArchitectureProblem(Objectives(_SPACE, _WEIGHTS, Limits()))
    assert problem.xl.tolist() == [0] * problem.n_var
    assert problem.xu.tolist() == (gene_layout(_SPACE).sizes - 1).tolist()
