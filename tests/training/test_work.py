"""What a client does besides, as JSON."""

import json
import math
from typing import Any

import pytest
from helpers.runs.simulation import largest, smallest

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.work import (
    CoTraining,
    LocalObjective,
    PathSampling,
    Standard,
    logits_from_json,
    work_from_json,
    work_to_json,
)

_CO_TRAINING = CoTraining((smallest(),), (largest(), smallest()), 0.5, 2.0)
_SAMPLING = PathSampling(((0.1, -1 / 3, 1e-300), None, (0.0, 2.0)), 0.01, 1e-7, 1_000_000)


@pytest.mark.parametrize(
    "work", [Standard(), _CO_TRAINING, CoTraining((), (), 0.0, 1.0), _SAMPLING, PathSampling((), 1.0)]
)
def test_work_comes_back_from_its_json_as_it_was(work: LocalObjective) -> None:
    assert work_from_json(json.loads(json.dumps(work_to_json(work)))) == work


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
        work_from_json({**work_to_json(_SAMPLING), **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["kind", "logits", "learning_rate", "macs_penalty", "macs_target"])
def test_a_missing_field_is_refused(name: str) -> None:
    fields = work_to_json(_SAMPLING)
    del fields[name]
    with pytest.raises(UserError, match="a job whose work cannot be read"):
        work_from_json(fields)


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
        {**work_to_json(_CO_TRAINING), "drawn": [{}]},
        {**work_to_json(_CO_TRAINING), "drawn": 3},
        {**work_to_json(_CO_TRAINING), "temperature": "warm"},
        {**work_to_json(_CO_TRAINING), "temperature": 0},
        {**work_to_json(_CO_TRAINING), "distillation": 2},
        {**work_to_json(_CO_TRAINING), "distillation": math.nan},
    ],
)
def test_co_training_of_nonsense_is_refused(value: object) -> None:
    with pytest.raises(UserError):
        work_from_json(value)
