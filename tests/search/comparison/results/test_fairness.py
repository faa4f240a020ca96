"""Which rows of a study may stand beside each other."""

import dataclasses
from pathlib import Path

import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.search.comparison.results.fairness import judged, same_checkpoint
from fedpareto.search.comparison.results.outcome import MeasuredNetwork, TrialResult

_LIMIT = 2_000_000_000


def _outcome(label: str, compute: int, seed: int = 0, accuracy: float = 0.5) -> TrialResult:
    network = MeasuredNetwork(100, 90, 5, 0.5, accuracy, 0.25, {"stages": []})
    return TrialResult(label, seed, 7, compute, 2000, 3000, 4.0, [network], "a machine")


def _never(one: TrialResult, other: TrialResult) -> bool:
    raise AssertionError(f"{one.label} and {other.label} are not alike")


@given(compute=st.integers(1, 2 * _LIMIT))
@runs(200)
def test_only_runs_within_a_hundredth_of_the_compute_are_compared(compute: int) -> None:
    outcome = _outcome("cotrain", compute, seed=3)
    found = judged([outcome], {3: _LIMIT}, _never)
    if abs(compute - _LIMIT) <= _LIMIT // 100:
        assert (found.fair, found.refused) == ([outcome], [])
        return
    assert found.fair == []
    (reason,) = found.refused
    assert reason.startswith("cotrain with seed 3 trained")
    assert reason.endswith(f"{'more' if compute > _LIMIT else 'less'} than the 2G of the study")


def test_a_run_of_a_whole_round_too_much_is_told_by_how_much() -> None:
    found = judged([_outcome("cotrain", 2_630_000_000)], {0: _LIMIT}, _never)
    assert found.refused == ["cotrain with seed 0 trained 2.63G client MACs, 31.5% more than the 2G of the study"]


def test_one_computation_under_two_names_is_one_row() -> None:
    outcomes = [_outcome(label, _LIMIT, seed) for seed in (0, 1) for label in ("deepfednas", "other", "superfednas")]
    outcomes[1] = dataclasses.replace(outcomes[1], seconds=99.0, machine="another")
    outcomes[4] = _outcome("other", _LIMIT, 1, accuracy=0.25)
    found = judged(outcomes, {0: _LIMIT, 1: _LIMIT}, lambda one, other: one.seed == other.seed == 0)
    assert found.fair == [outcomes[0], *outcomes[3:]]
    assert found.refused == [
        f"{label} with seed 0 came to exactly what deepfednas did: they are one computation"
        for label in ("other", "superfednas")
    ]


@pytest.mark.parametrize(("one", "other", "same"), [(b"a", b"a", True), (b"a", b"b", False), (b"a", None, False)])
def test_runs_are_the_same_if_their_newest_supernets_are(
    tmp_path: Path, one: bytes, other: bytes | None, same: bool
) -> None:
    for name, content in (("one", one), ("other", other)):
        for number, written in ((2, b"early"), (11, content)):
            folder = tmp_path / name / "checkpoints" / f"round-{number:06d}"
            folder.mkdir(parents=True)
            if content is not None and written is not None:
                (folder / "supernet.safetensors").write_bytes(written)
    assert same_checkpoint(tmp_path / "one", tmp_path / "other") == same
