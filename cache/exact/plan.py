"""The plan of the exact solver: all networks of one resolution as stages of block choices with costs and gains.

The fitness and the costs are sums over blocks once widths and depths are fixed. A plan tabulates every summand once,
as arrays that the solver adds up.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpareto.cache.costs.cost import AdditiveCost
from fedpareto.fitness.learned import learned_gains
from fedpareto.fitness.part_tables import (
    FitnessTerms,
    NetworkPart,
    entropy_widths,
    space_parts,
    space_terms,
)
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace


class BlockChoices(NamedTuple):
    """Choices of one block: arrays (widths…, n) whose last axis numbers them kernel·expands + expand.

    Where the blocks of a stage share their expand ratio, the last axis holds the kernels alone. The ratio then goes
    with the stage's output width, numbered width·expands + expand, as it too stays the same from block to block.

    ``costs`` has the costs as its first axis; ``log_widths`` are sums of ``ln w`` over the scored layers, of
    which there are ``layers``; ``gains`` are what the block adds to its own stage's ``α·H − δ·B + Σ θ``, and the stem
    to the fitness.
    """

    costs: FloatArray
    log_widths: FloatArray
    layers: IntArray
    gains: FloatArray

    def between(self, *widths: int) -> list[tuple["BlockChoices", IntArray]]:
        """Return the options at given widths with their indices, one group for each number of layers."""
        costs = np.stack([cost[widths] for cost in self.costs])
        log_widths, layers, gains = self.log_widths[widths], self.layers[widths], self.gains[widths]
        groups = [np.flatnonzero(layers == count) for count in np.unique(layers)]
        return [(BlockChoices(costs[:, at], log_widths[at], layers[at], gains[at]), at) for at in groups]


@dataclasses.dataclass(frozen=True)
class PlanStage:
    """A stage of the networks of one resolution.

    Attributes:
        first: options of its first block, (input widths, output widths, n).
        later: options of every later block slot, (output widths, n); slots differ in their gains only.
        weights: gain in entropy for each unit of ``κ·ln w``, α·ln(r²·c), by output width.
        falls: γ·max(0, c_in − c_out), (input widths, output widths); 0 in the first stage.
        ends: index of each output width in the space, (output widths,): the next stage's input width.
    """

    first: BlockChoices
    later: tuple[BlockChoices, ...]
    weights: FloatArray
    falls: FloatArray
    ends: IntArray


@dataclasses.dataclass(frozen=True)
class Plan:
    """All networks of one resolution.

    Attributes:
        stem: options of the stem, (stem widths,).
        stages: the stages.
        head: costs of the head, (costs, last widths).
    """

    stem: BlockChoices
    stages: tuple[PlanStage, ...]
    head: FloatArray


def plan_of(space: SearchSpace, settings: FitnessSettings, costs: Sequence[AdditiveCost], resolution: int) -> Plan:
    """Return the plan of all networks with the space's resolution number ``resolution``."""
    parts, terms, weighed = space_parts(space), space_terms(space), entropy_widths(space, settings)
    learned = None if settings.learned is None else learned_gains(space, settings.learned)
    alphas = np.broadcast_to(np.asarray(settings.entropy_weights), (len(space.stages),))
    widths = [np.array(list(choices)) for choices in (space.stem_choices, *space.width_choices)]

    ratios = len(space.expands) if space.expands_per == "stage" else 1

    def of_block(part: NetworkPart, values: NDArray[Any]) -> NDArray[Any]:
        """Return a block's figures at the resolution, (…, output widths, n), its own choices on one axis."""
        found = _at(part, values, resolution)
        if ratios > 1:
            # The ratio goes with the output width.
            found = np.moveaxis(found, -1, -2)
            return found.reshape(*found.shape[:-3], -1, found.shape[-1])
        return found.reshape(*found.shape[:-2], -1)

    def options(s: int, b: int, weights: FloatArray) -> BlockChoices:
        part, found = parts.blocks[s][b], terms.blocks[s][b]
        paid = np.stack([of_block(part, cost.parts.blocks[s][b]) for cost in costs])
        log_widths, layers, widths_weighed = (
            of_block(part, column[:-1]) for column in (found.log_widths, found.layers, weighed.blocks[s][b])
        )
        gains = weights[:, None] * widths_weighed - settings.block_penalty
        if learned is not None:
            gains = gains + of_block(part, learned.blocks[s][b][:-1])
        return BlockChoices(paid, log_widths, layers, gains)

    def later(s: int, slots: int, weights: FloatArray) -> tuple[BlockChoices, ...]:
        """Return the choices of a stage's later blocks; one shared object where all slots have the same."""
        if learned is None:
            return tuple([options(s, 1, weights)] * (slots - 1) if slots > 1 else [])
        return tuple(options(s, b, weights) for b in range(1, slots))

    stages = []
    for s, slots in enumerate(parts.blocks):
        ends = np.repeat(np.arange(len(widths[s + 1])), ratios)
        side = _at(slots[0], terms.blocks[s][0].side[:-1], resolution)[0, :, 0, 0][ends]
        falls = np.maximum(0, widths[s][:, None] - widths[s + 1][ends]) * settings.width_penalty * (s > 0)
        weights = alphas[s] * np.log(side * side * widths[s + 1][ends])
        stages.append(PlanStage(options(s, 0, weights), later(s, len(slots), weights), weights, falls, ends))
    head = np.stack([_at(parts.head, cost.parts.head, resolution) for cost in costs])
    added = None if learned is None else learned.stem
    stem = _stem(parts.stem, terms.stem, [cost.parts.stem for cost in costs], added, resolution)
    return Plan(stem, tuple(stages), head)


def _stem(
    part: NetworkPart, terms: FitnessTerms, paid: Sequence[FloatArray], added: FloatArray | None, resolution: int
) -> BlockChoices:
    """Return the stem's choices at the resolution; their gains are the learned terms of the stem."""
    costs = np.stack([_at(part, values, resolution) for values in paid])
    log_widths, layers = (_at(part, column[:-1], resolution) for column in (terms.log_widths, terms.layers))
    gains = np.zeros(log_widths.shape) if added is None else _at(part, added[:-1], resolution)
    return BlockChoices(costs, log_widths, layers, gains)


def _at(part: NetworkPart, values: NDArray[Any], resolution: int) -> NDArray[Any]:
    chosen: NDArray[Any] = values.reshape(part.shape)[resolution]
    return chosen
