"""Public side of a round of a private run: what its plan and the noised supernet tell, without clients' statistics."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fedpareto.supernet.slices import tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.config.run import RunConfig
from fedpareto.training.trackers.records import LostRound, RoundRecord
from fedpareto.training.traffic import Traffic

#: Failures from before a client looks at its images; all others may tell of them.
PUBLIC_FAILURES = ("offline", "version")

_FP32, _BF16 = 4, 2


def public_failures(results: RoundResults) -> Counter[str]:
    """Number of failures of each kind that tells nothing of clients' images."""
    return Counter({kind: count for kind, count in results.failed_by_kind.items() if kind in PUBLIC_FAILURES})


def planned_traffic(plan: RoundPlan, config: RunConfig, space: SearchSpace) -> Traffic:
    """Bytes of the tensors of a round, if every planned client answers: messages' own sizes vary with what they say."""
    value = _BF16 if config.engine == "flower" and config.flower.wire_dtype == "bf16" else _FP32
    networks = [tensor_shapes(space, entry.architecture).values() for entry in plan.assigned.values()]
    sent = value * sum(math.prod(shape) for shapes in networks for shape in shapes)
    return Traffic(sent, sent)


def public_record(record: RoundRecord, results: RoundResults, traffic: Traffic) -> RoundRecord:
    """Record of a merged round without losses, counts, seconds and results of its clients; it is not evaluated yet.

    Every field is named: one that is new is left out until it is known to tell nothing.
    """
    return RoundRecord(
        round=record.round,
        train_loss=None,
        lr=record.lr,
        beta=record.beta,
        clients=_planned(results.plan),
        failures=dict(public_failures(results)),
        traffic=traffic,
        bytes_whole=record.bytes_whole,
        seconds=None,
        sgd_seconds=None,
        overhead_share=None,
        evaluation_seconds=0.0,
        probes=(),
        trained=record.trained,
        epsilon=record.epsilon,
        delta=record.delta,
        compute=0,
    )


def public_lost_round(record: LostRound, results: RoundResults, traffic: Traffic) -> LostRound:
    """Record of a round that was not merged, without the results of its clients."""
    clients, failures = _planned(results.plan), dict(public_failures(results))
    return dataclasses.replace(record, clients=clients, failures=failures, traffic=traffic)


def _planned(plan: RoundPlan) -> tuple[Mapping[str, Any], ...]:
    return tuple({"client": client, "macs": entry.macs} for client, entry in plan.assigned.items())
