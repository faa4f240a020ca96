"""Console of all commands: one-line errors, exit codes, progress, tables and the suggested next step."""

import contextlib
import errno
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.display import Display
from fedpareto.supernet.common.terminal.interruption import Terminated, ended_by_signals, exit_code
from fedpareto.supernet.common.terminal.streams import close_streams, open_streams
from fedpareto.supernet.common.terminal.words import addressed, printable

#: Exit codes: a mistake that the user can mend, and Ctrl-C.
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = exit_code(signal.SIGINT)
EXIT_TERMINATED = exit_code(signal.SIGTERM)

#: What the system says of a stream that takes no more; the errors of files name these.
_OF_STREAMS = (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG, errno.EDQUOT, errno.EINVAL)


class TextConsole(Console):
    """A console that prints text literally: brackets are no markup, and control characters are made visible.

    Paths, names and messages of clients may hold any characters.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print one line of text, or what rich draws."""
        super().print(*(Text(printable(each)) if isinstance(each, str) else each for each in objects), **options)


#: Where progress and remarks go: results alone are on standard output.
stderr = TextConsole(stderr=True, highlight=False, soft_wrap=True)

#: Columns of tables that are not printed on a terminal, at least; and more than any table has.
_PIPE_WIDTH, _UNBOUNDED = 120, 100_000


def run_command(prog: str, command: Callable[[Sequence[str]], int | None], arguments: Sequence[str] | None) -> NoReturn:
    """Run ``command`` on the arguments and exit: 0, 2 for a user's mistake, 130 after Ctrl-C, 143 after SIGTERM."""
    try:
        open_streams()
        with ended_by_signals(prog), addressed("command"):
            code: object = _code_of(command, sys.argv[1:] if arguments is None else arguments)
            sys.stdout.flush()
    except UserError as error:
        code = refuse(prog, str(error))
    except Terminated:
        _tell(f"{prog}: terminated")
        code = EXIT_TERMINATED
    except KeyboardInterrupt:
        _tell(f"{prog}: interrupted")
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe left (``| head``): nothing to tell it.
        code = 0
    except OSError as error:
        # Whatever the system refused is for the user to mend: a full disk, a folder that was taken away.
        where = error.filename or ("standard output" if error.errno in _OF_STREAMS else "the system refused")
        code = refuse(prog, f"{where}: {' '.join(str(error.strerror or error).split())}")
    finally:
        close_streams()
    raise SystemExit(code)


def _code_of(command: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> object:
    try:
        return command(arguments) or 0
    except SystemExit as ended:
        # Of the parser, after help or a mistake: what it printed has yet to be written.
        return ended.code


def refuse(prog: str, message: str) -> int:
    """Print a user's mistake as one line on standard error; return the exit code that goes with it."""
    _tell(f"{prog}: error: {message}")
    return EXIT_USER_ERROR


def _tell(line: str) -> None:
    # Where standard error takes nothing, the exit code is what is left to tell.
    with contextlib.suppress(OSError):
        print(printable(line), file=sys.stderr)


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
        rows: rows of cells.
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


#: One entry for every block that wants silence.
_silent: list[bool] = []
_SILENCE = threading.Lock()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Print no remarks and no progress in the block, whichever of several blocks in threads ends last."""
    with _SILENCE:
        _silent.append(True)
        stderr.quiet = True
    try:
        yield
    finally:
        with _SILENCE:
            _silent.pop()
            stderr.quiet = bool(_silent)


def on_screen() -> bool:
    """Return True if progress can be drawn: in a notebook, or on a terminal that can move its cursor."""
    # FORCE_COLOR makes rich take a file for a terminal.
    return stderr.is_jupyter or (stderr.file.isatty() and stderr.is_terminal and not stderr.is_dumb_terminal)


def progress_bar() -> Display:
    """Return a progress display with counts, elapsed and remaining time, on standard error."""
    return Display(stderr, on_screen)
