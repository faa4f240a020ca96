"""A trained run from Python: subnets are found in it, extracted, measured, saved and exported."""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from fedpareto.cache.entries import CacheEntry, make_entries
from fedpareto.fitness.costs import FilePrecision
from fedpareto.fitness.settings import fitness_of
from fedpareto.search.export.export import ExportImages, export_subnet
from fedpareto.search.export.settings import ExportSettings, TemperatureUse, format_of
from fedpareto.search.extraction.opened_run import Calibration, Extraction, OpenedRun, opened_run
from fedpareto.search.extraction.provenance import subnet_provenance
from fedpareto.search.query.answering import SearchOutcome, answer_budgets
from fedpareto.search.query.device_limits import LatencyLimit, Quantity, budgets_of
from fedpareto.search.query.options import check_finetuning
from fedpareto.search.query.private_runs import asks_clients, check_private, export_of
from fedpareto.search.query.subject import SearchTarget
from fedpareto.search.subnet import SubnetInfo, save_subnet
from fedpareto.supernet.architecture import Architecture, ArchitectureLike, architecture_of
from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.accuracies import format_accuracy
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.storage.files import check_output_folder
from fedpareto.supernet.common.storage.signatures import VerifyKey, read_keys
from fedpareto.supernet.common.terminal.progress import progress_or_silence
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import encode
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.flower.federation import opened_link
from fedpareto.training.engines.flower.superlink import Link
from fedpareto.training.evaluation.evaluator import Evaluator
from fedpareto.training.evaluation.measures import Measures
from fedpareto.training.runs.folder import check_outside_runs, read_run_config

Checkpoint = Literal["best", "newest"]


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run's supernet, its search space and its clients' images.

    The images are read when the first subnet is extracted.

    Attributes:
        folder: of the run.
        target: what is searched: the run's space, its fitness and the entries of its cache.
        config: the run's configuration.
        checkpoint: which checkpoint subnets are taken from: best by validation, or newest.
        data_root: folder of the images now, if it is not where they were.
        verify: key that must have signed the run; None where it need not be signed.
    """

    folder: Path
    target: SearchTarget
    config: RunConfig
    checkpoint: Checkpoint = "best"
    data_root: str | None = None
    verify: VerifyKey | None = None

    @property
    def space(self) -> SearchSpace:
        """The run's search space, with the classes of its images."""
        return self.target.space

    def __repr__(self) -> str:
        return f"TrainedRun({self.folder}: {self.config.method} on {self.config.data.name}, {self.space.name})"

    @checked
    def find(
        self,
        *,
        macs: Quantity | None = None,
        params: Quantity | None = None,
        size: Quantity | None = None,
        memory: Quantity | None = None,
        latency: LatencyLimit | None = None,
        min_fitness: float | None = None,
        precision: FilePrecision = "fp32",
        batch: int = 1,
        fitness: FitnessSettings | str | Path | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> SearchOutcome:
        """Find the architecture of highest fitness within a device's limits, without training.

        Args:
            macs: most multiply–accumulates of one image, e.g. 60M (the command's ``--flops-budget``).
            params: most parameters, e.g. 2M (``--params-budget``).
            size: most bytes of the exported ONNX file at the given precision, e.g. 4MB (``--size-budget``).
            memory: most bytes of fp32 feature maps at the given batch, e.g. 2MB (``--memory-budget``).
            latency: most milliseconds and the device's table, e.g. ("5ms", "table.json") (``--latency-budget``).
            min_fitness: look for the fewest MACs that reach this fitness, not for the highest fitness.
            precision: of the exported weights: fp32, fp16 or int8.
            batch: images at a time on the device.
            fitness: weights, or a YAML file of them; those of the run's cache when left out.
            seed: seed of a genetic search, where the space is too large for an exact one.
            progress: show progress.

        Raises:
            UserError: no network meets the limits, or one of them cannot be read.
        """
        budgets = budgets_of(
            macs=macs,
            params=params,
            size=size,
            memory=memory,
            latency=latency,
            min_fitness=min_fitness,
            precision=precision,
            batch=batch,
        )
        target = self.target
        if fitness is not None:
            target = dataclasses.replace(target, fitness=fitness_of(fitness, target.space))
        with progress_or_silence("searching", progress) as listener:
            return answer_budgets(target, budgets, seed, listener)

    @checked
    def extract(
        self,
        found: SearchOutcome | ArchitectureLike,
        *,
        calibration: Calibration = "auto",
        finetune_epochs: int = 0,
        finetune_lr: float | None = None,
        exact_statistics: bool = False,
        progress: bool = True,
    ) -> "Subnet":
        """Extract a subnet of the supernet, calibrated, with its accuracy on the validation images.

        Args:
            found: what ``find`` answered, an entry of a cache, or an architecture.
            calibration: BatchNorm's statistics from images of the clients that the server draws (pooled), from
                statistics that the clients measure themselves (federated), or none; auto is pooled, and federated
                where the images are with the clients; a private run takes the server's validation images.
            finetune_epochs: local epochs every client trains on the subnet before it is calibrated.
            finetune_lr: learning rate of the first of them; a tenth of the run's when left out.
            exact_statistics: fine-tune a subnet of a private run, and take exact statistics of its clients' images;
                (ε, δ) does not cover them.
            progress: show progress.

        Raises:
            UserError: the images are missing or others, no client can run the subnet, or a private run would
                take exact statistics of clients' images, or be tuned, without ``exact_statistics``.
        """
        check_finetuning(finetune_epochs, finetune_lr)
        if finetune_lr is not None and not finetune_epochs:
            raise UserError("finetune_lr is read only with finetune_epochs; give both, or neither")
        entry, report = self._entry(found)
        exact = exact_statistics
        check_private(self.folder, self.config, self.space.norm, calibration, finetune_epochs, exact=exact)
        extraction = Extraction(calibration, finetune_epochs, finetune_lr, exact)
        here = self.config.engine == "in-process" or not asks_clients(self.config, exact=exact)
        # Images in this process are read once, clients are found anew.
        with contextlib.nullcontext() if here else opened_link(self.config) as link:
            if link is None:
                opened = self._opened_exactly if exact else self._opened
            else:
                opened = self._open(link, exact=exact)
            with progress_or_silence("extracting", progress) as listener:
                made = opened.extract(entry, extraction, report, listener)
        return Subnet(made.network, made.info, opened)

    @functools.cached_property
    def _opened(self) -> OpenedRun:
        return self._open(None, exact=False)

    @functools.cached_property
    def _opened_exactly(self) -> OpenedRun:
        return self._open(None, exact=True)

    def _open(self, link: Link | None, *, exact: bool) -> OpenedRun:
        root, verify = self.data_root, self.verify
        return opened_run(self.folder, self.space, self.checkpoint, link, root=root, exact=exact, verify=verify)

    def _entry(self, found: SearchOutcome | ArchitectureLike) -> tuple[CacheEntry, Mapping[str, Any]]:
        """Entry of the network that is to be extracted, and the report of the search that found it."""
        if isinstance(found, SearchOutcome):
            return found.entry, found.report
        genes = encode(self.space, architecture_of(found, "architecture"))
        (entry,) = make_entries(self.space, genes[None], self.target.fitness)
        return entry, {"space": self.space.name, "run": str(self.folder), "macs": entry.macs, "params": entry.params}


class PickleError(UserError, TypeError):
    """Something that is kept in files of its own, and not by pickling it."""


@dataclasses.dataclass(frozen=True, repr=False)
class Subnet:
    """A subnet with weights of its own: calibrated, on the CPU, in evaluation mode.

    Attributes:
        network: maps normalised images (N, channels, side, side) to logits (N, classes).
        info: its architecture, class names, the normalisation of images, and the report of how it was found and made.
    """

    network: nn.Module
    info: SubnetInfo
    _run: OpenedRun

    @property
    def architecture(self) -> Architecture:
        """Architecture of the network."""
        return self.info.architecture

    def __copy__(self) -> "Subnet":
        """Subnet of the same network."""
        return dataclasses.replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Subnet":
        """Subnet with weights of its own; the run, which is only read, is the same."""
        report = copy.deepcopy(dict(self.info.report), memo)
        return Subnet(copy.deepcopy(self.network, memo), dataclasses.replace(self.info, report=report), self._run)

    def __reduce__(self) -> str:
        """Refuse to be pickled: the run and its images go with a subnet.

        Raises:
            TypeError: always; it is a ``UserError`` too.
        """
        raise PickleError("a Subnet cannot be pickled; write it with subnet.save(FOLDER), which load_subnet reads")

    def __repr__(self) -> str:
        accuracy, interval = (self.info.report.get(f"validation_{name}") for name in ("accuracy", "interval"))
        known = None if interval is None else interval["images"]
        measured = "" if accuracy is None else f", validation accuracy {format_accuracy(accuracy, known)}"
        return f"Subnet({format_quantity(self.info.report['macs'])} MACs{measured})"

    @checked
    def accuracy(self, split: Literal["validation", "test"] = "validation") -> float:
        """Share of the images of a split that the subnet classifies rightly.

        Raises:
            UserError: the images are with the clients of a real federation, or there are no test images.
        """
        if split == "validation" and "validation_accuracy" in self.info.report:
            return float(self.info.report["validation_accuracy"])
        images = self._run.test_images() if split == "test" else self._evaluator("images").held_out
        evaluator = dataclasses.replace(self._evaluator(f"accuracy({split!r})"), held_out=images)
        return evaluator.accuracy(self.network, self.info.architecture.resolution)

    @checked
    def measures(self, split: Literal["validation", "test"] = "validation") -> Measures:
        """Measures of the subnet on the images of a split: balanced accuracy, macro F1, recalls, calibration error.

        Raises:
            UserError: the images are with the clients of a real federation, there are no test images, or the run is
                private, and tells accuracy alone.
        """
        if self._run.config.privacy.noise:
            raise UserError(f"measures({split!r}) tells more than accuracy, and the run is private; take accuracy()")
        evaluator = self._evaluator(f"measures({split!r})")
        if split == "test":
            evaluator = dataclasses.replace(evaluator, held_out=self._run.test_images())
        return evaluator.predictions(self.network, self.info.architecture.resolution).measures()

    @checked
    def save(self, output: str | Path, *, sign: str | Path | None = None) -> Path:
        """Write ``subnet.safetensors`` and ``architecture.json`` into a folder, which ``load_subnet`` reads.

        Args:
            output: the folder.
            sign: PEM file of an Ed25519 private key that the folder is signed with.

        Raises:
            UserError: the folder is not empty, lies in that of a run or cannot be written, or the key is none.
        """
        folder, key = Path(output), read_keys(sign, None).sign
        check_output_folder(folder)
        check_outside_runs(folder)
        report = {**self.info.report, "output": str(folder)}
        info, origin = dataclasses.replace(self.info, report=report), subnet_provenance(self._run, None)
        save_subnet(folder, self.network, info, provenance=origin, key=key)
        return folder

    @checked
    def export(
        self,
        path: str | Path,
        *,
        precision: FilePrecision = "fp32",
        threads: int = 1,
        batch: int = 1,
        allow_uncalibrated: bool = False,
        temperature: TemperatureUse = "metadata",
        progress: bool = True,
    ) -> dict[str, Any]:
        """Export the subnet to a file of another runtime, verified on the validation images; return the report.

        Args:
            path: the file; ``.onnx``, ``.pt`` (TorchScript) or ``.pt2`` (an exported program).
            precision: fp32; of an ONNX file also fp16 or int8.
            threads: threads the file is timed with.
            batch: images a run it is timed with.
            allow_uncalibrated: export even a subnet that is not calibrated.
            temperature: fit the temperature of calibrated confidences on the validation images and tell it in the
                file's metadata, divide the logits by it, too (logits), or none.
            progress: show progress.

        Raises:
            UserError: a package is missing, the file exists, lies in the folder of a run or does not compute what the
                subnet computes.
        """
        check_outside_runs(Path(path))
        file, evaluator = Path(path), self._evaluator("export")
        asked = ExportSettings(
            format_of(file), precision, threads, batch, allow_uncalibrated=allow_uncalibrated, temperature=temperature
        )
        settings = export_of(self._run.config, asked)
        images = ExportImages(evaluator.calibration, evaluator.held_out, self._run.config.evaluation.batch_size)
        with progress_or_silence("exporting", progress) as listener:
            return export_subnet(file, self.network, self.info, images, settings, listener)

    def _evaluator(self, what: str) -> Evaluator:
        if not isinstance(self._run.evaluator, Evaluator):
            raise UserError(f"{what} needs images on this machine, and those of this run are with its clients")
        return self._run.evaluator


def read_trained_run(
    target: SearchTarget, checkpoint: Checkpoint, data_root: str | None, verify: VerifyKey | None = None
) -> TrainedRun:
    """Open the run that a search target was read from.

    Raises:
        UserError: its configuration is damaged.
    """
    folder = Path(str(target.run)).absolute()
    return TrainedRun(folder, target, read_run_config(folder), checkpoint, data_root, verify)
