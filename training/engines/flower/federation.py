"""Federation that is connected over Flower: waits for its clients, learns their images' classes, makes its engine."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import space_to_mapping
from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.data.images import Normalisation, fixed_normalisation, normalisation_of_counts
from fedpareto.training.data.split import Census
from fedpareto.training.engines.flower.admission import ClientDescription, Plausible, bindings
from fedpareto.training.engines.flower.engine import FlowerEngine, wait_for
from fedpareto.training.engines.flower.evaluation import FederatedEvaluator
from fedpareto.training.engines.flower.exchange import Exchange
from fedpareto.training.engines.flower.relay_socket import LineLost
from fedpareto.training.engines.flower.roster import Roster
from fedpareto.training.engines.flower.superlink import FlowerLink, Link
from fedpareto.training.engines.flower.wire import Request
from fedpareto.training.engines.protocol import never
from fedpareto.training.evaluation.evaluator import NoEvaluator
from fedpareto.training.execution.profile import Profile
from fedpareto.training.shares import largest_weight

#: What a node is told of the configuration: nothing that names a place on the server.
_TOLD = ("rounds", "seed", "precision", "data", "partition", "clients", "client", "evaluation", "execution")


#: Largest share of one client in the normalisation of all, and the clients from which on it is bounded.
_SHARE, _ENOUGH = 0.5, 3


@dataclasses.dataclass(frozen=True)
class ConnectedFederation:
    """Federation of clients behind a SuperLink.

    Attributes:
        exchange: exchange of messages with them.
        roster: the clients that are connected.
        request: the header of every message, without its kind and jobs.
        split: their description of their images when the run started.
    """

    exchange: Exchange
    roster: Roster
    request: Request
    split: Census

    def labels(self) -> None:
        """Return None, as only the clients know the numbers of their images of each class."""

    def engine(
        self,
        config: RunConfig,
        space: SearchSpace,
        profile: Profile | None = None,
        should_stop: Callable[[], bool] = never,
    ) -> FlowerEngine:
        """Return the Flower engine; every client chooses the profile that suits its own machine."""
        del profile
        request = dataclasses.replace(
            self.request,
            space=space_to_mapping(space),
            classes=self.split.classes,
            normalisation=dataclasses.asdict(self.split.normalisation),
        )
        enough = math.ceil(config.flower.quorum * config.clients.per_round)
        return FlowerEngine(space, config.flower, self.exchange, self.roster, request, enough, should_stop)

    def evaluator(self, config: RunConfig, space: SearchSpace) -> "FederatedEvaluator | NoEvaluator":
        """Return an evaluator on the images that the clients hold out; one that asks nobody where that is withheld."""
        if config.privacy.withheld:
            return NoEvaluator()
        return FederatedEvaluator(self.engine(config, space), config, space)

    def on_device(self, device: torch.device) -> "ConnectedFederation":
        """Return the federation itself, as no image is here."""
        del device
        return self


@dataclasses.dataclass(frozen=True)
class UnaskedFederation:
    """Federation of a private run that is over: its clients, which have been asked for all that (ε, δ) covers.

    Attributes:
        split: their description of their images when the run started.
    """

    split: Census

    def labels(self) -> None:
        """Return None, as only the clients know the numbers of their images of each class."""

    def engine(
        self, config: RunConfig, space: SearchSpace, profile: Profile, should_stop: Callable[[], bool] = never
    ) -> NoReturn:
        """Refuse to ask the clients.

        Raises:
            UserError: always.
        """
        del config, space, profile, should_stop
        raise UserError("the clients of a private run are asked for nothing that (ε, δ) does not cover")

    def evaluator(self, config: RunConfig, space: SearchSpace) -> NoEvaluator:
        """Return an evaluator that measures nothing."""
        del config, space
        return NoEvaluator()

    def on_device(self, device: torch.device) -> "UnaskedFederation":
        """Return the federation itself, as no image is here."""
        del device
        return self


@contextlib.contextmanager
def opened_link(config: RunConfig) -> Iterator[FlowerLink | None]:
    """Yield the link that a run needs, None for a simulated run; nothing is connected yet.

    Raises:
        UserError: Flower is not installed, or its certificates are not named.
    """
    if config.engine == "in-process":
        yield None
        return
    link = FlowerLink(config.flower, "fedpareto")
    try:
        yield link
    finally:
        link.close()


def connect(
    link: Link, config: RunConfig, space: SearchSpace, listener: ProgressListener, census: Census | None = None
) -> ConnectedFederation:
    """Wait for the clients of a new run, or of the run with a ``census``; return their federation.

    Raises:
        UserError: too few clients are there in time.
    """
    mapping = config_to_mapping(config)
    told = {name: mapping[name] for name in _TOLD}
    # Limits of clients may be files of the server, too.
    told["clients"] = {name: told["clients"][name] for name in ("count", "per_round")}
    told["data"] = {name: value for name, value in told["data"].items() if name not in ("root", "download")}
    flower = config.flower
    # A node that is told the normalisation does not measure its pixels.
    known = dataclasses.asdict(fixed_normalisation(space.in_channels)) if config.privacy.withheld else {}
    request = Request("describe", flower.deadline, flower.wire_dtype, told, space_to_mapping(space), (), known, [])
    exchange = Exchange(link)
    # A run that was begun has settled its classes, and whose its clients' numbers are.
    begun = None if census is None or config.output is None else Path(config.output)
    plausible = Plausible.of(flower, 0 if census is None else len(census.classes))
    roster = Roster(link, exchange, request, config.clients.count, listener.remark, plausible, bindings(flower, begun))
    listener.report("connecting to the SuperLink", 0, 1)
    try:
        link.nodes()
    except LineLost as error:
        # Later it may come back; now it is more likely that an option is wrong.
        raise UserError(f"the SuperLink at {flower.address} cannot be used: {error}") from error
    if config.privacy.withheld:
        listener.remark(
            "clients of this private run are asked for clipped updates alone: no probe is measured; with "
            "--privacy.statistics exact a new run measures them, which (ε, δ) does not cover"
        )
        if space.norm == "batch":
            listener.remark(
                f"no subnet of {space.name} will be calibrated either, as BatchNorm needs clients' images for that, "
                "and uncalibrated ones guess; a space with norm: group or norm: none needs no calibration"
            )
    wanted = flower.min_clients or config.clients.count
    wait_for(roster, wanted, flower, lambda there: listener.report("waiting for clients", there, wanted))
    if census is None:
        fixed = fixed_normalisation(space.in_channels) if config.privacy.withheld else None
        census = _census(roster.described, config.clients.count, fixed)
    return ConnectedFederation(exchange, roster, request, census)


def _census(
    described: Mapping[int, ClientDescription], clients: int, normalisation: Normalisation | None = None
) -> Census:
    """Return the census that the run keeps of the connected clients; ``normalisation`` is measured if None."""
    if normalisation is None:
        examples = [description.examples for description in described.values()]
        counts = torch.tensor([description.pixels for description in described.values()], dtype=torch.int64)
        most = math.inf if len(described) < _ENOUGH else largest_weight(examples, _SHARE)
        normalisation = normalisation_of_counts(_sum(counts, examples, most))
    return Census(
        classes=_classes([description.classes for description in described.values()]),
        normalisation=normalisation,
        examples=[described[client].examples if client in described else 0 for client in range(clients)],
        validation=[described[client].validation if client in described else 0 for client in range(clients)],
    )


def _sum(counts: Tensor, examples: Sequence[int], most: float) -> Tensor:
    """Return the sum of histograms (clients, channels, 256), each lowered to what ``most`` images would have."""
    if math.isinf(most):
        # Exact: the sum of all histograms is that of all images.
        return counts.sum(dim=0)
    lowered = torch.tensor([min(1.0, most / count) for count in examples], dtype=torch.float64)
    return (counts * lowered[:, None, None]).sum(dim=0)


def _classes(lists: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the classes of the run: the classes of all clients together, sorted unless all have the same ones."""
    if len(set(lists)) == 1:
        return lists[0]
    return tuple(sorted({name for names in lists for name in names}))
