"""State of a run, as a checkpoint's ``state.json`` holds it: its values, their JSON form, and their checked reading."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.supernet.architecture import Architecture, architecture_from_json
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import Fields, fields_of
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.storage.files import read_text
from fedpareto.training.aggregation.update_bounds import PastRound
from fedpareto.training.traffic import NO_TRAFFIC, Traffic, spread

#: Since version 2 a checkpoint has digests of its files. What version 1 wrote is read without.
VERSION, WITHOUT_DIGESTS = 2, 1


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts by client: how often it has trained the smallest network and the largest it can run, without failing."""

    smallest: tuple[int, ...]
    largest: tuple[int, ...]

    @classmethod
    def zero(cls, clients: int) -> "Counts":
        """Return the counts before the first round."""
        return cls((0,) * clients, (0,) * clients)

    def after(self, smallest: Sequence[int], largest: Sequence[int]) -> "Counts":
        """Return the counts with one more for each of the given clients."""
        return Counts(
            tuple(count + smallest.count(client) for client, count in enumerate(self.smallest)),
            tuple(count + largest.count(client) for client, count in enumerate(self.largest)),
        )


@dataclasses.dataclass(frozen=True)
class Best:
    """Best round: the evaluated one with the highest mean accuracy of the probes on validation images.

    With another ``evaluation.metric`` the accuracy is the mean of that metric.
    """

    round: int
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Origin:
    """Origin of the scheduled training: the round and the compute of the run when it began, from which both count."""

    round: int = 0
    compute: int = 0


@dataclasses.dataclass(frozen=True)
class RunState:
    """State of a run: everything that it carries from one round to the next, except tensors.

    Attributes:
        round: number of rounds done.
        counts: every client's counts of the smallest and the largest network.
        trained: number of times that every cache entry was trained.
        failures: failed updates by kind.
        best: the best evaluated round so far.
        traffic: bytes of all messages so far, those of evaluations included.
        wandb_id: id of the wandb run that mirrors this one.
        exposure: exposure of every client in a private run, see ``accountant.py``; empty in others and before round 1.
        compute: multiply–accumulates of all forward passes that clients have trained with so far.
        method: state of the method, as JSON values.
        origin: origin of the scheduled training; None while a search precedes it.
        owed: record of the last round as a line of JSON, if its evaluation was due and has not been made: the run was
            stopped before it, and makes up for it when it is resumed.
        past: the last rounds, by which updates are judged; the newest last.
    """

    round: int
    counts: Counts
    trained: tuple[int, ...]
    failures: Mapping[str, int] = dataclasses.field(default_factory=dict)
    best: Best | None = None
    traffic: Traffic = NO_TRAFFIC
    wandb_id: str | None = None
    exposure: tuple[float, ...] = ()
    compute: int = 0
    method: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    origin: Origin | None = Origin()
    owed: str | None = None
    past: tuple[PastRound, ...] = ()


@dataclasses.dataclass(frozen=True)
class Body:
    """Content of ``state.json``.

    Attributes:
        version: version of the checkpoint's format.
        state: the run's state.
        config: the run's configuration as plain values.
        branches: architectures of the networks that train beside the supernet, by name.
    """

    version: int
    state: RunState
    config: Mapping[str, Any]
    branches: Mapping[str, Architecture]


def body_to_json(body: Body) -> dict[str, Any]:
    """Return the content of ``state.json`` as JSON values."""
    return {
        "version": body.version,
        "state": spread(dataclasses.asdict(body.state)),
        "config": body.config,
        "branches": {name: architecture.to_json() for name, architecture in body.branches.items()},
    }


def read_body(path: Path) -> Body:
    """Read a ``state.json``.

    Raises:
        UserError: it cannot be read, is of another version, or a field is missing, of another type or out of range.
    """
    fields = fields_of(parse_json(read_text(path), str(path)), str(path))
    version = fields.whole("version", 1)
    if version > VERSION:
        raise UserError(f"{path} has version {version}; this program reads {WITHOUT_DIGESTS} and {VERSION}")
    # Checkpoints from before there were searches have no branches.
    branches = fields.within("branches").values if "branches" in fields.values else {}
    return Body(
        version,
        _state(fields.within("state")),
        fields.within("config").values,
        {name: architecture_from_json(value) for name, value in branches.items()},
    )


def _state(fields: Fields) -> RunState:
    counts, failures = fields.within("counts"), fields.within("failures")
    known = spread({field.name: {"up": 0, "down": 0} for field in dataclasses.fields(RunState)})
    unknown = sorted(fields.values.keys() - known.keys())
    if unknown:
        raise UserError(f"{fields.source}: there is no field {fields.path}{unknown[0]}")
    return RunState(
        round=fields.whole("round"),
        counts=Counts(counts.wholes("smallest"), counts.wholes("largest")),
        trained=fields.wholes("trained"),
        failures={kind: failures.whole(kind) for kind in failures.values},
        best=_best(fields.within("best")) if fields.has("best") else None,
        traffic=Traffic(fields.whole("bytes_up"), fields.whole("bytes_down")),
        wandb_id=fields.text("wandb_id") if fields.has("wandb_id") else None,
        # Checkpoints from before there was privacy have no exposure,
        exposure=fields.numbers("exposure", 0) if "exposure" in fields.values else (),
        compute=fields.whole("compute"),
        method=fields.within("method").values,
        # nor, from before there were searches, an origin.
        origin=_origin(fields),
        owed=fields.text("owed") if fields.has("owed") else None,
        # Nor, from before updates were judged, a memory of rounds.
        past=tuple(map(_past_round, fields.each("past"))) if "past" in fields.values else (),
    )


def _best(fields: Fields) -> Best:
    return Best(fields.whole("round"), fields.number("accuracy", 0, 1))


def _past_round(fields: Fields) -> PastRound:
    return PastRound(fields.number("move", 0), fields.number("lr", 0), fields.number("loss"))


def _origin(fields: Fields) -> Origin | None:
    if "origin" not in fields.values:
        return Origin()
    if not fields.has("origin"):
        return None
    origin = fields.within("origin")
    return Origin(origin.whole("round"), origin.whole("compute"))
