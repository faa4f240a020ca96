import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import BudgetError
from fedpareto.supernet.common.formats.units import (
    format_bytes,
    format_quantity,
    parse_bytes,
    parse_milliseconds,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60M", 60_000_000),
        ("1.2G", 1_200_000_000),
        ("6e7", 60_000_000),
        ("35293824", 35_293_824),
        (" 5 k ", 5_000),
        ("2.5b", 2_500_000_000),
        ("1T", 10**12),
        ("+3", 3),
        (".5K", 500),
        ("1", 1),
    ],
)
def test_quantities_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert parse_quantity(text) == expected


@pytest.mark.parametrize("text", ["", "M", "60 MB", "sixty", "6_0", "1.2.3", "0x10", "nan", "inf"])
def test_what_is_no_number_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BudgetError, match=r"cannot read .*60M"):
        parse_quantity(text)


@pytest.mark.parametrize("text", ["0", "-3M", "-1", "0.0001", "1e999"])
def test_what_is_not_a_positive_count_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match="not a positive number"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5ms", 5.0),
        ("0.005s", 5.0),
        ("5000us", 5.0),
        ("5000µs", 5.0),
        (" 5 ms ", 5.0),
        ("+.5ms", 0.5),
        ("2e-3s", 2.0),
        ("1.25us", 0.00125),
    ],
)
def test_durations_are_read_in_milliseconds(text: str, expected: float) -> None:
    assert parse_milliseconds(text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("text", ["", "5", "ms", "abc", "5min", "5 m s", "5MS", "1,5ms", "nan ms", "infs"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BudgetError, match=r"cannot read .* as a duration; write it like 5ms, 0\.8s or 300us"):
        parse_milliseconds(text)


@pytest.mark.parametrize("text", ["0ms", "-5ms", "-0s", "1e999s", "1e-400us"])
def test_what_is_not_a_positive_duration_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match="is not a positive duration"):
        parse_milliseconds(text)


@given(st.integers(1, 2**53))
@runs(100)
def test_whole_numbers_are_read_exactly(value: int) -> None:
    assert parse_quantity(str(value)) == value


@given(st.floats(min_value=1, max_value=9e12))
@runs(200)
def test_formatted_quantities_are_within_four_digits(value: float) -> None:
    assert parse_quantity(format_quantity(value)) == pytest.approx(value, rel=1e-3, abs=0.5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(35_293_824, "35.29M"), (1.5e9, "1.5G"), (12_345, "12.35K"), (999, "999"), (0, "0")],
)
def test_quantities_are_printed_short(value: float, expected: str) -> None:
    assert format_quantity(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(25_585_608, "25.6 MB"), (1_500, "1.5 kB"), (12, "12 B"), (3e9, "3 GB")]
)
def test_sizes_are_printed_in_decimal_units(value: float, expected: str) -> None:
    assert format_bytes(value) == expected


@pytest.mark.parametrize("value", [999_600, 999_999, 999_999_999, 5e12])
def test_sizes_near_the_next_unit_are_printed_without_an_exponent(value: float) -> None:
    assert "e" not in format_bytes(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4MB", 4_000_000),
        ("500kB", 500_000),
        ("500 KB", 500_000),
        ("2MiB", 2 * 2**20),
        ("64M", 64_000_000),
        ("1.5GB", 1_500_000_000),
        ("3KiB", 3072),
        ("1GiB", 2**30),
        ("1TB", 10**12),
        ("700", 700),
        ("700B", 700),
        ("2e6", 2_000_000),
    ],
)
def test_sizes_are_read_in_bytes(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "MB", "4 MB s", "4PB", "4iB", "four", "nan", "4mm", "-"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BudgetError, match=r"cannot read .* as a size; write it like 4MB, 500kB or 2MiB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["0", "-3MB", "0.0001kB", "1e999"])
def test_what_is_no_positive_size_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match="not a positive size"):
        parse_bytes(text)
