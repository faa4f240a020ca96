"""The federated training loop: rounds of draw, assign, train, merge, evaluate, record, checkpoint."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.entries import Entry
from supernet.architecture import Architecture
from supernet.errors import UserError
from supernet.space import SearchSpace
from supernet.weights import Tensors, extract
from training.aggregation import Fold, maxnet_weights
from training.checkpoint import Best, RunState, checkpoint_folder, prune_checkpoints, save_checkpoint
from training.clients import draw_clients
from training.config import RunConfig
from training.curriculum import Assigner
from training.engines.protocol import Engine
from training.evaluation import Evaluator, Probe
from training.messages import Failure, Task, Update, check_update, tensor_bytes
from training.randomness import derive_seed, numpy_stream
from training.records import RoundRecord
from training.schedules import largest_weight, learning_rate
from training.trackers.protocol import Tracker


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run works with; none of it changes from round to round.

    Attributes:
        folder: where it is written.
        config: the configuration.
        config_mapping: the same as plain values, for checkpoints.
        space: the search space.
        entries: the cache's entries by ascending MACs.
        probes: entries that are evaluated.
        assigner: the curriculum.
        engine: trains the clients.
        evaluator: evaluates the probes.
        tracker: is told of everything.
        should_stop: asked at the edge of every round.
    """

    folder: Path
    config: RunConfig
    config_mapping: Mapping[str, Any]
    space: SearchSpace
    entries: Sequence[Entry]
    probes: Sequence[Entry]
    assigner: Assigner
    engine: Engine
    evaluator: Evaluator
    tracker: Tracker
    should_stop: Callable[[], bool] = lambda: False


@dataclasses.dataclass
class Answers:
    """What came back in one round, added up as it arrived."""

    fold: Fold
    accepted: list[tuple[int, Architecture, int, float]] = dataclasses.field(default_factory=list)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    sgd_seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def train_loss(self) -> float:
        """Mean loss over the accepted clients, weighted by examples."""
        examples = sum(count for _, _, count, _ in self.accepted)
        return sum(count * loss for _, _, count, loss in self.accepted) / examples


def train(run: Run, state: RunState, tensors: Tensors, velocity: Tensors | None) -> RunState:
    """Train until the last round or until the run is asked to stop; return the state then.

    ``tensors`` (and ``velocity``, the server's momentum) are updated in place.

    Raises:
        UserError: every client of a round failed, or a file cannot be written; the last checkpoint is whole.
    """
    started = time.perf_counter()
    while state.round < run.config.rounds:
        number = state.round + 1
        # 1. Draw the clients and give each an architecture.
        drawn = draw_clients(run.config.clients, numpy_stream(run.config.seed, "clients", number))
        assigned = run.assigner.assign(drawn, state.counts, numpy_stream(run.config.seed, "curriculum", number))
        # 2. Train them, folding every update in as it arrives.
        answers = _collect(run, number, drawn, assigned, tensors)
        if not answers.accepted:
            raise UserError(_all_failed(run, state, tensors, velocity, answers))
        # 3. Merge.
        answers.fold.merge_into(tensors, velocity, run.config.server.momentum)
        seconds = time.perf_counter() - started
        # 4. Evaluate when it is due.
        probes, evaluation_seconds = _evaluate(run, number, tensors)
        # 5. Record, then checkpoint: a killed process repeats rounds, it never skips one.
        state = _advance(run, state, number, drawn, assigned, answers, probes)
        record = _record(run, state, drawn, assigned, answers, probes, seconds, evaluation_seconds)
        run.tracker.round_done(record)
        started = time.perf_counter()
        stop = run.should_stop()
        _checkpoint(run, state, tensors, velocity, stop=stop)
        if stop:
            break
    return state


def _collect(run: Run, number: int, drawn: Sequence[int], assigned: Sequence[Entry], tensors: Tensors) -> Answers:
    config = run.config
    beta = _beta(run, number)
    weights = dict(zip(drawn, maxnet_weights([entry.macs for entry in assigned], beta), strict=True))
    answers = Answers(Fold(run.space, tensors))
    rate = learning_rate(config.client.lr_schedule, config.client.lr, number - 1, config.rounds)

    def tasks() -> Iterator[Task]:
        for client, entry in zip(drawn, assigned, strict=True):
            sliced = extract(run.space, tensors, entry.architecture)
            answers.bytes_down += tensor_bytes(sliced)
            seed = derive_seed(config.seed, "client", number, client)
            yield Task(number, client, entry.architecture, sliced, config.client.epochs, rate, seed)

    for done, answer in enumerate(run.engine.run(tasks()), 1):
        _take(run, answers, answer, weights)
        run.tracker.client_done(number, done, len(drawn))
    return answers


def _take(run: Run, answers: Answers, answer: Update | Failure, weights: Mapping[int, float]) -> None:
    failure = answer if isinstance(answer, Failure) else check_update(answer)
    if isinstance(answer, Update):
        answers.bytes_up += tensor_bytes(answer.tensors)
        answers.sgd_seconds += answer.sgd_seconds
    if failure is not None:
        answers.failures.append(failure)
        return
    assert isinstance(answer, Update)  # noqa: S101 - for the type checker: what is no failure is an update
    weight = weights[answer.task.client] * (answer.examples if run.config.server.weight_by_examples else 1)
    answers.fold.add(answer.task.architecture, answer.tensors, weight)
    answers.accepted.append((answer.task.client, answer.task.architecture, answer.examples, answer.loss))


def _evaluate(run: Run, number: int, tensors: Tensors) -> tuple[tuple[Probe, ...], float]:
    if number % run.config.evaluation.every and number != run.config.rounds:
        return (), 0.0
    started = time.perf_counter()
    probes = tuple(run.evaluator.probe(tensors, run.probes))
    return probes, time.perf_counter() - started


def _advance(
    run: Run,
    state: RunState,
    number: int,
    drawn: Sequence[int],
    assigned: Sequence[Entry],
    answers: Answers,
    probes: Sequence[Probe],
) -> RunState:
    """Return the state after a round; clients that failed count as not having trained."""
    well = {client for client, *_ in answers.accepted}
    trained = [(client, entry) for client, entry in zip(drawn, assigned, strict=True) if client in well]
    positions = {entry.architecture: index for index, entry in enumerate(run.entries)}
    times = Counter(positions[entry.architecture] for _, entry in trained if entry.architecture in positions)
    best = state.best
    if probes:
        accuracy = sum(probe.accuracy for probe in probes) / len(probes)
        if best is None or accuracy > best.accuracy:
            best = Best(number, accuracy)
    failures = Counter(state.failures)
    failures.update(failure.kind for failure in answers.failures)
    return dataclasses.replace(
        state,
        round=number,
        counts=state.counts.after(
            [client for client, entry in trained if run.assigner.is_smallest(entry)],
            [client for client, entry in trained if run.assigner.is_largest(entry)],
        ),
        trained=tuple(count + times[index] for index, count in enumerate(state.trained)),
        failures=dict(failures),
        best=best,
        bytes_up=state.bytes_up + answers.bytes_up,
        bytes_down=state.bytes_down + answers.bytes_down,
    )


def _record(
    run: Run,
    state: RunState,
    drawn: Sequence[int],
    assigned: Sequence[Entry],
    answers: Answers,
    probes: tuple[Probe, ...],
    seconds: float,
    evaluation_seconds: float,
) -> RoundRecord:
    config = run.config
    outcome: dict[int, dict[str, Any]] = {
        client: {"examples": examples, "loss": loss} for client, _, examples, loss in answers.accepted
    }
    outcome |= {
        failure.task.client: {"failure": failure.kind, "reason": failure.reason} for failure in answers.failures
    }
    return RoundRecord(
        round=state.round,
        train_loss=answers.train_loss,
        lr=learning_rate(config.client.lr_schedule, config.client.lr, state.round - 1, config.rounds),
        beta=_beta(run, state.round),
        clients=tuple(
            {"client": client, "macs": entry.macs, **outcome.get(client, {})}
            for client, entry in zip(drawn, assigned, strict=True)
        ),
        failures=dict(Counter(failure.kind for failure in answers.failures)),
        bytes_up=answers.bytes_up,
        bytes_down=answers.bytes_down,
        seconds=seconds,
        sgd_seconds=answers.sgd_seconds,
        overhead_share=1 - answers.sgd_seconds / seconds,
        evaluation_seconds=evaluation_seconds,
        probes=probes,
        trained=state.trained,
    )


def _checkpoint(run: Run, state: RunState, tensors: Tensors, velocity: Tensors | None, *, stop: bool) -> None:
    last = state.round == run.config.rounds
    best = state.best is not None and state.best.round == state.round
    if not (last or stop or best or state.round % run.config.checkpoint.every == 0):
        return
    folder = save_checkpoint(run.folder, state, run.config_mapping, tensors, velocity)
    prune_checkpoints(run.folder, run.config.checkpoint.keep, state.best)
    if best or last:
        run.tracker.checkpoint(folder, [name for name, yes in (("best", best), ("final", last)) if yes])


def _all_failed(run: Run, state: RunState, tensors: Tensors, velocity: Tensors | None, answers: Answers) -> str:
    if not checkpoint_folder(run.folder, state.round).exists():
        save_checkpoint(run.folder, state, run.config_mapping, tensors, velocity)
    first = answers.failures[0]
    return (
        f"all {len(answers.failures)} clients of round {state.round + 1} failed (client {first.task.client}: "
        f"{first.reason}); round {state.round} is kept in {checkpoint_folder(run.folder, state.round)}; if training "
        f"diverged, start a new run with a lower --client.lr (now {run.config.client.lr})"
    )


def _beta(run: Run, number: int) -> float:
    return largest_weight(number - 1, run.config.rounds, run.config.clients.per_round, run.config.server.largest_weight)
