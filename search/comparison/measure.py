"""What a finished trial gives: a network for each budget, searched, calibrated and measured on images never seen."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache.entries import Entry
from cache.limits import Limits
from search.comparison.study import Trial
from search.searcher import search
from search.trained import Extraction, TrainedRun, open_run
from supernet.architecture import architecture_from_json
from supernet.errors import UserError
from supernet.files import read_text, write_text
from supernet.machine import machine
from training.federation import method_of
from training.run_folder import METRICS, read_run_cache, read_space
from training.trackers.metrics_file import read_records

#: Methods whose result is one network, at its own MACs.
_SINGLE = ("fedavg", "dfnas", "decnas")


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


def measure(trial: Trial, folder: Path, budgets: Sequence[int]) -> Outcome:
    """Measure the trial whose finished run is in ``folder``; its last checkpoint, as all have computed as much.

    Raises:
        UserError: a file of the run is damaged, or its images are missing.
    """
    space = read_space(folder)
    run = open_run(folder, space, "newest", None, test=True)
    state = run.checkpoint.state
    seconds = sum(record["seconds"] for record in read_records(folder / METRICS))
    found = _single(run, budgets) if trial.config.method in _SINGLE else _searched(run, budgets)
    networks = [_measured(run, budget, entry, taken) for budget, entry, taken in found]
    return Outcome(
        trial.label,
        trial.seed,
        state.round,
        state.compute,
        state.bytes_up,
        state.bytes_down,
        seconds,
        networks,
        machine(),
    )


def _searched(run: TrainedRun, budgets: Sequence[int]) -> list[tuple[int, Entry, float]]:
    """Return the fittest network within each budget and the seconds it took to find it."""
    cache = read_run_cache(run.folder, run.space)
    found = []
    for budget in budgets:
        started = time.perf_counter()
        answer = search(run.space, cache.fitness, Limits(macs=budget), cache.entries)
        found.append((budget, answer.entry, time.perf_counter() - started))
    return found


def _single(run: TrainedRun, budgets: Sequence[int]) -> list[tuple[int, Entry, float]]:
    """Return the method's own network at the least budget that it keeps, if it keeps one."""
    cache = read_run_cache(run.folder, run.space)
    (entry,) = method_of(run.config, run.space, cache).probes(run.checkpoint.state)
    kept = [budget for budget in budgets if entry.macs <= budget]
    return [(kept[0], entry, 0.0)] if kept else []


def _measured(run: TrainedRun, budget: int, entry: Entry, seconds: float) -> Measured:
    report = run.extract(entry, Extraction(), {}).info.report
    return Measured(
        budget,
        entry.macs,
        entry.params,
        report["validation_accuracy"],
        report["test_accuracy"],
        seconds,
        entry.architecture.to_json(),
    )


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
