"""Delivery of a subnet to a device: the trained subnet, its files, and the export with its checks."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.search.export.export import ExportImages, export_subnet, write_deploy
from fedpareto.search.export.settings import ExportSettings, file_name
from fedpareto.search.extraction.measured import write_confusion
from fedpareto.search.extraction.opened_run import Extraction, OpenedRun
from fedpareto.search.extraction.provenance import subnet_provenance
from fedpareto.search.query.answering import SearchOutcome
from fedpareto.search.query.private_runs import export_of
from fedpareto.search.subnet import save_subnet
from fedpareto.supernet.common.storage.signatures import SigningKey
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.evaluation.evaluator import Evaluator


@dataclasses.dataclass(frozen=True)
class Delivery:
    """Delivery that is asked for: the treatment of the subnet, its export and its checks.

    Attributes:
        extraction: fine-tuning and calibration of the subnet.
        export: settings of its export, None if it is not exported.
        check_latency: whether its latency is compared with the table's.
        confusion: whether its confusion matrices are written beside it.
        key: key that its folder is signed with, None if it is not signed.
        command: words of the command line, for its provenance; None from Python.
    """

    extraction: Extraction
    export: ExportSettings | None
    check_latency: bool
    confusion: bool = False
    key: SigningKey | None = None
    command: Sequence[str] | None = None


def write_subnet(
    run: OpenedRun, answered: SearchOutcome, delivery: Delivery, output: Path | None, listener: ProgressListener
) -> dict[str, Any]:
    """Extract an answer's subnet, write it to the folder ``output`` and export it; return the completed report.

    Raises:
        UserError: a file cannot be written, or an exported one does not do what the subnet does.
    """
    subnet = run.extract(answered.answer.entry, delivery.extraction, answered.report, listener)
    report = dict(subnet.info.report)
    if output is None:
        return report
    report["output"] = str(output)
    files: list[str] = []
    for split, counts in subnet.predictions.items() if delivery.confusion else ():
        files += write_confusion(output, split, counts, subnet.info.classes)
    # Where the images are with the clients there is nothing to verify a file on; the command has refused it.
    if delivery.export is not None and isinstance(run.evaluator, Evaluator):
        images = ExportImages(run.evaluator.calibration, run.evaluator.held_out, run.config.evaluation.batch_size)
        file = output / file_name(delivery.export.format, delivery.export.precision)
        files.append(file.name)
        settings = export_of(run.config, delivery.export)
        report["export"] = export_subnet(file, subnet.network, subnet.info, images, settings, listener)
        if delivery.export.format == "onnx":
            script = write_deploy(output)
            report["export"]["script"] = str(script)
            if delivery.key is not None:
                # Who edits the script on a device is refused nothing, but where all is signed for, it is too.
                files.append(script.name)
        if delivery.check_latency:
            report["export"] |= _prediction(answered, report)
    info, origin = dataclasses.replace(subnet.info, report=report), subnet_provenance(run, delivery.command)
    save_subnet(output, subnet.network, info, files, origin, delivery.key)
    return report


def _prediction(answered: SearchOutcome, report: Mapping[str, Any]) -> dict[str, float]:
    """Return the table's latency of the subnet, and its error relative to the measured latency."""
    if "latency" not in answered.report:
        return {}
    predicted, measured = answered.report["latency"], report["export"]["latency"]["ms"]
    return {"predicted_ms": predicted, "prediction_error": predicted / measured - 1}
