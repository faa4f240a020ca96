"""What all commands share: one-line errors, exit codes, progress, tables, the next step."""

import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

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
from supernet.streams import close_streams, open_streams, output_refusal

#: Exit codes: a mistake that the user can mend, and Ctrl-C.
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = exit_code(signal.SIGINT)
EXIT_TERMINATED = exit_code(signal.SIGTERM)

#: Where progress and remarks go: results alone are on standard output. Brackets are what they are: paths and what
#: clients say may hold some.
stderr = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

#: Columns of tables that are not printed on a terminal.
_PIPE_WIDTH = 120


def run_command(prog: str, command: Callable[[Sequence[str]], int | None], arguments: Sequence[str] | None) -> NoReturn:
    """Run ``command`` on the arguments and exit: 0, 2 for a user's mistake, 130 after Ctrl-C, 143 after SIGTERM."""
    try:
        open_streams()
        with ended_by_signals(prog):
            code: object = _code_of(command, sys.argv[1:] if arguments is None else arguments)
            sys.stdout.flush()
        lost = output_refusal()
        if lost is not None:
            raise lost
    except UserError as error:
        code = _refused(prog, str(error))
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
        where = "standard output" if error is output_refusal() else str(error.filename or "the system refused")
        code = _refused(prog, f"{where}: {error.strerror or error}")
    finally:
        close_streams()
    raise SystemExit(code)


def _code_of(command: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> object:
    try:
        return command(arguments) or 0
    except SystemExit as ended:
        # Of the parser, after help or a mistake: what it printed has yet to be written.
        return ended.code


def _refused(prog: str, message: str) -> int:
    _tell(f"{prog}: error: {' '.join(message.splitlines())}")
    return EXIT_USER_ERROR


def _tell(line: str) -> None:
    # Where standard error takes nothing, the exit code is what is left to tell.
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)


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
