"""Last round of a run with limited compute: its clients take only as many local steps as the limit leaves."""

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.round_results import RoundPlan
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.batches import batch_of
from fedpareto.training.local_objective import LocalObjective
from fedpareto.training.randomness import derive_seed
from fedpareto.training.runs.progress import Progress

#: Numbers of steps tried around a client's share of what is left.
_AROUND = 4

#: Steps of each client that are too few for a round to end where it should.
_COARSE = 4

#: Shares of steps, and sums of what they cost, are told apart to one of so many parts.
_PARTS = 2000


def task_seed(config: RunConfig, number: int, client: int) -> int:
    """Return the seed of a client's draws in a round."""
    return derive_seed(config.seed, "client", number, client)


def shortened(
    plan: RoundPlan, config: RunConfig, space: SearchSpace, extent: Progress, examples: Callable[[int], int]
) -> RoundPlan:
    """Return ``plan`` with limits on its clients' steps if its compute is more than is left or nearly that; else as is.

    Clients keep their shares of the round's steps, and each takes at least one. A client's compute follows from its
    task, so a round begun again is shortened in the same way. For path sampling only the largest possible compute is
    known; the compute that such a round leaves is for another round.

    Args:
        plan: plan of the round.
        config: configuration of the run.
        space: the search space.
        extent: progress of the run in compute, of which some is left.
        examples: function that returns a client's number of training images.
    """
    costs = {
        client: _costs_after_steps(
            step_macs(space, entry.architecture, plan.objective(client), task_seed(config, plan.number, client)),
            config.client.epochs * (examples(client) // batch_of(config.client.batch, examples(client))),
            batch_of(config.client.batch, examples(client)),
        )
        for client, entry in plan.assigned.items()
    }
    whole, single = sum(own[-1] for own in costs.values()), sum(own[0] for own in costs.values())
    rest = extent.left - whole
    if 0 <= rest <= extent.negligible or rest >= min(whole, _COARSE * single):
        return plan
    # Rather two rounds of half the size than a whole one and then a few steps, which hit what is left by chance only.
    wanted = extent.left if rest < 0 else extent.left // 2
    return dataclasses.replace(plan, steps=steps_for(costs, wanted, extent.negligible))


def step_macs(space: SearchSpace, architecture: Architecture, objective: LocalObjective, seed: int) -> Iterator[int]:
    """Yield the forward multiply–accumulates of one image, step by step without end; for path sampling the most."""
    own = macs_of(space, architecture)
    return (own + sum(macs_of(space, inner) for inner in inside) for inside in objective.networks_of_steps(seed))


def steps_for(costs: Mapping[int, Sequence[int]], wanted: int, missing: int = 0) -> dict[int, int]:
    """Return a number of steps for every client, such that their costs add up to about ``wanted``.

    It is the nearest sum that was found.

    Args:
        costs: costs of every client after one step, after two and so on; more than ``wanted`` in all.
        wanted: the sum to reach.
        missing: the most that the sum may be below it.
    """

    def steps_at(share: float, own: Sequence[int]) -> int:
        return max(1, int(share * len(own)))

    def taken(part: int) -> int:
        return sum(own[steps_at(part / _PARTS, own) - 1] for own in costs.values())

    # The share of their steps that all clients can take: less than that of ``wanted`` where a single step is much.
    share = max(0, bisect.bisect_right(range(_PARTS), wanted, key=taken) - 1) / _PARTS
    ways = [_Way(0, 0, ())]
    for own in costs.values():
        near = steps_at(share, own)
        counts = range(max(1, near - _AROUND), min(len(own), near + _AROUND) + 1)
        ways = _distinct([way.further(own[count - 1], count, near) for way in ways for count in counts], wanted)
    enough = [way for way in ways if way.total >= wanted - missing] or [max(ways)]
    best = min(enough, key=lambda way: (abs(way.total - wanted) * _PARTS // wanted, way.uneven, way.total))
    return dict(zip(costs, best.steps, strict=True))


class _Way(NamedTuple):
    """Steps of the first clients, with their costs and their distance from these clients' shares."""

    total: int
    uneven: int
    steps: tuple[int, ...]

    def further(self, cost: int, steps: int, share: int) -> "_Way":
        """Return the way with the steps of one more client."""
        return _Way(self.total + cost, self.uneven + (steps - share) ** 2, (*self.steps, steps))


def _distinct(ways: Iterable[_Way], wanted: int) -> list[_Way]:
    """Return one way for every sum that can be told apart: the most even one."""
    found: dict[int, _Way] = {}
    for way in ways:
        part = way.total * _PARTS // wanted
        if part not in found or way.uneven < found[part].uneven:
            found[part] = way
    return list(found.values())


def _costs_after_steps(macs: Iterator[int], steps: int, batch_size: int) -> Sequence[int]:
    """Return the costs of a client's first step, of its first two, and so on up to all steps."""
    return list(itertools.accumulate(batch_size * one for one in itertools.islice(macs, max(1, steps))))
