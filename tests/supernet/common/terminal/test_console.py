import re
import subprocess
import sys
from collections.abc import Sequence

import pytest
from helpers.commands import run_main
from helpers.wild import wild_text
from hypothesis import HealthCheck, given, settings

from fedpareto.supernet.common.errors import BudgetError, UserError
from fedpareto.supernet.common.terminal.console import next_step, print_table, run_command, say, stderr
from fedpareto.supernet.common.terminal.words import printable


def _main(arguments: Sequence[str]) -> None:
    run_command("prog", lambda given: print(*given), arguments)


def test_a_command_that_succeeds_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(_main, capsys, "a", "7") == (0, "a 7\n", "")


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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "prog: error: /a/b: Permission denied\n"),
        (OSError(12, "Cannot allocate\nmemory"), "prog: error: the system refused: Cannot allocate memory\n"),
        (UserError("two\nlines\r\nand more"), "prog: error: two\\nlines\\r\\nand more\n"),
    ],
)
def test_whatever_the_system_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    def command(given: Sequence[str]) -> None:
        raise error

    assert run_main(lambda arguments: run_command("prog", command, arguments), capsys) == (2, "", line)


def test_a_programming_error_keeps_its_traceback() -> None:
    def command(given: Sequence[str]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command("prog", command, [])


def test_a_commands_own_code_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(lambda arguments: run_command("prog", lambda given: 3, arguments), capsys).code == 3


def test_a_reader_that_leaves_ends_the_command_silently() -> None:
    program = (
        "from fedpareto.supernet.common.terminal.console import run_command\n"
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
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_results_remarks_errors_and_commands_are_one_line_of_text_each(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    def refuse(given: Sequence[str]) -> None:
        raise UserError(f"no data in {text}")

    error = run_main(lambda given: run_command("prog", refuse, given), capsys).err
    assert error == f"prog: error: {printable(f'no data in {text}')}\n"
    say(f"a{text}")
    stderr.print(f"b{text}")
    next_step(f"c{text}")
    out, err = capsys.readouterr()
    assert out == f"a{printable(text)}\n"
    assert err == f"b{printable(text)}\nnext: c{printable(text)}\n"


@given(wild_text(min_size=1), wild_text(), wild_text())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
