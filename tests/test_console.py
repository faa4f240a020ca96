import dataclasses
import re
import subprocess
import sys
from collections.abc import Sequence

import pytest
from commands import check_refused, run_main
from hypothesis import HealthCheck, given, settings
from wild import wild_text

from supernet.console import next_step, options_parser, print_table, run_command, say, stderr
from supernet.errors import BudgetError, UserError
from supernet.words import printable


@dataclasses.dataclass
class Options:
    """Options of a command for tests.

    Attributes:
        output_file: where to write.
        flops_max: most MACs.
        rounds: how many rounds.
        dry_run: write nothing.
        with_plot: draw.
    """

    output_file: str
    flops_max: str | None = None
    rounds: int = 3
    dry_run: bool = False
    with_plot: bool = True


def _parsed(*arguments: str) -> dict[str, object]:
    return vars(options_parser("prog", "A command.", Options).parse(arguments)).copy()


def _main(arguments: Sequence[str]) -> None:
    def command(given: Sequence[str]) -> None:
        print(options_parser("prog", "A command.", Options).parse(given).rounds)

    run_command("prog", command, arguments)


@pytest.mark.parametrize("option", ["--output-file", "--output_file"])
def test_options_are_spelled_with_dashes_or_underscores(option: str) -> None:
    assert _parsed(option, "a.txt")["output_file"] == "a.txt"
    assert _parsed(f"{option}=a.txt")["output_file"] == "a.txt"


def test_help_shows_dashes_and_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_main(_main, capsys, "--help")
    assert outcome.code == 0
    assert "--output-file" in outcome.out
    assert "--dry-run [{true,false}]" in outcome.out
    assert "most MACs" in outcome.out
    assert "_file" not in outcome.out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], (False, True)),
        (["--dry-run"], (True, True)),
        (["--dry_run", "true"], (True, True)),
        (["--dry-run=false"], (False, True)),
        (["--with-plot", "false"], (False, False)),
        (["--dry-run", "--with-plot", "False"], (True, False)),
    ],
)
def test_a_switch_alone_is_on_and_takes_true_or_false(given: list[str], expected: tuple[bool, bool]) -> None:
    parsed = _parsed(*given, "--output-file", "a")
    assert (parsed["dry_run"], parsed["with_plot"]) == expected
    assert parsed["output_file"] == "a"


def test_a_switch_before_another_option_takes_no_value_from_it() -> None:
    parsed = _parsed("--dry-run", "--rounds", "5", "--output-file", "a")
    assert (parsed["dry_run"], parsed["rounds"]) == (True, 5)


@pytest.mark.parametrize("value", ["-3M", "-.5", "-3"])
def test_a_negative_value_is_a_value_and_no_option(value: str) -> None:
    assert _parsed("--flops-max", value, "--output-file", "a")["flops_max"] == value


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "output"),
        (["--output-file", "a", "--rounds", "many"], "rounds"),
        (["--output-file", "a", "--rounds", "1.5"], "rounds"),
        (["--output-file", "a", "--colour", "red"], "--colour"),
        (["--output-file", "a", "extra"], "extra"),
        (["--output-file"], "output"),
        (["--output-file", "a", "--dry-run=maybe"], "dry"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    error = check_refused(run_main(_main, capsys, *arguments), "prog")
    assert named in error
    assert "see prog --help" in error


def test_a_command_that_succeeds_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_main(_main, capsys, "--output-file", "a", "--rounds", "7")
    assert outcome == (0, "7\n", "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no such thing"), 2, "prog: error: no such thing\n"),
        (BudgetError("too small"), 2, "prog: error: too small\n"),
        (KeyboardInterrupt(), 130, "prog: interrupted\n"),
    ],
)
def test_errors_for_the_user_are_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    def main(arguments: Sequence[str]) -> None:
        def command(given: Sequence[str]) -> None:
            raise error

        run_command("prog", command, arguments)

    assert run_main(main, capsys) == (code, "", line)


def test_a_programming_error_keeps_its_traceback() -> None:
    def command(given: Sequence[str]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command("prog", command, [])


def test_a_commands_own_code_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(lambda arguments: run_command("prog", lambda given: 3, arguments), capsys).code == 3


def test_a_reader_that_leaves_ends_the_command_silently() -> None:
    program = (
        "from supernet.console import run_command\n"
        "def command(given):\n"
        "    for number in range(100_000): print(number)\n"
        "run_command('prog', command, [])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 120)


def test_the_next_step_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    next_step("train-supernet --space mobilenet-tiny")
    assert capsys.readouterr() == ("", "next: train-supernet --space mobilenet-tiny\n")


@given(wild_text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_results_remarks_errors_and_commands_are_one_line_of_text_each(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    def refuse(given: Sequence[str]) -> None:
        raise UserError(f"no data in {text}")

    error = run_main(lambda given: run_command("prog", refuse, given), capsys).err
    assert error == f"prog: error: no data in {printable(text)}\n"
    say(f"a{text}")
    stderr.print(f"b{text}")
    next_step(f"c{text}")
    out, err = capsys.readouterr()
    assert out == f"a{printable(text)}\n"
    assert err == f"b{printable(text)}\nnext: c{printable(text)}\n"


@given(wild_text(min_size=1), wild_text(), wild_text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_titles_names_and_cells_of_tables_are_text(
    capsys: pytest.CaptureFixture[str], title: str, cell: str, other: str
) -> None:
    capsys.readouterr()
    print_table(title, ("name", "value"), [(cell, other)])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() or "\x1b" not in line for line in lines)
    for text in (title, cell, other):
        assert any(printable(text).strip() in line for line in lines)


def test_tables_in_a_pipe_are_wide_enough_for_their_cells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in ("1", "40", "400"):
        monkeypatch.setenv("COLUMNS", columns)
        print_table("title", ("a" * 30, "b" * 30, "c" * 30), [("x" * 100, "y" * 30, "z" * 30)])
        out = capsys.readouterr().out
        assert all(letter * 30 in out for letter in "abcyz")
        assert "x" * 100 in out


@pytest.mark.parametrize("words", [3, 8, 12, 60])
def test_a_title_wider_than_its_table_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str], words: int) -> None:
    title = " ".join(["within the limits"] * words)
    print_table(title, ("", "value"), [("MACs", "1")])
    assert capsys.readouterr().out.splitlines()[0] == title
    print_table("MACs", ("", "value"), [("MACs", "1")])
    assert capsys.readouterr().out.splitlines()[0].strip() == "MACs"


@pytest.mark.parametrize("columns", [20, 36, 60])
def test_a_title_on_a_narrow_terminal_breaks_between_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    title = "the fittest subnet of mobilenet-cifar within the limits"
    print_table(title, ("", "value"), [("MACs", "1")])
    lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("┏"))
    assert " ".join(" ".join(lines[:first]).split()) == title
    assert max(map(len, lines)) <= columns
    assert {word for line in lines[:first] for word in line.split()} == set(title.split())
    assert all(len(line.split()) > 1 for line in lines[: first - 1]) or columns < 30


def test_columns_of_figures_are_on_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("t", ("name", "figure"), [("a", "1"), ("long name", "1,000,000")])
    assert "│ a         │         1 │" in capsys.readouterr().out
    print_table("t", ("first", "second"), [("1", "2")], figures=0)
    assert "│     1 │      2 │" in capsys.readouterr().out
