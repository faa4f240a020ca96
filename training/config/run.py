"""The configuration of a run: typed, complete, written to ``config.yaml`` and read back."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.supernet.common.storage.digests import DamagedError, check_file
from fedpareto.supernet.common.storage.files import write_text
from fedpareto.supernet.common.terminal.words import command, counted
from fedpareto.training.config.bounds import bounded, check_bounds
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.config.execution import ExecutionConfig, PrecisionChoice
from fedpareto.training.config.flower import FlowerConfig
from fedpareto.training.config.methods import (
    CoTrainConfig,
    DecNasConfig,
    DeepFedNasConfig,
    DfnasConfig,
    FedAvgConfig,
    FedParetoConfig,
)
from fedpareto.training.config.methods.registry import METHODS, MethodName
from fedpareto.training.config.methods.spec import MethodSpec
from fedpareto.training.config.partition import NATURAL, SHARING, PartitionConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.server import LARGEST_WEIGHT, ServerConfig
from fedpareto.training.config.tracking import TrackingConfig

#: Share by which runs may miss the compute they were asked for and still count as equal.
EQUAL_COMPUTE = 0.01

EngineName = Literal["in-process", "flower"]


#: Rules of aggregation that compare an entry's clients, of which there must be so many.
_COMPARING, _COMPARED = ("median", "trimmed", "krum"), 3


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A federated training run.

    Attributes:
        space: preset name or YAML file of the search space.
        output: folder of the run; runs/SPACE-DATA-seedN when left out.
        cache: cache file; a cache of 60 entries is built when left out.
        fitness: YAML file of fitness weights for the cache that is built.
        init: run, or checkpoint of one, whose supernet this one begins with; of a run its best checkpoint.
        rounds: rounds of training.
        compute: MACs of all clients' forward passes that training may take, e.g. 50T; ends a run in place of rounds.
        seed: of every random draw of the run.
        engine: in-process (all clients simulated here) or flower (real ones, connected to a SuperLink).
        method: of training, by name; ``config/methods`` has them.
        device: auto, cpu, cuda or cuda:N.
        precision: fp32, tf32, bf16 or fp16, or auto: the fastest of those that keep the accuracy (all but fp16,
            which older GPUs are measured with in place of bf16).
        data: the images.
        partition: how they are spread over the clients.
        clients: the federation.
        client: local training.
        server: aggregation.
        fedpareto: the method fedpareto.
        deepfednas: the method deepfednas.
        fedavg: the network of the method fedavg.
        cotrain: the method cotrain.
        dfnas: the method dfnas.
        decnas: the method decnas.
        privacy: clipping and noise of the clients' updates, none unless asked for.
        evaluation: probes on validation images.
        checkpoint: what is kept to resume from.
        tracking: where the run is reported.
        execution: how clients' steps run; what is left out is chosen by measurement.
        flower: the SuperLink, for the engine flower.
    """

    space: str = "mobilenet-tiny"
    output: str | None = None
    cache: str | None = None
    fitness: str | None = None
    init: str | None = None
    rounds: int = bounded(100, least=1)
    compute: str | None = None
    seed: int = bounded(0, least=0)
    engine: EngineName = "in-process"
    method: MethodName = "fedpareto"
    device: str = "auto"
    precision: PrecisionChoice = "auto"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    partition: PartitionConfig = dataclasses.field(default_factory=PartitionConfig)
    clients: ClientsConfig = dataclasses.field(default_factory=ClientsConfig)
    client: ClientConfig = dataclasses.field(default_factory=ClientConfig)
    server: ServerConfig = dataclasses.field(default_factory=ServerConfig)
    fedpareto: FedParetoConfig = dataclasses.field(default_factory=FedParetoConfig)
    deepfednas: DeepFedNasConfig = dataclasses.field(default_factory=DeepFedNasConfig)
    fedavg: FedAvgConfig = dataclasses.field(default_factory=FedAvgConfig)
    cotrain: CoTrainConfig = dataclasses.field(default_factory=CoTrainConfig)
    dfnas: DfnasConfig = dataclasses.field(default_factory=DfnasConfig)
    decnas: DecNasConfig = dataclasses.field(default_factory=DecNasConfig)
    privacy: PrivacyConfig = dataclasses.field(default_factory=PrivacyConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig)
    flower: FlowerConfig = dataclasses.field(default_factory=FlowerConfig)

    def __post_init__(self) -> None:
        _check_finite(complete_mapping(self))
        if self.partition.scheme != NATURAL or self.engine == "flower":
            self.clients.check_drawn()
        wanted = self.flower.min_clients
        if wanted is not None and wanted > self.clients.count:
            raise UserError(f"flower.min_clients is {wanted}, more than the {self.clients.count} of clients.count")
        check_bounds(self)
        if self.compute is not None:
            parse_quantity(self.compute)
        if self.privacy.clip and self.server.weight_by_examples:
            raise UserError(
                "server.weight_by_examples is on with privacy.clip; weights that depend on the clients' images are not "
                "private: turn one of them off"
            )
        self._check_aggregation()
        spec = self.spec
        if spec.settings is not None and not isinstance(getattr(self, spec.name, None), spec.settings):
            raise UserError(f"a RunConfig has no settings of method {spec.name}; make it by config_type()")
        if self.privacy.clip:
            self._check_private(spec)
        if self.privacy.noise == "auto" and self.compute is not None:
            raise UserError(
                f"privacy.noise is auto with compute {self.compute}, which makes a number of rounds that is not known "
                "beforehand; end the run by rounds, or give privacy.noise a number"
            )
        if spec.check is not None:
            spec.check(self)
        if self.engine == "flower" and self.clients.data != "independent":
            raise UserError(
                f"clients.data {self.clients.data} is for simulations; connected clients have the images they have"
            )
        if self.clients.data == "proportional" and self.partition.scheme not in SHARING:
            raise UserError(
                f"clients.data proportional does not go with partition.scheme {self.partition.scheme}; valid: "
                + ", ".join(SHARING)
            )
        if self.clients.data == "pooled":
            self._check_pooled()

    def _check_aggregation(self) -> None:
        rule, hostile, drawn = self.server.aggregation, self.server.hostile, self.clients.per_round
        if rule in _COMPARING and drawn < _COMPARED:
            raise UserError(
                f"clients.per_round is {drawn} with server.aggregation {rule}, which compares at least "
                f"{counted(_COMPARED, 'client')}: draw more, or take server.aggregation clipped"
            )
        if rule == "krum" and hostile is not None and drawn < 2 * hostile + 3:
            raise UserError(
                f"server.hostile is {hostile} and clients.per_round {drawn}; krum holds against at most "
                f"{(drawn - 3) // 2} of them (clients.per_round must be at least 2·server.hostile + 3)"
            )

    def _check_pooled(self) -> None:
        if self.privacy.clip:
            raise UserError(
                "clients.data is pooled with privacy.clip; an account of privacy is of clients that are drawn from "
                "many: turn one of them off"
            )

    def _check_private(self, spec: MethodSpec) -> None:
        if not spec.private:
            private = [each.name for each in METHODS.everything() if each.private]
            raise UserError(f"method {self.method} does not go with privacy.clip; private are: {', '.join(private)}")
        for name, value in (("clients.sampler", self.clients.sampler), ("server.aggregation", self.server.aggregation)):
            own = {"clients.sampler": ClientsConfig.sampler, "server.aggregation": ServerConfig.aggregation}[name]
            if value != own:
                raise UserError(
                    f"{name} is {value} with privacy.clip; an account of privacy is of {own} alone: leave one of them "
                    "out"
                )

    @property
    def largest_weight(self) -> float:
        """β of the largest network in the first round, whether or not it was chosen."""
        if self.server.largest_weight is not None:
            return self.server.largest_weight
        many = self.clients.per_round
        # The noise is for the largest weight: what it does not cover would have 9 times as much and more.
        return 1 / many if self.privacy.noise and many > 1 else LARGEST_WEIGHT

    @property
    def spec(self) -> MethodSpec:
        """Specification of the run's method.

        Raises:
            UserError: there is no such method, or it cannot be loaded.
        """
        return METHODS.get(self.method)

    @classmethod
    def check_mapping(cls, mapping: Mapping[str, Any]) -> None:
        """Refuse a mapping of settings whose method is not known here, before its settings are found unknown.

        Raises:
            UserError: naming the method.
        """
        method = mapping.get("method")
        if isinstance(method, str):
            METHODS.check(method)


def complete_mapping(config: RunConfig) -> dict[str, Any]:
    """Return every setting as plain YAML/JSON values."""
    return {name: _plain(value) for name, value in dataclasses.asdict(config).items()}


def config_to_mapping(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as plain YAML/JSON values.

    The settings of methods that others have registered are among them for runs of that method, or where they were
    given: other runs can be read where those methods are not installed.
    """
    always, defaults = {field.name for field in dataclasses.fields(RunConfig)} | {config.method}, type(config)()
    return {
        name: value
        for name, value in complete_mapping(config).items()
        if name in always or getattr(config, name) != getattr(defaults, name)
    }


def by_full_name(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested groups of settings by their full names, such as ``client.lr``."""
    values: dict[str, Any] = {}
    for name, value in mapping.items():
        inner = by_full_name(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        values |= inner
    return values


def write_config(path: Path, config: RunConfig) -> None:
    """Write the complete configuration; ``train-supernet --config PATH`` runs it again."""
    write_text(path, yaml.safe_dump(config_to_mapping(config), sort_keys=False))


def check_unedited(path: Path) -> None:
    """Refuse the configuration of a run that was changed after the run wrote it.

    Raises:
        UserError: its digest does not fit.
    """
    try:
        check_file(path)
    except DamagedError as error:
        resume = command("train-supernet", resume=path.parent)
        raise UserError(f"{error}; changes are given as options of {resume}") from error


def _check_finite(settings: Mapping[str, Any]) -> None:
    # What a checkpoint says of the configuration is JSON, which knows no others.
    for name, value in by_full_name(settings).items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"{name} is {number}; it must be a finite number")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return value
