import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.networks.reference import round8 as reference_round8
from helpers.networks.strategies import PRESETS, preset, runs, tiny_space, user_spaces
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import SpaceError
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace, round8
from fedpareto.supernet.space_file import load_space, preset_names, space_from_mapping, space_to_mapping

GOOD: dict[str, Any] = {
    "name": "mine",
    "family": "mobilenet",
    "stem": {"width": 16, "stride": 2, "multipliers": [0.5, 1.0]},
    "stages": [{"width": 24}, {"width": 48, "stride": 2, "activation": "hswish", "se": True}],
    "resolutions": [32, 48],
    "depths": [1, 2],
    "kernels": [3, 5],
    "expands": [2, 3.5],
    "width_multipliers": [0.5, 1.0],
    "norm": "group",
    "classes": 7,
    "fitness": {"entropy": "prefix", "entropy_weights": [1.0, 2.0]},
}

#: Field changes (None removes the field) and what the one-line error must name.
BAD: list[tuple[dict[str, Any], str]] = [
    ({"kernel_sizes": [3]}, "kernel_sizes"),
    ({"expands": None}, "expands"),
    ({"stem": None}, "stem"),
    ({"depths": {"most": 2}}, "depths"),
    ({"depths": [1.5]}, "depths"),
    ({"expands": ["wide"]}, "expands"),
    ({"norm": "layer"}, "norm"),
    ({"family": "vgg"}, "family"),
    ({"head": 3}, "head"),
    ({"head": {"conv": 12, "hidden": 8}}, r"head\.conv"),
    ({"stem": {"width": 16, "depth": 2}}, r"stem\.depth"),
    ({"stem": {"width": 16, "stride": 3}}, r"stem\.stride"),
    ({"stem": {"width": 16, "multipliers": [1.5]}}, r"stem\.multipliers"),
    ({"stages": []}, "stages"),
    ({"stages": [{"stride": 1}]}, "stages.*width"),
    ({"stages": [{"width": 24}, {"width": 20}]}, r"stages\[1\]\.width"),
    ({"stages": [{"width": 0}]}, r"stages\[0\]\.width"),
    ({"kernels": [5, 3]}, "kernels"),
    ({"kernels": [3, 4]}, "kernels.*odd"),
    ({"kernels": [3, 3]}, "kernels"),
    ({"depths": []}, "depths"),
    ({"depths": [0, 1]}, "depths"),
    ({"resolutions": [1]}, "resolutions"),
    ({"expands": [0.5, 2]}, "expands"),
    ({"stages": [{"width": 24, "branch_activation": True}]}, r"stages\[0\]\.branch_activation is true; that is for"),
    ({"width_multipliers": [0, 1.0]}, "width_multipliers"),
    ({"width_multipliers": [0.5, 1.5]}, "width_multipliers"),
    ({"width_multipliers": [1.0, 0.5]}, "width_multipliers"),
    ({"classes": 0}, "classes"),
    ({"classes": "ten"}, "classes"),
    ({"classes": True}, "classes"),
    ({"in_channels": 0}, "in_channels"),
    ({"fitness": {"entropy": "sum"}}, r"fitness\.entropy"),
    ({"fitness": {"entropy_weights": [1.0, 2.0, 3.0]}}, r"fitness\.entropy_weights"),
    ({"fitness": {"depth_penalty": float("nan")}}, r"fitness\.depth_penalty"),
    ({"fitness": {"cache_max_effectiveness": float("inf")}}, r"fitness\.cache_max_effectiveness"),
    ({"fitness": {"cache_max_effectiveness": "low"}}, r"fitness\.cache_max_effectiveness"),
]

#: A ResNet space in the same form: changes of ``GOOD``.
RESNET: dict[str, Any] = {
    "family": "resnet",
    "stages": [{"width": 24}, {"width": 48, "stride": 2, "activation": "hswish"}],
    "kernels": None,
    "expands": [0.1, 0.5, 1.5],
}

#: The same of ``RESNET``.
BAD_RESNET: list[tuple[dict[str, Any], str]] = [
    ({"kernels": [5]}, r"kernels is \[5\]; blocks of the family resnet have 3×3 kernels: leave it out"),
    ({"kernels": [3, 5]}, r"kernels is \[3, 5\]; blocks of the family resnet"),
    ({"stages": [{"width": 24}, {"width": 48, "se": True}]}, r"stages\[1\]\.se is true; blocks of the family resnet"),
    ({"expands": None}, "expands"),
    ({"expands": []}, r"expands is \[\]; it must list ratios above 0"),
    ({"expands": [0, 0.5]}, "expands .* ratios above 0"),
    ({"expands": [-0.5, 0.5]}, "expands .* ratios above 0"),
    ({"expands": [0.5, 0.1]}, "expands .* ascending"),
    ({"expands": [0.5, 0.5]}, "expands .* ascending"),
    ({"expands": [0.5, float("inf")]}, r"expands\[1\] is \.?inf; it must be a finite number"),
    ({"expands": [0.5, float("nan")]}, r"expands\[1\] is \.?nan; it must be a finite number"),
]


def _written(folder: Path, changes: dict[str, Any]) -> Path:
    mapping = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(mapping))
    return path


@given(st.floats(min_value=0.1, max_value=5000))
@runs(300)
def test_round8_is_the_rule_of_the_design(value: float) -> None:
    assert round8(value) == reference_round8(value)


@pytest.mark.parametrize(
    ("value", "expected"), [(1, 8), (11.9, 16), (12, 16), (18, 24), (20, 24), (56.0, 56), (84, 88), (27, 32)]
)
def test_round8_of_known_values(value: float, expected: int) -> None:
    assert round8(value) == expected


def test_presets_are_listed_by_name() -> None:
    assert set(PRESETS) <= set(preset_names())


def test_an_unknown_space_names_every_valid_one() -> None:
    with pytest.raises(SpaceError) as caught:
        load_space("mobilenet-cifr")
    assert "mobilenet-cifr" in str(caught.value)
    assert all(name in str(caught.value) for name in preset_names())


def test_a_space_is_read_from_a_yaml_file(tmp_path: Path) -> None:
    space = load_space(str(_written(tmp_path, {})))
    assert (space.name, space.norm, space.classes) == ("mine", "group", 7)
    assert space.head is None
    assert list(space.expands) == [2, 3.5]
    assert space.stages[1].se
    assert space.fitness == FitnessSettings(entropy="prefix", entropy_weights=(1.0, 2.0))
    assert list(space.stem_choices) == [8, 16]
    assert [list(widths) for widths in space.width_choices] == [[16, 24], [24, 48]]


@pytest.mark.parametrize(("changes", "named"), BAD, ids=[named for _, named in BAD])
def test_a_bad_space_file_is_one_line_that_names_the_field(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    path = _written(tmp_path, changes)
    with pytest.raises(SpaceError) as caught:
        load_space(str(path))
    message = str(caught.value)
    assert re.search(named, message)
    assert str(path) in message
    assert "\n" not in message


def test_a_resnet_space_is_read_from_a_yaml_file(tmp_path: Path) -> None:
    space = load_space(str(_written(tmp_path, RESNET)))
    assert (space.family, space.expands) == ("resnet", (0.1, 0.5, 1.5))
    assert space.kernels == (3,)
    assert load_space(str(_written(tmp_path, {**RESNET, "kernels": [3]}))) == space


@pytest.mark.parametrize(("changes", "named"), BAD_RESNET, ids=[named for _, named in BAD_RESNET])
def test_a_resnet_space_refuses_what_its_blocks_cannot_be(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    path = _written(tmp_path, {**RESNET, **changes})
    with pytest.raises(SpaceError, match=named) as caught:
        load_space(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mobilenet_space_that_names_no_kernels_has_kernels_of_3(tmp_path: Path) -> None:
    assert load_space(str(_written(tmp_path, {"kernels": None}))).kernels == (3,)


def test_a_cache_is_built_with_its_own_bound_on_effectiveness() -> None:
    search = FitnessSettings(depth_penalty=3.0, max_effectiveness=2.0, cache_max_effectiveness=0.51)
    cache = search.for_cache()
    assert cache.max_effectiveness == 0.51
    assert dataclasses.replace(cache, max_effectiveness=2.0) == search
    assert cache.for_cache() == cache


def test_a_cache_is_built_with_the_bound_of_a_search_unless_it_has_its_own() -> None:
    settings = FitnessSettings(depth_penalty=3.0, max_effectiveness=2.0)
    assert settings.for_cache() == settings


@pytest.mark.parametrize("section", [None, 3])
def test_a_fitness_section_that_is_no_mapping_is_an_error_that_names_it(tmp_path: Path, section: int | None) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "fitness": section}))
    with pytest.raises(SpaceError, match=r"mine\.yaml: fitness"):
        load_space(str(path))


@pytest.mark.parametrize("ratio", [float("nan"), float("inf")])
def test_expand_ratios_must_be_finite(ratio: float) -> None:
    with pytest.raises(SpaceError, match="expands"):
        dataclasses.replace(tiny_space(), expands=(1.0, ratio) if ratio > 1 else (ratio,))


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "{", "", "3"])
def test_a_file_that_holds_no_mapping_is_a_space_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SpaceError) as caught:
        load_space(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_space_file_is_a_space_error(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="No such file"):
        load_space(str(tmp_path / "nowhere.yaml"))


@given(user_spaces())
@runs(40)
def test_a_space_survives_its_mapping(space: SearchSpace) -> None:
    again = space_from_mapping(space_to_mapping(space), "test")
    assert again == space
    assert again.fingerprint == space.fingerprint


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_mapping_with_its_fitness(name: str) -> None:
    assert space_from_mapping(space_to_mapping(preset(name)), "test") == preset(name)


@pytest.mark.parametrize("name", PRESETS)
def test_adapting_changes_the_classes_alone(name: str) -> None:
    adapted = preset(name).adapted(classes=37)
    assert adapted.classes == 37
    assert dataclasses.replace(adapted, classes=preset(name).classes) == preset(name)


def test_the_fingerprint_ignores_name_and_fitness_and_nothing_else() -> None:
    space = tiny_space()
    for same in (
        dataclasses.replace(space, name="other"),
        dataclasses.replace(space, fitness=FitnessSettings(depth_penalty=3)),
    ):
        assert same.fingerprint == space.fingerprint
    changed: list[dict[str, Any]] = [
        {"classes": 11},
        {"norm": "group"},
        {"kernels": (3,)},
        {"expands": (2.0, 3.0)},
        {"head": None},
        {"in_channels": 1},
        {"resolutions": (16,)},
        {"norm": "none"},
        {"expands_per": "stage"},
        {"stages": space.stages[:2]},
        {"stem": dataclasses.replace(space.stem, activation="relu")},
    ]
    prints = {dataclasses.replace(space, **fields).fingerprint for fields in changed}
    assert len(prints | {space.fingerprint}) == len(changed) + 1


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("mobilenet-tiny", "5ca300701399b317"),
        ("mobilenet-cifar", "d48e394bf2abc4e4"),
        ("resnet-cifar", "afe0e4fde03740c9"),
    ],
)
def test_the_files_of_older_versions_still_fit_the_presets(name: str, fingerprint: str) -> None:
    assert preset(name).fingerprint == fingerprint


def test_an_activation_before_the_addition_makes_other_networks() -> None:
    space = preset("resnet-cifar")
    stages = tuple(dataclasses.replace(stage, branch_activation=True) for stage in space.stages)
    assert dataclasses.replace(space, stages=stages).fingerprint != space.fingerprint


def test_the_same_choices_in_another_family_are_another_space(tmp_path: Path) -> None:
    resnet = load_space(str(_written(tmp_path, {**RESNET, "expands": [1, 2]})))
    assert dataclasses.replace(resnet, family="mobilenet").fingerprint != resnet.fingerprint


def test_equal_spaces_have_equal_fingerprints() -> None:
    space = tiny_space()
    whole = dataclasses.replace(space, expands=(2, 3, 4))
    assert whole == space
    assert whole.fingerprint == space.fingerprint
