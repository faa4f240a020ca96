"""Settings that a run does not read: all are known, and those that were given are refused or left out."""

import dataclasses
from typing import Any, get_args

import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.evaluation import EvaluationConfig
from fedpareto.training.config.flower import FlowerConfig
from fedpareto.training.config.methods import (
    CoTrainConfig,
    DecNasConfig,
    DeepFedNasConfig,
    DfnasConfig,
    FedAvgConfig,
    FedParetoConfig,
    MethodName,
)
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.rules.unused_settings import (
    ALWAYS,
    condition_of,
    conditions,
    read_only,
    refuse_unread,
    settings_of,
    unread,
)
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig


@pytest.mark.parametrize("name", settings_of(RunConfig()))
def test_of_every_setting_it_is_known_when_it_is_read(name: str) -> None:
    """A new field of the configuration fails here until the table says when it is read."""
    known = [one for one in (*conditions(), *ALWAYS) if name == one or (one.endswith(".") and name.startswith(one))]
    assert len(known) == 1
    condition = condition_of(name)
    assert (condition is None) == (known[0] in ALWAYS)
    assert condition is None or condition.words


def test_the_table_names_no_setting_that_there_is_not() -> None:
    names = settings_of(RunConfig())
    for known in (*conditions(), *ALWAYS):
        assert any(name == known or (known.endswith(".") and name.startswith(known)) for name in names), known


_UNREAD: list[tuple[dict[str, Any], str]] = [
    *(
        ({"method": method, "deepfednas": DeepFedNasConfig("uniform")}, "deepfednas.draw")
        for method in ("superfednas", "fedavg", "cotrain", "dfnas")
    ),
    ({"deepfednas": DeepFedNasConfig("uniform"), "clients": ClientsConfig(2, 2)}, "deepfednas.draw"),
    *(
        ({"method": method, "server": ServerConfig(0.5)}, "server.largest_weight")
        for method in ("fedavg", "cotrain", "dfnas")
    ),
    ({"clients": ClientsConfig(per_round=1), "server": ServerConfig(0.5)}, "server.largest_weight"),
    *(
        ({"method": method, "server": ServerConfig(weight_by_examples=True)}, "server.weight_by_examples")
        for method in ("fedavg", "cotrain", "dfnas")
    ),
    *(
        (
            {"method": "superfednas", "server": ServerConfig(aggregation=rule, **changes)},
            f"server.{next(iter(changes))}",
        )
        for rule in ("clipped", "median", "trimmed", "krum")
        for changes in ({"largest_weight": 0.5}, {"weight_by_examples": True})
    ),
    ({"server": ServerConfig(trim=0.1)}, "server.trim"),
    ({"server": ServerConfig(aggregation="krum", trim=0.1)}, "server.trim"),
    ({"server": ServerConfig(aggregation="trimmed", hostile=2)}, "server.hostile"),
    ({"fedpareto": FedParetoConfig(nested_start=False), "init": "runs/other"}, "fedpareto.nested_start"),
    ({"decnas": DecNasConfig(budget="60M")}, "decnas.budget"),
    ({"decnas": DecNasConfig(gain=0.1)}, "decnas.gain"),
    ({"method": "cotrain", "decnas": DecNasConfig(most_rounds=20)}, "decnas.most_rounds"),
    ({"fedavg": FedAvgConfig("a.json")}, "fedavg.architecture"),
    ({"method": "dfnas", "fedavg": FedAvgConfig("a.json")}, "fedavg.architecture"),
    ({"dfnas": DfnasConfig(macs_penalty=0.1, macs_target="60M")}, "dfnas.macs_penalty"),
    ({"method": "fedavg", "dfnas": DfnasConfig(personal=True)}, "dfnas.personal"),
    ({"cotrain": CoTrainConfig("extremes")}, "cotrain.networks"),
    ({"method": "cotrain", "cotrain": CoTrainConfig("largest", distillation=0.1)}, "cotrain.distillation"),
    ({"method": "cotrain", "cotrain": CoTrainConfig("all", 0.0, 3.0)}, "cotrain.temperature"),
    *(
        ({"method": method, "evaluation": EvaluationConfig(probes=3)}, "evaluation.probes")
        for method in ("fedavg", "dfnas")
    ),
    (
        {"method": "decnas", "decnas": DecNasConfig("60M"), "evaluation": EvaluationConfig(probes=3)},
        "evaluation.probes",
    ),
    ({"cache": "cache.jsonl", "fitness": "fitness.yaml"}, "fitness"),
    ({"clients": ClientsConfig(macs_exponent=2.0)}, "clients.macs_exponent"),
    (
        {"clients": ClientsConfig(macs_exponent=2.0, macs_distribution="uniform", max_macs=("1M", "2M"))},
        "clients.macs_exponent",
    ),
    ({"clients": ClientsConfig(macs_cap="60M", file="clients.jsonl")}, "clients.macs_cap"),
    ({"partition": PartitionConfig("iid", alpha=0.3)}, "partition.alpha"),
    ({"partition": PartitionConfig(classes_per_client=3)}, "partition.classes_per_client"),
    ({"partition": PartitionConfig("pathological", shards_per_client=3)}, "partition.shards_per_client"),
    ({"data": DataConfig(magnitude=3)}, "data.magnitude"),
    ({"data": DataConfig(root="images")}, "data.root"),
    ({"data": DataConfig(download=True)}, "data.download"),
    ({"data": DataConfig("cifar10", fit="pad")}, "data.fit"),
    ({"privacy": PrivacyConfig(clip=1.0, delta=1e-6)}, "privacy.delta"),
    ({"privacy": PrivacyConfig(clip=1.0, statistics="exact")}, "privacy.statistics"),
    ({"flower": FlowerConfig(address="10.0.0.1:9")}, "flower.address"),
    ({"flower": FlowerConfig(wire_dtype="bf16")}, "flower.wire_dtype"),
    ({"flower": FlowerConfig(retries=0)}, "flower.retries"),
    ({"client": ClientConfig(effective_beta=0.5)}, "client.effective_beta"),
    ({"client": ClientConfig(imbalance="none", effective_beta=0.5)}, "client.effective_beta"),
    ({"engine": "flower", "evaluation": EvaluationConfig(metric="balanced")}, "evaluation.metric"),
    (
        {"privacy": PrivacyConfig(clip=1.0, noise=1.0), "evaluation": EvaluationConfig(metric="macro-f1")},
        "evaluation.metric",
    ),
    ({"server": ServerConfig(max_share=0.5)}, "server.max_share"),
    ({"flower": FlowerConfig(max_examples=5)}, "flower.max_examples"),
    ({"flower": FlowerConfig(clients="clients.jsonl")}, "flower.clients"),
]


@pytest.mark.parametrize(("changes", "name"), _UNREAD, ids=str)
def test_a_setting_that_would_be_ignored_is_refused_in_one_line_that_says_what_reads_it(
    changes: dict[str, Any], name: str
) -> None:
    config = RunConfig(**changes)
    with pytest.raises(UserError) as caught:
        refuse_unread(config)
    text = str(caught.value)
    assert text.startswith(f"{name} is ")
    assert f"method {config.method} would ignore" in text
    assert "is read only" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "method": "deepfednas",
            "deepfednas": DeepFedNasConfig("uniform"),
            "server": ServerConfig(0.3, weight_by_examples=True, momentum=0.5),
        },
        {"fedpareto": FedParetoConfig(2.0, 1.0), "server": ServerConfig(weight_by_examples=True, lr=0.5)},
        {"method": "fedavg", "fedavg": FedAvgConfig("a.json"), "server": ServerConfig(max_share=0.5)},
        {"server": ServerConfig(weight_by_examples=True, max_share=0.5)},
        {"server": ServerConfig(aggregation="trimmed", trim=0.1, momentum=0.5)},
        {"server": ServerConfig(aggregation="krum", hostile=2, lr=0.5)},
        {"method": "superfednas", "server": ServerConfig(0.5, True, aggregation="registered")},
        {"method": "cotrain", "cotrain": CoTrainConfig("extremes", 0.3, 2.0), "evaluation": EvaluationConfig(probes=3)},
        {"method": "cotrain", "cotrain": CoTrainConfig("smallest")},
        {"method": "dfnas", "dfnas": DfnasConfig("a.json", 0.1, 0.5, 0.1, "60M", personal=True)},
        {"method": "decnas", "decnas": DecNasConfig("60M", "a.json", 0.1, 0.9, 3, 4, 5, 0.1, 0.1)},
        {"fitness": "fitness.yaml", "rounds": 7},
        {"cache": "cache.jsonl", "compute": "1T"},
        {"clients": ClientsConfig(macs_exponent=2.0, macs_distribution="zipf", max_macs=("1M", "2M"), macs_cap="1.5M")},
        {"partition": PartitionConfig("shard", shards_per_client=3)},
        {"data": DataConfig("imagefolder", "images", randaugment=2, magnitude=3, fit="pad")},
        {"data": DataConfig("cifar10", "images", download=True)},
        {"privacy": PrivacyConfig(1.0, 1.0, 1e-6, 8.0, "exact")},
        {"engine": "flower", "flower": FlowerConfig("10.0.0.1:9", insecure=True, min_clients=3, wire_dtype="bf16")},
    ],
    ids=str,
)
def test_what_is_read_is_taken(changes: dict[str, Any]) -> None:
    config = RunConfig(**changes)
    refuse_unread(config)
    assert read_only(config) == config


_GROUPS = {
    "deepfednas": st.sampled_from([DeepFedNasConfig(), DeepFedNasConfig("uniform")]),
    "fedavg": st.sampled_from([FedAvgConfig(), FedAvgConfig("a.json")]),
    "cotrain": st.builds(
        CoTrainConfig, st.sampled_from(["all", "extremes", "largest", "smallest"]), st.floats(0, 1), st.floats(0.1, 3)
    ),
    "dfnas": st.sampled_from([DfnasConfig(), DfnasConfig(macs_penalty=0.1, macs_target="60M"), DfnasConfig(gap=0.9)]),
    "decnas": st.sampled_from([DecNasConfig("60M"), DecNasConfig("60M", least_rounds=20, most_rounds=30)]),
    "server": st.sampled_from([ServerConfig(), ServerConfig(0.3), ServerConfig(0.3, weight_by_examples=True)]),
    "clients": st.sampled_from([ClientsConfig(), ClientsConfig(per_round=1), ClientsConfig(per_round=2)]),
    "evaluation": st.sampled_from([EvaluationConfig(), EvaluationConfig(probes=2)]),
    "compute": st.sampled_from([None, "1T"]),
    "rounds": st.sampled_from([100, 7]),
}


@given(method=st.sampled_from(get_args(MethodName)), changes=st.fixed_dictionaries({}, optional=_GROUPS))
@runs(200)
def test_without_what_it_does_not_read_a_run_is_left_with_what_it_does(
    method: MethodName, changes: dict[str, Any]
) -> None:
    config = RunConfig(**{"decnas": DecNasConfig("60M"), **changes, "method": method})
    kept = read_only(config)
    refuse_unread(kept)
    before, after, defaults = settings_of(config), settings_of(kept), settings_of(RunConfig())
    for name, value in before.items():
        assert after[name] in (value, defaults[name])
        condition = condition_of(name)
        if condition is None or condition.holds(kept):
            assert after[name] == value
    assert unread(config).keys() <= {name for name in before if before[name] != after[name]}
    assert dataclasses.replace(kept, method=method) == kept
