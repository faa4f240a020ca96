"""Subnets of a trained run: extracted, fine-tuned if asked for, calibrated, evaluated."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fedpareto.cache.entries import CacheEntry
from fedpareto.search.extraction.measured import measured_fields, probe_fields
from fedpareto.search.query.private_runs import asks_clients, check_private, coverage_report
from fedpareto.search.reports.terminal import NOT_NEEDED, VALIDATION
from fedpareto.search.subnet import SubnetInfo
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.signatures import VerifyKey
from fedpareto.supernet.common.terminal.console import stderr
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener, progress_display
from fedpareto.supernet.networks.weights import Tensors, views
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.protocol import new_aggregator
from fedpareto.training.clients.capabilities import able_clients, capabilities
from fedpareto.training.config.inputs import replaced
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.images import ImageSet
from fedpareto.training.data.run_images import preparation_of, storage_of
from fedpareto.training.data.sources import load_images
from fedpareto.training.engines.flower.evaluation import FederatedEvaluator
from fedpareto.training.engines.flower.federation import UnaskedFederation, connect
from fedpareto.training.engines.flower.superlink import Link
from fedpareto.training.engines.protocol import CalibratingEngine, Federation
from fedpareto.training.engines.simulation.federation import StoredFederation
from fedpareto.training.evaluation.calibration import (
    blank_network,
    gather,
    plan_calibration,
    statistics_of,
    with_statistics,
)
from fedpareto.training.evaluation.evaluator import Evaluator, NoEvaluator
from fedpareto.training.evaluation.measures import PredictionCounts
from fedpareto.training.execution.profile import Profile
from fedpareto.training.rounds.finetune import FineTuning, fine_tune
from fedpareto.training.runs.checkpoint import Checkpoint, best_checkpoint, load_checkpoint, newest_checkpoint
from fedpareto.training.runs.folder import read_census, read_run_config, read_split
from fedpareto.training.runs.verification import verify_run

Calibration = Literal["auto", "pooled", "federated", "none"]

#: A subnet that has been trained is tuned at this share of the run's first learning rate.
_FINETUNE_RATE = 0.1


@dataclasses.dataclass(frozen=True)
class Extraction:
    """Treatment of a subnet after it is cut out: its fine-tuning and calibration.

    Attributes:
        calibration: ``pooled`` over a draw of the clients' images, ``federated`` by the clients, ``none``, or
            ``auto``: pooled in a simulation, federated where the images are with the clients; on the validation
            images in a private run that withholds clients' statistics.
        finetune_epochs: local epochs of every client on the subnet, one a round.
        finetune_lr: learning rate of the first round; a tenth of the run's when None.
        exact: whether a private run may fine-tune, and take exact statistics of clients' images.
    """

    calibration: Calibration = "auto"
    finetune_epochs: int = 0
    finetune_lr: float | None = None
    exact: bool = False


@dataclasses.dataclass(frozen=True)
class ExtractedSubnet:
    """Calibrated subnet of a run, with the metadata for its file, which include its accuracies.

    Attributes:
        network: the network.
        info: the metadata.
        predictions: counts of what it predicts of the images of each split that are here.
    """

    network: nn.Module
    info: SubnetInfo
    predictions: Mapping[str, PredictionCounts] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class OpenedRun:
    """Opened run: its supernet and federation, read once for any number of subnets. Everything here runs on the CPU.

    Attributes:
        folder: folder of the run.
        config: configuration of the run.
        space: search space of the run.
        federation: its clients, simulated or connected.
        checkpoint: checkpoint with the supernet.
        checkpoint_path: folder of the checkpoint.
        evaluator: evaluator on the validation images.
        test: test images, None until they are read.
        exact: whether the evaluator takes exact statistics of clients' images in a private run that withholds them.
    """

    folder: Path
    config: RunConfig
    space: SearchSpace
    federation: Federation
    checkpoint: Checkpoint
    checkpoint_path: Path
    evaluator: Evaluator | FederatedEvaluator | NoEvaluator
    test: ImageSet | None
    exact: bool = False

    def test_images(self) -> ImageSet:
        """Read the test images.

        Raises:
            UserError: there are none, or they are with the clients of a real federation.
        """
        if self.test is not None:
            return self.test
        if not isinstance(self.evaluator, Evaluator):
            raise UserError("test images are not on this machine: those of this run are with its clients")
        data, preparation, storage = self.config.data, preparation_of(self.config, self.space), storage_of(self.config)
        with progress_display() as listener:
            return load_images(
                data.name, data.root, "test", preparation, reading=data.reading, listener=listener, storage=storage
            )

    def extract(
        self, entry: CacheEntry, extraction: Extraction, report: Mapping[str, Any], listener: ProgressListener = SILENT
    ) -> ExtractedSubnet:
        """Return ``entry``'s subnet with a completed ``report``.

        Raises:
            UserError: all clients failed, none can run the subnet, or a private run would take exact statistics of
                clients' images, or be fine-tuned, without being asked to.
        """
        check_private(
            self.folder,
            self.config,
            self.space.norm,
            extraction.calibration,
            extraction.finetune_epochs,
            exact=extraction.exact,
        )
        architecture, tensors = entry.architecture, self.checkpoint.models.supernet
        full = {**report, "checkpoint": str(self.checkpoint_path), "round": self.checkpoint.state.round}
        if extraction.finetune_epochs:
            tensors, full["finetune"] = self._fine_tuned(entry, extraction, listener)
        network, full["calibration"] = self._calibrated(tensors, entry, extraction.calibration)
        measured, predictions = self._measured(network, entry)
        if extraction.finetune_epochs:
            full["finetune"]["after"] = _accuracies(measured)
        full |= measured
        full |= coverage_report(self.config, full, exact=extraction.exact)
        split = self.federation.split
        preparation = preparation_of(self.config, self.space)
        info = SubnetInfo(self.space, architecture, split.classes, preparation, split.normalisation, full)
        return ExtractedSubnet(network, info, predictions)

    def predictions(self, network: nn.Module, resolution: int) -> dict[str, PredictionCounts]:
        """Counts of what a network predicts of validation images, and of test images if they were read."""
        if not isinstance(self.evaluator, Evaluator):
            return {}
        held_out = {"validation": self.evaluator.held_out, "test": self.test}
        return {
            name: dataclasses.replace(self.evaluator, held_out=images).predictions(network, resolution)
            for name, images in held_out.items()
            if images is not None
        }

    def _measured(self, network: nn.Module, entry: CacheEntry) -> tuple[dict[str, Any], dict[str, PredictionCounts]]:
        """Return the report's fields about what a network reaches, and its predictions that they are of."""
        if isinstance(self.evaluator, FederatedEvaluator):
            probe = self.evaluator.measured(network, entry)
            return {} if probe is None else probe_fields("validation", probe), {}
        found, fields = self.predictions(network, entry.architecture.resolution), dict[str, Any]()
        for name, counts in found.items():
            # Of a private run the report tells what it always has.
            images, known = (None, None) if self.config.privacy.noise else (counts.images, counts)
            fields |= measured_fields(name, counts.accuracy, images, known, self.federation.split.classes)
        return fields, {} if self.config.privacy.noise else found

    def _calibrated(self, tensors: Tensors, entry: CacheEntry, method: Calibration) -> tuple[nn.Module, dict[str, Any]]:
        """Return the calibrated network, and the report's fields about its calibration."""
        architecture = entry.architecture
        network = blank_network(self.space, tensors, architecture)
        if self.space.norm != "batch":
            return network.eval(), {"method": NOT_NEEDED}
        if method == "none":
            return network.eval(), {"method": "none"}
        refused: list[dict[str, Any]] = []
        pooled = isinstance(self.evaluator, Evaluator) and method != "federated"
        if isinstance(self.evaluator, Evaluator) and pooled:
            statistics = statistics_of(network, self.evaluator.calibration_batches(architecture.resolution))
            clients = self.config.clients.count
        else:
            engine, images, batch = self._engine(), self.config.evaluation.calibration_images, self.config.client.batch
            plan = plan_calibration(self._able(engine, entry), images, batch, self.config.seed)
            tasks = list(plan.tasks(architecture, views(self.space, tensors, architecture)))
            statistics, failures = gather(tasks, engine.calibrate(tasks))
            clients = len(plan.clients)
            for each in failures:
                stderr.print(f"client {each.task.client} is left out of the calibration: {each.reason}")
            refused = [{"client": each.task.client, "kind": each.kind, "reason": each.reason} for each in failures]
        counts = {"batches": statistics.batches, "images": statistics.images}
        if pooled and self.config.privacy.withheld and not self.exact:
            return with_statistics(network, statistics), {"method": VALIDATION, **counts}
        method, told = "pooled" if pooled else "federated", {"failures": refused} if refused else {}
        return with_statistics(network, statistics), {"method": method, "clients": clients, **counts, **told}

    def _fine_tuned(
        self, entry: CacheEntry, extraction: Extraction, listener: ProgressListener
    ) -> tuple[Tensors, dict[str, Any]]:
        """Return the supernet with ``entry``'s slices fine-tuned, and the report's fields about the fine-tuning."""
        before, _ = self._calibrated(self.checkpoint.models.supernet, entry, extraction.calibration)
        lr, engine = extraction.finetune_lr, self._engine()
        tuning = FineTuning(
            epochs=extraction.finetune_epochs,
            lr=_FINETUNE_RATE * self.config.client.lr if lr is None else lr,
            clients=self._able(engine, entry),
            seed=self.config.seed,
            client=self.config.client,
            outlier_factor=self.config.server.outlier_factor,
            aggregator=functools.partial(new_aggregator, self.config),
            by_examples=self.config.server.weighs_clients,
        )
        tensors = {name: tensor.clone() for name, tensor in self.checkpoint.models.supernet.items()}
        fine_tune(self.space, tensors, entry.architecture, engine, tuning, listener)
        return tensors, {
            "epochs": tuning.epochs,
            "lr": tuning.lr,
            "clients": len(tuning.clients),
            "before": _accuracies(self._measured(before, entry)[0]),
        }

    def _able(self, engine: CalibratingEngine, entry: CacheEntry) -> list[int]:
        """Return the available clients that can run a subnet."""
        clients = capabilities(self.config.clients, self.space, self.config.seed)
        able = able_clients(clients, entry, engine.available(), self.config.client.batch)
        if not able:
            raise UserError("no client of the federation can run this subnet; search one within their limits")
        return able

    def _engine(self) -> CalibratingEngine:
        return self.federation.engine(self.config, self.space, Profile(threads=torch.get_num_threads()))


def _accuracies(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name.endswith("_accuracy")}


def opened_run(
    folder: Path,
    space: SearchSpace,
    which: Literal["best", "newest"],
    link: Link | None,
    *,
    test: bool = False,
    root: str | None = None,
    exact: bool = False,
    verify: VerifyKey | None = None,
) -> OpenedRun:
    """Read a run's checkpoint and its images, with ``test`` also the test images; or find its clients over ``link``.

    The images are in ``root``, or in the run's own place; their digest tells if they are the same. Of a private run
    that withholds clients' statistics, nothing of clients' images is read or asked for unless ``exact`` is true. With
    ``verify``, that key must have signed the run.

    Raises:
        UserError: the run has no whole checkpoint, its images are missing or changed, or too few clients are there.
    """
    verify_run(folder, which, verify)
    config = read_run_config(folder)
    if root is not None:
        config = replaced(config, {"data.root": root})
    path = best_checkpoint(folder) if which == "best" else newest_checkpoint(folder)
    checkpoint = load_checkpoint(path, space)
    asked = config
    if exact:
        asked = dataclasses.replace(config, privacy=dataclasses.replace(config.privacy, statistics="exact"))
    if asked.privacy.noise and not asked.privacy.withheld:
        stderr.print("statistics of clients' images that are taken here are exact: (ε, δ) does not cover them")
    if config.engine == "flower" and not asks_clients(config, exact=exact):
        silent = UnaskedFederation(read_census(folder))
        return OpenedRun(folder, config, space, silent, checkpoint, path, silent.evaluator(config, space), None)
    if link is not None:
        with progress_display() as listener:
            connected = connect(link, asked, space, listener, read_census(folder))
        measured_there = connected.evaluator(asked, space)
        return OpenedRun(folder, config, space, connected, checkpoint, path, measured_there, None, exact)
    with progress_display() as listener:
        simulation = StoredFederation(folder, config, space, read_split(folder), listener)
        evaluator = simulation.evaluator(asked, space)
    opened = OpenedRun(folder, config, space, simulation, checkpoint, path, evaluator, None, exact)
    return dataclasses.replace(opened, test=opened.test_images()) if test else opened
