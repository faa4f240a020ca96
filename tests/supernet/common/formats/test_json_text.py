import json
from typing import Any

import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_text import MOST_DIGITS, MOST_LEVELS, parse_json, sealed, shown, unsealed

_CHARACTERS = st.characters(codec="utf-8")
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(_CHARACTERS)
)
_NAMES = st.text(_CHARACTERS, max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4), max_leaves=12
)


@runs(60)
@given(VALUES, st.sampled_from([None, 1]), st.booleans(), st.booleans())
def test_what_was_written_is_read(value: Any, indent: int | None, ascii_only: bool, marked: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    found = parse_json(("\ufeff" if marked else "") + text, "file")
    assert repr(found) == repr(json.loads(text))


#: Values that no text may hold, wherever they stand, and what is said of them.
_ODD = {
    "NaN": "NaN is no number of JSON",
    "Infinity": "Infinity is no number of JSON",
    "-Infinity": "-Infinity is no number of JSON",
    "1e400": "the number 1e400 is too large",
    "-1e400": "the number -1e400 is too large",
    "1" + "0" * 399 + ".5": "is too large",
    "9" * 301: f"a number has 301 digits; at most {MOST_DIGITS} are read",
    "9" * 5000: "a number has 5000 digits",
    '{"b": 1, "b": 1}': "the field 'b' is there twice",
    '{"b": {"c": 1}, "b": 2, "d": 3}': "the field 'b' is there twice",
    "[" * 100 + "]" * 100: f"nested more than {MOST_LEVELS} levels deep",
    '{"b":' * 100 + "1" + "}" * 100: f"nested more than {MOST_LEVELS} levels deep",
    "[" * 100_000 + "]" * 100_000: "nested",
    '{"b":' * 100_000: "nested",
    '"\\ud800"': "half of a surrogate pair",
    '{"\\udfff": 1}': "half of a surrogate pair",
    '"\0"': "",
    "\0": "",
    "'b'": "",
    "01": "",
    "1_000": "",
    "[1,]": "",
    "nul": "",
    "// remark": "",
}


@pytest.mark.parametrize("text", _ODD, ids=lambda text: repr(text)[:16])
@pytest.mark.parametrize("around", ["{}", "[{}]", '{{"a": [1, {{"x": {}}}]}}', "[[[[[{}]]]]]"])
def test_what_is_no_json_is_one_line_that_names_the_source(text: str, around: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_json(around.replace("{{", "{").replace("}}", "}").replace("{}", text, 1), "folder/file.json:7")
    message = str(caught.value)
    assert message.startswith("folder/file.json:7 is not valid JSON: ")
    assert _ODD[text] in message
    assert "\n" not in message
    assert len(message) < 200


def test_numbers_at_the_edge_are_read() -> None:
    assert parse_json("9" * MOST_DIGITS, "file") == int("9" * MOST_DIGITS)
    assert parse_json("1e308", "file") == 1e308
    assert parse_json("1e-400", "file") == 0
    assert parse_json("[" * MOST_LEVELS + "]" * MOST_LEVELS, "file")
    assert parse_json('"\\ud83d\\ude00 \\\\ud800"', "file") == "\U0001f600 \\ud800"


def test_the_error_is_of_the_kind_that_is_asked_for() -> None:
    class OwnError(Exception):
        pass

    with pytest.raises(OwnError, match="file is not valid JSON"):
        parse_json("{", "file", OwnError)


@runs(60)
@given(st.dictionaries(_NAMES.filter(lambda name: name != "digest"), VALUES, max_size=5), st.randoms())
def test_a_seal_fits_whatever_the_order_and_white_space(body: dict[str, Any], random: Any) -> None:
    written = list(sealed(body).items())
    random.shuffle(written)
    text = json.dumps(dict(written), indent=2, ensure_ascii=False)
    assert unsealed(parse_json(text, "file"), "file") == body


@runs(60)
@given(st.dictionaries(_NAMES.filter(lambda name: name != "digest"), VALUES, min_size=1, max_size=5), VALUES, st.data())
def test_a_value_that_was_changed_breaks_the_seal(body: dict[str, Any], other: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(body)))
    changed = {**sealed(body), name: other}
    if json.dumps(other, sort_keys=True) == json.dumps(body[name], sort_keys=True):
        assert unsealed(changed, "file") == body
        return
    with pytest.raises(UserError, match=r"file is damaged \(its digest does not fit\)"):
        unsealed(changed, "file")
    with pytest.raises(UserError, match=r"file is damaged"):
        unsealed({field: value for field, value in sealed(body).items() if field != name}, "file")


def test_what_has_no_seal_is_taken_as_it_is() -> None:
    assert unsealed({"a": 1}, "file") == {"a": 1}


@pytest.mark.parametrize("value", ["a" * 10**6, [[[[[["deep"]]]]]], {"a": "b" * 10**6}, list(range(10**6)), 10**4000])
def test_a_value_is_shown_short(value: object) -> None:
    assert len(shown(value)) <= 61
