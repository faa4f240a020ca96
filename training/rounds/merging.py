"""Merging of a round: its updates are aggregated into the models, and the state moves on."""

import dataclasses
from collections import Counter

from fedpareto.training.aggregation.round_results import RoundResults
from fedpareto.training.aggregation.update_bounds import REMEMBERED
from fedpareto.training.aggregation.weighted_average import ServerStep
from fedpareto.training.privacy.accountant import exposure_after
from fedpareto.training.privacy.mechanism import Noise
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import RunState


def merge(run: Run, results: RoundResults, models: Models) -> None:
    """Move the models, in place, by the aggregate of a round's updates; in a private run with noise."""
    privacy, plan, fold = run.config.privacy, results.plan, results.fold
    server = ServerStep(run.config.server.momentum, run.config.server.lr)
    for name, branch in results.branches.items():
        branch.write_mean(models.tensors(name))
    if not privacy.clip:
        fold.write_mean(models.supernet, models.velocity, server)
        return
    # The most that one client can change the weighted sum by is the clip times the largest weight.
    deviation = privacy.noise * privacy.clip * max(plan.weights.values())
    noise = None if run.noise_key is None else Noise(run.noise_key, plan.number, deviation)
    results.private_fold.apply_step(models.supernet, models.velocity, server, noise)


def after_merge(run: Run, state: RunState, results: RoundResults) -> RunState:
    """State after a merged round; clients that failed count as not having trained."""
    plan, clip = results.plan, run.config.privacy.clip
    times = Counter(plan.assigned[client].architecture for client in results.accepted)
    after = dataclasses.replace(
        state,
        round=plan.number,
        trained=tuple(
            count + times[entry.architecture] for count, entry in zip(state.trained, run.entries, strict=True)
        ),
        failures=dict(Counter(state.failures) + results.failed_by_kind),
        traffic=state.traffic + results.traffic,
        exposure=exposure_after(state.exposure, plan.weights, run.config.clients.count) if clip else (),
        compute=state.compute + results.compute,
        past=(*state.past, results.memory)[-REMEMBERED:],
    )
    return run.method.after_round(after, results)
