"""The file formats: how a network is written to each, and how a file is run in its runtime."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from search.export.onnx_file import INPUT, Images, at_precision, onnx_of, save_onnx
from search.export.settings import ExportSettings, Format
from search.export.torch_files import load_program, load_torchscript, save_program, save_torchscript
from search.onnx_model import open_session

#: Maps normalised images (N, C, side, side) to logits (N, classes).
Run = Callable[[Images], Images]


class Opened(NamedTuple):
    """An exported file in its runtime: a function that runs it, and the runtime's name and version."""

    run: Run
    runtime: str


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
    """Yield the file at ``path`` in its runtime, on ``threads`` threads of the CPU."""
    if form == "onnx":
        import onnxruntime  # noqa: PLC0415 - an extra

        session = open_session(path.read_bytes(), threads)
        yield Opened(lambda images: _only(session.run(None, {INPUT: images})), f"onnxruntime {onnxruntime.__version__}")
        return
    module = load_torchscript(path) if form == "torchscript" else load_program(path)

    def run(images: Images) -> Images:
        with torch.no_grad():
            logits: Images = module(torch.from_numpy(images)).numpy()
        return logits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield Opened(run, f"torch {torch.__version__}")
    finally:
        torch.set_num_threads(before)


def _only(outputs: list[Any]) -> Images:
    (logits,) = outputs
    array: Images = logits
    return array
