"""What all commands share: options from typed dataclasses, one-line errors, exit codes, the next step."""

import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from supernet.errors import UserError
from supernet.interruption import Terminated, ended_by_signals, exit_code
from supernet.typed_yaml import flatten

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = exit_code(signal.SIGINT)
EXIT_TERMINATED = exit_code(signal.SIGTERM)

#: Where progress and remarks go: results alone are on standard output. Brackets are what they are: paths and what
#: clients say may hold some.
stderr = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

#: Columns of tables that are not printed on a terminal.
_PIPE_WIDTH = 120

_NEGATIVE = re.compile(r"-\.?\d")


class CommandParser(ArgumentParser):
    """A jsonargparse parser that spells options with dashes and reports mistakes in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with code 2."""
        del ex
        print(f"{self.prog}: error: {flatten(message)} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR)

    def parse(self, arguments: Sequence[str]) -> Namespace:
        """Parse ``arguments``; a switch given alone (``--json``) is on, and values may be negative (``-3M``)."""
        return self.parse_args(list(self._joined(list(arguments))))

    def spell_with_dashes(self) -> None:
        """Make every option read ``--flops-budget`` in help; underscores are still understood."""
        for action in self._actions:
            dashed = [option.replace("_", "-") for option in action.option_strings]
            for option in dashed:
                self._option_string_actions.setdefault(option, action)
            action.option_strings = dashed
            if getattr(action, "_typehint", None) is bool:
                action.nargs = "?"

    def _joined(self, given: list[str]) -> Iterator[str]:
        """Yield the arguments with values argparse would misread attached to their options."""
        tokens = iter(zip(given, [*given, ""][1:], strict=True))
        for token, following in tokens:
            if token in self._switches() and following.lower() not in ("true", "false"):
                yield f"{token}=true"
            elif token in self._option_string_actions and _NEGATIVE.match(following):
                yield f"{token}={following}"
                next(tokens)
            else:
                yield token

    def _switches(self) -> set[str]:
        actions = self._option_string_actions.items()
        return {option for option, action in actions if getattr(action, "_typehint", None) is bool}


def options_parser(prog: str, description: str, options: type) -> CommandParser:
    """Return a parser whose options are the fields of the dataclass ``options``."""
    parser = CommandParser(prog=prog, description=description)
    parser.add_class_arguments(options)
    parser.spell_with_dashes()
    return parser


def run_command(prog: str, command: Callable[[Sequence[str]], int | None], arguments: Sequence[str] | None) -> NoReturn:
    """Run ``command`` on the arguments and exit: 0, 2 for a user's mistake, 130 after Ctrl-C, 143 after SIGTERM."""
    try:
        with ended_by_signals(prog):
            code = command(sys.argv[1:] if arguments is None else arguments) or 0
            sys.stdout.flush()
    except UserError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except Terminated:
        print(f"{prog}: terminated", file=sys.stderr)
        code = EXIT_TERMINATED
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe left (``| head``): nothing to tell it.
        sys.stderr.close()
        code = 0
    raise SystemExit(code)


def next_step(text: str) -> None:
    """Tell the user the useful next command."""
    stderr.print(Text.assemble(("next:", "bold"), f" {text}"))


def print_table(table: Table) -> None:
    """Print a table on standard output, wide enough when that is a file or a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    console.print(table)


def end_progress(progress: Progress) -> None:
    """Stop a display if it was started; rich's own ``stop`` prints an empty line even if it was not."""
    if progress.live.is_started:
        progress.stop()


def progress_bar() -> Progress:
    """Return a progress display with counts, elapsed and remaining time, on standard error."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=stderr,
    )
