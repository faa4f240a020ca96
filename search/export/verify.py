"""Verification that an exported file computes the same as the network, on real images and in its own runtime."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fedpareto.search.export.files import deployed_inputs, spread
from fedpareto.search.export.formats import Opened, RunModel, opened
from fedpareto.search.export.onnx_file import Images
from fedpareto.search.export.settings import ExportError, ExportSettings
from fedpareto.search.runtimes.stopwatch import Effort, measure
from fedpareto.supernet.common.machine import machine
from fedpareto.training.data.batches import plain_batches
from fedpareto.training.data.images import ImageSet, Normalisation

#: Validation pictures that go through the deployed path from their files, at most.
MOST_FILES = 200

#: How well a file's latency is measured.
EFFORT = Effort()

#: Largest error of an fp32 logit, relative to the largest logit. Folding and other kernels round differently:
#: a MobileNet trained on CIFAR-10 was 5e-7 off. A wrong layer is off by far more.
TOLERANCE = 1e-4

#: The same where pixels are resized to the network's resolution: torch and Pillow round that differently, and the
#: inputs of the two were up to 2e-5 apart.
RESIZED_TOLERANCE = 1e-3


def arrays(images: ImageSet, batch_size: int, resolution: int, normalisation: Normalisation) -> Iterator[Images]:
    """Yield every image once, in order, normalised, in batches (N, C, side, side) as runtimes take them."""
    for pixels, _ in plain_batches(images, batch_size, resolution, normalisation):
        yield np.ascontiguousarray(pixels.numpy())


class HeldOut(NamedTuple):
    """Images a file is verified on, how they are normalised, and how many are run at once."""

    images: ImageSet
    normalisation: Normalisation
    resolution: int
    batch_size: int

    def batches(self) -> Iterator[Images]:
        """Yield normalised images: the first alone, then all in batches."""
        first = self.images.subset(torch.arange(1))
        for images, size in ((first, 1), (self.images, self.batch_size)):
            yield from arrays(images, size, self.resolution, self.normalisation)


class Comparison(NamedTuple):
    """Comparison of a file's outputs with the network's.

    Attributes:
        max_abs_error: largest absolute error over all logits of all images; infinite if one is not finite.
        largest_logit: the network's largest logit, in absolute value.
        agreement: share of images for which both name the same class.
        accuracy: accuracy of the file.
        reference_accuracy: accuracy of the network.
        images: number of images.
    """

    max_abs_error: float
    largest_logit: float
    agreement: float
    accuracy: float
    reference_accuracy: float
    images: int


def verify(
    path: Path, network: nn.Module, held_out: HeldOut, settings: ExportSettings, effort: Effort = EFFORT
) -> dict[str, Any]:
    """Run the file at ``path`` beside the network in fp32; return the report of the comparison.

    Raises:
        ExportError: an fp32 file's logits differ by more than ``TOLERANCE`` of the largest, a file of any precision
            returns values that are not finite, or pictures in files become something else than in training.
    """
    with opened(path, settings.format, settings.threads) as file:
        result = compare(file.run, network, held_out)
        _refuse(result, settings, TOLERANCE)
        chosen = held_out._replace(images=spread(held_out.images, MOST_FILES))
        from_files = compare_files(file, network, chosen)
        resized = held_out.images.images.shape[-1] != held_out.resolution
        _refuse(from_files, settings, RESIZED_TOLERANCE if resized else TOLERANCE)
        latency = _latency(file.run, held_out, settings, effort) | {"runtime": file.runtime}
    return {
        "max_abs_error": result.max_abs_error,
        "top1_agreement": result.agreement,
        "images": result.images,
        "validation_accuracy": result.accuracy,
        "fp32_validation_accuracy": result.reference_accuracy,
        "files": {
            "images": from_files.images,
            "own": held_out.images.paths is not None,
            "top1_agreement": from_files.agreement,
            "accuracy": from_files.accuracy,
            "fp32_accuracy": from_files.reference_accuracy,
        },
        "latency": latency,
    }


def compare(run: RunModel, network: nn.Module, held_out: HeldOut) -> Comparison:
    """Compare the outputs of ``run`` with those of ``network`` in evaluation mode."""
    single, *batches = (_pair(run, network, images) for images in held_out.batches())
    logits, expected = (np.concatenate(columns) for columns in zip(*batches, strict=True))
    result = _comparison(logits, expected, held_out.images)
    return result._replace(max_abs_error=max(_error(*single), result.max_abs_error))


def compare_files(file: Opened, network: nn.Module, held_out: HeldOut) -> Comparison:
    """Compare outputs on picture files, read as a device reads them, with ``network``'s outputs on training's pixels.

    Raises:
        ExportError: a device refuses a file, or gets other pixels from it than training has.
    """
    logits = np.concatenate([file.run(images) for images in deployed_inputs(held_out.images, file.description)])
    batches = arrays(held_out.images, held_out.batch_size, held_out.resolution, held_out.normalisation)
    return _comparison(logits, np.concatenate([_reference(network, images) for images in batches]), held_out.images)


def logits_of(network: nn.Module, held_out: HeldOut) -> Tensor:
    """Return a network's logits for all held-out images in order, (N, classes)."""
    images = arrays(held_out.images, held_out.batch_size, held_out.resolution, held_out.normalisation)
    return torch.from_numpy(np.concatenate([_reference(network, batch) for batch in images]))


def _comparison(logits: Images, expected: Images, images: ImageSet) -> Comparison:
    labels, classes, expected_classes = images.labels.numpy(), logits.argmax(axis=1), expected.argmax(axis=1)
    return Comparison(
        max_abs_error=_error(logits, expected),
        largest_logit=float(np.abs(expected).max()),
        agreement=float((classes == expected_classes).mean()),
        accuracy=float((classes == labels).mean()),
        reference_accuracy=float((expected_classes == labels).mean()),
        images=len(labels),
    )


def _pair(run: RunModel, network: nn.Module, images: Images) -> tuple[Images, Images]:
    return run(images), _reference(network, images)


def _reference(network: nn.Module, images: Images) -> Images:
    with torch.inference_mode():
        logits: Images = network(torch.from_numpy(images).contiguous(memory_format=torch.channels_last)).numpy()
    return logits


def _error(logits: Images, expected: Images) -> float:
    error = float(np.abs(logits - expected).max())
    return error if np.isfinite(error) else math.inf


def _refuse(result: Comparison, settings: ExportSettings, tolerance: float) -> None:
    what = f"the {settings.format} file does not compute what the subnet computes"
    if math.isinf(result.max_abs_error):
        raise ExportError(f"{what}: a logit is not finite; nothing is written")
    if settings.precision == "fp32" and result.max_abs_error > tolerance * result.largest_logit:
        raise ExportError(
            f"{what}: logits of up to {result.largest_logit:.3g} differ by {result.max_abs_error:.3g}, "
            f"more than {tolerance:g} of the largest; nothing is written"
        )


def _latency(run: RunModel, held_out: HeldOut, settings: ExportSettings, effort: Effort) -> dict[str, Any]:
    channels = held_out.images.images.shape[1]
    shape = (settings.batch, channels, held_out.resolution, held_out.resolution)
    generator = np.random.default_rng(0)
    images = generator.standard_normal(shape, dtype=np.float32)
    timing = measure([lambda: run(images)], effort, generator)[0]
    return {**timing._asdict(), "threads": settings.threads, "batch": settings.batch, "machine": machine()}
