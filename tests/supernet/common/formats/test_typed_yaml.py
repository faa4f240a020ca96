import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_yaml import from_mapping, read_yaml_mapping


@dataclasses.dataclass(frozen=True)
class Inner:
    """Something nested."""

    size: int


@dataclasses.dataclass(frozen=True)
class Outer:
    """Something with fields."""

    name: str
    inner: Inner
    ratios: tuple[float, ...] = (1.0,)


def test_a_mapping_becomes_the_typed_value() -> None:
    value = from_mapping(Outer, {"name": "a", "inner": {"size": 3}, "ratios": [1, 2.5]}, "here")
    assert value == Outer("a", Inner(3), (1.0, 2.5))


def test_fields_left_out_keep_their_defaults() -> None:
    assert from_mapping(Outer, {"name": "a", "inner": {"size": 3}}, "here").ratios == (1.0,)


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        ({"name": "a", "inner": {"size": 3}, "colour": 1}, "colour"),
        ({"inner": {"size": 3}}, "name"),
        ({"name": "a", "inner": {"size": "big"}}, r"inner\.size"),
        ({"name": "a", "inner": {"size": 3, "x": 1}}, r"inner\.x"),
        ({"name": "a", "inner": {"size": 3}, "ratios": ["wide"]}, "ratios"),
        ({"name": ["a"], "inner": {"size": 3}}, "name"),
    ],
)
def test_a_bad_field_is_a_one_line_error_that_names_source_and_field(mapping: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=rf"^here: .*{named}") as caught:
        from_mapping(Outer, mapping, "here")
    assert "\n" not in str(caught.value)


def test_a_key_that_is_no_text_is_a_user_error() -> None:
    with pytest.raises(UserError, match="here"):
        from_mapping(Outer, {"name": "a", "inner": {"size": 3}, 1: 2}, "here")  # type: ignore[dict-item]


def test_yaml_is_read_as_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nb: [x, y]\n")
    assert read_yaml_mapping(path) == {"a": 1, "b": ["x", "y"]}


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: b: c", "a: [1", "!!python/object:os.system {}"])
def test_anything_but_a_mapping_is_a_one_line_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml") as caught:
        read_yaml_mapping(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int | None, "few", "few; it must be a whole number"),
        (Literal["batch", "group"], "layer", "layer; it must be one of 'batch', 'group'"),
        (tuple[int, ...], "abc", "abc; it must be a list, such as [1, 2]"),
        (bool, 7, "7; it must be true or false"),
        (Literal["all"] | int, "few", "few; it must be one of 'all' or a whole number"),
    ],
)
def test_a_value_of_another_type_is_named_with_what_is_allowed(kind: type, value: object, message: str) -> None:
    cls = dataclasses.make_dataclass("Options", [("count", kind)])
    with pytest.raises(UserError) as caught:
        from_mapping(cls, {"count": value}, "file.yaml")
    assert str(caught.value) == f"file.yaml: count is {message}"


@pytest.mark.parametrize(("mapping", "name"), [({"size": 2}, "size"), ({"inner": {"size": 2}}, "inner.size")])
def test_an_unknown_field_is_named(mapping: dict[str, object], name: str) -> None:
    inner = dataclasses.make_dataclass("Inner", [("count", int, 1)])
    cls = dataclasses.make_dataclass("Options", [("inner", inner), ("count", int, 1)])
    with pytest.raises(UserError, match=rf"^file.yaml: there is no field '{name}'; there are: "):
        from_mapping(cls, mapping, "file.yaml")
