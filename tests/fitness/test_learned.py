import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.networks.learned import drawn_terms, learned_terms, most, plain_sum
from helpers.networks.strategies import preset, runs, spaces_with_genes, tiny_space, user_spaces
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.fitness.learned import learned_sum
from fedpareto.fitness.score import score
from fedpareto.fitness.settings import load_settings
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import SpaceError, UserError
from fedpareto.supernet.fitness_settings import FitnessSettings, settings_to_mapping
from fedpareto.supernet.genes import canonical, decode, random_genes
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import space_from_mapping, space_to_mapping


@given(spaces_with_genes(), st.data())
@runs(150)
def test_terms_add_up_as_choice_by_choice(drawn: tuple[SearchSpace, IntArray], data: st.DataObject) -> None:
    space, genes = drawn
    terms = data.draw(learned_terms(space))
    found = learned_sum(space, canonical(space, genes).T, terms)
    assert found.tolist() == pytest.approx([plain_sum(space, decode(space, genes), terms)], abs=1e-12 * most(terms))


@given(user_spaces(), st.data())
@runs(40)
def test_equal_networks_are_equally_fit_whichever_ratio_their_genes_name(
    space: SearchSpace, data: st.DataObject
) -> None:
    genes = random_genes(space, 300, np.random.default_rng(data.draw(st.integers(0, 100))))
    weights = FitnessSettings(learned=data.draw(learned_terms(space)))
    assert (
        score(space, genes, weights).fitness.tolist() == score(space, canonical(space, genes), weights).fitness.tolist()
    )


def test_terms_are_added_to_the_analytic_fitness_and_change_no_cost() -> None:
    space = preset("mobilenet-cifar")
    genes, terms = random_genes(space, 5000, np.random.default_rng(0)), drawn_terms(space)
    before = score(space, genes)
    after = score(space, genes, dataclasses.replace(space.fitness, learned=terms))
    gained = learned_sum(space, genes.T, terms)
    assert after.fitness.tolist() == (before.fitness + gained).tolist()
    assert gained.std() > 1
    assert after._replace(fitness=before.fitness).rho.tolist() == before.rho.tolist()
    assert np.array_equal(after.macs, before.macs)


def _learned(space: SearchSpace) -> FitnessSettings:
    return dataclasses.replace(space.fitness, learned=drawn_terms(space))


def test_a_fitness_with_terms_is_read_as_it_was_written(tmp_path: Path) -> None:
    space = tiny_space()
    path = tmp_path / "fitness.yaml"
    path.write_text(yaml.safe_dump(settings_to_mapping(_learned(space)), sort_keys=False))
    assert load_settings(str(path), space) == _learned(space)
    # The choices are the same whatever the number of classes.
    assert load_settings(str(path), space.adapted(classes=37)) == _learned(space)


def test_a_space_may_have_a_learned_fitness_of_its_own() -> None:
    space = dataclasses.replace(tiny_space(), fitness=_learned(tiny_space()))
    assert space_from_mapping(space_to_mapping(space), "test") == space
    assert space.fingerprint == tiny_space().fingerprint


def test_without_terms_files_have_no_field_for_them() -> None:
    assert "learned" not in settings_to_mapping(FitnessSettings())
    assert "learned" not in space_to_mapping(tiny_space())["fitness"]


def test_terms_of_another_space_are_refused_in_one_line(tmp_path: Path) -> None:
    space, other = tiny_space(), preset("mobilenet-cifar")
    path = tmp_path / "fitness.yaml"
    path.write_text(yaml.safe_dump(settings_to_mapping(_learned(other))))
    with pytest.raises(
        UserError, match=r"fitness\.yaml: fitness\.learned was fitted to another space than mobilenet-tiny"
    ) as caught:
        load_settings(str(path), space)
    assert "\n" not in str(caught.value)
    assert "validate-fitness --fit --form blocks" in str(caught.value)
    # Of as many choices, but other ones.
    kernels = dataclasses.replace(space, kernels=tuple(kernel + 2 for kernel in space.kernels))
    with pytest.raises(SpaceError, match="was fitted to another space"):
        score(kernels, np.zeros(2), _learned(space))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"stem": [0.0, 1.0]}, r"learned\.stem has length 2; it must have 1"),
        ({"widths": [[0.0]] * 3}, r"learned\.widths\[0\] has length 1; it must have"),
        ({"depths": [[0.0, 0.0, 0.0]]}, r"learned\.depths has length 1; it must have 3"),
        ({"blocks": [[[[0.0]]]] * 3}, r"learned\.blocks\[0\] has length 1; it must have"),
        ({"intercept": 1e7}, r"learned\.intercept is 10000000.0; it must be a number from -1e\+06 to 1e\+06"),
        ({"resolutions": [float("nan")]}, r"resolutions\[0\] is \.nan; it must be"),
        ({"resolutions": ["high"]}, r"resolutions\[0\] is high; it must be a number"),
        ({"blocks": None}, r"blocks is empty"),
        ({"bloks": []}, r"no field 'learned\.bloks'; did you mean 'learned\.blocks'"),
        ({"space": 12}, r"was fitted to another space than .* \(choices '12'"),
    ],
)
def test_damaged_terms_are_a_one_line_error_that_names_the_field(
    tmp_path: Path, damage: dict[str, Any], named: str
) -> None:
    mapping = settings_to_mapping(_learned(tiny_space()))
    mapping["learned"] |= damage
    path = tmp_path / "fitness.yaml"
    path.write_text(yaml.safe_dump(mapping))
    with pytest.raises(UserError, match=named) as caught:
        load_settings(str(path), tiny_space())
    assert "\n" not in str(caught.value)


def test_missing_terms_are_named(tmp_path: Path) -> None:
    mapping = settings_to_mapping(_learned(tiny_space()))
    del mapping["learned"]["depths"]
    path = tmp_path / "fitness.yaml"
    path.write_text(yaml.safe_dump(mapping))
    with pytest.raises(UserError, match=r"the field 'learned\.depths' is missing"):
        load_settings(str(path), tiny_space())
