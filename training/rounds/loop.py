"""The federated training loop: rounds of draw, assign, train, merge, evaluate, record, checkpoint."""

import contextlib
import dataclasses
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.storage.files import write_recorded
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.weights import Tensors, views
from fedpareto.training.aggregation.answers import RoundPlan, RoundResults
from fedpareto.training.aggregation.fold import ServerStep, WeightedAverage
from fedpareto.training.clients.cuda_graphs import RecordingError
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.protocol import Engine, EngineError, Stopped, never
from fedpareto.training.evaluation.evaluator import Evaluation, Probe, ProbeEvaluator, mean_accuracy
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.messages import Failure, Task, Update, tensor_bytes
from fedpareto.training.methods.protocol import Method
from fedpareto.training.privacy.accountant import exposure_after, guarantee
from fedpareto.training.privacy.mechanism import Noise
from fedpareto.training.rounds.failures import go_on, memory_in_evaluation, memory_in_training, too_few_answers
from fedpareto.training.rounds.interrupt import UNINTERRUPTED, Interruptible
from fedpareto.training.rounds.last_round import shortened, task_seed
from fedpareto.training.runs.checkpoint import checkpoint_folder, save_checkpoint
from fedpareto.training.runs.checkpoint_writer import CheckpointWriter
from fedpareto.training.runs.models import Branch, Models
from fedpareto.training.runs.progress import extent
from fedpareto.training.runs.state import Best, RunState
from fedpareto.training.trackers.protocol import Tracker
from fedpareto.training.trackers.records import RoundRecord, evaluated, lost_round, make_record, record_from_json


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run works with; none of it changes from round to round.

    Attributes:
        folder: where it is written.
        config: the configuration.
        config_mapping: the same as plain values, for checkpoints.
        space: the search space.
        entries: the cache's entries by ascending MACs.
        method: decides whom a round asks for what.
        engine: trains the clients.
        evaluator: evaluates the probes.
        tracker: is told of everything.
        should_stop: asked once a round is merged, and before clients are waited for or asked again.
        interruptible: which parts of a round may be left when the user asks to stop.
        quorum: share of a round's clients whose answers make a round; one answer always does when 0.
        retries: times those that failed are asked again when there are fewer.
        noise_key: secret that the noise of a private run is drawn with.

    Raises:
        ValueError: a run with noise has no key.
    """

    folder: Path
    config: RunConfig
    config_mapping: Mapping[str, Any]
    space: SearchSpace
    entries: Sequence[CacheEntry]
    method: Method
    engine: Engine
    evaluator: ProbeEvaluator
    tracker: Tracker
    should_stop: Callable[[], bool] = never
    interruptible: Interruptible = UNINTERRUPTED
    quorum: float = 0.0
    retries: int = 0
    noise_key: int | None = None

    def __post_init__(self) -> None:
        if self.config.privacy.noise and self.noise_key is None:
            raise ValueError("a run with noise needs a key to draw it with")


def train(
    run: Run,
    state: RunState,
    tensors: Tensors,
    velocity: Tensors | None,
    branches: Mapping[str, Branch] | None = None,
) -> RunState:
    """Train until the run is finished or is asked to stop; return the state then.

    ``tensors`` (and ``velocity``, the server's momentum, and those of ``branches`` beside the supernet) are updated
    in place.

    Raises:
        UserError: too many clients of a round failed, or a file cannot be written; the last checkpoint is whole.
    """
    started = time.perf_counter()
    fold, models = WeightedAverage(run.space, tensors), Models(tensors, velocity, dict(branches or {}))
    _settle(run, state, models)
    stop = False
    with CheckpointWriter(run.folder, run.config_mapping, run.config.checkpoint.keep, run.tracker) as writer:
        if state.owed is not None:
            # The run was stopped before the evaluation of its last round.
            state, stop = _concluded(run, state, models, _owed_record(run, state))
            _checkpoint(run, writer, state, models, wanted=True)
        while not (stop or extent(run.config, state).finished):
            answers: RoundResults | None = None
            try:
                with run.interruptible.training():
                    # 1. Draw the clients and give each an architecture.
                    plan = _planned(run, state)
                    answers = _answers(run, plan, fold, models)
                    # 2. Train them, folding every update in as it arrives.
                    _collect(run, answers, models)
            except OutOfMemoryError as error:
                writer.finish()
                kept, workers = _kept(run, state, models), run.config.execution.workers or 1
                raise UserError(memory_in_training(run.space, run.folder, error, workers, kept)) from error
            except (EngineError, RecordingError) as error:
                writer.finish()
                _lose(run, answers)
                raise UserError(f"{error}; {_kept(run, state, models)}; {go_on(run.folder)}") from error
            except Stopped:
                writer.finish()
                _lose(run, answers)
                _kept(run, state, models)
                break
            # The last checkpoint reads the tensors that are about to change.
            writer.finish()
            if len(answers.accepted) < _quorum(run, plan):
                _lose(run, answers)
                kept, lr = _kept(run, state, models), run.config.client.lr
                raise UserError(too_few_answers(run.folder, answers, run.retries, lr, kept))
            # 3. Merge.
            _merge(run, answers, models)
            seconds = time.perf_counter() - started
            state = _advance(run, state, answers)
            record = make_record(
                answers,
                state.trained,
                bytes_whole=tensor_bytes(tensors) * len(plan.assigned),
                seconds=seconds,
                guarantee=guarantee(run.config.privacy, state.exposure),
            )
            # 4. Evaluate when it is due, and record.
            state, stop = _concluded(run, state, models, record)
            # 5. Checkpoint, after the record: a killed process repeats rounds, it never skips one.
            started = time.perf_counter()
            _checkpoint(run, writer, state, models, wanted=stop)
    return state


def _owed_record(run: Run, state: RunState) -> RoundRecord:
    try:
        return record_from_json(parse_json(state.owed or "", "its unfinished record", ValueError))
    except ValueError as error:
        folder = checkpoint_folder(run.folder, state.round)
        raise UserError(
            f"checkpoint {folder} is damaged ({error}); remove that folder to resume from the checkpoint before it"
        ) from error


def _concluded(run: Run, state: RunState, models: Models, record: RoundRecord) -> tuple[RunState, bool]:
    """Evaluate a merged round when that is due, and record it; return the state then, and whether to stop.

    Whoever wants to stop waits for no evaluation: one that is due is owed, and made up for when the run is resumed.
    """
    evaluation, seconds, stop = Evaluation(), 0.0, run.should_stop()
    due, wanted = _probes_due(run, state), run.method.networks_to_evaluate(state)
    if due or wanted:
        try:
            with run.interruptible.evaluating():
                if stop:
                    raise Stopped
                evaluation, seconds = _evaluate(run, state, models, wanted, due=due)
        except Stopped:
            run.tracker.round_done(dataclasses.replace(record, owed=True))
            return dataclasses.replace(state, owed=json.dumps(record.to_json())), True
    state = _measured(dataclasses.replace(state, owed=None), evaluation)
    state = _decided(run, state, models, evaluation.tested)
    done = extent(run.config, state).share
    run.tracker.round_done(evaluated(record, evaluation, seconds, done=done))
    return state, stop


def _settle(run: Run, state: RunState, models: Models, adopted: str | None = None) -> None:
    wanted = {name: entry.architecture for name, entry in run.method.branches(state).items()}
    models.sync_branches(run.space, adopted, wanted)


def _planned(run: Run, state: RunState) -> RoundPlan:
    """Return the plan of the round after ``state``, which takes no more compute than the run has left."""
    plan = run.method.assign(state, run.engine.available())
    if run.config.compute is None:
        return plan
    return shortened(plan, run.config, run.space, extent(run.config, state), run.engine.examples)


def _answers(run: Run, plan: RoundPlan, fold: WeightedAverage, models: Models) -> RoundResults:
    folds = {name: WeightedAverage(run.space, models.tensors(name)) for name in set(plan.branches.values())}
    clip = run.config.privacy.clip
    return RoundResults(plan, fold, by_examples=run.method.weight_by_examples, clip=clip, branches=folds)


def _collect(run: Run, answers: RoundResults, models: Models) -> None:
    """Ask the drawn clients; while too few have answered, ask those that failed again.

    Raises:
        Stopped: too few have answered, and the user does not want to wait any more.
    """
    plan = answers.plan
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
                answers.take(answer)
                run.tracker.client_done(plan.number, done, len(plan.assigned))
        if len(answers.accepted) >= _quorum(run, plan):
            break
        missing = [(client, entry) for client, entry in missing if client not in answers.accepted]


@contextlib.contextmanager
def _closed(answers: Iterator[Update | Failure]) -> Iterator[Iterator[Update | Failure]]:
    """End an engine's work with the block, not when its frames happen to be collected."""
    try:
        yield answers
    finally:
        if isinstance(answers, Generator):
            answers.close()


def _lose(run: Run, answers: RoundResults | None) -> None:
    """Tell of a round that is not merged, as far as any client was asked."""
    if answers is not None and answers.failures:
        run.tracker.round_lost(lost_round(answers))


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


def _quorum(run: Run, plan: RoundPlan) -> int:
    """Return how many answers make the round."""
    return max(1, math.ceil(run.quorum * len(plan.assigned)))


def _merge(run: Run, answers: RoundResults, models: Models) -> None:
    privacy, plan, fold = run.config.privacy, answers.plan, answers.fold
    server = ServerStep(run.config.server.momentum, run.config.server.lr)
    for name, branch in answers.branches.items():
        branch.write_mean(models.tensors(name))
    if not privacy.clip:
        fold.write_mean(models.supernet, models.velocity, server)
        return
    # The most that one client can change the weighted sum by is the clip times the largest weight.
    deviation = privacy.noise * privacy.clip * max(plan.weights.values())
    noise = None if run.noise_key is None else Noise(run.noise_key, plan.number, deviation)
    fold.apply_step(models.supernet, models.velocity, server, noise)


def _probes_due(run: Run, state: RunState) -> bool:
    return state.round % run.config.evaluation.every == 0 or extent(run.config, state).finished


def _evaluate(
    run: Run, state: RunState, models: Models, wanted: Mapping[str, CacheEntry], *, due: bool
) -> tuple[Evaluation, float]:
    """Return the probes' accuracies when they are due, those the method has wanted, and the seconds of both."""
    started = time.perf_counter()
    evaluation = _probe(run, models.supernet, run.method.probes(state)) if due else Evaluation()
    tested = {name: mean_accuracy(_probe(run, models.tensors(name), [entry]).probes) for name, entry in wanted.items()}
    return dataclasses.replace(evaluation, tested=tested), time.perf_counter() - started


def _probe(run: Run, tensors: Tensors, entries: Sequence[CacheEntry]) -> Evaluation:
    try:
        return run.evaluator.probe(tensors, entries)
    except OutOfMemoryError as error:
        raise UserError(memory_in_evaluation(run.space, run.folder, error)) from error


def _advance(run: Run, state: RunState, answers: RoundResults) -> RunState:
    """Return the state after a merged round; clients that failed count as not having trained."""
    plan, clip = answers.plan, run.config.privacy.clip
    times = Counter(plan.assigned[client].architecture for client in answers.accepted)
    after = dataclasses.replace(
        state,
        round=plan.number,
        trained=tuple(
            count + times[entry.architecture] for count, entry in zip(state.trained, run.entries, strict=True)
        ),
        failures=dict(Counter(state.failures) + answers.failed_by_kind),
        bytes_up=state.bytes_up + answers.bytes_up,
        bytes_down=state.bytes_down + answers.bytes_down,
        exposure=exposure_after(state.exposure, plan.weights, run.config.clients.count) if clip else (),
        compute=state.compute + answers.compute,
    )
    return run.method.after_round(after, answers)


def _measured(state: RunState, evaluation: Evaluation) -> RunState:
    """Return the state after an evaluation."""
    return dataclasses.replace(
        state,
        failures=dict(Counter(state.failures) + Counter(failure.kind for failure in evaluation.failures)),
        best=_better(state.best, state.round, evaluation.probes),
        bytes_up=state.bytes_up + evaluation.bytes_up,
        bytes_down=state.bytes_down + evaluation.bytes_down,
    )


def _decided(run: Run, state: RunState, models: Models, tested: Mapping[str, float]) -> RunState:
    """Return the state after what the method concludes from its tests; the models are then what it wants."""
    state, adopted = run.method.after_evaluation(state, tested)
    _settle(run, state, models, adopted)
    return state


def _better(best: Best | None, number: int, probes: Sequence[Probe]) -> Best | None:
    if not probes:
        return best
    accuracy = mean_accuracy(probes)
    return Best(number, accuracy) if best is None or accuracy > best.accuracy else best


def _checkpoint(run: Run, writer: CheckpointWriter, state: RunState, models: Models, *, wanted: bool) -> None:
    last = extent(run.config, state).finished
    best = state.best is not None and state.best.round == state.round
    if last or wanted or best or state.round % run.config.checkpoint.every == 0:
        _write_files(run, state)
        aliases = [name for name, yes in (("best", best), ("final", last and state.owed is None)) if yes]
        writer.start(state, models.supernet, models.velocity, aliases, models.branches)


def _write_files(run: Run, state: RunState) -> None:
    """Write what the method has to say of a checkpoint, before it: whoever finds a finished run finds that too."""
    for name, text in run.method.files(state).items():
        write_recorded(run.folder / name, text)


def _kept(run: Run, state: RunState, models: Models) -> str:
    """Make sure that the last whole round has a checkpoint; return the words that say where."""
    folder = checkpoint_folder(run.folder, state.round)
    if not exists(folder):
        _write_files(run, state)
        save_checkpoint(run.folder, state, run.config_mapping, models.supernet, models.velocity, models.branches)
    return f"round {state.round} is kept in {folder}"
