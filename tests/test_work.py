from typing import Any

import pytest
from simulation import random_architectures

from supernet.errors import UserError
from training.work import CoTraining, Plain, work_from_json, work_to_json

_CO_TRAINING = CoTraining(tuple(random_architectures(1)), tuple(random_architectures(3, seed=1)), 0.25, 1.5)


@pytest.mark.parametrize("work", [Plain(), _CO_TRAINING, CoTraining((), (), 0.0, 1.0)])
def test_work_survives_the_wire(work: Any) -> None:
    assert work_from_json(work_to_json(work)) == work


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
        {**work_to_json(_CO_TRAINING), "distillation": float("nan")},
    ],
)
def test_what_is_no_work_is_refused(value: object) -> None:
    with pytest.raises(UserError):
        work_from_json(value)
