"""Evaluators of subnets: they calibrate BatchNorm, then measure accuracy."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.networks.weights import forward
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.config.evaluation import Metric
from fedpareto.training.data.batches import plain_batches, prepare
from fedpareto.training.data.images import ImageSet, Normalisation
from fedpareto.training.evaluation.calibration import blank_network, calibrate
from fedpareto.training.evaluation.measures import ClientSpread, Measures, PredictionCounts, client_accuracies
from fedpareto.training.execution.out_of_memory import out_of_memory
from fedpareto.training.messages import Failure
from fedpareto.training.traffic import NO_TRAFFIC, Traffic

#: Images that a loss is measured on.
_LOSS_IMAGES = 8


@dataclasses.dataclass(frozen=True)
class Probe:
    """Probe: a network that is evaluated in the course of a run, with its last accuracy on validation images.

    Attributes:
        macs: its multiply–accumulates of one image.
        params: its parameters.
        accuracy: share of the images that it classifies rightly.
        images: number of the images; None in a run with noise.
        measures: further measures of it; None in a run with noise, and where clients measure.
        clients: spread of its accuracy over clients: those that measured it on images they hold out, or in a simulation
            all, each with validation images that have the shares of its own classes; None where it is not known.
    """

    macs: int
    params: int
    accuracy: float
    images: int | None = None
    measures: Measures | None = None
    clients: ClientSpread | None = None

    @property
    def further(self) -> dict[str, float]:
        """Everything that was measured beside the accuracy, by name."""
        found: dict[str, float | None] = {}
        if self.measures is not None:
            found |= {"balanced": self.measures.balanced, "macro_f1": self.measures.macro_f1}
            found |= {"top5": self.measures.top5, "loss": self.measures.loss, "calibration_error": self.measures.ece}
        if self.clients is not None:
            found |= {"clients_mean": self.clients.mean, "clients_worst_decile": self.clients.worst_decile}
            found |= {"clients_deviation": self.clients.deviation}
        return {name: value for name, value in found.items() if value is not None}

    def value(self, metric: Metric) -> float:
        """Value of the metric that networks are compared by.

        Raises:
            ValueError: it was not measured.
        """
        if metric == "accuracy":
            return self.accuracy
        if self.measures is None:
            raise ValueError(f"no measures to take {metric} from")
        return self.measures.balanced if metric == "balanced" else self.measures.macro_f1


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


def mean_accuracy(probes: Sequence[Probe], metric: Metric = "accuracy") -> float:
    """Return the mean accuracy of one or more probes, or the mean of another metric."""
    return sum(probe.value(metric) for probe in probes) / len(probes)


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluator of subnets on fixed images.

    Attributes:
        space: the search space.
        calibration: training images that calibrate BatchNorm.
        held_out: images that accuracy is measured on.
        normalisation: mean and deviation of the training images.
        batch_size: number of images of a batch.
        labels: number of images of each class that clients have, (clients, classes), for the spread over them; None
            where that is not known.
        accuracy_alone: whether probes tell nothing but their accuracy, as in a run with noise.
    """

    space: SearchSpace
    calibration: ImageSet
    held_out: ImageSet
    normalisation: Normalisation
    batch_size: int
    labels: IntArray | None = None
    accuracy_alone: bool = False

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

    def predictions(self, network: nn.Module, resolution: int) -> PredictionCounts:
        """Return the counts of what ``network`` predicts of the held-out images."""
        batches = plain_batches(self.held_out, self.batch_size, resolution, self.normalisation)
        with torch.inference_mode():
            return PredictionCounts.over((network(images), labels) for images, labels in batches)

    def probe(self, tensors: Mapping[str, Tensor], entries: Sequence[CacheEntry]) -> Evaluation:
        """Return the accuracy and the measures of every entry's subnet.

        Raises:
            OutOfMemoryError: a network and its batch do not fit.
        """
        return Evaluation([self._probe_of(tensors, entry) for entry in entries])

    def loss(self, tensors: Mapping[str, Tensor], architecture: Architecture) -> float:
        """Return the mean loss of a subnet on a few held-out images, normalised by their own batch; NaN where it is.

        It tells a network that was spoiled, and costs a small part of an evaluation.
        """
        chosen = torch.linspace(0, len(self.held_out) - 1, min(_LOSS_IMAGES, len(self.held_out))).long()
        images = prepare(self.held_out.images[chosen], architecture.resolution, self.normalisation)
        with torch.inference_mode():
            logits = forward(self.space, tensors, architecture, images)
            return float(nn.functional.cross_entropy(logits.double(), self.held_out.labels[chosen]))

    def _probe_of(self, tensors: Mapping[str, Tensor], entry: CacheEntry) -> Probe:
        architecture = entry.architecture
        with out_of_memory(architecture, self.batch_size, self.held_out.images.device):
            found = self.predictions(self.subnet(tensors, architecture), architecture.resolution)
        if self.accuracy_alone:
            return Probe(entry.macs, entry.params, found.accuracy)
        clients = None if self.labels is None else ClientSpread.of(client_accuracies(found.recall, self.labels))
        return Probe(entry.macs, entry.params, found.accuracy, found.images, found.measures(), clients)


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
