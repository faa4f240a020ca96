"""What became of a trial, as a file. No torch."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supernet.architecture import architecture_from_json
from supernet.errors import UserError
from supernet.files import read_text, write_text


@dataclasses.dataclass(frozen=True)
class Measured:
    """A trial's network for one budget.

    Attributes:
        budget: most MACs.
        macs: that it has.
        params: that it has.
        validation_accuracy: on the images held out from the clients.
        test_accuracy: on the test images.
        search_seconds: that it took to find it.
        architecture: as JSON.
    """

    budget: int
    macs: int
    params: int
    validation_accuracy: float
    test_accuracy: float
    search_seconds: float
    architecture: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        label: of the method.
        seed: of the run.
        rounds: of training.
        compute: MACs of the clients' forward passes.
        bytes_up: that clients have sent.
        bytes_down: that they were sent.
        seconds: of its rounds, without evaluations.
        networks: by ascending budget; none where the method gives none.
        machine: where it ran.
    """

    label: str
    seed: int
    rounds: int
    compute: int
    bytes_up: int
    bytes_down: int
    seconds: float
    networks: Sequence[Measured]
    machine: str


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Write an outcome as JSON, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    write_text(path, json.dumps(dataclasses.asdict(outcome), indent=2) + "\n")


def read_outcome(path: Path) -> Outcome:
    """Read an outcome.

    Raises:
        UserError: the file cannot be read, or is none.
    """
    try:
        fields = json.loads(read_text(path))
        networks = [Measured(**network) for network in fields.pop("networks")]
        for network in networks:
            architecture_from_json(network.architecture)
        return Outcome(**fields, networks=networks)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; remove it, and the trial is measured again") from error
