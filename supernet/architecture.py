"""Architectures: one network of a search space as a frozen, hashable value with a readable JSON form.

An architecture lists the choices that were made for it: resolution, stem width, and for each stage the width and the
kernel and expand ratio of each block.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from fedpareto.supernet.common.errors import ArchitectureError, unknown_name
from fedpareto.supernet.common.formats.json_text import parse_json, shown

#: The layouts a block may have: inverted residuals of MobileNet, basic blocks of ResNet.
Family = Literal["mobilenet", "resnet"]

#: The fields of a block that vary in each family, in the order its JSON prints them.
BLOCK_FIELDS: Mapping[str, tuple[str, ...]] = {"mobilenet": ("kernel", "expand"), "resnet": ("expand",)}


@dataclasses.dataclass(frozen=True)
class Block:
    """The choices of one block: kernel side and expand ratio."""

    expand: float
    kernel: int = 3


@dataclasses.dataclass(frozen=True)
class Stage:
    """The choices of one stage: output channels, and the blocks it has."""

    width: int
    blocks: tuple[Block, ...]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One network of a search space. It holds active blocks only, so equal networks are equal values.

    Attributes:
        family: the block layout.
        resolution: input side in pixels.
        stem_width: channels of the stem.
        stages: widths and blocks, stage by stage.

    Raises:
        ArchitectureError: a number is not positive, or a stage has no block.
    """

    family: str
    resolution: int
    stem_width: int
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if self.family not in BLOCK_FIELDS:
            raise ArchitectureError(unknown_name("family", self.family, BLOCK_FIELDS))
        for where, value in self._numbers():
            if not 0 < value < math.inf:
                raise ArchitectureError(f"{where} is {shown(value)}; it must be positive")
        for index, stage in enumerate(self.stages):
            if not stage.blocks:
                raise ArchitectureError(f"stages[{index}].blocks is empty; a stage has at least one block")

    def _numbers(self) -> Iterator[tuple[str, float]]:
        yield "resolution", self.resolution
        yield "stem_width", self.stem_width
        for s, stage in enumerate(self.stages):
            yield f"stages[{s}].width", stage.width
            for b, block in enumerate(stage.blocks):
                yield f"stages[{s}].blocks[{b}].kernel", block.kernel
                yield f"stages[{s}].blocks[{b}].expand", block.expand

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object every command reads and prints."""
        fields = BLOCK_FIELDS[self.family]
        return {
            "family": self.family,
            "resolution": self.resolution,
            "stem_width": self.stem_width,
            "stages": [
                {
                    "width": stage.width,
                    "blocks": [{name: _plain(getattr(block, name)) for name in fields} for block in stage.blocks],
                }
                for stage in self.stages
            ],
        }

    def __str__(self) -> str:
        return json.dumps(self.to_json())


def architecture_from_json(value: object) -> Architecture:
    """Read the JSON object of an architecture.

    Raises:
        ArchitectureError: a field is missing, unknown or of another type; the message names it.
    """
    fields = _object(value, "architecture", ("family", "resolution", "stem_width", "stages"))
    family = fields["family"]
    if not isinstance(family, str) or family not in BLOCK_FIELDS:
        raise ArchitectureError(unknown_name("family", f"{family!s:.60}", BLOCK_FIELDS))
    return Architecture(
        family=family,
        resolution=_integer(fields["resolution"], "resolution"),
        stem_width=_integer(fields["stem_width"], "stem_width"),
        stages=tuple(
            _stage(stage, f"stages[{index}]", BLOCK_FIELDS[family])
            for index, stage in enumerate(_list(fields["stages"], "stages"))
        ),
    )


def architecture_from_text(text: str, source: str) -> Architecture:
    """Read an architecture's JSON text; ``source`` names it in errors.

    Raises:
        ArchitectureError: the text is not JSON, or not an architecture.
    """
    value = parse_json(text, source, ArchitectureError)
    try:
        return architecture_from_json(value)
    except ArchitectureError as error:
        raise ArchitectureError(f"{source}: {error}") from error


@runtime_checkable
class HasArchitecture(Protocol):
    """Anything that carries an architecture: an entry of a cache, the answer of a search, a score, a subnet."""

    @property
    def architecture(self) -> Architecture:
        """The network."""


#: An architecture, its JSON values, or what carries one.
ArchitectureLike = Architecture | HasArchitecture | Mapping[str, Any]


def architecture_of(given: ArchitectureLike, source: str) -> Architecture:
    """Architecture that was given as such, as its JSON object, or within a JSON object or a value that carries one.

    Raises:
        ArchitectureError: naming ``source``, the field and what it allows.
    """
    if isinstance(given, Architecture):
        return given
    carried = getattr(given, "architecture", None)
    if isinstance(carried, Architecture):
        return carried
    if not isinstance(given, Mapping):
        raise ArchitectureError(
            f"{source} is of type {type(given).__name__}; give an Architecture, its JSON object, or what carries one, "
            "such as an entry of a cache or the answer of a search"
        )
    try:
        return architecture_from_json(given.get("architecture", given))
    except ArchitectureError as error:
        raise ArchitectureError(f"{source}: {error}") from error


def _plain(value: float) -> float:
    """Return a ratio as JSON shows it: whole ones as integers, ``4`` and not ``4.0``."""
    return int(value) if value == int(value) else value


def _stage(value: object, where: str, block_fields: tuple[str, ...]) -> Stage:
    fields = _object(value, where, ("width", "blocks"))
    blocks = []
    for index, block in enumerate(_list(fields["blocks"], f"{where}.blocks")):
        inner = f"{where}.blocks[{index}]"
        choices = _object(block, inner, block_fields)
        kernel = _integer(choices["kernel"], f"{inner}.kernel") if "kernel" in choices else 3
        blocks.append(Block(expand=_number(choices["expand"], f"{inner}.expand"), kernel=kernel))
    return Stage(width=_integer(fields["width"], f"{where}.width"), blocks=tuple(blocks))


def _object(value: object, where: str, names: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ArchitectureError(f"{where} must be a JSON object, found {type(value).__name__}")
    for name in names:
        if name not in value:
            raise ArchitectureError(f"{where} lacks the field {name!r}; it has: {', '.join(map(str, value)):.60}")
    for name in value:
        if name not in names:
            raise ArchitectureError(f"{where} has an unknown field {shown(name)}; allowed: {', '.join(names)}")
    return value


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise ArchitectureError(f"{where} must be a list, found {type(value).__name__}")
    return value


def _integer(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArchitectureError(f"{where} must be an integer, found {shown(value)}")
    return value


def _number(value: object, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ArchitectureError(f"{where} must be a number, found {shown(value)}")
    return value
