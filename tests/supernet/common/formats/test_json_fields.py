from collections.abc import Callable
from typing import Any

import pytest

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import Fields, fields_of

_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 1.5, -0.5, 1e300, "", "a", [], [1], [-1], [1.5], ["a"], [None]),
    *([1, [2]], [[1], [2, 3]], [[0.5]], {}, {"b": 1}, [{"b": 1}], [{}, 3]),
]

Reader = Callable[[Fields], object]

_READERS: dict[str, tuple[Reader, list[Any]]] = {
    "whole": (lambda fields: fields.whole("a"), [0, 1, 7]),
    "whole from 2": (lambda fields: fields.whole("a", 2), [7]),
    "number": (lambda fields: fields.number("a"), [0, 1, -1, 7, 1.5, -0.5, 1e300]),
    "share": (lambda fields: fields.number("a", 0, 1), [0, 1]),
    "text": (lambda fields: fields.text("a"), ["", "a"]),
    "choice": (lambda fields: fields.choice("a", ("a", "b")), ["a"]),
    "wholes": (lambda fields: list(fields.wholes("a")), [[], [1]]),
    "wholes or nulls": (lambda fields: list(fields.wholes_or_nulls("a")), [[], [1], [None]]),
    "numbers": (lambda fields: list(fields.numbers("a")), [[], [1], [-1], [1.5]]),
    "texts": (lambda fields: list(fields.texts("a")), [[], ["a"]]),
    "lists of wholes": (lambda fields: [list(one) for one in fields.lists_of_wholes("a")], [[], [[1], [2, 3]]]),
    "lists of numbers": (
        lambda fields: [list(one) for one in fields.lists_of_numbers("a")],
        [[], [[1], [2, 3]], [[0.5]]],
    ),
    "within": (lambda fields: fields.within("a").values, [{}, {"b": 1}]),
    "each": (lambda fields: [one.values for one in fields.each("a")], [[], [{"b": 1}]]),
}


@pytest.mark.parametrize("name", _READERS)
def test_a_field_is_returned_if_it_is_what_it_has_to_be_and_named_if_not(name: str) -> None:
    read, allowed = _READERS[name]
    for value in _VALUES:
        fields = Fields({"a": value}, "file.json", "outer.")
        if any(repr(value) == repr(one) for one in allowed):
            assert read(fields) == value
            continue
        with pytest.raises(UserError, match=r"^file\.json: outer\.a.* is .*; it must be ") as caught:
            read(fields)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"^file\.json lacks the field outer\.a$"):
        read(Fields({}, "file.json", "outer."))


def test_a_place_deep_within_is_named_whole() -> None:
    value = {"state": {"networks": [{"macs": 1}, {"macs": [1, -2]}]}}
    networks = fields_of(value, "f").within("state").each("networks")
    with pytest.raises(
        UserError, match=r"f: state\.networks\[1\]\.macs\[1\] is -2; it must be a whole number of at least 0"
    ):
        networks[1].wholes("macs")


@pytest.mark.parametrize("value", [None, 3, "a", [], [{}], True])
def test_what_is_no_object_has_no_fields(value: object) -> None:
    with pytest.raises(UserError, match=r"^file must be a JSON object, found "):
        fields_of(value, "file")


def test_null_is_there_and_nothing() -> None:
    fields = Fields({"a": None, "b": 0}, "file")
    assert [fields.has(name) for name in "abc"] == [False, True, False]
