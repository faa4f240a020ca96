import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.configs import OTHER

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_yaml import from_mapping, read_yaml_mapping
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.methods import DecNasConfig
from fedpareto.training.config.partition import PartitionConfig, Scheme
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.run import RunConfig, config_to_mapping, write_config
from fedpareto.training.config.server import ServerConfig


def _nested(name: str, value: object) -> dict[str, Any]:
    *groups, field = name.split(".")
    mapping: dict[str, Any] = {field: value}
    for group in reversed(groups):
        mapping = {group: mapping}
    return mapping


def test_every_field_of_the_test_differs_from_its_default() -> None:
    ours, defaults = config_to_mapping(OTHER), config_to_mapping(RunConfig())
    for name, value in ours.items():
        for field, inner in value.items() if isinstance(value, dict) else [(name, value)]:
            default = defaults[name][field] if isinstance(value, dict) else defaults[name]
            # Excluded by others: weights by examples, samplers and aggregators by privacy, files and matched data by
            # limits and Flower.
            excluded = field in ("weight_by_examples", "sampler", "aggregation") or (
                name == "clients" and field in ("file", "data")
            )
            assert inner != default or excluded, f"{name}.{field}"


@pytest.mark.parametrize("config", [RunConfig(), OTHER])
def test_a_configuration_comes_back_from_its_file_as_it_was(tmp_path: Path, config: RunConfig) -> None:
    path = tmp_path / "config.yaml"
    write_config(path, config)
    assert from_mapping(RunConfig, read_yaml_mapping(path), str(path)) == config


def test_the_file_names_every_field_in_their_order() -> None:
    mapping = config_to_mapping(OTHER)
    assert list(mapping) == [field.name for field in dataclasses.fields(RunConfig)]
    assert list(mapping["client"]) == [field.name for field in dataclasses.fields(ClientConfig)]
    assert mapping["clients"]["max_macs"] == ["60M", "180M"]


_BAD_VALUES: list[tuple[str, object]] = [
    ("rounds", 0),
    ("rounds", "many"),
    ("seed", -1),
    ("method", "random"),
    ("data.images", 0),
    ("client.epochs", 0),
    ("client.batch_size", 1),
    ("client.lr", 0.0),
    ("client.lr", float("nan")),
    ("client.lr_schedule", "linear"),
    ("client.momentum", 1.0),
    ("client.momentum", -0.1),
    ("client.weight_decay", -1e-4),
    ("client.clip", -1.0),
    ("client.clip", float("nan")),
    ("client.label_smoothing", 1.0),
    ("client.logit_adjustment", -0.5),
    ("client.logit_adjustment", 11.0),
    ("client.imbalance", "weights"),
    ("client.effective_beta", 1.0),
    ("client.effective_beta", -0.1),
    ("evaluation.metric", "f1"),
    ("clients.macs_exponent", 11.0),
    ("clients.macs_exponent", float("nan")),
    ("server.largest_weight", 0.0),
    ("server.largest_weight", 1.0),
    ("server.momentum", 1.0),
    ("server.lr", 0.0),
    ("server.trim", 0.0),
    ("server.trim", 0.5),
    ("server.trim", float("nan")),
    ("server.hostile", 0),
    ("server.aggregation", None),
    ("fedpareto.power_first", 21.0),
    ("fedpareto.power_last", float("nan")),
    ("server.lr", 11.0),
    ("server.outlier_factor", 0.5),
    ("server.outlier_factor", -1.0),
    ("server.outlier_factor", float("inf")),
    ("server.outlier_factor", float("nan")),
    ("privacy.clip", -0.5),
    ("privacy.clip", float("nan")),
    ("privacy.clip", float("inf")),
    ("privacy.noise", -1.0),
    ("privacy.noise", float("inf")),
    ("privacy.delta", 0.0),
    ("privacy.delta", 1.0),
    ("privacy.noise", 1.0),
    ("engine", "ray"),
    ("flower.address", "superlink"),
    ("flower.address", ":8000"),
    ("flower.address", "superlink:70000"),
    ("flower.min_clients", 0),
    ("flower.min_clients", 31),
    ("flower.patience", 0.0),
    ("flower.deadline", -1.0),
    ("flower.deadline", float("nan")),
    ("flower.quorum", 0.0),
    ("flower.quorum", 1.1),
    ("flower.retries", -1),
    ("flower.wire_dtype", "int8"),
    ("evaluation.every", 0),
    ("evaluation.probes", 1),
    ("evaluation.calibration_images", 1),
    ("evaluation.batch_size", 1),
    ("checkpoint.every", 0),
    ("checkpoint.keep", 0),
    ("clients.count", 0),
    ("clients.per_round", 21),
    ("clients.max_macs", ["lots"]),
    ("partition.alpha", 0.0),
    ("partition.scheme", "random"),
    ("tracking.wandb", "sometimes"),
    ("data.randaugment", -1),
    ("data.randaugment", 1.5),
    ("data.magnitude", -1),
    ("data.magnitude", 31),
    ("data.mixup", -0.1),
    ("data.mixup", float("nan")),
    ("data.cutmix", -0.1),
    ("data.cutmix", float("nan")),
    ("precision", "fp8"),
    ("execution.memory_format", "channels_first"),
    ("execution.workers", 0),
    ("execution.threads", 0),
    ("execution.fused", "maybe"),
    ("method", "decnas"),
    ("decnas.budget", "lots"),
    ("decnas.step", 0.0),
    ("decnas.step", 1.0),
    ("decnas.decay", 0.0),
    ("decnas.decay", 1.1),
    ("decnas.drop_after", 0),
    ("decnas.least_rounds", 0),
    ("decnas.most_rounds", 2),
    ("decnas.gain", -0.1),
    ("decnas.gain", float("nan")),
    ("decnas.lr", 0.0),
]


@pytest.mark.parametrize(("name", "value"), _BAD_VALUES)
def test_a_bad_value_in_a_file_is_an_error_of_one_line_that_names_the_field(name: str, value: object) -> None:
    with pytest.raises(UserError) as caught:
        from_mapping(RunConfig, _nested(name, value), "config.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert name.rsplit(".", 1)[-1] in message or str(value).strip("[]'") in message


@pytest.mark.parametrize("name", ["roundz", "client.lrr"])
def test_an_unknown_field_in_a_file_is_an_error_of_one_line_that_names_it(name: str) -> None:
    with pytest.raises(UserError, match=name.rsplit(".", maxsplit=1)[-1]) as caught:
        from_mapping(RunConfig, _nested(name, 1), "config.yaml")
    assert "\n" not in str(caught.value)


def test_the_message_says_what_is_allowed() -> None:
    with pytest.raises(UserError, match=r"client\.batch_size is 1; it must be at least 2"):
        ClientConfig(batch_size=1)
    with pytest.raises(UserError, match=r"client\.lr is -1; it must be positive"):
        ClientConfig(lr=-1)
    with pytest.raises(UserError, match=r"server\.largest_weight is 1\.5; it must be between 0 and 1"):
        ServerConfig(largest_weight=1.5)
    with pytest.raises(UserError, match=r"data\.mixup is -0\.1; it must not be negative \(0 for none\)"):
        DataConfig(mixup=-0.1)
    with pytest.raises(UserError, match=r"data\.magnitude is 31; it must be from 0 to 30"):
        DataConfig(magnitude=31)


def test_the_least_and_the_most_of_an_augmentation_are_allowed() -> None:
    DataConfig(randaugment=0, magnitude=0, mixup=0.0, cutmix=0.0)
    DataConfig(randaugment=14, magnitude=30, mixup=0.1, cutmix=2.0)


def test_noise_without_a_clip_and_weights_by_examples_beside_one_are_refused() -> None:
    with pytest.raises(UserError, match=r"privacy\.noise is 1\.0 without privacy\.clip.*set privacy\.clip"):
        PrivacyConfig(noise=1.0)
    with pytest.raises(UserError, match=r"server\.weight_by_examples is on with privacy\.clip"):
        RunConfig(server=ServerConfig(weight_by_examples=True), privacy=PrivacyConfig(clip=1.0))
    RunConfig(server=ServerConfig(weight_by_examples=True))


def test_decnas_needs_a_budget_and_simulated_clients_and_has_no_privacy() -> None:
    budget = DecNasConfig(budget="60M")
    with pytest.raises(UserError, match=r"shrinks a network to a budget; name one, e.g. --decnas.budget 60M"):
        RunConfig(method="decnas")
    with pytest.raises(UserError, match=r"groups clients by labels that only simulated ones tell; use --engine in-pro"):
        RunConfig(method="decnas", decnas=budget, engine="flower")
    with pytest.raises(UserError, match=r"method decnas does not go with privacy.clip"):
        RunConfig(method="decnas", decnas=budget, privacy=PrivacyConfig(clip=1.0))
    RunConfig(method="decnas", decnas=budget)


def test_pooled_images_are_no_federation_that_is_private_connected_or_grouped() -> None:
    pooled = ClientsConfig(per_round=1, data="pooled")
    with pytest.raises(UserError, match=r"clients\.data is pooled with privacy\.clip; .* turn one of them off"):
        RunConfig(clients=pooled, privacy=PrivacyConfig(clip=1.0))
    with pytest.raises(UserError, match=r"method decnas groups clients, of which clients\.data pooled leaves one"):
        RunConfig(clients=pooled, method="decnas", decnas=DecNasConfig(budget="60M"))
    with pytest.raises(UserError, match=r"clients\.data pooled is for simulations"):
        RunConfig(clients=pooled, engine="flower")
    RunConfig(clients=pooled)


@pytest.mark.parametrize(
    ("delta", "clients", "expected"), [(None, 1, 1e-5), (None, 20, 1e-5), (None, 10**6, 10**-6.6), (0.01, 20, 0.01)]
)
def test_the_default_delta_is_small_and_below_one_over_the_clients(
    delta: float | None, clients: int, expected: float
) -> None:
    assert PrivacyConfig(delta=delta).delta_among(clients) == pytest.approx(expected)


def _decimals(mapping: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the names of the fields that hold a number with decimals."""
    for name, value in mapping.items():
        if isinstance(value, dict):
            yield from _decimals(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield f"{prefix}{name}"


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", list(_decimals(config_to_mapping(RunConfig()))))
def test_a_number_that_json_does_not_know_is_refused(name: str, value: float) -> None:
    group, field = name.split(".")
    with pytest.raises(UserError, match=rf"{field} is .*-?(inf|nan)"):
        RunConfig(**{group: dataclasses.replace(getattr(RunConfig(), group), **{field: value})})


def test_decay_on_everything_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"client\.decay_all is true and client\.weight_decay 0"):
        ClientConfig(weight_decay=0.0, decay_all=True)


def test_images_in_proportion_to_macs_need_a_scheme_that_can_give_them() -> None:
    clients = ClientsConfig(max_macs=("1M", "2M"), data="proportional")
    schemes: tuple[Scheme, ...] = ("iid", "dirichlet")
    for scheme in schemes:
        assert RunConfig(clients=clients, partition=PartitionConfig(scheme)).clients.gamma == 1.0
    with pytest.raises(UserError, match=r"not go with partition\.scheme shard; valid: iid, dirichlet"):
        RunConfig(clients=clients, partition=PartitionConfig("shard"))
    with pytest.raises(UserError, match=r"clients\.gamma is -1"):
        ClientsConfig(gamma=-1)


@pytest.mark.parametrize(
    ("server", "per_round", "message"),
    [
        (
            ServerConfig(aggregation="median"),
            2,
            "clients.per_round is 2 with server.aggregation median, which ",
        ),
        (ServerConfig(aggregation="krum"), 2, "clients.per_round is 2 with server.aggregation krum, which "),
        (ServerConfig(aggregation="krum", hostile=3), 8, "server.hostile is 3 and clients.per_round 8; krum holds "),
    ],
)
def test_too_few_clients_for_a_robust_rule_are_refused_in_one_line(
    server: ServerConfig, per_round: int, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        RunConfig(server=server, clients=ClientsConfig(per_round=per_round))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_enough_clients_for_a_robust_rule_are_taken() -> None:
    RunConfig(server=ServerConfig(aggregation="krum", hostile=3), clients=ClientsConfig(per_round=9))
    RunConfig(server=ServerConfig(aggregation="trimmed"), clients=ClientsConfig(per_round=3))
    RunConfig(server=ServerConfig(aggregation="clipped"), clients=ClientsConfig(per_round=1))


@pytest.mark.parametrize("rule", ["clipped", "median", "trimmed", "krum"])
def test_a_private_run_refuses_robust_rules_in_one_line(rule: str) -> None:
    with pytest.raises(UserError, match=rf"server\.aggregation is {rule} with privacy\.clip; .* is of mean alone"):
        RunConfig(privacy=PrivacyConfig(clip=1.0), server=ServerConfig(aggregation=rule))


@pytest.mark.parametrize(("old", "new"), [("average", "mean"), ("halfway", "halfway")])
def test_files_of_before_aggregation_had_its_name_are_read(old: str, new: str) -> None:
    config = from_mapping(RunConfig, {"server": {"aggregator": old, "lr": 0.5}}, "config.yaml")
    assert config.server == ServerConfig(aggregation=new, lr=0.5)
    with pytest.raises(UserError, match=r"no field 'server\.aggregator'; did you mean 'server\.aggregation'"):
        from_mapping(RunConfig, {"server": {"aggregator": old, "aggregation": new}}, "config.yaml")


@pytest.mark.parametrize(
    ("imbalance", "adjustment"),
    [("none", 1.0), ("inverse-frequency", 0.5), ("effective-number", 1.0), ("adjustment", 0.0)],
)
def test_an_imbalance_and_an_adjustment_of_logits_that_contradict_each_other_are_refused(
    imbalance: Any, adjustment: float
) -> None:
    with pytest.raises(UserError, match=f"client.imbalance is {imbalance} and client.logit_adjustment {adjustment:g}"):
        ClientConfig(imbalance=imbalance, logit_adjustment=adjustment)
    assert ClientConfig(imbalance=imbalance, logit_adjustment=0.0 if adjustment else 2.0)
