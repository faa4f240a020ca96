"""The last round of a run that its compute ends: so many local steps as are left, instead of one round too much."""

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from supernet.architecture import Architecture
from supernet.space import SearchSpace
from training.answers import RoundPlan
from training.compute import macs_of
from training.config import RunConfig
from training.cotraining import networks_of_steps
from training.randomness import derive_seed
from training.work import CoTraining, Plain, Work

#: Numbers of steps tried around a client's share of what is left.
_AROUND = 2

#: Shares of steps, and sums of what they cost, are told apart to one of so many parts.
_PARTS = 5000


def task_seed(config: RunConfig, number: int, client: int) -> int:
    """Return the seed of a client's draws in a round."""
    return derive_seed(config.seed, "client", number, client)


def shortened(
    plan: RoundPlan, config: RunConfig, space: SearchSpace, left: int, examples: Callable[[int], int]
) -> RoundPlan:
    """Return ``plan`` with limits on its clients' steps if its compute is more than is left; else as it is.

    Clients keep their shares of the round's steps, and each takes one at the least. What a client computes follows from
    its task, so that a round begun again is shortened alike. Of path sampling only the most is known; what such a round
    leaves is for another one.

    Args:
        plan: of the round.
        config: of the run.
        space: the search space.
        left: multiply–accumulates that the run may still take; positive.
        examples: says how many training images a client has.
    """
    costs = {
        client: _costs_after_steps(
            step_macs(
                space, entry.architecture, plan.work.get(client, Plain()), task_seed(config, plan.number, client)
            ),
            config.client.epochs * (examples(client) // config.client.batch),
            config.client.batch,
        )
        for client, entry in plan.assigned.items()
    }
    if sum(own[-1] for own in costs.values()) <= left:
        return plan
    return dataclasses.replace(plan, steps=steps_for(costs, left))


def step_macs(space: SearchSpace, architecture: Architecture, work: Work, seed: int) -> Iterator[int]:
    """Yield, step by step without end, the forward multiply–accumulates of one image; of path sampling the most."""
    own = macs_of(space, architecture)
    if isinstance(work, CoTraining):
        return (own + sum(macs_of(space, inner) for inner in inside) for inside in networks_of_steps(work, seed))
    return itertools.repeat(own)


def steps_for(costs: Mapping[int, Sequence[int]], left: int) -> dict[int, int]:
    """Return a number of steps for every client whose costs add up to ``left`` or as little above it as was found.

    Args:
        costs: of every client, after one step, after two and so on; more than ``left`` in all.
        left: what is to be reached.
    """

    def steps_at(share: float, own: Sequence[int]) -> int:
        return max(1, int(share * len(own)))

    def taken(part: int) -> int:
        return sum(own[steps_at(part / _PARTS, own) - 1] for own in costs.values())

    # The share of their steps that all clients can take: less than that of what is left where a single step is much.
    share = max(0, bisect.bisect_right(range(_PARTS), left, key=taken) - 1) / _PARTS
    width = max(1, left // _PARTS)
    # One way to every sum that differs; of equal ones the highest, so that the highest of all is among them.
    found: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for own in costs.values():
        near = steps_at(share, own)
        further = sorted(
            (total + own[steps - 1], (*before, steps))
            for total, before in found.values()
            for steps in range(max(1, near - _AROUND), min(len(own), near + _AROUND) + 1)
        )
        found = {total // width: (total, steps) for total, steps in further}
    enough = [way for way in found.values() if way[0] >= left] or [max(found.values())]
    return dict(zip(costs, min(enough)[1], strict=True))


def _costs_after_steps(macs: Iterator[int], steps: int, batch_size: int) -> Sequence[int]:
    """Return what a client's first step, its first two and so on up to all of them take."""
    return list(itertools.accumulate(batch_size * one for one in itertools.islice(macs, max(1, steps))))
