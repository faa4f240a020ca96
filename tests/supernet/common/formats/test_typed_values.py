import contextlib
import dataclasses
import typing
from typing import Any, Literal

import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_values import typed, typed_text, unknown_field
from fedpareto.supernet.common.formats.yaml_text import parse_yaml


@dataclasses.dataclass(frozen=True)
class Size:
    """A group of fields."""

    width: int
    height: int = 3


_HINTS: list[Any] = [
    int, float, bool, str, int | None, float | None, bool | None, str | None, Literal["a", "b"], Literal["all"] | int,
    tuple[int, ...], tuple[float, ...], tuple[str, ...], tuple[str, ...] | None, tuple[Size, ...], Size, Size | None,
]  # fmt: skip

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["a", "all", "3"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["width", "height", "x"]), inner),
    max_leaves=6,
)


def _is_of(value: Any, hint: Any) -> bool:
    """Return whether a value is exactly of a type."""
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return type(value) is tuple and all(_is_of(item, typing.get_args(hint)[0]) for item in value)
    if typing.get_args(hint):
        return any(_is_of(value, option) for option in typing.get_args(hint))
    return type(value) is hint


def _refused(value: object, hint: Any) -> str:
    with pytest.raises(UserError, match=r"\bgroup\.field\b") as caught:
        typed(value, hint, "group.field")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@runs(400)
@given(_VALUES, st.sampled_from(_HINTS))
def test_any_value_is_of_the_type_of_its_field_or_refused_in_one_line(value: object, hint: Any) -> None:
    with contextlib.suppress(UserError):
        read = typed(value, hint, "group.field")
        assert _is_of(read, hint)
        assert typed(read, hint, "group.field") == read
        return
    message = _refused(value, hint)
    assert len(message) < 300


@runs(100)
@given(st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_a_number_is_text_as_it_was_written_where_text_is_meant(number: float, exponent: bool) -> None:
    written = f"{number:.3e}" if exponent else repr(number)
    assert typed(parse_yaml(written, "a.yaml"), str, "field") == written
    assert typed(parse_yaml(f"[{written}]", "a.yaml"), tuple[str, ...], "field") == (written,)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        ("60M", tuple[str, ...], ("60M",)),
        (3, tuple[int, ...], (3,)),
        (3, tuple[float, ...], (3.0,)),
        ({"width": 2}, tuple[Size, ...], (Size(2),)),
        ("3", int, 3),
        ("1e-3", float, 1e-3),
        (2, float, 2.0),
        ("Yes", bool, True),
        ("off", bool, False),
        (5, Literal["all"] | int, 5),
        ("all", Literal["all"] | int, "all"),
        (None, Size | None, None),
        ("null", str | None, "null"),
    ],
)
def test_what_is_plain_is_accepted(value: object, hint: Any, expected: object) -> None:
    read = typed(value, hint, "field")
    assert read == expected
    assert _is_of(read, hint)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (None, float, "group.field is empty (null); it must be a number"),
        (None, Size, "group.field is empty (null); it must be a group of fields: width, height"),
        ([1], Size, "group.field is [1]; it must be a group of fields: width, height"),
        ({"a": 1}, str, "group.field is a mapping of fields; it must be text"),
        ([1, 2], int, "group.field is [1, 2]; it must be a whole number"),
        (True, int, "group.field is true; it must be a whole number"),
        (True, str, "group.field is true; it must be text: write it in quotes"),
        ("", str, "group.field is empty; give it a value, or leave it out"),
        ("a\0b", str, r"group.field is 'a\x00b'; text must hold no NUL character"),
        (1.5, int | None, "group.field is 1.5; it must be a whole number"),
        (
            10**20,
            int,
            "group.field is 100000000000000000000; it must be a whole number up to 9,223,372,036,854,775,807",
        ),
        (float("inf"), float, "group.field is inf; it must be a finite number"),
        (10**400, float, f"group.field is {'1' + '0' * 79}…; it must be a finite number"),
        ("c", Literal["a", "b"], "group.field is c; it must be one of 'a', 'b'"),
        ("x\ny", Literal["a", "b"], r"group.field is 'x\ny'; it must be one of 'a', 'b'"),
        (["w"], tuple[float, ...], "group.field[0] is w; it must be a number"),
        ({"width": "w"}, Size, "group.field.width is w; it must be a whole number"),
        ([{"height": 1}], tuple[Size, ...], "the field 'group.field[0].width' is missing"),
        ({"widht": 1}, Size, "there is no field 'group.field.widht'; did you mean 'group.field.width'?"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is(value: object, hint: Any, message: str) -> None:
    assert _refused(value, hint) == message


@runs(100)
@given(st.text(min_size=1).filter(lambda text: "\0" not in text and text != "null"))
def test_text_of_the_command_line_is_text_as_it_is(text: str) -> None:
    assert typed_text(text, str | None, "--field") == text
    assert typed_text(text, str, "--field") == text


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [
        ("null", str | None, None),
        ("null", str, "null"),
        ("[60M, 6e7, 5]", tuple[str, ...], ("60M", "6e7", "5")),
        ("60M", tuple[str, ...], ("60M",)),
        ("[]", tuple[str, ...], ()),
        ("[a]", str, "[a]"),
        ("~", str | None, "~"),
        ("a: b", str, "a: b"),
        ("0.5", tuple[float, ...], (0.5,)),
        ("null", int | None, None),
    ],
)
def test_words_of_the_command_line_mean_what_their_option_holds(text: str, hint: Any, expected: object) -> None:
    assert typed_text(text, hint, "--field") == expected


def test_a_field_with_the_name_of_its_group_before_it_is_told_where_it_belongs() -> None:
    said = unknown_field("clients.per-round", ["clients", "client"])
    assert said.endswith("fields of a group are written below it: clients: {per_round: …}")
