from itertools import groupby

import numpy as np
import pytest
from helpers.networks.spaces import SMALL, SMALL_RESNET
from helpers.networks.strategies import PRESETS, preset, runs, spaces_with_architectures
from hypothesis import given

from fedpareto.cache.costs.cost import AdditiveCost
from fedpareto.fitness.costs import macs, parameters
from fedpareto.fitness.part_tables import space_parts
from fedpareto.search.reports.page.layers import LayerLine, layer_lines
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import FloatArray
from fedpareto.supernet.common.errors import ArchitectureError
from fedpareto.supernet.genes import decode, encode, largest_genes, random_genes
from fedpareto.supernet.layer_table import architecture_rows, layer_table
from fedpareto.supernet.space import SearchSpace

_SPACES = [preset(name) for name in PRESETS]


def _latency(space: SearchSpace) -> AdditiveCost:
    """A time for every choice of every part, no two of them alike."""
    random = np.random.default_rng(0)

    def times(choices: int) -> FloatArray:
        return random.uniform(0.1, 1.0, choices)

    return AdditiveCost("latency", space_parts(space).map(lambda part: times(part.choices)), unit="ms")


def _check_sums(space: SearchSpace, architecture: Architecture, lines: list[LayerLine], cost: AdditiveCost) -> None:
    genes = encode(space, architecture)
    table = layer_table(space, genes)
    assert sum(line.macs for line in lines) == macs(table)[0]
    assert sum(line.params for line in lines) == parameters(table)[0]
    times = [line.latency for line in lines if line.latency is not None]
    assert sum(times) == pytest.approx(cost.of(space, genes[None])[0], rel=1e-12)


@given(spaces_with_architectures())
@runs(60)
def test_costs_of_layers_add_up_to_those_of_the_network(drawn: tuple[SearchSpace, Architecture]) -> None:
    space, architecture = drawn
    cost = _latency(space)
    _check_sums(space, architecture, layer_lines(space, architecture, cost), cost)


@pytest.mark.parametrize("space", _SPACES, ids=lambda space: space.name)
def test_costs_of_layers_add_up_in_presets(space: SearchSpace) -> None:
    cost = _latency(space)
    for genes in (largest_genes(space), *random_genes(space, 5, np.random.default_rng(1))):
        architecture = decode(space, genes)
        _check_sums(space, architecture, layer_lines(space, architecture, cost), cost)


@given(spaces_with_architectures())
@runs(30)
def test_every_layer_that_is_built_has_a_line_in_the_order_they_run(drawn: tuple[SearchSpace, Architecture]) -> None:
    built = [
        (row.layer.name, row.layer.kind, row.c_in, row.c_out, row.kernel, row.layer.stride)
        for row in architecture_rows(*drawn)
    ]
    lines = layer_lines(*drawn)
    assert [(line.name, line.kind, line.c_in, line.c_out, line.kernel, line.stride) for line in lines] == built
    assert [line.latency for line in lines] == [None] * len(lines)


@given(spaces_with_architectures())
@runs(30)
def test_a_part_is_timed_once_on_its_first_layer(drawn: tuple[SearchSpace, Architecture]) -> None:
    space, architecture = drawn
    blocks = [f"stages.{s}.{b}" for s, stage in enumerate(architecture.stages) for b in range(len(stage.blocks))]
    groups = [list(group) for _, group in groupby(layer_lines(*drawn, _latency(space)), key=lambda line: line.part)]
    assert [group[0].part for group in groups] == ["stem", *blocks, "head"]
    for first, *others in groups:
        assert first.latency is not None
        assert [line.latency for line in others] == [None] * len(others)
        assert all(line.name.startswith(f"{first.part}.") for line in others if first.part != "stem")


def test_a_layer_says_what_it_makes_of_what() -> None:
    space = preset("mobilenet-cifar")
    lines = {line.name: line for line in layer_lines(space, decode(space, largest_genes(space)))}
    depthwise = LayerLine(
        name="stages.1.0.depthwise",
        part="stages.1.0",
        kind="conv",
        c_in=144,
        c_out=144,
        kernel=7,
        stride=2,
        side=16,
        macs=144 * 7**2 * 16**2,
        params=144 * 7**2 + 2 * 144,
    )
    assert lines[depthwise.name] == depthwise
    assert lines["stem.entry"].part == lines["fixed.project"].part == "stem"
    assert (lines["head.classifier"].side, lines["head.classifier"].params) == (1, 1280 * 10 + 10)


def test_an_architecture_of_another_space_is_refused() -> None:
    with pytest.raises(ArchitectureError):
        layer_lines(SMALL, decode(SMALL_RESNET, largest_genes(SMALL_RESNET)))
