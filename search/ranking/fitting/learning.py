"""Learned fitness: ridge regression of accuracy on the choices of a network, shrunk towards the analytic fitness.

The accuracy of a network, in percentage points, is taken for an intercept, the analytic fitness times a factor of 0 or
above, and the worth of every choice it makes (``fedpareto.search.ranking.fitting.cells``). Only what choices are worth
beyond the analytic fitness is penalised: with an infinite penalty the analytic fitness is left, and it takes networks
to move away from it.

How strong the penalty is, is decided by networks that are left out of the fit, each of them once in every partition:
the strength that ranks them best within bands of MACs.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fedpareto.fitness.score import score
from fedpareto.search.ranking.fitting.cells import cells_chosen, cells_of, effects_of, terms_of_cells
from fedpareto.search.ranking.fitting.ridge import Ridge, fit_ridge
from fedpareto.search.ranking.fitting.weights import LeftOut
from fedpareto.search.ranking.measuring.measured_sample import Sample
from fedpareto.search.ranking.statistics import correlations, kendall, resampled
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.fitness_settings import FitnessSettings

#: Strengths of the penalty that are tried, the strongest first.
STRENGTHS = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)

#: Parts of a partition, each predicted by a fit on the others, and partitions.
_FOLDS, _PARTITIONS = 10, 5

#: Digits of a term that is written.
_DIGITS = 6


@dataclasses.dataclass(frozen=True, eq=False)
class Learned:
    """A learned fitness.

    Attributes:
        settings: the analytic fitness, scaled, with terms.
        factor: factor on the analytic fitness.
        strength: strength of the penalty.
        cross_validation: rank correlation of networks left out, by strength.
    """

    settings: FitnessSettings
    factor: float
    strength: float
    cross_validation: dict[float, LeftOut]


@dataclasses.dataclass(frozen=True, eq=False)
class _Problem:
    """Regressors of accuracy: the analytic fitness (N,), and the effects of choices (N, effects)."""

    accuracy: FloatArray
    analytic: FloatArray
    effects: FloatArray

    def fit(self, index: IntArray, strength: float) -> Ridge:
        """Return the coefficients fitted to some of the networks: of 1 and the analytic fitness, and of effects.

        An analytic fitness that ranks backwards is left out: its factor is 0.
        """
        free, effects, values = self.free[index], self.effects[index], self.accuracy[index]
        found = fit_ridge(free, effects, values, strength)
        if found.free[1] >= 0:
            return found
        without = fit_ridge(free[:, :1], effects, values, strength)
        return Ridge(np.append(without.free, 0.0), without.penalised)

    @property
    def free(self) -> FloatArray:
        """The columns without a penalty, (N, 2)."""
        return np.column_stack([np.ones(len(self.analytic)), self.analytic])


def check_learnable(networks: int) -> None:
    """Refuse to learn from too few networks.

    Raises:
        UserError: there are fewer than two for each part of a partition.
    """
    least = 2 * _FOLDS
    if networks < least:
        raise UserError(
            f"{option('form', 'blocks')} is fitted to {counted(least, 'network')} at least, better to 200; given are "
            f"{networks}"
        )


def learn_terms(sample: Sample, start: FitnessSettings, generator: np.random.Generator) -> Learned:
    """Return the fitness that is learned from a sample's accuracies, beginning with what is analytic of ``start``.

    Raises:
        UserError: the sample is too small.
    """
    check_learnable(len(sample))
    start = dataclasses.replace(start, learned=None)
    problem = _problem(sample, start)
    partitions = [partition(sample.band, generator) for _ in range(_PARTITIONS)]
    tried = {strength: _left_out(problem, sample.band, strength, partitions) for strength in STRENGTHS}
    strength = max(tried, key=lambda each: tried[each].value)
    found = problem.fit(np.arange(len(sample)), strength)
    cells = effects_of(cells_of(sample.space)) @ found.penalised
    terms = terms_of_cells(sample.space, _rounded(found.free[0]), np.array([_rounded(each) for each in cells]))
    factor = _rounded(found.free[1])
    return Learned(dataclasses.replace(scaled(start, factor), learned=terms), factor, strength, tried)


def partition(band: IntArray, generator: np.random.Generator) -> IntArray:
    """Return the part that each network is in, (N,): parts hold equally many of every band, give or take one."""
    parts = np.empty(len(band), dtype=np.int64)
    order = np.lexsort((generator.random(len(band)), band))
    parts[order] = np.arange(len(band)) % _FOLDS
    return parts


def scaled(settings: FitnessSettings, factor: float) -> FitnessSettings:
    """Return the fitness times ``factor``; ``ρ ≤ ρ0`` and κ stay as they are."""
    return dataclasses.replace(
        settings,
        entropy_weights=tuple(weight * factor for weight in settings.entropy_weights),
        depth_penalty=settings.depth_penalty * factor,
        effectiveness_weight=settings.effectiveness_weight * factor,
        width_penalty=settings.width_penalty * factor,
        block_penalty=settings.block_penalty * factor,
    )


def _problem(sample: Sample, start: FitnessSettings) -> _Problem:
    effects = cells_chosen(sample.space, sample.genes) @ effects_of(cells_of(sample.space))
    return _Problem(100 * sample.accuracy, score(sample.space, sample.genes, start).fitness, effects)


def _left_out(problem: _Problem, band: IntArray, strength: float, partitions: Sequence[IntArray]) -> LeftOut:
    """Return the rank correlations of networks left out, each ranked by a fit on the others, over partitions."""
    once = resampled(band, 0, np.random.default_rng(0))
    found = []
    for parts in partitions:
        predicted = np.empty(len(band))
        for part in range(_FOLDS):
            out = np.flatnonzero(parts == part)
            ridge = problem.fit(np.flatnonzero(parts != part), strength)
            predicted[out] = ridge.predict(problem.free[out], problem.effects[out])
        # Where all are equal nothing is ranked.
        found.append(np.nan_to_num(correlations(kendall, predicted, problem.accuracy, band, once).within.value))
    return LeftOut(float(np.mean(found)), float(np.std(found, ddof=1)))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
