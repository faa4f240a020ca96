"""Result of a trial, as a JSON file. No torch."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpareto.supernet.architecture import architecture_from_json
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import Fields
from fedpareto.supernet.common.storage.sealed_file import read_sealed, write_sealed


@dataclasses.dataclass(frozen=True)
class MeasuredNetwork:
    """A trial's network for one budget.

    Attributes:
        budget: most MACs allowed.
        macs: its MACs.
        params: its parameters.
        validation_accuracy: accuracy on the images held out from the clients.
        test_accuracy: accuracy on the test images.
        search_seconds: time of the search that found it.
        architecture: its architecture as JSON; None for a linear model.
    """

    budget: int
    macs: int
    params: int
    validation_accuracy: float
    test_accuracy: float
    search_seconds: float
    architecture: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """Result of a trial: one method or yardstick, trained with one seed.

    Attributes:
        label: label of the method.
        seed: seed of the run.
        rounds: rounds of training.
        compute: MACs of the clients' forward passes.
        bytes_up: bytes that clients have sent.
        bytes_down: bytes that were sent to them.
        seconds: time of its rounds, without evaluations.
        networks: its networks by ascending budget; none where the method gives none.
        machine: the machine it ran on.
        budgets: budgets of the study, or of the yardstick; none in results of older programs.
    """

    label: str
    seed: int
    rounds: int
    compute: int
    bytes_up: int
    bytes_down: int
    seconds: float
    networks: Sequence[MeasuredNetwork]
    machine: str
    budgets: Sequence[int] = ()


def write_outcome(path: Path, outcome: TrialResult) -> None:
    """Write an outcome as JSON, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    write_sealed(path, dataclasses.asdict(outcome))


def read_outcome(path: Path) -> TrialResult:
    """Read an outcome.

    Raises:
        UserError: the file cannot be read, or is none.
    """
    try:
        fields = read_sealed(path)
        return TrialResult(
            label=fields.text("label"),
            seed=fields.whole("seed"),
            rounds=fields.whole("rounds"),
            compute=fields.whole("compute"),
            bytes_up=fields.whole("bytes_up"),
            bytes_down=fields.whole("bytes_down"),
            seconds=fields.number("seconds", 0),
            networks=[_measured(network) for network in fields.each("networks")],
            machine=fields.text("machine"),
            budgets=fields.wholes("budgets") if fields.has("budgets") else (),
        )
    except UserError as error:
        raise UserError(f"{path} is damaged; remove it, and the trial is measured again ({error})") from error


def _measured(fields: Fields) -> MeasuredNetwork:
    architecture = None if fields.value("architecture") is None else dict(fields.within("architecture").values)
    if architecture is not None:
        architecture_from_json(architecture)
    return MeasuredNetwork(
        budget=fields.whole("budget"),
        macs=fields.whole("macs"),
        params=fields.whole("params"),
        validation_accuracy=fields.number("validation_accuracy", 0, 1),
        test_accuracy=fields.number("test_accuracy", 0, 1),
        search_seconds=fields.number("search_seconds", 0),
        architecture=architecture,
    )
