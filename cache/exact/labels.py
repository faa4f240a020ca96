"""Labels of the exact solver: partial networks as columns of numbers, with backpointers to their genes.

A label says of a partial network only what its completions depend on or add to. Labels of one state have the same
completions, which is what makes them comparable.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpareto.cache.exact.plan import BlockChoices
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.genes import gene_layout
from fedpareto.supernet.space import SearchSpace


class State(NamedTuple):
    """The state of a partial network: all that decides which completions it has and how they are scored.

    The blocks that may follow depend on the output width. The final number of layers L, and ``Q = exp(Var(depths))``,
    are the same for two labels of a state with the same completion: Var needs only the sum and the sum of squares.

    Attributes:
        width: index of the output width.
        layers: scored layers so far.
        depths, squares: sum, and sum of squares, of the depths of the finished stages.
        stem: ``ln w`` of the stem where ρ counts it and entropy does not, so that labels do not hold it.
    """

    width: int
    layers: int
    depths: int
    squares: int
    stem: float

    def finished(self, depth: int) -> "State":
        """Return the state after a stage of ``depth`` blocks."""
        return self._replace(depths=self.depths + depth, squares=self.squares + depth * depth)


class Labels(NamedTuple):
    """N partial networks: ``costs`` (costs, N), and the parts of their fitness, each (N,).

    ``entropy`` is ``Σ α·H − γ·V − δ·B + Σ θ`` so far, ``log_widths`` the sum of ``ln w``, ``record`` the index of the
    label's backpointer.
    """

    costs: FloatArray
    entropy: FloatArray
    log_widths: FloatArray
    record: IntArray

    def take(self, index: IntArray) -> "Labels":
        """Return some of the labels."""
        return Labels(self.costs[:, index], self.entropy[index], self.log_widths[index], self.record[index])


class Extension(NamedTuple):
    """Labels that are extended by one block, each with each of n options.

    A new label's entropy is the old one plus ``offset`` (N,) plus the option's gain. ``choice`` (n,) are the options'
    indices in the plan.
    """

    labels: Labels
    options: BlockChoices
    choice: IntArray
    offset: FloatArray

    @property
    def size(self) -> int:
        """Number of labels that the extension makes."""
        return len(self.labels.record) * len(self.choice)


def joined(parts: Sequence[Labels]) -> Labels:
    """Return the labels of all ``parts``."""
    costs, *columns = zip(*parts, strict=True)
    return Labels(np.concatenate(costs, axis=1), *map(np.concatenate, columns))


def extended(extensions: Sequence[Extension]) -> Labels:
    """Return all labels that ``extensions`` make, numbered from 0 in their ``record``."""
    count = sum(extension.size for extension in extensions)
    costs = np.empty((len(extensions[0].labels.costs), count))
    entropy, log_widths = np.empty(count), np.empty(count)
    start = 0
    for labels, options, choice, offset in extensions:
        here, shape = slice(start, start + len(labels.record) * len(choice)), (len(labels.record), len(choice))
        for row, before, added in zip(costs, labels.costs, options.costs, strict=True):
            np.add.outer(before, added, out=row[here].reshape(shape))
        np.add.outer(labels.entropy + offset, options.gains, out=entropy[here].reshape(shape))
        np.add.outer(labels.log_widths, options.log_widths, out=log_widths[here].reshape(shape))
        start = here.stop
    return Labels(costs, entropy, log_widths, np.arange(count))


def origins(extensions: Sequence[Extension], numbers: IntArray) -> tuple[IntArray, IntArray]:
    """Return the parents' records of the labels of given ``numbers``, and the options that were taken, both (n,)."""
    ends = np.cumsum([extension.size for extension in extensions])
    from_way = np.searchsorted(ends, numbers, side="right")
    parents, choices = np.empty_like(numbers), np.empty_like(numbers)
    for index in np.unique(from_way):
        extension, here = extensions[index], from_way == index
        label, option = np.divmod(numbers[here] - (ends[index] - extension.size), len(extension.choice))
        parents[here], choices[here] = extension.labels.record[label], extension.choice[option]
    return parents, choices


@dataclasses.dataclass(frozen=True)
class _Page:
    """Backpointers of labels that were made together: in one block slot of one stage, with one output width."""

    start: int
    stage: int
    slot: int
    width: int
    parents: NDArray[np.int32]
    choices: NDArray[np.int32]


class Backpointers:
    """Backpointers of all kept labels: parent and option of each, from which its genes are read backwards."""

    def __init__(self, space: SearchSpace, resolution: int) -> None:
        self.space, self.resolution = space, resolution
        self.pages: list[_Page] = []
        #: The first records are the stems themselves.
        self.length = len(space.stem_choices)

    def record(self, place: tuple[int, int, int], extensions: Sequence[Extension], labels: Labels) -> Labels:
        """Store the backpointers of labels made by ``extensions``; return the labels with their records.

        ``place`` is a stage, a block slot and the index of an output width.
        """
        start = self.length
        parents, choices = origins(extensions, labels.record)
        self.length += len(parents)
        self.pages.append(_Page(start, *place, parents.astype(np.int32), choices.astype(np.int32)))
        return labels._replace(record=np.arange(start, self.length))

    def genes(self, records: IntArray) -> IntArray:
        """Return (N, genes): the networks that end at ``records``."""
        space, layout = self.space, gene_layout(self.space)
        genes = np.zeros((len(records), len(layout.sizes)), dtype=np.int64)
        genes[:, layout.resolution] = self.resolution
        at, stage = records.copy(), np.full(len(records), len(space.stages))
        for page in reversed(self.pages):
            here = np.flatnonzero((at >= page.start) & (at < page.start + len(page.parents)))
            # Read backwards, the first record of a stage is its last block: that one tells depth and width.
            last = here[stage[here] != page.stage]
            row = at[here] - page.start
            width, kernel, expand = self._read(page.width, page.choices[row].astype(np.int64))
            if len(last):
                genes[last, layout.depth[page.stage]] = space.depths.index(page.slot + 1)
                genes[last, layout.width[page.stage]] = width
            stage[here] = page.stage
            genes[here, layout.kernel[page.stage, page.slot]] = kernel
            genes[here, layout.expand[page.stage, page.slot]] = expand
            at[here] = page.parents[row]
        genes[:, layout.stem] = at
        return genes

    def _read(self, width: int, choices: IntArray) -> tuple[int, IntArray, IntArray]:
        """Return the width, kernels and expand ratios, as genes, of choices numbered as in ``BlockChoices``."""
        ratios = len(self.space.expands)
        if self.space.expands_per == "stage":
            return width // ratios, choices, np.full_like(choices, width % ratios)
        return width, *np.divmod(choices, ratios)
