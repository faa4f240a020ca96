"""Messages to the user about a round that failed: the cause, the round that is kept, and the command to go on."""

import statistics
from pathlib import Path

from fedpareto.cache.entries import make_entry
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.words import command, counted, option
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.round_results import RoundResults
from fedpareto.training.execution.out_of_memory import OutOfMemoryError

#: Times the others' move from which on a spoiled merge is one client's doing.
_ALONE = 3.0


def go_on(folder: Path) -> str:
    """Return the command that goes on with the run in ``folder``, in words."""
    return f"go on with: {_resume(folder)}"


def too_few_answers(folder: Path, answers: RoundResults, retries: int, learning_rate: float, kept: str) -> str:
    """Return the message about a round in which too many clients failed.

    Args:
        folder: folder of the run.
        answers: results of the round.
        retries: number of times that clients were asked again.
        learning_rate: learning rate of the run's first round.
        kept: words that name the round that is kept.
    """
    first, clients, accepted = answers.failures[0], len(answers.plan.assigned), len(answers.accepted)
    everyone = "the only client" if clients == 1 else f"all {counted(clients, 'client')}"
    who = f"{clients - accepted} of {counted(clients, 'client')}" if accepted else everyone
    asked = f", asked {counted(1 + retries, 'time')}" if retries else ""
    advice = go_on(folder)
    if all(failure.kind == "non-finite" for failure in answers.failures):
        advice = f"if training diverged, start a new run with a lower {option('client.lr')} (now {learning_rate})"
    return (
        f"{who} of round {answers.plan.number} failed{asked} (client {first.task.client}: {first.reason}); "
        f"{kept}; {advice}"
    )


def too_few_withheld(folder: Path, number: int, kept: str) -> str:
    """Return the message about a round in which too many clients failed, without their reasons.

    Args:
        folder: folder of the run.
        number: number of the round.
        kept: words that name the round that is kept.
    """
    return (
        f"too few clients of round {number} gave a usable answer; their reasons may tell of their images, which a "
        f"private run withholds: look at the clients; {kept}; {go_on(folder)}"
    )


def refused_round(folder: Path, results: RoundResults, problem: str, learning_rate: float, kept: str) -> str:
    """Return the message about a merged round that is not taken over.

    Args:
        folder: folder of the run.
        results: results of the round.
        problem: words for what is wrong with the merged weights.
        learning_rate: learning rate of the run's first round.
        kept: words that name the round that is kept.
    """
    weights = {client: results.weight(client) for client in results.accepted}
    total, moves = sum(weights.values()), results.moves
    effects = sorted(weights, key=lambda client: -moves.get(client, 0.0) * weights[client])
    first, others = effects[0], [moves.get(client, 0.0) for client in effects[1:]]
    who = f"client {first} moved its weights by {moves.get(first, 0.0):.2g} of their norm"
    if others:
        who += f", the median of the others by {statistics.median(others):.2g}"
    who += f", and weighs {weights[first] / total:.0%}"
    advice = f"leave that client out, or lower {option('server.outlier-factor')}, and {go_on(folder)}"
    if others and moves.get(first, 0.0) <= _ALONE * statistics.median(others):
        advice = (
            f"no client stands out: if training diverged, start a new run with a lower {option('client.lr')} (now "
            f"{learning_rate}), else {go_on(folder)}"
        )
    return f"round {results.plan.number} is refused: merged, {problem} ({who}); {kept}; {advice}"


def refused_withheld(folder: Path, number: int, problem: str, kept: str) -> str:
    """Return the message about a merged round that is not taken over, without what its clients did.

    Args:
        folder: folder of the run.
        number: number of the round.
        problem: words for what is wrong with the merged weights, noise and all.
        kept: words that name the round that is kept.
    """
    return (
        f"round {number} is refused: merged, {problem}; {kept}; if privacy.noise times privacy.clip is too much for "
        f"its weights, start a new run with a lower {option('privacy.clip')}, else {go_on(folder)}"
    )


def memory_in_training(space: SearchSpace, folder: Path, error: OutOfMemoryError, workers: int, kept: str) -> str:
    """Return the message about a client's training that took more memory than there is.

    Args:
        space: the search space.
        folder: folder of the run.
        error: the error, with the network and the device.
        workers: number of clients that train at once.
        kept: words that name the round that is kept.
    """
    at_once = f" with {counted(workers, 'client')} at once" if workers > 1 else ""
    fewer = f", or with {option('execution.workers')} 1" if workers > 1 else ""
    return (
        f"out of memory on {error.device}: training {_described(space, error)}{at_once}; "
        f"{kept}; {go_on(folder)}{error.advice('client.batch-size')}{fewer}"
    )


def memory_in_evaluation(space: SearchSpace, folder: Path, error: OutOfMemoryError) -> str:
    """Return the message about an evaluation that took more memory than there is."""
    return (
        f"out of memory on {error.device}: evaluating {_described(space, error)}; go on from the last "
        f"checkpoint: {_resume(folder)}{error.advice('evaluation.batch-size')}"
    )


def _resume(folder: Path) -> str:
    return command("train-supernet", resume=folder)


def _described(space: SearchSpace, error: OutOfMemoryError) -> str:
    entry = make_entry(space, error.architecture)
    costs = f"{format_quantity(entry.macs)} MACs and {format_quantity(entry.params)} parameters"
    return f"the network of {costs} at batch {error.batch_size}"
