"""Damage to a file, drawn at random: what disks, editors and half-finished copies leave."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

#: Values of every kind, for places where another kind is meant.
_VALUES: tuple[Any, ...] = (None, True, -1, 0, 1.5, -1e300, 10**40, "", "1", "../../x", [], [[]], {}, {"a": []}, [None])

#: Changes a file's bytes in one way.
Damage = Callable[[bytes, np.random.Generator], bytes]

_DEEP = 100_000


def _cut(content: bytes, generator: np.random.Generator) -> bytes:
    return content[: int(generator.integers(len(content)))]


def _headless(content: bytes, generator: np.random.Generator) -> bytes:
    return content[int(generator.integers(1, len(content))) :]


def _bit(content: bytes, generator: np.random.Generator) -> bytes:
    place = int(generator.integers(len(content)))
    return content[:place] + bytes([content[place] ^ 1 << int(generator.integers(8))]) + content[place + 1 :]


def _digit(content: bytes, generator: np.random.Generator) -> bytes:
    places = [place for place, byte in enumerate(content) if byte in b"0123456789"]
    place = int(generator.choice(places))
    digit = (content[place] - ord("0") + int(generator.integers(1, 10))) % 10
    return content[:place] + str(digit).encode() + content[place + 1 :]


def _nul(content: bytes, generator: np.random.Generator) -> bytes:
    place = int(generator.integers(len(content)))
    return content[:place] + b"\0" + content[place:]


def _zeros(content: bytes, generator: np.random.Generator) -> bytes:
    place = int(generator.integers(len(content)))
    return content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :]


def _emptied(content: bytes, generator: np.random.Generator) -> bytes:
    del content, generator
    return b""


def _space(content: bytes, generator: np.random.Generator) -> bytes:
    del generator
    return content.rstrip(b"\n") + b" \n"


#: Damage to any file.
ANY: dict[str, Damage] = {
    "cut": _cut,
    "headless": _headless,
    "bit": _bit,
    "digit": _digit,
    "nul": _nul,
    "zeros": _zeros,
    "emptied": _emptied,
}


def _header(content: bytes, generator: np.random.Generator) -> bytes:
    lie = int(generator.choice([0, 1, 2**31, 2**40, 2**62]))
    return lie.to_bytes(8, "little") + content[8:]


def _dtype(content: bytes, generator: np.random.Generator) -> bytes:
    return content.replace(b'"F32"', b'"I32"', int(generator.integers(1, 5)))


def _nan(content: bytes, generator: np.random.Generator) -> bytes:
    start = 8 + int.from_bytes(content[:8], "little")
    place = start + 4 * int(generator.integers((len(content) - start) // 4))
    return content[:place] + np.float32("nan").tobytes() + content[place + 4 :]


TENSORS: dict[str, Damage] = {**ANY, "header": _header, "dtype": _dtype, "nan": _nan}


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value within a tree."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield (*path, name)
        yield from _places(one, (*path, name))


def _replaced(tree: Any, path: tuple[Any, ...], value: object) -> Any:
    result = copy.deepcopy(tree)
    holder = result
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    return result


_MARK = "the place where damage goes"


def _with_text(content: bytes, generator: np.random.Generator, text: str) -> bytes:
    """Put ``text`` in the place of a random value of a JSON text, or of one line of JSON Lines."""
    lines = content.decode().splitlines()
    try:
        tree, number = json.loads(content), None
    except ValueError:
        number = int(generator.integers(len(lines)))
        tree = json.loads(lines[number])
    places = list(_places(tree))
    path = places[int(generator.integers(len(places)))]
    result = json.dumps(_replaced(tree, path, _MARK)).replace(f'"{_MARK}"', text)
    if number is None:
        return result.encode()
    return "\n".join([*lines[:number], result, *lines[number + 1 :], ""]).encode()


def _kind(content: bytes, generator: np.random.Generator) -> bytes:
    return _with_text(content, generator, json.dumps(_VALUES[int(generator.integers(len(_VALUES)))]))


def _deep(content: bytes, generator: np.random.Generator) -> bytes:
    start, end = ("[", "]") if generator.integers(2) else ('{"a":', "}")
    return _with_text(content, generator, start * _DEEP + "0" + end * _DEEP)


def _number(content: bytes, generator: np.random.Generator) -> bytes:
    return _with_text(content, generator, str(generator.choice(["1e400", "-1e400", "NaN", "Infinity", "9" * 5000])))


def _twice(content: bytes, generator: np.random.Generator) -> bytes:
    del generator
    start = content.index(b'"')
    name = content[start : content.index(b'"', start + 1) + 1]
    return content.replace(b"{", b"{" + name + b": 1, ", 1)


JSON: dict[str, Damage] = {**ANY, "kind": _kind, "deep": _deep, "number": _number, "twice": _twice}


def _yaml_kind(content: bytes, generator: np.random.Generator) -> bytes:
    tree = yaml.safe_load(content)
    places = list(_places(tree))
    value = _VALUES[int(generator.integers(len(_VALUES)))]
    return yaml.safe_dump(_replaced(tree, places[int(generator.integers(len(places)))], value)).encode()


def _yaml_deep(content: bytes, generator: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[: int(generator.integers(len(lines)))]) + b"more: " + b"[" * 5000


def _yaml_number(content: bytes, generator: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    numbers = [number for number, line in enumerate(lines) if line.rstrip()[-1:].isdigit() and b":" in line]
    number, odd = int(generator.choice(numbers)), str(generator.choice([".inf", ".nan", "1e400"]))
    lines[number] = lines[number].split(b":")[0] + f": {odd}\n".encode()
    return b"".join(lines)


YAML: dict[str, Damage] = {**ANY, "kind": _yaml_kind, "deep": _yaml_deep, "number": _yaml_number}

_BY_SUFFIX = {".json": JSON, ".jsonl": JSON, ".yaml": YAML, ".safetensors": TENSORS}


def damages_of(path: Path) -> dict[str, Damage]:
    """Return the damages that a file can have, by name."""
    return _BY_SUFFIX.get(path.suffix, ANY)


def harmless(content: bytes) -> bytes:
    """Return a text with white space that means nothing."""
    return _space(content, np.random.default_rng(0))
