"""Settings of an export, and checks of them before any work is done. Does not import torch."""

import dataclasses
from pathlib import Path
from typing import Literal

from fedpareto.fitness.costs import FilePrecision
from fedpareto.search.runtimes.extras import require_onnx
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import option

Format = Literal["onnx", "torchscript", "exported-program"]

#: What becomes of the temperature of calibrated confidences: it is not fitted, it is told, or logits are divided by it.
TemperatureUse = Literal["none", "metadata", "logits"]

_SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt", "exported-program": ".pt2"}


class ExportError(UserError):
    """A subnet that cannot be exported, or an exported file that does not compute what the subnet computes."""


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """Settings of an export: format, precision, and the measurement of its latency.

    Attributes:
        format: ``onnx``, ``torchscript`` or ``exported-program``.
        precision: ``fp32``; with ``onnx`` also ``fp16`` or ``int8``.
        threads: of the runtime.
        batch: images a run of the latency measurement.
        allow_uncalibrated: write a network whose BatchNorm statistics were never set.
        temperature: ``metadata`` to fit one on the validation images and tell it, ``logits`` to divide the logits by it
            besides, or ``none``.
    """

    format: Format = "onnx"
    precision: FilePrecision = "fp32"
    threads: int = 1
    batch: int = 1
    allow_uncalibrated: bool = False
    temperature: TemperatureUse = "metadata"


def file_name(form: Format, precision: FilePrecision) -> str:
    """Return the name of an exported file, such as ``subnet.onnx``, ``subnet-int8.onnx`` or ``subnet.pt2``."""
    return f"subnet{'' if precision == 'fp32' else f'-{precision}'}{_SUFFIXES[form]}"


def format_of(path: Path) -> Format:
    """Format of a file by its suffix.

    Raises:
        ExportError: the suffix is none of a format.
    """
    for form, suffix in _SUFFIXES.items():
        if path.suffix == suffix:
            return form
    allowed = ", ".join(f"{suffix} ({form})" for form, suffix in _SUFFIXES.items())
    raise ExportError(f"cannot export to {path}; allowed suffixes: {allowed}")


def runtime_of(form: Format) -> str:
    """Return the runtime of a file's format: ``onnxruntime`` or ``torch``."""
    return "onnxruntime" if form == "onnx" else "torch"


def check_export(settings: ExportSettings) -> None:
    """Refuse settings that cannot be met.

    Raises:
        ExportError: the format does not come in the precision, or a count is less than 1.
        UserError: a package of the ``export`` extra is missing.
    """
    if settings.format != "onnx" and settings.precision != "fp32":
        raise ExportError(f"a file of {settings.format} is written in fp32 only; for {settings.precision} choose onnx")
    for name, value in (("threads", settings.threads), ("batch", settings.batch)):
        if value < 1:
            raise ExportError(f"{name} is {value}; it must be at least 1")
    if settings.format == "onnx":
        require_onnx()


def check_calibrated(method: str | None, settings: ExportSettings) -> None:
    """Refuse a network whose BatchNorm was not calibrated (``method`` is none), unless that is allowed.

    Raises:
        ExportError: naming the options that help.
    """
    if method in (None, "none") and not settings.allow_uncalibrated:
        raise ExportError(
            f"the subnet is not calibrated, its accuracy is that of chance; give "
            f"{option('calibration', 'pooled')} or federated, or "
            f"export it as it is with {option('allow-uncalibrated')}"
        )
