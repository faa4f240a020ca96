"""Learned terms of the fitness: one number for every choice of every block slot, from measured accuracies.

They add up over blocks, so the exact frontier can use them. They are plain tuples, as a space imports no numpy.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fedpareto.supernet.common.errors import SpaceError

if TYPE_CHECKING:
    from fedpareto.supernet.space import SearchSpace

#: Largest size of a term. Terms are percentage points of accuracy.
LARGEST = 1e6


@dataclasses.dataclass(frozen=True)
class LearnedTerms:
    """Learned terms: the amount that every choice adds to the fitness, in percentage points of accuracy.

    Attributes:
        space: digest of the choices of the space that they were learned in (``SearchSpace.choices_digest``).
        intercept: term of every network.
        resolutions: terms by input side.
        stem: terms by stem width.
        widths: terms by stage and output width.
        depths: terms by stage and number of blocks.
        blocks: terms by stage, block slot, kernel and expand ratio; absent slots add nothing.
    """

    space: str
    intercept: float
    resolutions: tuple[float, ...]
    stem: tuple[float, ...]
    widths: tuple[tuple[float, ...], ...]
    depths: tuple[tuple[float, ...], ...]
    blocks: tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]


def check_learned(terms: LearnedTerms, space: "SearchSpace") -> None:
    """Refuse terms of another space, of another shape, or out of range.

    Raises:
        SpaceError: naming the field, its value and what it allows.
    """
    if terms.space != space.choices_digest:
        raise SpaceError(
            f"fitness.learned was fitted to another space than {space.name} (choices {terms.space[:40]!r}, not "
            f"{space.choices_digest!r}); fit one to a run of this space with validate-fitness --fit --form blocks"
        )
    for name, sizes in _sizes(space).items():
        _check_shape(f"fitness.learned.{name}", getattr(terms, name), sizes)


def _sizes(space: "SearchSpace") -> dict[str, tuple[Any, ...]]:
    """Return the lengths of every field's lists, the outermost first; a tuple stands for lists of unequal lengths."""
    stages = len(space.stages)
    return {
        "intercept": (),
        "resolutions": (len(space.resolutions),),
        "stem": (len(space.stem_choices),),
        "widths": (stages, tuple(map(len, space.width_choices))),
        "depths": (stages, len(space.depths)),
        "blocks": (stages, space.max_depth, len(space.kernels), len(space.expands)),
    }


def _check_shape(where: str, value: Any, sizes: tuple[Any, ...]) -> None:
    if not sizes:
        if not math.isfinite(value) or abs(value) > LARGEST:
            raise SpaceError(f"{where} is {value}; it must be a number from {-LARGEST:g} to {LARGEST:g}")
        return
    if len(value) != sizes[0]:
        raise SpaceError(f"{where} has length {len(value)}; it must have {sizes[0]}")
    for index, (inner, rest) in enumerate(zip(value, _inner(sizes), strict=True)):
        _check_shape(f"{where}[{index}]", inner, rest)


def _inner(sizes: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the lengths within each item of a list."""
    for index in range(sizes[0]):
        yield tuple(size[index] if isinstance(size, tuple) else size for size in sizes[1:])
