"""Standard streams that are closed, full, or of a terminal with few characters; real processes all."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import MODULES
from helpers.repository import ROOT

_PRINTING = (
    "from fedpareto.supernet.common.terminal.console import run_command\nrun_command('prog', lambda given: {}, [])"
)


def _run(program: str, redirected: str = "", **environment: str) -> tuple[int, str, str]:
    """Run a program in a shell with redirections; return its exit code, standard output and standard error."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "$PROGRAM" {redirected}'],
        capture_output=True,
        env={**os.environ, "PYTHONUNBUFFERED": "", "PROGRAM": program, **environment},
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def _main(module: str, *arguments: str) -> str:
    return f"from {module} import main; main({list(arguments)!r})"


@pytest.mark.parametrize("command", MODULES)
def test_a_full_standard_output_is_one_line(command: str) -> None:
    code, _, err = _run(_main(MODULES[command], "--help"), ">/dev/full")
    assert (code, err) == (2, f"{command}: error: standard output: No space left on device\n")


@pytest.mark.parametrize("printing", ["print('x')", "print('x' * 100_000)", "print('x', flush=True)"])
def test_output_that_is_lost_is_told_of_however_it_is_printed(printing: str) -> None:
    assert _run(_PRINTING.format(printing), ">/dev/full") == (
        2,
        "",
        "prog: error: standard output: No space left on device\n",
    )


def test_output_that_is_lost_beside_an_error_is_no_traceback() -> None:
    program = "from fedpareto.supernet.common.errors import UserError\n"
    program += "def fail(given):\n    print('x')\n    raise UserError('no')\n"
    program += "from fedpareto.supernet.common.terminal.console import run_command\nrun_command('prog', fail, [])"
    assert _run(program, ">/dev/full") == (2, "", "prog: error: no\n")


@pytest.mark.parametrize("command", ["build-cache", "search-subnet"])
def test_a_closed_standard_output_is_refused_before_any_work(command: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    program = _main(MODULES[command], "--space", "mobilenet-tiny", "--output", str(output))
    code, _, err = _run(program, ">&-")
    assert code == 2
    assert err == f"{command}: error: standard output is closed; send it to a file, or to /dev/null\n"
    assert not output.exists()


def test_a_closed_standard_error_loses_what_is_said_and_nothing_else(tmp_path: Path) -> None:
    # What is opened first would have the number of standard error.
    path = tmp_path / "written"
    program = f"import os, sys\ndef write(given):\n    f = open({str(path)!r}, 'w')\n    os.write(2, b'lost')\n"
    program += "    print('said', file=sys.stderr); f.write('kept'); f.close(); print('out')\n"
    program += "from fedpareto.supernet.common.terminal.console import run_command\nrun_command('prog', write, [])"
    assert _run(program, "2>&-") == (0, "out\n", "")
    assert path.read_text() == "kept"


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_a_mistake_that_cannot_be_told_has_its_exit_code(redirected: str) -> None:
    assert _run(_main("fedpareto.search.cli", "--colour"), redirected) == (2, "", "")


def test_a_closed_standard_input_is_an_empty_one() -> None:
    code, out, err = _run(_main("fedpareto.fitness.cli", "--space", "mobilenet-tiny"), "<&-")
    assert (code, out) == (2, "")
    assert err.startswith("score-subnet: error: standard input is empty")


@pytest.mark.parametrize(
    "encoding", ["ascii", "latin-1", "cp1252", "ascii:surrogateescape", "ascii:surrogatepass", "latin-1:strict"]
)
def test_characters_that_a_terminal_lacks_are_replaced(encoding: str) -> None:
    printing = "print('β ≤ ρ 文', given) or print('ρ', file=__import__('sys').stderr)"
    code, out, err = _run(_PRINTING.format(printing), PYTHONIOENCODING=encoding)
    assert code == 0
    assert re.fullmatch(r"\? \? \? \? \[\]\n", out)
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_table_is_printed_on_a_terminal_without_greek_letters() -> None:
    networks = ROOT / "examples" / "deepfednas.jsonl"
    program = _main("fedpareto.fitness.cli", "--space", "resnet-cifar", str(networks))
    code, out, err = _run(program, PYTHONIOENCODING="ascii", LANG="C")
    assert code == 0
    assert "2027.029" in out
    assert "Traceback" not in err
