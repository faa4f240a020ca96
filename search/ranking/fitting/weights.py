"""Fit of fitness weights to measured accuracies by logistic regression on pairs of networks.

Of two networks the more accurate one should be the fitter one: the loss of a pair is that of a logistic regression on
the difference of their fitness (Burges et al., "Learning to rank using gradient descent", 2005). Pairs are of one band
of MACs unless told otherwise, and weigh as much as their accuracies are apart: near ties are noise.

A weight is measured by the standard deviation, within bands, of what it adds to the fitness, relative to that of the
fitness itself; its squared distance from where it started is penalised. How strongly is decided by how networks left
out of the fit are ranked, over random halvings. Few networks tell little, so it is the strongest penalty whose mean is
within the spread of the best one's: the one-standard-error rule (Breiman et al., "Classification and regression trees",
1984), but halvings share networks, so that a standard error of their mean would be too small.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from fedpareto.search.ranking.fitting.terms import (
    FIELDS,
    NetworkTerms,
    Weights,
    derivatives,
    settings_with,
    terms_of,
    values,
    weights_of,
)
from fedpareto.search.ranking.measuring.measured_sample import Sample
from fedpareto.search.ranking.statistics import LEAST, correlations, kendall, resampled
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.fitness_settings import FitnessSettings

Pairs = Literal["band", "all"]


class FitOptions(NamedTuple):
    """Options of a fit of weights: the pairs that are compared, and the fields that may change."""

    pairs: Pairs = "band"
    fields: Collection[str] = FIELDS


#: Strengths of the penalty that are tried, the strongest first.
STRENGTHS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01)

#: Random halvings of the networks for each strength; each half is ranked by a fit on the other.
_HALVINGS = 8

#: No weight may go further than this many standard deviations of the fitness.
_FURTHEST = 5.0


class LeftOut(NamedTuple):
    """Cross-validated rank correlation: mean and deviation, over halvings, of τ within bands of networks left out."""

    value: float
    spread: float


@dataclasses.dataclass(frozen=True, eq=False)
class RankingFit:
    """Fitted weights.

    Attributes:
        settings: the fitness with them.
        strength: strength of the penalty.
        cross_validation: rank correlation of networks left out, by strength.
        fitted: indices of the networks that were fitted on.
        held_out: indices of the others.
    """

    settings: FitnessSettings
    strength: float
    cross_validation: dict[float, LeftOut]
    fitted: IntArray
    held_out: IntArray


def check_fittable(start: FitnessSettings) -> None:
    """Refuse to fit weights of a fitness that weighs no kinds of convolutions.

    Raises:
        UserError: it sums entropy over all blocks so far.
    """
    if start.entropy != "stage":
        raise UserError(f"{option('fit')} goes with entropy: stage, and the fitness has entropy: {start.entropy}")


def check_enough(band: IntArray, share: float) -> None:
    """Refuse to fit on too few networks, whose bands are ``band``, when a ``share`` of each is held out.

    Raises:
        UserError: no band has enough of them.
    """
    most = int(np.bincount(band).max(initial=0))
    held_out = round(share * most)
    # A half of those fitted on is left out in turn.
    if most - held_out < 2 * LEAST or held_out < LEAST:
        raise UserError(
            f"{option('fit')} needs a band with {counted(2 * LEAST, 'network')} to fit on and {LEAST} held out; of "
            f"{counted(len(band), 'network')} the largest band leaves {most - held_out} and {held_out}: measure more, "
            f"in fewer {option('bands')}, or change {option('held-out')}"
        )


def fit_weights(sample: Sample, start: FitnessSettings, share: float, manner: FitOptions, seed: int) -> RankingFit:
    """Fit the weights on the networks that are left when a random ``share`` of each band is held out.

    Raises:
        UserError: no band has enough networks.
    """
    check_enough(sample.band, share)
    generator = np.random.default_rng(seed)
    held_out, fitted = halves(sample.band, share, generator)
    part = sample.take(fitted)
    splits = [halves(part.band, 0.5, generator) for _ in range(_HALVINGS)]
    tried = {strength: _left_out(part, start, strength, manner, splits) for strength in STRENGTHS}
    strength = strongest(tried)
    return RankingFit(fitted_settings(part, start, strength, manner), strength, tried, fitted, held_out)


def strongest(tried: Mapping[float, LeftOut]) -> float:
    """Return the strongest penalty that ranks within the spread of the best."""
    best = max(tried.values())
    return max(strength for strength, found in tried.items() if found.value >= best.value - best.spread)


def halves(band: IntArray, share: float, generator: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Return two random parts of networks, the first with a ``share`` of each band, as ascending indices."""
    first = np.zeros(len(band), dtype=np.bool_)
    for number in np.unique(band):
        here = generator.permutation(np.flatnonzero(band == number))
        first[here[: round(share * len(here))]] = True
    return np.flatnonzero(first), np.flatnonzero(~first)


def fitted_settings(sample: Sample, start: FitnessSettings, strength: float, manner: FitOptions) -> FitnessSettings:
    """Return the fitness with the weights of least penalised loss over a sample's pairs."""
    from scipy.optimize import minimize  # noqa: PLC0415 - only a fit pays for it

    problem = _problem(sample, start, manner)
    if not len(problem.better) or not len(problem.free):
        return start
    found = minimize(
        problem.loss,
        np.zeros(len(problem.free)),
        args=(strength,),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(problem.lowest, [_FURTHEST] * len(problem.free), strict=True)),
    )
    return settings_with(start, problem.weights(found.x))


def kendall_within(sample: Sample, settings: FitnessSettings) -> float:
    """Return the mean over bands of Kendall's τ of fitness and accuracy; NaN if no band has enough networks."""
    once, fitness = resampled(sample.band, 0, np.random.default_rng(0)), sample.figures(settings)["fitness"]
    return correlations(kendall, fitness, sample.accuracy, sample.band, once).within.value


def _left_out(
    sample: Sample,
    start: FitnessSettings,
    strength: float,
    manner: FitOptions,
    splits: Sequence[tuple[IntArray, IntArray]],
) -> LeftOut:
    """Return the rank correlations of networks left out: each half is ranked by a fit on the other."""
    found = []
    for one, other in splits:
        taus = [
            kendall_within(sample.take(left_out), fitted_settings(sample.take(kept), start, strength, manner))
            for left_out, kept in ((one, other), (other, one))
        ]
        # Where all are equal nothing is ranked.
        found.append(np.nan_to_num(taus).mean())
    return LeftOut(float(np.mean(found)), float(np.std(found, ddof=1)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Problem:
    """Pairs of networks whose order is to be learnt.

    Attributes:
        terms: terms of all networks.
        start: the weights it starts with.
        better: the more accurate network of each pair, (pairs,).
        worse: the other one.
        importance: weight of each pair, (pairs,), which sum to 1.
        scale: divisor of differences of fitness.
        free: the weights that make a difference, as positions in a row.
        unit: change of each free weight that moves the fitness by one standard deviation, (free,).
        lowest: the least they may move by, in such units, (free,).
    """

    terms: NetworkTerms
    start: Weights
    better: IntArray
    worse: IntArray
    importance: FloatArray
    scale: float
    free: IntArray
    unit: FloatArray
    lowest: FloatArray

    def weights(self, moved: FloatArray) -> Weights:
        """Return the weights ``moved`` (free,) units away from the start."""
        flat = self.start.flat
        flat[self.free] += moved * self.unit
        return self.start.like(flat)

    def loss(self, moved: FloatArray, strength: float) -> tuple[float, FloatArray]:
        """Return the mean logistic loss with its penalty, and the gradient, (free,)."""
        weights = self.weights(moved)
        fitness = values(self.terms, weights) / self.scale
        margins = fitness[self.better] - fitness[self.worse]
        # The derivative of ln(1 + exp(−m)) is −1/(1 + exp(m)).
        slopes = -self.importance * np.exp(-np.logaddexp(0, margins))
        by_network = np.zeros(len(fitness))
        np.add.at(by_network, self.better, slopes)
        np.add.at(by_network, self.worse, -slopes)
        gradient = (derivatives(self.terms, weights)[self.free] @ by_network) * self.unit / self.scale
        loss = float(self.importance @ np.logaddexp(0, -margins)) + strength * float(moved @ moved)
        return loss, gradient + 2 * strength * moved


def _problem(sample: Sample, start: FitnessSettings, manner: FitOptions) -> _Problem:
    apart = sample.accuracy[:, None] - sample.accuracy[None, :]
    groups = sample.band if manner.pairs == "band" else np.zeros_like(sample.band)
    better, worse = np.nonzero((apart > 0) & (groups[:, None] == groups[None, :]))
    importance = apart[better, worse]
    terms, weights = terms_of(sample.space, sample.genes), weights_of(sample.space, start)
    scale = float(_deviation(values(terms, weights)[None], groups)[0]) or 1.0
    deviation = _deviation(derivatives(terms, weights), groups) / scale
    free = np.flatnonzero((deviation > 0) & weights.of_fields(manner.fields))
    # Entropy may count for nothing, but not against a network.
    entropies = len(weights.stages) + len(weights.kinds)
    lowest = np.where(np.arange(len(deviation)) < entropies, np.minimum(0, -weights.flat * deviation), -_FURTHEST)
    return _Problem(
        terms,
        weights,
        better,
        worse,
        importance / (importance.sum() or 1.0),
        scale,
        free,
        1 / deviation[free],
        np.maximum(lowest, -_FURTHEST)[free],
    )


def _deviation(rows: FloatArray, groups: IntArray) -> FloatArray:
    """Return the standard deviation of (rows, N) about the means of groups, (rows,); 0 where it is rounding."""
    centred = rows.copy()
    for group in np.unique(groups):
        here = groups == group
        centred[:, here] -= rows[:, here].mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1))
    return np.where(deviation > 1e-9 * np.abs(rows).max(axis=1), deviation, 0.0)
