"""Federated fine-tuning of one subnet: plain federated averaging on its slices of the supernet."""

import dataclasses
from collections.abc import Iterator, Sequence

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.networks.weights import Tensors, views
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.weighted_average import WeightedAverage
from fedpareto.training.engines.protocol import Engine
from fedpareto.training.messages import Failure, Task, check_update
from fedpareto.training.methods.schedules import learning_rate
from fedpareto.training.randomness import derive_seed


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """Settings of the fine-tuning of a subnet.

    Attributes:
        epochs: number of rounds, in each of which every client trains one local epoch.
        lr: learning rate of the first round; it falls on a cosine.
        clients: clients that train.
        seed: seed of the run.
    """

    epochs: int
    lr: float
    clients: Sequence[int]
    seed: int


def fine_tune(
    space: SearchSpace,
    tensors: Tensors,
    architecture: Architecture,
    engine: Engine,
    tuning: FineTuning,
    listener: ProgressListener = SILENT,
) -> None:
    """Train the slices of ``tensors`` that ``architecture`` owns, in place; the rest keeps its bytes.

    Clients weigh as much as they have images (FedAvg, McMahan et al. 2017); one that fails is left out of its round.

    Raises:
        UserError: all clients of a round failed.
        OutOfMemoryError: the subnet and its batch do not fit.
    """
    fold, clients = WeightedAverage(space, tensors), tuning.clients
    for epoch in range(tuning.epochs):
        rate = learning_rate("cosine", tuning.lr, epoch, tuning.epochs)
        sliced = views(space, tensors, architecture)

        def tasks(epoch: int = epoch, rate: float = rate, sliced: Tensors = sliced) -> Iterator[Task]:
            for client in clients:
                seed = derive_seed(tuning.seed, "fine-tune", epoch, client)
                yield Task(epoch + 1, client, architecture, sliced, 1, rate, seed)

        failure: Failure | None = None
        for done, answer in enumerate(engine.run(tasks()), 1):
            problem = answer if isinstance(answer, Failure) else check_update(answer)
            failure = failure or problem
            if problem is None and not isinstance(answer, Failure):
                fold.add(architecture, answer.tensors, answer.examples)
            listener.report("fine-tuning", epoch * len(clients) + done, tuning.epochs * len(clients))
        if not fold.updates:
            raise UserError(_all_failed(failure, tuning.lr))
        fold.write_mean(tensors)


def _all_failed(failure: Failure | None, lr: float) -> str:
    reason = f" (client {failure.task.client}: {failure.reason})" if failure else ""
    diverged = failure is not None and failure.kind == "non-finite"
    advice = (
        f"use a lower {option('finetune-lr')} (now {lr:g})" if diverged else "search again when they are able to train"
    )
    return f"all clients failed in fine-tuning{reason}; {advice}"
