"""The nested start: a supernet all of whose networks begin as the smallest one that lies inside them."""

import dataclasses
from collections.abc import Iterator

import torch

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import decode, smallest_genes
from fedpareto.supernet.layer_table import architecture_rows
from fedpareto.supernet.slices import slices, supernet_architecture
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.weights import Tensors


def nested_start(space: SearchSpace, tensors: Tensors) -> Tensors:
    """Return freshly drawn supernet ``tensors`` in which what only larger networks have adds nothing yet.

    Zero are the weights by which a layer reads channels that the smallest network lacks, the rings of kernels around
    its own, and whatever a block beyond the least depth would add to its shortcut. The channels themselves stay random,
    so that the zeros have gradients. Function-preserving growth is that of Net2Net (Chen et al., 2016), and blocks
    that begin as the identity those of Goyal et al. (2017, section 5.1).

    All networks of one resolution then compute the same, except where a larger one has a layer that the smallest
    lacks inside a block of both (expand ratio 1, a shortcut that depends on widths), with group norms, whose groups
    hold channels of both, and where blocks beyond the least depth end in a ReLU (``branch_activation``): those stay as
    they were drawn.
    """
    ends = set(_ends_of_extra_blocks(space))
    kept = slices(space, _smallest_with_all_blocks(space))
    started = dict(tensors)
    for name, tensor in tensors.items():
        if name in ends:
            started[name] = torch.zeros_like(tensor)
        elif name in kept and tensor.ndim > 1:
            # The first dimension is that of the outputs.
            read = (slice(None), *kept[name][1:])
            started[name] = torch.zeros_like(tensor)
            started[name][read] = tensor[read]
    return started


def _smallest_with_all_blocks(space: SearchSpace) -> Architecture:
    smallest = decode(space, smallest_genes(space))
    stages = (dataclasses.replace(stage, blocks=stage.blocks[:1] * space.max_depth) for stage in smallest.stages)
    return dataclasses.replace(smallest, stages=tuple(stages))


def _ends_of_extra_blocks(space: SearchSpace) -> Iterator[str]:
    """Yield the tensors that scale what the blocks beyond the least depth add: of norms if there are any."""
    last = {}
    for row in architecture_rows(space, supernet_architecture(space)):
        if row.layer.kind == "conv":
            last[row.layer.block] = row.layer
    for stage in range(len(space.stages)):
        for block in range(min(space.depths), space.max_depth):
            layer = last[f"stages.{stage}.{block}"]
            if layer.activation == "relu":
                # Of zeros a ReLU has no gradient: the block would stay at zero for good.
                continue
            yield f"{layer.name}.norm.weight" if layer.norm else f"{layer.name}.conv.weight"
