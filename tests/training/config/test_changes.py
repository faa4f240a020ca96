"""What of a run's configuration may change when it is resumed."""

import dataclasses
from typing import Any

import pytest
from helpers.configs import OTHER

from fedpareto.supernet.common.formats.typed_yaml import from_mapping
from fedpareto.training.config.methods import DeepFedNasConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.rules.changes import RESUME_MAY_ADAPT, RESUME_MAY_CHANGE, changed_fields
from fedpareto.training.config.rules.method_defaults import with_method_defaults
from fedpareto.training.config.run import RunConfig, config_to_mapping


def _changed(name: str, value: object) -> dict[str, Any]:
    """Return the mapping of the other configuration with one field replaced."""
    mapping = config_to_mapping(OTHER)
    *groups, field = name.split(".")
    inner = mapping
    for group in groups:
        inner = inner[group]
    assert field in inner
    inner[field] = value
    return mapping


def test_an_equal_configuration_has_no_changed_field() -> None:
    assert changed_fields(config_to_mapping(OTHER), config_to_mapping(OTHER)) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("rounds", 7, 8),
        ("seed", 11, 0),
        ("device", "cuda:1", "cpu"),
        ("client.lr", 0.025, 0.03),
        ("clients.max_macs", ["60M", "180M"], ["60M"]),
        ("data.name", "imagefolder", "digits"),
        ("data.crop", 3, None),
        ("partition.alpha", 0.3, 0.4),
        ("server.momentum", 0.9, 0.0),
        ("evaluation.every", 3, 4),
        ("evaluation.batch_size", 64, 32),
        ("precision", "bf16", "auto"),
        ("client.batch_size", 32, 16),
        ("data.mixup", 0.2, 0.0),
        ("data.magnitude", 7, 9),
        ("execution.memory_format", "contiguous", None),
        ("execution.threads", 2, 4),
    ],
)
def test_a_changed_field_is_named_with_its_old_and_new_value(name: str, old: object, new: object) -> None:
    assert changed_fields(config_to_mapping(OTHER), _changed(name, new)) == [(name, old, new)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output", "moved"),
        ("data.root", "/elsewhere"),
        ("data.download", False),
        ("checkpoint.every", 1),
        ("checkpoint.keep", 9),
        ("tracking.wandb", "off"),
        ("tracking.project", "another"),
        ("tracking.progress", True),
        ("execution.workers", 1),
        ("flower.address", "elsewhere:1"),
        ("flower.root_certificates", None),
        ("flower.deadline", 1.0),
        ("flower.quorum", 0.1),
    ],
)
def test_where_things_are_and_what_is_reported_may_change(name: str, value: object) -> None:
    assert changed_fields(config_to_mapping(OTHER), _changed(name, value)) == []


def test_what_a_resumed_run_may_adapt_is_where_and_how_it_is_computed() -> None:
    fields = [f"{name}.{field}" if field else name for name, field in _fields(config_to_mapping(OTHER))]
    adapted = [name for name in fields if name.startswith(RESUME_MAY_ADAPT)]
    assert adapted == [
        "device",
        "precision",
        "client.batch_size",
        "evaluation.batch_size",
        "execution.memory_format",
        "execution.fused",
        "execution.compiled",
        "execution.graphs",
        "execution.threads",
        "execution.kernels",
        "flower.wire_dtype",
    ]
    assert not [name for name in adapted if name.startswith(RESUME_MAY_CHANGE)]


def _fields(mapping: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the groups and fields of a configuration; the field is empty where there is no group."""
    return [(name, field) for name, value in mapping.items() for field in (value if isinstance(value, dict) else [""])]


def test_a_field_that_an_older_program_did_not_know_had_its_default() -> None:
    without = config_to_mapping(OTHER)
    del without["client"]["clip"], without["data"]["fit"]
    clip, fit = ("client.clip", 10.0, 1.0), ("data.fit", "crop", "pad")
    assert changed_fields(without, config_to_mapping(OTHER)) == [clip, fit]
    assert changed_fields(without, without) == []


def test_a_run_from_before_there_was_privacy_goes_on_without_it() -> None:
    before = config_to_mapping(RunConfig())
    del before["privacy"]
    assert changed_fields(before, config_to_mapping(RunConfig())) == []
    private = config_to_mapping(RunConfig(privacy=PrivacyConfig(clip=1.0)))
    assert changed_fields(before, private) == [("privacy.clip", 0.0, 1.0)]


def test_a_run_from_before_the_draw_was_balanced_does_not_change_it_unasked() -> None:
    before = config_to_mapping(RunConfig(method="deepfednas"))
    del before["deepfednas"]
    balanced = config_to_mapping(RunConfig(method="deepfednas"))
    assert changed_fields(before, balanced) == [("deepfednas.draw", "uniform", "balanced")]
    uniform = RunConfig(method="deepfednas", deepfednas=DeepFedNasConfig("uniform"))
    assert changed_fields(before, config_to_mapping(uniform)) == []
    other = {**before, "method": "cotrain"}
    assert changed_fields(other, config_to_mapping(RunConfig(method="cotrain"))) == []


def test_a_run_from_before_logits_were_adjusted_goes_on_without() -> None:
    old = with_method_defaults(RunConfig(method="deepfednas"))
    before = config_to_mapping(old)
    del before["client"]["logit_adjustment"]
    assert changed_fields(before, config_to_mapping(old)) == []
    adjusted = dataclasses.replace(old, client=dataclasses.replace(old.client, logit_adjustment=1.0))
    assert changed_fields(before, config_to_mapping(adjusted)) == [("client.logit_adjustment", 0.0, 1.0)]


def test_a_run_of_before_aggregation_had_its_name_goes_on_as_it_was() -> None:
    before, now = config_to_mapping(RunConfig()), config_to_mapping(RunConfig())
    for name in ("aggregation", "trim", "hostile"):
        del before["server"][name]
    assert changed_fields(before, now) == []
    before["server"]["aggregator"] = "average"
    assert changed_fields(before, now) == []
    now["server"]["aggregation"] = "median"
    assert changed_fields(before, now) == [("server.aggregation", "mean", "median")]


def test_natural_clients_are_those_that_older_programs_called_given() -> None:
    now = config_to_mapping(RunConfig(partition=PartitionConfig("natural")))
    before = {**now, "partition": {**now["partition"], "scheme": "given"}}
    assert from_mapping(RunConfig, before, "config.yaml") == RunConfig(partition=PartitionConfig("natural"))
    assert changed_fields(before, now) == []
    assert [name for name, _, _ in changed_fields(before, config_to_mapping(RunConfig()))] == ["partition.scheme"]
