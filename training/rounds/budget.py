"""Budget of a private run: how exposed its planned rounds make clients, the noise they need, and when none is left."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.aggregation.weighted_average import WeightedAverage
from fedpareto.training.config.run import RunConfig
from fedpareto.training.methods.protocol import Method
from fedpareto.training.privacy.accountant import Guarantee, epsilon, exposure_after, guarantee, least_noise
from fedpareto.training.privacy.ledger import Ledger
from fedpareto.training.runs.progress import extent
from fedpareto.training.runs.state import RunState

#: Noise with which nothing is learnt any more, whatever the clip and the number of clients.
_MOST_NOISE = 1000.0


def has_room(config: RunConfig, ledger: Ledger | None, weights: Mapping[int, float], number: int) -> bool:
    """True if round ``number`` with these weights keeps within the budget, or may be one that was released before."""
    if ledger is None or config.privacy.epsilon is None:
        return True
    return ledger.may_repeat(number, weights) or within_budget(config, ledger.exposure_with(weights))


def within_budget(config: RunConfig, exposure: Sequence[float]) -> bool:
    """True if clients of this ``exposure`` have an ε within the budget, or there is none."""
    found = guarantee(config.privacy, exposure)
    return found is None or config.privacy.epsilon is None or found.epsilon <= config.privacy.epsilon


def budget_is_spent(config: RunConfig, method: Method, ledger: Ledger | None, state: RunState) -> bool:
    """True if the round after ``state`` would pass the budget, were all clients there."""
    if ledger is None or config.privacy.epsilon is None:
        return False
    plan = method.assign(state, range(config.clients.count))
    return not has_room(config, ledger, plan.weights, plan.number)


def run_ends(config: RunConfig, method: Method, ledger: Ledger | None, state: RunState) -> bool:
    """True if no round follows ``state``: all are done, or the budget of privacy is spent."""
    return extent(config, state).finished or budget_is_spent(config, method, ledger, state)


def planned_exposures(config: RunConfig, method: Method, space: SearchSpace, state: RunState) -> Iterator[float]:
    """Yield the exposure of the most exposed client after every planned round of a run, from ``state`` on.

    The draws of a private run follow from its configuration alone, so they are made here as the run will make them.
    Where it is not known which clients will be there (Flower), one is taken to be in every round with its largest
    weight, which is the most there can be.
    """
    exposure: tuple[float, ...] = state.exposure
    while not extent(config, state).finished:
        if config.engine == "flower":
            exposure = exposure_after(exposure, {0: 1.0}, config.clients.count)
            state = dataclasses.replace(state, round=state.round + 1)
        else:
            plan = method.assign(state, range(config.clients.count))
            exposure = exposure_after(exposure, plan.weights, config.clients.count)
            state = method.after_round(dataclasses.replace(state, round=plan.number), _unanswered(plan, space))
        yield max(exposure)


def _unanswered(plan: RoundPlan, space: SearchSpace) -> RoundResults:
    """Results of a round that nobody answers, of which a private method learns no less than of any others."""
    return RoundResults(plan, WeightedAverage(space, {}), by_examples=False)


def with_solved_noise(
    config: RunConfig, method: Method, space: SearchSpace, state: RunState
) -> tuple[RunConfig, str | None]:
    """Return ``config`` with a number for noise that is ``auto``, and what there is to say of the budget, if anything.

    Raises:
        UserError: the budget allows no round, or needs more noise than anything can be learnt with.
    """
    privacy = config.privacy
    if privacy.epsilon is None or config.compute is not None:
        return config, None
    exposures = list(planned_exposures(config, method, space, state))
    delta, rounds = privacy.delta_among(config.clients.count), len(exposures)
    if privacy.noise != "auto":
        spent = [epsilon(exposure, privacy.multiplier, delta) <= privacy.epsilon for exposure in exposures]
        if not spent[0]:
            first = Guarantee(epsilon(exposures[0], privacy.multiplier, delta), delta)
            raise UserError(
                f"privacy.epsilon is {privacy.epsilon:g}, but a single round with privacy.noise {privacy.noise:g} has "
                f"{first}: give more noise, or auto, or a larger epsilon"
            )
        if all(spent):
            return config, None
        return config, (
            f"the budget of ε {privacy.epsilon:g} ends the run after {sum(spent)} of {counted(rounds, 'round')}; with "
            f"privacy.noise {least_noise(exposures[-1], privacy.epsilon, delta):g} it would last for all"
        )
    noise = least_noise(exposures[-1], privacy.epsilon, delta)
    if noise > _MOST_NOISE:
        raise UserError(
            f"privacy.epsilon is {privacy.epsilon:g}, for which {counted(rounds, 'round')} would need a privacy.noise "
            f"of {noise:g}, with which nothing is learnt: give a larger epsilon, or train for less rounds"
        )
    solved = dataclasses.replace(config, privacy=dataclasses.replace(privacy, noise=noise))
    found = Guarantee(epsilon(exposures[-1], noise, delta), delta)
    return solved, f"privacy.noise is {noise:g}: after {counted(rounds, 'round')} no client has more than {found}"


def weight_words(config: RunConfig) -> str | None:
    """Return words on the cost of a weight of the largest network that is more than an equal share; None without it."""
    many, beta = config.clients.per_round, config.largest_weight
    if not config.privacy.noise or "server.largest_weight" not in config.spec.also_reads or beta * many <= 1 + 1e-9:
        return None
    factor = beta * (many - 1) / (1 - beta)
    return (
        f"server.largest_weight {beta:g} needs noise for that weight: entries that the largest network does not cover "
        f"have more noise than with equal weights, by a factor of {factor:.3g}; leave it out for those"
    )
