"""Changes to a run's configuration that are allowed when it is resumed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedpareto.training.config.inputs import portable
from fedpareto.training.config.methods.config_type import config_type
from fedpareto.training.config.methods.registry import METHODS
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.privacy import Statistics
from fedpareto.training.config.run import RunConfig, by_full_name, complete_mapping
from fedpareto.training.config.server import LARGEST_WEIGHT, ServerConfig

#: What may change when a run is resumed: where things are, what is reported, how many clients train at once.
RESUME_MAY_CHANGE = (
    "output",
    "data.root",
    "data.download",
    "data.store",
    "data.decoders",
    "checkpoint.",
    "server.outlier_factor",
    "tracking.",
    "execution.workers",
    *(
        f"flower.{name}"
        for name in (
            "address",
            "root_certificates",
            "insecure",
            "min_clients",
            "patience",
            "deadline",
            "quorum",
            "retries",
            "clients",
            "max_examples",
            "max_ratio",
            "max_classes",
        )
    ),
)

#: What may change besides for the sake of another machine or a full memory; the user is told that bytes differ.
RESUME_MAY_ADAPT = (
    "device",
    "precision",
    *(f"execution.{name}" for name in ("memory_format", "fused", "compiled", "graphs", "threads", "kernels")),
    "client.batch_size",
    "evaluation.batch_size",
    "flower.wire_dtype",
)

#: What ends a run, which may be given more; the user is told what that does to the schedules.
RESUME_MAY_EXTEND = ("rounds", "compute", "privacy.epsilon")

#: What runs of all methods did before there was a choice; methods say themselves what else theirs did.
_BEFORE = {"client.logit_adjustment": 0.0, "server.largest_weight": LARGEST_WEIGHT}

#: What runs with noise did before statistics could be withheld; it is not changed, as images are normalised by it.
_STATISTICS: Statistics = "exact"


def with_former_statistics(config: RunConfig, written: Mapping[str, Any]) -> RunConfig:
    """Return ``config`` with exact statistics if it was ``written`` with noise and before these could be withheld."""
    privacy = written.get("privacy", {})
    if not privacy.get("noise") or "statistics" in privacy:
        return config
    return dataclasses.replace(config, privacy=dataclasses.replace(config.privacy, statistics=_STATISTICS))


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return every (field, old, new) that differs and is not one that any resumed run may change.

    A field that an older program did not know has its default, which leaves runs as they were, or what that program
    did. Copies of files that a run keeps are the same wherever its folder is.
    """
    defaults = by_full_name(complete_mapping(config_type()()))
    did = {**_BEFORE, **METHODS.get(str(before.get("method", RunConfig.method))).before}
    if before.get("privacy", {}).get("noise"):
        did["privacy.statistics"] = _STATISTICS
    old, new = (by_full_name(_modern(portable(mapping))) for mapping in (before, after))
    old, new = {**defaults, **did, **old}, {**defaults, **new}
    return [
        (name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if not name.startswith(RESUME_MAY_CHANGE) and old.get(name) != new.get(name)
    ]


def _modern(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's plain values by the names that settings have today."""
    server = ServerConfig.modern_mapping(mapping.get("server", {}))
    return {**mapping, "server": server, "partition": PartitionConfig.modern_mapping(mapping.get("partition", {}))}
