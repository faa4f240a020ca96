"""Options of ``search-subnet``, and their checks before anything is searched. No torch."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from fedpareto.cache.costs.latency.table import check_conditions, read_table
from fedpareto.cache.plot import check_plot_path
from fedpareto.search.export.settings import ExportSettings, Format, TemperatureUse, check_export, runtime_of
from fedpareto.search.query.budgets import LIMITING, Budgets, check_batch, check_budgets
from fedpareto.search.query.subject import RunImages
from fedpareto.search.query.targets import read_targets
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.machine import machine
from fedpareto.supernet.common.storage.files import check_output, check_output_folder
from fedpareto.supernet.common.unused_options import refuse_unused

#: Options that are about a search.
_OF_SEARCH = ("targets", "fitness", "plot", "report")


@dataclasses.dataclass
class SearchOptions(Budgets):
    """Options of ``search-subnet``.

    Attributes:
        targets: YAML file of named budgets; all of them are answered in one table.
        space: preset name or YAML file of a search space; or give a run.
        run: folder of a trained run, whose subnet is extracted, calibrated and evaluated.
        data: the run's images.
        architecture: JSON file of the architecture to take out of the run, in place of budgets to search one for.
        checkpoint: which checkpoint of the run to use, best by validation or newest.
        calibration: BatchNorm's statistics from images of the clients that the server draws (pooled), from
            statistics that the clients measure themselves (federated), or none; auto is pooled, and federated where
            the images are with the clients, and a private run takes the server's validation images.
        finetune_epochs: local epochs every client trains on the subnet before it is calibrated.
        finetune_lr: learning rate of the first of them; a tenth of the run's when left out.
        exact_statistics: fine-tune a subnet of a private run, and take exact statistics of its clients' images;
            (ε, δ) does not cover them.
        test: also measure accuracy on the test images.
        confusion: also write which classes the subnet takes for which, as a table (confusion.csv) and a picture.
        export: also write the subnet in this format, verified: onnx, torchscript or exported-program.
        allow_uncalibrated: export even a subnet that is not calibrated.
        temperature: fit the temperature that makes the exported subnet's confidence fit its accuracy on the validation
            images, and tell it in the file's metadata; divide its logits by it, too; or none. A private run has none.
        threads: threads the exported subnet is timed with.
        check_latency: compare the exported subnet's latency with the table's; false for another machine's table.
        fitness: YAML file of fitness weights; those of the run's cache or of the space when left out.
        classes: outputs of the classifier, with a space; its own when left out.
        output: folder for architecture.json and, with a run, subnet.safetensors and the exported file.
        sign: PEM file of an Ed25519 private key that the folder of a run's subnet is signed with.
        verify: PEM file of a public key that the run must be signed with.
        plot: draw frontier, cache and choice to this .png, .svg or .pdf file.
        report: write one self-contained page about the choice to this .html file.
        seed: seed of a genetic search.
        json: print one JSON object instead of a table.
    """

    targets: str | None = None
    space: str | None = None
    run: str | None = None
    data: RunImages = dataclasses.field(default_factory=RunImages)
    architecture: str | None = None
    checkpoint: Literal["best", "newest"] = "best"
    calibration: Literal["auto", "pooled", "federated", "none"] = "auto"
    finetune_epochs: int = 0
    finetune_lr: float | None = None
    exact_statistics: bool = False
    test: bool = False
    confusion: bool = False
    export: Format | None = None
    allow_uncalibrated: bool = False
    temperature: TemperatureUse = "metadata"
    threads: int = 1
    check_latency: bool = True
    fitness: str | None = None
    classes: int | None = None
    output: str | None = None
    sign: str | None = None
    verify: str | None = None
    plot: str | None = None
    report: str | None = None
    seed: int = 0
    json: bool = False

    @property
    def output_folder(self) -> Path | None:
        """Folder that files are written to."""
        return None if self.output is None else Path(self.output)


def check_options(options: SearchOptions) -> dict[str, Budgets]:
    """Check the options; return the budgets to search for by name, which is empty for a single search.

    Raises:
        UserError: options do not go together or cannot be met; it names the option.
    """
    options.data.check(options.run)
    named = _named_budgets(options)
    if options.output_folder is not None:
        check_output_folder(options.output_folder)
    if options.seed < 0:
        raise UserError(f"seed is {options.seed}; it must be at least 0")
    if options.plot is not None:
        check_plot_path(Path(options.plot))
        check_output(Path(options.plot), overwrite=None)
    if options.report is not None:
        if Path(options.report).suffix != ".html":
            raise UserError(f"cannot write a page to {options.report}; name a .html file")
        check_output(Path(options.report), overwrite=None)
    _check_trained(options)
    refuse_unused(options, _conditions(options))
    for budgets in named.values():
        _check_export(options, budgets)
    return named


def _conditions(options: SearchOptions) -> dict[str, tuple[bool, str]]:
    """Return, for each option that is not always read, whether it is read now, and by which other option."""
    trained = (options.run is not None, "with --run, whose subnet is trained")
    exported = (options.export is not None, "with --export")
    return {
        "checkpoint": trained,
        "calibration": trained,
        "exact_statistics": trained,
        "sign": (
            options.run is not None and options.output is not None,
            "with --run and --output, whose files it signs",
        ),
        "verify": trained,
        "confusion": (
            options.run is not None and options.output is not None,
            "with --run and --output, into whose folder it is written",
        ),
        "finetune_lr": (options.finetune_epochs > 0, "with --finetune-epochs"),
        "allow_uncalibrated": exported,
        "temperature": exported,
        "threads": exported,
        "check_latency": (
            options.export is not None and (options.latency_table is not None or options.targets is not None),
            "with --export and --latency-table",
        ),
        "precision": (
            options.targets is None and (options.size_budget is not None or options.export is not None),
            "with --size-budget or --export; the file of --targets has its own",
        ),
        "batch": (
            options.targets is None
            and any(given is not None for given in (options.memory_budget, options.latency_table, options.export)),
            "with --memory-budget, --latency-table or --export; the file of --targets has its own",
        ),
        "seed": (options.architecture is None, "where something is searched, not with --architecture"),
    }


def export_settings(options: SearchOptions, budgets: Budgets) -> ExportSettings | None:
    """Return the settings of the export, None without one."""
    if options.export is None:
        return None
    return ExportSettings(
        options.export,
        budgets.precision,
        options.threads,
        budgets.batch,
        allow_uncalibrated=options.allow_uncalibrated,
        temperature=options.temperature,
    )


def _named_budgets(options: SearchOptions) -> dict[str, Budgets]:
    if options.architecture is not None:
        _check_given(options)
        return {"": options}
    if options.targets is None:
        check_budgets(options)
        return {"": options}
    alone = [name for name in (*LIMITING, "latency_table", "plot", "report") if getattr(options, name) is not None]
    if alone:
        raise UserError(f"--{alone[0].replace('_', '-')} does not go with --targets, whose file holds the budgets")
    return read_targets(Path(options.targets))


def _check_given(options: SearchOptions) -> None:
    """Refuse options of a search where the architecture is given."""
    searched = [name for name in (*LIMITING, "latency_table", *_OF_SEARCH) if getattr(options, name) is not None]
    if searched:
        raise UserError(
            f"--{searched[0].replace('_', '-')} does not go with --architecture, which leaves nothing to search"
        )
    if options.run is None:
        raise UserError("--architecture is taken out of a trained run: give --run FOLDER")
    check_batch(options)


def check_finetuning(epochs: int, lr: float | None) -> None:
    """Refuse settings of fine-tuning that are out of range.

    Raises:
        UserError: naming the setting.
    """
    if epochs < 0:
        raise UserError(f"finetune_epochs is {epochs}; it must be at least 0")
    if lr is not None and not 0 < lr < math.inf:
        raise UserError(f"finetune_lr is {lr}; it must be a positive number")


def _check_trained(options: SearchOptions) -> None:
    """Refuse options that need a trained subnet where there is no run."""
    check_finetuning(options.finetune_epochs, options.finetune_lr)
    if options.run is None and options.space is not None:
        trained = {"test": options.test, "finetune-epochs": options.finetune_epochs, "export": options.export}
        asked = [name for name, value in trained.items() if value]
        if asked:
            raise UserError(f"--{asked[0]} needs trained weights: give --run FOLDER instead of --space")
    if options.export is not None and options.output is None:
        raise UserError("--export needs a folder to write to: give --output FOLDER")


def _check_export(options: SearchOptions, budgets: Budgets) -> None:
    """Refuse an export that cannot be made, and a latency table that does not apply to the exported file."""
    settings = export_settings(options, budgets)
    if settings is None:
        return
    check_export(settings)
    if budgets.latency_table is None:
        return
    path = Path(budgets.latency_table)
    table = read_table(path)
    check_conditions(table, path, runtime=runtime_of(settings.format))
    if options.check_latency:
        remedy = "profile this machine, or export without a comparison: --check-latency false"
        check_conditions(table, path, remedy=remedy, machine=machine(), device="cpu", threads=options.threads)
