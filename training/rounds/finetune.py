"""Federated fine-tuning of one subnet: federated averaging, or the run's rule, on its slices of the supernet."""

import dataclasses
from collections.abc import Iterator, Sequence

from fedpareto.cache.entries import make_entry
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.networks.weights import Tensors, views
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.protocol import AggregatorFactory
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.aggregation.update_bounds import PastRound, UpdateBounds
from fedpareto.training.aggregation.weighted_average import WeightedAverage
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.engines.protocol import Engine
from fedpareto.training.messages import Failure, Task
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
        client: local training of the run's clients.
        outlier_factor: largest move of an update in those of the median client; 0 for no bound.
        aggregator: makes the aggregator of the clients' updates, the run's own.
        by_examples: whether clients weigh as much as they have images; they weigh alike under a robust rule.
    """

    epochs: int
    lr: float
    clients: Sequence[int]
    seed: int
    client: ClientConfig = dataclasses.field(default_factory=ClientConfig)
    outlier_factor: float = 0.0
    aggregator: AggregatorFactory = WeightedAverage
    by_examples: bool = True


def fine_tune(
    space: SearchSpace,
    tensors: Tensors,
    architecture: Architecture,
    engine: Engine,
    tuning: FineTuning,
    listener: ProgressListener = SILENT,
) -> None:
    """Train the slices of ``tensors`` that ``architecture`` owns, in place; the rest keeps its bytes.

    Clients weigh as much as they have images (FedAvg, McMahan et al. 2017), or alike under a robust rule; one that
    fails is left out of its round.

    Raises:
        UserError: all clients of a round failed.
        OutOfMemoryError: the subnet and its batch do not fit.
    """
    fold, entry, past = tuning.aggregator(space, tensors), make_entry(space, architecture), list[PastRound]()
    for epoch in range(tuning.epochs):
        rate = learning_rate("cosine", tuning.lr, epoch, tuning.epochs)
        sliced = views(space, tensors, architecture)

        def tasks(epoch: int = epoch, rate: float = rate, sliced: Tensors = sliced) -> Iterator[Task]:
            for client in tuning.clients:
                seed = derive_seed(tuning.seed, "fine-tune", epoch, client)
                yield Task(epoch + 1, client, architecture, sliced, 1, rate, seed)

        clients = len(tuning.clients)
        plan = RoundPlan(
            epoch + 1, rate, None, dict.fromkeys(tuning.clients, entry), dict.fromkeys(tuning.clients, 1.0)
        )
        bounds = UpdateBounds(tuning.client, tuning.outlier_factor, past)
        results = RoundResults(plan, fold, by_examples=tuning.by_examples, bounds=bounds)
        for done, answer in enumerate(engine.run(tasks()), 1):
            results.take(answer)
            listener.report("fine-tuning", epoch * clients + done, tuning.epochs * clients)
        results.settle()
        if not results.accepted:
            raise UserError(_all_failed(results.failures, tuning.lr))
        past.append(results.memory)
        fold.write_mean(tensors)


def _all_failed(failures: Sequence[Failure], lr: float) -> str:
    reason = f" (client {failures[0].task.client}: {failures[0].reason})" if failures else ""
    diverged = bool(failures) and all(failure.kind == "non-finite" for failure in failures)
    advice = (
        f"use a lower {option('finetune-lr')} (now {lr:g})" if diverged else "search again when they are able to train"
    )
    return f"all clients failed in fine-tuning{reason}; {advice}"
