"""Scoring from Python: costs and fitness of architectures, without training and without torch."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from fedpareto.fitness.report import all_terms
from fedpareto.fitness.score import score as score_genes
from fedpareto.fitness.settings import fitness_of
from fedpareto.supernet.architecture import Architecture, ArchitectureLike, HasArchitecture, architecture_of
from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.common.errors import ArchitectureError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import encode
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import space_of


@dataclasses.dataclass(frozen=True)
class ArchitectureScore:
    """Costs and fitness of one architecture.

    Attributes:
        architecture: the network.
        macs: multiply–accumulates of one image.
        params: trainable parameters.
        activation_bytes: peak memory of feature maps of one fp32 image.
        fitness: F, the weighted sum of the terms below.
        rho: effectiveness ρ, depth over width of the network taken for a multilayer perceptron.
        feasible: whether ρ is within the fitness's limit ρ0.
        depth_regularity: Q, how unevenly the stages are deep.
        width_violation: V, how often a stage is narrower than the one before.
        blocks: B, active blocks.
        entropy: H of every stage.
    """

    architecture: Architecture
    macs: int
    params: int
    activation_bytes: int
    fitness: float
    rho: float
    feasible: bool
    depth_regularity: float
    width_violation: float
    blocks: int
    entropy: tuple[float, ...]

    def __repr__(self) -> str:
        feasible = "" if self.feasible else ", not feasible"
        return (
            f"ArchitectureScore({format_quantity(self.macs)} MACs, {format_quantity(self.params)} parameters, "
            f"fitness {self.fitness:.1f}, ρ {self.rho:.3f}{feasible})"
        )

    def to_json(self) -> dict[str, Any]:
        """Score as JSON values, as ``score-subnet --json`` prints them."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**values, "architecture": self.architecture.to_json(), "entropy": list(self.entropy)}


@overload
def score(
    space: SearchSpace | str | Path,
    architectures: ArchitectureLike,
    *,
    fitness: FitnessSettings | str | Path | None = None,
    classes: int | None = None,
) -> ArchitectureScore: ...


@overload
def score(
    space: SearchSpace | str | Path,
    architectures: Sequence[ArchitectureLike],
    *,
    fitness: FitnessSettings | str | Path | None = None,
    classes: int | None = None,
) -> list[ArchitectureScore]: ...


@checked
def score(
    space: SearchSpace | str | Path,
    architectures: ArchitectureLike | Sequence[ArchitectureLike],
    *,
    fitness: FitnessSettings | str | Path | None = None,
    classes: int | None = None,
) -> ArchitectureScore | list[ArchitectureScore]:
    """Score architectures: MACs, parameters, memory and fitness of one, or of each of a list.

    Args:
        space: a search space, the name of a preset or a YAML file.
        architectures: one or several: architectures, the JSON objects that caches hold, or what carries an
            architecture, such as an entry of a cache or the answer of a search.
        fitness: weights, or a YAML file of them; the space's own when left out.
        classes: outputs of the classifier; the space's own when left out.

    Raises:
        UserError: a file cannot be read, or an architecture is not in the space.

    >>> import fedpareto as fp
    >>> space = fp.load_space("mobilenet-tiny")
    >>> smallest = fp.frontier(space).entry(0).architecture
    >>> fp.score(space, smallest)
    ArchitectureScore(129.6K MACs, 14.11K parameters, fitness 108.5, ρ 0.821)
    >>> fp.score(space, fp.find_subnet(space, macs="200K", progress=False)).macs <= 200_000
    True
    """
    given = space_of(space, classes)
    settings = fitness_of(fitness, given)
    if isinstance(architectures, Architecture | HasArchitecture | Mapping):
        (found,) = scored(given, [("architecture", architecture_of(architectures, "architecture"))], settings)
        return found
    named = [(f"architectures[{number}]", each) for number, each in enumerate(architectures)]
    return scored(given, [(where, architecture_of(each, where)) for where, each in named], settings)


def scored(
    space: SearchSpace, architectures: Sequence[tuple[str, Architecture]], settings: FitnessSettings
) -> list[ArchitectureScore]:
    """Score architectures that each come with the place they were read from, for errors.

    Raises:
        ArchitectureError: one is not in the space.
    """
    if not architectures:
        return []
    genes = np.stack([_encoded(space, where, architecture) for where, architecture in architectures])
    scores = score_genes(space, genes, settings)
    terms = [all_terms(scores, index) for index in range(len(architectures))]
    return [
        ArchitectureScore(architecture, **{**each, "entropy": tuple(each["entropy"])})
        for (_, architecture), each in zip(architectures, terms, strict=True)
    ]


def _encoded(space: SearchSpace, where: str, architecture: Architecture) -> Any:
    try:
        return encode(space, architecture)
    except ArchitectureError as error:
        raise ArchitectureError(f"{where}: {error}") from error
