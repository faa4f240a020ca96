"""File formats of exported networks: writing each of them, and running a file in its runtime."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fedpareto.search.export.deploy import INPUT, DeployError, Description, load_model, read_description
from fedpareto.search.export.onnx_file import Images, at_precision, onnx_of, save_onnx
from fedpareto.search.export.settings import ExportError, ExportSettings, Format
from fedpareto.search.export.torch_files import load_program, load_torchscript, save_program, save_torchscript

#: Maps normalised images (N, C, side, side) to logits (N, classes).
RunModel = Callable[[Images], Images]


class Opened(NamedTuple):
    """An exported file in its runtime.

    Attributes:
        run: runs the file.
        runtime: its name and version.
        description: the file's description of its input.
    """

    run: RunModel
    runtime: str
    description: Description


def write(
    path: Path,
    network: nn.Module,
    example: Tensor,
    metadata: Mapping[str, str],
    settings: ExportSettings,
    calibration: Iterable[Images],
) -> None:
    """Write a network in evaluation mode to ``path``.

    Args:
        path: the file.
        network: with contiguous weights.
        example: two or more images (N, C, side, side).
        metadata: goes into the file.
        settings: format and precision.
        calibration: batches of normalised training images; int8 alone reads them.
    """
    if settings.format == "torchscript":
        save_torchscript(path, network, example, metadata)
    elif settings.format == "exported-program":
        save_program(path, network, example, metadata)
    else:
        save_onnx(path, at_precision(onnx_of(network, example), settings.precision, calibration), metadata)


@contextlib.contextmanager
def opened(path: Path, form: Format, threads: int) -> Iterator[Opened]:
    """Open the file at ``path`` in its runtime, on ``threads`` CPU threads; ONNX files as devices open them.

    Raises:
        ExportError: the file cannot be opened, or does not say what its input is.
    """
    if form == "onnx":
        import onnxruntime  # noqa: PLC0415 - an extra

        with refused_by_deploy():
            session, description = load_model(path, threads)
        runtime = f"onnxruntime {onnxruntime.__version__}"
        yield Opened(lambda images: _only(session.run(None, {INPUT: images})), runtime, description)
        return
    module, metadata = load_torchscript(path) if form == "torchscript" else load_program(path)
    with refused_by_deploy():
        description = read_description(metadata, path)

    def run(images: Images) -> Images:
        with torch.no_grad():
            logits: Images = module(torch.from_numpy(images)).numpy()
        return logits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield Opened(run, f"torch {torch.__version__}", description)
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def refused_by_deploy() -> Iterator[None]:
    """Turn the errors of ``deploy.py`` in the block into an ``ExportError``."""
    try:
        yield
    except DeployError as error:
        raise ExportError(f"{error}; nothing is written") from error


def _only(outputs: list[Any]) -> Images:
    (logits,) = outputs
    array: Images = logits
    return array
