"""One method's run in the benchmark of a GPU: for a time, for a compute, or for a few rounds that are timed."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from gpu_federation import Federated
from time_share import Until, cut_after

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.evaluation import CheckpointConfig
from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.engines.protocol import Stopped, never
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.execution.profile import Profile
from fedpareto.training.methods.registry import make_method
from fedpareto.training.rounds.loop import train
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.progress import extent
from fedpareto.training.runs.state import Counts, RunState
from fedpareto.training.trackers.records import LostRound, RoundRecord

#: Plan of a run from here on: its configuration, the rounds so far and the seconds that are left give another one.
Plan = Callable[[RunConfig, Sequence[RoundRecord], float], RunConfig]

#: Points of a method's curve, about.
POINTS = 8

#: It is planned anew after the first round, and whenever there are so many times as many.
_NEXT_PLAN = 1.4

#: Of the time that is left so much is planned with: a last round that takes longer is lost.
_PLANNED_SHARE = 0.95

#: Rounds that tell what a round takes, at least.
_LEAST_RECORDS = 3

#: More MACs, and more rounds, than there are.
_UNKNOWN, _MANY_ROUNDS = 10**18, 100_000


@dataclasses.dataclass(frozen=True)
class Contender:
    """A method that is to be trained.

    Attributes:
        label: what the study calls it.
        config: of its run; how many rounds it has, or what it may compute, is planned as it goes.
        engine: trains its clients.
    """

    label: str
    config: RunConfig
    engine: InProcessEngine


class Diary:
    """A tracker that remembers the rounds, and when each was done."""

    def __init__(self) -> None:
        self.records: list[RoundRecord] = []
        self.times: list[float] = []

    @property
    def whole(self) -> int:
        """How many rounds are done with all that was due in them."""
        return sum(not record.owed for record in self.records)

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Another client has answered."""

    def round_done(self, record: RoundRecord) -> None:
        """Remember a round."""
        # The round of an evaluation that was owed is told of twice.
        if self.records and self.records[-1].round == record.round:
            self.records.pop()
            self.times.pop()
        self.records.append(record)
        self.times.append(time.monotonic())

    def round_lost(self, record: LostRound) -> None:
        """A round was not merged."""

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """A checkpoint was written."""

    def close(self) -> None:
        """The run ended."""


class _LeftInTime:
    """Leaves the training of clients, and evaluations, when the time is used up."""

    def __init__(self, until: Until) -> None:
        self._until = until

    def training(self) -> AbstractContextManager[None]:
        return cut_after(self._until.left, Stopped)

    def evaluating(self) -> AbstractContextManager[None]:
        return cut_after(self._until.left, Stopped)


def adapted(config: RunConfig, federated: Federated, profile: Profile) -> RunConfig:
    """Return a method's run on this device, with the clients that there are."""
    clients, count = config.clients, federated.clients
    return dataclasses.replace(
        config,
        precision=profile.precision,
        clients=dataclasses.replace(clients, count=count, per_round=min(clients.per_round, count)),
        evaluation=dataclasses.replace(config.evaluation, every=_MANY_ROUNDS),
        checkpoint=CheckpointConfig(every=_MANY_ROUNDS, keep=1),
        execution=profile.chosen(),
    )


def train_for_time(
    federated: Federated,
    contender: Contender,
    tensors: Tensors,
    diary: Diary,
    until: Until,
    cost: float | None,
    plan: Plan | None = None,
) -> None:
    """Train until the time is nearly used up; the learning rate, and what is drawn, are at their end by then.

    It is planned in MACs, and anew as training goes on, by what they took last: methods that draw larger networks in
    the end have longer rounds then. A MAC of these takes less time, so that the plan grows, if anything.

    Args:
        federated: what is trained, and on what.
        contender: the method.
        tensors: of the supernet, trained in place.
        diary: is told of the rounds.
        until: the end.
        cost: seconds a MAC takes, as far as is known before.
        plan: how it is planned anew; ``replanned`` when left out.

    Raises:
        UserError: too many clients failed, or there is not memory enough.
    """
    compute = _UNKNOWN if cost is None else int(_PLANNED_SHARE * until.left / cost)
    config, state = _limited(contender.config, max(1, compute), _MANY_ROUNDS), _start(federated)
    planned = 1
    with tempfile.TemporaryDirectory() as folder:
        # Whoever stops to plan makes no evaluation that is due then: it is made up for by the next call.
        while state.owed is not None or not extent(config, state).finished:

            def should_stop(last: int = planned) -> bool:
                return diary.whole + 1 >= last

            run = _run(federated, contender, config, Path(folder), diary, until, should_stop)
            state = train(run, state, Models(tensors))
            if state.round < planned:
                return
            planned = max(planned + 1, int(planned * _NEXT_PLAN))
            if not extent(config, state).finished:
                config = (plan or replanned)(config, diary.records, until.left)


def train_for_compute(
    federated: Federated, contender: Contender, tensors: Tensors, diary: Diary, until: Until, compute: int, every: int
) -> None:
    """Train until clients have computed so many MACs, or the time is used up; evaluate ``every`` so many rounds.

    As ``train_for_time`` otherwise.
    """
    config = _limited(contender.config, compute, every)
    with tempfile.TemporaryDirectory() as folder:
        run = _run(federated, contender, config, Path(folder), diary, until)
        train(run, _start(federated), Models(tensors))


def piloted(
    federated: Federated, contender: Contender, tensors: Tensors, rounds: int, until: Until
) -> Sequence[RoundRecord]:
    """Return records of so many rounds from the middle of a run, fewer where there is no time.

    What is drawn may depend on how far a run is, and a MAC of a small network takes longer. As ``train_for_time``
    otherwise.
    """
    diary, middle = Diary(), dataclasses.replace(_start(federated), round=_MANY_ROUNDS // 2)
    config = dataclasses.replace(contender.config, rounds=_MANY_ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        run = _run(federated, contender, config, Path(folder), diary, until, lambda: len(diary.records) + 1 >= rounds)
        train(run, middle, Models(tensors))
    return diary.records


def _start(federated: Federated) -> RunState:
    return RunState(0, Counts.zero(federated.clients), (0,) * len(federated.entries))


def _limited(config: RunConfig, compute: int, every: int) -> RunConfig:
    evaluation = dataclasses.replace(config.evaluation, every=every)
    return dataclasses.replace(config, compute=str(compute), evaluation=evaluation)


def replanned(config: RunConfig, records: Sequence[RoundRecord], left: float) -> RunConfig:
    """Return the run with the compute that its clients have time for: what they had, and ``left`` seconds of more.

    A third of the rounds tells what those to come take, the last one: what was before has built networks.
    """
    last = records[-max(_LEAST_RECORDS, len(records) // 3) :]
    seconds, compute = sum((record.seconds or 0.0) + record.evaluation_seconds for record in last), _compute(last)
    more = int(_PLANNED_SHARE * max(0.0, left) * compute / max(seconds, 1e-9))
    rounds = len(records) + more * len(last) // compute
    return _limited(config, _compute(records) + more, max(1, rounds // POINTS))


def _compute(records: Sequence[RoundRecord]) -> int:
    return sum(record.compute for record in records)


def _run(
    federated: Federated,
    contender: Contender,
    config: RunConfig,
    folder: Path,
    diary: Diary,
    until: Until,
    should_stop: Callable[[], bool] = never,
) -> Run:
    """Return a run that is left when the time is used up."""
    return Run(
        folder=folder,
        config=config,
        config_mapping=config_to_mapping(config),
        space=federated.space,
        entries=federated.entries,
        method=make_method(federated.ground(config)),
        engine=contender.engine,
        evaluator=federated.validation,
        tracker=diary,
        should_stop=should_stop,
        interruptible=_LeftInTime(until),
    )
