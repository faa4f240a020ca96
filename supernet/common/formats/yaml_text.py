"""Strict parser of hand-written YAML: values that are ambiguous in YAML 1.1 are read as text."""

import re
from typing import Any

import yaml

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import counted

#: Numbers as YAML 1.2 has them: 1_000, 0x10, 010 and 1:30 are text.
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_CONSTANTS = {
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}

#: Longest spelling of a number; python refuses to read digits by the thousand.
_LONGEST_NUMBER = 400

#: Most levels of nesting, and most values of one file with all its aliases written out.
_DEEPEST = 32
_MOST_VALUES = 100_000

_TAG = "tag:yaml.org,2002:"


class WrittenInt(int):
    """A whole number with the text it was written as, for fields that hold text."""

    text: str


class WrittenFloat(float):
    """A number with the text it was written as, for fields that hold text."""

    text: str


class _Loader(yaml.SafeLoader):
    """Loader that splits text into nodes; ``read_scalar`` gives them values."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - declared by yaml


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML text into mappings with text as keys, lists, text, numbers, booleans and None.

    Aliases and merge keys (``<<``) are written out. Numbers are ``WrittenInt`` and ``WrittenFloat``.

    Args:
        text: one YAML document.
        source: name of the text in errors.

    Raises:
        UserError: it is no YAML, a key is there twice, a value has a tag, or it is nested or repeated beyond reason.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _Values(source).value(node, depth=0)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {_problem(error, text)}") from error
    except RecursionError as error:
        raise UserError(f"{source} is nested deeper than {_DEEPEST} levels; write it flatter") from error


def read_scalar(text: str) -> Any:
    """Return the value of a word without quotes: None, a boolean, a number, or else the text itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    number: WrittenInt | WrittenFloat
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.fullmatch(text):
        number = WrittenInt(text)
    elif _FLOAT.fullmatch(text):
        number = WrittenFloat(_python(text))
    else:
        return text
    number.text = text
    return number


def _python(text: str) -> str:
    """Return a YAML number in Python's spelling."""
    return re.sub(r"\.(?=inf|nan)", "", text.lower())


class _Values:
    """Converter of the nodes of one document to values.

    Args:
        source: name of the document in errors.
    """

    def __init__(self, source: str) -> None:
        self._source, self._left = source, _MOST_VALUES

    def value(self, node: yaml.Node, depth: int) -> Any:
        """Return the value of a node; ``depth`` is the number of nodes around it."""
        self._left -= 1
        if self._left < 0:
            most = counted(_MOST_VALUES, "value")
            raise UserError(f"{self._source} holds more than {most} with its aliases written out")
        if depth > _DEEPEST:
            raise UserError(f"{self._at(node)} is nested deeper than {_DEEPEST} levels; write it flatter")
        if node.tag not in (f"{_TAG}str", f"{_TAG}seq", f"{_TAG}map"):
            raise UserError(f"{self._at(node)} has the tag {_short(node.tag)}; write the value without a tag")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(inner, depth + 1) for inner in node.value]
        quoted = isinstance(node, yaml.ScalarNode) and node.style is not None
        return _paired(node.value) if quoted else read_scalar(node.value)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, inner in node.value:
            name = self._key(key)
            value = self.value(inner, depth + 1)
            if name == "<<":
                merged = {**self._merged(inner, value), **merged}
            elif name in own:
                raise UserError(f"{self._at(key)}: {name!r} is there twice; keep one of them")
            else:
                own[name] = value
        return {**merged, **own}

    def _key(self, key: yaml.Node) -> str:
        if not isinstance(key, yaml.ScalarNode) or not key.tag.startswith(f"{_TAG}str"):
            raise UserError(f"{self._at(key)}: a field's name must be plain text")
        return str(key.value)

    def _merged(self, node: yaml.Node, value: Any) -> dict[str, Any]:
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            raise UserError(f"{self._at(node)}: << must be followed by a mapping, such as <<: *base")
        return {name: inner for part in reversed(parts) for name, inner in part.items()}

    def _at(self, node: yaml.Node) -> str:
        return f"{self._source}, line {node.start_mark.line + 1}"


def _paired(text: str) -> str:
    """Return text with each surrogate pair, JSON's escape of one character, joined to that character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!")


def _problem(error: yaml.YAMLError, text: str) -> str:
    """Return a one-line description of a YAML error with its line number."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark, problem = error.problem_mark or error.context_mark, error.problem or error.context or "it cannot be read"
        return problem if mark is None else f"line {mark.line + 1}: {problem}"
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: it holds the character {_code(error.character)}, which no text has; save it as UTF-8"
    return " ".join(str(error).split())


def _code(character: str | int | bytes) -> str:
    number = character if isinstance(character, int) else ord(character)
    return f"U+{number:04X}"
