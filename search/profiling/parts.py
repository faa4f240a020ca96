"""The distinct blocks of a space as torch modules, for the measurement of their latency."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from fedpareto.cache.costs.latency.block_names import Names, block_names
from fedpareto.fitness.part_tables import NetworkPart, Parts, choice_layers, space_parts
from fedpareto.search.runtimes.runtime import Measurable
from fedpareto.supernet.layer_table import LayerTable, active_rows
from fedpareto.supernet.networks.bn_folding import folded
from fedpareto.supernet.networks.network import build_blocks
from fedpareto.supernet.space import SearchSpace


class Choice(NamedTuple):
    """One choice of one part of a space's networks: a block, a stem or a head.

    Attributes:
        part: the part.
        number: index of the choice.
    """

    part: NetworkPart
    number: int

    def layers(self, space: SearchSpace) -> LayerTable:
        """Return its rows of the layer table, for one network."""
        return choice_layers(space, self.part, np.array([self.number]))


def distinct_choices(space: SearchSpace) -> dict[str, Choice]:
    """Return one choice for every distinct block of a space, by the block's name."""
    parts, names = space_parts(space), block_names(space)
    found: dict[str, Choice] = {}
    for part, named in _paired(parts, names):
        for number, name in enumerate(named):
            found.setdefault(str(name), Choice(part, number))
    return found


def build_part(space: SearchSpace, choice: Choice) -> nn.Sequential:
    """Build the blocks of a choice as they are in a network, without weights (device ``meta``)."""
    with torch.device("meta"):
        blocks = build_blocks(active_rows(choice.layers(space)), space.norm, running_statistics=True)
    return nn.Sequential(*blocks.values())


def measurable(space: SearchSpace, choice: Choice, batch: int, generator: torch.Generator) -> Measurable:
    """Build a choice as a device runs it: with random weights and its BatchNorms folded."""
    example = torch.randn(input_shape(choice.layers(space), batch), generator=generator)
    return Measurable(ready(build_part(space, choice), generator), example)


def input_shape(layers: LayerTable, batch: int) -> tuple[int, int, int, int]:
    """Return the shape of the input of a part of a network, given its layers."""
    first = next(index for index in range(len(layers.layers)) if layers.active[index, 0])
    side = int(layers.h_in[first, 0])
    return batch, int(layers.c_in[first, 0]), side, side


def ready(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Return a network, or a part of one, as a device runs it: with random weights and its BatchNorms folded."""
    module.to_empty(device="cpu")
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            # Maps keep their scale, so that nothing becomes denormal or infinite.
            fan_in = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=(2 / fan_in) ** 0.5, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
            layer.reset_parameters()
    return folded(module).requires_grad_(False)


def _paired(parts: Parts[NetworkPart], names: Parts[Names]) -> Iterator[tuple[NetworkPart, Names]]:
    yield parts.stem, names.stem
    for slots, named in zip(parts.blocks, names.blocks, strict=True):
        yield from zip(slots, named, strict=True)
    yield parts.head, names.head
