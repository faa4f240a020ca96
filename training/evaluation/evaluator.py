"""Evaluators of subnets: they calibrate BatchNorm, then measure accuracy."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import forward
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.data.batches import plain_batches, prepare
from fedpareto.training.data.images import ImageSet, Normalisation
from fedpareto.training.evaluation.calibration import blank_network, calibrate
from fedpareto.training.execution.out_of_memory import out_of_memory
from fedpareto.training.messages import Failure
from fedpareto.training.traffic import NO_TRAFFIC, Traffic

#: Images that a loss is measured on.
_LOSS_IMAGES = 8


@dataclasses.dataclass(frozen=True)
class Probe:
    """Probe: a network that is evaluated in the course of a run, with its last accuracy on validation images."""

    macs: int
    params: int
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation and, where clients were asked, their failures and traffic.

    Attributes:
        probes: accuracy of every entry that could be measured.
        failures: clients that gave no usable answer.
        traffic: bytes of the messages to clients and of their answers.
        tested: accuracy of networks that the method itself wanted measured, by name.
        seconds: duration of the evaluation; 0 until it has been timed.
    """

    probes: Sequence[Probe] = ()
    failures: Sequence[Failure] = ()
    traffic: Traffic = NO_TRAFFIC
    tested: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


class ProbeEvaluator(Protocol):
    """Evaluator of a supernet's subnets on validation images, wherever those are."""

    def probe(self, tensors: Mapping[str, Tensor], entries: Sequence[CacheEntry]) -> Evaluation:
        """Measure every entry's subnet."""


class NoEvaluator:
    """Evaluator of a private run whose images are all with its clients, which are asked for no statistics of them."""

    def probe(self, tensors: Mapping[str, Tensor], entries: Sequence[CacheEntry]) -> Evaluation:
        """Measure nothing."""
        del tensors, entries
        return Evaluation()


def mean_accuracy(probes: Sequence[Probe]) -> float:
    """Return the mean accuracy of one or more probes."""
    return sum(probe.accuracy for probe in probes) / len(probes)


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluator of subnets on fixed images.

    Attributes:
        space: the search space.
        calibration: training images that calibrate BatchNorm.
        held_out: images that accuracy is measured on.
        normalisation: mean and deviation of the training images.
        batch_size: number of images of a batch.
    """

    space: SearchSpace
    calibration: ImageSet
    held_out: ImageSet
    normalisation: Normalisation
    batch_size: int

    def subnet(self, tensors: Mapping[str, Tensor], architecture: Architecture) -> nn.Module:
        """Return the calibrated subnet of supernet ``tensors``, in evaluation mode."""
        network = blank_network(self.space, tensors, architecture)
        return calibrate(network, self.calibration_batches(architecture.resolution))

    def calibration_batches(self, resolution: int) -> Iterator[Tensor]:
        """Yield all calibration images, normalised, in batches whose sizes differ by at most one."""
        # Layers normalise by the batch: a short last one would be out of the ordinary.
        number = -(-len(self.calibration) // self.batch_size)
        for chosen in torch.arange(len(self.calibration)).tensor_split(number):
            yield prepare(self.calibration.images[chosen], resolution, self.normalisation)

    def accuracy(self, network: nn.Module, resolution: int) -> float:
        """Return the share of held-out images that ``network`` classifies correctly."""
        held_out = self.held_out
        return count_correct(network, held_out, self.batch_size, resolution, self.normalisation) / len(held_out)

    def probe(self, tensors: Mapping[str, Tensor], entries: Sequence[CacheEntry]) -> Evaluation:
        """Return the accuracy of every entry's subnet.

        Raises:
            OutOfMemoryError: a network and its batch do not fit.
        """
        accuracies = [self._accuracy_of(tensors, entry.architecture) for entry in entries]
        return Evaluation(
            [Probe(entry.macs, entry.params, found) for entry, found in zip(entries, accuracies, strict=True)]
        )

    def loss(self, tensors: Mapping[str, Tensor], architecture: Architecture) -> float:
        """Return the mean loss of a subnet on a few held-out images, normalised by their own batch; NaN where it is.

        It tells a network that was spoiled, and costs a small part of an evaluation.
        """
        chosen = torch.linspace(0, len(self.held_out) - 1, min(_LOSS_IMAGES, len(self.held_out))).long()
        images = prepare(self.held_out.images[chosen], architecture.resolution, self.normalisation)
        with torch.inference_mode():
            logits = forward(self.space, tensors, architecture, images)
            return float(nn.functional.cross_entropy(logits.double(), self.held_out.labels[chosen]))

    def _accuracy_of(self, tensors: Mapping[str, Tensor], architecture: Architecture) -> float:
        with out_of_memory(architecture, self.batch_size, self.held_out.images.device):
            return self.accuracy(self.subnet(tensors, architecture), architecture.resolution)


def count_correct(
    network: nn.Module, data: ImageSet, batch_size: int, resolution: int, normalisation: Normalisation
) -> int:
    """Return the number of images of ``data`` that the network classifies correctly."""
    correct = torch.zeros((), dtype=torch.int64, device=data.labels.device)
    with torch.inference_mode():
        for images, labels in plain_batches(data, batch_size, resolution, normalisation):
            correct += (network(images).argmax(dim=1) == labels).sum()
    return int(correct)


def choose_probes(entries: Sequence[CacheEntry], count: int) -> list[CacheEntry]:
    """Return ``count`` entries from the smallest to the largest, evenly spread over their order."""
    last = len(entries) - 1
    positions = sorted({round(index * last / (count - 1)) for index in range(count)})
    return [entries[position] for position in positions]
