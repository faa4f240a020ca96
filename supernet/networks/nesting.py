"""Nested initialisation: a supernet whose subnets all begin as the same function, that of the smallest one.

Freshly drawn, subnets of different sizes compute unrelated functions on shared weights. With zeros where a larger
subnet goes beyond the smallest, they begin alike, and training grows from there.
"""

import dataclasses
from collections.abc import Iterator

import torch

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import decode, smallest_genes
from fedpareto.supernet.layer_table import architecture_rows
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import slices, supernet_architecture
from fedpareto.supernet.space import SearchSpace


def nested_start(space: SearchSpace, tensors: Tensors) -> Tensors:
    """Return freshly drawn supernet ``tensors`` with zeros where larger networks would add to the smallest one.

    Set to zero are the weights by which a layer reads channels that the smallest network lacks, the rings of kernels
    around its own, and the last scale of every block beyond the least depth. Function-preserving growth is that of
    Net2Net (Chen et al., 2016). Blocks that begin as the identity are those of Goyal et al. (2017, section 5.1).

    All networks of one resolution then compute the same, with these exceptions: a larger network has a layer inside a
    block that the smallest lacks there (expand ratio 1, a shortcut that depends on widths); group norms, whose groups
    hold channels of both; blocks beyond the least depth that end in a ReLU (``branch_activation``), which stay as they
    were drawn.
    """
    ends = set(_ends_of_extra_blocks(space))
    kept = slices(space, _smallest_with_all_blocks(space))
    started = dict(tensors)
    for name, tensor in tensors.items():
        if name in ends:
            started[name] = torch.zeros_like(tensor)
        elif name in kept and tensor.ndim > 1:
            # Zero is what reads the extra channels and the outer kernel rings: their contribution to any output is 0,
            # so channels that both networks have get the same value in both. The rows that make the extra channels
            # (the first axis, outputs) stay random on purpose: the gradient of a zero weight is its input times the
            # output's gradient, so it leaves zero only if that channel is not zero as well.
            read = (slice(None), *kept[name][1:])
            started[name] = torch.zeros_like(tensor)
            started[name][read] = tensor[read]
    return started


def _smallest_with_all_blocks(space: SearchSpace) -> Architecture:
    smallest = decode(space, smallest_genes(space))
    stages = (dataclasses.replace(stage, blocks=stage.blocks[:1] * space.max_depth) for stage in smallest.stages)
    return dataclasses.replace(smallest, stages=tuple(stages))


def _ends_of_extra_blocks(space: SearchSpace) -> Iterator[str]:
    """Yield the names of the tensors that scale the branches of blocks beyond the least depth, of norms if possible.

    With the last scale at 0 the block's branch is 0 and the block is its identity shortcut, so that a network with the
    block computes the same as one without it. One zero factor is enough, and its gradient is not zero.
    """
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
