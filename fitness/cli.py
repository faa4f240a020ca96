"""The command ``score-subnet``, which prints MACs, parameters and fitness of architectures."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedpareto.fitness.api import ArchitectureScore, scored
from fedpareto.fitness.settings import load_settings
from fedpareto.supernet.architecture import Architecture, architecture_from_json, architecture_of
from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.errors import ArchitectureError, UserError
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.formats.units import format_bytes
from fedpareto.supernet.common.storage.files import read_text
from fedpareto.supernet.common.terminal.console import next_step, print_table, run_command, say
from fedpareto.supernet.common.terminal.words import command, counted
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space

PROG = "score-subnet"


@dataclasses.dataclass
class ScoreOptions:
    """Options of ``score-subnet``.

    Attributes:
        space: preset name or YAML file of the search space.
        fitness: YAML file of fitness weights; the space's own when left out.
        classes: outputs of the classifier; the space's own when left out.
        json: print one JSON object a line instead of a table.
    """

    space: str
    fitness: str | None = None
    classes: int | None = None
    json: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, or with 2 after a one-line error."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    parser = options_parser(
        PROG, "Print MACs (multiply-accumulates), parameters and fitness of architectures.", ScoreOptions
    )
    parser.add_argument("file", nargs="?", default="-", help="JSON or JSON Lines file; - reads standard input")
    parsed = parser.parse(arguments)
    space = load_space(parsed.space, parsed.classes)
    settings = load_settings(parsed.fitness, space)
    architectures = list(read_architectures(parsed.file))
    if not architectures:
        source = _source(parsed.file)
        raise ArchitectureError(f"{source} holds no architecture but a cache's header; give one as JSON, or one a line")
    scores = scored(space, architectures, settings)
    if parsed.json:
        for found in scores:
            say(json.dumps(found.to_json()))
    else:
        _print_table(space, [where for where, _ in architectures], scores)
        budget = scores[-1].macs
        next_step(command("search-subnet", space=parsed.space, classes=parsed.classes, flops_budget=budget))


def read_architectures(file: str) -> Iterator[tuple[str, Architecture]]:
    """Yield (origin, architecture) for one JSON document or for every line of JSON Lines; ``-`` is stdin.

    A cache entry or any other object that holds an ``architecture`` is read as that architecture.

    Raises:
        ArchitectureError: naming the line, the field and what it allows.
    """
    source = _source(file)
    try:
        text = sys.stdin.read().removeprefix("\ufeff") if file == "-" else read_text(Path(file))
    except UnicodeDecodeError as error:
        raise ArchitectureError(f"{source} is not UTF-8 text; give architectures as JSON") from error
    except OSError as error:
        raise ArchitectureError(f"cannot read {source}: {error.strerror}") from error
    if not text.strip():
        raise ArchitectureError(f"{source} is empty; give one architecture as JSON, or one a line")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) == 1 or not _is_json(lines[0][1]):
        yield source, _architecture_in(parse_json(text, source, ArchitectureError), source)
        return
    for number, line in lines:
        where = f"{source}:{number}"
        value = parse_json(line, where, ArchitectureError)
        if isinstance(value, dict) and "format" in value:
            continue
        yield where, _architecture_in(value, where)


def _is_json(line: str) -> bool:
    """Return True if a line is a JSON document by itself, as every line of JSON Lines is."""
    try:
        parse_json(line, "")
    except UserError:
        return False
    return True


def _source(file: str) -> str:
    return "standard input" if file == "-" else file


def _architecture_in(value: object, where: str) -> Architecture:
    if isinstance(value, Mapping):
        return architecture_of(value, where)
    try:
        return architecture_from_json(value)
    except ArchitectureError as error:
        raise ArchitectureError(f"{where}: {error}") from error


def _print_table(space: SearchSpace, origins: list[str], scores: Sequence[ArchitectureScore]) -> None:
    columns = ("architecture", "MACs", "params", "activations", "fitness", "ρ", "Q", "V", "feasible")
    rows = [(origin, *_cells(found)) for origin, found in zip(origins, scores, strict=True)]
    print_table(f"{space.name}, {counted(space.classes, 'class')}", columns, rows)


def _cells(found: ArchitectureScore) -> list[str]:
    return [
        f"{found.macs:,}",
        f"{found.params:,}",
        format_bytes(found.activation_bytes),
        f"{found.fitness:.3f}",
        f"{found.rho:.4f}",
        f"{found.depth_regularity:.3f}",
        f"{found.width_violation:.0f}",
        "yes" if found.feasible else "no",
    ]
