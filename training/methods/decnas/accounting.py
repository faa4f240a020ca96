"""Costs of a search for its clients, beside the costs of a straightforward version of the same search.

The straightforward version trains every candidate on all clients that can run it, for the most rounds, in every
iteration: no groups, no early dropping, no dynamic rounds. Its messages have the size of a network's tensors, as with
the in-process engine, and its compute is counted as in ``training/clients/compute.py``. Both versions count the same
whole iterations.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.formats.json_fields import Fields, fields_of
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.formats.units import format_bytes, format_quantity
from fedpareto.supernet.common.storage.files import read_text
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.supernet.common.terminal.console import print_table, stderr
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.compute import training_macs
from fedpareto.training.config.client import ClientConfig

ACCOUNTING = "accounting.json"

#: Bytes of a value of a trained tensor.
_VALUE = 4


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of training: bytes the clients sent, bytes they were sent, and MACs of their forward passes."""

    bytes_up: int = 0
    bytes_down: int = 0
    compute: int = 0

    def __add__(self, other: "Costs") -> "Costs":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Costs(*(one + another for one, another in pairs))


NOTHING = Costs()


@dataclasses.dataclass(frozen=True)
class Account:
    """Account of a run at a checkpoint; an iteration counts once it is over.

    Attributes:
        macs: MACs of the current network.
        budget: MACs that it is to be shrunk to.
        search: costs of the search.
        straightforward_search: costs of its straightforward version.
        fine_tuning: costs of the fine-tuning.
        iterations: history of every iteration, as JSON values.
    """

    macs: int
    budget: int
    search: Costs
    straightforward_search: Costs
    fine_tuning: Costs
    iterations: Sequence[Mapping[str, Any]]

    def text(self) -> str:
        """Return the account as the text of ``accounting.json``."""
        body = {**dataclasses.asdict(self), "saved": _saved(self.search, self.straightforward_search)}
        return json.dumps(body, indent=2) + "\n"


def naive_cost(
    space: SearchSpace,
    architectures: Mapping[Architecture, Sequence[int]],
    images: Sequence[int],
    client: ClientConfig,
    rounds: int,
) -> Costs:
    """Return the costs of training every architecture on all its clients for a number of ``rounds``.

    Args:
        space: the search space.
        architectures: architectures, with the clients of each.
        images: number of images of every client of the federation.
        client: the local training.
        rounds: number of rounds of each architecture.
    """
    total = NOTHING
    for architecture, clients in architectures.items():
        message = _VALUE * sum(int(np.prod(shape)) for shape in tensor_shapes(space, architecture).values())
        macs = macs_of(space, architecture)
        compute = sum(training_macs(macs, images[one], client.epochs, client.batch) for one in clients)
        total += Costs(rounds * len(clients) * message, rounds * len(clients) * message, rounds * compute)
    return total


def print_accounting(folder: Path) -> None:
    """Print a run's ``accounting.json`` as a table, if it has one.

    Raises:
        UserError: it cannot be read, or a field is missing or of another type.
    """
    if not exists(folder / ACCOUNTING):
        return
    path = str(folder / ACCOUNTING)
    body = fields_of(parse_json(read_text(folder / ACCOUNTING), path), path)
    rows: list[tuple[str, ...]] = []
    for title, name in (
        ("search", "search"),
        ("all candidates on all clients", "straightforward_search"),
        ("fine-tuning", "fine_tuning"),
    ):
        costs = costs_of(body.within(name))
        sent = (format_bytes(costs.bytes_up), format_bytes(costs.bytes_down))
        rows.append((title, *sent, format_quantity(costs.compute)))
    saved = body.within("saved")
    rows.append(("saved in the search", *(f"{saved.number(one.name):.1%}" for one in dataclasses.fields(Costs))))
    title = f"what the clients' training cost, in {counted(len(body.each('iterations')), 'iteration')} of search"
    print_table(title, ("", "sent up", "sent down", "MACs of forward passes"), rows)
    macs, budget = body.whole("macs"), body.whole("budget")
    if macs > budget:
        stderr.print(
            f"the search ended before it met the budget of {format_quantity(budget)}: the network has "
            f"{format_quantity(macs)} MACs"
        )


def costs_of(fields: Fields) -> Costs:
    """Return the costs that a JSON object holds."""
    return Costs(*(fields.whole(one.name) for one in dataclasses.fields(Costs)))


def _saved(search: Costs, plain: Costs) -> dict[str, float]:
    """Return the shares of the straightforward version's costs that were saved; 0 where nothing was trained."""
    return {
        name: 1 - cost / would if (would := getattr(plain, name)) else 0.0
        for name, cost in dataclasses.asdict(search).items()
    }
