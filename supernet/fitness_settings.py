"""Settings of the fitness: the weights of its terms, checked against a space, and as plain values for files."""

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any, Literal

from fedpareto.supernet.architecture import Family
from fedpareto.supernet.common.errors import SpaceError
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.learned import LearnedTerms, check_learned

if TYPE_CHECKING:
    from fedpareto.supernet.space import SearchSpace

#: The scored convolutions of a block by family, in the order of ``FitnessSettings.kind_weights``: names of its layers.
CONVOLUTIONS: dict[Family, tuple[str, str, str]] = {
    "mobilenet": ("expand", "depthwise", "project"),
    "resnet": ("conv1", "conv2", "shortcut"),
}


@dataclasses.dataclass(frozen=True)
class FitnessSettings:
    """Weights of the fitness ``F = Σ α_j·H_j − ω·Q + λ·ρ − γ·V − δ·B + Σ θ`` subject to ``ρ ≤ ρ0``.

    Attributes:
        entropy: ``stage`` sums the log-widths of a stage's own blocks, ``prefix`` of all blocks up to it.
        entropy_weights: α, one a stage, or a single one for all.
        kind_weights: κ, what ``ln w`` of a convolution counts in H by its place in the block, or a single one for
            all: expand, depthwise, project in ``mobilenet``, conv1, conv2, shortcut in ``resnet``.
        depth_penalty: ω, on depth irregularity Q.
        effectiveness_weight: λ, on effectiveness ρ.
        width_penalty: γ, on falling stage widths V.
        block_penalty: δ, on the number of blocks B.
        max_effectiveness: ρ0.
        cache_max_effectiveness: ρ0 of the entries of a cache, where it differs from a search's.
        learned: θ, what every choice of every block adds by measured accuracies; none in an analytic fitness.
    """

    entropy: Literal["stage", "prefix"] = "stage"
    entropy_weights: tuple[float, ...] = (1.0,)
    kind_weights: tuple[float, ...] = (1.0,)
    depth_penalty: float = 10.0
    effectiveness_weight: float = 0.0
    width_penalty: float = 1.0
    block_penalty: float = 0.0
    max_effectiveness: float = 1.0
    cache_max_effectiveness: float | None = None
    learned: LearnedTerms | None = None

    @property
    def weighs_kinds(self) -> bool:
        """True if a kind of convolution has a weight κ other than 1: then ``ln w`` counts differently in H and ρ."""
        return any(weight != 1 for weight in self.kind_weights)

    def for_cache(self) -> "FitnessSettings":
        """Return the settings that a cache is built with."""
        if self.cache_max_effectiveness is None:
            return self
        return dataclasses.replace(self, max_effectiveness=self.cache_max_effectiveness)


def check_fitness(settings: FitnessSettings, space: "SearchSpace") -> None:
    """Refuse fitness weights that do not fit a space.

    Raises:
        SpaceError: naming the field, its value and what it allows.
    """
    stages = len(space.stages)
    if len(settings.entropy_weights) not in (1, stages):
        raise SpaceError(
            f"fitness.entropy_weights has {counted(len(settings.entropy_weights), 'value')}; allowed: 1, "
            f"or one for each of the {counted(stages, 'stage')}"
        )
    if len(settings.kind_weights) not in (1, len(CONVOLUTIONS["mobilenet"])):
        raise SpaceError(
            f"fitness.kind_weights has {counted(len(settings.kind_weights), 'value')}; allowed: 1, or 3: "
            + "; ".join(f"{', '.join(names)} ({family})" for family, names in CONVOLUTIONS.items())
        )
    if settings.entropy == "prefix" and settings.weighs_kinds:
        raise SpaceError(
            f"fitness.kind_weights is {list(settings.kind_weights)} with entropy: prefix; they go with entropy: stage"
        )
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(number) for number in numbers if isinstance(number, int | float)):
            raise SpaceError(f"fitness.{field.name} is {value}; it must be finite")
    if settings.learned is not None:
        check_learned(settings.learned, space)


def settings_to_mapping(settings: FitnessSettings) -> dict[str, Any]:
    """Return fitness weights as plain JSON/YAML values.

    Where nothing is learned there is no field for it, so that files are those of before there was one.
    """
    mapping: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    if settings.learned is None:
        del mapping["learned"]
    return mapping
