"""Features of a linear model of accuracy: the choices that a network makes, and the effects that choices share.

A *cell* is one choice: a resolution, a stem width, a stage's width or depth, a block slot's kernel and expand ratio
together. Cells share *effects*: a kernel or an expand ratio has one effect everywhere, one in each stage and one in
each slot, and every cell one of its own. A cell is worth the sum of its effects. As all are penalised alike, similar
choices are estimated alike until measured networks tell otherwise (a hierarchical model; Gelman and Hill, "Data
analysis using regression and multilevel/hierarchical models", 2007).
"""

import itertools
from collections.abc import Iterator

import numpy as np

from fedpareto.fitness.learned import distinct_ratios
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.genes import canonical, gene_layout
from fedpareto.supernet.learned import LearnedTerms
from fedpareto.supernet.space import SearchSpace

#: Name of a cell, such as ``("block", stage, slot, kernel, expand)``; all but the first are numbers.
Cell = tuple[str | int, ...]


def cells_of(space: SearchSpace) -> list[Cell]:
    """Return all cells of a space, in the order of columns."""
    stages = range(len(space.stages))
    cells: list[Cell] = [("resolution", r) for r in range(len(space.resolutions))]
    cells += [("stem", w) for w in range(len(space.stem_choices))]
    cells += [("width", s, w) for s in stages for w in range(len(space.width_choices[s]))]
    cells += [("depth", s, d) for s in stages for d in range(len(space.depths))]
    choices = (stages, range(space.max_depth), range(len(space.kernels)), range(len(space.expands)))
    cells += [("block", *numbers) for numbers in itertools.product(*choices)]
    return cells


def cells_chosen(space: SearchSpace, genes: IntArray) -> FloatArray:
    """Return the matrix of choices made, (N, cells), 1 where a network makes one, else 0; ``genes`` is (N, genes)."""
    genes, layout = canonical(space, genes), gene_layout(space)
    stages, slots = range(len(space.stages)), range(space.max_depth)
    picked = [_one_hot(genes[:, layout.resolution], len(space.resolutions))]
    picked.append(_one_hot(genes[:, layout.stem], len(space.stem_choices)))
    picked += [_one_hot(genes[:, layout.width[s]], len(space.width_choices[s])) for s in stages]
    picked += [_one_hot(genes[:, layout.depth[s]], len(space.depths)) for s in stages]
    expands = len(space.expands)
    for s, b in itertools.product(stages, slots):
        # A block has the term of the least ratio that makes it, as its fitness has.
        inputs = genes[:, layout.width[s - 1] if s else layout.stem]
        widths = (inputs, genes[:, layout.width[s]]) if b == 0 else (genes[:, layout.width[s]],)
        ratio = distinct_ratios(space, s, b)[(*widths, genes[:, layout.expand[s, b]])]
        choice = genes[:, layout.kernel[s, b]] * expands + ratio
        present = np.asarray(space.depths)[genes[:, layout.depth[s]]] > b
        picked.append(_one_hot(choice, len(space.kernels) * expands) * present[:, None])
    return np.concatenate(picked, axis=1)


def effects_of(cells: list[Cell]) -> FloatArray:
    """Return the matrix (cells, effects), 1 where a cell has an effect, else 0."""
    columns: dict[Cell, int] = {}
    rows = [[columns.setdefault(effect, len(columns)) for effect in _effects(cell)] for cell in cells]
    shared = np.zeros((len(cells), len(columns)))
    for cell, row in enumerate(rows):
        shared[cell, row] = 1
    return shared


def terms_of_cells(space: SearchSpace, intercept: float, worth: FloatArray) -> LearnedTerms:
    """Return learned terms that give every cell its ``worth``, (cells,), in percentage points."""
    values = iter(worth.tolist())

    def some(count: int) -> tuple[float, ...]:
        return tuple(itertools.islice(values, count))

    stages = range(len(space.stages))
    return LearnedTerms(
        space=space.choices_digest,
        intercept=intercept,
        resolutions=some(len(space.resolutions)),
        stem=some(len(space.stem_choices)),
        widths=tuple(some(len(space.width_choices[s])) for s in stages),
        depths=tuple(some(len(space.depths)) for _ in stages),
        blocks=tuple(
            tuple(tuple(some(len(space.expands)) for _ in space.kernels) for _ in range(space.max_depth))
            for _ in stages
        ),
    )


def _effects(cell: Cell) -> Iterator[Cell]:
    """Yield the effects of a cell: those it shares with others, and its own."""
    yield cell
    if cell[0] == "block":
        _, stage, slot, kernel, expand = cell
        for place in ((), (stage,), (stage, slot)):
            yield ("kernel", kernel, *place)
            yield ("expand", expand, *place)


def _one_hot(index: IntArray, count: int) -> FloatArray:
    chosen: FloatArray = (index[:, None] == np.arange(count)).astype(float)
    return chosen
