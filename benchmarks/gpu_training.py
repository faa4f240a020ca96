"""Methods trained one after another: the first for its share of the time, the others for as much compute."""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from gpu_federation import EVALUATION_SHARE, Federated, Images, federation
from gpu_method import POINTS, Contender, Diary, adapted, piloted, train_for_compute, train_for_time
from gpu_rates import Manner, set_kernels
from gpu_report import Accuracy, Point, Training
from gpu_study import Contest
from local_training import on_device
from time_share import Until, cut_after

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.clients.cuda_graphs import Recorder
from fedpareto.training.engines.protocol import Stopped
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.execution.profile import Profile
from fedpareto.training.trackers.records import RoundRecord

#: Rounds that tell how long a method takes for its compute, and the share of the time that those of all may take.
PILOT_ROUNDS, PILOT_SHARE = 3, 0.15

#: Of the time that the first method is due it has this share: the others may turn out slower than their first rounds.
FIRST_SHARE = 0.9

#: What a method is trained for: the compute of another, or its time, with what a MAC takes then, if that is known.
Aim = Training | float | None


def trained(
    contest: Contest,
    images: Images,
    device: torch.device,
    profile: Profile,
    recorder: Callable[[], Recorder] | None,
    until: Until,
) -> Iterator[Training]:
    """Train every method of a study, yield what each came to, the reference first; time that runs out cuts them short.

    The reference trains for the part of the time that it is due, by how long the methods take for their compute in a
    few rounds. Every other one has as much compute as that came to, and at most its part of the time that is left then.
    Where the reference fails the others are not trained.

    Raises:
        UserError: there are too few images.
    """
    set_kernels(Manner("ours", profile))
    federated = federation(contest, images, device)
    contenders = _contenders(contest, federated, profile, recorder)
    tensors = on_device(federated.initial(contest.config), device, profile)
    costs = measured_costs(federated, contenders, tensors, Until(time.monotonic() + PILOT_SHARE * until.left))
    if costs is None:
        # Clients of a round that was left may still be in their last step, in the memory of their engine.
        contenders = _contenders(contest, federated, profile, recorder)

    def train_one(contender: Contender, own: Until, aim: Aim) -> Training:
        return finding(federated, contender, profile, _copied(tensors), own, aim)

    yield from one_after_another(contenders, costs, until, train_one)


def one_after_another(
    contenders: list[Contender],
    costs: Sequence[float] | None,
    until: Until,
    train_one: Callable[[Contender, Until, Aim], Training],
) -> Iterator[Training]:
    """Train methods in turn, each for its part of the time; those that are done are taken out of ``contenders``.

    Args:
        contenders: the methods, the reference first.
        costs: seconds that a MAC of each takes, if that is known.
        until: the end of all.
        train_one: function that trains a method until its own end, with an aim as ``finding`` has it.
    """
    shares = costs or [1.0] * len(contenders)
    cost = costs[0] if costs else None
    first: Training | None = None
    while contenders:
        # What is trained leaves its engine, and the graphs in it, to be freed.
        contender, share = contenders.pop(0), shares[0] / sum(shares)
        shares = shares[1:]
        own = Until(time.monotonic() + until.left * share * (1.0 if first else FIRST_SHARE))
        found = train_one(contender, own, first or cost)
        yield found
        first = first or found
        if first.problem or not first.compute:
            return


def _contenders(
    contest: Contest, federated: Federated, profile: Profile, recorder: Callable[[], Recorder] | None
) -> list[Contender]:
    configs = {trial.label: adapted(trial.config, federated, profile) for trial in contest.trials}
    return [Contender(label, config, federated.engine(config, profile, recorder)) for label, config in configs.items()]


def measured_costs(
    federated: Federated, contenders: Sequence[Contender], tensors: Tensors, until: Until
) -> list[float] | None:
    """Return the seconds that a MAC of each method takes, in a round from the middle of a run; None if it is too slow.

    Nothing is kept of these rounds but the networks that the engines have built.
    """
    costs: list[float] = []
    for number, contender in enumerate(contenders):
        own = Until(time.monotonic() + until.left / (len(contenders) - number))
        try:
            records = piloted(federated, contender, _copied(tensors), PILOT_ROUNDS, own)
        except (UserError, OutOfMemoryError, RuntimeError):
            # It comes again where the method is trained, and is told of there.
            return None
        if len(records) < PILOT_ROUNDS:
            return None
        costs.append((records[-1].seconds or 0.0) / records[-1].compute)
    return costs


def finding(
    federated: Federated,
    contender: Contender,
    profile: Profile,
    tensors: Tensors,
    until: Until,
    aim: Aim,
) -> Training:
    """Train one method and test it, or say why that went wrong."""
    started, diary = time.monotonic(), Diary()
    problem, seconds, accuracies = None, 0.0, list[Accuracy]()
    try:
        training = Until(started + until.left * (1 - EVALUATION_SHARE))
        if isinstance(aim, Training):
            every = max(1, aim.rounds // POINTS)
            train_for_compute(federated, contender, tensors, diary, training, aim.compute, every)
        else:
            train_for_time(federated, contender, tensors, diary, training, aim)
        seconds = time.monotonic() - started
        if diary.records:
            accuracies = _accuracies(federated, tensors, until)
    except (UserError, OutOfMemoryError, RuntimeError) as error:
        seconds = time.monotonic() - started
        problem = (str(error).strip() or type(error).__name__).splitlines()[0]
    records = diary.records
    return Training(
        label=contender.label,
        seed=contender.config.seed,
        profile=str(profile),
        clients=federated.clients,
        per_round=contender.config.clients.per_round,
        rounds=len(records),
        compute=sum(record.compute for record in records),
        images=sum(client.get("examples", 0) for record in records for client in record.clients),
        seconds=seconds,
        outside_sgd=_outside(records),
        test_images=len(federated.test.held_out),
        curve=tuple(_curve(diary, started)),
        accuracies=tuple(accuracies),
        problem=problem,
    )


def _curve(diary: Diary, started: float) -> Iterator[Point]:
    compute = 0
    for record, moment in zip(diary.records, diary.times, strict=True):
        compute += record.compute
        if record.mean_accuracy is not None:
            yield Point(record.round, moment - started, compute, record.mean_accuracy)


def _outside(records: Sequence[RoundRecord]) -> float:
    seconds = sum(record.seconds or 0.0 for record in records)
    return 1 - sum(record.sgd_seconds or 0.0 for record in records) / seconds if seconds else 0.0


def _accuracies(federated: Federated, tensors: Tensors, until: Until) -> list[Accuracy]:
    """Return test accuracies at the budgets, of as many as there is time for."""
    found: list[Accuracy] = []
    for budget in federated.budgets:
        within = [entry for entry in federated.entries if entry.macs <= budget]
        if not within:
            continue
        try:
            with cut_after(until.left, Stopped):
                (probe,) = federated.test.probe(tensors, within[-1:]).probes
        except Stopped:
            break
        found.append(Accuracy(budget, probe.macs, probe.accuracy))
    return found


def _copied(tensors: Tensors) -> Tensors:
    return {name: tensor.clone() for name, tensor in tensors.items()}
