"""Federated training loop: rounds of draw, assign, train, fold, merge, evaluate, record, checkpoint."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Generator, Sequence

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.aggregation.protocol import new_aggregator
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.aggregation.update_bounds import UpdateBounds
from fedpareto.training.engines.protocol import Stopped
from fedpareto.training.evaluation.evaluator import Evaluation
from fedpareto.training.messages import Failure, Update, tensor_bytes
from fedpareto.training.privacy.accountant import guarantee
from fedpareto.training.rounds.asking import answers_of
from fedpareto.training.rounds.attempt import Attempt, attempted
from fedpareto.training.rounds.budget import has_room, run_ends
from fedpareto.training.rounds.checkpoints import RoundCheckpoints
from fedpareto.training.rounds.evaluation import after_evaluation, evaluate, evaluation_due, owed_record
from fedpareto.training.rounds.last_round import shortened
from fedpareto.training.rounds.merge_check import MergeCheck
from fedpareto.training.rounds.merging import BudgetError, after_merge, most_examples
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.progress import extent
from fedpareto.training.runs.state import RunState
from fedpareto.training.trackers.records import RoundRecord, evaluated, make_record
from fedpareto.training.trackers.withheld import planned_traffic, public_record


def train(run: Run, state: RunState, models: Models) -> RunState:
    """Train ``models``, in place, from ``state`` until the run is finished or is asked to stop; return the state then.

    Raises:
        UserError: too many clients of a round failed, what they merge into is spoiled, or a file cannot be written;
            the last checkpoint is whole.
    """
    return RoundLoop(run, state, models).run()


class RoundLoop:
    """Loop over the rounds of one run, from a state on.

    Args:
        run: parts of the run.
        state: state of the run, which it carries from one round to the next.
        models: weights of the run, which are trained in place.
    """

    def __init__(self, run: Run, state: RunState, models: Models) -> None:
        self._run, self._state, self._models = run, state, models
        self._aggregator = new_aggregator(run.config, run.space, models.supernet)
        self._checkpoints = RoundCheckpoints(run)
        self._check = MergeCheck(run, self._checkpoints)
        self._stopping = False
        self._started = time.perf_counter()

    def run(self) -> RunState:
        """Train until the run is finished or is asked to stop; return the state then.

        Raises:
            UserError: too many clients of a round failed, what they merge into is spoiled, or a file cannot be
                written; the last checkpoint is whole.
        """
        self._sync_branches()
        with self._checkpoints:
            if self._state.owed is not None:
                # The run was stopped before the evaluation of its last round.
                self._record(owed_record(self._run, self._state), self._evaluate())
                self._checkpoint(wanted=True)
            while not self._ended:
                # A stop at once leaves the inner block, and with it the round.
                with (
                    attempted(self._run, self._checkpoints, self._state, self._models) as attempt,
                    self._run.interruptible.training(),
                ):
                    self._make(attempt)
                if attempt.stopped or attempt.results is None:
                    self._checkpoints.keep(self._state, self._models)
                    break
                record = self._merge(attempt.results)
                self._record(record, self._evaluate())
                # After the record: a killed process repeats rounds, it never skips one.
                self._checkpoint(wanted=self._stopping)
        return self._state

    @property
    def _ended(self) -> bool:
        run = self._run
        return self._stopping or run_ends(run.config, run.method, run.ledger, self._state)

    def _make(self, attempt: Attempt) -> None:
        """Make an attempt at the next round, unless the budget of privacy has no room for it."""
        plan = self._assign(self._draw())
        if not has_room(self._run.config, self._run.ledger, plan.weights, plan.number):
            # Nobody is asked for what could not be released.
            return
        attempt.results = self._results(plan)
        with contextlib.closing(self._train(attempt.results)) as answers:
            for answer in answers:
                self._fold(attempt.results, answer)

    def _draw(self) -> Sequence[int]:
        """Available clients, which the method draws the round's clients from; waits for them."""
        return self._run.engine.available()

    def _assign(self, available: Sequence[int]) -> RoundPlan:
        """Plan of the round: which client trains which network. It takes no more compute than the run has left."""
        run, config = self._run, self._run.config
        plan = run.method.assign(self._state, available)
        if config.compute is None:
            return plan
        return shortened(plan, config, run.space, extent(config, self._state), run.engine.examples)

    def _results(self, plan: RoundPlan) -> RoundResults:
        """Results of the round, without any answer yet."""
        run, names = self._run, set(plan.branches.values())
        branches = {name: new_aggregator(run.config, run.space, self._models.tensors(name)) for name in names}
        clip = run.config.privacy.clip
        # Robust rules weigh all alike, and so does whatever else the method takes from the answers.
        by_examples = run.method.weight_by_examples and run.config.server.weighs_clients
        # The account of a private run is of updates that do not depend on each other; the clip bounds them.
        factor = 0.0 if clip else run.config.server.outlier_factor
        return RoundResults(
            plan,
            self._aggregator,
            by_examples=by_examples,
            most_examples=most_examples(run, plan) if by_examples else math.inf,
            clip=clip,
            branches=branches,
            bounds=UpdateBounds(run.config.client, factor, self._state.past),
        )

    def _train(self, results: RoundResults) -> Generator[Update | Failure, None, None]:
        """Yield the answers of the round's clients, as they come."""
        return answers_of(self._run, self._models, results)

    def _fold(self, results: RoundResults, answer: Update | Failure) -> None:
        """Add an answer to the results, or count it as a failure; its tensors are not needed any more then."""
        results.take(answer)

    def _merge(self, results: RoundResults) -> RoundRecord:
        """Move the models and the state by the round; return its record, which has no evaluation yet.

        Raises:
            UserError: it may not be released, or not be accounted for; the round before it is kept.
        """
        try:
            self._check.merge(self._state, results, self._models)
        except BudgetError as error:
            kept = self._checkpoints.keep(self._state, self._models)
            raise UserError(f"{error}; {kept}; resume with a larger --privacy.epsilon, or use it as it is") from error
        seconds = time.perf_counter() - self._started
        self._state = after_merge(self._run, self._state, results)
        record = make_record(
            results,
            self._state.trained,
            bytes_whole=tensor_bytes(self._models.supernet) * len(results.plan.assigned),
            seconds=seconds,
            guarantee=guarantee(self._run.config.privacy, self._state.exposure),
        )
        if not self._run.config.privacy.withheld:
            return record
        return public_record(record, results, planned_traffic(results.plan, self._run.config, self._run.space))

    def _evaluate(self) -> Evaluation | None:
        """Evaluate the models after the round as far as that is due; return None if it is due and owed.

        A user who wants to stop waits for no evaluation: it is made up for when the run is resumed.
        """
        self._stopping = self._run.should_stop()
        if not evaluation_due(self._run, self._state):
            return Evaluation()
        try:
            with self._run.interruptible.evaluating():
                if self._stopping:
                    raise Stopped
                return evaluate(self._run, self._state, self._models)
        except Stopped:
            self._stopping = True
            return None

    def _record(self, record: RoundRecord, evaluation: Evaluation | None) -> None:
        """Tell the tracker of the merged round, and take over the method's state and models after it."""
        run = self._run
        if evaluation is None:
            run.tracker.round_done(dataclasses.replace(record, owed=True))
            self._state = dataclasses.replace(self._state, owed=json.dumps(record.to_json()))
            return
        state = after_evaluation(self._state, evaluation, run.config.evaluation.metric)
        decision = run.method.after_evaluation(state, evaluation.tested)
        self._state = decision.state
        self._sync_branches(decision.adopted)
        run.tracker.round_done(evaluated(record, evaluation, done=extent(run.config, self._state).share))

    def _checkpoint(self, *, wanted: bool) -> None:
        """Begin to write the round's checkpoint, if one is due or wanted; the next round's time runs from here."""
        self._started = time.perf_counter()
        self._checkpoints.start(self._state, self._models, wanted=wanted)

    def _sync_branches(self, adopted: str | None = None) -> None:
        """Copy the branch ``adopted`` into the supernet, if any, then keep the branches that the method wants."""
        wanted = {name: entry.architecture for name, entry in self._run.method.branches(self._state).items()}
        self._models.sync_branches(self._run.space, adopted, wanted)
