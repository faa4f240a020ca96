"""Running a console command inside the test process."""

import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from jsonargparse import Namespace

from fedpareto.supernet.common.command_line import CommandParser
from helpers.repository import PYPROJECT

#: The module of every console command.
MODULES = {name: str(function).split(":")[0] for name, function in PYPROJECT["project"]["scripts"].items()}

#: A command that is offered at the end of a line.
_OFFERED = re.compile(rf"(?:next|with): ((?:{'|'.join(MODULES)}|python) .*)$", re.MULTILINE)


class Outcome(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: object
    out: str
    err: str


def run_main(
    main: Callable[[Sequence[str]], object], capsys: pytest.CaptureFixture[str], *arguments: object
) -> Outcome:
    """Call a command's ``main`` and return its exit code and all it printed, having parsed what commands it offers."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    for offered in _OFFERED.findall(captured.err):
        parsed(offered)
    return Outcome(caught.value.code, captured.out, captured.err)


def called(main: Callable[[Sequence[str]], object], *arguments: object) -> Outcome:
    """Call a command's ``main`` in this process where no fixture captures; anything but an exit is raised."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return Outcome(caught.value.code, out.getvalue(), err.getvalue())


class _ParsedError(BaseException):
    """What a command's parser has read; raised in place of running it."""


def parsed(line: str) -> Namespace | None:
    """Parse a command line as a shell and the command's own parser would; None for a script of the examples."""
    return parsed_words(shlex.split(line))


def parsed_words(words: Sequence[str]) -> Namespace | None:
    """Parse a command's name and its arguments with the parser that the command itself makes."""
    program, *arguments = words
    if program == "python":
        assert Path(arguments[0]).is_file()
        return None

    def parse(parser: CommandParser, given: Sequence[str]) -> Namespace:
        raise _ParsedError(original(parser, given))

    original = CommandParser.parse
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommandParser, "parse", parse)
        with pytest.raises(_ParsedError) as caught:
            importlib.import_module(MODULES[program]).main(arguments)
    (namespace,) = caught.value.args
    assert isinstance(namespace, Namespace)
    return namespace


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
