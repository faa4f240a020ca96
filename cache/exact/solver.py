"""The exact solver: dynamic programming over stages and blocks, with pruning that is safe for every completion.

A partial network is a label: its costs, the entropy it has gained and its sum P of ``ln w``. Labels of one state,
which is an output width, a number L of scored layers, and the sum and the sum of squares of the depths, have the
same completions, and a label goes where another of its state does no worse with any of them:

- Entropy is additive, as are ``δ·B`` and learned terms, and ``Q`` and the final L are the same for both.
- ``λ·ρ = λ·L·exp(−P/L)`` changes by ``−λ·exp(−P/L)`` for each unit of P. Over all completions that slope lies
  between two bounds, so entropy plus a lower and entropy plus an upper multiple of P compare both ways.
- ``ρ ≤ ρ0`` is ``P ≥ L·ln(L/ρ0)``: where a completion may fail it, more P is better.
- What cannot be as fit as networks that are known, those of a rough pass, goes too (``fedpareto.cache.exact.bounds``).

What is returned has the greatest fitness up to rounding, about 1e-12 of it.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from fedpareto.cache.costs.cost import AdditiveCost
from fedpareto.cache.dominance import pareto_front
from fedpareto.cache.exact.bounds import above, anywhere, as_fit_as, within
from fedpareto.cache.exact.labels import Backpointers, Extension, Labels, State, grown, joined
from fedpareto.cache.exact.outlook import SpaceBounds, look_ahead
from fedpareto.cache.exact.plan import Plan, plan_of
from fedpareto.cache.exact.prices import Front, at_prices, slopes_of, sweeping, tightest
from fedpareto.cache.exact.pruning import Asked, Places, Position, SearchGoal, places_of, surviving
from fedpareto.cache.exact.relaxation import LinearRelaxation, linear_of
from fedpareto.fitness.score import effectiveness_bound
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_bytes
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import canonical
from fedpareto.supernet.space import SearchSpace

#: Most memory the arrays of a solve may take, in bytes.
MEMORY = 3 * 2**29

#: Labels of a solve that takes less time than bounds on it.
_FEW = 2000

#: Labels a state keeps in the rough pass that finds a network to beat.
_BEAM = 50

#: Parts of a front, each with a price of its own.
_PARTS = 64

#: How far above the least cost that may do the limits on it are tried.
_RAISES = (1.02, 1.05, 1.1, 1.2, 1.5, 2.5)

#: Fitness is a sum of many terms: equal to this, relative or below 1 absolute, is equal.
EQUAL = 1e-12


#: Arrays of candidates' size that live at once while a state is pruned.
_COPIES = 4

Made = TypeVar("Made")


class SpaceTooLargeError(UserError):
    """A space whose exact solution takes more memory than is allowed."""


class _ManyLabelsError(Exception):
    """A pass that keeps more labels than it was allowed."""


class _Survey(NamedTuple):
    """The networks of one resolution, what their completions may add, and what bounds them all."""

    plan: Plan
    horizon: SpaceBounds
    linear: LinearRelaxation


class _Subproblem(NamedTuple):
    """The networks of one resolution, and what is known of their completions; one for every pass over them."""

    plan: Plan
    places: Places


class _Found(NamedTuple):
    """Complete networks: genes (N, genes), first cost and fitness (N,)."""

    genes: IntArray
    cost: FloatArray
    fitness: FloatArray


def rounding(fitness: float) -> float:
    """Return how far apart sums of the same terms in another order, of about this fitness, may be."""
    return EQUAL * max(1.0, abs(fitness))


def solve_front(
    space: SearchSpace,
    settings: FitnessSettings,
    costs: Sequence[AdditiveCost],
    listener: ProgressListener = SILENT,
    memory: int = MEMORY,
) -> IntArray:
    """Return (N, genes): for every value of the first cost, the network of highest fitness with no more of it.

    In canonical form, by ascending cost; empty if no network meets the limits and ``ρ ≤ ρ0``. A rough pass finds good
    networks; the exact one then drops whatever cannot reach them.

    Raises:
        SpaceTooLargeError: it takes more than ``memory`` bytes.
    """
    target, surveys = SearchGoal(settings, _limits(costs), sweep=True), _surveys(space, settings, costs)
    found = _solved_small(space, surveys, target, listener, memory)
    if found is None:
        asked = [_asked_anywhere(survey, target.limits) for survey in surveys]
        known = _solve(space, _grounds(surveys, asked), dataclasses.replace(target, beam=_BEAM), SILENT, memory)
        grounds = _grounds(surveys, _asked_above(surveys, known, target.limits))
        found = _solve(space, grounds, target, listener, memory)
    return canonical(space, found.genes[pareto_front(found.cost, found.fitness)])


def solve_best(
    space: SearchSpace,
    settings: FitnessSettings,
    costs: Sequence[AdditiveCost],
    listener: ProgressListener = SILENT,
    memory: int = MEMORY,
) -> IntArray:
    """Return (1, genes): the network of highest fitness within the limits of all costs; (0, genes) if none is.

    A rough pass finds a good network; the exact one then drops whatever cannot reach it.

    Raises:
        SpaceTooLargeError: it takes more than ``memory`` bytes.
    """
    target, surveys = SearchGoal(settings, _limits(costs), sweep=False), _surveys(space, settings, costs)
    found = _solved_small(space, surveys, target, listener, memory)
    if found is None:
        prices = _prices(surveys, target.limits)
        asked = _asked_within(surveys, prices, target.limits)
        known = _solve(space, _grounds(surveys, asked), dataclasses.replace(target, beam=_BEAM), SILENT, memory)
        best = float(known.fitness.max(initial=-math.inf))
        grounds = _grounds(surveys, _asked_best(surveys, prices, target.limits, best))
        found = _solve(space, grounds, target, listener, memory)
    order = np.lexsort((found.cost, -found.fitness))
    return canonical(space, found.genes[order[:1]])


def solve_cheapest(
    space: SearchSpace,
    settings: FitnessSettings,
    costs: Sequence[AdditiveCost],
    least: float,
    floor: float,
    listener: ProgressListener = SILENT,
    memory: int = MEMORY,
) -> IntArray:
    """Return (1, genes): of the networks of ``least`` fitness within all limits, the one with least of the first cost.

    (0, genes) if there is none. It is known to have ``floor`` of the first cost or more. What cannot be so fit within
    a limit on that cost is dropped, so limits not far above the floor are tried first.

    Raises:
        SpaceTooLargeError: it takes more than ``memory`` bytes.
    """
    least -= rounding(least)
    limit, surveys = costs[0].most, _surveys(space, settings, costs)
    for lowered in (*(min(limit, floor * raised) for raised in _RAISES), limit):
        target = SearchGoal(settings, np.array([lowered, *_limits(costs[1:])]), sweep=True)
        found = _solved_small(space, surveys, target, listener, memory) or _solved_reaching(
            space, surveys, target, least, listener, memory
        )
        reaching = np.flatnonzero(found.fitness >= least)
        if len(reaching) or lowered == limit:
            break
    order = reaching[np.lexsort((-found.fitness[reaching], found.cost[reaching]))]
    return canonical(space, found.genes[order[:1]])


def _limits(costs: Sequence[AdditiveCost]) -> FloatArray:
    return np.array([cost.most for cost in costs])


def _surveys(space: SearchSpace, settings: FitnessSettings, costs: Sequence[AdditiveCost]) -> list[_Survey]:
    def survey(resolution: int) -> _Survey:
        plan = plan_of(space, settings, costs, resolution)
        horizon = look_ahead(plan, space.depths)
        return _Survey(plan, horizon, linear_of(plan, horizon, space.depths, settings))

    return [survey(resolution) for resolution in range(len(space.resolutions))]


def _grounds(surveys: Sequence[_Survey], asked: Sequence[Asked | None]) -> list[_Subproblem]:
    return [
        _Subproblem(survey.plan, places_of(survey.linear, survey.horizon, each))
        for survey, each in zip(surveys, asked, strict=True)
    ]


def _asked_anywhere(survey: _Survey, limits: FloatArray) -> Asked:
    limits = survey.linear.limits(limits)
    prices = sweeping(survey.linear, limits, _PARTS)
    return Asked(prices, anywhere(prices, limits))


def _asked_above(surveys: Sequence[_Survey], known: _Found, limits: FloatArray) -> list[Asked | None]:
    """Return what is asked of a front, some of whose networks are known."""
    order = pareto_front(known.cost, known.fitness)
    if not len(order):
        return [None] * len(surveys)
    front = Front(known.cost[order], known.fitness[order])
    slopes = slopes_of(front, _PARTS)

    def asked(linear: LinearRelaxation) -> Asked:
        priced = at_prices(linear, linear.limits(limits), slopes)
        return Asked(priced, above(front, priced, linear.limits(limits)))

    return [asked(survey.linear) for survey in surveys]


def _prices(surveys: Sequence[_Survey], limits: FloatArray) -> list[FloatArray]:
    return [tightest(survey.linear, survey.linear.limits(limits)) for survey in surveys]


def _asked_within(surveys: Sequence[_Survey], prices: Sequence[FloatArray], limits: FloatArray) -> list[Asked]:
    """Return what labels are compared by in the rough pass for one network."""
    return [
        Asked(rows, within(rows, survey.linear.limits(limits))) for survey, rows in zip(surveys, prices, strict=True)
    ]


def _asked_best(
    surveys: Sequence[_Survey], prices: Sequence[FloatArray], limits: FloatArray, fitness: float
) -> list[Asked | None]:
    """Return what is asked of networks of at least a fitness, within all limits."""
    if fitness == -math.inf:
        return [None] * len(surveys)
    return [
        Asked(rows, as_fit_as(fitness, rows, survey.linear.limits(limits)))
        for survey, rows in zip(surveys, prices, strict=True)
    ]


def _solved_reaching(
    space: SearchSpace,
    surveys: Sequence[_Survey],
    target: SearchGoal,
    least: float,
    listener: ProgressListener,
    memory: int,
) -> _Found:
    """Return what a pass finds that drops what cannot be as fit as ``least``."""
    prices = _prices(surveys, target.limits)
    grounds = _grounds(surveys, _asked_best(surveys, prices, target.limits, least))
    return _solve(space, grounds, target, listener, memory)


def _solved_small(
    space: SearchSpace, surveys: Sequence[_Survey], target: SearchGoal, listener: ProgressListener, memory: int
) -> _Found | None:
    """Return what a pass without bounds finds, or None if it would take many labels."""
    grounds = _grounds(surveys, [None] * len(surveys))
    told: list[tuple[str, int, int]] = []
    try:
        found = _solve(space, grounds, target, ProgressListener(lambda *progress: told.append(progress)), memory, _FEW)
    except _ManyLabelsError:
        return None
    # The listener is told of the pass that has the answer, and of no other.
    for progress in told:
        listener.report(*progress)
    return found


def _solve(
    space: SearchSpace,
    grounds: Sequence[_Subproblem],
    target: SearchGoal,
    listener: ProgressListener,
    memory: int,
    labels: float = math.inf,
) -> _Found:
    steps = len(space.stages) * space.max_depth
    found = []
    for r, ground in enumerate(grounds):

        def step(done: int, labels: int, before: int = r * steps) -> None:
            listener.report(f"solving, {labels:,} labels", before + done, steps * len(space.resolutions))

        found.append(_LabelSetting(space, ground, target, r, memory, labels).complete(step))
    return _Found(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


class _LabelSetting:
    """The networks of one resolution, grown from the stem block by block."""

    def __init__(
        self,
        space: SearchSpace,
        ground: _Subproblem,
        target: SearchGoal,
        resolution: int,
        memory: int,
        most: float,
    ) -> None:
        self.space, self.target, self.memory, self.most = space, target, memory, most
        self.plan, self.places = ground
        self.trail = Backpointers(space, resolution)
        #: ρ counts the stem and entropy does not, so where that sums over all blocks the stem is kept apart.
        self.apart = target.settings.entropy == "prefix"

    def complete(self, step: Callable[[int, int], None]) -> _Found:
        """Return the complete networks that may be best; ``step`` is told each step and the labels kept so far."""
        states = self._stems()
        for s, place in enumerate(self.places.before[:-1]):
            if s > 0:
                states = self._pruned(place, states, lambda labels: labels)
            states = self._after_stage(s, states, step)
        cost, fitness, record = self._finished(states)
        index = pareto_front(cost, fitness) if self.target.sweep else np.lexsort((cost, -fitness))[:1]
        return _Found(self.trail.genes(record[index]), cost[index], fitness[index])

    def _stems(self) -> dict[State, Labels]:
        stem = self.plan.stem
        states = {}
        for width, layers in enumerate(stem.layers):
            log_width = stem.log_widths[[width]]
            state = State(width, int(layers), 0, 0, float(log_width[0]) if self.apart else 0.0)
            counted = np.zeros(1) if self.apart else log_width
            number = np.array([width])
            states[state] = Labels(stem.costs[:, number], stem.gains[number], counted, number)
        return states

    def _after_stage(
        self, s: int, states: Mapping[State, Labels], step: Callable[[int, int], None]
    ) -> dict[State, Labels]:
        """Return the labels of every state after stage ``s``."""
        depths = self.space.depths
        ways = self._first_blocks(s, states)
        ends: defaultdict[State, list[Labels]] = defaultdict(list)
        for d in range(depths[-1]):
            self._check_memory(ways.values())
            there = {}
            for state, labels in self._pruned(self.places.inside[s][d], ways, grown).items():
                if len(labels.record):
                    there[state] = self.trail.record((s, d, state.width), ways[state], labels)
                    if d + 1 in depths:
                        end = int(self.plan.stages[s].ends[state.width])
                        ends[state.finished(d + 1)._replace(width=end)].append(there[state])
            ways = self._later_blocks(s, d, there)
            if self.trail.length > self.most:
                raise _ManyLabelsError
            step(s * depths[-1] + d + 1, self.trail.length)
        return {state: joined(parts) for state, parts in ends.items()}

    def _pruned(
        self, place: Position, made: Mapping[State, Made], make: Callable[[Made], Labels]
    ) -> dict[State, Labels]:
        """Return the labels to keep of every state."""

        def prune(state: State) -> Labels:
            labels = make(made[state])
            return labels.take(surviving(self.target, place, state, labels))

        return {state: prune(state) for state in made}

    def _first_blocks(self, s: int, states: Mapping[State, Labels]) -> dict[State, list[Extension]]:
        """Return the ways into the first block of stage ``s``, by the states they lead to."""
        stage = self.plan.stages[s]
        ways: defaultdict[State, list[Extension]] = defaultdict(list)
        for state, labels in states.items():
            for width, weight in enumerate(stage.weights):
                offset = np.full(len(labels.record), -stage.falls[state.width, width])
                if self.apart:
                    offset += weight * labels.log_widths
                for options, choice in stage.first.between(state.width, width):
                    into = state._replace(width=width, layers=state.layers + int(options.layers[0]))
                    ways[into].append(Extension(labels, options, choice, offset))
        return ways

    def _later_blocks(self, s: int, d: int, states: Mapping[State, Labels]) -> dict[State, list[Extension]]:
        """Return the ways into the block after block ``d`` of stage ``s``, by the states they lead to."""
        stage = self.plan.stages[s]
        ways: defaultdict[State, list[Extension]] = defaultdict(list)
        if d == len(stage.later):
            return ways
        for state, labels in states.items():
            offset = np.zeros(len(labels.record))
            for options, choice in stage.later[d].between(state.width):
                into = state._replace(layers=state.layers + int(options.layers[0]))
                ways[into].append(Extension(labels, options, choice, offset))
        return ways

    def _finished(self, states: Mapping[State, Labels]) -> tuple[FloatArray, FloatArray, IntArray]:
        """Return first cost, fitness and record of the complete networks with ``ρ ≤ ρ0``."""
        settings, stages = self.target.settings, len(self.plan.stages)
        costs, values, records = [np.empty(0)], [np.empty(0)], [np.empty(0, dtype=np.int64)]
        for state, labels in states.items():
            rho = state.layers * np.exp(-(state.stem + labels.log_widths) / state.layers)
            irregularity = math.exp(state.squares / stages - (state.depths / stages) ** 2)
            fitness = labels.entropy - settings.depth_penalty * irregularity + settings.effectiveness_weight * rho
            feasible = rho <= effectiveness_bound(settings)
            costs.append((labels.costs[0] + self.plan.head[0, state.width])[feasible])
            values.append(fitness[feasible])
            records.append(labels.record[feasible])
        return np.concatenate(costs), np.concatenate(values), np.concatenate(records)

    def _check_memory(self, ways: Iterable[Sequence[Extension]]) -> None:
        """Refuse what would need more memory than allowed."""
        columns = len(self.plan.head) + 4
        candidates = max((sum(way.size for way in into) for into in ways), default=0)
        # A record takes two 4-byte numbers on the trail and its label's columns.
        needed = 8 * (_COPIES * columns * candidates + (1 + columns) * self.trail.length)
        if needed > self.memory:
            raise SpaceTooLargeError(
                f"{self.space.name} is too large to be solved exactly within {format_bytes(self.memory)} of memory"
            )
