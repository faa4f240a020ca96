"""Calibration of BatchNorm: statistics for one subnet, measured over batches by any clients and combined exactly.

A BatchNorm's statistics are the mean and the total variance over all images (``moments.py``). So a client only has to
report sums over its batches, each weighed by its number of images, and that number. The sums that the server adds up
equal those of one pass over all batches, and no image leaves a client. The input of a later layer is normalised batch
by batch, as in training, and so still depends on which images share a batch.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import Tensors, extract, network_with
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.data.batches import plain_batches
from fedpareto.training.data.images import ImageSet, Normalisation
from fedpareto.training.evaluation.moments import mean_and_variance, moments_of, norms_of
from fedpareto.training.evaluation.outlying_statistics import judged
from fedpareto.training.messages import CalibrationTask, Failure, Statistics
from fedpareto.training.randomness import derive_seed, numpy_stream


def calibrate(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Set the statistics of ``network``'s BatchNorms to those of ``batches``; return it in evaluation mode.

    The batches are normalised images (N, C, H, W). Networks of GroupNorm have no statistics and run nothing.
    """
    return with_statistics(network, statistics_of(network, batches))


def statistics_of(network: nn.Module, batches: Iterable[Tensor]) -> Statistics:
    """Return the statistics of ``network``'s BatchNorms over ``batches``; the network keeps those of the last batch.

    They are summed in float64, so that the order of batches is lost in the rounding to float32.
    """
    norms = _norms(network)
    sums: dict[str, Tensor] = {}
    count = images = 0
    network.train()
    for norm in norms.values():
        # The running statistics are those of the last batch alone.
        norm.momentum = 1.0
    with torch.no_grad(), _counted(norms) as values:
        for batch in batches if norms else ():
            network(batch)
            for name, norm in norms.items():
                for moment, value in zip(moments_of(name), _moments(norm, values[name]), strict=True):
                    sums[moment] = sums.get(moment, 0) + len(batch) * value
            count, images = count + 1, images + len(batch)
    return Statistics(sums, count, images)


def _moments(norm: nn.BatchNorm2d, values: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, biased variance and squared mean of a norm's last batch, with ``values`` a channel, in float64."""
    mean, unbiased = norm.get_buffer("running_mean").double(), norm.get_buffer("running_var").double()
    return mean, unbiased * (values - 1) / values, mean.square()


@contextmanager
def _counted(norms: Mapping[str, nn.BatchNorm2d]) -> Iterator[Mapping[str, int]]:
    """Count every norm's input values a channel in the last batch: images times pixels."""
    values: dict[str, int] = {}

    def count(name: str, inputs: tuple[Tensor, ...]) -> None:
        values[name] = inputs[0].numel() // inputs[0].shape[1]

    hooks = [
        norm.register_forward_pre_hook(lambda _, inputs, name=name: count(name, inputs)) for name, norm in norms.items()
    ]
    try:
        yield values
    finally:
        for hook in hooks:
            hook.remove()


def combined(parts: Iterable[Statistics]) -> Statistics:
    """Return the statistics over all the parts' batches."""
    sums: dict[str, Tensor] = {}
    batches = images = 0
    for part in parts:
        for name, tensor in part.sums.items():
            sums[name] = sums.get(name, 0) + tensor
        batches, images = batches + part.batches, images + part.images
    return Statistics(sums, batches, images)


def with_statistics(network: nn.Module, statistics: Statistics) -> nn.Module:
    """Set the statistics of ``network``'s BatchNorms; return it in evaluation mode.

    If they are of no batch at all, mean 0 and variance 1 are set.

    Raises:
        ValueError: the statistics are those of another network.
    """
    norms = _norms(network)
    for norm in norms.values():
        norm.reset_running_stats()
    if statistics.batches:
        if set(norms) != set(norms_of(statistics)):
            raise ValueError("the statistics are those of another network")
        for name, norm in norms.items():
            mean, variance = mean_and_variance(statistics, name)
            norm.get_buffer("running_mean").copy_(mean)
            norm.get_buffer("running_var").copy_(variance)
            norm.get_buffer("num_batches_tracked").fill_(statistics.batches)
    return network.eval()


def blank_network(space: SearchSpace, tensors: Mapping[str, Tensor], architecture: Architecture) -> nn.Module:
    """Return the subnet of supernet ``tensors``, its weights copied, with statistics yet to be set.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    own = extract(space, tensors, architecture)
    return network_with(space, architecture, own, running_statistics=True).to(memory_format=torch.channels_last)


@dataclasses.dataclass(frozen=True)
class CalibrationPlan:
    """Plan of a calibration: the clients that calibrate a subnet, and the batches of each.

    Attributes:
        clients: clients that are asked.
        batches: number of batches of each client.
        batch_size: number of images of a batch; a client with fewer images makes one batch of them.
        seed: seed of the run.
    """

    clients: Sequence[int]
    batches: int
    batch_size: int
    seed: int

    def tasks(self, architecture: Architecture, tensors: Tensors) -> Iterator[CalibrationTask]:
        """Yield the task of every client; ``tensors`` are the subnet's slices."""
        for client in self.clients:
            seed = derive_seed(self.seed, "calibration", client)
            yield CalibrationTask(client, architecture, tensors, self.batches, self.batch_size, seed)


def plan_calibration(clients: Sequence[int], images: int, batch_size: int, seed: int) -> CalibrationPlan:
    """Spread about ``images`` evenly over ``clients``; if there are more clients than batches a fixed draw is asked."""
    wanted = max(1, images // batch_size)
    if len(clients) <= wanted:
        return CalibrationPlan(clients, -(-wanted // len(clients)), batch_size, seed)
    drawn = numpy_stream(seed, "calibration", "clients").choice(len(clients), size=wanted, replace=False)
    return CalibrationPlan([clients[index] for index in sorted(drawn)], 1, batch_size, seed)


def client_statistics(
    space: SearchSpace, task: CalibrationTask, data: ImageSet, normalisation: Normalisation
) -> Statistics:
    """Return a client's statistics over batches of its own images, which are not augmented."""
    generator = torch.Generator().manual_seed(task.seed)
    size = min(task.batch_size, len(data))
    count = min(task.batches, len(data) // size)
    chosen = torch.randperm(len(data), generator=generator)[: count * size].to(data.labels.device)
    network = network_with(space, task.architecture, dict(task.tensors), running_statistics=True)
    batches = plain_batches(data.subset(chosen), size, task.architecture.resolution, normalisation)
    return statistics_of(network.to(memory_format=torch.channels_last), (images for images, _ in batches))


def gather(
    tasks: Iterable[CalibrationTask], answers: Iterable[Statistics | Failure]
) -> tuple[Statistics, list[Failure]]:
    """Return the statistics of all clients whose answers can be used, in the order of the tasks, and the failures.

    Raises:
        UserError: no client's answer can be used.
    """
    good: list[Statistics] = []
    failures: list[Failure] = []
    for _, answer in judged(tasks, answers):
        if isinstance(answer, Failure):
            failures.append(answer)
        else:
            good.append(answer)
    if not good:
        raise UserError(
            f"no client could calibrate the subnet (client {failures[0].task.client}: {failures[0].reason})"
        )
    return combined(good), failures


def _norms(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
