"""Federated evaluation: clients calibrate subnets and measure their accuracy on the images they hold out."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import views
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.capabilities import Capability, able_clients, capabilities
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.flower.engine import FlowerEngine
from fedpareto.training.engines.protocol import EngineError
from fedpareto.training.evaluation.calibration import blank_network, combined, plan_calibration, with_statistics
from fedpareto.training.evaluation.evaluator import Evaluation, Probe
from fedpareto.training.evaluation.measures import ClientSpread
from fedpareto.training.evaluation.outlying_statistics import judged
from fedpareto.training.messages import CalibrationTask, Correct, EvaluationTask, Failure, Statistics
from fedpareto.training.traffic import Traffic

AnyAnswer = TypeVar("AnyAnswer", Statistics | Failure, Correct | Failure)


@dataclasses.dataclass(frozen=True)
class FederatedEvaluator:
    """Evaluator of subnets on the clients' held-out images, in two exchanges: statistics first, then accuracy.

    A client is only ever sent networks it can run.

    Attributes:
        engine: engine that asks the clients.
        config: configuration of the run.
        space: the search space.
    """

    engine: FlowerEngine
    config: RunConfig
    space: SearchSpace

    def probe(self, tensors: Mapping[str, Tensor], entries: Sequence[CacheEntry]) -> Evaluation:
        """Return the accuracy of every entry's subnet; entries that no client could measure are left out."""
        try:
            present = self.engine.available()
        except EngineError:
            # The round is merged; the next one says what is wrong, after it has waited again.
            return Evaluation()
        able = {entry.architecture: self._able(entry, present) for entry in entries}
        tally = _Tally()
        networks = self._calibrated(tensors, able, tally)
        measured = self._measured(networks, able, tally)
        # What private runs tell beside their supernet is accuracy alone, also where that may be exact.
        alone = bool(self.config.privacy.noise)
        probes = [
            _probe(entry, measured[entry.architecture], accuracy_alone=alone)
            for entry in entries
            if entry.architecture in measured
        ]
        return Evaluation(probes, tuple(tally.failures.values()), tally.traffic)

    def measured(self, network: nn.Module, entry: CacheEntry) -> Probe | None:
        """Return a probe of ``entry``'s calibrated network on held-out images.

        None if no client answered that can run it.
        """
        clients = self._able(entry, self.engine.available())
        measured = self._measured({entry.architecture: network}, {entry.architecture: clients}, _Tally())
        found = measured.get(entry.architecture)
        return None if found is None else _probe(entry, found, accuracy_alone=bool(self.config.privacy.noise))

    @functools.cached_property
    def _clients(self) -> Sequence[Capability]:
        """Capability of every client; limits may be files, which are read once."""
        return capabilities(self.config.clients, self.space, self.config.seed)

    def _able(self, entry: CacheEntry, available: Sequence[int]) -> list[int]:
        return able_clients(self._clients, entry, available, self.config.client.batch)

    def _calibrated(
        self, tensors: Mapping[str, Tensor], able: Mapping[Architecture, Sequence[int]], tally: "_Tally"
    ) -> dict[Architecture, nn.Module]:
        networks = {architecture: blank_network(self.space, tensors, architecture) for architecture in able}
        if self.space.norm != "batch":
            return {architecture: network.eval() for architecture, network in networks.items()}
        tasks = [
            task
            for architecture, clients in able.items()
            if clients
            for task in self._calibration_tasks(tensors, architecture, clients)
        ]
        # Tasks of one client in a row travel as one message.
        tasks.sort(key=lambda task: task.client)
        found: dict[Architecture, Statistics] = {}
        for task, answer in judged(tasks, tally.counted(self.engine.calibrate(tasks))):
            if isinstance(answer, Failure):
                tally.failed(answer)
            else:
                so_far = found.get(task.architecture)
                found[task.architecture] = combined([answer] if so_far is None else [so_far, answer])
        return {
            architecture: with_statistics(networks[architecture], statistics)
            for architecture, statistics in found.items()
        }

    def _calibration_tasks(
        self, tensors: Mapping[str, Tensor], architecture: Architecture, clients: Sequence[int]
    ) -> list[CalibrationTask]:
        images, batch = self.config.evaluation.calibration_images, self.config.client.batch
        plan = plan_calibration(clients, images, batch, self.config.seed)
        return list(plan.tasks(architecture, views(self.space, dict(tensors), architecture)))

    def _measured(
        self,
        networks: Mapping[Architecture, nn.Module],
        able: Mapping[Architecture, Sequence[int]],
        tally: "_Tally",
    ) -> dict[Architecture, list[Correct]]:
        size = self.config.evaluation.batch_size
        tasks = [
            EvaluationTask(client, architecture, network.state_dict(), size)
            for architecture, network in networks.items()
            for client in able[architecture]
        ]
        tasks.sort(key=lambda task: task.client)
        found: dict[Architecture, list[Correct]] = {}
        for answer in tally.counted(self.engine.evaluate(tasks)):
            if isinstance(answer, Correct) and answer.images:
                found.setdefault(answer.task.architecture, []).append(answer)
        return found


def _accuracy(found: Sequence[Correct]) -> float:
    return sum(each.correct for each in found) / sum(each.images for each in found)


def _probe(entry: CacheEntry, found: Sequence[Correct], *, accuracy_alone: bool) -> Probe:
    if accuracy_alone:
        return Probe(entry.macs, entry.params, _accuracy(found))
    clients = ClientSpread.of([each.correct / each.images for each in found])
    return Probe(entry.macs, entry.params, _accuracy(found), sum(each.images for each in found), clients=clients)


class _Tally:
    """Tally of answers as they pass: their traffic, and the clients that gave none."""

    def __init__(self) -> None:
        # Of a message with several tasks that fails as a whole, one.
        self.failures: dict[tuple[type, int, str], Failure] = {}
        self.traffic = Traffic()

    def counted(self, answers: Iterable[AnyAnswer]) -> Iterator[AnyAnswer]:
        for answer in answers:
            self.traffic += answer.traffic
            if isinstance(answer, Failure):
                self.failed(answer)
            yield answer

    def failed(self, failure: Failure) -> None:
        self.failures.setdefault((type(failure.task), failure.task.client, failure.kind), failure)
