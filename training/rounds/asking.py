"""Collection of a round's updates: clients get their tasks, and those that fail are asked again if too few answer."""

import contextlib
import math
from collections.abc import Generator, Iterator, Sequence

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.networks.weights import views
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.engines.protocol import Stopped
from fedpareto.training.messages import Failure, Task, Update
from fedpareto.training.rounds.last_round import task_seed
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models


def quorum(run: Run, plan: RoundPlan) -> int:
    """Number of answers that a round needs to be merged."""
    return max(1, math.ceil(run.quorum * len(plan.assigned)))


def answers_of(run: Run, models: Models, results: RoundResults) -> Generator[Update | Failure, None, None]:
    """Yield the answers of a round's clients as they come; those that failed are asked again while too few are good.

    The tracker is told of an answer once the next one is asked for.

    Args:
        run: parts of the run, with the engine that trains the clients.
        models: weights whose slices the clients are sent.
        results: results of the round, with its plan; the caller adds each answer to them.

    Raises:
        EngineError: the federation cannot go on.
        Stopped: too few have answered, and the user does not want to wait any more.
    """
    plan = results.plan
    # The longest first, so that clients that train at once also end at about the same time.
    missing = sorted(plan.assigned.items(), key=lambda item: -item[1].macs)
    for attempt in range(1 + run.retries):
        if attempt:
            if run.should_stop():
                raise Stopped
            # Those that are there again are known only after a look.
            run.engine.available()
        answered = len(plan.assigned) - len(missing)
        with _closed(run.engine.run(_tasks(run, plan, models, missing))) as coming:
            for done, answer in enumerate(coming, answered + 1):
                yield answer
                run.tracker.client_done(plan.number, done, len(plan.assigned))
        results.settle()
        if len(results.accepted) >= quorum(run, plan):
            break
        missing = [(client, entry) for client, entry in missing if client not in results.accepted]


@contextlib.contextmanager
def _closed(answers: Iterator[Update | Failure]) -> Iterator[Iterator[Update | Failure]]:
    """End an engine's work at the end of the block, and not when its frames happen to be collected."""
    try:
        yield answers
    finally:
        if isinstance(answers, Generator):
            answers.close()


def _tasks(run: Run, plan: RoundPlan, models: Models, clients: Sequence[tuple[int, CacheEntry]]) -> Iterator[Task]:
    for client, entry in clients:
        sliced = views(run.space, models.tensors(plan.branches.get(client)), entry.architecture)
        yield Task(
            round=plan.number,
            client=client,
            architecture=entry.architecture,
            tensors=sliced,
            epochs=run.config.client.epochs,
            learning_rate=plan.learning_rate,
            seed=task_seed(run.config, plan.number, client),
            objective=plan.objective(client),
            steps=plan.steps.get(client),
        )
