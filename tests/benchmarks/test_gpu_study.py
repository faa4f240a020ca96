"""What the benchmark of a GPU takes from a study, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from gpu import STUDY
from gpu_study import read_contest

from fedpareto.search.comparison.studies.study import read_study
from fedpareto.supernet.common.errors import UserError


def _written(folder: Path, **changes: Any) -> Path:
    """Write the study with other fields; what is None is left out."""
    fields = {**yaml.safe_load(STUDY.read_text()), **changes}
    path = folder / "study.yaml"
    path.write_text(
        yaml.safe_dump({name: value for name, value in fields.items() if value is not None}, sort_keys=False)
    )
    return path


def _run(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(STUDY.read_text())["run"], **changes}


def test_the_study_is_the_winner_beside_the_published_methods_and_one_that_compare_methods_reads() -> None:
    contest, study = read_contest(STUDY), read_study(STUDY)
    assert [trial.label for trial in contest.trials] == ["fedpareto", "deepfednas", "superfednas"]
    assert study.reference == contest.trials[0].label
    assert contest.budgets == (25_000_000, 60_000_000, 150_000_000)
    for trial, same in zip(contest.trials, study.trials, strict=True):
        assert (trial.config.clients, trial.config.data) == (same.config.clients, same.config.data)


def test_every_method_trains_with_its_own_adjustment_of_logits_and_the_batch_that_is_asked_for() -> None:
    configs = [trial.config.client for trial in read_contest(STUDY).with_batch(16).trials]
    assert [config.logit_adjustment for config in configs] == [1, 0, 0]
    assert {(config.batch, config.lr, config.epochs) for config in configs} == {(16, 0.05, 1)}


def test_the_reference_comes_first_wherever_it_stands(tmp_path: Path) -> None:
    contest = read_contest(_written(tmp_path, reference="superfednas"))
    assert [trial.label for trial in contest.trials] == ["superfednas", "fedpareto", "deepfednas"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reference": None, "run": _run(compute="1T")}, "gives run.compute; .* give reference"),
        ({"seeds": [0, 1]}, r"seeds is \[0, 1\]"),
        ({"yardsticks": ["linear"]}, "yardsticks are not trained"),
        ({"methods": {"fedpareto": {}, "fedavg": {}}}, "methods.fedavg trains one network"),
        ({"run": _run(cache="c.jsonl")}, "cache is c.jsonl, which benchmarks/gpu.py would ignore"),
        ({"run": _run(clients={"data": "matched", "max_macs": ["25M"]})}, "clients.data is matched"),
        ({"run": _run(privacy={"clip": 1.0})}, "privacy.clip is 1.0"),
        ({"run": _run(server={"momentum": 0.5})}, "server.momentum is 0.5"),
        ({"run": _run(data={"name": "imagefolder", "images": 500})}, "data.images is 500"),
    ],
    ids=["compute", "seeds", "yardsticks", "single", "cache", "matched", "privacy", "momentum", "images"],
)
def test_what_the_benchmark_would_not_do_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_contest(_written(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert "study.yaml" in str(caught.value)
