import subprocess
import sys
from collections.abc import Sequence

import pytest
from commands import run_main
from rich.table import Table

from supernet.console import next_step, print_table, run_command, stderr
from supernet.errors import BudgetError, UserError


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
        (OSError(28, "No space left on device"), "prog: error: the system refused: No space left on device\n"),
        (UserError("two\nlines\r\nand more"), "prog: error: two lines and more\n"),
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


def test_brackets_of_paths_and_of_what_clients_say_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    next_step("search-subnet --run runs/[/x] --flops-budget 1M")
    stderr.print("node 1 takes no part: no data in [/mnt/data], [red]")
    assert capsys.readouterr().err == (
        "next: search-subnet --run runs/[/x] --flops-budget 1M\nnode 1 takes no part: no data in [/mnt/data], [red]\n"
    )


def test_tables_in_a_pipe_are_wide_enough_for_their_cells(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("a" * 30, "b" * 30, "c" * 30)
    table.add_row("x" * 30, "y" * 30, "z" * 30)
    print_table(table)
    out = capsys.readouterr().out
    assert all(letter * 30 in out for letter in "abcxyz")
