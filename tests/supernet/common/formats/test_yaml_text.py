import contextlib
import json
import math
import re

import pytest
import yaml
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.yaml_text import WrittenFloat, WrittenInt, parse_yaml, read_scalar

_NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=12,
)


def _refused(text: str) -> str:
    with pytest.raises(UserError, match=r"^a\.yaml\b") as caught:
        parse_yaml(text, "a.yaml")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@runs(60)
@given(_VALUES)
def test_what_yaml_and_json_writers_write_is_read_as_it_was(value: object) -> None:
    assert parse_yaml(yaml.safe_dump(value), "a.yaml") == value
    assert parse_yaml(yaml.safe_dump(value, default_flow_style=True, allow_unicode=True), "a.yaml") == value


@runs(60)
@given(_VALUES)
def test_json_is_read_as_it_was(value: object) -> None:
    text = json.dumps(value).replace("\x7f", "\\u007f")
    assert parse_yaml(text, "a.yaml") == value


@runs(60)
@given(st.text(max_size=60) | st.text("{}[]:,-&*!|>'\"#%@` \n\tab01", max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    with contextlib.suppress(UserError):
        parse_yaml(text, "a.yaml")
        return
    _refused(text)


@runs(60)
@given(st.integers() | st.floats(allow_nan=False))
def test_a_number_is_a_number_and_knows_how_it_was_written(number: float) -> None:
    written = yaml.safe_dump(number).splitlines()[0]
    read = read_scalar(written)
    assert isinstance(read, WrittenInt | WrittenFloat)
    assert (read, read.text) == (number, written)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6e7", 6e7),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1E-3", -1e-3),
        ("+7", 7),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("1e400", math.inf),
    ],
)
def test_numbers_of_yaml_1_2_are_numbers(text: str, value: float) -> None:
    assert read_scalar(text) == value
    assert read_scalar(text).text == text


@pytest.mark.parametrize(
    "text",
    ["on", "off", "yes", "No", "y", "1:30", "1_000", "0x10", "0o7", "010", "0b1", "2001-01-01", "1.2.3", "1e", "e1",
     ".", "-", "nan", "inf", "=", "60M", "9" * 5000, "none", "tRue"],
)  # fmt: skip
def test_what_only_yaml_1_1_takes_for_something_else_is_text(text: str) -> None:
    assert read_scalar(text) == text
    assert type(read_scalar(text)) is str


def test_quoted_words_and_names_of_fields_are_text() -> None:
    assert parse_yaml("'true': \"5\"\n12: 'null'\non: '~'", "a.yaml") == {"true": "5", "12": "null", "on": "~"}


@runs(60)
@given(st.lists(_NAMES, min_size=2, max_size=6, unique=True), st.data())
def test_a_name_that_is_there_twice_is_refused_with_its_line(names: list[str], data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(names))
    indent = data.draw(st.sampled_from(["", "  "]))
    lines = [f"{indent}{name}: 1" for name in [*names, again]]
    text = "\n".join(["group:", *lines] if indent else lines)
    assert f"line {text.count(chr(10)) + 1}: '{again}' is there twice" in _refused(text)


@pytest.mark.parametrize("tag", ["!!python/object:os.system", "!!python/name:os.system", "!mine", "!!set", "!!binary"])
@pytest.mark.parametrize("value", ["{}", "[]", "x"])
def test_values_with_tags_are_refused(tag: str, value: str) -> None:
    assert re.search(r"line 2.*(tag|read)", _refused(f"a: 1\nb: {tag} {value}"))


def test_aliases_and_merge_keys_are_written_out() -> None:
    text = "base: &base {lr: 1, clip: 2}\nown: {<<: *base, lr: 3}\nboth: {<<: [{a: 1, b: 1}, {b: 2, c: 2}]}"
    read = parse_yaml(text, "a.yaml")
    assert read["own"] == {"lr": 3, "clip": 2}
    assert read["both"] == {"a": 1, "b": 1, "c": 2}
    assert "must be followed by a mapping" in _refused("a: {<<: 3}")


@pytest.mark.parametrize("width", [2, 5, 10])
def test_aliases_that_multiply_are_refused_at_once(width: int) -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, 26)]
    assert "more than 100,000 values" in _refused("\n".join(lines))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "[" * 40 + "]" * 40, "[" * 9999, "{a: " * 9999])
def test_what_has_no_bottom_is_refused(text: str) -> None:
    assert "nested deeper than 32 levels" in _refused(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: c: d", "line 2"),
        ("a: [1", "line 1"),
        ("a: 1\n\tb: 2", "line 2"),
        ("a: 1\nb: '\0'", "line 2: it holds the character U+0000"),
        ("a: *nowhere", "nowhere"),
        ("--- 1\n--- 2", "document"),
        ("? [a]\n: 1", "must be plain text"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_line(text: str, said: str) -> None:
    assert said in _refused(text)
