import shlex
import subprocess
import unicodedata

import pytest
from helpers.wild import BIDI, ESCAPES, wild_text
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.terminal.words import command, counted, plural, printable, shell


@given(wild_text())
def test_printed_text_is_one_line_without_anything_that_hides(text: str) -> None:
    shown = printable(text)
    hidden = {one for one in shown if unicodedata.category(one)[0] == "C"}
    assert hidden <= {"\u200c", "\u200d"}
    assert not set(shown) & set(BIDI)
    assert shown.splitlines() in ([shown], [])
    shown.encode()


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs"))))
def test_readable_text_of_any_script_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x07\x9b1m", r"\x07\x9b1m"),
        ("\u202eevil", r"\u202eevil"),
        ("\u2028\ufeff", r"\u2028\ufeff"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_is_hidden_is_shown_as_python_would_spell_it(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_joiners_of_scripts_and_emoji_are_kept() -> None:
    for text in ("می‌خواهم", "👩‍🔬", "क्‍ष"):
        assert printable(text) == text


@pytest.mark.parametrize(
    ("noun", "several"),
    [
        ("seed", "seeds"),
        ("entry", "entries"),
        ("cache entry", "cache entries"),
        ("batch", "batches"),
        ("class", "classes"),
        ("whole network", "whole networks"),
    ],
)
def test_one_is_singular_and_all_else_plural(noun: str, several: str) -> None:
    assert counted(1, noun) == f"1 {noun}"
    for number in (0, 2, 11, 21, 1001):
        assert counted(number, noun) == f"{number:,} {several}"
    assert plural(noun) == several


def test_a_shell_reads_back_every_word_of_a_command() -> None:
    # One process for all of them: NUL ends a word there, which no word can hold.
    words = [
        *("plain", "two words", "it's", '"quoted"', "$HOME", "`date`", "a;b|c&d>e<f", "*", "~", "#x", "!x", "\\", ""),
        *("-n", "--run", "[red]", "é", "名前", "a=b", "{a,b}", *(f"x{escape}'y$" for escape in ESCAPES)),
    ]
    words = [word for word in words if "\0" not in word]
    line = shell(words)
    assert "\n" not in line
    assert printable(line) == line
    read = subprocess.run(
        ["/bin/bash", "-c", f"printf '%s\\0' {line}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8", "HOME": "/nowhere"},
    )
    assert read.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1] == words


@given(st.lists(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1), min_size=1))
def test_readable_words_are_quoted_as_shlex_does(words: list[str]) -> None:
    assert shell(words) == shlex.join(words)


def test_a_command_has_its_options_in_order_and_leaves_out_what_is_not_given() -> None:
    assert command("search-subnet", run="a b", flops_budget="60M", test=True, json=False, export=None) == (
        "search-subnet --run 'a b' --flops-budget 60M --test"
    )
    assert command("python", "examples/deploy.py", "IMAGE") == "python examples/deploy.py IMAGE"


def test_values_and_files_that_start_with_a_dash_are_no_options() -> None:
    assert command("train-supernet", "-x", resume="-run", seed=-1) == "train-supernet ./-x --resume=-run --seed=-1"
