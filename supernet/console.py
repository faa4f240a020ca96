"""What all commands share: options from typed dataclasses, one-line errors, exit codes, the next step."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table
from rich.text import Text

from supernet.display import Display
from supernet.errors import UserError
from supernet.typed_yaml import flatten
from supernet.words import printable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class TextConsole(Console):
    """A console on which text is text: brackets are no markup, and no character moves the cursor or hides.

    Paths, names and what clients say may hold any.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print one line of text, or what rich draws."""
        super().print(*(Text(printable(each)) if isinstance(each, str) else each for each in objects), **options)


#: Where progress and remarks go: results alone are on standard output.
stderr = TextConsole(stderr=True, highlight=False, soft_wrap=True)

#: Columns of tables that are not printed on a terminal, at least; and more than any table has.
_PIPE_WIDTH, _UNBOUNDED = 120, 100_000

_NEGATIVE = re.compile(r"-\.?\d")


class CommandParser(ArgumentParser):
    """A jsonargparse parser that spells options with dashes and reports mistakes in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with code 2."""
        del ex
        print(printable(f"{self.prog}: error: {flatten(message)} (see {self.prog} --help)"), file=sys.stderr)
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
    """Run ``command`` on the arguments and exit: 0, 2 for a user's mistake, 130 when interrupted."""
    try:
        code = command(sys.argv[1:] if arguments is None else arguments) or 0
        sys.stdout.flush()
    except UserError as error:
        print(printable(f"{prog}: error: {error}"), file=sys.stderr)
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe left (``| head``): nothing to tell it.
        sys.stderr.close()
        code = 0
    raise SystemExit(code)


def say(line: str) -> None:
    """Print one line of a result on standard output."""
    print(printable(line))


def next_step(command: str) -> None:
    """Tell the user the useful next command, as ``words.command`` spells it."""
    stderr.print(Text.assemble(("next:", "bold"), f" {printable(command)}"))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], figures: int = 1) -> None:
    """Print a table on standard output, wide enough for all of it when that is a file or a pipe.

    A title wider than its table has a line of its own.

    Args:
        title: over the table.
        columns: their names, which may have several lines.
        rows: of cells.
        figures: the first column of figures, which are on the right, as are those after it.
    """
    table = Table()
    for number, name in enumerate(columns):
        lines = "\n".join(printable(line) for line in name.split("\n"))
        table.add_column(Text(lines), justify="right" if number >= figures else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = TextConsole(highlight=False)
    needed = console.measure(table, options=console.options.update(max_width=_UNBOUNDED)).maximum
    heading = Text(printable(title), style="table.title")
    if not console.is_terminal:
        console = TextConsole(highlight=False, width=max(_PIPE_WIDTH, needed, heading.cell_len))
    if heading.cell_len > min(needed, console.width):
        console.print(heading)
    else:
        table.title = heading
    console.print(table)


def on_screen() -> bool:
    """Return whether progress can be drawn: standard error is a terminal that moves its cursor."""
    # FORCE_COLOR makes rich take a file for a terminal.
    return stderr.file.isatty() and stderr.is_terminal and not stderr.is_dumb_terminal


def progress_bar() -> Display:
    """Return a progress display with counts, elapsed and remaining time, on standard error."""
    return Display(stderr, on_screen)
