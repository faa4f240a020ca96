"""Export of a subnet in four steps: fold BatchNorm, write, verify, and only then give the file its name."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedpareto.search.export import deploy
from fedpareto.search.export.formats import write
from fedpareto.search.export.metadata import metadata_of
from fedpareto.search.export.settings import ExportSettings, check_calibrated, check_export
from fedpareto.search.export.verify import EFFORT, HeldOut, arrays, logits_of, verify
from fedpareto.search.runtimes.stopwatch import Effort
from fedpareto.search.subnet import SubnetInfo
from fedpareto.supernet.common.storage.files import check_output, read_text, replacing, write_text
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.networks.bn_folding import folded
from fedpareto.training.data.images import ImageSet
from fedpareto.training.evaluation.temperature import Temperature, fit_temperature

#: Images int8 ranges are set on, and how many of them are run at once: all feature maps are kept.
_INT8_IMAGES, _INT8_BATCH = 256, 32


@dataclasses.dataclass(frozen=True)
class ExportImages:
    """The images an export needs.

    Attributes:
        calibration: training images; int8 sets its ranges on them.
        validation: held-out images the file is verified on.
        batch_size: images a batch of the verification.
    """

    calibration: ImageSet
    validation: ImageSet
    batch_size: int


def export_subnet(
    path: Path,
    network: nn.Module,
    info: SubnetInfo,
    images: ExportImages,
    settings: ExportSettings,
    listener: ProgressListener,
    effort: Effort = EFFORT,
) -> dict[str, Any]:
    """Write ``network`` to ``path``, verified in its runtime, and return the report of the export.

    The file appears under its name only when it was verified; ``network`` is not changed.

    Args:
        path: the file; see ``file_name``.
        network: calibrated, in evaluation mode, on the CPU.
        info: description of the subnet.
        images: for int8 ranges and for the verification.
        settings: format, precision, and how latency is measured.
        listener: told of the steps.
        effort: effort that the latency is measured with.

    Raises:
        ExportError: the network is not calibrated, the settings cannot be met, or the file computes something else.
        UserError: a package is missing, or the file exists or cannot be written.
    """
    check_export(settings)
    check_output(path, overwrite=None)
    if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        check_calibrated(info.report.get("calibration", {}).get("method"), settings)
    resolution = info.architecture.resolution
    held_out = HeldOut(images.validation, info.normalisation, resolution, images.batch_size)
    temperature = None if settings.temperature == "none" else _fitted(network, held_out)
    if temperature is not None and settings.temperature == "logits":
        network = cooled(network, temperature.value)
    plain = folded(network).to(memory_format=torch.contiguous_format).requires_grad_(False)
    example = torch.zeros(2, info.space.in_channels, resolution, resolution)
    chosen = images.calibration.subset(torch.arange(min(_INT8_IMAGES, len(images.calibration))))
    calibration = arrays(chosen, _INT8_BATCH, resolution, info.normalisation)
    told = None
    if temperature is not None:
        told = {"value": temperature.value, "applied": settings.temperature == "logits"}
    what = f"exporting {settings.format} in {settings.precision}"
    with replacing(path) as temporary:
        listener.report(what, 0, 2)
        write(temporary, plain, example, metadata_of(info, settings.precision, told), settings, calibration)
        listener.report("verifying the file", 1, 2)
        report = verify(temporary, network, held_out, settings, effort)
        listener.report("verified", 2, 2)
    return {
        "format": settings.format,
        "precision": settings.precision,
        "file": str(path),
        "file_bytes": path.stat().st_size,
        **report,
        **_temperature_fields(temperature, settings),
    }


def cooled(network: nn.Module, temperature: float) -> nn.Module:
    """Return a copy of a network whose logits are divided by a temperature.

    The division is in the weights and the bias of its classifier, so that it costs nothing.
    """
    scaled = copy.deepcopy(network)
    *_, classifier = (layer for layer in scaled.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.div_(temperature)
    return scaled


def _fitted(network: nn.Module, held_out: HeldOut) -> Temperature | None:
    """Return the temperature of a network on held-out images; None of one whose logits are not finite."""
    found = logits_of(network, held_out)
    return fit_temperature(found, held_out.images.labels) if bool(found.isfinite().all()) else None


def _temperature_fields(temperature: Temperature | None, settings: ExportSettings) -> dict[str, Any]:
    if temperature is None:
        return {}
    return {"temperature": {**dataclasses.asdict(temperature), "applied": settings.temperature == "logits"}}


def write_deploy(folder: Path) -> Path:
    """Write ``deploy.py``, which classifies pictures with an exported ONNX file, to ``folder``; return its path.

    Raises:
        UserError: the folder cannot be written.
    """
    source = Path(deploy.__file__)
    write_text(folder / source.name, read_text(source))
    return folder / source.name
