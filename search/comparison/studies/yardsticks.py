"""Yardsticks of a study: baselines without shared weights, without a federation, or without a network. No torch.

They tell what a supernet is worth. Their trials run like those of methods: ``fedavg`` of the fittest network within
each budget, a run for each, and a linear model. The runs of one kind make a row of the table.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from fedpareto.search.comparison.results.outcome import TrialResult
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_values import typed
from fedpareto.supernet.common.formats.units import format_quantity, parse_quantity
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.methods.fedavg import FEDAVG
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.rules.method_defaults import adjustment_of, with_adjustment
from fedpareto.training.config.rules.unused_settings import read_only
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig

#: What trains the one network of a yardstick, given as its setting ``architecture``.
ONE_NETWORK = FEDAVG

YardstickKind = Literal["alone", "share", "central", "linear"]

KINDS: tuple[YardstickKind, ...] = get_args(YardstickKind)

#: Kinds whose runs train one network for each budget.
TRAINED: tuple[YardstickKind, ...] = ("alone", "share", "central")

#: Kinds that the price of sharing is told by: federated training of a network alone.
PRICED: tuple[YardstickKind, ...] = ("alone", "share")


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """A baseline that a trial measures.

    Attributes:
        kind: alone (the whole compute for one network), share (an equal part of it, so that the networks of all
            budgets together take what one supernet does), central (as alone, with all clients' images in one place) or
            linear (logistic regression on the pixels).
        budget: MACs within which its network is the fittest; None of a linear model.
    """

    kind: YardstickKind
    budget: int | None = None

    @property
    def label(self) -> str:
        """Label of its trials."""
        if self.budget is None:
            return row_label(self.kind)
        return f"{ONE_NETWORK.name}-{_budget_words(self.budget)}-{self.kind}"


def row_label(kind: YardstickKind) -> str:
    """Return the label of a kind's row in the table."""
    return "linear" if kind == "linear" else f"{ONE_NETWORK.name}-{kind}"


def yardsticks_of(kinds: Sequence[YardstickKind], budgets: Sequence[int]) -> list[Yardstick]:
    """Return every yardstick of a study: one for each budget of the kinds that train a network."""
    return [Yardstick(kind, budget) for kind in kinds for budget in (budgets if kind in TRAINED else [None])]


def read_kinds(value: object, where: str) -> tuple[YardstickKind, ...]:
    """Return the kinds that a study asks for: ``true`` is all of them, ``false`` or null none.

    Args:
        value: value of the field.
        where: name of the field in errors.

    Raises:
        UserError: it is something else, or an empty list.
    """
    if value is None or isinstance(value, bool):
        return KINDS if value else ()
    texts = typed(value, tuple[str, ...], where)
    unknown = [text for text in texts if text not in KINDS]
    if unknown or not texts:
        found = f"has {unknown[0]!r}" if unknown else "is empty"
        raise UserError(f"{where} {found}; give true for all, or some of: {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in texts)


def check_labels(labels: Sequence[str], yardsticks: Sequence[Yardstick], where: str) -> None:
    """Refuse a method with the name of a yardstick.

    Raises:
        UserError: naming it.
    """
    taken = {name for each in yardsticks for name in (each.label, row_label(each.kind))}
    for label in labels:
        if label in taken:
            raise UserError(f"{where}: methods.{label} is called what a yardstick is; give the method another name")


def yardstick_config(config: RunConfig, yardstick: Yardstick, shares: int) -> RunConfig:
    """Return the configuration of a yardstick's run, without its network, which is found later.

    Args:
        config: configuration of ``fedavg`` with the study's common settings; those it would not read are left out.
        yardstick: the baseline.
        shares: number of parts that the compute is divided into for the kind share.

    Raises:
        UserError: the images are with connected clients, and are to be in one place.
    """
    if yardstick.kind == "central":
        config = _pooled(config)
    client = config.client
    if yardstick.kind in PRICED and client.logit_adjustment is None and client.imbalance is None:
        # What a supernet is compared with has the default method's loss: the price is that of sharing alone.
        config = with_adjustment(config, adjustment_of(RunConfig.method))
    return read_only(with_compute(config, yardstick, shares, config.compute))


def with_compute(config: RunConfig, yardstick: Yardstick | None, shares: int, compute: str | None) -> RunConfig:
    """Return ``config`` with the part of the study's ``compute`` that its trial has."""
    if compute is not None and yardstick is not None and yardstick.kind == "share":
        compute = str(parse_quantity(compute) // shares)
    return dataclasses.replace(config, compute=compute)


def _pooled(config: RunConfig) -> RunConfig:
    """Return the run with the images of all clients in one place, without limits, server momentum and privacy.

    A round is a pass over all images, so that the learning rate falls in as many steps as there are passes.
    """
    # Shares of all images, by clients' strength, are all images.
    whole = config.clients.data == "proportional"
    return dataclasses.replace(
        config,
        partition=PartitionConfig(scheme="iid") if whole else config.partition,
        clients=ClientsConfig(count=config.clients.count, per_round=1, data="pooled"),
        client=dataclasses.replace(config.client, epochs=1),
        server=ServerConfig(),
        privacy=RunConfig().privacy,
    )


def rows_of(
    kinds: Sequence[YardstickKind], budgets: Sequence[int], outcomes: Mapping[Yardstick, Sequence[TrialResult]]
) -> list[TrialResult]:
    """Join the runs of every kind and seed into one outcome with a network for each budget.

    Args:
        kinds: kinds of yardsticks in the study.
        budgets: budgets of the study.
        outcomes: outcomes of each yardstick, of any seeds.
    """
    found = []
    for kind in kinds:
        parts = [(each, outcome) for each, several in outcomes.items() if each.kind == kind for outcome in several]
        for seed in sorted({outcome.seed for _, outcome in parts}):
            found.append(_together(kind, budgets, [part for part in parts if part[1].seed == seed]))
    return found


def _together(
    kind: YardstickKind, budgets: Sequence[int], parts: Sequence[tuple[Yardstick, TrialResult]]
) -> TrialResult:
    outcomes = [outcome for _, outcome in parts]
    networks = [
        dataclasses.replace(network, budget=budget)
        for each, outcome in parts
        for budget in (budgets if each.budget is None else [each.budget])
        for network in outcome.networks
    ]
    sums = {
        name: sum(getattr(outcome, name) for outcome in outcomes)
        for name in ("rounds", "compute", "bytes_up", "bytes_down", "seconds")
    }
    return dataclasses.replace(
        outcomes[0], label=row_label(kind), networks=sorted(networks, key=lambda network: network.budget), **sums
    )


def _budget_words(budget: int) -> str:
    """Return a budget in four digits if they are exact, else with all its digits."""
    text = format_quantity(budget)
    return text if parse_quantity(text) == budget else str(budget)
