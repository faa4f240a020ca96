"""Evaluation after a merged round: when it is due, its accuracies, and the state after it."""

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.evaluation import Metric
from fedpareto.training.evaluation.evaluator import Evaluation, Probe, mean_accuracy
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.rounds.budget import run_ends
from fedpareto.training.rounds.failures import memory_in_evaluation
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.checkpoint import checkpoint_folder
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import Best, RunState
from fedpareto.training.trackers.records import RoundRecord, record_from_json


def evaluation_due(run: Run, state: RunState) -> bool:
    """True if any network is to be measured after the round of ``state``."""
    return _probes_due(run, state) or bool(run.method.networks_to_evaluate(state))


def evaluate(run: Run, state: RunState, models: Models) -> Evaluation:
    """Measure the probes if they are due, and the networks that the method asks for; the seconds are those of both.

    Raises:
        UserError: a network does not fit the memory.
    """
    started = time.perf_counter()
    found = _probe(run, models.supernet, run.method.probes(state)) if _probes_due(run, state) else Evaluation()
    tested = {
        name: mean_accuracy(_probe(run, models.tensors(name), [entry]).probes)
        for name, entry in run.method.networks_to_evaluate(state).items()
    }
    return dataclasses.replace(found, tested=tested, seconds=time.perf_counter() - started)


def after_evaluation(state: RunState, evaluation: Evaluation, metric: Metric) -> RunState:
    """State after an evaluation, which is then owed no longer; the best round is that of the highest ``metric``."""
    return dataclasses.replace(
        state,
        failures=dict(Counter(state.failures) + Counter(failure.kind for failure in evaluation.failures)),
        best=_better(state.best, state.round, evaluation.probes, metric),
        traffic=state.traffic + evaluation.traffic,
        owed=None,
    )


def owed_record(run: Run, state: RunState) -> RoundRecord:
    """Record of a round that was merged by a run that was stopped before its evaluation.

    Raises:
        UserError: the state holds no valid record.
    """
    try:
        return record_from_json(parse_json(state.owed or "", "its unfinished record", ValueError))
    except ValueError as error:
        folder = checkpoint_folder(run.folder, state.round)
        raise UserError(
            f"checkpoint {folder} is damaged ({error}); remove that folder to resume from the checkpoint before it"
        ) from error


def _probes_due(run: Run, state: RunState) -> bool:
    due = state.round % run.config.evaluation.every == 0
    return due or run_ends(run.config, run.method, run.ledger, state)


def _probe(run: Run, tensors: Tensors, entries: Sequence[CacheEntry]) -> Evaluation:
    try:
        return run.evaluator.probe(tensors, entries)
    except OutOfMemoryError as error:
        raise UserError(memory_in_evaluation(run.space, run.folder, error)) from error


def _better(best: Best | None, number: int, probes: Sequence[Probe], metric: Metric) -> Best | None:
    if not probes:
        return best
    accuracy = mean_accuracy(probes, metric)
    return Best(number, accuracy) if best is None or accuracy > best.accuracy else best
