"""Records of rounds: the lines of ``metrics.jsonl`` and their reading."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedpareto.supernet.common.formats.json_dataclasses import from_json
from fedpareto.training.aggregation.round_results import RoundResults
from fedpareto.training.evaluation.evaluator import Evaluation, Probe, mean_accuracy
from fedpareto.training.privacy.accountant import Guarantee
from fedpareto.training.traffic import NO_TRAFFIC, Traffic, gathered, spread


@dataclasses.dataclass(frozen=True)
class RoundRecord:
    """Record of a merged round: one line of ``metrics.jsonl``.

    Attributes:
        round: number of the round, from 1.
        train_loss: mean training loss of the clients' last epochs, weighted by examples; None where a private run
            withholds clients' statistics, as are ``seconds``, ``sgd_seconds`` and ``overhead_share``.
        lr: learning rate of the clients.
        beta: weight β_t of the largest network; None where all weigh the same.
        clients: for every drawn client: client, macs of its network, and examples, loss,
            compute and bytes or the kind of failure; for a network with weights of its own also its name;
            for a client that was asked again the kinds it failed with before.
        failures: number of failed answers of this round by kind.
        traffic: bytes of the messages of the clients' training.
        bytes_whole: bytes that the supernet itself would have taken in place of every slice, one way.
        seconds: wall time of the round with its checkpoint, without evaluation.
        sgd_seconds: time in which at least one client was in its local epochs.
        overhead_share: share of ``seconds`` in which no client trained.
        evaluation_seconds: time of this round's evaluation; 0 if there was none.
        probes: validation accuracy of the probes, and further measures; empty if there was no evaluation.
        trained: number of times that every cache entry has been trained so far.
        epsilon: ε of the run's most exposed client so far, at ``delta``; None without noise.
        delta: δ of the guarantee; None without noise.
        clipped: share of the accepted updates that were clipped; None in a run that is not private.
        evaluation_failures: clients that gave no usable answer in the evaluation: client, failure and reason.
        evaluation_traffic: bytes of the messages of the evaluation; 0 where no client takes part in it.
        merged: always true, unlike in the record of a round that was not merged.
        compute: multiply–accumulates of the clients' forward passes in this round; 0 where that is withheld.
        done: share of the scheduled training that is done.
        tested: validation accuracy of networks that the method itself had measured, by name.
        owed: whether the evaluation was due and is made up for when the run is resumed, with a new record of the round.
    """

    round: int
    train_loss: float | None
    lr: float
    beta: float | None
    clients: tuple[Mapping[str, Any], ...]
    failures: Mapping[str, int]
    traffic: Traffic
    bytes_whole: int
    seconds: float | None
    sgd_seconds: float | None
    overhead_share: float | None
    evaluation_seconds: float
    probes: tuple[Probe, ...]
    trained: tuple[int, ...]
    epsilon: float | None = None
    delta: float | None = None
    clipped: float | None = None
    evaluation_failures: tuple[Mapping[str, Any], ...] = ()
    evaluation_traffic: Traffic = NO_TRAFFIC
    merged: bool = True
    compute: int = 0
    done: float = 0.0
    tested: Mapping[str, float] = dataclasses.field(default_factory=dict)
    owed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values; what was not measured of a probe is left out."""
        fields = dataclasses.asdict(self)
        probes = [{name: value for name, value in each.items() if value is not None} for each in fields["probes"]]
        return spread({**fields, "probes": probes})

    @property
    def mean_accuracy(self) -> float | None:
        """Mean validation accuracy of the probes, or None without evaluation."""
        return mean_accuracy(self.probes) if self.probes else None


@dataclasses.dataclass(frozen=True)
class LostRound:
    """Record of a round that was not merged, as too few clients had answered: a line of ``metrics.jsonl``.

    Attributes:
        round: number of the round; the run ended with it, and a resumed run begins with another try at it.
        clients: drawn clients, as in ``RoundRecord``.
        failures: number of failed answers of all tries by kind.
        traffic: bytes of the messages of all tries.
        merged: always false, unlike in the record of a merged round.
    """

    round: int
    clients: tuple[Mapping[str, Any], ...]
    failures: Mapping[str, int]
    traffic: Traffic
    merged: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return spread(dataclasses.asdict(self))


def record_from_json(value: Any) -> RoundRecord:
    """Return the record of a merged round from its JSON values.

    Raises:
        ValueError: they are not those of a record; a field has another type, or is out of its range.
    """
    record = from_json(RoundRecord, gathered(value, "traffic", "evaluation_traffic"))
    # A loss may be anything, and the time of the clients is not measured on the round's clock.
    numbers = {**vars(record), "train_loss": 0, "overhead_share": 0}.values()
    if not all(number >= 0 for number in numbers if isinstance(number, int | float)):
        raise ValueError("a number that is none, or is negative")
    further = [probe.further for probe in record.probes]
    shares = [record.done, *record.tested.values(), *(probe.accuracy for probe in record.probes)]
    shares += [value for found in further for name, value in found.items() if name != "loss"]
    if not (record.merged and record.round and all(0 <= share <= 1 for share in shares)) or any(
        found.get("loss", 0) < 0 for found in further
    ):
        raise ValueError("a value out of its range")
    return record


def lost_from_json(value: Any) -> LostRound:
    """Return the record of a round that was not merged from its JSON values.

    Raises:
        ValueError: they are not those of such a record.
    """
    record = from_json(LostRound, gathered(value, "traffic"))
    if record.merged or record.round < 1:
        raise ValueError("a value out of its range")
    return record


def lost_round(answers: RoundResults) -> LostRound:
    """Return the record of a round that is not merged."""
    number, failures = answers.plan.number, dict(answers.failed_by_kind)
    return LostRound(number, _outcomes(answers), failures, answers.traffic)


def make_record(
    answers: RoundResults,
    trained: tuple[int, ...],
    *,
    bytes_whole: int,
    seconds: float,
    guarantee: Guarantee | None = None,
) -> RoundRecord:
    """Return the record of a merged round that is not evaluated yet."""
    plan = answers.plan
    return RoundRecord(
        round=plan.number,
        train_loss=answers.train_loss,
        lr=plan.learning_rate,
        beta=plan.beta,
        clients=_outcomes(answers),
        failures=dict(answers.failed_by_kind),
        traffic=answers.traffic,
        bytes_whole=bytes_whole,
        seconds=seconds,
        sgd_seconds=answers.sgd_seconds,
        overhead_share=1 - answers.sgd_seconds / seconds,
        evaluation_seconds=0.0,
        probes=(),
        trained=trained,
        epsilon=None if guarantee is None else guarantee.epsilon,
        delta=None if guarantee is None else guarantee.delta,
        clipped=answers.clipped,
        compute=answers.compute,
    )


def evaluated(record: RoundRecord, evaluation: Evaluation, *, done: float) -> RoundRecord:
    """Return a round's record with its evaluation, and the share of the training that is done after it."""
    return dataclasses.replace(
        record,
        evaluation_seconds=evaluation.seconds,
        probes=tuple(evaluation.probes),
        evaluation_failures=tuple(
            {"client": failure.task.client, "failure": failure.kind, "reason": failure.reason}
            for failure in evaluation.failures
        ),
        evaluation_traffic=evaluation.traffic,
        done=done,
        tested=evaluation.tested,
    )


def _outcomes(answers: RoundResults) -> tuple[Mapping[str, Any], ...]:
    """Return the outcome of every drawn client: its network, and its result or its failure."""
    outcome: dict[int, dict[str, Any]] = {client: update.to_json() for client, update in answers.accepted.items()}
    for failure in answers.failures:
        client = failure.task.client
        if client in answers.accepted:
            outcome[client].setdefault("failed_before", []).append(failure.kind)
        else:
            outcome[client] = {"failure": failure.kind, "reason": failure.reason}
    plan = answers.plan
    for client, branch in plan.branches.items():
        outcome[client] = {"branch": branch, **outcome.get(client, {})}
    return tuple(
        {"client": client, "macs": entry.macs, **outcome.get(client, {})} for client, entry in plan.assigned.items()
    )
