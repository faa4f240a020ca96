"""Linear baseline of a study: multinomial logistic regression on the pixels of all clients' images.

It shows the accuracy without a network and without a federation: the clients' images are in one place.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_yaml import from_mapping, read_yaml_mapping
from fedpareto.supernet.common.storage.files import check_writable
from fedpareto.supernet.common.storage.path_checks import reaching
from fedpareto.supernet.common.storage.sealed_file import read_sealed, write_sealed
from fedpareto.supernet.common.terminal.console import run_command
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.space_file import load_space
from fedpareto.training.config.methods.config_type import config_type
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.images import ImageSet
from fedpareto.training.data.run_images import preparation_of, with_validation
from fedpareto.training.data.sources import load_images
from fedpareto.training.engines.simulation.federation import new_simulation
from fedpareto.training.setup import with_data_defaults

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

_PROG = "linear-model"

#: File in a trial's folder.
RESULT = "linear.json"

#: Weights of the squared coefficients beside the mean loss of an image, from the strongest; validation images choose.
PENALTIES = (0.1, 0.01, 0.001)

#: Steps of L-BFGS at the most; a few hundred are enough for standardised pixels.
_STEPS = 1000

Pixels = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class LinearResult:
    """Result of a linear model.

    Attributes:
        macs: multiply–accumulates of one image: a product for every pixel value and class.
        params: number of weights, and one bias a class.
        penalty: the chosen one of ``PENALTIES``.
        validation_accuracy: accuracy on the images held out from the clients.
        test_accuracy: accuracy on the test images.
        seconds: time of the fit.
    """

    macs: int
    params: int
    penalty: float
    validation_accuracy: float
    test_accuracy: float
    seconds: float


def fit_linear(training: ImageSet, held_out: ImageSet, test: ImageSet) -> LinearResult:
    """Fit a model with every penalty; return the result of the one that is most accurate on the held-out images.

    Of equally accurate ones the strongest penalty wins. Every pixel value of every channel is standardised by its mean
    and deviation over the training images.

    Raises:
        UserError: all training images are of one class.
    """
    if bool((training.labels == training.labels[0]).all()):
        raise UserError("all images of the clients are of one class; a linear model tells two or more apart")
    started = time.perf_counter()
    pixels, mean, deviation = _standardised(training)
    models = [_fitted(pixels, training, penalty) for penalty in PENALTIES]
    seconds = time.perf_counter() - started
    held = (_pixels(held_out) - mean) / deviation
    accuracies = [float(model.score(held, held_out.labels.numpy())) for model in models]
    best = int(np.argmax(accuracies))
    reached = float(models[best].score((_pixels(test) - mean) / deviation, test.labels.numpy()))
    values, classes = pixels.shape[1], len(training.classes)
    return LinearResult(values * classes, (values + 1) * classes, PENALTIES[best], accuracies[best], reached, seconds)


def _pixels(images: ImageSet) -> Pixels:
    return images.loaded().flatten(1).numpy().astype(np.float32)


def _standardised(images: ImageSet) -> tuple[Pixels, Pixels, Pixels]:
    """Return pixels of mean 0 and deviation 1, and both; a value that never changes is left to be 0."""
    pixels = _pixels(images)
    mean = pixels.mean(axis=0, dtype=np.float64).astype(np.float32)
    deviation = pixels.std(axis=0, dtype=np.float64).astype(np.float32)
    deviation[deviation == 0] = 1
    return (pixels - mean) / deviation, mean, deviation


def _fitted(pixels: Pixels, images: ImageSet, penalty: float) -> "LogisticRegression":
    # A second of imports, and only here.
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    # The library weighs the sum of all losses, not their mean.
    model = LogisticRegression(C=1 / (penalty * len(images)), max_iter=_STEPS)
    return model.fit(pixels, images.labels.numpy())


def linear_of(config: RunConfig, listener: ProgressListener = SILENT) -> LinearResult:
    """Fit a linear model to the images that the clients of a run have, and return its result.

    Raises:
        UserError: the images are missing, or cannot be spread as the run asks for.
    """
    space = load_space(config.space)
    config = with_data_defaults(config, space)
    config = dataclasses.replace(config, data=with_validation(config.data, listener))
    federation = new_simulation(config, space, listener)
    data, split = federation.data, federation.split
    training = data.subset(torch.tensor(sorted(index for members in split.clients for index in members)))
    preparation = preparation_of(config, space)
    own = config.data
    test = load_images(own.name, own.root, "test", preparation, reading=own.reading, listener=listener)
    return fit_linear(training, data.subset(torch.tensor(split.validation)), test)


def write_linear(folder: Path, result: LinearResult) -> None:
    """Write a result into a trial's folder.

    Raises:
        UserError: it cannot be written.
    """
    write_sealed(folder / RESULT, dataclasses.asdict(result))


def read_linear(folder: Path) -> LinearResult:
    """Read the result in a trial's folder.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    fields = read_sealed(folder / RESULT)
    return LinearResult(
        macs=fields.whole("macs"),
        params=fields.whole("params"),
        penalty=fields.number("penalty", 0),
        validation_accuracy=fields.number("validation_accuracy", 0, 1),
        test_accuracy=fields.number("test_accuracy", 0, 1),
        seconds=fields.number("seconds", 0),
    )


@dataclasses.dataclass
class _Options:
    """Options of a linear trial's process.

    Attributes:
        config: configuration file of the run whose images are used.
        output: folder for the result.
    """

    config: str
    output: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a trial as a process of its own; exits as commands do."""
    run_command(_PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    options = options_parser(_PROG, "Fit a linear model to the images of a run.", _Options).parse(arguments)
    config = from_mapping(config_type(), read_yaml_mapping(Path(options.config)), options.config)
    folder = Path(options.output)
    check_writable(folder)
    result = linear_of(config)
    with reaching(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
    write_linear(folder, result)
