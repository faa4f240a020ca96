"""Local objectives: as JSON, and what they say of their steps."""

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from helpers.runs.simulation import largest, random_architectures, smallest

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.local_objective import (
    CoTraining,
    LocalObjective,
    PathSampling,
    Standard,
    logits_from_json,
    objective_from_json,
)

_CO_TRAINING = CoTraining((smallest(),), (largest(), smallest()), 0.5, 2.0)
_SAMPLING = PathSampling(((0.1, -1 / 3, 1e-300), None, (0.0, 2.0)), 0.01, 1e-7, 1_000_000)


@pytest.mark.parametrize(
    "objective", [Standard(), _CO_TRAINING, CoTraining((), (), 0.0, 1.0), _SAMPLING, PathSampling((), 1.0)]
)
def test_an_objective_comes_back_from_its_json_as_it_was(objective: LocalObjective) -> None:
    assert objective_from_json(json.loads(json.dumps(objective.to_json()))) == objective


def test_the_json_of_objectives_is_what_nodes_of_other_releases_read() -> None:
    assert Standard().to_json() == {"kind": "plain"}
    assert list(_CO_TRAINING.to_json()) == ["kind", "always", "drawn", "distillation", "temperature"]
    assert _CO_TRAINING.to_json()["kind"] == "co-training"
    sampling = {"kind": "path-sampling", "logits": ((0.0,), None), "learning_rate": 0.5}
    assert PathSampling(((0.0,), None), 0.5).to_json() == {**sampling, "macs_penalty": 0.0, "macs_target": 0}


def test_networks_of_steps_are_those_always_trained_and_one_drawn_by_the_seed() -> None:
    objective = CoTraining((smallest(),), tuple(random_architectures(6)), 0.5, 1.0)

    def first(seed: int) -> list[Sequence[Architecture]]:
        return list(itertools.islice(objective.networks_of_steps(seed), 20))

    assert first(1) == first(1) != first(2)
    assert {inside[0] for inside in first(1)} == {smallest()}
    drawn = {inside[1] for inside in first(1)}
    assert drawn <= set(objective.drawn)
    assert len(drawn) > 1
    for alone in (Standard(), _SAMPLING):
        assert list(itertools.islice(alone.networks_of_steps(1), 2)) == [(), ()]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "magic"}, {"logits": None}, {"logits": 3}, {"logits": [3]}, {"logits": [[]]}, {"logits": [["a"]]},
        {"logits": [[True]]}, {"logits": [[math.nan]]}, {"logits": [[math.inf]]}, {"logits": [[10**400]]},
        {"logits": {"0": [1.0]}}, {"learning_rate": 0}, {"learning_rate": -1.0}, {"learning_rate": math.inf},
        {"learning_rate": "fast"}, {"macs_penalty": -1e-9}, {"macs_penalty": math.nan}, {"macs_penalty": None},
        {"macs_target": -1}, {"macs_target": "many"}, {"macs_target": None},
    ],
    ids=str,
)  # fmt: skip
def test_path_sampling_of_nonsense_is_refused_in_one_line(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="a job whose work cannot be read") as caught:
        objective_from_json({**_SAMPLING.to_json(), **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["kind", "logits", "learning_rate", "macs_penalty", "macs_target"])
def test_a_missing_field_is_refused(name: str) -> None:
    fields = _SAMPLING.to_json()
    del fields[name]
    with pytest.raises(UserError, match="a job whose work cannot be read"):
        objective_from_json(fields)


def test_logits_that_a_client_sends_may_be_not_finite() -> None:
    first, second = logits_from_json([[math.nan, math.inf], None])
    assert first is not None
    assert math.isnan(first[0])
    assert first[1] == math.inf
    assert second is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"kind": "magic"},
        {"kind": "co-training"},
        {**_CO_TRAINING.to_json(), "drawn": [{}]},
        {**_CO_TRAINING.to_json(), "drawn": 3},
        {**_CO_TRAINING.to_json(), "temperature": "warm"},
        {**_CO_TRAINING.to_json(), "temperature": 0},
        {**_CO_TRAINING.to_json(), "distillation": 2},
        {**_CO_TRAINING.to_json(), "distillation": math.nan},
    ],
)
def test_co_training_of_nonsense_is_refused(value: object) -> None:
    with pytest.raises(UserError):
        objective_from_json(value)
