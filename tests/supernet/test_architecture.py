import dataclasses
import json
import re
from typing import Any

import pytest
from helpers.networks.strategies import MOBILENETS, architectures, preset, runs, spaces_with_architectures
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.architecture import (
    Architecture,
    Block,
    Stage,
    architecture_from_json,
    architecture_from_text,
)
from fedpareto.supernet.common.errors import ArchitectureError
from fedpareto.supernet.space import SearchSpace

SMALL = Architecture("mobilenet", 16, 8, (Stage(24, (Block(expand=4.0, kernel=5), Block(expand=2.5))),))
SMALL_JSON: dict[str, Any] = {
    "family": "mobilenet",
    "resolution": 16,
    "stem_width": 8,
    "stages": [{"width": 24, "blocks": [{"kernel": 5, "expand": 4}, {"kernel": 3, "expand": 2.5}]}],
}

RESNET = Architecture("resnet", 32, 64, (Stage(128, (Block(0.18), Block(0.1))), Stage(304, (Block(1.0),))))
RESNET_JSON: dict[str, Any] = {
    "family": "resnet",
    "resolution": 32,
    "stem_width": 64,
    "stages": [
        {"width": 128, "blocks": [{"expand": 0.18}, {"expand": 0.1}]},
        {"width": 304, "blocks": [{"expand": 1}]},
    ],
}


@pytest.mark.parametrize(("architecture", "expected"), [(SMALL, SMALL_JSON), (RESNET, RESNET_JSON)])
def test_the_json_form_is_that_of_the_design(architecture: Architecture, expected: dict[str, Any]) -> None:
    assert str(architecture) == json.dumps(expected)
    assert architecture_from_json(expected) == architecture


def test_whole_expand_ratios_print_as_integers() -> None:
    assert '"expand": 4}' in str(SMALL)
    assert '"expand": 2.5}' in str(SMALL)


@given(spaces_with_architectures())
@runs(60)
def test_an_architecture_survives_its_json(drawn: tuple[SearchSpace, Architecture]) -> None:
    architecture = drawn[1]
    assert architecture_from_text(str(architecture), "test") == architecture


@given(st.sampled_from(MOBILENETS).flatmap(lambda name: architectures(preset(name))))
@runs(40)
def test_a_mobilenet_presets_architecture_prints_whole_numbers_alone(architecture: Architecture) -> None:
    assert "." not in str(architecture)
    again = architecture_from_json(json.loads(str(architecture)))
    assert (again, hash(again)) == (architecture, hash(architecture))


def test_whole_and_floating_ratios_are_the_same_architecture() -> None:
    whole = dataclasses.replace(SMALL, stages=(Stage(24, (Block(4, 5), Block(2.5))),))
    assert (whole, hash(whole)) == (SMALL, hash(SMALL))


def test_an_architecture_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.resolution = 32  # type: ignore[misc]


def _changed(path: str, value: object) -> dict[str, Any]:
    """Return the small JSON with the value at a dotted path replaced; ``...`` removes it."""
    changed = json.loads(json.dumps(SMALL_JSON))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target: Any = changed
    for part in parents:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return dict(changed)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("family", "vgg", "unknown family 'vgg'; valid: mobilenet, resnet"),
        ("family", 3, "unknown family '3'"),
        ("family", ..., "architecture lacks the field 'family'"),
        ("resolution", 16.0, "resolution must be an integer, found 16.0"),
        ("resolution", 0, "resolution is 0; it must be positive"),
        ("stem_width", True, "stem_width must be an integer, found True"),
        ("depth", 3, "architecture has an unknown field 'depth'"),
        ("stages", {}, "stages must be a list, found dict"),
        ("stages.0", [], "stages[0] must be a JSON object, found list"),
        ("stages.0.width", -8, "stages[0].width is -8; it must be positive"),
        ("stages.0.width", ..., "stages[0] lacks the field 'width'"),
        ("stages.0.blocks", [], "stages[0].blocks is empty"),
        ("stages.0.blocks.1.kernel", "3", "stages[0].blocks[1].kernel must be an integer, found '3'"),
        ("stages.0.blocks.1.expand", None, "stages[0].blocks[1].expand must be a number, found None"),
        ("stages.0.blocks.1.expand", 0, "stages[0].blocks[1].expand is 0; it must be positive"),
        ("stages.0.blocks.1.width", 8, "stages[0].blocks[1] has an unknown field 'width'; allowed: kernel"),
    ],
)
def test_a_bad_field_is_named_with_what_is_allowed(path: str, value: object, message: str) -> None:
    with pytest.raises(ArchitectureError, match=re.escape(message)) as caught:
        architecture_from_json(_changed(path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"expand": 0.1, "kernel": 3}, "stages[0].blocks[0] has an unknown field 'kernel'; allowed: expand"),
        ({"kernel": 3}, "stages[0].blocks[0] lacks the field 'expand'; it has: kernel"),
        ({"expand": "0.1"}, "stages[0].blocks[0].expand must be a number, found '0.1'"),
        ({"expand": -0.1}, "stages[0].blocks[0].expand is -0.1; it must be positive"),
    ],
)
def test_a_resnet_block_is_its_expand_ratio_alone(block: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchitectureError, match=re.escape(message)):
        architecture_from_json({**RESNET_JSON, "stages": [{"width": 128, "blocks": [block]}]})


def test_architectures_of_two_families_are_never_equal() -> None:
    stages = (Stage(24, (Block(2.0),)),)
    assert Architecture("resnet", 16, 8, stages) != Architecture("mobilenet", 16, 8, stages)


@pytest.mark.parametrize("value", [None, 3, "x", [SMALL_JSON]])
def test_anything_but_an_object_is_refused(value: object) -> None:
    with pytest.raises(ArchitectureError, match="architecture must be a JSON object"):
        architecture_from_json(value)


def test_text_that_is_no_json_names_its_source() -> None:
    with pytest.raises(ArchitectureError, match=r"^net\.json is not valid JSON: "):
        architecture_from_text("{", "net.json")


def test_text_that_is_no_architecture_names_its_source() -> None:
    with pytest.raises(ArchitectureError, match=r"^net\.json: architecture lacks the field 'family'"):
        architecture_from_text("{}", "net.json")
