"""Command-line options as fields of typed dataclasses, spelled with dashes and read like fields of YAML files."""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, Namespace
from jsonargparse._actions import _ActionConfigLoad
from jsonargparse._typehints import ActionTypeHint

from fedpareto.supernet.common.errors import UserError, nearest_name
from fedpareto.supernet.common.formats.typed_values import SWITCH_WORDS, build, typed, typed_fields, typed_text
from fedpareto.supernet.common.formats.typed_yaml import named, read_yaml_mapping
from fedpareto.supernet.common.formats.yaml_text import parse_yaml
from fedpareto.supernet.common.terminal.console import refuse

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

T = TypeVar("T")

_NEGATIVE = re.compile(r"-\.?\d")

#: A field's name, with which errors of values begin.
_FIELD = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")

#: Message of argparse about options that were left out.
_LACKING = re.compile(r"the following arguments are required: (.*)")


class CommandParser(ArgumentParser):
    """A jsonargparse parser that spells options with dashes and reports mistakes in one line.

    Options are never abbreviated. A value is read by the type of its field, as in a file. jsonargparse itself would
    read it as YAML, whatever the type.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        #: File of each field's value, by name of the field; none for values of the command line.
        self.origins: dict[str, str] = {}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with code 2."""
        del ex
        lacking = _LACKING.fullmatch(message)
        if lacking:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in lacking[1].split(", "))
            message = f"{options} must be given"
        raise SystemExit(refuse(self.prog, f"{' '.join(message.split())} (see {self.prog} --help)"))

    def _print_message(self, message: str, file: "SupportsWrite[str] | None" = None) -> None:
        """Print help, and let the error of a full or closed stream rise, which argparse would pass over."""
        if message:
            (file or sys.stderr).write(message)

    def parse(self, arguments: Sequence[str]) -> Namespace:
        """Parse ``arguments``; a switch given alone (``--json``) is on, and values may be negative (``-3M``)."""
        self.origins = {}
        try:
            return self.parse_args(list(self._joined(list(arguments))))
        except UserError as error:
            self.error(str(error))

    def build(self, cls: type[T], values: Namespace) -> T:
        """Return the dataclass ``cls`` of parsed values.

        Raises:
            UserError: values do not go together; it names the file of the first value it mentions.
        """
        fields = values.as_dict()
        try:
            return build(cls, {name: fields[name] for name in cls.__dataclass_fields__})  # type: ignore[attr-defined]
        except UserError as error:
            field = _FIELD.match(str(error))
            origin = self.origins.get(field[0]) if field else None
            raise error if origin is None else type(error)(f"{origin}: {error}") from error

    def add_config(self, option: str, cls: type, description: str, also: Sequence[str] = ()) -> None:
        """Add an option that takes a YAML file of the fields of the dataclass ``cls``.

        Args:
            option: its name.
            cls: dataclass whose fields the file may set.
            description: its help text.
            also: further options, of text, that the file may set.
        """
        self.add_argument(option, action=_ConfigFile, options=cls, also=also, help=description)

    def description_of(self, field: str) -> str:
        """Help text of the option of a field."""
        return self._option_of(field).help or ""

    def describe(self, field: str, description: str) -> None:
        """Let help say something else of the option of a field."""
        self._option_of(field).help = description

    def _option_of(self, field: str) -> argparse.Action:
        return next(action for action in self._actions if action.dest == field)

    def spell_with_dashes(self) -> None:
        """Make every option read ``--flops-budget`` in help; underscores are still understood."""
        for action in self._actions:
            dashed = [option.replace("_", "-") for option in action.option_strings]
            for option in dashed:
                self._option_string_actions.setdefault(option, action)
            action.option_strings = dashed
            if getattr(action, "_typehint", None) is bool:
                action.nargs = "?"
            if isinstance(action, ActionTypeHint):
                action.__class__ = _Option
            elif isinstance(action, _ActionConfigLoad):
                action.__class__ = _Group
                action.help = argparse.SUPPRESS

    def _joined(self, given: list[str]) -> Iterator[str]:
        """Yield the arguments with values argparse would misread attached to their options."""
        tokens = iter(zip(given, [*given, ""][1:], strict=True))
        for token, following in tokens:
            self._check_known(token)
            if token in self._switches() and following.lower() not in SWITCH_WORDS:
                yield f"{token}=true"
            elif token in self._option_string_actions and _NEGATIVE.match(following):
                yield f"{token}={following}"
                next(tokens)
            else:
                yield token

    def _check_known(self, token: str) -> None:
        """Refuse an unknown or abbreviated option, and name the nearest known one."""
        option = token.partition("=")[0]
        if not option.startswith("--") or option == "--" or option in self._option_string_actions:
            return
        known = [name for action in self._actions for name in action.option_strings if action.help != argparse.SUPPRESS]
        spelled = option.replace("_", "-")
        begun = [name for name in known if name.startswith(spelled)]
        meant = " or ".join(begun) or nearest_name(spelled, known)
        raise UserError(f"there is no option {option}" + (f"; did you mean {meant}?" if meant else ""))

    def _switches(self) -> set[str]:
        actions = self._option_string_actions.items()
        return {option for option, action in actions if getattr(action, "_typehint", None) is bool}


def options_parser(prog: str, description: str, options: type) -> CommandParser:
    """Return a parser whose options are the fields of the dataclass ``options``."""
    parser = CommandParser(prog=prog, description=description)
    parser.add_class_arguments(options)
    parser.spell_with_dashes()
    return parser


class _Option(ActionTypeHint):
    """An option whose text is read by the type of its field."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take a value from the command line."""
        parser, namespace, text, _ = args
        namespace.update(typed_text(text, self._typehint, self.option_strings[0]), self.dest)
        parser.origins.pop(self.dest, None)

    def _check_type(self, value: Any, append: bool = False, cfg: Any = None, mode: Any = None) -> Any:
        """Check a value that has been read before."""
        return typed(value, self._typehint, self.dest)


class _Group(_ActionConfigLoad):
    """An option that takes a whole group of options as a mapping, ``{name: digits}``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take a mapping from the command line."""
        parser, namespace, text, _ = args
        value = parse_yaml(text, f"--{self.dest}") if text.startswith("{") else text
        if not isinstance(value, Mapping):
            options = [
                action.option_strings[0] for action in parser._actions if action.dest.startswith(f"{self.dest}.")
            ]
            raise UserError(f"--{self.dest} is a group of options, not one; give {', '.join(options)}")
        _take(parser, namespace, typed_fields(self.basetype, value, f"{self.dest}."), f"{self.dest}.", None)


class _ConfigFile(argparse.Action):
    """An option that takes a file with values of other options."""

    def __init__(self, *args: Any, options: type, also: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._options, self._also = options, also

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Read the file."""
        mapping = read_yaml_mapping(Path(typed_text(values, str, self.option_strings[0])))
        with named(values):
            besides = {name: typed(mapping.pop(name), str | None, name) for name in self._also if name in mapping}
            fields = typed_fields(self._options, mapping)
        for name, value in besides.items():
            namespace[name] = value
        _take(parser, namespace, fields, "", values)
        namespace[self.dest] = [*(namespace.get(self.dest) or []), values]


def _take(
    parser: CommandParser, namespace: Namespace, fields: Mapping[str, Any], prefix: str, origin: str | None
) -> None:
    """Put typed values into the namespace, group by group, and remember the file they come from."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            _take(parser, namespace, value, f"{prefix}{name}.", origin)
        else:
            namespace.update(value, f"{prefix}{name}")
            parser.origins.pop(f"{prefix}{name}", None)
            if origin is not None:
                parser.origins[f"{prefix}{name}"] = origin
