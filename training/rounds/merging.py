"""Merging of a round: its updates are aggregated into the models, and the state moves on."""

import dataclasses
import math
from collections import Counter

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.aggregation.update_bounds import REMEMBERED
from fedpareto.training.aggregation.weighted_average import ServerStep
from fedpareto.training.privacy.accountant import exposure_after
from fedpareto.training.privacy.ledger import release_of
from fedpareto.training.privacy.mechanism import Noise, sums_digests
from fedpareto.training.rounds.budget import within_budget
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import RunState
from fedpareto.training.shares import largest_weight
from fedpareto.training.trackers.withheld import planned_traffic, public_failures

#: Largest share of a round's images of one connected client where nothing else is said; and what it takes of clients.
_CONNECTED_SHARE, _CONNECTED_CLIENTS = 0.5, 3


class BudgetError(UserError):
    """Error of a round that may not be released, as it would pass the budget of privacy."""


def most_examples(run: Run, plan: RoundPlan) -> float:
    """Images beyond which a client of a round weighs no more, by ``server.max_share``; infinite where none is capped.

    The share is of the images of all clients that were drawn: of those that answer one may have more.
    """
    share = run.config.server.max_share
    if share is None:
        connected = run.config.engine == "flower" and len(plan.assigned) >= _CONNECTED_CLIENTS
        share = _CONNECTED_SHARE if connected else 1.0
    if share == 1:
        return math.inf
    return largest_weight([run.engine.examples(client) for client in plan.assigned], share)


def merge(run: Run, results: RoundResults, models: Models) -> None:
    """Move the models, in place, by the aggregate of a round's updates; in a private run with noise.

    Raises:
        BudgetError: the round was released before, with other answers, and once more would pass the budget of privacy;
            the models are as they were.
        UserError: the release cannot be accounted for.
    """
    fold = results.fold
    server = ServerStep(run.config.server.momentum, run.config.server.lr)
    for name, branch in results.branches.items():
        branch.write_mean(models.tensors(name))
    if not run.config.privacy.clip:
        fold.write_mean(models.supernet, models.velocity, server)
        return
    results.private_fold.apply_step(models.supernet, models.velocity, server, _noise(run, results))


def _noise(run: Run, results: RoundResults) -> Noise | None:
    """Noise of a private round, whose release is accounted for; None where there is none."""
    privacy, plan, ledger = run.config.privacy, results.plan, run.ledger
    if ledger is None:
        return None
    digests = sums_digests(ledger.key, results.private_fold.covered_sums())
    release = release_of(ledger.key, plan.number, digests, plan.weights)
    if not ledger.knows(release) and not within_budget(run.config, ledger.exposure_with(plan.weights)):
        raise BudgetError(
            f"round {plan.number} was released before, and its clients have answered otherwise now: to release that, "
            f"too, would pass the budget of ε {privacy.epsilon:g}"
        )
    ledger.write(release)
    # The most that one client can change the weighted sum by is the clip times the largest weight.
    deviation = privacy.multiplier * privacy.clip * max(plan.weights.values())
    return Noise(ledger.key, ledger.run, plan.number, deviation, digests)


def after_merge(run: Run, state: RunState, results: RoundResults) -> RunState:
    """State after a merged round; clients that failed count as not having trained.

    Where a private run withholds clients' statistics the state follows from the plan, as if all had answered.
    """
    plan, withheld = results.plan, run.config.privacy.withheld
    times = Counter(plan.assigned[client].architecture for client in (plan.assigned if withheld else results.accepted))
    failures = public_failures(results) if withheld else results.failed_by_kind
    traffic = planned_traffic(plan, run.config, run.space) if withheld else results.traffic
    after = dataclasses.replace(
        state,
        round=plan.number,
        trained=tuple(
            count + times[entry.architecture] for count, entry in zip(state.trained, run.entries, strict=True)
        ),
        failures=dict(Counter(state.failures) + failures),
        traffic=state.traffic + traffic,
        exposure=_exposure(run, state, plan),
        compute=state.compute + (0 if withheld else results.compute),
        past=(*state.past, results.memory)[-REMEMBERED:],
    )
    return run.method.after_round(after, results)


def _exposure(run: Run, state: RunState, plan: RoundPlan) -> tuple[float, ...]:
    """Exposure of every client of a private run after a merged round; empty in others."""
    if run.ledger is not None:
        return run.ledger.exposure
    # Clipping alone has no ε, whatever is released.
    clip, clients = run.config.privacy.clip, run.config.clients.count
    return exposure_after(state.exposure, plan.weights, clients) if clip else ()
