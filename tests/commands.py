"""Running a console command inside the test process."""

import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest


class Outcome(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: object
    out: str
    err: str


def run_main(
    main: Callable[[Sequence[str]], object], capsys: pytest.CaptureFixture[str], *arguments: object
) -> Outcome:
    """Call a command's ``main`` and return its exit code and all it printed."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Outcome(caught.value.code, captured.out, captured.err)


def check_refused(outcome: Outcome, prog: str) -> str:
    """Check that a command failed as a user's mistake does: code 2, one line, no output; return the line."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith(f"{prog}: error: ")
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("\n")
    return outcome.err


def standard_input(content: str | bytes) -> io.TextIOWrapper:
    """Return a strict UTF-8 stream like the one a terminal in a UTF-8 locale has."""
    data = content if isinstance(content, bytes) else content.encode()
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")
