from pathlib import Path

import pytest
from helpers.networks.strategies import tiny_space

from fedpareto.fitness.settings import load_settings
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.fitness_settings import FitnessSettings


def test_without_a_file_the_spaces_own_weights_apply() -> None:
    assert load_settings(None, tiny_space()) == tiny_space().fitness


def test_weights_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "fitness.yaml"
    path.write_text("entropy: prefix\nentropy_weights: [1, 2, 4]\nmax_effectiveness: 0.51\n")
    expected = FitnessSettings(entropy="prefix", entropy_weights=(1.0, 2.0, 4.0), max_effectiveness=0.51)
    assert load_settings(str(path), tiny_space()) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("rho: 1", "rho"),
        ("depth_penalty: high", "depth_penalty"),
        ("entropy: stages", "entropy"),
        ("entropy_weights: [1, 2]", "entropy_weights"),
        ("entropy_weights: [1, .inf, 1]", "entropy_weights"),
        ("max_effectiveness: .nan", "max_effectiveness"),
        ("- 1", "mapping"),
    ],
)
def test_bad_weights_are_a_one_line_error_that_names_the_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "fitness.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=named) as caught:
        load_settings(str(path), tiny_space())
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: No such file"):
        load_settings(str(tmp_path / "nowhere.yaml"), tiny_space())
