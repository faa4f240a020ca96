"""A round until it can be merged: what ends a run in it, and what is kept and told then."""

import contextlib
from collections.abc import Iterator

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.aggregation.round_results import RoundResults
from fedpareto.training.clients.cuda_graphs import RecordingError
from fedpareto.training.engines.protocol import EngineError, Stopped
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.rounds.asking import quorum
from fedpareto.training.rounds.checkpoints import RoundCheckpoints
from fedpareto.training.rounds.failures import go_on, memory_in_training, too_few_answers
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import RunState
from fedpareto.training.trackers.records import lost_round


class Attempt:
    """A round that is being trained.

    Attributes:
        results: what has come back; None while nobody is asked.
        stopped: whether the user has ended it.
    """

    def __init__(self) -> None:
        self.results: RoundResults | None = None
        self.stopped = False


@contextlib.contextmanager
def attempted(run: Run, checkpoints: RoundCheckpoints, state: RunState, models: Models) -> Iterator[Attempt]:
    """Guard a block that trains the round after ``state``; the models stay as they are in it.

    Whatever ends the round, its clients' failures are told of, and the last whole round has a checkpoint then. After
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
        raise UserError(too_few_answers(run.folder, attempt.results, run.retries, lr, kept))


def _tell(run: Run, attempt: Attempt) -> None:
    """Tell of a round that is not merged, as far as any client was asked."""
    if attempt.results is not None and attempt.results.failures:
        run.tracker.round_lost(lost_round(attempt.results))
