"""The exact solver: finds networks of proven highest fitness within limits on additive costs.

It is dynamic programming over stages and blocks, with labels as in shortest-path problems with several costs. A label
is a partial network: its costs, the entropy E it has gained and its sum P of ``ln w``. Its state is its output width,
its number L of scored layers, and the sum and the sum of squares of its depths. Labels of one state have the same
completions, so a label may be dropped in favour of another that does at least as well with every completion:

- Entropy, ``γ·V``, ``δ·B`` and learned terms are sums. With the same completion two labels end with the same L, and
  with the same depth irregularity Q (``docs/fitness.md`` has all terms).
- ``λ·ρ = λ·L·exp(−P/L)`` changes by ``−λ·exp(−P/L)`` for each unit of P. Over all completions this slope lies between
  two bounds. The difference of two labels is linear in the slope, so it is enough to compare them at both bounds.
- ``ρ ≤ ρ0`` means ``P ≥ L·ln(L/ρ0)``. Where a completion may fail it, more P counts as better.
- A label that cannot become as fit as networks that are known, those of a rough pass, is dropped as well
  (``fedpareto.cache.exact.bounds``).

Why the result is optimal: take an optimal network and follow its labels from the stem. Each is kept, or another one
takes its place that, with the same remaining blocks, is at least as fit and within the limits. That one is an optimal
network too, and the argument goes on with it. At the last block an optimal network is left. For a frontier this holds
at every value of the first cost. Sums are rounded: the fitness is the greatest up to about 1e-12 of it.
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
from fedpareto.cache.exact.completion_bounds import SpaceBounds, bound_completions
from fedpareto.cache.exact.labels import Backpointers, Extension, Labels, State, extended, joined
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

#: Most labels of a solve that is faster without price bounds than the computation of these bounds.
_FEW = 2000

#: Labels that each state keeps in the rough pass, which finds networks to beat.
_BEAM = 50

#: Parts of a front, each bounded at a price of its own.
_PARTS = 64

#: Factors by which the floor of a cost is raised to give the limits that are tried in turn.
_RAISES = (1.02, 1.05, 1.1, 1.2, 1.5, 2.5)

#: Tolerance of fitness, a sum of many rounded terms: relative, and absolute below 1.
EQUAL = 1e-12


#: Arrays of candidates' size that live at once while a state is pruned.
_COPIES = 4

Made = TypeVar("Made")


class SpaceTooLargeError(UserError):
    """A space whose exact solution takes more memory than is allowed."""


class _ManyLabelsError(Exception):
    """A pass that keeps more labels than it was allowed."""


class _BoundedPlan(NamedTuple):
    """The networks of one resolution, bounds on their completions, and the linear relaxation of their fitness."""

    plan: Plan
    ahead: SpaceBounds
    linear: LinearRelaxation


class _Subproblem(NamedTuple):
    """The networks of one resolution, and their positions with the bounds of one pass over them."""

    plan: Plan
    places: Places


class _Found(NamedTuple):
    """Complete networks: genes (N, genes), first cost (N,) and fitness (N,)."""

    genes: IntArray
    cost: FloatArray
    fitness: FloatArray


def rounding(fitness: float) -> float:
    """Return the tolerance for a fitness: the most that adding its terms in another order changes it."""
    return EQUAL * max(1.0, abs(fitness))


def solve_front(
    space: SearchSpace,
    settings: FitnessSettings,
    costs: Sequence[AdditiveCost],
    listener: ProgressListener = SILENT,
    memory: int = MEMORY,
) -> IntArray:
    """Solve for the Pareto front over the first cost: the fittest network within every value of it, (N, genes).

    In canonical form, by ascending cost; empty if no network meets the limits and ``ρ ≤ ρ0``. A rough pass finds good
    networks. The exact pass then drops whatever cannot reach them.

    Raises:
        SpaceTooLargeError: it takes more than ``memory`` bytes.
    """
    target, plans = SearchGoal(settings, _limits(costs), sweep=True), _bounded_plans(space, settings, costs)
    found = _solved_small(space, plans, target, listener, memory)
    if found is None:
        asked = [_demand_anywhere(bounded, target.limits) for bounded in plans]
        known = _solve(space, _subproblems(plans, asked), dataclasses.replace(target, beam=_BEAM), SILENT, memory)
        subproblems = _subproblems(plans, _demand_above(plans, known, target.limits))
        found = _solve(space, subproblems, target, listener, memory)
    return canonical(space, found.genes[pareto_front(found.cost, found.fitness)])


def solve_best(
    space: SearchSpace,
    settings: FitnessSettings,
    costs: Sequence[AdditiveCost],
    listener: ProgressListener = SILENT,
    memory: int = MEMORY,
) -> IntArray:
    """Solve for the network of highest fitness within the limits of all costs, (1, genes); (0, genes) if there is none.

    A rough pass finds a good network. The exact pass then drops whatever cannot reach it.

    Raises:
        SpaceTooLargeError: it takes more than ``memory`` bytes.
    """
    target, plans = SearchGoal(settings, _limits(costs), sweep=False), _bounded_plans(space, settings, costs)
    found = _solved_small(space, plans, target, listener, memory)
    if found is None:
        prices = _prices(plans, target.limits)
        asked = _demand_within(plans, prices, target.limits)
        known = _solve(space, _subproblems(plans, asked), dataclasses.replace(target, beam=_BEAM), SILENT, memory)
        best = float(known.fitness.max(initial=-math.inf))
        subproblems = _subproblems(plans, _demand_best(plans, prices, target.limits, best))
        found = _solve(space, subproblems, target, listener, memory)
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
    """Solve for the network with least of the first cost among those of ``least`` fitness or more within all limits.

    (1, genes), or (0, genes) if there is none. The caller knows that it has ``floor`` of the first cost or more. Limits
    little above that floor are tried first: the tighter the limit, the more labels are dropped.

    Raises:
        SpaceTooLargeError: it takes more than ``memory`` bytes.
    """
    least -= rounding(least)
    limit, plans = costs[0].most, _bounded_plans(space, settings, costs)
    # A network found under a lowered limit is the cheapest of all: any cheaper one would be within that limit too.
    for lowered in (*(min(limit, floor * raised) for raised in _RAISES), limit):
        target = SearchGoal(settings, np.array([lowered, *_limits(costs[1:])]), sweep=True)
        found = _solved_small(space, plans, target, listener, memory) or _solved_reaching(
            space, plans, target, least, listener, memory
        )
        reaching = np.flatnonzero(found.fitness >= least)
        if len(reaching) or lowered == limit:
            break
    order = reaching[np.lexsort((-found.fitness[reaching], found.cost[reaching]))]
    return canonical(space, found.genes[order[:1]])


def _limits(costs: Sequence[AdditiveCost]) -> FloatArray:
    return np.array([cost.most for cost in costs])


def _bounded_plans(space: SearchSpace, settings: FitnessSettings, costs: Sequence[AdditiveCost]) -> list[_BoundedPlan]:
    def bounded(resolution: int) -> _BoundedPlan:
        plan = plan_of(space, settings, costs, resolution)
        ahead = bound_completions(plan, space.depths)
        return _BoundedPlan(plan, ahead, linear_of(plan, ahead, space.depths, settings))

    return [bounded(resolution) for resolution in range(len(space.resolutions))]


def _subproblems(plans: Sequence[_BoundedPlan], asked: Sequence[Asked | None]) -> list[_Subproblem]:
    return [
        _Subproblem(bounded.plan, places_of(bounded.linear, bounded.ahead, each))
        for bounded, each in zip(plans, asked, strict=True)
    ]


def _demand_anywhere(bounded: _BoundedPlan, limits: FloatArray) -> Asked:
    limits = bounded.linear.limits(limits)
    prices = sweeping(bounded.linear, limits, _PARTS)
    return Asked(prices, anywhere(prices, limits))


def _demand_above(plans: Sequence[_BoundedPlan], known: _Found, limits: FloatArray) -> list[Asked | None]:
    """Return the demands on a front, some of whose networks are known; none where nothing is known."""
    order = pareto_front(known.cost, known.fitness)
    if not len(order):
        return [None] * len(plans)
    front = Front(known.cost[order], known.fitness[order])
    slopes = slopes_of(front, _PARTS)

    def asked(linear: LinearRelaxation) -> Asked:
        priced = at_prices(linear, linear.limits(limits), slopes)
        return Asked(priced, above(front, priced, linear.limits(limits)))

    return [asked(bounded.linear) for bounded in plans]


def _prices(plans: Sequence[_BoundedPlan], limits: FloatArray) -> list[FloatArray]:
    return [tightest(bounded.linear, bounded.linear.limits(limits)) for bounded in plans]


def _demand_within(plans: Sequence[_BoundedPlan], prices: Sequence[FloatArray], limits: FloatArray) -> list[Asked]:
    """Return the demands by which the rough pass for one network compares labels."""
    return [
        Asked(rows, within(rows, bounded.linear.limits(limits))) for bounded, rows in zip(plans, prices, strict=True)
    ]


def _demand_best(
    plans: Sequence[_BoundedPlan], prices: Sequence[FloatArray], limits: FloatArray, fitness: float
) -> list[Asked | None]:
    """Return the demands on networks of at least a fitness within all limits; none where no fitness is known."""
    if fitness == -math.inf:
        return [None] * len(plans)
    return [
        Asked(rows, as_fit_as(fitness, rows, bounded.linear.limits(limits)))
        for bounded, rows in zip(plans, prices, strict=True)
    ]


def _solved_reaching(
    space: SearchSpace,
    plans: Sequence[_BoundedPlan],
    target: SearchGoal,
    least: float,
    listener: ProgressListener,
    memory: int,
) -> _Found:
    """Solve with a pass that drops whatever cannot reach the fitness ``least``."""
    prices = _prices(plans, target.limits)
    subproblems = _subproblems(plans, _demand_best(plans, prices, target.limits, least))
    return _solve(space, subproblems, target, listener, memory)


def _solved_small(
    space: SearchSpace, plans: Sequence[_BoundedPlan], target: SearchGoal, listener: ProgressListener, memory: int
) -> _Found | None:
    """Solve with a pass without price bounds; None if it would take many labels."""
    subproblems = _subproblems(plans, [None] * len(plans))
    told: list[tuple[str, int, int]] = []
    try:
        found = _solve(
            space, subproblems, target, ProgressListener(lambda *progress: told.append(progress)), memory, _FEW
        )
    except _ManyLabelsError:
        return None
    # The listener is told of the pass that has the answer, and of no other.
    for progress in told:
        listener.report(*progress)
    return found


def _solve(
    space: SearchSpace,
    subproblems: Sequence[_Subproblem],
    target: SearchGoal,
    listener: ProgressListener,
    memory: int,
    labels: float = math.inf,
) -> _Found:
    steps = len(space.stages) * space.max_depth
    found = []
    for r, subproblem in enumerate(subproblems):

        def step(done: int, labels: int, before: int = r * steps) -> None:
            listener.report(f"solving, {labels:,} labels", before + done, steps * len(space.resolutions))

        found.append(_LabelSetting(space, subproblem, target, r, memory, labels).complete(step))
    return _Found(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


class _LabelSetting:
    """One pass of label setting: the networks of one resolution, extended from the stem block by block."""

    def __init__(
        self,
        space: SearchSpace,
        subproblem: _Subproblem,
        target: SearchGoal,
        resolution: int,
        memory: int,
        most: float,
    ) -> None:
        self.space, self.target, self.memory, self.most = space, target, memory, most
        self.plan, self.places = subproblem
        self.backpointers = Backpointers(space, resolution)
        #: ρ counts the stem's ln w and prefix entropy does not, so it is then part of the state and not of P.
        self.apart = target.settings.entropy == "prefix"

    def complete(self, step: Callable[[int, int], None]) -> _Found:
        """Return the best complete networks; ``step`` is called with the steps done and the labels kept so far."""
        states = self._stems()
        for s, place in enumerate(self.places.before[:-1]):
            if s > 0:
                states = self._pruned(place, states, lambda labels: labels)
            states = self._after_stage(s, states, step)
        cost, fitness, record = self._finished(states)
        index = pareto_front(cost, fitness) if self.target.sweep else np.lexsort((cost, -fitness))[:1]
        return _Found(self.backpointers.genes(record[index]), cost[index], fitness[index])

    def _stems(self) -> dict[State, Labels]:
        """Return one label for every stem, by state."""
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
        """Return the labels of every state after stage ``s``, of every depth that a stage may have."""
        depths = self.space.depths
        extensions = self._first_blocks(s, states)
        ends: defaultdict[State, list[Labels]] = defaultdict(list)
        for d in range(depths[-1]):
            self._check_memory(extensions.values())
            there = {}
            for state, labels in self._pruned(self.places.inside[s][d], extensions, extended).items():
                if len(labels.record):
                    there[state] = self.backpointers.record((s, d, state.width), extensions[state], labels)
                    if d + 1 in depths:
                        end = int(self.plan.stages[s].ends[state.width])
                        ends[state.finished(d + 1)._replace(width=end)].append(there[state])
            extensions = self._later_blocks(s, d, there)
            if self.backpointers.length > self.most:
                raise _ManyLabelsError
            step(s * depths[-1] + d + 1, self.backpointers.length)
        return {state: joined(parts) for state, parts in ends.items()}

    def _pruned(
        self, place: Position, made: Mapping[State, Made], make: Callable[[Made], Labels]
    ) -> dict[State, Labels]:
        """Return the labels that survive in every state; ``make`` turns an item of ``made`` into labels."""

        def prune(state: State) -> Labels:
            labels = make(made[state])
            return labels.take(surviving(self.target, place, state, labels))

        return {state: prune(state) for state in made}

    def _first_blocks(self, s: int, states: Mapping[State, Labels]) -> dict[State, list[Extension]]:
        """Return the extensions into the first block of stage ``s``, by the states they lead to."""
        stage = self.plan.stages[s]
        extensions: defaultdict[State, list[Extension]] = defaultdict(list)
        for state, labels in states.items():
            for width, weight in enumerate(stage.weights):
                offset = np.full(len(labels.record), -stage.falls[state.width, width])
                if self.apart:
                    # Prefix entropy: all blocks so far count in this stage's entropy as well.
                    offset += weight * labels.log_widths
                for options, choice in stage.first.between(state.width, width):
                    into = state._replace(width=width, layers=state.layers + int(options.layers[0]))
                    extensions[into].append(Extension(labels, options, choice, offset))
        return extensions

    def _later_blocks(self, s: int, d: int, states: Mapping[State, Labels]) -> dict[State, list[Extension]]:
        """Return the extensions into the block after block ``d`` of stage ``s``, by the states they lead to."""
        stage = self.plan.stages[s]
        extensions: defaultdict[State, list[Extension]] = defaultdict(list)
        if d == len(stage.later):
            return extensions
        for state, labels in states.items():
            offset = np.zeros(len(labels.record))
            for options, choice in stage.later[d].between(state.width):
                into = state._replace(layers=state.layers + int(options.layers[0]))
                extensions[into].append(Extension(labels, options, choice, offset))
        return extensions

    def _finished(self, states: Mapping[State, Labels]) -> tuple[FloatArray, FloatArray, IntArray]:
        """Return first cost, fitness and record of the complete networks with ``ρ ≤ ρ0``, all (N,)."""
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

    def _check_memory(self, extensions: Iterable[Sequence[Extension]]) -> None:
        """Refuse extensions that need more memory than is allowed."""
        columns = len(self.plan.head) + 4
        candidates = max((sum(extension.size for extension in into) for into in extensions), default=0)
        # A record takes two 4-byte numbers as its backpointer, and its label's columns.
        needed = 8 * (_COPIES * columns * candidates + (1 + columns) * self.backpointers.length)
        if needed > self.memory:
            raise SpaceTooLargeError(
                f"{self.space.name} is too large to be solved exactly within {format_bytes(self.memory)} of memory"
            )
