"""Text for the terminal: data made printable, counts with their nouns, and commands quoted for a shell."""

import contextlib
import re
import shlex
import unicodedata
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

#: Kinds of characters that move a cursor, end a line, reorder what is read, show nothing or cannot be encoded:
#: controls, formats, private ones, surrogates, unassigned ones, separators of lines and paragraphs.
_HIDDEN = ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")

#: Formats that people's scripts need: the joiners of Persian, of Indic scripts and of emoji.
_JOINERS = "\u200c\u200d"

_IRREGULAR: Mapping[str, str] = {"entry": "entries", "batch": "batches", "class": "classes", "process": "processes"}


#: Who reads messages: whoever typed a command, or called a function from Python. Nobody says where neither is known.
_READER: ContextVar[Literal["command", "python"] | None] = ContextVar("reader", default=None)

#: Functions that do what commands do.
_FUNCTIONS: Mapping[str, str] = {"train-supernet": "train", "build-cache": "build_cache"}

#: Arguments of functions that are called otherwise than the options of commands, and values that are.
_ARGUMENTS: Mapping[str, str] = {
    "data.name": "data",
    **{f"{limit}-budget": limit for limit in ("params", "size", "memory", "latency")},
    "flops-budget": "macs",
}
_PLAIN = re.compile(r"[A-Z]+|\d+")
_LITERALS: Mapping[str, str] = {"true": "True", "false": "False", "null": "None"}


def printable(text: str) -> str:
    r"""Return text as one line in which nothing is hidden: control characters read as ``\n``, ``\x1b``, ``\u202e``.

    What comes from a file, a folder or a client may hold escape sequences for the terminal, or lines of its own.
    """
    return "".join(_escaped(character) if _is_hidden(character) else character for character in text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which is singular for one alone: ``1 seed``, ``1,024 cache entries``."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a noun of one or more words, the last of which changes."""
    *before, last = noun.split(" ")
    return " ".join([*before, _IRREGULAR.get(last, f"{last}s")])


def command(program: str, *arguments: object, **options: object) -> str:
    """Return a command line as it is typed into a shell, whatever characters its words have; for Python, the call.

    Args:
        program: what is run; ``python examples/x.py`` is two words, the second of them an argument.
        arguments: files.
        options: ``flops_budget="60M"`` is typed ``--flops-budget 60M``; True is a switch, None and False are left out.
    """
    files = [f"./{file}" if str(file).startswith("-") else str(file) for file in arguments]
    if _READER.get() == "python" and program in _FUNCTIONS and not arguments:
        given = {_argument(name.replace("_", "-")): value for name, value in options.items()}
        inner = ", ".join(f"{name}={_literal(value)}" for name, value in given.items() if value not in (None, False))
        return f"{_FUNCTIONS[program]}({inner})"
    words = [program, *files]
    for name, value in options.items():
        words += _option(f"--{name.replace('_', '-')}", value)
    return shell(words)


@contextlib.contextmanager
def addressed(reader: Literal["command", "python"]) -> Iterator[None]:
    """Let settings be written in the block as its reader gives them; functions that a command calls are part of it."""
    token = _READER.set("command" if "command" in (reader, _READER.get()) else "python")
    try:
        yield
    finally:
        _READER.reset(token)


def option(name: str, value: str | None = None) -> str:
    """A setting as whoever reads the message gives it, perhaps with a value.

    >>> option("data.root", "FOLDER")
    '--data.root FOLDER'
    >>> with addressed("python"):
    ...     option("data.root", "FOLDER"), option("execution.kernels", "torch"), option("flops-budget", "60M")
    ('data_root=FOLDER', "execution_kernels='torch'", "macs='60M'")
    """
    if _READER.get() != "python":
        return f"--{name}" if value is None else f"--{name} {value}"
    argument = _argument(name)
    if value is None:
        return argument
    literal = _LITERALS.get(value, value if _PLAIN.fullmatch(value) else repr(value))
    return f"{argument}={literal}"


def _argument(name: str) -> str:
    """Argument of the public functions that is a setting of a command."""
    return _ARGUMENTS.get(name, re.sub(r"[.-]", "_", name))


def shell(words: list[str]) -> str:
    """Return words as one line of a shell that reads them back as they are."""
    return " ".join(map(_quoted, words))


def _literal(value: object) -> str:
    return repr(str(value) if isinstance(value, Path) else value)


def _option(name: str, value: object) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [name]
    # A value that starts with a dash would be read as another option.
    return [f"{name}={value}"] if str(value).startswith("-") else [name, str(value)]


def _quoted(word: str) -> str:
    if not any(map(_is_hidden, word)):
        return shlex.quote(word)
    # Within $'…' a shell reads escapes, so that the line itself hides nothing.
    escapes = {"\\": r"\\", "'": r"\'"}
    inner = "".join(escapes.get(one) or (_bytes(one) if _is_hidden(one) else one) for one in word)
    return f"$'{inner}'"


def _bytes(character: str) -> str:
    # A name of a file that is no UTF-8 holds its bytes as surrogates.
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
