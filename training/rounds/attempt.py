"""Attempt at a round: if it fails, the last whole round gets a checkpoint and the user a message."""

import contextlib
from collections.abc import Iterator

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.aggregation.round_results import RoundResults
from fedpareto.training.clients.cuda_graphs import RecordingError
from fedpareto.training.engines.protocol import EngineError, Stopped
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.rounds.asking import quorum
from fedpareto.training.rounds.checkpoints import RoundCheckpoints
from fedpareto.training.rounds.failures import go_on, memory_in_training, too_few_answers, too_few_withheld
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import RunState
from fedpareto.training.trackers.records import lost_round
from fedpareto.training.trackers.withheld import PUBLIC_FAILURES, planned_traffic, public_lost_round


class Attempt:
    """Attempt at a round: one that is being trained.

    Attributes:
        results: results of the round so far; None while no client is asked.
        stopped: whether the user has ended it.
    """

    def __init__(self) -> None:
        self.results: RoundResults | None = None
        self.stopped = False


@contextlib.contextmanager
def attempted(run: Run, checkpoints: RoundCheckpoints, state: RunState, models: Models) -> Iterator[Attempt]:
    """Guard a block that trains the round after ``state`` and does not change the models.

    Whatever ends the round, its clients' failures are reported, and the last whole round has a checkpoint then. After
    the block no checkpoint reads the models any more.

    Raises:
        UserError: there is too little memory, the federation cannot go on, too few clients have answered, or a
            checkpoint cannot be written.
    """
    attempt = Attempt()
    try:
        yield attempt
    except OutOfMemoryError as error:
        checkpoints.finish()
        kept, workers = checkpoints.keep(state, models), run.config.execution.workers or 1
        raise UserError(memory_in_training(run.space, run.folder, error, workers, kept)) from error
    except (EngineError, RecordingError) as error:
        checkpoints.finish()
        _tell(run, attempt)
        raise UserError(f"{error}; {checkpoints.keep(state, models)}; {go_on(run.folder)}") from error
    except Stopped:
        checkpoints.finish()
        _tell(run, attempt)
        checkpoints.keep(state, models)
        attempt.stopped = True
        return
    checkpoints.finish()
    if attempt.results is not None and len(attempt.results.accepted) < quorum(run, attempt.results.plan):
        _tell(run, attempt)
        kept, lr = checkpoints.keep(state, models), run.config.client.lr
        if run.config.privacy.withheld and set(attempt.results.failed_by_kind) - set(PUBLIC_FAILURES):
            raise UserError(too_few_withheld(run.folder, attempt.results.plan.number, kept))
        raise UserError(too_few_answers(run.folder, attempt.results, run.retries, lr, kept))


def _tell(run: Run, attempt: Attempt) -> None:
    """Tell the tracker of a round that failed, if any client did."""
    if attempt.results is not None and attempt.results.failures:
        tell_lost(run, attempt.results)


def tell_lost(run: Run, results: RoundResults) -> None:
    """Tell the tracker of a round that is not taken over, as far as a private run tells of its rounds."""
    record = lost_round(results)
    if run.config.privacy.withheld:
        record = public_lost_round(record, results, planned_traffic(results.plan, run.config, run.space))
    run.tracker.round_lost(record)
