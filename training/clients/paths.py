"""Paths through a network: what each of its block slots may hold, and the networks that follow.

A slot of a network holds any block that lies inside the network's own, its kernel and its hidden width at most as
large, or none at all where its stage may end before it: stages keep their first blocks, so behind a slot that is
skipped its stage has no more. Widths, stem and resolution are the network's. No torch.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from fedpareto.fitness.part_tables import choices_made, space_terms
from fedpareto.supernet.architecture import Architecture, Block, Stage
from fedpareto.supernet.common.errors import SpaceError
from fedpareto.supernet.genes import canonical, decode, encode, gene_layout
from fedpareto.supernet.space import SearchSpace

#: For every slot the number of its choice; None where the stage has ended before.
Path = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Slot:
    """One block slot.

    Attributes:
        stage: its stage, from 0.
        index: its place there, from 0.
        choices: what it may hold, ascending in kernel, then in expand ratio; last None where it may be skipped.
        macs: multiply–accumulates of one image in every choice.
    """

    stage: int
    index: int
    choices: tuple[Block | None, ...]
    macs: tuple[int, ...]

    @property
    def largest(self) -> int:
        """Number of the largest block, which has all others inside."""
        return len(self.choices) - (2 if self.choices[-1] is None else 1)


@dataclasses.dataclass(frozen=True)
class Paths:
    """All paths through a network.

    Attributes:
        architecture: the network.
        slots: its block slots in the order they run.
        macs_around: multiply–accumulates of what is in every path: the stem and the head.
    """

    architecture: Architecture
    slots: tuple[Slot, ...]
    macs_around: int

    def path(self, chosen: Sequence[int]) -> Path:
        """Return the path of a choice for every slot."""
        path: list[int | None] = []
        ended = -1
        for slot, choice in zip(self.slots, chosen, strict=True):
            path.append(None if slot.stage == ended else choice)
            if path[-1] is not None and slot.choices[choice] is None:
                ended = slot.stage
        return tuple(path)

    def network(self, path: Path) -> Architecture:
        """Return the network of a path."""
        blocks: list[list[Block]] = [[] for _ in self.architecture.stages]
        for slot, choice in zip(self.slots, path, strict=True):
            block = None if choice is None else slot.choices[choice]
            if block is not None:
                blocks[slot.stage].append(block)
        stages = zip(self.architecture.stages, blocks, strict=True)
        return dataclasses.replace(
            self.architecture, stages=tuple(Stage(stage.width, tuple(own)) for stage, own in stages)
        )

    def macs(self, path: Path) -> int:
        """Return the multiply–accumulates of one image in a path."""
        chosen = zip(self.slots, path, strict=True)
        return self.macs_around + sum(slot.macs[choice] for slot, choice in chosen if choice is not None)


@functools.lru_cache(maxsize=1024)
def paths_through(space: SearchSpace, architecture: Architecture) -> Paths:
    """Return the paths through a network.

    Raises:
        ArchitectureError: it is not in the space.
        SpaceError: blocks of the space are not chosen one by one.
    """
    if space.expands_per == "stage":
        raise SpaceError(
            f"{space.name} has one expand ratio for all blocks of a stage; a path has one for every block: use a space "
            "with expands_per: block, or another method"
        )
    genes = encode(space, architecture)
    terms, made = space_terms(space), choices_made(space, genes[:, None])
    around = terms.stem.macs[made.stem[0]] + terms.head.macs[made.head[0]]
    slots = [
        _slot(space, architecture, s, b)
        for s, stage in enumerate(architecture.stages)
        for b in range(len(stage.blocks))
    ]
    return Paths(decode(space, genes), tuple(slots), int(around))


def _slot(space: SearchSpace, architecture: Architecture, s: int, b: int) -> Slot:
    genes, layout = encode(space, architecture), gene_layout(space)
    kernel, expand = int(layout.kernel[s, b]), int(layout.expand[s, b])
    within = list(itertools.product(range(genes[kernel] + 1), range(genes[expand] + 1)))
    candidates = np.tile(genes, (len(within), 1))
    candidates[:, [kernel, expand]] = within
    # Of ratios that make the same block only the canonical one is a choice.
    distinct = candidates[(canonical(space, candidates) == candidates).all(axis=1)]
    numbers = choices_made(space, np.ascontiguousarray(distinct.T)).blocks[s][b]
    macs = space_terms(space).blocks[s][b].macs[numbers]
    blocks = [Block(kernel=space.kernels[own[kernel]], expand=space.expands[own[expand]]) for own in distinct]
    may_end = b in space.depths
    return Slot(s, b, (*blocks, *[None] * may_end), (*map(int, macs), *[0] * may_end))
